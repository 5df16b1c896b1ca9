//! Reads in process: what a get costs beside a bare map of the same keys, at rest and while writes run, and how many linearizable gets a follower
//! answers. Prints a table; `benches/README.md` says how to read it.
//!
//!     cargo bench --bench reads                       # a million keys on three nodes, some 2 GB
//!     cargo bench --bench reads -- --keys 100000
//!
//! Not a test: nothing here fails for being slow.

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use parking_lot::RwLock;
use plenary::machine::entry::Command;
use plenary::machine::keyspace::SHARDS;
use plenary::node::Node;
use plenary::{Cache, Freshness};
use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Fault = Box<dyn Error + Send + Sync>;

/// Gets of one block: a round times one in batches, for the median, and one get by get, for percentiles.
const BLOCK: usize = 48_000;

/// Gets of one batch: so many that the clock costs nothing, and so few that hardly one is interrupted by what else the machine does.
const BATCH: usize = 16;

/// Callers that write, and callers that read linearizably.
const CALLERS: usize = 64;

/// Keys put by one group of commands.
const PUT_AT_A_TIME: usize = 500;

const HELP: &str = "\
cargo bench --bench reads -- [OPTIONS]
  --keys N           keys on each node, and in the bare map (1000000)
  --value N          bytes of a value (128)
  --rounds N         rounds of gets, by turns from the bare map and the cache (9)
  --seconds S        how long linearizable gets are counted (5)
  --profile          for a profiler: one node, and rounds of gets from the cache alone";

struct Options {
    keys: u64,
    value: usize,
    rounds: usize,
    span: Duration,
    profile: bool,
}

