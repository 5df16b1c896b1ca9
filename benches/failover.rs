//! How long writers wait when the leader goes, with real processes and default settings: `cargo bench --bench failover`.
//!
//! `PLENARY_ROUNDS=N` repeats each N times (20). Prints a table; judges nothing: `tests/crash.rs` does.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/process/mod.rs"]
mod process;

use process::Cluster;
use process::failover::{WRITERS, kill_leader, median_and_most, stop_leader};
use std::time::Duration;

fn main() {
    let rounds = process::setting("PLENARY_ROUNDS", 20);
    let mut cluster = Cluster::three(&[]);
    let (mut errors, mut pauses) = (0, Vec::new());
    for round in 0..rounds {
        let stopped = stop_leader(&mut cluster, round);
        errors += stopped.errors.len();
        pauses.push(stopped.pause);
    }
    let kills = (0..rounds)
        .map(|round| kill_leader(&mut cluster, round))
        .collect();
    println!("| what | times | median | longest |\n|---|---|---|---|");
    row(
        &format!("pause of {WRITERS} writers when the leader is stopped ({errors} errors)"),
        rounds,
        pauses,
    );
    row(
        "kill -9 of the leader to the next acknowledged write",
        rounds,
        kills,
    );
}

fn row(what: &str, rounds: u64, times: Vec<Duration>) {
    let (median, most) = median_and_most(times);
    println!(
        "| {what} | {rounds} | {} ms | {} ms |",
        median.as_millis(),
        most.as_millis()
    );
}
