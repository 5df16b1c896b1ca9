//! The log alone, in segments and in sled: groups of K commands of 256 bytes, by one appender and by 64. `cargo bench --bench log`.
//!
//! Rounds are interleaved: each line is measured once for each kind of log in turn, again and again, and the table has the round with the
//! median rate. `--rounds N` (5) and `--ms N` for each (500). Where the data lies decides what a flush costs: set `TMPDIR` to a folder on the disk
//! that is meant, not in memory.

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use plenary::config::{Durability, LogKind};
use plenary::testing::LogProbe;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one command with its value of 256 bytes, a key of 37 and the lengths around them.
const COMMAND_BYTES: usize = 256 + 37 + 20;

/// Bytes of log after which it is purged, as a snapshot would.
const PURGED_AFTER: usize = 64 << 20;

/// Bytes written before anything is measured: a node that runs for long has segments to use again.
const WARM_UP: usize = 3 * PURGED_AFTER;

/// How long both logs are left alone before one is measured: sled goes on writing for a while after its last batch.
const PAUSE: Duration = Duration::from_millis(700);

/// What one line of the table is about.
#[derive(Clone, Copy)]
struct Load {
    durability: Durability,
    appenders: usize,
    /// In a group, which is one entry.
    commands: usize,
}

/// What one round came to.
#[derive(Clone, Copy)]
struct Figures {
    entries_per_s: f64,
    median_us: f64,
    cpu_us_per_entry: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (rounds, span) = (
        option("--rounds", 5)?,
        Duration::from_millis(option("--ms", 500)? as u64),
    );
    println!(
        "| durability | appenders | commands a group | log | entries/s | µs an append | CPU µs an entry |"
    );
    println!("|---|---|---|---|---|---|---|");
    for durability in [Durability::Fsync, Durability::Os] {
        for appenders in [1, 64] {
            for commands in [1, 16, 64] {
                let load = Load {
                    durability,
                    appenders,
                    commands,
                };
                compare(load, rounds, span).await?;
            }
        }
    }
    Ok(())
}

/// The number after a flag.
fn option(flag: &str, default: usize) -> Result<usize, Box<dyn Error>> {
    let mut args = std::env::args().skip_while(|arg| arg != flag).skip(1);
    Ok(args.next().map_or(Ok(default), |value| value.parse())?)
}

async fn compare(load: Load, rounds: usize, span: Duration) -> Result<(), Box<dyn Error>> {
    let mut kinds = Vec::new();
    for kind in [LogKind::Segments, LogKind::Sled] {
        let folder = tempfile::tempdir()?;
        let log = Log::open(folder.path(), kind, load).await?;
        kinds.push((kind, folder, log, Vec::new()));
    }
    for _ in 0..rounds {
        for (_, _, log, figures) in &mut kinds {
            tokio::time::sleep(PAUSE).await;
            figures.push(log.measure(load, span).await?);
        }
    }
    for (kind, _folder, log, mut figures) in kinds {
        log.probe.stop().await?;
        figures.sort_by(|one, other| one.entries_per_s.total_cmp(&other.entries_per_s));
        let median = figures[figures.len() / 2];
        println!(
            "| {} | {} | {} | {kind} | {:.0} | {:.0} | {:.1} |",
            load.durability,
            load.appenders,
            load.commands,
            median.entries_per_s,
            median.median_us,
            median.cpu_us_per_entry
        );
    }
    Ok(())
}

struct Log {
    probe: LogProbe,
    group: Bytes,
    unpurged: usize,
}

impl Log {
    async fn open(folder: &Path, kind: LogKind, load: Load) -> Result<Self, Box<dyn Error>> {
        let mut log = Self {
            probe: LogProbe::open(folder, kind, load.durability)?,
            group: Bytes::from(vec![b'x'; 1 << 20]),
            unpurged: 0,
        };
        for _ in 0..WARM_UP >> 20 {
            log.append().await?.await?;
        }
        log.group = Bytes::from(vec![b'x'; load.commands * COMMAND_BYTES]);
        Ok(log)
    }

    /// Begins one append; the future ends with how long it took.
    async fn append(&mut self) -> std::io::Result<impl Future<Output = std::io::Result<Duration>> + use<>> {
        let begun = Instant::now();
        let durable = self.probe.append(self.group.clone()).await?;
        self.unpurged += self.group.len();
        if self.unpurged > PURGED_AFTER {
            self.unpurged = 0;
            self.probe.purge().await?;
        }
        Ok(async move { durable.await.map(|()| begun.elapsed()) })
    }

    async fn measure(&mut self, load: Load, span: Duration) -> Result<Figures, Box<dyn Error>> {
        let (mut times, mut under_way) = (Vec::new(), FuturesUnordered::new());
        let (begun, cpu) = (Instant::now(), cpu_time()?);
        while begun.elapsed() < span {
            while under_way.len() < load.appenders {
                under_way.push(self.append().await?);
            }
            times.extend(under_way.next().await.transpose()?);
        }
        while let Some(time) = under_way.next().await {
            times.push(time?);
        }
        let (elapsed, cpu) = (begun.elapsed(), cpu_time()? - cpu);
        times.sort_unstable();
        let entries = times.len() as f64;
        Ok(Figures {
            entries_per_s: entries / elapsed.as_secs_f64(),
            median_us: times[times.len() / 2].as_secs_f64() * 1e6,
            cpu_us_per_entry: cpu.as_secs_f64() * 1e6 / entries,
        })
    }
}

/// Processor time of this process so far: fields 14 and 15 of `/proc/self/stat`, in hundredths of a second. Zero where there is none.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return Ok(Duration::ZERO);
    };
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
