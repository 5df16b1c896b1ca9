//! Commands on keys of any type: their life, names and places. What is under them is other files' concern.

use super::expiry::{self, Time};
use crate::machine::args::{self, Args};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::glob;
use crate::machine::keyspace::{DATABASES, Keyspace, Slot, View};
use crate::machine::recency::Use;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::session_events::Reason;
use crate::machine::table::{Renewed, Spec, local, read, write};
use crate::machine::value::session::Lock;
use crate::machine::value::{Encoding, Value};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const COMMANDS: &[Spec] = &[
    write("COPY", "source destination [DB destination-db] [REPLACE]", copy)
        .since("6.2.0")
        .flags("denyoom")
        .summary("Copies a key with its deadline to another name, or to another database."),
    write("DEL", "key [key ...]", del).summary("Removes keys. Replies how many were there."),
    read("EXISTS", "key [key ...]", exists)
        .flags("fast")
        .summary("How many of the keys are there; one named twice counts twice."),
    write("EXPIRE", "key seconds [NX | XX | GT | LT]", expire)
        .flags("fast")
        .renews(renew_seconds)
        .summary("Lets a key end after so many seconds, on a condition if one is named."),
    write("EXPIREAT", "key unix-time-seconds [NX | XX | GT | LT]", expireat)
        .since("1.2.0")
        .flags("fast")
        .summary("Lets a key end at a time in seconds, on a condition if one is named."),
    read("EXPIRETIME", "key", expiretime)
        .since("7.0.0")
        .flags("fast")
        .summary("When a key ends, in seconds since 1970; -1: never, -2: no such key."),
    read("KEYS", "pattern", keys)
        .categories("dangerous")
        .summary("Every key that follows a pattern. Walks them all at once: SCAN does it in pieces."),
    write("MOVE", "key db", move_)
        .flags("fast")
        .summary("Moves a key to another database, unless it is there already."),
    local("OBJECT", "subcommand [argument ...]")
        .since("2.2.3")
        .summary("How the value under a key is kept."),
    read("OBJECT|ENCODING", "key", object_encoding)
        .since("2.2.3")
        .summary("How Redis would hold the value under a key."),
    read("OBJECT|FREQ", "key", object_freq)
        .since("4.0.0")
        .summary("How often a key is used: the logarithm of a number, under an LFU policy."),
    read("OBJECT|HELP", "", object_help)
        .since("6.2.0")
        .flags("loading stale")
        .summary("The subcommands of OBJECT."),
    read("OBJECT|IDLETIME", "key", object_idletime)
        .since("2.2.3")
        .summary("Seconds since a key was last used, as far as this node knows."),
    read("OBJECT|REFCOUNT", "key", object_refcount)
        .since("2.2.3")
        .summary("How many references Redis would count on the value."),
    write("PERSIST", "key", persist)
        .since("2.2.0")
        .flags("fast")
        .summary("Takes away a key's deadline."),
    write("PEXPIRE", "key milliseconds [NX | XX | GT | LT]", pexpire)
        .since("2.6.0")
        .flags("fast")
        .renews(renew_millis)
        .summary("Lets a key end after so many milliseconds, on a condition if one is named."),
    write(
        "PEXPIREAT",
        "key unix-time-milliseconds [NX | XX | GT | LT]",
        pexpireat,
    )
    .since("2.6.0")
    .flags("fast")
    .summary("Lets a key end at a time in milliseconds, on a condition if one is named."),
    read("PEXPIRETIME", "key", pexpiretime)
        .since("7.0.0")
        .flags("fast")
        .summary("When a key ends, in milliseconds since 1970; -1: never, -2: no such key."),
    read("PTTL", "key", pttl)
        .since("2.6.0")
        .flags("fast")
        .summary("How long a key still lives, in milliseconds; -1: for ever, -2: no such key."),
    read("RANDOMKEY", "", randomkey).summary("A key by chance, nil if the database is empty."),
    write("RENAME", "key newkey", rename).summary("Gives a key another name, over whatever has it."),
    write("RENAMENX", "key newkey", renamenx)
        .flags("fast")
        .summary("Gives a key another name, unless a key has it."),
    read("SCAN", "cursor [MATCH pattern] [COUNT count] [TYPE type]", scan)
        .since("2.8.0")
        .summary("A piece of the keys, and the cursor of the next piece."),
    read("TOUCH", "key [key ...]", touch)
        .since("3.2.1")
        .flags("fast")
        .summary("Uses the keys, and replies how many of them are there."),
    read("TTL", "key", ttl)
        .flags("fast")
        .summary("How long a key still lives, in seconds; -1: for ever, -2: no such key."),
    read("TYPE", "key", type_)
        .flags("fast")
        .summary("The type of the value under a key, or none."),
    write("UNLINK", "key [key ...]", del)
        .since("4.0.0")
        .flags("fast")
        .summary("Removes keys: another name of DEL."),
];

