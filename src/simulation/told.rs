//! What stores were told, and what must be so of it: each count given once, chains whole, locks held by one.

use super::clients::Fate;
use super::oracle;
use super::sessions::{HandOver, judge_hand_overs};
use crate::machine::reply::Reply;
use crate::node::{Freshness, Node};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// What all stores were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    counters: Mutex<BTreeMap<String, Counter>>,
    chains: Mutex<BTreeMap<String, BTreeMap<String, Fate>>>,
    locks: Mutex<BTreeMap<String, Vec<Held>>>,
    sessions: Mutex<BTreeMap<String, Vec<HandOver>>>,
}

/// What became of a counter that only grows, by one.
#[derive(Clone, Debug, Default)]
struct Counter {
    sums: Vec<i64>,
    unknown: usize,
}

/// A lock was taken: when that was asked, when it was known, and until when it was held at least, where that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) asked: Duration,
    pub(super) from: Duration,
    pub(super) until: Option<Duration>,
}

impl Told {
    /// A counter was counted on to this sum; none: perhaps.
    pub(super) fn counted(&self, counter: &str, sum: Option<i64>) {
        let mut counters = self.counters.lock();
        let counter = counters.entry(counter.to_owned()).or_default();
        match sum {
            Some(sum) => counter.sums.push(sum),
            None => counter.unknown += 1,
        }
    }

    /// A value was given to a chain; what is told of it last counts.
    pub(super) fn chained(&self, chain: &str, value: &str, fate: Fate) {
        let mut chains = self.chains.lock();
        let chain = chains.entry(chain.to_owned()).or_default();
        chain.insert(value.to_owned(), fate);
    }

    pub(super) fn held(&self, lock: &str, held: Held) {
        let mut locks = self.locks.lock();
        locks.entry(lock.to_owned()).or_default().push(held);
    }

    /// A session that counted so many was saved with one more, or may have been.
    pub(super) fn saved(&self, session: &str, before: u64, fate: Fate) {
        if fate == Fate::Refused {
            return;
        }
        let mut sessions = self.sessions.lock();
        sessions.entry(session.to_owned()).or_default().push(HandOver {
            before,
            // These locks have none.
            token: before,
            acknowledged: fate != Fate::Unknown,
        });
    }

    /// How often counters were counted on, chains added to, locks let go, sessions saved.
    pub(super) fn counts(&self) -> [usize; 4] {
        let counters = self.counters.lock();
        let counted = counters
            .values()
            .map(|counter| counter.sums.len() + counter.unknown);
        [
            counted.sum(),
            self.chains.lock().values().map(BTreeMap::len).sum(),
            self.locks
                .lock()
                .values()
                .flatten()
                .filter(|held| held.until.is_some())
                .count(),
            self.sessions.lock().values().map(Vec::len).sum(),
        ]
    }
}

