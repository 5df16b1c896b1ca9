//! Clients that share sessions: they hand them on by their locks, and begin others that end by themselves or are ended. What must be so is judged by what the
//! sessions hold at the end, and by the events that all machines agree on.

use super::world::{Running, World};
use crate::cache::Cache;
use crate::machine::reply::Reply;
use crate::node::{Freshness, Node};
use crate::raft::files::simulated::Chance;
use crate::session::{Locking, NewSession, SessionError, SessionId, Sessions};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Sessions that are handed on at a time, and how long the same.
const SHARED: u64 = 2;
const SHARED_LAST: Duration = Duration::from_secs(60);

/// How long they live unused: longer than clocks jump.
const LONG: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a lock lasts, and how long one waits for it.
const LEASE: Duration = Duration::from_secs(3);
const WAIT: Duration = Duration::from_secs(2);

/// How long a session lives unused that is to end, in milliseconds: from, and below.
const SHORT_MS: (u64, u64) = (500, 5_000);

/// How long after everything is whole the last session may end.
const ENDED: Duration = Duration::from_secs(60);

/// Events that are asked for at a time.
const EVENTS: &str = "1000";

/// What clients were told of sessions.
#[derive(Debug, Default)]
pub(super) struct Told {
    handed_on: Mutex<BTreeMap<String, Vec<HandOver>>>,
    begun: Mutex<BTreeMap<Bytes, Begun>>,
}

/// A count that a session had under a lock, and that was to become one more.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandOver {
    pub(super) before: u64,
    pub(super) token: u64,
    pub(super) acknowledged: bool,
}

/// A session that is to end.
#[derive(Clone, Copy, Debug)]
struct Begun {
    idle_ms: u64,
    acknowledged: bool,
    /// Whether a client was told that it has ended it.
    abandoned: bool,
}

impl Told {
    /// How many operations there were.
    pub(super) fn len(&self) -> usize {
        self.handed_on.lock().values().map(Vec::len).sum::<usize>() + self.begun.lock().len()
    }
}

fn id(text: String) -> SessionId {
    text.parse().expect("letters, digits and dashes")
}

fn sessions(node: &Node) -> Sessions {
    Sessions::new(Cache::new(node.clone()))
}

/// Whether a write that was answered so may have been applied.
fn is_unknown<T>(answer: Option<&Result<T, SessionError>>) -> bool {
    match answer {
        None => true,
        Some(Err(SessionError::Failed(error))) => error.may_be_applied(),
        Some(_) => false,
    }
}

/// Locks a session, counts on what it holds, and saves it, at times so late that the lock has ended.
pub(super) async fn hand_on(world: &World, here: &Running, chance: &mut Chance) {
    let age = world.began.elapsed().as_secs() / SHARED_LAST.as_secs();
    let name = format!("shared-{age}-{}", chance.below(SHARED));
    let (sessions, id) = (sessions(&here.node), id(name.clone()));
    let new = NewSession::new().idle_timeout(LONG);
    if !matches!(here.call(sessions.create_as(&id, &new)).await, Some(Ok(_))) {
        return;
    }
    let locking = Locking::exclusive().lease(LEASE).wait(WAIT);
    let Some(Ok(mut session)) = here.call(sessions.lock(&id, locking)).await else {
        return;
    };
    let before = session.get_as("count").ok().flatten().unwrap_or(0);
    if chance.below(4) == 0 {
        let longest = u64::try_from(2 * LEASE.as_millis()).unwrap_or(u64::MAX);
        sleep(Duration::from_millis(chance.below(longest))).await;
    }
    session.set_as("count", &(before + 1)).expect("a number is JSON");
    let token = session.token();
    let saved = here.call(session.save_and_unlock()).await;
    let acknowledged = matches!(saved, Some(Ok(_)));
    if acknowledged || is_unknown(saved.as_ref()) {
        let mut handed_on = world.oracle.sessions.handed_on.lock();
        handed_on.entry(name).or_default().push(HandOver {
            before,
            token,
            acknowledged,
        });
    }
}

