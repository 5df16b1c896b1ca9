//! Session commands: what a web session is and what can happen to it, the same from Rust and from any Redis client.
//!
//! Plenary's own; Redis has none of them. A session ends when it was not used for its idle timeout, at its absolute deadline, or
//! by `SESSION.END`; nothing brings it back. `DEL`, `PEXPIRE` and `RENAME` work on it as on any key; the next use sets the deadline anew.
//! Its lock is in `session_lock.rs`, its owner's other sessions and what happened to all of them in `session_owner.rs`.
//!
//! The refusals begin with a word that tells them apart:
//!
//! | word | what it means; nothing has changed |
//! |---|---|
//! | `NOSESSION` | it has ended, or never was |
//! | `STALESESSION` | it was saved since the version named |
//! | `CONFLICTSESSION` | an item that the save names was changed since |
//! | `LOCKEDSESSION` | somebody else has it locked |
//! | `NOTLOCKED` | the lock of this token has ended |
//! | `RETIREDSESSION` | it goes on under another id; what is here can only be read |
//! | `LIMITSESSION` | its owner has as many sessions as allowed |

use super::session_owner::{self, AtMost};
use crate::machine::args::Args;
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::session_events::Reason;
use crate::machine::table::{Spec, read, write};
use crate::machine::value::session::{Item, Mode, Renewal};
use crate::machine::value::{Kind, Session};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeSet;

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

pub(super) const SINCE: &str = "plenary 0.1.0";

pub(super) const COMMANDS: &[Spec] = &[
    write(
        "SESSION.CREATE",
        "key idle-ms [SLACK ms] [ABSOLUTE ms | UNTIL unix-time-ms] [OWNER user [MAX count <OLDEST-OUT | REFUSE>]] \
         [ITEMS count name value [name value ...]] [EXPIRE count name ms [name ms ...]]",
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
        .summary("A session whole: version, times, owner, lock, items; nil if it has ended."),
    write("SESSION.RENAME", "key newkey [LOCK token] [GRACE ms]", rename)
        .since(SINCE)
        .flags("fast")
        .summary("Gives a session another id, and lets the old one be read for a while; 0, and nothing has changed, if that is taken."),
    write(
        "SESSION.SAVE",
        "key version [MERGE <REFUSE | LAST>] [LOCK token] [UNLOCK] [IDLE ms] [SLACK ms] [ABSOLUTE ms | UNTIL unix-time-ms] \
         [OWNER user [MAX count <OLDEST-OUT | REFUSE>]] [REPLACE] [DEL count name [name ...]] \
         [SET count name value [name value ...]] [EXPIRE count name ms [name ms ...]]",
        save,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Changes a session that is at this version (*: any), or whose items named were not changed since, and renews its life; the new version."),
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
    let idle_timeout_ms = lifetime(args, now, "session.create")?;
    let changes = Changes::parse(args, now, Form::Create)?;
    let mut session = Session {
        created_at: now,
        idle_timeout_ms,
        slack_ms: Session::default_slack_ms(idle_timeout_ms),
        ..Session::default()
    };
    let at_most = changes.at_most;
    changes.apply(&mut session, keys.passed())?;
    admit(&session)?;
    if keys.view().slot(key).is_some() {
        return Ok(Reply::Nil);
    }
    session_owner::make_room(keys, key, &session.owner, at_most)?;
    let deadline = session.deadline_after_use(now);
    keys.put_until(key, session.into_value(), deadline);
    keys.notify(Classes::MODULE, "session.create", key);
    Ok(Reply::Integer(1))
}

/// Which command says what is to change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Create,
    Save,
}

/// What happens where somebody else has changed an item since.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merge {
    /// Nothing is saved.
    Refuse,
    /// The last one to save it wins.
    Last,
}

/// What a save is to change, or what a session begins with.
#[derive(Default)]
struct Changes<'a> {
    merge: Option<Merge>,
    token: Option<u64>,
    unlock: bool,
    idle_timeout_ms: Option<u64>,
    slack_ms: Option<u64>,
    absolute_deadline: Option<Millis>,
    owner: Option<Bytes>,
    at_most: Option<AtMost>,
    replace: bool,
    removed: &'a [Bytes],
    set: &'a [[Bytes; 2]],
    ends: Vec<(&'a Bytes, Option<Millis>)>,
}

