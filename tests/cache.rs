//! The cache beyond get and set: values loaded once in the whole cluster, stale ones, tags, compare and set, locks, topics. On one node and on three.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{
    PATIENCE, Reach, addresses, assert_same_state, caches, eventually, however_reached, impatient, three_with,
};
use futures::StreamExt;
use futures::future::join_all;
use plenary::cache::{Expected, Heard};
use plenary::config::Config;
use plenary::{Cache, EntryOptions, Error, Freshness, Node, Plenary, Reply};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const LONG: Duration = Duration::from_secs(600);

/// Longer than any test: what ends by it has failed.
const NEVER: Duration = Duration::from_secs(3_600);

struct Cluster {
    nodes: Vec<Node>,
    caches: Vec<Cache>,
    _folder: tempfile::TempDir,
}

async fn cluster(reach: Reach) -> Cluster {
    cluster_with(reach, |_| {}).await
}

async fn cluster_with(reach: Reach, change: impl Fn(&mut Config)) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let nodes = three_with(folder.path(), &addresses(3), change).await;
    Cluster {
        caches: caches(&nodes, reach).await,
        nodes,
        _folder: folder,
    }
}

impl Cluster {
    async fn stop(self) {
        common::stop(&self.nodes).await;
    }
}

async fn one() -> (Plenary, Cache, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let plenary = Plenary::builder().data(folder.path()).start().await.unwrap();
    let cache = plenary.cache();
    (plenary, cache, folder)
}

/// How many commands wait in the log, as this node has it.
fn waiting(node: &Node) -> usize {
    node.view(0, |view| view.store().waiting().len())
}

async fn until_waiting(node: &Node, count: usize) {
    let what = format!("{count} wait in the log");
    eventually(&what, async || waiting(node) == count).await;
}

however_reached!(
    three_hundred_callers_on_three_nodes_make_one_load,
    a_load_that_fails_or_panics_lets_the_next_try_at_once,
    a_stale_value_is_given_at_once_and_refreshed_once,
    nothing_loaded_before_an_invalidation_is_given_after_it,
    a_tag_ends_its_entries_on_every_node_by_one_entry_of_the_log,
    nobody_undoes_what_another_put,
    a_value_is_put_only_where_it_is_as_expected,
    a_lock_is_handed_over_in_the_order_of_the_log,
    a_holder_that_was_too_slow_can_write_nothing,
    who_goes_while_it_waits_or_holds_is_in_nobodys_way,
);

/// A source of values: counts how often it was asked, and answers when it may.
#[derive(Clone)]
struct Source {
    asked: Arc<AtomicUsize>,
    open: Arc<Semaphore>,
}

impl Source {
    /// Answers at once.
    fn open() -> Self {
        let source = Self::shut();
        source.open.add_permits(Semaphore::MAX_PERMITS);
        source
    }

    /// Answers as often as it is let.
    fn shut() -> Self {
        Self {
            asked: Arc::default(),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    fn let_answer(&self) {
        self.open.add_permits(1);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The number of this request, as text.
    async fn answer(self) -> Result<String, Infallible> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.open.acquire().await.expect("never closed").forget();
        Ok(format!("answer {number}"))
    }

    async fn get(&self, cache: &Cache, key: &str, options: &EntryOptions) -> plenary::Result<String> {
        let source = self.clone();
        let value = cache.get_or_load(key, options, || source.answer()).await?;
        Ok(String::from_utf8(value.to_vec()).unwrap())
    }
}

async fn three_hundred_callers_on_three_nodes_make_one_load(reach: Reach) {
    let cluster = cluster(reach).await;
    let (source, options) = (Source::shut(), EntryOptions::new(LONG));
    let callers = (0..300).map(|caller| {
        let (source, cache, options) = (
            source.clone(),
            cluster.caches[caller % 3].clone(),
            options.clone(),
        );
        tokio::spawn(async move { source.get(&cache, "page", &options).await })
    });
    let callers: Vec<_> = callers.collect();
    // One has it, and one of each other node waits for all of that node.
    until_waiting(&cluster.nodes[0], 2).await;
    eventually("the load has begun", async || source.asked() == 1).await;
    source.let_answer();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "answer 1");
    }
    assert_eq!(source.asked(), 1);
    // Redis clients have it as well.
    let read = cluster.caches[1].execute(["CACHE.GET", "page"]).await.unwrap();
    assert_eq!(read, Reply::bulk("answer 1"));
    assert_same_state(&cluster.nodes).await;
    cluster.stop().await;
}

