//! Plenary beside others that do its job, under the same load, on this machine: writes tables and plots. `benches/compare/run.sh` builds what is compared and
//! calls it; `benches/README.md` says how to read what it writes.
//!
//! One system runs at a time, in a process of its own together with the callers: it starts in an empty folder, is filled, is loaded, and ends. A round is one
//! turn of each system. So whatever else the machine does meets all alike, and no system pays for the idling of another.

mod embedded;
#[path = "../../../../src/cli/plot.rs"]
mod plot;
mod report;
mod system;
#[path = "../../../targets/mod.rs"]
mod targets;

use report::{Figures, Machine};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use system::{Started, System};
use targets::Fault;
use targets::closed_loop::{disk_bytes, fill, flush_time, measure, memory};

/// Bytes of a value.
const VALUE: usize = 128;

/// Callers that fill a system.
const FILLERS: usize = 256;

/// How long a system may take for its turn: one that stands still does not hold up the others.
const TURN: Duration = Duration::from_secs(600);

const HELP: &str = "\
benches/compare/run.sh [OPTIONS]
  --quick          one round of half a second, 5,000 keys
  --rounds N       rounds; each figure is of the round with the median rate (3)
  --seconds S      how long each load is measured in one round (3)
  --keys N         keys that each system is filled with before it is measured (50,000)
  --only A,B       only systems whose name contains one of these
  --out FOLDER     where tables and plots are written (benches/compare)";

struct Options {
    rounds: usize,
    span: Duration,
    keys: usize,
    only: Vec<String>,
    out: PathBuf,
    /// The system that this process is to measure once, in this folder.
    one: Option<(String, PathBuf)>,
}

impl Options {
    fn read() -> Result<Self, Fault> {
        let mut options = Self {
            rounds: 3,
            span: Duration::from_secs(3),
            keys: 50_000,
            only: vec![String::new()],
            out: "benches/compare".into(),
            one: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
            match word.as_str() {
                "--quick" => {
                    (options.rounds, options.span) = (1, Duration::from_millis(500));
                    options.keys = 5_000;
                }
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.span = Duration::from_secs_f64(value()?.parse()?),
                "--keys" => options.keys = value()?.parse()?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--out" => options.out = value()?.into(),
                // Said by this program to itself.
                "--one" => options.one = Some((value()?, value()?.into())),
                _ => return Err(format!("{word}?\n{HELP}").into()),
            }
        }
        Ok(options)
    }
}

/// What one load of one system came to in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// The load, as it stands in tables.
    pub(crate) load: String,
    /// Answers per second; of `memory`, bytes of one node.
    pub(crate) figure: f64,
    /// Of half, of 99 %, of 99.9 % of the answers; nothing where it is not known.
    pub(crate) latency_us: [Option<f64>; 3],
    pub(crate) cpu_us: Option<f64>,
    pub(crate) disk_bytes: Option<f64>,
    /// Of the processors, the share that other programs took meanwhile.
    pub(crate) others: Option<f64>,
}

fn main() -> Result<(), Fault> {
    let options = Options::read()?;
    match &options.one {
        Some((name, folder)) => {
            let one = measure_one(System::named(name)?, folder, &options);
            let runtime = tokio::runtime::Runtime::new()?;
            let done: Result<(), Fault> = runtime.block_on(async { tokio::time::timeout(TURN, one).await? });
            let Err(fault) = done else { return Ok(()) };
            eprintln!("{fault}");
            // Without waiting for what the system may have left running.
            std::process::exit(1);
        }
        None => measure_all(&options),
    }
}

fn measure_all(options: &Options) -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let machine = Machine::look(flush_time(folder.path())?)?;
    let mut figures = Figures::default();
    let wanted = |system: &&System| options.only.iter().any(|only| system.name.contains(only));
    let systems: Vec<&System> = system::all().iter().filter(wanted).collect();
    for round in 1..=options.rounds {
        for system in &systems {
            eprintln!("round {round} of {}: {}", options.rounds, system.name);
            match measure_in_a_process(system, folder.path(), options) {
                Ok(measures) => measures.into_iter().for_each(|one| figures.add(system.name, one)),
                // The others are worth measuring all the same.
                Err(fault) => {
                    eprintln!("  left out: {fault}");
                    figures.left_out(system.name, &fault.to_string());
                }
            }
        }
    }
    report::write(&options.out, &machine, &figures, options)
}

fn measure_in_a_process(system: &System, folder: &Path, options: &Options) -> Result<Vec<Measure>, Fault> {
    let folder = folder.join("one");
    std::fs::create_dir_all(&folder)?;
    let span = options.span.as_secs_f64().to_string();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--seconds",
            &span,
            "--keys",
            &options.keys.to_string(),
            "--one",
            system.name,
        ])
        .arg(&folder);
    // What servers say is of no use here; what goes wrong is said at the end.
    let output = command.stdin(Stdio::null()).output()?;
    std::fs::remove_dir_all(&folder)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().last().unwrap_or("it ended without a word").into());
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

async fn measure_one(system: &System, folder: &Path, options: &Options) -> Result<(), Fault> {
    let Started { target, doors } = system.start(folder).await?;
    fill(&*target, options.keys, VALUE, FILLERS).await?;
    let nodes = 3.0;
    tell(&Measure {
        load: system::MEMORY.to_owned(),
        figure: memory(&*target)? as f64 / nodes,
        latency_us: [None; 3],
        cpu_us: None,
        disk_bytes: None,
        others: None,
    })?;
    for load in system.loads(options.keys) {
        let before = disk_bytes(folder)?;
        let measured = measure(&*target, load.kind, load.place, load.callers, options.span).await?;
        let written = before
            .zip(disk_bytes(folder)?)
            .map(|(before, after)| after - before);
        tell(&Measure {
            load: load.name,
            figure: measured.per_second,
            latency_us: [measured.p50, measured.p99, measured.p999]
                .map(|time| Some(time.as_secs_f64() * 1e6)),
            cpu_us: Some(measured.cpu.as_secs_f64() * 1e6),
            disk_bytes: written.map(|bytes| bytes as f64 / measured.answers.max(1) as f64),
            others: Some(measured.others),
        })?;
    }
    for measured in system::redis_benchmark(&doors, options.span).await? {
        tell(&measured)?;
    }
    target.stop().await?;
    // As above.
    std::process::exit(0);
}

fn tell(measure: &Measure) -> Result<(), Fault> {
    println!("{}", serde_json::to_string(measure)?);
    Ok(())
}
