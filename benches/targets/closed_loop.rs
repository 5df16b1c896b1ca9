//! The load: callers, each of which waits for its answer before it asks again, and what that costs all processes.

use super::{Caller, Fault, Place, Target};
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys of one caller. They are written again and again, so that memory and snapshots stay small.
const KEYS: usize = 1_000;

/// What callers ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Values of so many bytes, each under one of the caller's own keys.
    Writes(usize),
    /// What is there now, of so many keys that [`fill`] wrote.
    Reads(usize),
}

/// What one round of one row came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    /// Processor time of all nodes and all callers, for each answer.
    pub(crate) cpu: Duration,
    /// Bytes that the nodes sent to the disk, for each answer.
    pub(crate) disk_bytes: f64,
}

/// Lets callers ask for this long. What they do before all have begun does not count.
pub(crate) async fn measure(
    target: &dyn Target,
    load: Load,
    place: Place,
    callers: usize,
    span: Duration,
) -> Result<Measured, Fault> {
    let callers = target.callers(place, callers).await?;
    let (warm, mut tasks) = (span / 8, tokio::task::JoinSet::new());
    let count = callers.len();
    let (from, until) = (Instant::now() + warm, Instant::now() + warm + span);
    for (number, caller) in callers.into_iter().enumerate() {
        tasks.spawn(ask_until(caller, load, number, from, until));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = Used::by(target)?;
    tokio::time::sleep_until(until.into()).await;
    let after = Used::by(target)?;
    let mut times = Vec::with_capacity(count * 1_024);
    while let Some(one) = tasks.join_next().await {
        times.extend(one??);
    }
    times.sort_unstable();
    let answers = times.len().max(1);
    let at = |of_thousand: usize| {
        let place = times.len() * of_thousand / 1_000;
        times.get(place).copied().unwrap_or_default()
    };
    Ok(Measured {
        per_second: times.len() as f64 / span.as_secs_f64(),
        p50: at(500),
        p99: at(990),
        p999: at(999),
        cpu: (after.cpu - before.cpu) / u32::try_from(answers)?,
        disk_bytes: after.disk_bytes.saturating_sub(before.disk_bytes) as f64 / answers as f64,
    })
}

async fn ask_until(
    mut caller: Box<dyn Caller>,
    load: Load,
    number: usize,
    from: Instant,
    until: Instant,
) -> Result<Vec<Duration>, Fault> {
    let (mut times, mut count) = (Vec::new(), 0_usize);
    let value = match load {
        Load::Writes(bytes) => vec![b'v'; bytes],
        Load::Reads(_) => Vec::new(),
    };
    loop {
        count += 1;
        let key = match load {
            Load::Writes(_) => key(number, count % KEYS),
            // A stride that has no divisor in common with the number of keys visits all, in no order.
            Load::Reads(keys) => filled((count * 7_919 + number * 104_729) % keys),
        };
        let begun = Instant::now();
        if begun >= until {
            return Ok(times);
        }
        match load {
            Load::Writes(_) => caller.write(key.as_bytes(), &value).await?,
            Load::Reads(_) => caller.read(key.as_bytes()).await?,
        }
        if begun >= from {
            times.push(begun.elapsed());
        }
    }
}

fn key(caller: usize, number: usize) -> String {
    format!("bench:{caller:04}:{number:026}")
}

/// Key of [`fill`].
pub(crate) fn filled(number: usize) -> String {
    key(9_999, number)
}

/// Writes so many keys, each once, by so many callers.
pub(crate) async fn fill(
    target: &dyn Target,
    keys: usize,
    value: usize,
    callers: usize,
) -> Result<(), Fault> {
    let mut tasks = tokio::task::JoinSet::new();
    for (first, mut caller) in target
        .callers(Place::Leader, callers)
        .await?
        .into_iter()
        .enumerate()
    {
        tasks.spawn(async move {
            let value = vec![b'v'; value];
            for number in (first..keys).step_by(callers) {
                caller.write(filled(number).as_bytes(), &value).await?;
            }
            Ok::<(), Fault>(())
        });
    }
    while let Some(one) = tasks.join_next().await {
        one??;
    }
    Ok(())
}

/// What processes have used since they began.
struct Used {
    cpu: Duration,
    disk_bytes: u64,
}

impl Used {
    fn by(target: &dyn Target) -> Result<Self, Fault> {
        let mut used = Self {
            cpu: Duration::ZERO,
            disk_bytes: 0,
        };
        for pid in target.processes().into_iter().chain([std::process::id()]) {
            used.cpu += cpu_of(pid)?;
            used.disk_bytes += number_of(&format!("/proc/{pid}/io"), "write_bytes:")?;
        }
        Ok(used)
    }
}

/// Bytes in memory of all nodes, and of the callers where the nodes are in this process.
pub(crate) fn memory(target: &dyn Target) -> Result<u64, Fault> {
    let mut processes = target.processes();
    if processes.is_empty() {
        processes.push(std::process::id());
    }
    processes.into_iter().try_fold(0, |sum, pid| {
        Ok(sum + number_of(&format!("/proc/{pid}/status"), "VmRSS:")? * 1_024)
    })
}

/// The number after a name, of a file of `/proc`.
fn number_of(path: &str, name: &str) -> Result<u64, Fault> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("no {name} in {path}"))?.parse()?)
}

/// Processor time of a process, as Linux counts it: in hundredths of a second.
fn cpu_of(pid: u32) -> Result<Duration, Fault> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

/// The median of a few hundred appends of 4 KiB with fdatasync: what one flush costs on this disk.
pub(crate) fn flush_time(folder: &Path) -> Result<Duration, Fault> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