impl<'a> Changes<'a> {
    fn parse(args: &mut Args<'a>, now: Millis, form: Form) -> Result<Self, CommandError> {
        let (mut changes, mut seen) = (Self::default(), Seen::default());
        let saves = form == Form::Save;
        let command = if saves { "session.save" } else { "session.create" };
        while !args.is_empty() {
            if let Some(deadline) = absolute_deadline(args, &mut seen, now, command)? {
                changes.absolute_deadline = Some(deadline);
            } else if args.keyword("SLACK") {
                seen.once("SLACK")?;
                changes.slack_ms = Some(lifetime(args, now, command)?);
            } else if args.keyword("OWNER") {
                seen.once("OWNER")?;
                changes.owner = Some(owner(args)?);
                changes.at_most = AtMost::parse(args)?;
            } else if args.keyword("EXPIRE") {
                seen.once("EXPIRE")?;
                changes.ends = ends(args, now, command)?;
            } else if args.keyword(if saves { "SET" } else { "ITEMS" }) {
                seen.once("SET")?;
                changes.set = pairs(args)?;
            } else if saves {
                changes.parse_of_save(args, &mut seen, now)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(changes)
    }

    /// What only a save can say.
    fn parse_of_save(
        &mut self,
        args: &mut Args<'a>,
        seen: &mut Seen,
        now: Millis,
    ) -> Result<(), CommandError> {
        if args.keyword("MERGE") {
            seen.once("MERGE")?;
            self.merge = Some(if args.keyword("REFUSE") {
                Merge::Refuse
            } else if args.keyword("LAST") {
                Merge::Last
            } else {
                return Err(CommandError::Syntax);
            });
        } else if args.keyword("LOCK") {
            seen.once("LOCK")?;
            self.token = Some(token(args)?);
        } else if args.keyword("UNLOCK") {
            seen.once("UNLOCK")?;
            self.unlock = true;
        } else if args.keyword("IDLE") {
            seen.once("IDLE")?;
            self.idle_timeout_ms = Some(lifetime(args, now, "session.save")?);
        } else if args.keyword("REPLACE") {
            seen.once("REPLACE")?;
            self.replace = true;
        } else if args.keyword("DEL") {
            seen.once("DEL")?;
            self.removed = counted(args, 1)?;
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }

    /// The items that it names: what another save could be in conflict with.
    fn names(&self) -> impl Iterator<Item = &Bytes> {
        let set = self.set.iter().map(|[name, _]| name);
        self.removed
            .iter()
            .chain(set)
            .chain(self.ends.iter().map(|(name, _)| *name))
    }

    /// Refuses a save that is not based on what the session is now.
    fn admit(&self, session: &Session, version: Option<u64>) -> Result<(), CommandError> {
        let Some(version) = version.filter(|version| *version != session.version) else {
            return Ok(());
        };
        // A version of the future is of another session.
        let stale = self.merge.is_none() || self.replace || version > session.version;
        if stale {
            let text = format!("STALESESSION the session is at version {}", session.version);
            return Err(CommandError::Other(Cow::Owned(text)));
        }
        let changed = |name: &&Bytes| session.items.changed_since(name, version);
        match self.names().find(changed) {
            Some(name) if self.merge == Some(Merge::Refuse) => {
                let (name, version) = (name.escape_ascii(), session.version);
                let text = format!(
                    "CONFLICTSESSION item '{name}' was changed meanwhile: the session is at version {version}"
                );
                Err(CommandError::Other(Cow::Owned(text)))
            }
            _ => Ok(()),
        }
    }

    /// Makes them. Items are removed before others are set, and these before any is given an end.
    fn apply(self, session: &mut Session, passed: Millis) -> Result<(), CommandError> {
        session.version += 1;
        session.remove_ended(passed);
        let version = session.version;
        if let Some(idle_timeout_ms) = self.idle_timeout_ms {
            session.idle_timeout_ms = idle_timeout_ms;
            session.slack_ms = Session::default_slack_ms(idle_timeout_ms);
        }
        session.slack_ms = self.slack_ms.unwrap_or(session.slack_ms);
        session.absolute_deadline = self.absolute_deadline.unwrap_or(session.absolute_deadline);
        session.owner = self.owner.unwrap_or(std::mem::take(&mut session.owner));
        if self.replace {
            let kept: BTreeSet<&Bytes> = self.set.iter().map(|[name, _]| name).collect();
            let gone: Vec<Bytes> = session
                .items
                .living(passed)
                .map(|item| item.name.to_bytes())
                .collect();
            gone.iter()
                .filter(|name| !kept.contains(name))
                .for_each(|name| session.items.remove(name, version));
        }
        for name in self.removed {
            session.items.remove(name, version);
        }
        for [name, value] in self.set {
            session.items.set(name, value, version);
            // At once, for each has its place found among all others.
            if session.items.len() > ITEMS_MAX {
                return Err(too_many_items());
            }
        }
        for (name, deadline) in self.ends {
            if !session.items.set_deadline(name, deadline, version) {
                return Err(CommandError::text("ERR EXPIRE names an item that is not there"));
            }
        }
        session.items.pack();
        Ok(())
    }
}

fn save(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, now) = (args.key()?, keys.now());
    let version = if args.keyword("*") {
        None
    } else {
        Some(u64::try_from(args.integer()?).map_err(|_| CommandError::NotAnInteger)?)
    };
    let changes = Changes::parse(args, now, Form::Save)?;
    let mut session = writable(keys, key, changes.token)?;
    changes.admit(&session, version)?;
    let (at_most, token, was) = (
        changes.at_most,
        changes.token.filter(|_| changes.unlock),
        session.owner.clone(),
    );
    changes.apply(&mut session, keys.passed())?;
    if let Some(token) = token {
        session.lock.release(token, keys.passed());
    }
    admit(&session)?;
    if session.owner != was {
        session_owner::make_room(keys, key, &session.owner, at_most)?;
    }
    let (version, deadline) = (integer(session.version), session.deadline_after_use(now));
    keys.change_session(key, session, deadline);
    keys.notify(Classes::MODULE, "session.save", key);
    Ok(version)
}

/// The living session under a key, if it may be changed by the holder of this token.
fn writable(keys: &Keyspace<'_>, key: &[u8], token: Option<u64>) -> Result<Session, CommandError> {
    let view = keys.view();
    let session = view.session(key)?.ok_or_else(no_session)?;
    if session.is_retired() {
        return Err(RETIRED);
    }
    let mut holders = session.lock.holders(view.passed());
    match token {
        Some(token) => {
            let held = holders.any(|holder| holder.token == token && holder.mode == Mode::Exclusive);
            if !held {
                return Err(CommandError::text(
                    "NOTLOCKED the lock of this token has ended, or is for reading only",
                ));
            }
        }
        None if holders.next().is_some() => {
            return Err(CommandError::text(
                "LOCKEDSESSION somebody else has the session locked",
            ));
        }
        None => {}
    }
    Ok(session.clone())
}

/// Looks at every key before it changes one: where one holds another type, nothing has changed. A use that comes soon after the last one changes
/// nothing: the session's slack covers it.
fn touch(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let named = args.rest();
    for key in named {
        keys.view().session(key)?;
    }
    let (mut there, now) = (0, keys.now());
    for key in named {
        // None for a session that an earlier key of this command has ended: its absolute deadline had passed.
        let Some(session) = keys.view().session(key)?.cloned() else {
            continue;
        };
        there += 1;
        let deadline = keys.view().slot(key).and_then(|slot| slot.deadline());
        if session.renewal(deadline, now) != Renewal::No {
            keys.set_deadline(key, session.deadline_after_use(now));
            keys.notify(Classes::MODULE, "session.touch", key);
        }
    }
    Ok(Reply::Integer(there))
}

/// Looks at every key before it removes one: where one holds another type, nothing has changed. An old id ends the session that had it, whatever ids it had
/// after that.
fn end(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let named = args.rest();
    for key in named {
        keys.view().session(key)?;
    }
    let mut ended = 0;
    for key in named {
        let view = keys.view();
        let Some(session) = view.session(key)? else {
            continue;
        };
        ended += 1;
        let later = view.renamed(session).filter(|session| session.is_retired());
        let later: Vec<Bytes> = later
            .map(|session| Bytes::copy_from_slice(&session.successor))
            .collect();
        remove(keys, key, Reason::Abandoned);
        for key in &later {
            remove(keys, key, Reason::Abandoned);
        }
    }
    Ok(Reply::count(ended))
}

/// Ends a session.
pub(super) fn remove(keys: &mut Keyspace<'_>, key: &[u8], reason: Reason) {
    keys.remove_for(key, reason);
    keys.notify(Classes::MODULE, "session.end", key);
    keys.notify(Classes::GENERIC, "del", key);
}

/// Keeps version and deadline. What stays under the old id for the grace time is what the session was: a request that is under way can read it, and
/// somebody who planted that id sees nothing of what comes.
fn rename(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (from, to, now) = (args.key()?, args.key()?, keys.now());
    let (mut lock, mut grace_ms, mut seen) = (None, 0, Seen::default());
    while !args.is_empty() {
        if args.keyword("LOCK") {
            seen.once("LOCK")?;
            lock = Some(token(args)?);
        } else if args.keyword("GRACE") {
            seen.once("GRACE")?;
            grace_ms = lifetime(args, now, "session.rename")?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let session = writable(keys, from, lock)?;
    if keys.view().slot(to).is_some() {
        return Ok(Reply::Integer(0));
    }
    let old = (grace_ms > 0).then(|| {
        let deadline = keys.view().slot(from).and_then(|slot| slot.deadline());
        let ends = deadline.unwrap_or(Millis::MAX).min(now.saturating_add(grace_ms));
        let copy = Session {
            successor: to[..].into(),
            lock: Default::default(),
            ..session
        };
        (copy, Some(ends))
    });
    keys.rename_session(from, to, old);
    keys.notify(Classes::GENERIC, "rename_from", from);
    keys.notify(Classes::GENERIC, "rename_to", to);
    Ok(Reply::Integer(1))
}

fn get(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let Some(session) = view.session(args.key()?)? else {
        return Ok(Reply::NilArray);
    };
    let item = |name: &Bytes| {
        session
            .items
            .get(name, view.passed())
            .map(|item| item.value.to_bytes())
    };
    let values = args.rest().iter().map(|name| Reply::bulk_or_nil(item(name)));
    Ok(Reply::Array(values.collect()))
}

/// Times are milliseconds of the log's clock, 0 where there is none; the owner is empty where there is none.
fn load(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let Some(session) = view.session(key)? else {
        return Ok(Reply::NilArray);
    };
    let deadline = view.slot(key).and_then(|slot| slot.deadline()).unwrap_or(0);
    let passed = view.passed();
    let ends = session.items.living(passed).filter_map(|item| {
        let deadline = item.deadline?;
        Some((Reply::Bulk(item.name.to_bytes()), integer(deadline)))
    });
    let held = session.lock.holders(passed).next();
    let pairs = [
        ("version", integer(session.version)),
        ("created", integer(session.created_at)),
        ("idle", integer(session.idle_timeout_ms)),
        ("slack", integer(session.slack_ms)),
        ("absolute", integer(session.absolute_deadline)),
        ("deadline", integer(deadline)),
        ("owner", Reply::Bulk(session.owner.clone())),
        (
            "lock",
            Reply::bulk(held.map_or("none", |holder| holder.mode.name())),
        ),
        ("retired", Reply::Integer(session.is_retired().into())),
        ("expires", Reply::Map(ends.collect())),
        ("items", items(session.items.living(passed))),
    ];
    Ok(map(pairs))
}

/// Names and values of items.
pub(super) fn items<'a>(items: impl Iterator<Item = Item<'a>>) -> Reply {
    let pair = |item: Item<'_>| {
        (
            Reply::Bulk(item.name.to_bytes()),
            Reply::Bulk(item.value.to_bytes()),
        )
    };
    Reply::Map(items.map(pair).collect())
}

/// A map of named replies.
pub(super) fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    let pairs = pairs.into_iter().map(|(name, value)| (Reply::bulk(name), value));
    Reply::Map(pairs.collect())
}

fn ttl(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, view) = (args.key()?, view.quietly());
    if view.session(key)?.is_none() {
        return Ok(Reply::Integer(-2));
    }
    let deadline = view.slot(key).and_then(|slot| slot.deadline());
    Ok(deadline.map_or(Reply::Integer(-1), |deadline| {
        integer(deadline.saturating_sub(view.now()))
    }))
}