pub(super) const SERVER: &[Spec] = &[
    read("DBSIZE", "", dbsize)
        .flags("fast")
        .categories("keyspace")
        .summary("How many keys this database has."),
    write("FLUSHALL", "[ASYNC | SYNC]", flushall)
        .categories("keyspace dangerous")
        .summary("Removes every key of every database."),
    write("FLUSHDB", "[ASYNC | SYNC]", flushdb)
        .categories("keyspace dangerous")
        .summary("Removes every key of this database."),
    write("SWAPDB", "index1 index2", swapdb)
        .since("4.0.0")
        .flags("fast")
        .categories("keyspace dangerous")
        .summary("Exchanges two databases for everybody."),
];

fn del(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let mut removed = 0;
    for key in args.rest() {
        if keys.remove(key).is_some() {
            keys.notify(Classes::GENERIC, "del", key);
            removed += 1;
        }
    }
    Ok(Reply::count(removed))
}

fn exists(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(
        args.rest()
            .iter()
            .filter(|key| view.glance(key).is_some())
            .count(),
    ))
}

fn touch(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(
        args.rest().iter().filter(|key| view.slot(key).is_some()).count(),
    ))
}

fn type_(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Simple(Cow::Borrowed(
        view.glance(args.key()?)
            .map_or("none", |slot| slot.value.type_name()),
    )))
}

fn expire(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    end_at(keys, args, Time::InSeconds, "expire")
}

fn pexpire(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    end_at(keys, args, Time::InMillis, "pexpire")
}

fn expireat(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    end_at(keys, args, Time::AtSeconds, "expireat")
}

fn pexpireat(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    end_at(keys, args, Time::AtMillis, "pexpireat")
}

/// Sets a key's deadline if the conditions admit it; one that has passed removes the key.
fn end_at(
    keys: &mut Keyspace<'_>,
    args: &mut Args<'_>,
    time: Time,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let (key, amount) = (args.key()?, args.bytes()?);
    let conditions = Conditions::parse(args)?;
    let amount = args::integer(amount).ok_or(CommandError::NotAnInteger)?;
    let deadline = time
        .deadline(amount, keys.now())
        .ok_or(CommandError::InvalidExpire(command))?;
    let deadline = Millis::try_from(deadline).unwrap_or(0);
    let now = keys.now();
    let Some(old) = keys.view().slot(key).map(|slot| slot.end.shown(now)) else {
        return Ok(Reply::Integer(0));
    };
    let admitted = conditions.admit(old, deadline);
    if admitted {
        let end = time.end(keys, key, deadline);
        expiry::end_at(keys, key, end);
    }
    Ok(Reply::flag(admitted))
}

fn renew_seconds(view: &View<'_>, args: &mut Args<'_>) -> Option<Renewed> {
    renew(view, args, Time::InSeconds)
}

fn renew_millis(view: &View<'_>, args: &mut Args<'_>) -> Option<Renewed> {
    renew(view, args, Time::InMillis)
}

