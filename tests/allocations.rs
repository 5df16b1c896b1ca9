//! What a read in process costs, as far as it can be counted: it is done when it is asked for the first time, and allocates nothing.
//!
//! A program of its own, for its allocator counts. It counts by thread, so that the node's own tasks do not matter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use allocation_counter::measure;
use futures::FutureExt;
use plenary::{Cache, EntryOptions, Freshness};
use std::time::Duration;

/// How many allocations this makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

/// Lengths of values: with their count beside them in steps of 16 bytes, and apart from it.
const LENGTHS: [usize; 6] = [0, 5, 16, 128, 255, 10_000];

async fn filled() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(common::one(folder.path()).await);
    for length in LENGTHS {
        cache.set(format!("k{length}"), vec![b'v'; length]).await.unwrap();
    }
    (folder, cache)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_allocates_nothing_not_even_the_first() {
    assert_eq!(
        allocations(|| drop(std::hint::black_box(vec![0u8; 100]))),
        1,
        "it counts"
    );
    let (_folder, cache) = filled().await;
    let unseen = Cache::new(cache.node().expect("in this process").clone());
    for length in LENGTHS {
        let key = format!("k{length}");
        // A fresh handle, one that has seen what it wrote, and one that asks for that: none has anything to wait for.
        let at_least = cache.with_freshness(Freshness::AtLeast(cache.token()));
        for handle in [&unseen, &cache, &at_least] {
            let mut found = None;
            let count = allocations(|| found = handle.get(&key).now_or_never());
            let value = found.expect("done at once").unwrap().expect("it was put");
            assert_eq!((count, value.len()), (0, length));
        }
        let count = allocations(|| drop(cache.get("absent").now_or_never()));
        assert_eq!(count, 0, "nor does a miss");
        let count = allocations(|| drop(cache.get_with(&key, <[u8]>::len).now_or_never()));
        assert_eq!(count, 0);
    }
    common::stop(&[cache.node().unwrap().clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = common::one(folder.path()).await;
    let cache = Cache::new(node.clone());
    cache.set("k", vec![b'v'; 100]).await.unwrap();
    let options = EntryOptions::new(Duration::from_secs(600));
    // Below 8 KiB an entry is in one run of memory, whose first share is counted apart.
    cache.set_with("h", vec![b'v'; 10_000], &options).await.unwrap();
    node.snapshot().await.unwrap();
    common::eventually("a snapshot", async || node.status().snapshot_index > 0).await;
    node.stop().await.unwrap();
    drop((node, cache));
    let node = common::one(folder.path()).await;
    let cache = Cache::new(node.clone());
    for key in ["k", "h"] {
        let mut found = None;
        let count = allocations(|| found = cache.get(key).now_or_never());
        assert!(found.expect("done at once").unwrap().is_some());
        assert_eq!(count, 0, "{key}");
    }
    node.stop().await.unwrap();
}
