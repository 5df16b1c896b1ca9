//! The lock of a session, for the classic model: one writer at a time, or several readers, and whoever comes meanwhile stands in a queue.
//!
//! A lock has a deadline, so that a holder who is gone blocks nobody for ever; one that is `BOUND` to the node that asked for it ends with that node as
//! well. It has a token that grows with every lock given: `SESSION.SAVE … LOCK token`
//! is refused once the lock has ended, so that a holder who was too slow cannot write. Who waits is woken in order by the release itself.

use super::session::{RETIRED, SINCE, integer, lifetime, map, no_session, token};
use crate::machine::args::Args;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::Session;
use crate::machine::value::session::{Holder, Mode};
use crate::machine::waiting::Otherwise;
use crate::mutant::Mutant;
use bytes::Bytes;
use std::borrow::Cow;

/// The longest that a lock can be held without being extended, in milliseconds: a day.
const LEASE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// The longest text that a holder can say of itself, in bytes.
const HOLDER_BYTES_MAX: usize = 256;

pub(super) const COMMANDS: &[Spec] = &[
    write("SESSION.EXTEND", "key token lease-ms", extend)
        .since(SINCE)
        .flags("fast noscript")
        .summary("Lets the holder of a session's lock keep it so long from now; 0 if it has ended."),
    write(
        "SESSION.LOCK",
        "key <EXCLUSIVE | SHARED> holder lease-ms [WAIT ms] [BOUND]",
        lock,
    )
    .since(SINCE)
    .flags("noscript blocking")
    .in_line()
    .summary("Locks a session, waiting for it in a queue; the lock's token, or nil if the wait was in vain."),
    read("SESSION.LOCKS", "key", locks)
        .since(SINCE)
        .flags("fast")
        .summary("Who holds the lock of a session: token, mode, holder, since, deadline, age of each."),
    write("SESSION.UNLOCK", "key token", unlock)
        .since(SINCE)
        .flags("fast noscript")
        .summary("Gives a session's lock up; 0, and nothing has changed, if the token is not its holder's."),
];

/// Locking is a use of the session, and renews its life.
fn lock(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, now) = (args.key()?, keys.now());
    let mode = if args.keyword("EXCLUSIVE") {
        Mode::Exclusive
    } else if args.keyword("SHARED") {
        Mode::Shared
    } else {
        return Err(CommandError::Syntax);
    };
    let text = args.bytes()?;
    if text.len() > HOLDER_BYTES_MAX {
        let text = format!("ERR the holder's text is over {HOLDER_BYTES_MAX} bytes");
        return Err(CommandError::Other(Cow::Owned(text)));
    }
    let lease_ms = lease(args)?;
    let wait_ms = if args.keyword("WAIT") {
        lifetime(args, now, "session.lock")?
    } else {
        0
    };
    let bound = args.keyword("BOUND");
    args.end()?;
    let mut session = living(keys, key)?;
    // A reader does not overtake a writer that waits. From format 4 on nobody overtakes anybody: the first who waits is served as soon as a holder whose time
    // is over is taken away.
    let queued = keys.others_wait(key, b"SESSION.LOCK");
    let busy = || mode == Mode::Shared && session.lock.holders(keys.passed()).next().is_some();
    if !session.lock.admits(mode, keys.passed()) || queued && (keys.settings().level > 3 || busy()) {
        if wait_ms == 0 && !keys.waited() {
            return Ok(Reply::Nil);
        }
        let keys_waited_for = std::slice::from_ref(key);
        return Ok(keys.wait_even_if_gone(
            keys_waited_for,
            args.argv(),
            Some(now.saturating_add(wait_ms)),
            Otherwise::Nil,
        ));
    }
    session.lock.remove_ended(keys.passed());
    let token = if Mutant::ReuseToken.is_planted() {
        1
    } else {
        keys.next_version()
    };
    session.lock.give(Holder {
        token,
        mode,
        text: Bytes::copy_from_slice(text),
        since: now,
        deadline: now.saturating_add(lease_ms),
        bound: keys.caller().filter(|_| bound),
    });
    let deadline = session.deadline_after_use(now);
    keys.change_session(key, session, deadline);
    keys.notify(Classes::MODULE, "session.lock", key);
    Ok(integer(token))
}

fn unlock(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, token, passed) = (args.key()?, token(args)?, keys.passed());
    change_lock(keys, key, "session.unlock", |session| {
        session.lock.release(token, passed)
    })
}

fn extend(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, token, passed) = (args.key()?, token(args)?, keys.passed());
    let until = keys.now().saturating_add(lease(args)?);
    change_lock(keys, key, "session.extend", |session| {
        session.lock.extend(token, until, passed)
    })
}

/// Changes the lock of a living session in a way that says whether it could. The session's deadline stays.
fn change_lock(
    keys: &mut Keyspace<'_>,
    key: &Bytes,
    event: &str,
    change: impl FnOnce(&mut Session) -> bool,
) -> Result<Reply, CommandError> {
    let Some(mut session) = keys.view().session(key)?.cloned() else {
        return Ok(Reply::Integer(0));
    };
    if !change(&mut session) {
        return Ok(Reply::Integer(0));
    }
    let deadline = keys.view().slot(key).and_then(|slot| slot.deadline());
    keys.change_session(key, session, deadline);
    keys.notify(Classes::MODULE, event, key);
    Ok(Reply::Integer(1))
}

fn locks(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let now = view.now();
    let Some(session) = view.session(args.key()?)? else {
        return Ok(Reply::NilArray);
    };
    let holders = session.lock.holders(view.passed()).map(|holder| {
        map([
            ("token", integer(holder.token)),
            ("mode", Reply::bulk(holder.mode.name())),
            ("holder", Reply::Bulk(holder.text.clone())),
            ("since", integer(holder.since)),
            ("deadline", integer(holder.deadline)),
            ("age", integer(now.saturating_sub(holder.since))),
        ])
    });
    Ok(Reply::Array(holders.collect()))
}

fn living(keys: &Keyspace<'_>, key: &[u8]) -> Result<Session, CommandError> {
    let view = keys.view();
    let session = view.session(key)?.ok_or_else(no_session)?;
    if session.is_retired() {
        return Err(RETIRED);
    }
    Ok(session.clone())
}

/// For how long a lock is held if it is not given up before, in milliseconds.
fn lease(args: &mut Args<'_>) -> Result<u64, CommandError> {
    let lease = u64::try_from(args.integer()?).ok();
    let lease = lease.filter(|lease| (1..=LEASE_MS_MAX).contains(lease));
    lease.ok_or_else(|| {
        CommandError::Other(Cow::Owned(format!(
            "ERR a lock is held for 1 to {LEASE_MS_MAX} milliseconds"
        )))
    })
}