/// Begins a session that will not be used, and at times ends it.
pub(super) async fn begin(world: &World, here: &Running, name: &str, chance: &mut Chance) {
    let (sessions, id) = (
        sessions(&here.node),
        id(format!("short-{}", name.replace('.', "-"))),
    );
    let idle_ms = SHORT_MS.0 + chance.below(SHORT_MS.1 - SHORT_MS.0);
    let new = NewSession::new().idle_timeout(Duration::from_millis(idle_ms));
    let created = here
        .call(sessions.create_as(&id, &new.slack(Duration::ZERO)))
        .await;
    let acknowledged = matches!(created, Some(Ok(_)));
    if !acknowledged && !is_unknown(created.as_ref()) {
        return;
    }
    let abandoned = chance.below(3) == 0 && matches!(here.call(sessions.end(&id)).await, Some(Ok(true)));
    let begun = Begun {
        idle_ms,
        acknowledged,
        abandoned,
    };
    let key = sessions.key_of(&id);
    world.oracle.sessions.begun.lock().insert(key, begun);
}

/// An event, as `SESSION.EVENTS` tells it.
#[derive(Debug)]
struct Event {
    position: i64,
    at: i64,
    what: Bytes,
    reason: Bytes,
    key: Bytes,
}

impl Event {
    fn read(reply: &Reply) -> Option<Self> {
        let Reply::Map(pairs) = reply else { return None };
        let named = |name: &'static str| {
            let name = Reply::bulk(name);
            pairs.iter().find(|(of, _)| *of == name).map(|(_, value)| value)
        };
        let number = |name| match named(name)? {
            Reply::Integer(number) => Some(*number),
            _ => None,
        };
        let text = |name| match named(name)? {
            Reply::Bulk(text) => Some(text.clone()),
            _ => None,
        };
        Some(Self {
            position: number("position")?,
            at: number("at")?,
            what: text("event")?,
            reason: text("reason")?,
            key: text("key")?,
        })
    }

    /// Some of those after a position; none where there are no more.
    async fn after(node: &Node, position: i64) -> Result<Vec<Self>, String> {
        let position = position.to_string();
        let argv = ["SESSION.EVENTS", &position, "COUNT", EVENTS];
        let argv = argv.map(|part| Bytes::copy_from_slice(part.as_bytes()));
        let reply = node.read(Freshness::Linearizable, 0, &argv).await;
        match reply.map_err(|error| error.to_string())? {
            Reply::Array(events) => {
                let read = events.iter().map(Self::read).collect::<Option<_>>();
                read.ok_or(format!("not events: {events:?}"))
            }
            other => Err(format!("not events: {other:?}")),
        }
    }

    async fn all(node: &Node) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = Vec::new();
        loop {
            let last = all.last().map_or(0, |event| event.position);
            let more = Self::after(node, last).await?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }
}

