//! Entries of the cache: values with a life, a time for which they are fresh, and tags; leases on the next value, which are locks as well.
//!
//! Plenary's own; Redis has none of them. How an entry stands under its key: [`crate::machine::cached`].
//!
//! A lease says who may make the next value of a key. Its token is a number that only grows, of all leases of the cluster; who waits for one is served in
//! the order of the log, at once when the lease is given back, when the value is put, or when the lease has ended by the log's clock. A lease on a key that
//! never gets a value is a lock.
//!
//! Only `CACHE.INVALIDATE` is for scripts: the tags that the others look at are not in their arguments, and tokens are given out by the log.

use super::expiry::Time;
use crate::machine::args::Args;
use crate::machine::cached::{self, Entry, FRESH, LEASE, VALUE};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, counted_keys, read, write};
use crate::machine::value::{Hash, Kind, Value};
use crate::machine::waiting::Otherwise;
use bytes::Bytes;
use std::slice;

/// Tags of one entry, at most: every read looks at each of them.
const TAGS_MAX: usize = 64;

/// The longest name of a tag, in bytes: each of its entries holds it.
const TAG_BYTES_MAX: usize = 512;

const SINCE: &str = "plenary 0.1.0";

pub(super) const COMMANDS: &[Spec] = &[
    write("CACHE.EXTEND", "key token milliseconds", extend)
        .since(SINCE)
        .flags("fast noscript")
        .summary("Lets a lease last for so long from now; 0 if it is over."),
    read("CACHE.GET", "key", get)
        .since(SINCE)
        .flags("fast noscript")
        .summary("The value of an entry, fresh or stale, or of a string; nil if it has ended or a tag of it was invalidated."),
    write("CACHE.INVALIDATE", "tag [tag ...]", invalidate)
        .since(SINCE)
        .flags("fast")
        .summary("Ends every entry that has one of these tags, at once and however many there are; how many of the tags were in use."),
    write("CACHE.LEASE", "key milliseconds [WAIT milliseconds] [TAGS numtags tag [tag ...]]", lease)
        .since(SINCE)
        .flags("noscript blocking movablekeys")
        .finder(tagged_keys)
        .in_line()
        .summary(
            "Value, whether it is fresh, and a token if the caller is to make the next value; waits while another does and there is none.",
        ),
    write("CACHE.RELEASE", "key token [FRESH milliseconds]", release)
        .since(SINCE)
        .flags("fast noscript")
        .summary("Gives a lease back, so that the next who waits has it at once; 0 if it is over."),
    write(
        "CACHE.SET",
        "key value [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds] [FRESH milliseconds] \
         [LEASE token] [TAGS numtags tag [tag ...]]",
        set,
    )
    .since(SINCE)
    .flags("denyoom noscript movablekeys")
    .finder(tagged_keys)
    .summary("Puts an entry; with LEASE nil, and nothing is put, if that is over or a tag was invalidated since it began."),
];

/// The key, and the tags behind each `TAGS`: the last ones count, and the others are looked at.
fn tagged_keys(argv: &[Bytes]) -> Vec<usize> {
    // CACHE.SET has a value behind the key, CACHE.LEASE a time; from there on every option has one argument, or counts its tags.
    let (mut keys, mut at) = (vec![1], 3);
    while let Some(word) = argv.get(at) {
        at += 2;
        if word.eq_ignore_ascii_case(b"TAGS") {
            let tags = counted_keys(argv, at - 1);
            at += tags.len();
            keys.extend(tags);
        }
    }
    keys
}

fn get(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let entry = cached::find(view, args.key()?)?;
    Ok(Reply::bulk_or_nil(entry.and_then(|entry| entry.value)))
}

