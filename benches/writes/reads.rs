//! Reads of one node's memory, without a cluster.

use super::{Fault, VALUE};
use crate::targets::PATIENCE;
use futures::FutureExt;
use plenary::Plenary;
use plenary::config::Durability;
use std::path::Path;
use std::time::{Duration, Instant};

/// Local reads from one node's memory: one caller, then two on threads of their own.
pub(crate) async fn measure(folder: &Path, span: Duration) -> Result<(), Fault> {
    const STORED: usize = 100_000;
    let plenary = Plenary::builder()
        .data(folder)
        .durability(Durability::Os)
        .start()
        .await?;
    plenary.node().ready(PATIENCE).await?;
    let key = |number: usize| format!("bench:{number:032}");
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..STORED {
        let cache = plenary.cache();
        writes.spawn(async move { cache.set(key(number), [b'v'; VALUE]).await });
        if writes.len() >= 1_024 {
            writes.join_next().await.ok_or("a write was under way")???;
        }
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    println!(
        "\n{:<50} {:>9} {:>9}",
        "local reads of 256 bytes, 100,000 keys", "per s", "ns each"
    );
    for callers in [1, 2] {
        let mut threads = Vec::new();
        for caller in 0..callers {
            let cache = plenary.cache();
            threads.push(tokio::task::spawn_blocking(move || {
                let (begun, mut count) = (Instant::now(), 0_usize);
                while begun.elapsed() < span {
                    for _ in 0..1_000 {
                        count += 1;
                        // A stride that has no divisor in common with the number of keys visits all, in no order.
                        let key = key((count * 7_919 + caller) % STORED);
                        let read = cache.get(key).now_or_never();
                        read.ok_or("a local read had to wait")??
                            .ok_or("a key is missing")?;
                    }
                }
                Ok::<usize, Fault>(count)
            }));
        }
        let mut count = 0;
        for thread in threads {
            count += thread.await??;
        }
        let per_second = count as f64 / span.as_secs_f64();
        println!(
            "{:<50} {per_second:>9.0} {:>9.0}",
            format!("{callers} threads"),
            1e9 * callers as f64 / per_second
        );
    }
    plenary.stop().await?;
    Ok(())
}
