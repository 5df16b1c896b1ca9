//! Sessions from Rust: what a load costs in this process's memory, and what handing a lock over costs beside a plain write. Prints a table.
//!
//!     cargo bench --bench sessions                        # a million sessions, some 3 GB
//!     cargo bench --bench sessions -- --sessions 100000
//!
//! The same loads from other caches: `peers`, a project of its own.

#[path = "../tests/common/mod.rs"]
mod common;
mod loads;

use loads::{Result, row};
use plenary::session::{Locking, NewSession, SessionError};
use plenary::{Cache, Sessions};
use std::time::Instant;

/// Requests that stand in the queue for one session.
const WAITING: usize = 30;

/// Hand-overs that are timed, and plain writes beside them.
const HAND_OVERS: usize = 600;

#[tokio::main]
async fn main() -> Result<()> {
    let sessions = loads::asked_for()?;
    loads::head();
    loads::of_plenary(sessions).await?;
    hand_overs().await
}

/// Hand-overs of a lock between requests on three nodes, beside plain writes of the same number of callers.
async fn hand_overs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nodes = common::three(folder.path()).await;
    let handles: Vec<Sessions> = nodes
        .iter()
        .map(|node| Sessions::new(Cache::new(node.clone())))
        .collect();
    let mut writes = Vec::new();
    for write in 0..HAND_OVERS {
        let cache = Cache::new(nodes[write % 3].clone());
        let began = Instant::now();
        cache.set("key", "value").await?;
        writes.push(began.elapsed());
    }
    let write = row(
        "a plain write, one at a time, three nodes by turns",
        writes,
        "fsync",
    );
    let id = handles[0].create(NewSession::new()).await?.id().clone();
    // Each gives the lock up as soon as it has it: what passes until the next one has it is the hand-over.
    let (got, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = Vec::new();
    for request in 0..WAITING {
        let (sessions, id, got) = (handles[request % 3].clone(), id.clone(), got.clone());
        waiting.push(tokio::spawn(async move {
            for _ in 0..HAND_OVERS / WAITING {
                let lock = sessions.lock(&id, Locking::exclusive()).await?;
                let _ = got.send(Instant::now());
                lock.unlock().await?;
            }
            Ok::<(), SessionError>(())
        }));
    }
    drop(got);
    let mut times = Vec::new();
    while let Some(time) = taken.recv().await {
        times.push(time);
    }
    for request in waiting {
        request.await??;
    }
    times.sort_unstable();
    let hand_overs = times.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    let median = row(
        &format!("a hand-over, {WAITING} requests on three nodes in the queue"),
        hand_overs.collect(),
        "goal: under twice the write",
    );
    println!(
        "\nhand-over to write: {:.2}",
        median.as_secs_f64() / write.as_secs_f64()
    );
    for node in &nodes {
        node.stop().await?;
    }
    Ok(())
}
