//! Members write their snapshots one after the other: all see the log grow alike, and where all write at once nobody is left to answer quickly.

use super::plan::Plan;
use super::world::World;
use super::{seeds, simulate};
use crate::machine::entry::Command;
use crate::node::Node;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Bytes of a write, one of them a second: a snapshot is due after some 22 (`SNAPSHOT_BYTES`), and nobody waits for a turn any more after half as many again.
const WRITE_BYTES: usize = 1_000;
const PAUSE: Duration = Duration::from_secs(1);

/// How long they are watched: each must have had its turn before anybody stops to wait for one.
const WATCHED: Duration = Duration::from_secs(31);

/// How much later the next in turn is than who was first, at least; at once would be within a tenth of a second.
const APART: Duration = Duration::from_secs(1);

/// How often is looked who has taken one.
const LOOK: Duration = Duration::from_millis(10);

fn snapshots(nodes: &[Node]) -> BTreeMap<u64, u64> {
    let taken = nodes.iter().map(|node| (node.id(), node.status().snapshot_index));
    taken.collect()
}

/// Lets the log grow. When each member has taken its next snapshot, by id.
async fn watched(nodes: Vec<Node>) -> BTreeMap<u64, Duration> {
    let writer = nodes[0].clone();
    let writes = tokio::spawn(async move {
        loop {
            let set = ["SET".to_owned(), "key".to_owned(), "x".repeat(WRITE_BYTES)];
            writer
                .write(vec![Command::new(0, set)])
                .await
                .expect("nothing goes wrong");
            sleep(PAUSE).await;
        }
    });
    let (began, before, mut when) = (Instant::now(), snapshots(&nodes), BTreeMap::new());
    while began.elapsed() < WATCHED && when.len() < nodes.len() {
        sleep(LOOK).await;
        for (id, index) in snapshots(&nodes) {
            if index > before[&id] {
                when.entry(id).or_insert(began.elapsed());
            }
        }
    }
    writes.abort();
    when
}

fn nodes(world: &World) -> Vec<Node> {
    world.running().into_iter().map(|running| running.node).collect()
}

/// Checks that so many members have taken one, in the order of their ids and not at once.
fn one_after_the_other(when: &BTreeMap<u64, Duration>, members: usize) -> Result<(), String> {
    let times: Vec<Duration> = when.values().copied().collect();
    let apart = times.windows(2).all(|pair| pair[1] >= pair[0] + APART);
    if times.len() == members && apart {
        Ok(())
    } else {
        Err(format!("{members} members took snapshots after {times:?}"))
    }
}

/// All three, and then those that are left when the one whose turn is first is gone.
async fn snapshots_are_taken(world: Arc<World>, _: &Plan) -> Result<(), String> {
    one_after_the_other(&watched(nodes(&world)).await, 3)?;
    let first = world
        .running()
        .into_iter()
        .min_by_key(|running| running.node.id());
    let first = first.ok_or("nobody runs")?.host;
    world.stay_down(first);
    world.crash(first, false);
    // Until another leads, if it did.
    while world.leader().is_none() {
        sleep(LOOK).await;
    }
    one_after_the_other(&watched(nodes(&world)).await, 2)
}

#[test]
fn members_take_snapshots_one_after_the_other_also_when_one_is_away() {
    for seed in seeds(4) {
        let taken = simulate(&Plan::quiet(seed, WATCHED), snapshots_are_taken);
        taken.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}