async fn a_load_that_fails_or_panics_lets_the_next_try_at_once(reach: Reach) {
    let cluster = cluster(reach).await;
    // The lease would outlast the test.
    let options = EntryOptions::new(LONG).lease(NEVER).wait(NEVER);
    let go = Arc::new(Semaphore::new(0));
    let fail = |panics: bool| {
        let go = go.clone();
        move || async move {
            go.acquire().await.expect("never closed").forget();
            assert!(!panics, "as asked");
            Err::<String, _>(std::io::Error::other("out of tea"))
        }
    };
    let load = |which: usize, panics| {
        let (cache, options, load) = (cluster.caches[which].clone(), options.clone(), fail(panics));
        tokio::spawn(async move { cache.get_or_load("page", &options, load).await })
    };
    let first = load(0, false);
    eventually("the first loads", async || {
        cluster.caches[1].exists("page").await.is_ok() && leased(&cluster.nodes[1])
    })
    .await;
    let second = load(1, true);
    until_waiting(&cluster.nodes[0], 1).await;
    let third = tokio::spawn({
        let (source, cache, options) = (Source::open(), cluster.caches[2].clone(), options.clone());
        async move { source.get(&cache, "page", &options).await }
    });
    until_waiting(&cluster.nodes[0], 2).await;
    go.add_permits(2);
    let failed = first.await.unwrap().unwrap_err();
    assert!(
        matches!(&failed, Error::Load(source) if source.to_string() == "out of tea"),
        "{failed}"
    );
    assert!(!failed.may_be_applied());
    let panicked = second.await.unwrap().unwrap_err();
    assert!(
        matches!(&panicked, Error::Load(source) if source.to_string() == "it panicked"),
        "{panicked}"
    );
    assert_eq!(third.await.unwrap().unwrap(), "answer 1");
    cluster.stop().await;
}

/// Whether somebody loads `page`, as this node has it.
fn leased(node: &Node) -> bool {
    node.view(0, |view| {
        let entry = plenary::machine::cached::find(&view, b"page").unwrap();
        entry.is_some_and(|entry| entry.lease.is_some())
    })
}

#[tokio::test]
async fn callers_of_one_node_go_on_when_the_load_they_wait_for_fails() {
    let (plenary, cache, _folder) = one().await;
    let options = EntryOptions::new(LONG).lease(NEVER).wait(NEVER);
    let failures = Arc::new(AtomicUsize::new(0));
    let callers = (0..20).map(|_| {
        let (cache, options, failures) = (cache.clone(), options.clone(), failures.clone());
        tokio::spawn(async move {
            let load = move || async move {
                match failures.fetch_add(1, Ordering::SeqCst) {
                    0..3 => Err("not yet"),
                    _ => Ok("value"),
                }
            };
            cache.get_or_load("page", &options, load).await
        })
    });
    let results = join_all(callers.collect::<Vec<_>>()).await;
    let failed = results.iter().filter(|result| result.as_ref().unwrap().is_err());
    assert_eq!(failed.count(), 3, "each failure is one caller's");
    assert_eq!(failures.load(Ordering::SeqCst), 4);
    plenary.stop().await.unwrap();
}

