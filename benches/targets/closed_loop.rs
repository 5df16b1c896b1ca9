//! The load: callers, each of which waits for its answer before it asks again, and what that costs all processes and the disk.

use super::{Caller, Fault, Place, Target};
use std::path::Path;
use std::process::Command;
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
    /// Of the processors, the share that other programs took meanwhile.
    pub(crate) others: f64,
    /// All answers, also those from before the measure.
    pub(crate) answers: usize,
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
    let (mut times, mut all) = (Vec::with_capacity(count * 1_024), 0);
    while let Some(one) = tasks.join_next().await {
        let (these, answers) = one??;
        times.extend(these);
        all += answers;
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
        others: {
            let all = after.machine_user.saturating_sub(before.machine_user);
            let others = all.saturating_sub(after.user.saturating_sub(before.user));
            let processors = u32::try_from(std::thread::available_parallelism()?.get())?;
            others.div_duration_f64(span * processors)
        },
        answers: all,
    })
}

async fn ask_until(
    mut caller: Box<dyn Caller>,
    load: Load,
    number: usize,
    from: Instant,
    until: Instant,
) -> Result<(Vec<Duration>, usize), Fault> {
    let (mut times, mut count) = (Vec::new(), 0_usize);
    let value = match load {
        Load::Writes(bytes) => vec![b'v'; bytes],
        Load::Reads(_) => Vec::new(),
    };
    loop {
        let key = match load {
            Load::Writes(_) => key(number, count % KEYS),
            // A stride that has no divisor in common with the number of keys visits all, in no order.
            Load::Reads(keys) => filled((count * 7_919 + number * 104_729) % keys),
        };
        let begun = Instant::now();
        if begun >= until {
            return Ok((times, count));
        }
        count += 1;
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

/// What processes have used since they began, and what all programs of the machine have since that began.
struct Used {
    cpu: Duration,
    /// Of it, outside the kernel: there, what the disk and the network do for these processes is counted as others' as well.
    user: Duration,
    machine_user: Duration,
}

impl Used {
    fn by(target: &dyn Target) -> Result<Self, Fault> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        // All processors together: "cpu", time of programs, of programs that are nice.
        let fields = stat.lines().next().unwrap_or_default().split_whitespace();
        let mut used = Self {
            cpu: Duration::ZERO,
            user: Duration::ZERO,
            machine_user: ticks(fields.skip(1).take(2))?.iter().sum(),
        };
        for pid in target.processes().into_iter().chain([std::process::id()]) {
            let [user, system] = cpu_of(pid)?;
            used.cpu += user + system;
            used.user += user;
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

/// Processor time of a process: its own, and the kernel's for it.
fn cpu_of(pid: u32) -> Result<[Duration; 2], Fault> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let times = ticks(fields.split_whitespace().skip(11).take(2))?;
    Ok(times.try_into().map_err(|_| "no times in stat")?)
}

/// Times as Linux tells them: in hundredths of a second.
fn ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Vec<Duration>, Fault> {
    fields
        .map(|field| Ok(Duration::from_millis(10 * field.parse::<u64>()?)))
        .collect()
}

/// Bytes that were written to the disk on which a folder is, by whomever, since the machine began; what is in the page cache goes there first. Nothing where the
/// system does not count them, as for folders in memory.
pub(crate) fn disk_bytes(folder: &Path) -> Result<Option<u64>, Fault> {
    use std::os::unix::fs::MetadataExt;
    let flushed = Command::new("sync").arg("--file-system").arg(folder).status()?;
    if !flushed.success() {
        return Err(format!("{} cannot be flushed", folder.display()).into());
    }
    let device = std::fs::metadata(folder)?.dev();
    // As glibc's `major` and `minor` have it.
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    let stats = std::fs::read_to_string("/proc/diskstats")?;
    let mut lines = stats
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let (major, minor) = (major.to_string(), minor.to_string());
    let ours = lines.find(|fields| fields.len() > 9 && fields[0] == major && fields[1] == minor);
    // After the name: reads in four fields, writes, writes merged, sectors written, of 512 bytes whatever the disk's are.
    ours.map(|fields| Ok(512 * fields[9].parse::<u64>()?)).transpose()
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