pub(super) fn no_session() -> CommandError {
    CommandError::text("NOSESSION no such session")
}

pub(super) const RETIRED: CommandError =
    CommandError::text("RETIREDSESSION the session goes on under another id");

/// A number of ours as a reply; those beyond the signed range, which only a broken clock can make, as its end.
pub(super) fn integer(number: u64) -> Reply {
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
pub(super) fn lifetime(args: &mut Args<'_>, now: Millis, command: &'static str) -> Result<u64, CommandError> {
    let ms = u64::try_from(args.integer()?).map_err(|_| CommandError::InvalidExpire(command))?;
    match i64::try_from(now.saturating_add(ms)) {
        Ok(_) => Ok(ms),
        Err(_) => Err(CommandError::InvalidExpire(command)),
    }
}

/// The token of a lock.
pub(super) fn token(args: &mut Args<'_>) -> Result<u64, CommandError> {
    u64::try_from(args.integer()?).map_err(|_| CommandError::NotAnInteger)
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
        return Ok(Some(if ms == 0 { 0 } else { now.saturating_add(ms) }));
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

/// A count, and so many names with how long each item lives: none for as long as the session.
fn ends<'a>(
    args: &mut Args<'a>,
    now: Millis,
    command: &'static str,
) -> Result<Vec<(&'a Bytes, Option<Millis>)>, CommandError> {
    let count = usize::try_from(args.integer()?).map_err(|_| CommandError::Syntax)?;
    if count > args.remaining() / 2 {
        return Err(CommandError::Syntax);
    }
    let mut end = || {
        let (name, ms) = (args.bytes()?, lifetime(args, now, command)?);
        Ok((name, (ms > 0).then_some(now.saturating_add(ms))))
    };
    (0..count).map(|_| end()).collect()
}

/// A count, and so many names with their values.
fn pairs<'a>(args: &mut Args<'a>) -> Result<&'a [[Bytes; 2]], CommandError> {
    let (pairs, _) = counted(args, 2)?.as_chunks();
    for [name, value] in pairs {
        admit_item(name, value)?;
    }
    Ok(pairs)
}

