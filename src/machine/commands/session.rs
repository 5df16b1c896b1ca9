//! Session commands: what a web session is and what can happen to it, the same from Rust and from any Redis client.
//!
//! Plenary's own; Redis has none of them. A session ends when it was not used for its idle timeout, at its absolute deadline, or
//! by `SESSION.END`; nothing brings it back. `DEL`, `PEXPIRE` and `RENAME` work on it as on any key; the next use sets the deadline anew.
//! Locks, merging by item, events and an index of owners are not here.

use crate::machine::args::Args;
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::{Session, Value};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

/// The longest name of an item, in bytes: it is a name.
const ITEM_NAME_BYTES_MAX: usize = 256;

/// The largest item, in bytes.
const ITEM_BYTES_MAX: usize = 1 << 20;

/// The largest session, in bytes of items, names and owner: every save replicates, and every load hands out, at most this much.
const SESSION_BYTES_MAX: usize = 4 << 20;

/// The most items of a session.
const ITEMS_MAX: usize = 1_024;

/// The longest owner, in bytes.
const OWNER_BYTES_MAX: usize = 256;

const SINCE: &str = "plenary 0.1.0";

pub(super) const COMMANDS: &[Spec] = &[
    write(
        "SESSION.CREATE",
        "key idle-ms [ABSOLUTE ms | UNTIL unix-time-ms] [OWNER user] [ITEMS count name value [name value ...]]",
        create,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Creates a session unless there is one; its version, 1, or nil."),
    write("SESSION.END", "key [key ...]", end)
        .since(SINCE)
        .flags("fast")
        .summary("Ends sessions; how many there were."),
    read("SESSION.GET", "key name [name ...]", get)
        .since(SINCE)
        .flags("fast")
        .summary("Items of a session, nil where there is none; nil alone if it has ended."),
    read("SESSION.LOAD", "key", load)
        .since(SINCE)
        .summary("A session whole: version, created, idle, absolute, deadline, owner, items; nil if it has ended."),
    write("SESSION.RENAME", "key newkey", rename)
        .since(SINCE)
        .flags("fast")
        .summary("Gives a session another id; 0, and nothing has changed, if that is taken."),
    write(
        "SESSION.SAVE",
        "key version [IDLE ms] [ABSOLUTE ms | UNTIL unix-time-ms] [OWNER user] [REPLACE] [DEL count name [name ...]] \
         [SET count name value [name value ...]]",
        save,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Changes a session that is at this version (*: any) and renews its life; the new version."),
    write("SESSION.TOUCH", "key [key ...]", touch)
        .since(SINCE)
        .flags("fast")
        .summary("Renews the life of sessions; how many there were."),
    read("SESSION.TTL", "key", ttl)
        .since(SINCE)
        .flags("fast")
        .summary("How long a session lives unless it is used, in milliseconds; -1: for ever, -2: it has ended."),
];

/// Replies 1, the version, or nil where the key is taken: a session is never overwritten.
fn create(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, now) = (args.key()?, keys.now());
    let mut session = Session {
        created_at: now,
        version: 1,
        ..Session::default()
    };
    session.idle_timeout_ms = lifetime(args, now, "session.create")?;
    let mut seen = Seen::default();
    while !args.is_empty() {
        if let Some(deadline) = absolute_deadline(args, &mut seen, now, "session.create")? {
            session.absolute_deadline = deadline;
        } else if args.keyword("OWNER") {
            seen.once("OWNER")?;
            session.owner = owner(args)?;
        } else if args.keyword("ITEMS") {
            seen.once("ITEMS")?;
            for [name, value] in pairs(args)? {
                session.items.set(name, value);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    admit(&session)?;
    if keys.view().slot(key).is_some() {
        return Ok(Reply::Nil);
    }
    let deadline = session.deadline_after_use(now);
    keys.put_until(key, Value::Session(Arc::new(session)), deadline);
    keys.notify(Classes::MODULE, "session.create", key);
    Ok(Reply::Integer(1))
}

/// What a save is to change.
#[derive(Default)]
struct Changes<'a> {
    idle_timeout_ms: Option<u64>,
    absolute_deadline: Option<Millis>,
    owner: Option<Bytes>,
    replace: bool,
    removed: &'a [Bytes],
    set: &'a [[Bytes; 2]],
}

impl<'a> Changes<'a> {
    fn parse(args: &mut Args<'a>, now: Millis) -> Result<Self, CommandError> {
        let (mut changes, mut seen) = (Self::default(), Seen::default());
        while !args.is_empty() {
            if let Some(deadline) = absolute_deadline(args, &mut seen, now, "session.save")? {
                changes.absolute_deadline = Some(deadline);
            } else if args.keyword("IDLE") {
                seen.once("IDLE")?;
                changes.idle_timeout_ms = Some(lifetime(args, now, "session.save")?);
            } else if args.keyword("OWNER") {
                seen.once("OWNER")?;
                changes.owner = Some(owner(args)?);
            } else if args.keyword("REPLACE") {
                seen.once("REPLACE")?;
                changes.replace = true;
            } else if args.keyword("DEL") {
                seen.once("DEL")?;
                changes.removed = counted(args, 1)?;
            } else if args.keyword("SET") {
                seen.once("SET")?;
                changes.set = pairs(args)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(changes)
    }

    /// The session as it is after them. Items are removed before others are set.
    fn apply(self, session: &Session) -> Session {
        let mut session = session.clone();
        session.version += 1;
        session.idle_timeout_ms = self.idle_timeout_ms.unwrap_or(session.idle_timeout_ms);
        session.absolute_deadline = self.absolute_deadline.unwrap_or(session.absolute_deadline);
        session.owner = self.owner.unwrap_or(session.owner);
        if self.replace {
            session.items = Default::default();
        }
        for name in self.removed {
            session.items.remove(name);
        }
        for [name, value] in self.set {
            session.items.set(name, value);
        }
        session
    }
}

fn save(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, now) = (args.key()?, keys.now());
    let version = if args.keyword("*") {
        None
    } else {
        Some(u64::try_from(args.integer()?).map_err(|_| CommandError::NotAnInteger)?)
    };
    let changes = Changes::parse(args, now)?;
    let session = keys.view().session(key)?.ok_or_else(no_session)?;
    if version.is_some_and(|version| version != session.version) {
        let text = format!("STALESESSION the session is at version {}", session.version);
        return Err(CommandError::Other(Cow::Owned(text)));
    }
    let session = changes.apply(session);
    admit(&session)?;
    let (version, deadline) = (integer(session.version), session.deadline_after_use(now));
    keys.put_until(key, Value::Session(Arc::new(session)), deadline);
    keys.notify(Classes::MODULE, "session.save", key);
    Ok(version)
}

/// Looks at every key before it changes one: where one holds another type, nothing has changed.
fn touch(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let named = args.rest();
    for key in named {
        keys.view().session(key)?;
    }
    let (mut there, now) = (0, keys.now());
    for key in named {
        // None for a session that an earlier key of this command has ended: its absolute deadline had passed.
        if let Some(session) = keys.view().session(key)? {
            let deadline = session.deadline_after_use(now);
            if keys.set_deadline(key, deadline) {
                keys.notify(Classes::MODULE, "session.touch", key);
            }
            there += 1;
        }
    }
    Ok(Reply::Integer(there))
}

/// Looks at every key before it removes one: where one holds another type, nothing has changed.
fn end(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let named = args.rest();
    for key in named {
        keys.view().session(key)?;
    }
    let mut ended = 0;
    for key in named {
        if keys.remove(key).is_some() {
            keys.notify(Classes::MODULE, "session.end", key);
            keys.notify(Classes::GENERIC, "del", key);
            ended += 1;
        }
    }
    Ok(Reply::count(ended))
}

/// Keeps version and deadline; the old id is gone in the same step, so nobody who knew it can follow.
fn rename(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = (args.key()?, args.key()?);
    keys.view().session(from)?.ok_or_else(no_session)?;
    if keys.view().slot(to).is_some() {
        return Ok(Reply::Integer(0));
    }
    keys.rename(from, to);
    keys.notify(Classes::GENERIC, "rename_from", from);
    keys.notify(Classes::GENERIC, "rename_to", to);
    Ok(Reply::Integer(1))
}

fn get(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let Some(session) = view.session(args.key()?)? else {
        return Ok(Reply::NilArray);
    };
    let values = args.rest().iter().map(|name| session.items.get(name).cloned());
    Ok(Reply::Array(values.map(Reply::bulk_or_nil).collect()))
}

/// Times are milliseconds of the log's clock, 0 where there is none; the owner is empty where there is none.
fn load(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let Some(session) = view.session(key)? else {
        return Ok(Reply::NilArray);
    };
    let deadline = view.slot(key).and_then(|slot| slot.deadline).unwrap_or(0);
    let items = session
        .items
        .iter()
        .map(|(name, value)| (Reply::Bulk(name.clone()), Reply::Bulk(value.clone())));
    let pairs = [
        ("version", integer(session.version)),
        ("created", integer(session.created_at)),
        ("idle", integer(session.idle_timeout_ms)),
        ("absolute", integer(session.absolute_deadline)),
        ("deadline", integer(deadline)),
        ("owner", Reply::Bulk(session.owner.clone())),
        ("items", Reply::Map(items.collect())),
    ];
    Ok(Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    ))
}

fn ttl(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, view) = (args.key()?, view.quietly());
    if view.session(key)?.is_none() {
        return Ok(Reply::Integer(-2));
    }
    let deadline = view.slot(key).and_then(|slot| slot.deadline);
    Ok(deadline.map_or(Reply::Integer(-1), |deadline| {
        integer(deadline.saturating_sub(view.now()))
    }))
}

fn no_session() -> CommandError {
    CommandError::text("NOSESSION no such session")
}

/// A number of ours as a reply; those beyond the signed range, which only a broken clock can make, as its end.
fn integer(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The options that were read: each may be said once.
#[derive(Default)]
struct Seen(Vec<&'static str>);

impl Seen {
    fn once(&mut self, option: &'static str) -> Result<(), CommandError> {
        if self.0.contains(&option) {
            return Err(CommandError::Syntax);
        }
        self.0.push(option);
        Ok(())
    }
}

/// A length of life in milliseconds, 0 for one without end.
fn lifetime(args: &mut Args<'_>, now: Millis, command: &'static str) -> Result<u64, CommandError> {
    let ms = u64::try_from(args.integer()?).map_err(|_| CommandError::InvalidExpire(command))?;
    match i64::try_from(now.saturating_add(ms)) {
        Ok(_) => Ok(ms),
        Err(_) => Err(CommandError::InvalidExpire(command)),
    }
}

/// Reads `ABSOLUTE ms` (from now on) or `UNTIL unix-time-ms` if it comes next: when the session ends at the latest, 0 for never.
fn absolute_deadline(
    args: &mut Args<'_>,
    seen: &mut Seen,
    now: Millis,
    command: &'static str,
) -> Result<Option<Millis>, CommandError> {
    if args.keyword("ABSOLUTE") {
        seen.once("ABSOLUTE")?;
        let ms = lifetime(args, now, command)?;
        return Ok(Some(if ms == 0 { 0 } else { now + ms }));
    }
    if args.keyword("UNTIL") {
        seen.once("ABSOLUTE")?;
        let at = Millis::try_from(args.integer()?).map_err(|_| CommandError::InvalidExpire(command))?;
        return Ok(Some(at));
    }
    Ok(None)
}

fn owner(args: &mut Args<'_>) -> Result<Bytes, CommandError> {
    let owner = args.bytes()?;
    if owner.len() > OWNER_BYTES_MAX {
        return Err(over("the owner is", OWNER_BYTES_MAX, "bytes"));
    }
    // Copied, so that it does not pin the group it came in.
    Ok(Bytes::copy_from_slice(owner))
}

/// A count, and `each` arguments for every one counted.
fn counted<'a>(args: &mut Args<'a>, each: usize) -> Result<&'a [Bytes], CommandError> {
    let count = usize::try_from(args.integer()?).map_err(|_| CommandError::Syntax)?;
    args.many(count.checked_mul(each).ok_or(CommandError::Syntax)?)
}

/// A count, and so many names with their values.
fn pairs<'a>(args: &mut Args<'a>) -> Result<&'a [[Bytes; 2]], CommandError> {
    let (pairs, _) = counted(args, 2)?.as_chunks();
    for [name, value] in pairs {
        if name.len() > ITEM_NAME_BYTES_MAX {
            return Err(over("an item's name is", ITEM_NAME_BYTES_MAX, "bytes"));
        }
        if value.len() > ITEM_BYTES_MAX {
            return Err(over("an item is", ITEM_BYTES_MAX, "bytes"));
        }
    }
    Ok(pairs)
}