impl Options {
    fn read() -> Result<Self, Fault> {
        let mut options = Self {
            keys: 1_000_000,
            value: 128,
            rounds: 9,
            span: Duration::from_secs(5),
            profile: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
            match word.as_str() {
                // Cargo says it to every benchmark.
                "--bench" => {}
                "--keys" => options.keys = value()?.parse()?,
                "--value" => options.value = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.span = Duration::from_secs_f64(value()?.parse()?),
                "--profile" => options.profile = true,
                "--help" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                _ => return Err(format!("{word}?\n{HELP}").into()),
            }
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let options = Options::read()?;
    let folder = tempfile::tempdir()?;
    if options.profile {
        return profile(&options, common::one(folder.path()).await).await;
    }
    let nodes = common::three(folder.path()).await;
    let leader = nodes.iter().position(common::leads).ok_or("nobody leads")?;
    put_all(&nodes[leader], &options).await?;
    let follower = &nodes[(leader + 1) % nodes.len()];
    follower
        .read(Freshness::Linearizable, 0, &["DBSIZE".into()])
        .await?;
    let bare = Bare::new(&options);
    println!(
        "{} keys of {} bytes, values of {}; {} processors",
        options.keys,
        key(0).len(),
        options.value,
        std::thread::available_parallelism()?
    );
    println!(
        "\n| get | bare map, ns | cache, ns | ratio | bare map, 99 % | cache, 99 % |\n|---|---|---|---|---|---|"
    );
    let cache = Cache::new(nodes[leader].clone());
    compare("at rest", &bare, &cache, &options).await?;
    let load = Load::start(&nodes[leader], &options);
    compare("while 64 callers write, on the leader", &bare, &cache, &options).await?;
    let cache = Cache::new(follower.clone());
    compare("the same, on a follower", &bare, &cache, &options).await?;
    let written = load.stop().await?;
    println!("\nwrites meanwhile: {written:.0}/s");
    println!("\n| linearizable gets | per s | median | 99 % |\n|---|---|---|---|");
    for (place, node) in [("a follower", follower), ("the leader", &nodes[leader])] {
        linearizable(place, node, &options).await?;
    }
    common::stop(&nodes).await;
    Ok(())
}

/// Nothing but gets from the cache, for a profiler.
async fn profile(options: &Options, node: Node) -> Result<(), Fault> {
    put_all(&node, options).await?;
    let (cache, mut random) = (Cache::new(node.clone()), Random(7));
    for _ in 0..options.rounds {
        let keys = random.keys(options.keys);
        let mut times = batches(&keys, async |key| cache.get(key).await).await?;
        println!("{:.0} ns", median(&mut times));
    }
    node.stop().await?;
    Ok(())
}

/// A key as text, spelled without a formatter.
fn key(number: u64) -> [u8; 16] {
    let (mut key, mut rest) = (*b"key:000000000000", number);
    for digit in key.iter_mut().rev().take(12) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn value(options: &Options) -> Vec<u8> {
    vec![b'v'; options.value]
}

/// Puts every key, in no order that memory would know.
async fn put_all(node: &Node, options: &Options) -> Result<(), Fault> {
    let value = Bytes::from(value(options));
    let mut numbers: Vec<u64> = (0..options.keys).collect();
    let mut random = Random(1);
    for place in (1..numbers.len()).rev() {
        numbers.swap(place, random.below(place as u64 + 1) as usize);
    }
    for part in numbers.chunks(PUT_AT_A_TIME) {
        let put = part.iter().map(|number| {
            Command::new(
                0,
                ["SET".into(), Bytes::copy_from_slice(&key(*number)), value.clone()],
            )
        });
        node.write(put.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// What a get is compared with: as many shards as the machine has, each a map of the standard library with its hasher (SipHash-1-3, as the machine's)
/// behind a lock. It hashes a key for the shard and again in the map, as one would write it.
struct Bare {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<Bytes, Bytes>>>,
}

impl Bare {
    fn new(options: &Options) -> Self {
        let shards = std::iter::repeat_with(RwLock::default).take(SHARDS).collect();
        let bare = Self {
            hasher: RandomState::new(),
            shards,
        };
        let value = value(options);
        for number in 0..options.keys {
            let (key, value) = (key(number), Bytes::copy_from_slice(&value));
            let shard = bare
                .shard(&key)
                .write()
                .insert(Bytes::copy_from_slice(&key), value);
            assert!(shard.is_none());
        }
        bare
    }

    fn shard(&self, key: &[u8]) -> &RwLock<HashMap<Bytes, Bytes>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.shard(key).read().get(key).cloned()
    }
}

/// Rounds of gets by turns; a row of the table.
async fn compare(what: &str, bare: &Bare, cache: &Cache, options: &Options) -> Result<(), Fault> {
    let mut random = Random(7);
    let (mut bare_medians, mut cache_medians, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bare_times, mut cache_times) = (Vec::new(), Vec::new());
    // The first round brings both into the state of those after it, and does not count.
    for round in 0..=options.rounds {
        let mut bare_batches = batches(&random.keys(options.keys), async |key| Ok(bare.get(key))).await?;
        let mut cache_batches = batches(&random.keys(options.keys), async |key| cache.get(key).await).await?;
        let bare_each = each(&random.keys(options.keys), async |key| Ok(bare.get(key))).await?;
        let cache_each = each(&random.keys(options.keys), async |key| cache.get(key).await).await?;
        if round > 0 {
            bare_medians.push(median(&mut bare_batches));
            cache_medians.push(median(&mut cache_batches));
            ratios.push(median(&mut cache_batches) / median(&mut bare_batches));
            bare_times.extend(bare_each);
            cache_times.extend(cache_each);
        }
    }
    println!(
        "| {what} | {:.0} | {:.0} | {:.2} | {:.2?} | {:.2?} |",
        median(&mut bare_medians),
        median(&mut cache_medians),
        median(&mut ratios),
        part(&mut bare_times, 99),
        part(&mut cache_times, 99)
    );
    Ok(())
}

/// Nanoseconds of a get, of each batch of a block.
async fn batches(
    keys: &[[u8; 16]],
    get: impl AsyncFn(&[u8; 16]) -> plenary::Result<Option<Bytes>>,
) -> Result<Vec<f64>, Fault> {
    let (mut sum, mut times) = (0, Vec::with_capacity(keys.len() / BATCH));
    for batch in keys.chunks_exact(BATCH) {
        let began = Instant::now();
        for key in batch {
            // Whoever gets a value looks at it.
            sum += usize::from(get(key).await?.ok_or("a key that was put")?[0]);
        }
        times.push(began.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    black_box(sum);
    Ok(times)
}

/// The time of each get of a block.
async fn each(
    keys: &[[u8; 16]],
    get: impl AsyncFn(&[u8; 16]) -> plenary::Result<Option<Bytes>>,
) -> Result<Vec<Duration>, Fault> {
    let mut times = Vec::with_capacity(keys.len());
    for key in keys {
        let began = Instant::now();
        let first = get(key).await?.ok_or("a key that was put")?[0];
        times.push(began.elapsed());
        black_box(first);
    }
    Ok(times)
}

/// Callers on one node, each of which writes again as soon as it is answered.
struct Load {
    began: Instant,
    ends: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<plenary::Result<u64>>>,
}

impl Load {
    fn start(node: &Node, options: &Options) -> Self {
        let (ends, keys) = (Arc::new(AtomicBool::new(false)), options.keys);
        let callers = (0..CALLERS as u64).map(|caller| {
            let (cache, ends, value) = (Cache::new(node.clone()), ends.clone(), value(options));
            let mut random = Random(caller + 100);
            tokio::spawn(async move {
                let mut written = 0;
                while !ends.load(Ordering::Relaxed) {
                    cache.set(key(random.below(keys)), &value).await?;
                    written += 1;
                }
                Ok(written)
            })
        });
        let callers = callers.collect();
        Self {
            began: Instant::now(),
            ends,
            callers,
        }
    }

    /// How many writes there were per second.
    async fn stop(self) -> Result<f64, Fault> {
        self.ends.store(true, Ordering::Relaxed);
        let took = self.began.elapsed();
        let mut written = 0;
        for caller in self.callers {
            written += caller.await??;
        }
        Ok(written as f64 / took.as_secs_f64())
    }
}

/// Callers of one node, each of which gets again as soon as it is answered; a row of the table.
async fn linearizable(place: &str, node: &Node, options: &Options) -> Result<(), Fault> {
    let until = Instant::now() + options.span;
    let callers = (0..CALLERS as u64).map(|caller| {
        let cache = Cache::new(node.clone()).with_freshness(Freshness::Linearizable);
        let (mut random, keys) = (Random(caller + 200), options.keys);
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                black_box(cache.get(key(random.below(keys))).await?);
                times.push(began.elapsed());
            }
            Ok::<_, plenary::Error>(times)
        })
    });
    let mut times = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        times.extend(caller.await??);
    }
    println!(
        "| {CALLERS} callers on {place} | {:.0} | {:.0?} | {:.0?} |",
        times.len() as f64 / options.span.as_secs_f64(),
        part(&mut times, 50),
        part(&mut times, 99)
    );
    Ok(())
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The time within which so many of a hundred are done.
fn part(times: &mut [Duration], of_a_hundred: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * of_a_hundred / 100]
}

/// Numbers by chance: a linear congruential generator, of which the upper half is used.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) % bound
    }

    /// Keys for a block.
    fn keys(&mut self, bound: u64) -> Vec<[u8; 16]> {
        (0..BLOCK).map(|_| key(self.below(bound))).collect()
    }
}