#[tokio::test]
async fn a_load_whose_caller_has_gone_is_put_all_the_same() {
    let (plenary, cache, _folder) = one().await;
    let (source, options) = (Source::shut(), EntryOptions::new(LONG));
    let gone = tokio::time::timeout(Duration::from_millis(50), source.get(&cache, "page", &options)).await;
    assert!(gone.is_err());
    source.let_answer();
    assert_eq!(source.get(&cache, "page", &options).await.unwrap(), "answer 1");
    plenary.stop().await.unwrap();
}

#[tokio::test]
async fn when_the_loaders_node_stops_another_loads_at_the_leases_deadline() {
    let cluster = cluster(Reach::Nodes).await;
    let options = EntryOptions::new(LONG).lease(Duration::from_secs(4));
    let hung = Source::shut();
    let loser = tokio::spawn({
        let (hung, cache, options) = (hung.clone(), cluster.caches[0].clone(), options.clone());
        async move { hung.get(&cache, "page", &options).await }
    });
    eventually("the load has begun", async || hung.asked() == 1).await;
    let began = Instant::now();
    let source = Source::open();
    let winners = (1..3).map(|which| {
        let (source, cache, options) = (source.clone(), cluster.caches[which].clone(), options.clone());
        tokio::spawn(async move { source.get(&cache, "page", &options).await })
    });
    let winners: Vec<_> = winners.collect();
    until_waiting(&cluster.nodes[1], 2).await;
    cluster.nodes[0].stop().await.unwrap();
    for winner in winners {
        assert_eq!(winner.await.unwrap().unwrap(), "answer 1");
    }
    assert_eq!(source.asked(), 1);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // What the other brings at last goes to its caller and nowhere else.
    hung.let_answer();
    assert_eq!(loser.await.unwrap().unwrap(), "answer 1");
    cluster.stop().await;
}

#[tokio::test]
async fn a_load_that_outlasts_its_lease_does_not_replace_what_a_later_one_put() {
    let (plenary, cache, _folder) = one().await;
    let slow = Source::shut();
    let options = EntryOptions::new(LONG).lease(Duration::from_millis(20));
    let late = tokio::spawn({
        let (slow, cache, options) = (slow.clone(), cache.clone(), options.clone());
        async move { slow.get(&cache, "page", &options).await }
    });
    eventually("the load has begun", async || slow.asked() == 1).await;
    // Others do not wait for it any longer, also on the same node.
    let quick = Source::open();
    let long = options.clone().lease(NEVER);
    assert_eq!(quick.get(&cache, "page", &long).await.unwrap(), "answer 1");
    cache.set_with("page", "later", &options).await.unwrap();
    slow.let_answer();
    assert_eq!(late.await.unwrap().unwrap(), "answer 1", "its own caller has it");
    assert_eq!(cache.get("page").await.unwrap().unwrap(), "later");
    plenary.stop().await.unwrap();
}

#[tokio::test]
async fn who_waited_long_enough_for_a_load_is_told_so() {
    let (plenary, cache, _folder) = one().await;
    let options = EntryOptions::new(LONG).wait(Duration::from_millis(30));
    let source = Source::shut();
    let first = tokio::spawn({
        let (source, cache, options) = (source.clone(), cache.clone(), options.clone());
        async move { source.get(&cache, "page", &options).await }
    });
    eventually("the load has begun", async || source.asked() == 1).await;
    let told = source.get(&cache, "page", &options).await.unwrap_err();
    assert!(matches!(told, Error::Taken { .. }), "{told}");
    source.let_answer();
    assert_eq!(first.await.unwrap().unwrap(), "answer 1");
    // The same where somebody else's lease is in the way.
    cache.execute(["CACHE.LEASE", "other", "60000"]).await.unwrap();
    let told = source.get(&cache, "other", &options).await.unwrap_err();
    assert!(matches!(told, Error::Taken { .. }), "{told}");
    plenary.stop().await.unwrap();
}