/// Refuses a session that would be too large.
fn admit(session: &Session) -> Result<(), CommandError> {
    if session.items.len() > ITEMS_MAX {
        return Err(over("it would have", ITEMS_MAX, "items"));
    }
    if session.bytes() > SESSION_BYTES_MAX {
        return Err(over("it would be", SESSION_BYTES_MAX, "bytes"));
    }
    Ok(())
}

fn over(what: &str, limit: usize, unit: &str) -> CommandError {
    CommandError::Other(Cow::Owned(format!(
        "ERR session too large: {what} over {limit} {unit}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::entry::{Command, Entry, Origin};
    use crate::machine::{Machine, Outcome};

    fn reply(machine: &mut Machine, argv: &[&[u8]]) -> Reply {
        let commands = vec![Command::new(
            0,
            argv.iter().map(|argument| Bytes::copy_from_slice(argument)),
        )];
        let entry = Entry {
            at: 1_000,
            seed: 1,
            origin: Origin::default(),
            commands,
        };
        let Outcome::Applied(mut replies) = machine.apply(&entry) else {
            panic!("not applied")
        };
        replies.remove(0)
    }

    #[test]
    fn an_item_and_a_session_may_be_as_large_as_their_limit_and_no_larger() {
        let mut machine = Machine::default();
        let item = vec![b'x'; ITEM_BYTES_MAX + 1];
        let (item, over) = (&item[1..], &item[..]);
        assert_eq!(
            reply(&mut machine, &[b"SESSION.CREATE", b"s", b"0"]),
            Reply::Integer(1)
        );
        let refused = reply(
            &mut machine,
            &[b"SESSION.SAVE", b"s", b"1", b"SET", b"1", b"a", over],
        );
        let text = "ERR session too large: an item is over 1048576 bytes";
        assert_eq!(refused, Reply::Error(CommandError::text(text)));
        let three: &[&[u8]] = &[
            b"SESSION.SAVE",
            b"s",
            b"1",
            b"SET",
            b"3",
            b"a",
            item,
            b"b",
            item,
            b"c",
            item,
        ];
        assert_eq!(reply(&mut machine, three), Reply::Integer(2));
        let refused = reply(
            &mut machine,
            &[b"SESSION.SAVE", b"s", b"2", b"SET", b"1", b"d", item],
        );
        let text = "ERR session too large: it would be over 4194304 bytes";
        assert_eq!(refused, Reply::Error(CommandError::text(text)));
        // The same item again is no growth.
        let again = reply(
            &mut machine,
            &[b"SESSION.SAVE", b"s", b"2", b"SET", b"1", b"a", item],
        );
        assert_eq!(again, Reply::Integer(3));
    }
}
