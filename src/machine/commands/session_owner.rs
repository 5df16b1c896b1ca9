//! The sessions of one owner together, and what happened to all sessions.
//!
//! Which sessions a user has is an index that follows from the sessions themselves, so nothing can be left in it.

use super::session::{self, SINCE, integer, items, map};
use crate::machine::args::Args;
use crate::machine::keyspace::{Keyspace, SESSION_EVENTS_KEY, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::session_events::{Reason, SessionEvent, What};
use crate::machine::table::{Spec, read, write};
use crate::machine::waiting::Otherwise;
use bytes::Bytes;
use std::borrow::Cow;

/// Sessions that one command ends at most, so that no entry takes long to apply.
const ENDED_MAX: usize = 1_000;

/// Events that one command tells at most.
const EVENTS_TOLD_MAX: usize = 1_000;

/// Events that it tells unless it is asked for another number.
const EVENTS_TOLD: usize = 100;

pub(super) const COMMANDS: &[Spec] = &[
    write("SESSION.ENDOWNED", "user [EXCEPT session]", end_owned)
        .since(SINCE)
        .categories("dangerous")
        .summary("Ends the sessions of a user, save perhaps one, 1000 at most; how many."),
    read("SESSION.EVENTS", "position [COUNT count] [BLOCK ms]", events)
        .since(SINCE)
        .flags("blocking")
        .categories("dangerous")
        .waits(events_or_wait)
        .summary("What happened to sessions after a position ($: the last), 100 events unless another count is asked for; nil if it waited in vain."),
    read("SESSION.OWNED", "user", owned)
        .since(SINCE)
        .categories("dangerous")
        .summary("The keys of the sessions of a user, oldest first."),
];

/// How many sessions an owner may have, and what happens when there would be more.
#[derive(Clone, Copy)]
pub(super) struct AtMost {
    count: usize,
    oldest_out: bool,
}

impl AtMost {
    /// Reads `MAX count OLDEST-OUT|REFUSE` if it comes next.
    pub(super) fn parse(args: &mut Args<'_>) -> Result<Option<Self>, CommandError> {
        if !args.keyword("MAX") {
            return Ok(None);
        }
        let count = args.integer_from(1, "ERR MAX must be 1 at least")?;
        let count = usize::try_from(count).map_err(|_| CommandError::Syntax)?;
        let oldest_out = args.keyword("OLDEST-OUT");
        if !oldest_out && !args.keyword("REFUSE") {
            return Err(CommandError::Syntax);
        }
        Ok(Some(Self { count, oldest_out }))
    }
}

/// Makes room for the session of this key among those of its owner.
///
/// # Errors
/// `LIMITSESSION`, where nobody is to go; nothing has changed.
pub(super) fn make_room(
    keys: &mut Keyspace<'_>,
    key: &Bytes,
    owner: &Bytes,
    at_most: Option<AtMost>,
) -> Result<(), CommandError> {
    let Some(at_most) = at_most.filter(|_| !owner.is_empty()) else {
        return Ok(());
    };
    let view = keys.view();
    let others: Vec<Bytes> = view
        .sessions_of(owner)
        .filter(|other| *other != key)
        .cloned()
        .collect();
    let over = (others.len() + 1).saturating_sub(at_most.count);
    if over > 0 && !at_most.oldest_out {
        let text = format!("LIMITSESSION the user has {} sessions already", others.len());
        return Err(CommandError::Other(Cow::Owned(text)));
    }
    for other in others.iter().take(over.min(ENDED_MAX)) {
        session::remove(keys, other, Reason::Replaced);
    }
    Ok(())
}

fn owned(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let owner = args.bytes()?;
    let keys = view.sessions_of(owner).cloned().map(Reply::Bulk);
    Ok(Reply::Array(keys.collect()))
}

fn end_owned(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let owner = args.bytes()?;
    let except = if args.keyword("EXCEPT") {
        Some(args.bytes()?)
    } else {
        None
    };
    args.end()?;
    let view = keys.view();
    let ending = view.sessions_of(owner).filter(|key| Some(*key) != except);
    let ending: Vec<Bytes> = ending.take(ENDED_MAX).cloned().collect();
    for key in &ending {
        session::remove(keys, key, Reason::Abandoned);
    }
    Ok(Reply::count(ending.len()))
}

/// Which events are asked for.
struct Asked {
    /// Those after this one.
    after: u64,
    count: usize,
    /// How long to wait for one, in milliseconds; 0: for ever.
    block_ms: Option<u64>,
}

impl Asked {
    fn parse(view: &View<'_>, args: &mut Args<'_>) -> Result<Self, CommandError> {
        let after = if args.keyword("$") {
            view.store().session_events().last()
        } else {
            u64::try_from(args.integer()?).map_err(|_| CommandError::NotAnInteger)?
        };
        let (mut count, mut block_ms) = (EVENTS_TOLD, None);
        while !args.is_empty() {
            if args.keyword("COUNT") {
                let asked = args.integer_from(1, "ERR COUNT must be 1 at least")?;
                count = usize::try_from(asked)
                    .unwrap_or(EVENTS_TOLD_MAX)
                    .min(EVENTS_TOLD_MAX);
            } else if args.keyword("BLOCK") {
                block_ms = Some(session::lifetime(args, view.now(), "session.events")?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(Self {
            after,
            count,
            block_ms,
        })
    }

    fn found(&self, view: &View<'_>) -> Result<Vec<Reply>, CommandError> {
        let events = view.store().session_events();
        if self.after < events.lost() {
            let text = format!(
                "EVENTSLOST events up to {} are not kept any more: go on from there",
                events.lost()
            );
            return Err(CommandError::Other(Cow::Owned(text)));
        }
        let events = events.after(self.after).take(self.count);
        Ok(events.map(|event| told(event)).collect())
    }
}

fn events(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let asked = Asked::parse(view, args)?;
    let found = asked.found(view)?;
    if found.is_empty() && asked.block_ms.is_some() {
        return Ok(Reply::Waiting(0));
    }
    Ok(Reply::Array(found))
}

fn events_or_wait(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let now = keys.now();
    let asked = Asked::parse(&keys.view(), args)?;
    let found = asked.found(&keys.view())?;
    let (true, Some(block_ms)) = (found.is_empty(), asked.block_ms) else {
        return Ok(Reply::Array(found));
    };
    // Asked again it must not mean what is the last event then.
    let mut argv = args.argv().to_vec();
    argv[1] = Bytes::from(asked.after.to_string());
    let waited_for = [Bytes::from_static(SESSION_EVENTS_KEY)];
    let deadline = (block_ms > 0).then_some(now.saturating_add(block_ms));
    Ok(keys.wait_even_if_gone(&waited_for, &argv, deadline, Otherwise::NilArray))
}

fn told(event: &SessionEvent) -> Reply {
    let (what, reason, from, content) = match &event.what {
        What::Created => ("created", "", Bytes::new(), None),
        What::Renamed(from) => ("renamed", "", from.clone(), None),
        What::Ended(reason, content) => ("ended", reason.name(), Bytes::new(), content.as_ref()),
    };
    let content = content.map_or(Reply::Nil, |session| items(session.items.living(event.at)));
    map([
        ("position", integer(event.position)),
        ("at", integer(event.at)),
        ("event", Reply::bulk(what)),
        ("reason", Reply::bulk(reason)),
        ("database", integer(event.db.into())),
        ("key", Reply::Bulk(event.key.clone())),
        ("owner", Reply::Bulk(event.owner.clone())),
        ("version", integer(event.version)),
        ("from", Reply::Bulk(from)),
        ("items", content),
    ])
}
