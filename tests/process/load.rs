//! Writers that remember what they were told, and the proof that the cluster remembers the same.
//!
//! A write is *acknowledged* (its reply came), *unknown* (the connection broke, or the node said `UNKNOWN`) or *not applied* (it said
//! anything else). Acknowledged ones must be there, those not applied must not, and a counter tells if one was applied twice.

use super::{Cluster, wait_until};
use plenary::cli::client::{Client, Error};
use plenary::machine::reply::Reply;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a writer waits for a reply: longer than a node's own deadline, which answers first.
const REPLY: Duration = Duration::from_secs(15);

/// How long a writer that reached nobody waits before it tries the next node.
const RETRY: Duration = Duration::from_millis(2);

/// Counters that the writers share.
const COUNTERS: usize = 8;

/// Keys asked for at once.
const READ_AT_ONCE: usize = 500;

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Acknowledged,
    Unknown,
    NotApplied,
}

/// What one writer remembers.
#[derive(Debug, Default)]
pub struct Record {
    /// Key and value of each SET.
    pub sets: Vec<(String, Fate)>,
    /// Counter and what it replied, for each INCR that was acknowledged.
    pub counted: Vec<(String, i64)>,
    /// Counter of each INCR whose outcome is unknown.
    pub perhaps: Vec<String>,
    /// When each acknowledgement came.
    pub times: Vec<Instant>,
    /// What went wrong, in the words it was told.
    pub errors: Vec<String>,
}

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Record>>,
}