/// Judges what became of them, on a machine of a cluster that is whole and level.
///
/// # Errors
/// What is wrong.
pub(super) async fn judge(told: &Told, node: &Node) -> Result<(), String> {
    let counters = told.counters.lock().clone();
    for (name, counter) in counters {
        let count = number(node, &name).await?;
        judge_counter(count, &counter).map_err(|why| format!("{name}: {why}: {counter:?}"))?;
    }
    let chains = told.chains.lock().clone();
    for (name, values) in chains {
        let (count, there) = (
            number(node, &name).await?,
            oracle::read(node, &format!("{name}.all")).await?,
        );
        judge_chain(count, &there, &values)
            .map_err(|why| format!("{name}: {why}; it counts {count} and is {there:?}"))?;
    }
    let sessions = told.sessions.lock().clone();
    for (name, saved) in sessions {
        let count = number(node, &name).await? as u64;
        judge_hand_overs(count, &saved).map_err(|why| format!("{name}: {why}: {saved:?}"))?;
    }
    for (name, held) in &*told.locks.lock() {
        judge_lock(held).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

async fn number(node: &Node, key: &str) -> Result<usize, String> {
    let argv = ["GET", key].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let reply = node.read(Freshness::Linearizable, 0, &argv).await;
    let number = match reply.map_err(|error| error.to_string())? {
        Reply::Nil => Some(0),
        Reply::Integer(number) => usize::try_from(number).ok(),
        Reply::Bulk(bytes) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.ok_or(format!("{key} is no number"))
}

/// What a counter came to whose sums these are.
fn judge_counter(count: usize, counter: &Counter) -> Result<(), String> {
    let mut sums = counter.sums.clone();
    sums.sort_unstable();
    if let Some(two) = sums.windows(2).find(|two| two[0] == two[1]) {
        return Err(format!("{} was told twice", two[0]));
    }
    let (least, most) = (sums.len(), sums.len() + counter.unknown);
    if !(least..=most).contains(&count) {
        return Err(format!("it counts {count}, and {least} to {most} counted on"));
    }
    Ok(())
}

/// What a chain must be: its list as long as its counter says, each value in the place that it names, and none but those that may be there.
fn judge_chain(count: usize, there: &[String], values: &BTreeMap<String, Fate>) -> Result<(), String> {
    if there.len() != count {
        return Err("counter and list differ".to_owned());
    }
    let mut found = BTreeMap::new();
    for (place, link) in there.iter().enumerate() {
        let (value, said) = link.split_once('@').unwrap_or((link, ""));
        if said != place.to_string() {
            return Err(format!("{link} stands in place {place}"));
        }
        if found.insert(value, place).is_some() {
            return Err(format!("{value} is there twice"));
        }
        match values.get(value) {
            None => return Err(format!("{value} was never given")),
            Some(Fate::Refused) => return Err(format!("{value} was refused as not applied")),
            Some(_) => {}
        }
    }
    let lost = values
        .iter()
        .find(|(value, fate)| matches!(fate, Fate::Acknowledged(_)) && !found.contains_key(value.as_str()));
    lost.map_or(Ok(()), |(value, _)| Err(format!("{value} is lost")))
}

/// Nobody takes a lock while another has it.
fn judge_lock(held: &[Held]) -> Result<(), String> {
    for one in held {
        let meanwhile = |other: &&Held| other.asked > one.from && Some(other.from) < one.until;
        if let Some(other) = held.iter().find(meanwhile) {
            return Err(format!("it was taken while it was held: {one:?}, {other:?}"));
        }
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_what_stores_were_told_is_found() {
    let counter = |sums: &[i64]| Counter {
        sums: sums.to_vec(),
        unknown: 1,
    };
    let judge = |count, sums: &[i64]| judge_counter(count, &counter(sums)).err().unwrap_or_default();
    assert_eq!(judge(2, &[2, 1]), "");
    assert_eq!(judge(3, &[3, 1]), "");
    assert!(judge(3, &[2, 2]).contains("2 was told twice"));
    assert!(judge(4, &[1, 2]).contains("it counts 4"));
    assert!(judge(1, &[1, 2]).contains("it counts 1"));

    let acknowledged = Fate::Acknowledged(crate::node::Token(1));
    let fates = [("a", acknowledged), ("b", Fate::Unknown), ("c", Fate::Refused)];
    let values: BTreeMap<String, Fate> = fates.map(|(value, fate)| (value.to_owned(), fate)).into();
    let judge = |count, there: &[&str]| {
        let there: Vec<String> = there.iter().map(ToString::to_string).collect();
        judge_chain(count, &there, &values).err().unwrap_or_default()
    };
    assert_eq!(judge(1, &["a@0"]), "");
    assert_eq!(judge(2, &["b@0", "a@1"]), "");
    assert!(judge(2, &["a@0"]).contains("differ"));
    assert!(judge(1, &["a@1"]).contains("a@1 stands in place 0"));
    assert!(judge(2, &["a@0", "a@1"]).contains("twice"));
    assert!(judge(2, &["a@0", "c@1"]).contains("c was refused"));
    assert!(judge(2, &["a@0", "d@1"]).contains("d was never given"));
    assert!(judge(1, &["b@0"]).contains("a is lost"));

    let seconds = Duration::from_secs;
    let held = |from, until: Option<u64>| Held {
        asked: seconds(from - 1),
        from: seconds(from),
        until: until.map(seconds),
    };
    assert_eq!(
        judge_lock(&[held(5, Some(6)), held(2, Some(4)), held(4, None)]),
        Ok(())
    );
    assert!(judge_lock(&[held(2, Some(6)), held(4, None)]).is_err());
}
