//! What is compared, how each is started, and by what it is loaded.

use super::targets::children::{Etcd, Plenaries, Redis};
use super::targets::closed_loop::Load as Kind;
use super::targets::{Fault, Local, Place, Target};
use super::{Measure, VALUE, embedded};
use plenary::config::{Durability, Limits};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The load that is none: what a node holds in memory after it was filled.
pub(crate) const MEMORY: &str = "memory";

/// Connections of redis-benchmark.
const CONNECTIONS: &str = "50";

/// What redis-benchmark asks, with how many commands at once, and how many requests it makes for each second it is to take.
const REDIS_BENCHMARK: [(&str, u32, f64); 4] = [
    ("set", 1, 25_000.0),
    ("get", 1, 75_000.0),
    ("set", 16, 100_000.0),
    ("get", 16, 400_000.0),
];

/// One of those that are compared.
pub(crate) struct System {
    pub(crate) name: &'static str,
    /// What it has done when it answers a write.
    pub(crate) acknowledges: &'static str,
    /// Whether that survives when the power of all machines fails.
    pub(crate) durable: bool,
    kind: Which,
}

enum Which {
    Embedded(Durability),
    Processes,
    Redis,
    Etcd,
    Hiqlite(embedded::Storage),
    DEngine,
}

/// One load of a system.
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) callers: usize,
}

/// All, in the order of tables; ours first.
pub(crate) fn all() -> &'static [System] {
    const ON_TWO_DISKS: &str = "flushed on two of three";
    const IN_TWO_CACHES: &str = "in the page cache of two of three";
    &[
        System {
            name: "Plenary, embedded",
            acknowledges: ON_TWO_DISKS,
            durable: true,
            kind: Which::Embedded(Durability::Fsync),
        },
        System {
            name: "Plenary, Redis protocol",
            acknowledges: ON_TWO_DISKS,
            durable: true,
            kind: Which::Processes,
        },
        System {
            name: "redis-server, 2 replicas",
            acknowledges: "flushed on one; replicas some time later",
            durable: true,
            kind: Which::Redis,
        },
        System {
            name: "etcd",
            acknowledges: ON_TWO_DISKS,
            durable: true,
            kind: Which::Etcd,
        },
        System {
            name: "hiqlite, fsync",
            acknowledges: ON_TWO_DISKS,
            durable: true,
            kind: Which::Hiqlite(embedded::Storage::Fsync),
        },
        System {
            name: "Plenary, durability os",
            acknowledges: IN_TWO_CACHES,
            durable: false,
            kind: Which::Embedded(Durability::Os),
        },
        System {
            name: "hiqlite, disk",
            acknowledges: IN_TWO_CACHES,
            durable: false,
            kind: Which::Hiqlite(embedded::Storage::Disk),
        },
        System {
            name: "hiqlite, memory",
            acknowledges: "in the memory of two of three",
            durable: false,
            kind: Which::Hiqlite(embedded::Storage::Memory),
        },
        System {
            name: "d-engine",
            acknowledges: "in memory, before it is flushed",
            durable: false,
            kind: Which::DEngine,
        },
    ]
}

/// A system that serves.
pub(crate) struct Started {
    pub(crate) target: Box<dyn Target>,
    /// Where it speaks Redis' protocol: who listens there, and the port.
    pub(crate) doors: Vec<(&'static str, u16)>,
}

impl System {
    pub(crate) fn named(name: &str) -> Result<&'static Self, Fault> {
        let found = all().iter().find(|system| system.name == name);
        Ok(found.ok_or_else(|| format!("no system {name}"))?)
    }