/// Judges what became of them, on a machine of a cluster that is whole and level.
///
/// # Errors
/// What is wrong.
pub(super) async fn judge(told: &Told, node: &Node) -> Result<(), String> {
    let sessions = sessions(node);
    let handed_on = told.handed_on.lock().clone();
    for (name, hand_overs) in handed_on {
        let found = sessions.peek(&id(name.clone())).await;
        let session = found.map_err(|error| format!("{name}: {error}"))?;
        let session = session.ok_or(format!("{name} is gone"))?;
        let count = session.get_as("count").ok().flatten().unwrap_or(0);
        judge_hand_overs(count, &hand_overs).map_err(|why| format!("{name}: {why}: {hand_overs:?}"))?;
    }
    let begun = told.begun.lock().clone();
    let until = Instant::now() + ENDED;
    loop {
        let events = Event::all(node).await?;
        match judge_events(&events, &begun)? {
            None => return Ok(()),
            Some(living) if Instant::now() > until => return Err(format!("{living:?} does not end")),
            Some(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

/// What a session counted to where these were told of its counts.
pub(super) fn judge_hand_overs(count: u64, hand_overs: &[HandOver]) -> Result<(), String> {
    let acknowledged: BTreeMap<_, _> = hand_overs
        .iter()
        .filter(|one| one.acknowledged)
        .map(|one| (one.before, one.token))
        .collect();
    let told = hand_overs.iter().filter(|one| one.acknowledged).count();
    if acknowledged.len() < told {
        return Err("two had the lock at the same count".to_owned());
    }
    if !acknowledged
        .values()
        .is_sorted_by(|earlier, later| earlier < later)
    {
        return Err("a later lock has no later token".to_owned());
    }
    let (least, most) = (told as u64, hand_overs.len() as u64);
    if !(least..=most).contains(&count) {
        return Err(format!("it counts {count}, and {least} to {most} were saved"));
    }
    Ok(())
}

/// Whether the events are those that these sessions must have: none, or a session that has not ended yet.
fn judge_events(events: &[Event], begun: &BTreeMap<Bytes, Begun>) -> Result<Option<Bytes>, String> {
    let gap = (1..)
        .zip(events)
        .find(|(position, event)| event.position != *position);
    if let Some((position, event)) = gap {
        return Err(format!("event {position} is {event:?}"));
    }
    let mut of: BTreeMap<&Bytes, Vec<&Event>> = BTreeMap::new();
    for event in events {
        of.entry(&event.key).or_default().push(event);
    }
    for (key, session) in begun {
        let life = of.remove(key).unwrap_or_default();
        let wrong = |what: &str| Err(format!("session {key:?} {what}: {session:?}, {life:?}"));
        match life[..] {
            [] if session.acknowledged => return wrong("never began"),
            [] => {}
            [began] if began.what == "created" => return Ok(Some(key.clone())),
            [began, ended] if began.what == "created" && ended.what == "ended" => {
                let lasted = ended.at - began.at;
                if session.abandoned && ended.reason != "abandoned" {
                    return wrong("was ended, and ended otherwise");
                }
                if ended.reason == "idle" && lasted < i64::try_from(session.idle_ms).unwrap_or(i64::MAX) {
                    return wrong("ended early");
                }
            }
            _ => return wrong("did not begin and end once"),
        }
    }
    Ok(None)
}

#[test]
fn what_is_wrong_with_sessions_is_found() {
    let one = |before, token, acknowledged| HandOver {
        before,
        token,
        acknowledged,
    };
    let judge =
        |count, hand_overs: &[HandOver]| judge_hand_overs(count, hand_overs).err().unwrap_or_default();
    assert_eq!(
        judge(2, &[one(0, 5, true), one(1, 7, true), one(2, 9, false)]),
        ""
    );
    assert_eq!(
        judge(3, &[one(0, 5, true), one(1, 7, true), one(2, 9, false)]),
        ""
    );
    assert!(judge(1, &[one(0, 5, true), one(1, 7, true)]).contains("it counts 1"));
    assert!(judge(2, &[one(0, 5, true), one(0, 7, true)]).contains("two had the lock"));
    for later in [5, 7] {
        assert!(judge(2, &[one(0, 7, true), one(1, later, true)]).contains("no later token"));
    }

    let key = Bytes::from_static(b"s");
    let event = |position, at, what: &'static str, reason: &'static str| Event {
        position,
        at,
        what: what.into(),
        reason: reason.into(),
        key: key.clone(),
    };
    let begun = |acknowledged, abandoned| {
        let session = Begun {
            idle_ms: 100,
            acknowledged,
            abandoned,
        };
        BTreeMap::from([(key.clone(), session)])
    };
    let created = || event(1, 1_000, "created", "");
    let idle = |position, at| event(position, at, "ended", "idle");
    let judge = |events: &[Event], begun: &BTreeMap<Bytes, Begun>| match judge_events(events, begun) {
        Ok(living) => living.map_or(String::new(), |_| "lives".to_owned()),
        Err(why) => why,
    };
    assert_eq!(judge(&[created(), idle(2, 1_100)], &begun(true, false)), "");
    assert_eq!(judge(&[], &begun(false, false)), "");
    assert_eq!(judge(&[created()], &begun(true, false)), "lives");
    assert!(judge(&[], &begun(true, false)).contains("never began"));
    assert!(judge(&[created(), idle(2, 1_099)], &begun(true, false)).contains("ended early"));
    assert!(judge(&[created(), idle(2, 1_200)], &begun(true, true)).contains("ended otherwise"));
    assert!(judge(&[created(), idle(2, 1_100), idle(3, 1_200)], &begun(true, false)).contains("once"));
    assert!(judge(&[created(), idle(3, 1_100)], &begun(true, false)).contains("event 2 is"));
}
