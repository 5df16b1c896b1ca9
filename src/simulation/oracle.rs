//! What must be so, whatever befell a cluster.

use super::Report;
use super::checker::{Event, Operation, Outcome, is_linearizable};
use super::clients::Fate;
use super::plan::RIGHT_MS;
use super::sessions;
use super::told;
use super::world::{Running, World};
use crate::machine::reply::Reply;
use crate::node::{Freshness, Node};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often states are compared.
const COMPARE: Duration = Duration::from_secs(5);

/// How long a cluster that is whole may take until all of it has applied the same.
const LEVEL: Duration = Duration::from_secs(30);

/// What clients were told, and what was found wrong.
pub(super) struct Oracle {
    over: AtomicBool,
    wrong: Mutex<Option<String>>,
    registers: Mutex<BTreeMap<String, Vec<Event>>>,
    lists: Mutex<BTreeMap<String, List>>,
    pub(super) sessions: sessions::Told,
    pub(super) stores: told::Told,
    /// The digest of the state after each entry of the log that one was taken after, and whose.
    digests: Mutex<BTreeMap<u64, (usize, u128)>>,
}

#[derive(Default)]
struct List {
    values: BTreeMap<String, Fate>,
    /// Pairs of which the second was given to the same node after the first.
    pairs: Vec<[String; 2]>,
}

