//! Real processes, killed and stopped while 64 writers write: nothing acknowledged is lost, nothing is applied twice, all nodes hold
//! the same. How often is set by variables, so that `cargo test` is short and CI thorough; each prints its seed and what it did.
//!
//! | variable | what | default |
//! |---|---|---|
//! | `PLENARY_KILLS` | one node killed with -9 and restarted | 8 |
//! | `PLENARY_KILLS_OF_ALL` | all three killed at once, for each durability, and with the log in sled | 2 |
//! | `PLENARY_STOPS` | the leader stopped politely | 3 |
//! | `PLENARY_LEADER_KILLS` | the leader killed, and the time to the next write taken | 3 |
//! | `PLENARY_LOAD_SECONDS` | full load in which no election may happen | 5 |

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use common::PATIENCE;
use process::failover::{WRITERS, kill_leader, median_and_most, stop_leader};
use process::load::{Load, assert_nothing_lost_or_doubled};
use process::{Chance, Cluster, setting, wait_until};
use std::time::{Duration, Instant};

/// Writes that must be acknowledged between two blows.
const BETWEEN: u64 = 200;

/// What a pause may never be. The goals are far below (`benches/failover.rs`), but a test must not fail because the machine is busy.
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[test]
fn nothing_is_lost_or_doubled_when_one_node_is_killed() {
    let mut chance = Chance::new("one node is killed");
    let mut cluster = Cluster::three(&[]);
    let load = Load::start("kill", WRITERS, &cluster.redis());
    let kills = setting("PLENARY_KILLS", 8);
    for kill in 0..kills {
        load.goes_on(BETWEEN);
        // Every other time the leader: it is the one whose loss costs most.
        let victim = if kill % 2 == 0 {
            cluster.leader()
        } else {
            chance.below(3)
        };
        cluster.nodes[victim].kill();
        load.goes_on(BETWEEN);
        cluster.nodes[victim].start();
        cluster.nodes[victim].ready();
    }
    load.goes_on(BETWEEN);
    let records = load.stop();
    let proof = assert_nothing_lost_or_doubled(&cluster, &records);
    println!("{kills} kills of one node: {proof:?}");
}

#[test]
fn nothing_is_lost_or_doubled_when_all_nodes_are_killed_at_once() {
    for (durability, log) in [("fsync", "segments"), ("os", "segments"), ("fsync", "sled")] {
        let mut cluster = Cluster::three(&["--durability", durability, "--log-store", log]);
        let rounds = setting("PLENARY_KILLS_OF_ALL", 2);
        let load = Load::start("all", WRITERS, &cluster.redis());
        for _ in 0..rounds {
            load.goes_on(BETWEEN);
            for node in &cluster.nodes {
                node.signal("KILL");
            }
            for node in &mut cluster.nodes {
                node.kill();
            }
            cluster.start_all();
        }
        load.goes_on(BETWEEN);
        let proof = assert_nothing_lost_or_doubled(&cluster, &load.stop());
        println!("{rounds} kills of all three under {durability}, log in {log}: {proof:?}");
    }
}

#[test]
fn nothing_is_lost_when_logs_are_converted_under_load() {
    let mut cluster = Cluster::three(&["--log-store", "sled"]);
    let load = Load::start("convert", WRITERS, &cluster.redis());
    // One after the other, killed: a cluster has both kinds meanwhile. The last one goes back.
    for (victim, kind) in [(0, "segments"), (1, "segments"), (2, "segments"), (0, "sled")] {
        load.goes_on(BETWEEN);
        cluster.nodes[victim].kill();
        let setting = cluster.nodes[victim]
            .args
            .iter()
            .rposition(|arg| arg == "--log-store");
        cluster.nodes[victim].args[setting.unwrap() + 1] = kind.to_owned();
        cluster.nodes[victim].start();
        cluster.nodes[victim].ready();
        let in_segments = cluster.nodes[victim].data.join("log").exists();
        assert_eq!(
            in_segments,
            kind == "segments",
            "{}",
            cluster.nodes[victim].last_words()
        );
    }
    load.goes_on(BETWEEN);
    assert_nothing_lost_or_doubled(&cluster, &load.stop());
}

#[test]
fn writers_of_other_nodes_see_no_error_when_the_leader_is_stopped() {
    let mut cluster = Cluster::three(&[]);
    let (mut pauses, mut records) = (Vec::new(), Vec::new());
    for round in 0..setting("PLENARY_STOPS", 3) {
        let stopped = stop_leader(&mut cluster, round);
        assert_eq!(stopped.errors, Vec::<String>::new());
        pauses.push(stopped.pause);
        records.extend(stopped.records);
    }
    assert_nothing_lost_or_doubled(&cluster, &records);
    println!("{} stops of the leader: pauses {pauses:?}", pauses.len());
    let (median, most) = median_and_most(pauses);
    println!("median {median:?}, most {most:?} (goal: under 200 ms)");
    assert!(most < PAUSE_MAX);
}

#[test]
fn writes_go_on_soon_after_the_leader_was_killed() {
    let mut cluster = Cluster::three(&[]);
    let rounds = setting("PLENARY_LEADER_KILLS", 3);
    let times: Vec<Duration> = (0..rounds)
        .map(|round| kill_leader(&mut cluster, round))
        .collect();
    println!("{rounds} kills of the leader: next write after {times:?}");
    let (median, most) = median_and_most(times);
    println!("median {median:?}, most {most:?} (goal: median under 1.3 s)");
    assert!(most < PAUSE_MAX);
    cluster.assert_same_state();
}

#[test]
fn full_load_causes_no_election() {
    let cluster = Cluster::three(&[]);
    let term = || -> Vec<u64> {
        let terms = cluster
            .nodes
            .iter()
            .map(|node| node.status().map(|status| status.term));
        terms.collect::<Result<_, _>>().unwrap()
    };
    // A node that joined late may have heard of the term only now.
    wait_until("one term", || {
        let terms = term();
        if terms.iter().all(|one| *one == terms[0]) {
            Ok(())
        } else {
            Err(format!("{terms:?}"))
        }
    });
    let before = term();
    let load = Load::start("load", WRITERS, &cluster.redis());
    let seconds = setting("PLENARY_LOAD_SECONDS", 5);
    let (began, mut looked) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        load.goes_on(BETWEEN);
        looked += 1;
    }
    let (took, acknowledged) = (began.elapsed(), load.acknowledged());
    let records = load.stop();
    let after = term();
    println!(
        "{acknowledged} writes in {took:?} by {WRITERS} writers ({looked} looks, each within {PATIENCE:?}): terms {before:?} then {after:?}"
    );
    assert_eq!(before, after, "an election under load");
    let errors: Vec<&String> = records.iter().flat_map(|record| &record.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_nothing_lost_or_doubled(&cluster, &records);
}