async fn a_stale_value_is_given_at_once_and_refreshed_once(reach: Reach) {
    let cluster = cluster(reach).await;
    let options = EntryOptions::new(LONG).fresh_for(Duration::from_millis(1));
    let source = Source::shut();
    source.let_answer();
    assert_eq!(
        source.get(&cluster.caches[0], "page", &options).await.unwrap(),
        "answer 1"
    );
    for node in &cluster.nodes {
        eventually("all have it, stale", async || {
            node.view(0, |view| {
                let entry = plenary::machine::cached::find(&view, b"page").unwrap();
                entry.is_some_and(|entry| entry.value.is_some() && !entry.fresh)
            })
        })
        .await;
    }
    for _ in 0..20 {
        for cache in &cluster.caches {
            // Nobody waits: the source does not answer.
            assert_eq!(source.get(cache, "page", &options).await.unwrap(), "answer 1");
        }
    }
    eventually("the refresh has begun", async || source.asked() == 2).await;
    source.let_answer();
    for cache in &cluster.caches {
        eventually("all have the new one", async || {
            cache.get("page").await.unwrap().unwrap() == "answer 2"
        })
        .await;
    }
    assert_eq!(source.asked(), 2);
    // Another refresh, which is waited for: once the second is fresh no more, and who brought it has gone.
    let waits = EntryOptions::new(LONG).fresh_for(LONG).refresh_wait(NEVER);
    source.let_answer();
    eventually("a caller waits for the third", async || {
        source.get(&cluster.caches[0], "page", &waits).await.unwrap() == "answer 3"
    })
    .await;
    assert_eq!(source.asked(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn a_refresh_that_fails_is_an_error_or_the_stale_value_as_chosen() {
    let (plenary, cache, _folder) = one().await;
    let stale = EntryOptions::new(LONG).fresh_for(Duration::from_millis(1));
    cache.set_with("page", "old", &stale).await.unwrap();
    let is_stale = |cache: &Cache| {
        cache.node().unwrap().view(0, |view| {
            let entry = plenary::machine::cached::find(&view, b"page").unwrap().unwrap();
            !entry.fresh
        })
    };
    eventually("it is stale", async || is_stale(&cache)).await;
    let waits = stale.refresh_wait(NEVER).retry_after(Duration::from_millis(1));
    let fail = || async { Err::<String, _>("broken") };
    let failed = cache.get_or_load("page", &waits, fail).await;
    assert!(matches!(failed, Err(Error::Load(_))), "{failed:?}");
    eventually("it is stale again", async || is_stale(&cache)).await;
    let safe = waits.stale_on_error().retry_after(NEVER);
    assert_eq!(cache.get_or_load("page", &safe, fail).await.unwrap(), "old");
    // For a while nobody else is to try.
    let source = Source::open();
    assert_eq!(source.get(&cache, "page", &safe).await.unwrap(), "old");
    assert_eq!(source.asked(), 0);
    plenary.stop().await.unwrap();
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_before_anything_is_loaded() {
    let (plenary, cache, _folder) = one().await;
    let source = Source::open();
    let many = (0..65).fold(EntryOptions::new(LONG), |options, tag: u32| {
        options.tag(tag.to_string())
    });
    for options in [
        EntryOptions::new(Duration::ZERO),
        EntryOptions::new(LONG).fresh_for(Duration::ZERO),
        EntryOptions::new(LONG).lease(Duration::ZERO),
        EntryOptions::new(LONG).tag("x".repeat(600)),
        many,
    ] {
        let refused = source.get(&cache, "page", &options).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    cache.execute(["RPUSH", "list", "element"]).await.unwrap();
    let refused = source.get(&cache, "list", &EntryOptions::new(LONG)).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(source.asked(), 0);
    plenary.stop().await.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_cluster_is_none_of_what_it_caches() {
    let cluster = cluster_with(Reach::Nodes, impatient).await;
    let options = EntryOptions::new(LONG);
    let source = Source::open();
    // One of three that is alone can neither write nor learn who leads.
    for node in &cluster.nodes[1..] {
        node.stop().await.unwrap();
    }
    let cache = &cluster.caches[0];
    let refused = source.get(cache, "page", &options).await;
    assert!(refused.is_err() && source.asked() == 0, "{refused:?}");
    let loads = options.load_in_outage();
    assert_eq!(source.get(cache, "page", &loads).await.unwrap(), "answer 1");
    assert_eq!(cache.get("page").await.unwrap(), None, "nothing was put");
    cluster.stop().await;
}

/// A writer changes the source, then invalidates the tag; from then on no reader that knows of it, on whatever node, may be given what the source had
/// before.
async fn nothing_loaded_before_an_invalidation_is_given_after_it(reach: Reach) {
    const ROUNDS: u64 = 60;
    let cluster = cluster(reach).await;
    let options = EntryOptions::new(LONG).fresh_for(LONG).tag("numbers");
    // What the source holds; what it held at least when the tag was last invalidated, and the token of that.
    let (source, floor) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(parking_lot::Mutex::new((0, plenary::Token(0)))),
    );
    let done = Arc::new(AtomicBool::new(false));
    let readers = (0..6).map(|reader| {
        let (cache, options) = (cluster.caches[reader % 3].clone(), options.clone());
        let (source, floor, done) = (source.clone(), floor.clone(), done.clone());
        tokio::spawn(async move {
            let mut reads = 0u64;
            while !done.load(Ordering::SeqCst) {
                let (least, token) = *floor.lock();
                let source = source.clone();
                let load = move || async move {
                    let number = source.load(Ordering::SeqCst);
                    // So that the source changes, and the tag is invalidated, under way.
                    tokio::time::sleep(Duration::from_millis(number % 4)).await;
                    Ok::<_, Infallible>(number.to_string())
                };
                let got = cache
                    .at_least(token)
                    .get_or_load("number", &options, load)
                    .await
                    .unwrap();
                let got: u64 = std::str::from_utf8(&got).unwrap().parse().unwrap();
                assert!(got >= least, "{got} was invalidated: it was {least} already");
                reads += 1;
                // A hit never waits: the nodes run beside it.
                tokio::task::yield_now().await;
            }
            reads
        })
    });
    let readers: Vec<_> = readers.collect();
    for round in 1..=ROUNDS {
        let cache = &cluster.caches[(round % 3) as usize];
        source.store(round, Ordering::SeqCst);
        cache.invalidate_tag("numbers").await.unwrap();
        *floor.lock() = (round, cache.token());
        tokio::time::sleep(Duration::from_millis(round % 7)).await;
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_same_state(&cluster.nodes).await;
    cluster.stop().await;
}

async fn a_tag_ends_its_entries_on_every_node_by_one_entry_of_the_log(reach: Reach) {
    let cluster = cluster(reach).await;
    let [here, there, _] = &cluster.caches[..] else {
        panic!("three")
    };
    let tagged = EntryOptions::new(LONG).tag("red").tag("round");
    for key in 0..50 {
        here.set_with(format!("apple {key}"), "apple", &tagged)
            .await
            .unwrap();
    }
    here.set_with("pear", "pear", &EntryOptions::new(LONG).tag("round"))
        .await
        .unwrap();
    let before = here.token();
    here.invalidate_tag("red").await.unwrap();
    assert_eq!(here.token().0, before.0 + 1);
    let there = there.at_least(here.token());
    let keys: Vec<String> = (0..50).map(|key| format!("apple {key}")).collect();
    assert_eq!(there.get_many(&keys).await.unwrap(), vec![None; 50]);
    assert!(!there.exists("apple 1").await.unwrap());
    assert_eq!(there.get("pear").await.unwrap().unwrap(), "pear");
    there.set_as_with("apple 1", &1, &tagged).await.unwrap();
    assert_eq!(there.get_as::<u8>("apple 1").await.unwrap(), Some(1));
    there.invalidate_tags(&["round", "red", "unknown"]).await.unwrap();
    assert_eq!(there.get("apple 1").await.unwrap(), None);
    assert_eq!(there.get("pear").await.unwrap(), None);
    there.invalidate_tags::<&str>(&[]).await.unwrap();
    assert_same_state(&cluster.nodes).await;
    cluster.stop().await;
}

#[tokio::test]
async fn typed_values_are_loaded_once_and_shared() {
    let (plenary, cache, _folder) = one().await;
    let options = EntryOptions::new(LONG);
    let load = || async { Ok::<_, Infallible>((7, "seven".to_owned())) };
    let first: (u8, String) = cache.get_or_load_as("pair", &options, load).await.unwrap();
    let second: (u8, String) = cache
        .get_or_load_as("pair", &options, || async { Err("not called") })
        .await
        .unwrap();
    assert_eq!(
        (first, second),
        ((7, "seven".to_owned()), (7, "seven".to_owned()))
    );
    let wrong = cache.get_or_load_as::<u8, _, _, _>("pair", &options, || async { Err("not called") });
    assert!(matches!(wrong.await, Err(Error::Value(_))));
    // No copy is made of what is there.
    let (one, other) = (
        cache.get("pair").await.unwrap().unwrap(),
        cache.get("pair").await.unwrap().unwrap(),
    );
    assert_eq!(one.as_ptr(), other.as_ptr());
    let there = cache
        .get_with("pair", |bytes| bytes.as_ptr() as usize)
        .await
        .unwrap();
    assert_eq!(there, Some(one.as_ptr() as usize));
    assert_eq!(cache.get_with("none", <[u8]>::len).await.unwrap(), None);
    plenary.stop().await.unwrap();
}

async fn nobody_undoes_what_another_put(reach: Reach) {
    let cluster = cluster(reach).await;
    let adders = (0..6).map(|adder| {
        let cache = cluster.caches[adder % 3].clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let add = |sum: Option<&[u8]>| {
                    let sum: u64 = sum.map_or(0, |sum| std::str::from_utf8(sum).unwrap().parse().unwrap());
                    (sum + 1).to_string().into_bytes()
                };
                cache.update("sum", Some(LONG), add).await.unwrap();
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.unwrap();
    }
    let now = cluster.caches[0].with_freshness(Freshness::Linearizable);
    assert_eq!(now.get("sum").await.unwrap().unwrap(), "60");
    cluster.stop().await;
}

async fn a_value_is_put_only_where_it_is_as_expected(reach: Reach) {
    let cluster = cluster(reach).await;
    let [here, there, _] = &cluster.caches[..] else {
        panic!("three")
    };
    assert!(
        !here
            .compare_and_set("key", Expected::Value(b"one"), "two", None)
            .await
            .unwrap()
    );
    assert!(
        here.compare_and_set("key", Expected::Absent, "one", None)
            .await
            .unwrap()
    );
    // The other node may not have it yet; it finds out.
    assert!(
        !there
            .compare_and_set("key", Expected::Absent, "two", None)
            .await
            .unwrap()
    );
    let (value, version) = here.get_versioned("key").await.unwrap().unwrap();
    assert_eq!(value, "one");
    assert!(
        there
            .compare_and_set("key", Expected::Version(version), "two", Some(LONG))
            .await
            .unwrap()
    );
    assert!(
        !here
            .compare_and_set("key", Expected::Version(version), "three", None)
            .await
            .unwrap()
    );
    assert!(
        here.compare_and_set("key", Expected::Value(b"two"), "three", None)
            .await
            .unwrap()
    );
    assert_eq!(here.get_versioned("none").await.unwrap(), None);
    // What was invalidated is not what was seen.
    here.set_with("entry", "value", &EntryOptions::new(LONG).tag("red"))
        .await
        .unwrap();
    let (_, version) = here.get_versioned("entry").await.unwrap().unwrap();
    here.invalidate_tag("red").await.unwrap();
    assert!(
        !here
            .compare_and_set("entry", Expected::Version(version), "new", None)
            .await
            .unwrap()
    );
    assert!(
        here.compare_and_set("entry", Expected::Absent, "new", None)
            .await
            .unwrap()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_count_begins_anew_with_its_life() {
    let (plenary, cache, _folder) = one().await;
    assert_eq!(cache.increment_for("requests", 1, LONG).await.unwrap(), 1);
    let ttl = cache.ttl("requests").await.unwrap();
    assert_eq!(cache.increment_for("requests", 2, NEVER).await.unwrap(), 3);
    let plenary::Ttl::Left(left) = cache.ttl("requests").await.unwrap() else {
        panic!("{ttl:?}")
    };
    assert!(left <= LONG, "its life is not prolonged");
    cache.set("text", "no number").await.unwrap();
    assert!(matches!(
        cache.increment_for("text", 1, LONG).await,
        Err(Error::Refused(_))
    ));
    plenary.stop().await.unwrap();
}

async fn a_lock_is_handed_over_in_the_order_of_the_log(reach: Reach) {
    let cluster = cluster(reach).await;
    let first = cluster.caches[0].lock("door", NEVER, NEVER).await.unwrap();
    assert!(cluster.caches[1].try_lock("door", NEVER).await.unwrap().is_none());
    let order = Arc::new(parking_lot::Mutex::new(vec![(0, first.token())]));
    let mut contenders = Vec::new();
    for number in 1..=12 {
        let (cache, order) = (cluster.caches[number % 3].clone(), order.clone());
        contenders.push(tokio::spawn(async move {
            let lock = cache.lock("door", NEVER, NEVER).await.unwrap();
            assert!(lock.is_held().await.unwrap());
            order.lock().push((number, lock.token()));
            assert!(lock.release().await.unwrap());
        }));
        // The next comes when this one waits.
        until_waiting(&cluster.nodes[0], number).await;
    }
    assert!(first.release().await.unwrap());
    for contender in contenders {
        contender.await.unwrap();
    }
    let order = order.lock().clone();
    assert_eq!(
        order.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        (0..=12).collect::<Vec<_>>()
    );
    assert!(
        order.is_sorted_by(|one, next| one.1 < next.1),
        "tokens only grow: {order:?}"
    );
    let now = cluster.caches[0].with_freshness(Freshness::Linearizable);
    assert!(!now.exists("lock:door").await.unwrap(), "nothing is left of it");
    cluster.stop().await;
}

async fn a_holder_that_was_too_slow_can_write_nothing(reach: Reach) {
    let cluster = cluster(reach).await;
    let [here, there, _] = &cluster.caches[..] else {
        panic!("three")
    };
    // Longer than what it does with it takes, on a machine that does other things as well.
    let lease = Duration::from_secs(3);
    let slow = here.lock("door", lease, NEVER).await.unwrap();
    assert_eq!(
        slow.execute(["SET", "key", "slow"]).await.unwrap(),
        Some(Reply::OK)
    );
    assert!(slow.extend(lease).await.unwrap());
    assert_eq!(
        slow.execute(["SET", "key", "slow"]).await.unwrap(),
        Some(Reply::OK)
    );
    // Who waits has it when its time is over.
    let next = there.lock("door", NEVER, NEVER).await.unwrap();
    assert!(next.token() > slow.token());
    assert_eq!(
        next.execute(["SET", "key", "next"]).await.unwrap(),
        Some(Reply::OK)
    );
    // Also on a node that has not heard of it.
    assert_eq!(slow.execute(["SET", "key", "slow"]).await.unwrap(), None);
    assert!(!slow.is_held().await.unwrap());
    assert!(!slow.extend(NEVER).await.unwrap());
    assert!(!slow.release().await.unwrap());
    assert_eq!(there.get("key").await.unwrap().unwrap(), "next");
    let refused = next.execute(["INCR", "key"]).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    cluster.stop().await;
}

async fn who_goes_while_it_waits_or_holds_is_in_nobodys_way(reach: Reach) {
    let cluster = cluster(reach).await;
    let [here, there, other] = &cluster.caches[..] else {
        panic!("three")
    };
    let first = here.lock("door", NEVER, NEVER).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_millis(50), there.lock("door", NEVER, NEVER)).await;
    assert!(gone.is_err());
    let told = there
        .lock("door", NEVER, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(told, Error::Taken { .. }), "{told}");
    let last = tokio::spawn({
        let other = other.clone();
        async move { other.lock("door", NEVER, NEVER).await }
    });
    until_waiting(&cluster.nodes[0], 2).await;
    // Dropped, it goes to the one whose caller has gone, and on at once.
    drop(first);
    let last = last.await.unwrap().unwrap();
    assert!(last.is_held().await.unwrap());
    // The node of a holder is stopped, and its lock is over at its deadline.
    assert!(last.extend(Duration::from_secs(1)).await.unwrap());
    cluster.nodes[2].stop().await.unwrap();
    let next = here.lock("door", NEVER, PATIENCE).await.unwrap();
    assert!(next.token() > last.token());
    here.set("lock:value", "value").await.unwrap();
    assert!(matches!(
        here.lock("value", NEVER, NEVER).await,
        Err(Error::Refused(_))
    ));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_heard_in_one_order_on_all_nodes() {
    let cluster = cluster(Reach::Nodes).await;
    let mut heard: Vec<_> = cluster
        .caches
        .iter()
        .map(|cache| cache.topic("news").subscribe().into_stream().boxed())
        .collect();
    let mut beside = cluster.caches[0].topic("other").subscribe();
    let writers = (0..6).map(|writer| {
        let topic = cluster.caches[writer % 3].topic("news");
        tokio::spawn(async move {
            for number in 0..20 {
                topic.publish(format!("{writer} {number}")).await.unwrap();
            }
        })
    });
    join_all(writers.collect::<Vec<_>>()).await;
    let mut orders = Vec::new();
    for stream in &mut heard {
        orders.push(stream.take(120).collect::<Vec<_>>().await);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
    for writer in 0..6 {
        let own = |heard: &&Heard| matches!(heard, Heard::Message(text) if text.starts_with(format!("{writer} ").as_bytes()));
        let own: Vec<&Heard> = orders[0].iter().filter(own).collect();
        let expected: Vec<Heard> = (0..20)
            .map(|number| Heard::Message(format!("{writer} {number}").into()))
            .collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
    cluster.caches[1]
        .execute(["PUBLISH", "other", "from a client"])
        .await
        .unwrap();
    assert_eq!(beside.next().await, Some(Heard::Message("from a client".into())));
    cluster.stop().await;
    assert_eq!(beside.next().await, None);
    assert_eq!(heard[0].next().await, None);
}

#[tokio::test]
async fn who_listens_too_slowly_is_told_how_much_is_missing() {
    let (plenary, cache, _folder) = one().await;
    let topic = cache.topic("news");
    let mut slow = topic.subscribe();
    let publish = |number: usize| ["PUBLISH".to_owned(), "news".to_owned(), number.to_string()];
    for number in 0..1_100 {
        cache.execute(publish(number)).await.unwrap();
    }
    let Some(Heard::Missed(Some(missed))) = slow.next().await else {
        panic!("it fell behind")
    };
    assert!(missed >= 1, "{missed}");
    let next = missed.to_string();
    assert_eq!(
        slow.next().await,
        Some(Heard::Message(next.into())),
        "and goes on where the gap ends"
    );
    plenary.stop().await.unwrap();
}
