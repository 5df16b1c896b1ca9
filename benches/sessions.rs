//! Sessions from Rust: what a load costs in this process's memory, and what handing a lock over costs beside a plain write. Prints a table.
//!
//!     cargo bench --bench sessions                        # a million sessions, some 3 GB
//!     cargo bench --bench sessions -- --sessions 100000

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use plenary::config::Config;
use plenary::machine::entry::Command;
use plenary::node::Node;
use plenary::session::{Locking, NewSession, SessionError, SessionId};
use plenary::{Cache, Sessions};
use std::hint::black_box;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a session holds: 8 items, 1 KB.
const ITEMS: usize = 8;
const ITEM_BYTES: usize = 120;

/// Loads that are timed, one by one.
const LOADS: usize = 200_000;

/// Sessions created by one group of commands.
const CREATED_AT_A_TIME: usize = 500;

/// Requests that stand in the queue for one session.
const WAITING: usize = 30;

/// Hand-overs that are timed, and plain writes beside them.
const HAND_OVERS: usize = 600;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = arguments.iter().position(|argument| argument == "--sessions");
    let sessions = match asked.and_then(|at| arguments.get(at + 1)) {
        Some(number) => number.parse()?,
        None => 1_000_000,
    };
    println!("| what | median | 99 % | |\n|---|---|---|---|");
    loads(sessions).await?;
    hand_overs().await
}

fn row(what: &str, mut times: Vec<Duration>, note: &str) -> Duration {
    times.sort_unstable();
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("| {what} | {median:.2?} | {late:.2?} | {note} |");
    median
}

/// Loads of sessions that one node holds.
async fn loads(count: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut config = Config::new(folder.path());
    config.durability = plenary::Durability::Os;
    let node = Node::start(config).await?;
    node.ready(Duration::from_secs(30)).await?;
    let sessions = Sessions::new(Cache::new(node.clone()));
    let value = "v".repeat(ITEM_BYTES);
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let new = CREATED_AT_A_TIME.min(count - ids.len());
        let mut commands = Vec::with_capacity(new);
        for _ in 0..new {
            let id = SessionId::random()?;
            let mut argv = vec![
                Bytes::from("SESSION.CREATE"),
                sessions.key_of(&id),
                "1200000".into(),
            ];
            argv.extend(["ITEMS".into(), ITEMS.to_string().into()]);
            argv.extend((0..ITEMS).flat_map(|item| [format!("item {item}").into(), value.clone().into()]));
            commands.push(Command { db: 0, argv });
            ids.push(id);
        }
        node.write(commands).await?;
    }
    let mut times = Vec::with_capacity(LOADS);
    let mut place = 1usize;
    for _ in 0..LOADS {
        // Far apart, in no order that memory would know.
        place = (place
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407))
            >> 1;
        let id = &ids[place % count];
        let began = Instant::now();
        let session = sessions.load(id).await?;
        times.push(began.elapsed());
        black_box(session.ok_or("a session that was just created")?);
    }
    row(
        &format!("load of one of {count} sessions, 8 items, 1 KB"),
        times,
        "in process; goal: under 2 µs",
    );
    node.stop().await?;
    Ok(())
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
