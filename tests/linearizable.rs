//! Histories of a few keys, checked for linearizability: what every client was told must fit one order of all operations, each somewhere
//! between its call and its return. Through the Rust interface with leaders that stop, and over Redis with leaders killed,
//! stopped, and cut off from the others.
//!
//! `checker` looks for that order.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod checker;
mod common;
mod process;

use bytes::Bytes;
use checker::{Event, Operation, Outcome, is_linearizable};
use common::{PATIENCE, addresses, config};
use plenary::machine::entry::Command;
use plenary::machine::reply::Reply;
use plenary::node::{Freshness, Node};
use process::load::{Fate, connect, fate};
use process::{Chance, Cluster, setting};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keys of a history, and the clients that work on them.
const KEYS: usize = 4;
const CLIENTS: usize = 8;

/// Operations of one key at most: what a checker can look through.
const OPERATIONS: usize = 400;

fn by_chance(chance: &mut Chance, fresh: &AtomicU64) -> Operation {
    // Values that occur once tell writes apart; far apart, so that increments do not meet.
    let value = || (fresh.fetch_add(1, Ordering::Relaxed) as i64) * 100_000;
    match chance.below(8) {
        0..3 => Operation::Get,
        3..5 => Operation::Set(value()),
        5 => Operation::SetNx(value()),
        _ => Operation::Incr,
    }
}

/// What all clients remember.
struct History {
    began: Instant,
    keys: Mutex<HashMap<String, Vec<Event>>>,
    fresh: AtomicU64,
    stop: AtomicBool,
}

impl History {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            keys: Mutex::default(),
            fresh: AtomicU64::new(1),
            stop: AtomicBool::new(false),
        }
    }

    /// Whether the key has room for more.
    fn has_room(&self, key: &str) -> bool {
        let keys = self.keys.lock().unwrap();
        keys.get(key).is_none_or(|events| events.len() < OPERATIONS)
    }

    fn note(&self, key: &str, called: Duration, operation: Operation, outcome: Outcome) {
        let event = Event {
            called,
            returned: self.began.elapsed(),
            operation,
            outcome,
        };
        self.keys
            .lock()
            .unwrap()
            .entry(key.to_owned())
            .or_default()
            .push(event);
    }

    #[track_caller]
    fn check(self) {
        for (key, events) in self.keys.into_inner().unwrap() {
            let unknown = events
                .iter()
                .filter(|event| event.outcome == Outcome::Unknown)
                .count();
            println!("{key}: {} operations, {unknown} of them unknown", events.len());
            assert!(is_linearizable(&events), "{key}: no order explains {events:#?}");
        }
    }
}