/// Refuses the items that `SESSION.CREATE` would refuse, for whoever must know before it is run.
pub(crate) fn admit_items<'a>(
    items: impl Iterator<Item = (&'a Bytes, &'a Bytes)>,
) -> Result<(), CommandError> {
    let mut session = Session::default();
    for (name, value) in items {
        admit_item(name, value)?;
        session.items.set(name, value, 1);
    }
    admit(&session)
}

fn admit_item(name: &Bytes, value: &Bytes) -> Result<(), CommandError> {
    if name.len() > ITEM_NAME_BYTES_MAX {
        return Err(over("an item's name is", ITEM_NAME_BYTES_MAX, "bytes"));
    }
    if value.len() > ITEM_BYTES_MAX {
        return Err(over("an item is", ITEM_BYTES_MAX, "bytes"));
    }
    Ok(())
}

/// Refuses a session that would be too large.
fn admit(session: &Session) -> Result<(), CommandError> {
    if session.items.len() > ITEMS_MAX {
        return Err(too_many_items());
    }
    if session.bytes() > SESSION_BYTES_MAX {
        return Err(over("it would be", SESSION_BYTES_MAX, "bytes"));
    }
    Ok(())
}

fn too_many_items() -> CommandError {
    over("it would have", ITEMS_MAX, "items")
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
            format: Entry::FORMAT,
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
    fn far_too_many_items_are_refused_before_each_has_found_its_place() {
        let mut machine = Machine::default();
        let names: Vec<String> = (0..200_000).rev().map(|number| format!("{number:06}")).collect();
        let count = names.len().to_string();
        let pairs = names.iter().flat_map(|name| [name.as_bytes(), b"v"]);
        let create: Vec<&[u8]> = [&b"SESSION.CREATE"[..], b"s", b"0", b"ITEMS", count.as_bytes()]
            .into_iter()
            .chain(pairs)
            .collect();
        assert_eq!(reply(&mut machine, &create), Reply::Error(too_many_items()));
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
