//! The memory of one node beside a redis-server that holds the same, and how long a node with so many keys takes to start again.

use super::load::fill_with;
use super::targets::children::{Plenaries, Redis};
use super::targets::closed_loop::memory;
use super::targets::{Fault, Target};
use std::time::{Duration, Instant};

/// Content of each key, in bytes: of eight parts, their names included, where it has parts.
const CONTENT: usize = 512;
const PARTS: usize = 8;

/// A day: what sessions live for.
const LIFE_SECONDS: &str = "86400";
const LIFE_MS: &str = "86400000";

/// How long memory is given to settle: snapshots are written meanwhile.
pub(crate) const SETTLES: Duration = Duration::from_secs(5);

/// What is stored under each key.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    String,
    Hash,
    Session,
}

impl Kind {
    const ALL: [(&str, Self); 4] = [
        ("a string of 128 bytes that stays", Self::Plain),
        ("a string of 512 bytes that lives for a day", Self::String),
        ("a hash of 8 fields, 512 bytes, that lives for a day", Self::Hash),
        ("a session of 8 items, 512 bytes (Redis: the hash)", Self::Session),
    ];

    /// The commands that store it under this key.
    fn commands(self, key: &str) -> Vec<Vec<Vec<u8>>> {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| word.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let parts = (0..PARTS).flat_map(|part| {
            let name = format!("field {part}");
            let value = "v".repeat(CONTENT / PARTS - name.len());
            [name.into_bytes(), value.into_bytes()]
        });
        match self {
            Self::Plain => vec![words(&["SET", key, &"v".repeat(128)])],
            Self::String => vec![words(&["SET", key, &"v".repeat(CONTENT), "EX", LIFE_SECONDS])],
            Self::Hash => vec![
                words(&["HSET", key]).into_iter().chain(parts).collect(),
                words(&["EXPIRE", key, LIFE_SECONDS]),
            ],
            Self::Session => {
                let head = words(&["SESSION.CREATE", key, LIFE_MS, "ITEMS", &PARTS.to_string()]);
                vec![head.into_iter().chain(parts).collect()]
            }
        }
    }

    /// Fills a server; how many bytes of memory each key took.
    async fn fill(self, server: &dyn Target, port: u16, keys: usize) -> Result<f64, Fault> {
        let before = memory(server)?;
        let commands = move |number: usize| {
            // In no order that memory would know.
            let number = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.commands(&format!("session:{number:032x}"))
        };
        fill_with(port, keys, commands).await?;
        tokio::time::sleep(SETTLES).await;
        Ok((memory(server)? - before) as f64 / keys as f64)
    }
}

pub(crate) async fn measure(keys: usize) -> Result<(), Fault> {
    println!(
        "\n| {keys} keys, each | Plenary, bytes | Redis, bytes | of Redis | started again, bytes | of Redis | ready after |\n|---|---|---|---|---|---|---|"
    );
    for (name, kind) in Kind::ALL {
        let folder = tempfile::tempdir()?;
        let redis = Redis::start_in_memory(&folder.path().join("redis")).await?;
        let same = if let Kind::Session = kind {
            Kind::Hash
        } else {
            kind
        };
        let of_redis = same.fill(&redis, redis[0].port, keys).await?;
        drop(redis);
        let node = Plenaries::start_with(folder.path(), 1, &[]).await?;
        let plenary = kind.fill(&node, node.ports[0], keys).await?;
        drop(node);
        let begun = Instant::now();
        let node = Plenaries::start_with(folder.path(), 1, &[]).await?;
        node.until(0, |status| status["keys"] == keys).await?;
        let ready = begun.elapsed();
        tokio::time::sleep(SETTLES).await;
        let again = memory(&node)? as f64 / keys as f64;
        println!(
            "| {name} | {plenary:.0} | {of_redis:.0} | {:.2} | {again:.0} | {:.2} | {:.1} s |",
            plenary / of_redis,
            again / of_redis,
            ready.as_secs_f64()
        );
    }
    Ok(())
}