impl Oracle {
    pub(super) fn new() -> Self {
        Self {
            over: AtomicBool::new(false),
            wrong: Mutex::default(),
            registers: Mutex::default(),
            lists: Mutex::default(),
            sessions: sessions::Told::default(),
            stores: told::Told::default(),
            digests: Mutex::default(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.wrong.lock().is_some()
    }

    /// Lets clients end.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Notes what is wrong; the first counts.
    pub(super) fn wrong(&self, what: String) {
        self.wrong.lock().get_or_insert(what);
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        self.wrong.lock().clone().map_or(Ok(()), Err)
    }

    pub(super) fn operated(
        &self,
        key: String,
        called: Duration,
        returned: Duration,
        operation: Operation,
        outcome: Outcome,
    ) {
        let event = Event {
            called,
            returned,
            operation,
            outcome,
        };
        self.registers.lock().entry(key).or_default().push(event);
    }

    pub(super) fn appended(&self, list: &str, value: &str, fate: Fate) {
        let mut lists = self.lists.lock();
        let list = lists.entry(list.to_owned()).or_default();
        list.values.insert(value.to_owned(), fate);
    }

    pub(super) fn in_order(&self, list: &str, values: [String; 2]) {
        self.lists
            .lock()
            .entry(list.to_owned())
            .or_default()
            .pairs
            .push(values);
    }

    pub(super) fn report(&self, trace: u64) -> Report {
        let (registers, lists) = (self.registers.lock(), self.lists.lock());
        let operations = registers.values().flatten();
        let fates = || lists.values().flat_map(|list| list.values.values());
        let unknown = operations
            .clone()
            .filter(|event| event.outcome == Outcome::Unknown)
            .count();
        let mut history = DefaultHasher::new();
        for told in operations.clone() {
            format!("{told:?}").hash(&mut history);
        }
        for list in lists.values() {
            format!("{:?}", list.values).hash(&mut history);
        }
        format!("{:?}{:?}", self.sessions, self.stores).hash(&mut history);
        let stores = self.stores.counts();
        Report {
            trace,
            history: history.finish(),
            operations: operations.count()
                + fates().count()
                + self.sessions.len()
                + stores.iter().sum::<usize>(),
            stores,
            unknown: unknown + fates().filter(|fate| **fate == Fate::Unknown).count(),
        }
    }

    /// One clock that is wrong ends nobody's session: the log's is not ahead.
    fn clock(&self, world: &World, running: &Running) {
        let Some(right) = &world.right else { return };
        let ahead = running.node.now().saturating_sub(right.now());
        if ahead > RIGHT_MS.unsigned_abs() {
            let host = running.host;
            self.wrong(format!("on machine {host} the log's clock is {ahead} ms ahead"));
        }
    }

    fn digest(&self, host: usize, (index, digest): (u64, u128)) {
        let mut digests = self.digests.lock();
        let (other, before) = *digests.entry(index).or_insert((host, digest));
        drop(digests);
        if before != digest {
            self.wrong(format!(
                "after entry {index} machine {host} has the digest {digest:032x}, and machine {other} had {before:032x}"
            ));
        }
    }
}

/// Compares the machines' states as long as clients run.
pub(super) async fn watch(world: Arc<World>) {
    while !world.oracle.is_over() {
        tokio::time::sleep(COMPARE).await;
        for running in world.running() {
            world.oracle.clock(&world, &running);
            if let Some(digest) = running.call(running.node.digest()).await {
                world.oracle.digest(running.host, digest);
            }
        }
    }
}

/// Judges the whole run, on a cluster that was made whole again.
///
/// # Errors
/// What is wrong.
pub(super) async fn judge(world: &World) -> Result<(), String> {
    let oracle = &world.oracle;
    oracle.verdict()?;
    level(world).await?;
    let registers = std::mem::take(&mut *oracle.registers.lock());
    for (key, events) in &registers {
        if !is_linearizable(events) {
            return Err(format!("{key}: no order explains {events:#?}"));
        }
    }
    *oracle.registers.lock() = registers;
    let lists = std::mem::take(&mut *oracle.lists.lock());
    for running in world.running() {
        for (name, list) in &lists {
            let there = read(&running.node, name).await?;
            list.judge(&there)
                .map_err(|why| format!("{name} on machine {}: {why}; it is {there:?}", running.host))?;
        }
    }
    *oracle.lists.lock() = lists;
    if let Some(running) = world.running().first() {
        sessions::judge(&oracle.sessions, &running.node).await?;
        told::judge(&oracle.stores, &running.node).await?;
    }
    level(world).await
}

/// Waits until all have applied the same, and compares it.
async fn level(world: &World) -> Result<(), String> {
    let until = Instant::now() + LEVEL;
    loop {
        let mut states = BTreeSet::new();
        for running in world.running() {
            let digest = running.node.digest().await;
            world.oracle.digest(running.host, digest);
            states.insert(digest);
        }
        world.oracle.verdict()?;
        if states.len() == 1 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("the machines do not come level: {states:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) async fn read(node: &Node, list: &str) -> Result<Vec<String>, String> {
    let argv = ["LRANGE", list, "0", "-1"].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let reply = node.read(Freshness::Linearizable, 0, &argv).await;
    match reply.map_err(|error| format!("a cluster that is whole does not read: {error}"))? {
        Reply::Array(values) => Ok(values
            .iter()
            .map(|value| match value {
                Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => format!("{other:?}"),
            })
            .collect()),
        other => Err(format!("{list} is {other:?}")),
    }
}

impl List {
    fn judge(&self, there: &[String]) -> Result<(), String> {
        let mut places = BTreeMap::new();
        for (place, value) in there.iter().enumerate() {
            if places.insert(value, place).is_some() {
                return Err(format!("{value} is there twice"));
            }
            match self.values.get(value) {
                None => return Err(format!("{value} was never written")),
                Some(Fate::Refused) => return Err(format!("{value} was refused as not applied")),
                Some(_) => {}
            }
        }
        let lost = self
            .values
            .iter()
            .find(|(value, fate)| matches!(fate, Fate::Acknowledged(_)) && !places.contains_key(value));
        if let Some((value, fate)) = lost {
            return Err(format!("{value} is lost: {fate:?}"));
        }
        let turned = self.pairs.iter().find(|pair| {
            let [first, second] = pair.each_ref().map(|value| places.get(value));
            first.zip(second).is_some_and(|(first, second)| first > second)
        });
        turned.map_or(Ok(()), |pair| Err(format!("{pair:?} are the other way round")))
    }
}

#[test]
fn what_is_wrong_with_a_list_is_found() {
    let acknowledged = Fate::Acknowledged(crate::node::Token(1));
    let mut list = List::default();
    let fates = [
        ("a", acknowledged),
        ("b", acknowledged),
        ("c", Fate::Unknown),
        ("d", Fate::Refused),
    ];
    list.values
        .extend(fates.map(|(value, fate)| (value.to_owned(), fate)));
    list.pairs.push(["a", "b"].map(str::to_owned));
    let judge = |there: &[&str]| {
        let there: Vec<String> = there.iter().map(ToString::to_string).collect();
        list.judge(&there).err().unwrap_or_default()
    };
    assert_eq!(judge(&["a", "b"]), "");
    assert_eq!(judge(&["a", "c", "b"]), "");
    assert!(judge(&["a"]).contains("b is lost"));
    assert!(judge(&["a", "b", "a"]).contains("a is there twice"));
    assert!(judge(&["a", "b", "d"]).contains("d was refused"));
    assert!(judge(&["a", "b", "e"]).contains("e was never written"));
    assert!(judge(&["b", "a"]).contains("the other way round"));
}