    /// Three nodes, or one and two replicas, in an empty folder.
    pub(crate) async fn start(&self, folder: &Path) -> Result<Started, Fault> {
        let (mut leader, mut follower) = (None, None);
        let target: Box<dyn Target> = match &self.kind {
            Which::Embedded(durability) => {
                let groups = Limits::default().groups_in_flight;
                Box::new(Local::start(folder.to_owned(), *durability, groups).await?)
            }
            Which::Processes => {
                let nodes = Plenaries::start(folder, Durability::Fsync).await?;
                let which = nodes.leader().await?;
                leader = Some(nodes.ports[which]);
                follower = Some(nodes.ports[(which + 1) % nodes.ports.len()]);
                Box::new(nodes)
            }
            Which::Redis => {
                let group = Redis::start_group(folder, 2).await?;
                leader = Some(group[0].port);
                Box::new(group)
            }
            Which::Etcd => Box::new(Etcd::start(folder).await?),
            Which::Hiqlite(storage) => Box::new(embedded::Hiqlite::start(folder, *storage).await?),
            #[cfg(feature = "d-engine")]
            Which::DEngine => Box::new(embedded::d_engine::DEngine::start(folder).await?),
            #[cfg(not(feature = "d-engine"))]
            Which::DEngine => return Err("built without it, for want of protoc".into()),
        };
        let doors = [("leader", leader), ("follower", follower)];
        let doors = doors.into_iter().filter_map(|(role, port)| Some((role, port?)));
        Ok(Started {
            target,
            doors: doors.collect(),
        })
    }

    /// What it is loaded with, one after the other.
    pub(crate) fn loads(&self, keys: usize) -> Vec<Load> {
        let mut loads = Vec::new();
        let mut add = |what: &str, kind, place, callers| {
            let name = format!("{what}, {callers} {place}");
            loads.push(Load {
                name,
                kind,
                place,
                callers,
            });
        };
        for callers in [1, 64, 256] {
            add("writes", Kind::Writes(VALUE), Place::Leader, callers);
        }
        match self.kind {
            // A replica of Redis takes no writes, and an engine that does not lead refuses them.
            Which::Redis | Which::DEngine => {}
            _ => add("writes", Kind::Writes(VALUE), Place::Follower, 64),
        }
        match self.kind {
            Which::Embedded(_) | Which::Etcd => {
                add("linearizable reads", Kind::Reads(keys), Place::Leader, 64);
                add("linearizable reads", Kind::Reads(keys), Place::Follower, 64);
            }
            Which::DEngine => add("linearizable reads", Kind::Reads(keys), Place::Leader, 64),
            // Reads of replicas and of hiqlite's cache are of what that node has; the Redis protocol has no word for more.
            Which::Processes | Which::Redis | Which::Hiqlite(_) => {}
        }
        loads
    }
}

/// redis-benchmark's tests, at each of the doors.
pub(crate) async fn redis_benchmark(doors: &[(&str, u16)], span: Duration) -> Result<Vec<Measure>, Fault> {
    let mut measures = Vec::new();
    for (test, pipeline, per_second) in REDIS_BENCHMARK {
        for (role, port) in doors {
            let requests = (per_second * span.as_secs_f64()) as u64;
            let mut command = Command::new("redis-benchmark");
            command
                .args([
                    "-p",
                    &port.to_string(),
                    "-c",
                    CONNECTIONS,
                    "-d",
                    &VALUE.to_string(),
                    "--csv",
                ])
                .args([
                    "-t",
                    test,
                    "-P",
                    &pipeline.to_string(),
                    "-n",
                    &requests.to_string(),
                ])
                .args(["-r", "100000"]);
            let output = tokio::task::spawn_blocking(move || command.output()).await??;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into());
            }
            let text = String::from_utf8(output.stdout)?;
            // "name","per second","mean","least","50 %","95 %","99 %","most", times in milliseconds; the first line names the columns.
            let line = text.lines().nth(1).ok_or("redis-benchmark measured nothing")?;
            let fields: Vec<f64> = line
                .split('"')
                .skip(3)
                .step_by(2)
                .map(|field| field.parse().unwrap_or(f64::NAN))
                .collect();
            let &[figure, _, _, p50, _, p99, ..] = fields.as_slice() else {
                return Err(format!("redis-benchmark said {line}").into());
            };
            measures.push(Measure {
                load: format!("redis-benchmark {} -P {pipeline}, {role}", test.to_uppercase()),
                figure,
                latency_us: [Some(p50 * 1e3), Some(p99 * 1e3), None],
                cpu_us: None,
                disk_bytes: None,
                others: None,
            });
        }
    }
    Ok(measures)
}
