//! The log alone: groups of K commands of 256 bytes, one group after the other. `cargo bench --bench log`.
//!
//! Prints commands per second, the median time of a group and the processor time of a command. Where the data lies decides what a
//! flush costs: set `TMPDIR` to a folder on the disk that is meant, not in memory.

use bytes::Bytes;
use plenary::config::Durability;
use plenary::testing::LogProbe;
use std::error::Error;
use std::time::{Duration, Instant};

/// Bytes of one command with its value of 256 bytes, a key of 37 and the lengths around them.
const COMMAND_BYTES: usize = 256 + 37 + 20;

/// How long each line is measured.
const SPAN: Duration = Duration::from_secs(2);

/// Groups after which the log is purged, as a snapshot would.
const PURGED_AFTER: usize = 8_192;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:>10} {:>9} {:>12} {:>11} {:>16}",
        "durability", "commands", "commands/s", "median µs", "µs CPU/command"
    );
    for durability in [Durability::Fsync, Durability::Os] {
        for commands in [1, 16, 64, 256] {
            measure(durability, commands).await?;
        }
    }
    Ok(())
}

async fn measure(durability: Durability, commands: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut log = LogProbe::open(folder.path(), durability)?;
    let group = Bytes::from(vec![b'x'; commands * COMMAND_BYTES]);
    let mut times = Vec::new();
    let (begun, cpu) = (Instant::now(), cpu_time()?);
    while begun.elapsed() < SPAN {
        let before = Instant::now();
        log.append(group.clone()).await?.await?;
        times.push(before.elapsed());
        if times.len() % PURGED_AFTER == 0 {
            log.purge().await?;
        }
    }
    let (elapsed, cpu) = (begun.elapsed(), cpu_time()? - cpu);
    log.stop().await?;
    times.sort_unstable();
    let written = (times.len() * commands) as f64;
    println!(
        "{:>10} {commands:>9} {:>12.0} {:>11.0} {:>16.2}",
        format!("{durability:?}").to_lowercase(),
        written / elapsed.as_secs_f64(),
        times[times.len() / 2].as_secs_f64() * 1e6,
        cpu.as_secs_f64() * 1e6 / written,
    );
    Ok(())
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
