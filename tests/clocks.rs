//! Real processes whose machines' clocks differ, which lead by turns: nothing ends before its time, nothing much after it, and each session ends once.
//!
//! The clocks are turned by libfaketime, so that the program under test knows nothing of it. `PLENARY_SEED=N` repeats the offsets and lives;
//! `PLENARY_CLOCK_ROUNDS` says how many clusters are begun (2).

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use common::PATIENCE;
use plenary::cli::client::text;
use plenary::machine::reply::Reply;
use process::{Chance, Cluster, Process, plenary, setting, wait_until};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Keys and sessions of one round.
const ENDING: usize = 30;

/// Attempts at making one node the leader: when those that went come back, one of them may be elected.
const LEADS_WITHIN: usize = 10;

/// By how much a session may end later than its idle timeout: what `SESSION.CREATE` is told.
const SLACK: Duration = Duration::from_millis(500);

/// The library that turns a process' clock, if this machine has it.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let libraries = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

/// Starts a node whose machine's clock is off by so many seconds.
fn start(library: &Path, node: &mut Process, offset_s: i64) {
    let mut command = plenary(["serve"]);
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{offset_s:+}s"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    node.start_by(&mut command);
}

/// Something that is to end.
struct Ending {
    key: String,
    life: Duration,
    slack: Duration,
    /// Before and after it was written.
    asked: Instant,
    answered: Instant,
}

/// Writes one thing with a life of a second and some; none where the node could not say that it did.
fn write(node: &Process, number: usize, chance: &mut Chance) -> Option<Ending> {
    let life = Duration::from_millis(1_500 + chance.below(3_000) as u64);
    let (key, life_ms) = (format!("k{number}"), life.as_millis().to_string());
    let slack_ms = SLACK.as_millis().to_string();
    let asked = Instant::now();
    let (reply, slack) = if number.is_multiple_of(2) {
        (node.call(&["SET", &key, "v", "PX", &life_ms]), Duration::ZERO)
    } else {
        let create = ["SESSION.CREATE", &key, &life_ms, "SLACK", &slack_ms];
        (node.call(&create), SLACK)
    };
    let refused = matches!(reply, Err(_) | Ok(Reply::Error(_)));
    (!refused).then_some(Ending {
        key,
        life,
        slack,
        asked,
        answered: Instant::now(),
    })
}

/// Looks at everything on every node until all has ended: whatever is not there was not ended before its time.
fn watch(cluster: &Cluster, endings: &[Ending]) {
    let mut left: BTreeSet<(usize, usize)> = (0..endings.len())
        .flat_map(|ending| (0..cluster.nodes.len()).map(move |node| (ending, node)))
        .collect();
    let last = endings
        .iter()
        .map(|ending| ending.answered + ending.life)
        .max()
        .unwrap();
    while !left.is_empty() {
        let now = Instant::now();
        assert!(now < last + PATIENCE, "{left:?} do not end");
        left.retain(|(ending, node)| {
            let ending = &endings[*ending];
            match cluster.nodes[*node].call(&["EXISTS", &ending.key]) {
                Ok(Reply::Integer(0)) => {
                    let lived = ending.asked.elapsed();
                    assert!(
                        lived >= ending.life,
                        "{} of {:?} was gone after {lived:?}",
                        ending.key,
                        ending.life
                    );
                    false
                }
                Ok(Reply::Integer(1)) => true,
                other => panic!("{other:?}"),
            }
        });
    }
}

/// The keys of the sessions that have ended, as a node tells it.
fn ended(node: &Process) -> Vec<String> {
    let Reply::Array(events) = node.call(&["SESSION.EVENTS", "0", "COUNT", "1000"]).unwrap() else {
        panic!("no events");
    };
    let mut keys: Vec<String> = events
        .iter()
        .filter_map(|event| {
            let Reply::Array(parts) = event else {
                panic!("{event:?}")
            };
            let part = |name: &str| {
                parts
                    .chunks(2)
                    .find(|pair| text(&pair[0]) == name)
                    .map(|pair| text(&pair[1]))
            };
            (part("event")? == "ended").then(|| part("key"))?
        })
        .collect();
    keys.sort_unstable();
    keys
}

/// How far off the three clocks are, in seconds: one an hour or so, and the others hardly.
fn offsets(chance: &mut Chance) -> [i64; 3] {
    let far = [3_600, -3_600, 86_400, 600][chance.below(4)];
    let mut offsets = [0, 0, 0];
    offsets[chance.below(3)] = far;
    offsets
}

/// Makes a node the leader: the third one rests while the leader goes, so that it hands over to this one; then both come back.
fn lead(library: &Path, cluster: &mut Cluster, which: usize, offsets: [i64; 3]) {
    for _ in 0..LEADS_WITHIN {
        let leader = cluster.leader();
        if leader == which {
            return;
        }
        let goes = [3 - leader - which, leader];
        for node in goes {
            cluster.nodes[node].stop();
        }
        for node in goes {
            start(library, &mut cluster.nodes[node], offsets[node]);
        }
        cluster.nodes.iter().for_each(Process::ready);
    }
    panic!("node {which} does not lead");
}

#[test]
fn nothing_ends_early_or_twice_whichever_clock_is_wrong_and_whoever_leads() {
    let Some(library) = library() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "libfaketime is missing: install faketime"
        );
        println!("not shown: libfaketime is missing");
        return;
    };
    let mut chance = Chance::new("clocks");
    for _ in 0..setting("PLENARY_CLOCK_ROUNDS", 2) {
        let mut cluster = Cluster::new(3, &[]);
        let offsets = offsets(&mut chance);
        println!("clocks are off by {offsets:?} s");
        for (node, offset) in cluster.nodes.iter_mut().zip(offsets) {
            start(&library, node, offset);
        }
        cluster.nodes.iter().for_each(Process::ready);
        let mut endings: Vec<Ending> = Vec::new();
        // Each leads, so also the one that is wrong; what was written under one leader goes on under the next.
        for turn in 0..3 {
            lead(&library, &mut cluster, turn, offsets);
            for _ in 0..ENDING / 3 {
                let node = &cluster.nodes[chance.below(3)];
                let number = endings.len() + turn * ENDING;
                endings.extend(write(node, number, &mut chance));
            }
        }
        watch(&cluster, &endings);
        let mut sessions: Vec<String> = endings
            .iter()
            .filter(|ending| !ending.slack.is_zero())
            .map(|ending| ending.key.clone())
            .collect();
        sessions.sort_unstable();
        assert!(!sessions.is_empty());
        for node in &cluster.nodes {
            // A session past its deadline is not found before the log has ended it.
            wait_until("all ends are told", || {
                let told = ended(node).len();
                if told >= sessions.len() {
                    Ok(())
                } else {
                    Err(told.to_string())
                }
            });
            assert_eq!(ended(node), sessions, "each ends once, on every node");
        }
        cluster.assert_same_state();
    }
}
