//! How long writers wait when the leader goes: measured the same way by the tests (`tests/crash.rs`), which bound it generously, and
//! by `benches/failover.rs`, which prints the table.

use super::load::{Load, Record, connect};
use super::{Cluster, wait_until};
use std::time::{Duration, Instant};

/// Writers of the load.
pub const WRITERS: usize = 64;

/// Writes before and after each stop, so that there is a load to be disturbed.
const AROUND: u64 = 500;

/// One leader that went politely.
#[derive(Debug)]
pub struct Pause {
    /// The longest time in which no writer of the other nodes got an acknowledgement, from the signal on.
    pub pause: Duration,
    /// What the writers of the other nodes were told that was no acknowledgement.
    pub errors: Vec<String>,
    pub records: Vec<Record>,
}

/// Stops the leader by SIGTERM while the others' writers write, and starts it again.
#[track_caller]
pub fn stop_leader(cluster: &mut Cluster, round: u64) -> Pause {
    let leader = cluster.leader();
    let mut others = cluster.redis();
    others.remove(leader);
    let load = Load::start(&format!("stop{round}"), WRITERS, &others);
    load.goes_on(AROUND);
    let from = Instant::now();
    let ended = cluster.nodes[leader].stop();
    assert!(ended.success(), "{ended}; {}", cluster.nodes[leader].last_words());
    load.goes_on(AROUND);
    let to = Instant::now();
    let records = load.stop();
    cluster.start_all();
    let mut times: Vec<Instant> = records
        .iter()
        .flat_map(|record| &record.times)
        .copied()
        .filter(|time| (from..to).contains(time))
        .chain([from])
        .collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    Pause {
        pause: gaps.max().unwrap_or_default(),
        errors: records.iter().flat_map(|record| record.errors.clone()).collect(),
        records,
    }
}

/// Kills the leader with -9 and starts it again. The time from the kill to the next acknowledged write of a client of another node that
/// writes without a pause.
#[track_caller]
pub fn kill_leader(cluster: &mut Cluster, round: u64) -> Duration {
    let leader = cluster.leader();
    let mut writer = connect(&cluster.nodes[(leader + 1) % 3].redis).unwrap();
    let key = format!("kill{round}");
    for number in 0..50 {
        writer.call(&["SET", &key, &number.to_string()]).unwrap();
    }
    let from = Instant::now();
    cluster.nodes[leader].kill();
    wait_until("a write after the kill is acknowledged", || {
        writer
            .call(&["SET", &key, "after"])
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let waited = from.elapsed();
    cluster.start_all();
    waited
}

/// Median and maximum.
pub fn median_and_most(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], *times.last().expect("at least one round"))
}