fn set(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    const NO_END: CommandError = CommandError::text(
        "ERR an entry with tags needs a life: it would stay for ever once they are invalidated",
    );
    let (key, value, now) = (args.key()?, args.bytes()?, keys.now());
    let (mut deadline, mut fresh_until, mut token) = (None, None, None);
    let mut tags = &[][..];
    while !args.is_empty() {
        if token.is_none() && args.keyword("LEASE") {
            token = Some(token_of(args)?);
        } else if fresh_until.is_none() && args.keyword("FRESH") {
            fresh_until = Some(after(args, now, "cache.set")?);
        } else if args.keyword("TAGS") {
            tags = tags_of(keys, key, args)?;
        } else if deadline.is_none()
            && let Some(time) = Time::keyword(args)
        {
            deadline = Some(time.positive_deadline(args.bytes()?, now, "cache.set")?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if !tags.is_empty() && deadline.is_none() {
        return Err(NO_END);
    }
    if let Some(token) = token {
        if holder(keys, key)? != Some(token) {
            return Ok(Reply::Nil);
        }
        if !tags_stood_since(keys, tags, token) {
            give_back(keys, key, None);
            return Ok(Reply::Nil);
        }
    }
    let mut entry = Hash::default();
    entry.set(VALUE, value);
    if let Some(until) = fresh_until {
        entry.set(FRESH, until.to_string().as_bytes());
    }
    for tag in tags {
        let number = join(keys, tag, deadline.unwrap_or(now));
        entry.set(&cached::tag_field(tag), &number);
    }
    keys.put_until(key, entry.into_value(), deadline);
    keys.notify(Classes::MODULE, "cache.set", key);
    Ok(Reply::OK)
}

/// Whether none of the tags was taken away since a lease was given: its token is greater than every number of that time, less than every later one.
fn tags_stood_since(keys: &Keyspace<'_>, tags: &[Bytes], token: u64) -> bool {
    let number = |tag: &Bytes| cached::tag_number(&keys.view(), tag).ok().flatten();
    tags.iter()
        .all(|tag| number(tag).is_some_and(|number| number < token))
}

/// Replies value, 1 if it is fresh, token; nils where there is none. Who finds a stale value never waits.
fn lease(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, now) = (args.key()?, keys.now());
    let until = after(args, now, "cache.lease")?;
    let (mut give_up, mut tags) = (None, &[][..]);
    while !args.is_empty() {
        if give_up.is_none() && args.keyword("WAIT") {
            give_up = Some(after(args, now, "cache.lease")?);
        } else if args.keyword("TAGS") {
            tags = tags_of(keys, key, args)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let found = cached::find(&keys.view(), key)?;
    let (value, fresh, taken) = found.map_or((None, false, false), |entry: Entry| {
        (entry.value, entry.fresh, entry.lease.is_some())
    });
    let fresh = fresh && value.is_some();
    if fresh || taken && value.is_some() {
        return Ok(answer(value, fresh, None));
    }
    // The first who waits is served as soon as a holder whose time is over is taken away.
    let queued = keys.settings().level > 3 && keys.others_wait(key, b"CACHE.LEASE");
    if taken || queued && value.is_none() {
        return Ok(match give_up {
            Some(_) => {
                keys.wait_even_if_gone(slice::from_ref(key), args.argv(), give_up, Otherwise::NilArray)
            }
            None => Reply::NilArray,
        });
    }
    for tag in tags {
        join(keys, tag, until);
    }
    let token = keys.view().store().revision() + 1;
    if value.is_none() {
        // Also in place of a value whose tags were invalidated.
        let mut entry = Hash::default();
        entry.set(LEASE, b"");
        keys.put(key, entry.into_value());
    }
    hold(keys, key, token, until);
    keys.notify(Classes::MODULE, "cache.lease", key);
    Ok(answer(value, false, Some(token)))
}

fn answer(value: Option<Bytes>, fresh: bool, token: Option<u64>) -> Reply {
    let token = token.and_then(|token| i64::try_from(token).ok());
    Reply::Array(vec![
        Reply::bulk_or_nil(value),
        Reply::flag(fresh),
        token.map_or(Reply::Nil, Reply::Integer),
    ])
}

fn extend(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, token) = (args.key()?, token_of(args)?);
    let until = after(args, keys.now(), "cache.extend")?;
    let held = holder(keys, key)? == Some(token);
    if held {
        hold(keys, key, token, until);
        keys.notify(Classes::MODULE, "cache.extend", key);
    }
    Ok(Reply::flag(held))
}

/// With `FRESH` a stale value counts as fresh for so long: whoever could not make a new one spares the others the attempt.
fn release(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, token) = (args.key()?, token_of(args)?);
    let fresh_until = if args.keyword("FRESH") {
        Some(after(args, keys.now(), "cache.release")?)
    } else {
        None
    };
    args.end()?;
    let held = holder(keys, key)? == Some(token);
    if held {
        give_back(keys, key, fresh_until);
        keys.notify(Classes::MODULE, "cache.release", key);
    }
    Ok(Reply::flag(held))
}

/// Looks at every tag before it removes one: where something else stands under its key, nothing has changed.
fn invalidate(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let tags = args.rest();
    for tag in tags {
        cached::tag_number(&keys.view(), tag)?;
    }
    let mut gone = 0;
    for tag in tags {
        if keys.remove(tag).is_some() {
            keys.notify(Classes::MODULE, "cache.invalidate", tag);
            gone += 1;
        }
    }
    Ok(Reply::count(gone))
}

/// Who may put the next value of a key.
fn holder(keys: &Keyspace<'_>, key: &[u8]) -> Result<Option<u64>, CommandError> {
    Ok(cached::find(&keys.view(), key)?.and_then(|entry| entry.lease))
}

/// Enters a lease into the entry of a key. An entry that would end before it is kept until then, without its value.
fn hold(keys: &mut Keyspace<'_>, key: &[u8], token: u64, until: Millis) {
    let deadline = keys.view().find(key).and_then(|slot| slot.deadline());
    let ends = deadline.filter(|ends| *ends <= until);
    let enter = |entry: &mut Hash| {
        entry.set(LEASE, token.to_string().as_bytes());
        entry.set_deadline(LEASE, Some(until));
        if ends.is_some() && entry.deadline(VALUE).is_none() {
            entry.set_deadline(VALUE, ends);
        }
    };
    keys.change_hash(key, enter)
        .expect("an entry that can have a lease is a hash");
    if ends.is_some() {
        keys.set_deadline(key, Some(until));
    }
}

/// Takes the lease out of an entry, and the entry away where it has no value.
fn give_back(keys: &mut Keyspace<'_>, key: &[u8], fresh_until: Option<Millis>) {
    let entry = cached::find(&keys.view(), key);
    if !matches!(entry, Ok(Some(Entry { value: Some(_), .. }))) {
        keys.remove(key);
        return;
    }
    let leave = |entry: &mut Hash| {
        entry.remove(LEASE);
        if let Some(until) = fresh_until {
            entry.set(FRESH, until.to_string().as_bytes());
        }
    };
    keys.change_hash(key, leave)
        .expect("an entry that has a lease is a hash");
}

/// Makes a tag that is not there, and lets it live until `until` at least. Its number.
fn join(keys: &mut Keyspace<'_>, tag: &[u8], until: Millis) -> Bytes {
    // Twice as long as this entry needs it, so that few entries have to prolong it.
    let now = keys.now();
    let later = until.saturating_add(until.saturating_sub(now));
    let later = Some(later.min(i64::MAX.unsigned_abs()));
    if let Some(slot) = keys.view().slot(tag)
        && let Value::String(number) = &slot.value
    {
        let (number, ends) = (number.bytes().clone(), slot.deadline());
        if ends.is_some_and(|ends| ends < until) {
            keys.set_deadline(tag, later);
        }
        return number;
    }
    // The version that the key gets: no change before or after has it.
    let number = (keys.view().store().revision() + 1).to_string();
    keys.put_until(tag, Value::string(number.as_bytes()), later);
    number.into()
}

/// A count and so many tags, each of which can be one.
fn tags_of<'a>(keys: &Keyspace<'_>, key: &Bytes, args: &mut Args<'a>) -> Result<&'a [Bytes], CommandError> {
    const COUNT: CommandError = CommandError::text("ERR an entry has 1 to 64 tags");
    const LENGTH: CommandError = CommandError::text("ERR the name of a tag is longer than 512 bytes");
    const ITSELF: CommandError = CommandError::text("ERR an entry cannot be a tag of itself");
    let count = usize::try_from(args.integer()?).map_err(|_| COUNT)?;
    if count == 0 || count > TAGS_MAX {
        return Err(COUNT);
    }
    let tags = args.many(count)?;
    for tag in tags {
        if tag.len() > TAG_BYTES_MAX {
            return Err(LENGTH);
        }
        if tag == key {
            return Err(ITSELF);
        }
        cached::tag_number(&keys.view(), tag)?;
    }
    Ok(tags)
}

fn token_of(args: &mut Args<'_>) -> Result<u64, CommandError> {
    u64::try_from(args.integer()?).map_err(|_| CommandError::NotAnInteger)
}

/// So many milliseconds from now, at least one.
fn after(args: &mut Args<'_>, now: Millis, command: &'static str) -> Result<Millis, CommandError> {
    Time::InMillis.positive_deadline(args.bytes()?, now, command)
}