impl Load {
    /// Starts writers, spread over these nodes; each goes to the next when its own does not answer. The name keeps their keys apart
    /// from those of other loads.
    pub fn start(name: &str, count: usize, redis: &[String]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let acknowledged = Arc::<AtomicU64>::default();
        let writers = (0..count).map(|which| {
            let writer = Writer {
                name: format!("{name}:{which}"),
                counter: format!("{name}:n{}", which % COUNTERS),
                redis: redis.to_vec(),
                at: which,
                client: None,
                record: Record::default(),
            };
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            std::thread::spawn(move || writer.run(&stop, &acknowledged))
        });
        let writers = writers.collect();
        Self {
            stop,
            acknowledged,
            writers,
        }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more writes were acknowledged.
    #[track_caller]
    pub fn goes_on(&self, more: u64) {
        let until = self.acknowledged() + more;
        wait_until("writes go on", || {
            let now = self.acknowledged();
            if now >= until {
                Ok(())
            } else {
                Err(format!("{now} of {until} are acknowledged"))
            }
        });
    }

    pub fn stop(self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    }
}

struct Writer {
    name: String,
    counter: String,
    redis: Vec<String>,
    at: usize,
    client: Option<Client>,
    record: Record,
}

impl Writer {
    fn run(mut self, stop: &AtomicBool, acknowledged: &AtomicU64) -> Record {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let fate = if number % 2 == 0 {
                let key = format!("{}:{number}", self.name);
                let (fate, _) = self.write(&["SET", &key, &key]);
                self.record.sets.push((key, fate));
                fate
            } else {
                let counter = self.counter.clone();
                let (fate, reply) = self.write(&["INCR", &counter]);
                match (fate, reply) {
                    (Fate::Acknowledged, Some(Reply::Integer(sum))) => {
                        self.record.counted.push((counter, sum));
                    }
                    (Fate::Acknowledged, reply) => panic!("INCR replied {reply:?}"),
                    (Fate::Unknown, _) => self.record.perhaps.push(counter),
                    (Fate::NotApplied, _) => {}
                }
                fate
            };
            if fate == Fate::Acknowledged {
                self.record.times.push(Instant::now());
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.record
    }

    /// Not sent again here: whether it is applied twice then is for the nodes to prevent, so they must do the retrying.
    fn write(&mut self, argv: &[&str]) -> (Fate, Option<Reply>) {
        if self.client.is_none() {
            match connect(&self.redis[self.at % self.redis.len()]) {
                Ok(client) => self.client = Some(client),
                Err(error) => {
                    self.record.errors.push(error.to_string());
                    self.at += 1;
                    std::thread::sleep(RETRY);
                    return (Fate::NotApplied, None);
                }
            }
        }
        let client = self.client.as_mut().expect("connected above");
        match client.call(argv) {
            Ok(reply) => (Fate::Acknowledged, Some(reply)),
            Err(error) => {
                let fate = fate(&error);
                self.record.errors.push(error.to_string());
                self.client = None;
                self.at += 1;
                (fate, None)
            }
        }
    }
}

/// Connects to a node, with the patience of a writer.
pub fn connect(redis: &str) -> Result<Client, Error> {
    super::connect(redis, REPLY)
}

/// What an error says of a write.
pub fn fate(error: &Error) -> Fate {
    match error {
        Error::Connect { .. } => Fate::NotApplied,
        Error::Refused { refusal, .. } if refusal.starts_with("UNKNOWN ") => Fate::Unknown,
        Error::Refused { .. } => Fate::NotApplied,
        _ => Fate::Unknown,
    }
}

/// What the proof was made of.
#[derive(Debug)]
pub struct Proof {
    pub acknowledged: usize,
    pub unknown: usize,
    pub not_applied: usize,
}

/// Reads everything back on every node, and compares the nodes.
#[track_caller]
pub fn assert_nothing_lost_or_doubled(cluster: &Cluster, records: &[Record]) -> Proof {
    cluster.level();
    cluster.assert_same_state();
    let mut proof = Proof {
        acknowledged: 0,
        unknown: 0,
        not_applied: 0,
    };
    let sets: Vec<&(String, Fate)> = records.iter().flat_map(|record| &record.sets).collect();
    for (_, fate) in &sets {
        *match fate {
            Fate::Acknowledged => &mut proof.acknowledged,
            Fate::Unknown => &mut proof.unknown,
            Fate::NotApplied => &mut proof.not_applied,
        } += 1;
    }
    let mut counters = BTreeMap::<&str, (BTreeSet<i64>, usize, i64)>::new();
    for (counter, sum) in records.iter().flat_map(|record| &record.counted) {
        let (sums, counted, _) = counters.entry(counter).or_default();
        assert!(sums.insert(*sum), "{counter} replied {sum} twice");
        *counted += 1;
    }
    for counter in records.iter().flat_map(|record| &record.perhaps) {
        counters.entry(counter).or_default().2 += 1;
    }
    for node in cluster.running() {
        let mut client = node.client().unwrap();
        for some in sets.chunks(READ_AT_ONCE) {
            let mut argv = vec!["MGET"];
            argv.extend(some.iter().map(|(key, _)| key.as_str()));
            let Reply::Array(values) = client.call(&argv).unwrap() else {
                panic!("MGET replies an array");
            };
            for ((key, fate), value) in some.iter().zip(&values) {
                let there = *value == Reply::bulk(key);
                assert!(there || *value == Reply::Nil, "{key} is {value:?}");
                match fate {
                    Fate::Acknowledged => assert!(there, "{key} was acknowledged and is lost"),
                    Fate::NotApplied => assert!(!there, "{key} was called not applied and is there"),
                    Fate::Unknown => {}
                }
            }
        }
        for (counter, (sums, counted, perhaps)) in &counters {
            let reply = client.call(&["GET", counter]).unwrap();
            let sum: i64 = match &reply {
                Reply::Nil => 0,
                other => plenary::cli::client::text(other).parse().unwrap(),
            };
            let counted = i64::try_from(*counted).unwrap();
            assert!(
                counted <= sum && sum <= counted + perhaps,
                "{counter} is {sum}: {counted} were acknowledged, {perhaps} unknown"
            );
            assert!(
                sums.last().is_none_or(|last| *last <= sum),
                "{counter} is {sum}, but replied {sums:?}"
            );
        }
    }
    for (_, counted, perhaps) in counters.values() {
        proof.acknowledged += counted;
        proof.unknown += usize::try_from(*perhaps).unwrap();
    }
    proof
}