async fn api_client(history: &History, nodes: &[Node], which: usize, mut chance: Chance) {
    let node = &nodes[which % nodes.len()];
    while !history.stop.load(Ordering::Relaxed) {
        let key = format!("k{}", chance.below(KEYS));
        if !history.has_room(&key) {
            tokio::task::yield_now().await;
            continue;
        }
        let operation = by_chance(&mut chance, &history.fresh);
        let argv: Vec<Bytes> = operation.argv(&key).into_iter().map(Bytes::from).collect();
        let called = history.began.elapsed();
        let reply = if operation == Operation::Get {
            node.read(Freshness::Linearizable, 0, &argv).await
        } else {
            let written = node.write(vec![Command { db: 0, argv }]).await;
            written.map(|written| written.replies.into_iter().next().unwrap())
        };
        match reply {
            Ok(reply) => history.note(&key, called, operation, operation.outcome(&reply)),
            Err(error) if error.may_be_applied() => history.note(&key, called, operation, Outcome::Unknown),
            // Not applied: as if it had never been. This node may be the one that stops.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_interface_is_linearizable_while_leaders_stop() {
    let data = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = common::three_with(data.path(), &addresses, |_| {}).await;
    for round in 0..setting("PLENARY_HISTORIES", 3) {
        let history = std::sync::Arc::new(History::new());
        let mut clients = Vec::new();
        for which in 0..CLIENTS {
            let (history, nodes) = (history.clone(), nodes.clone());
            let chance = Chance::new(&format!("round {round}, client {which}"));
            clients.push(tokio::spawn(async move {
                api_client(&history, &nodes, which, chance).await;
            }));
        }
        let noted = || history.keys.lock().unwrap().values().map(Vec::len).sum::<usize>();
        common::eventually("half a history", async || noted() > KEYS * OPERATIONS / 4).await;
        let leader = nodes.iter().position(common::leads).unwrap_or(0);
        nodes[leader].stop().await.unwrap();
        common::eventually("the rest of it", async || noted() > KEYS * OPERATIONS / 2).await;
        history.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        // The folder is free when the last handle is dropped.
        drop(nodes.remove(leader));
        let again = Node::start(config(data.path(), &addresses, leader)).await;
        nodes.insert(leader, again.unwrap());
        nodes[leader].ready(PATIENCE).await.unwrap();
        for key in 0..KEYS {
            let command = Command::new(0, ["DEL", ["k0", "k1", "k2", "k3"][key]]);
            nodes[0].write(vec![command]).await.unwrap();
        }
        std::sync::Arc::into_inner(history)
            .expect("all clients have ended")
            .check();
    }
}

fn redis_client(history: &History, redis: &[String], which: usize, mut chance: Chance) {
    let (mut at, mut client) = (which, None);
    while !history.stop.load(Ordering::Relaxed) {
        let key = format!("k{}", chance.below(KEYS));
        if !history.has_room(&key) {
            std::thread::yield_now();
            continue;
        }
        if client.is_none() {
            client = connect(&redis[at % redis.len()])
                .and_then(|mut fresh| fresh.call(&["PLENARY", "FRESH", "linearizable"]).map(|_| fresh))
                .ok();
        }
        let Some(connected) = &mut client else {
            at += 1;
            std::thread::yield_now();
            continue;
        };
        let operation = by_chance(&mut chance, &history.fresh);
        let argv = operation.argv(&key);
        let called = history.began.elapsed();
        match connected.call(&argv) {
            Ok(reply) => history.note(&key, called, operation, operation.outcome(&reply)),
            Err(error) => {
                if fate(&error) == Fate::Unknown {
                    history.note(&key, called, operation, Outcome::Unknown);
                }
                (client, at) = (None, at + 1);
            }
        }
    }
}

/// What happens to a leader.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// kill -9, and it is started again.
    Killed,
    /// It stands still, and goes on.
    Stopped,
    /// Nobody hears it, and it hears nobody.
    CutOff,
    /// Nobody hears it.
    Mute,
    /// It hears nobody; and one of the others is killed and started again.
    Deaf,
}

impl Trouble {
    fn begin(self, cluster: &mut Cluster, leader: usize) {
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        match self {
            Self::Killed => cluster.nodes[leader].kill(),
            Self::Stopped => cluster.nodes[leader].signal("STOP"),
            Self::CutOff => cluster.network().isolate(leader),
            Self::Mute => others
                .into_iter()
                .for_each(|to| cluster.network().cut(leader, to)),
            Self::Deaf => {
                for from in others {
                    cluster.network().cut(from, leader);
                }
                cluster.nodes[others[0]].kill();
                cluster.nodes[others[0]].start();
            }
        }
    }

    fn end(self, cluster: &mut Cluster, leader: usize) {
        match self {
            Self::Killed => {
                cluster.nodes[leader].start();
                cluster.nodes[leader].ready();
            }
            Self::Stopped => cluster.nodes[leader].signal("CONT"),
            Self::CutOff | Self::Mute | Self::Deaf => cluster.network().heal(),
        }
    }
}

/// Clients of three nodes while leaders are in trouble, one after the other; then the history is checked.
fn one_order(mut cluster: Cluster, what: &str, troubles: &[Trouble]) {
    cluster.start_all();
    let (history, redis) = (History::new(), cluster.redis());
    std::thread::scope(|scope| {
        for which in 0..CLIENTS {
            let chance = Chance::new(&format!("{what}, client {which}"));
            let (history, redis) = (&history, &redis);
            scope.spawn(move || redis_client(history, redis, which, chance));
        }
        let noted = || history.keys.lock().unwrap().values().map(Vec::len).sum::<usize>();
        let goes_on = |more: usize| {
            let until = (noted() + more).min(KEYS * OPERATIONS);
            process::wait_until("the history goes on", || {
                if noted() >= until {
                    Ok(())
                } else {
                    Err(format!("{} of {until}", noted()))
                }
            });
        };
        for trouble in troubles {
            goes_on(150);
            let leader = cluster.leader();
            trouble.begin(&mut cluster, leader);
            goes_on(150);
            trouble.end(&mut cluster, leader);
        }
        goes_on(150);
        history.stop.store(true, Ordering::Relaxed);
    });
    history.check();
    cluster.level();
    cluster.assert_same_state();
}

/// Writes are given up before the history is over.
const DEADLINE: [&str; 2] = ["--write-deadline-ms", "2000"];

#[test]
fn redis_clients_see_one_order_while_leaders_are_killed_and_stand_still() {
    for trouble in [Trouble::Killed, Trouble::Stopped] {
        one_order(Cluster::new(3, &DEADLINE), &format!("{trouble:?}"), &[trouble; 3]);
    }
}

#[test]
fn redis_clients_see_one_order_while_leaders_are_cut_off() {
    for leases in ["false", "true"] {
        let settings = [&DEADLINE[..], &["--lease-reads", leases]].concat();
        if let Some(cluster) = Cluster::in_network(3, &settings) {
            let troubles = [Trouble::CutOff, Trouble::Mute, Trouble::Deaf];
            one_order(cluster, &format!("cut off, leases {leases}"), &troubles);
        }
    }
}