/// What `EXPIRE` and `PEXPIRE` answer where the key has that life already. It has a deadline then, so that of the conditions `XX` alone is met.
fn renew(view: &View<'_>, args: &mut Args<'_>, time: Time) -> Option<Renewed> {
    let (key, amount) = (args.key().ok()?, args.bytes().ok()?);
    let conditions = Conditions::parse(args).ok()?;
    if conditions.without || conditions.later || conditions.earlier {
        return None;
    }
    expiry::renewed(view, key, time, amount, || {
        view.slot(key).map(|_| Reply::Integer(1))
    })
}

/// `NX XX GT LT` of the four `EXPIRE`s.
#[derive(Default)]
struct Conditions {
    without: bool,
    with: bool,
    later: bool,
    earlier: bool,
}

impl Conditions {
    fn parse(args: &mut Args<'_>) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        while !args.is_empty() {
            if args.keyword("NX") {
                conditions.without = true;
            } else if args.keyword("XX") {
                conditions.with = true;
            } else if args.keyword("GT") {
                conditions.later = true;
            } else if args.keyword("LT") {
                conditions.earlier = true;
            } else {
                let option = String::from_utf8_lossy(args.bytes()?);
                return Err(CommandError::Other(
                    format!("ERR Unsupported option {option}").into(),
                ));
            }
        }
        if conditions.without && (conditions.with || conditions.later || conditions.earlier) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.later && conditions.earlier {
            return Err(CommandError::text(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// Whether this deadline may take the place of the old one. None is later than any.
    fn admit(&self, old: Option<Millis>, new: Millis) -> bool {
        !(self.without && old.is_some()
            || self.with && old.is_none()
            || self.later && old.is_none_or(|old| new <= old)
            || self.earlier && old.is_some_and(|old| new >= old))
    }
}

fn persist(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    Ok(Reply::flag(expiry::persist(keys, key)))
}

fn ttl(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // Rounded to the nearest second, as Redis does.
    let now = view.now();
    life(view, args, |deadline| (deadline - now).saturating_add(500) / 1000)
}

fn pttl(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let now = view.now();
    life(view, args, |deadline| deadline - now)
}

fn expiretime(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    life(view, args, |deadline| deadline.saturating_add(500) / 1000)
}

fn pexpiretime(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    life(view, args, |deadline| deadline)
}

/// What is `shown` of a living key's deadline, which does not lie before now; -1 without one, -2 without a key.
fn life(
    view: &View<'_>,
    args: &mut Args<'_>,
    shown: impl Fn(Millis) -> Millis,
) -> Result<Reply, CommandError> {
    let end = view.glance(args.key()?).map(|slot| slot.end.shown(view.now()));
    Ok(Reply::Integer(match end {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => i64::try_from(shown(deadline)).unwrap_or(i64::MAX),
    }))
}

fn rename(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = (args.key()?, args.key()?);
    if keys.view().slot(from).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    if from != to {
        move_name(keys, from, to);
    }
    Ok(Reply::OK)
}

fn renamenx(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = (args.key()?, args.key()?);
    let view = keys.view();
    if view.slot(from).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    let free = view.slot(to).is_none();
    if free {
        move_name(keys, from, to);
    }
    Ok(Reply::flag(free))
}

/// Gives a key another name, and tells of it.
fn move_name(keys: &mut Keyspace<'_>, from: &[u8], to: &[u8]) {
    keys.rename(from, to);
    keys.notify(Classes::GENERIC, "rename_from", from);
    keys.notify(Classes::GENERIC, "rename_to", to);
}

fn copy(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = (args.key()?, args.key()?);
    let (mut db, mut replace) = (keys.db(), false);
    while !args.is_empty() {
        if args.keyword("REPLACE") {
            replace = true;
        } else if args.remaining() > 1 && args.keyword("DB") {
            db = database(args.bytes()?)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let placed = place(keys, from, db, to, replace, |keys, value| {
        // Whoever holds the lock of one session has that one alone.
        if let Value::Session(session) = value
            && keys.settings().level > 3
        {
            Arc::make_mut(session).lock = Lock::default();
        }
    })?;
    if placed {
        keys.of(db).notify(Classes::GENERIC, "copy_to", to);
    }
    Ok(Reply::flag(placed))
}

fn move_(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, db) = (args.key()?, database(args.bytes()?)?);
    let recency = keys.view().slot(key).map(|slot| slot.recency.clone());
    let placed = place(keys, key, db, key, false, |keys, _| {
        keys.move_away(key, Reason::Administrator);
    })?;
    if let (true, Some(recency)) = (placed, recency) {
        keys.of(db).inherit_use(key, &recency);
        keys.notify(Classes::GENERIC, "move_from", key);
        keys.of(db).notify(Classes::GENERIC, "move_to", key);
    }
    Ok(Reply::flag(placed))
}

/// Puts what is under `from` under `to` in database `db`, then lets `done` see to the source and to what is placed. Whether there was a place.
fn place(
    keys: &mut Keyspace<'_>,
    from: &[u8],
    db: u8,
    to: &[u8],
    replace: bool,
    done: impl FnOnce(&mut Keyspace<'_>, &mut Value),
) -> Result<bool, CommandError> {
    if keys.db() == db && from == to {
        return Err(CommandError::text(
            "ERR source and destination objects are the same",
        ));
    }
    let view = keys.view();
    let Some(Slot { mut value, end, .. }) = view.slot(from).cloned() else {
        return Ok(false);
    };
    if !replace && view.of(db).slot(to).is_some() {
        return Ok(false);
    }
    done(keys, &mut value);
    keys.of(db).put_until(to, value, end);
    Ok(true)
}

/// A database by its number.
fn database(number: &[u8]) -> Result<u8, CommandError> {
    let number = args::integer(number).ok_or(CommandError::NotAnInteger)?;
    if i32::try_from(number).is_err() {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    known(number)
}

fn known(number: i64) -> Result<u8, CommandError> {
    u8::try_from(number)
        .ok()
        .filter(|db| usize::from(*db) < DATABASES)
        .ok_or(CommandError::text("ERR DB index is out of range"))
}

fn keys(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let pattern = args.bytes()?;
    let found = view.keys().filter(|(key, _)| glob::matches(pattern, key));
    Ok(Reply::Array(
        found
            .map(|(key, _)| Reply::Bulk(Bytes::copy_from_slice(key)))
            .collect(),
    ))
}

fn randomkey(view: &View<'_>, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::bulk_or_nil(
        view.random_key(view.chance()).map(Bytes::copy_from_slice),
    ))
}

/// Keys looked at by one `SCAN` that does not say `COUNT`.
const SCAN_COUNT: i64 = 10;

fn scan(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let cursor = args.cursor()?;
    let (mut count, mut pattern, mut of_type) = (SCAN_COUNT, None, None);
    while !args.is_empty() {
        if args.remaining() < 2 {
            return Err(CommandError::Syntax);
        }
        if args.keyword("COUNT") {
            count = args.integer()?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
        } else if args.keyword("MATCH") {
            pattern = Some(args.bytes()?);
        } else if args.keyword("TYPE") {
            of_type = Some(args.bytes()?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (next, found) = view.scan(cursor, usize::try_from(count).unwrap_or(usize::MAX));
    let wanted = |(key, slot): &(&[u8], &Slot)| {
        pattern.is_none_or(|pattern| glob::matches(pattern, key))
            && of_type.is_none_or(|name| name.eq_ignore_ascii_case(slot.value.type_name().as_bytes()))
    };
    let found = found
        .into_iter()
        .filter(wanted)
        .map(|(key, _)| Reply::Bulk(Bytes::copy_from_slice(key)))
        .collect();
    Ok(Reply::Array(vec![
        Reply::bulk(next.to_string()),
        Reply::Array(found),
    ]))
}

fn object_encoding(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let slot = view.glance(args.key()?);
    Ok(slot.map_or(Reply::Nil, |slot| Reply::bulk(slot.value.encoding())))
}

/// Integers that every Redis shares between all keys, up to this one exclusive.
const SHARED_INTEGERS: i64 = 10_000;

fn object_refcount(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // What each key's use is noted for is shared by none.
    let settings = view.settings();
    let each_its_own = settings.maxmemory > 0 && settings.maxmemory_policy.needs_uses();
    let shared = |value: &Value| {
        let Value::String(string) = value else {
            return false;
        };
        if each_its_own {
            return false;
        }
        string.encoding() == Encoding::Int
            && args::integer(string.bytes()).is_some_and(|number| (0..SHARED_INTEGERS).contains(&number))
    };
    Ok(view.glance(args.key()?).map_or(Reply::Nil, |slot| {
        // A shared object is not counted at all and says so with the greatest number.
        Reply::Integer(if shared(&slot.value) {
            i64::from(i32::MAX)
        } else {
            1
        })
    }))
}

fn object_idletime(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    const COUNTED: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at \
         runtime LRU and LFU data will take some time to adjust.",
    );
    let used = last_use(view, args)?;
    if used.is_some() && view.settings().maxmemory_policy.counts_uses() {
        return Err(COUNTED);
    }
    Ok(used.map_or(Reply::Nil, |used| {
        Reply::Integer((used.idle_ms / 1000).cast_signed())
    }))
}

fn object_freq(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    const NOT_COUNTED: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
         policies at runtime LRU and LFU data will take some time to adjust.",
    );
    let used = last_use(view, args)?;
    if used.is_some() && !view.settings().maxmemory_policy.counts_uses() {
        return Err(NOT_COUNTED);
    }
    Ok(used.map_or(Reply::Nil, |used| Reply::Integer(used.frequency.into())))
}

/// What is known of a key's use; asking is none.
fn last_use(view: &View<'_>, args: &mut Args<'_>) -> Result<Option<Use>, CommandError> {
    let slot = view.glance(args.key()?);
    Ok(slot.map(|slot| slot.recency.at(view.now(), view.settings())))
}

fn object_help(_: &View<'_>, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    let lines = [
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    How Redis would hold the value under the key.",
        "FREQ <key>",
        "    How often the key is used, under an LFU policy: the logarithm of a number.",
        "IDLETIME <key>",
        "    Seconds since the key was last used: by a write anywhere, or by a read on this node.",
        "REFCOUNT <key>",
        "    How many references Redis would count on the value.",
        "HELP",
        "    These lines.",
    ];
    Ok(Reply::Array(
        lines
            .into_iter()
            .map(|line| Reply::Simple(Cow::Borrowed(line)))
            .collect(),
    ))
}

fn dbsize(view: &View<'_>, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(view.store().counts(view.db()).0))
}

fn flushdb(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    flush_options(args)?;
    keys.flush();
    Ok(Reply::OK)
}

fn flushall(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    flush_options(args)?;
    for db in (0u8..).take(DATABASES) {
        keys.of(db).flush();
    }
    Ok(Reply::OK)
}

/// One word, and it changes nothing: emptying a database is letting go of its shards.
fn flush_options(args: &mut Args<'_>) -> Result<(), CommandError> {
    let _ = args.keyword("ASYNC") || args.keyword("SYNC");
    args.end()
}

fn swapdb(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // Both must be numbers before either is looked for.
    let number = |args: &mut Args<'_>, refused| {
        let number = args::integer(args.bytes()?).filter(|number| i32::try_from(*number).is_ok());
        number.ok_or(CommandError::text(refused))
    };
    let left = number(args, "ERR invalid first DB index")?;
    let right = number(args, "ERR invalid second DB index")?;
    keys.swap(known(left)?, known(right)?);
    Ok(Reply::OK)
}
