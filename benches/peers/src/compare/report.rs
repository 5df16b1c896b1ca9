//! What was measured, as tables and plots.

use super::plot::{self, Bar, Panel, Range};
use super::system::{self, MEMORY, System};
use super::targets::Fault;
use super::{Measure, Options, VALUE};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where it was measured, and what else went on there.
pub(crate) struct Machine {
    date: String,
    model: String,
    processors: usize,
    flush: Duration,
}

/// The share of the processors that other programs may take on an idle machine.
const IDLE_BELOW: f64 = 0.05;

impl Machine {
    /// Before anything is measured.
    pub(crate) fn look(flush: Duration) -> Result<Self, Fault> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find(|line| line.starts_with("model name"));
        let model = model
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        Ok(Self {
            date: first_line(Command::new("date").args(["-u", "+%F"]))?,
            model: model.to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            flush,
        })
    }
}

fn first_line(command: &mut Command) -> Result<String, Fault> {
    let text = String::from_utf8(command.output()?.stdout)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// All rounds of all loads of all systems.
#[derive(Default)]
pub(crate) struct Figures {
    measured: Vec<(&'static str, Measure)>,
    left_out: Vec<(&'static str, String)>,
}

impl Figures {
    pub(crate) fn add(&mut self, system: &'static str, measure: Measure) {
        self.measured.push((system, measure));
    }

    pub(crate) fn left_out(&mut self, system: &'static str, why: &str) {
        self.left_out.push((system, why.to_owned()));
    }

    /// The share of the processors that other programs took, on average of all that was measured.
    fn others(&self) -> f64 {
        let shares: Vec<f64> = self.measured.iter().filter_map(|(_, one)| one.others).collect();
        shares.iter().sum::<f64>() / shares.len().max(1) as f64
    }

    /// The round with the median figure.
    fn median(&self, system: &str, load: &str) -> Option<&Measure> {
        let of_it = self
            .measured
            .iter()
            .filter(|(name, one)| *name == system && one.load == load);
        let mut rounds: Vec<&Measure> = of_it.map(|(_, one)| one).collect();
        rounds.sort_by(|a, b| a.figure.total_cmp(&b.figure));
        rounds.get(rounds.len() / 2).copied()
    }

    /// Systems that did this, ours first, those that are durable before the others.
    fn of(&self, load: &str) -> Vec<(&'static System, &Measure)> {
        let all = system::all().iter();
        all.filter_map(|system| Some((system, self.median(system.name, load)?)))
            .collect()
    }
}

/// Writes `figures.md` and the plots.
pub(crate) fn write(
    folder: &Path,
    machine: &Machine,
    figures: &Figures,
    options: &Options,
) -> Result<(), Fault> {
    std::fs::create_dir_all(folder)?;
    let mut text = head(machine, figures, options)?;
    for load in [
        "1 on the leader",
        "64 on the leader",
        "256 on the leader",
        "64 on a follower",
    ] {
        answers(&mut text, figures, "writes", load)?;
    }
    for load in ["64 on the leader", "64 on a follower"] {
        answers(&mut text, figures, "linearizable reads", load)?;
    }
    redis_benchmark(&mut text, figures)?;
    in_memory(&mut text, figures, options)?;
    std::fs::write(folder.join("figures.md"), text)?;
    for (name, picture) in pictures(figures, options) {
        std::fs::write(folder.join(name), picture)?;
    }
    eprintln!("written: {}/figures.md and plots", folder.display());
    Ok(())
}

fn head(machine: &Machine, figures: &Figures, options: &Options) -> Result<String, Fault> {
    let mut text = String::from(
        "# Plenary beside others\n\nWritten by `benches/compare/run.sh`; `benches/README.md` says how to read it.\n\n",
    );
    let others = figures.others();
    writeln!(
        text,
        "{}, {} processors ({}), an append of 4 KiB with fdatasync takes {:.0} µs here; {} rounds of {} s for each load, {} keys. Other programs took \
         {:.0} % of the processors while it was measured.\n",
        machine.date,
        machine.processors,
        machine.model,
        machine.flush.as_secs_f64() * 1e6,
        options.rounds,
        options.span.as_secs_f64(),
        options.keys,
        others * 100.0,
    )?;
    if others > IDLE_BELOW {
        text.push_str("**The machine was busy with other work meanwhile: neither the rates nor their order are to be relied on.**\n\n");
    }
    for program in ["redis-server", "etcd"] {
        if let Ok(version) = first_line(Command::new(program).arg("--version")) {
            writeln!(text, "- {version}")?;
        }
    }
    for package in ["hiqlite", "d-engine"] {
        writeln!(text, "- {package} {}", locked(package).unwrap_or("?"))?;
    }
    for (system, why) in &figures.left_out {
        writeln!(text, "- {system} is missing in a round: {why}")?;
    }
    text.push('\n');
    Ok(text)
}

/// The version of a package that is built here.
fn locked(package: &str) -> Option<&'static str> {
    let lock = include_str!("../../Cargo.lock");
    let after = lock
        .split_once(&format!("name = \"{package}\"\nversion = \""))
        .map(|(_, after)| after)?;
    after.split('"').next()
}

/// One load, system by system. Ratios are to Plenary with the same durability.
fn answers(text: &mut String, figures: &Figures, what: &str, load: &str) -> Result<(), Fault> {
    let load = format!("{what}, {load}");
    let systems = figures.of(&load);
    if systems.is_empty() {
        return Ok(());
    }
    let of_bytes = if what == "writes" {
        format!(" of {VALUE} bytes")
    } else {
        String::new()
    };
    writeln!(
        text,
        "## {}{of_bytes}{}\n\n| system | answers when it is | per s | Plenary is | p50 µs | p99 µs | p99.9 µs | CPU µs | bytes to disk |\n|---|---|---|---|---|---|---|---|---|",
        what[..1].to_uppercase() + &what[1..],
        &load[what.len()..],
    )?;
    for (system, measure) in &systems {
        let ours = systems.iter().find(|(other, _)| other.durable == system.durable);
        let ratio = match ours {
            Some((ours, _)) if ours.name == system.name || !ours.name.starts_with("Plenary") => String::new(),
            Some((_, ours)) => format!("{:.2}×", ours.figure / measure.figure),
            None => String::new(),
        };
        let [p50, p99, p999] = measure
            .latency_us
            .map(|time| time.map_or_else(String::new, whole));
        writeln!(
            text,
            "| {} | {} | {} | {ratio} | {p50} | {p99} | {p999} | {} | {} |",
            system.name,
            if what == "writes" { system.acknowledges } else { "" },
            whole(measure.figure),
            measure.cpu_us.map_or_else(String::new, |cpu| format!("{cpu:.1}")),
            measure.disk_bytes.map_or_else(String::new, whole),
        )?;
    }
    text.push('\n');
    Ok(())
}

/// A number with its thousands apart; nothing for none.
fn whole(number: f64) -> String {
    if number.is_nan() {
        return String::new();
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const REDIS: &str = "redis-server, 2 replicas";
const PLENARY: &str = "Plenary, Redis protocol";
const TESTS: [&str; 4] = ["SET -P 1", "GET -P 1", "SET -P 16", "GET -P 16"];

/// Redis, Plenary's leader, a follower: what each has of one test.
fn of_test<'f>(figures: &'f Figures, test: &str) -> [Option<&'f Measure>; 3] {
    let load = |role| format!("redis-benchmark {test}, {role}");
    [
        figures.median(REDIS, &load("leader")),
        figures.median(PLENARY, &load("leader")),
        figures.median(PLENARY, &load("follower")),
    ]
}

fn redis_benchmark(text: &mut String, figures: &Figures) -> Result<(), Fault> {
    if TESTS
        .iter()
        .all(|test| of_test(figures, test).iter().all(Option::is_none))
    {
        return Ok(());
    }
    writeln!(
        text,
        "## redis-benchmark -c 50 -d {VALUE} -r 100000\n\n| test | Redis, 2 replicas | p99 µs | Plenary's leader | of Redis | p99 µs | a follower | of Redis | p99 µs |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for test in TESTS {
        let [redis, leader, follower] = of_test(figures, test);
        let figure = |one: Option<&Measure>| one.map_or(f64::NAN, |one| one.figure);
        let p99 = |one: Option<&Measure>| {
            one.and_then(|one| one.latency_us[1])
                .map_or_else(String::new, whole)
        };
        let of_redis = |one: Option<&Measure>| {
            let ratio = figure(one) / figure(redis);
            if ratio.is_nan() {
                String::new()
            } else {
                format!("{ratio:.2}×")
            }
        };
        writeln!(
            text,
            "| {test} | {} | {} | {} | {} | {} | {} | {} | {} |",
            whole(figure(redis)),
            p99(redis),
            whole(figure(leader)),
            of_redis(leader),
            p99(leader),
            whole(figure(follower)),
            of_redis(follower),
            p99(follower),
        )?;
    }
    text.push('\n');
    Ok(())
}

fn in_memory(text: &mut String, figures: &Figures, options: &Options) -> Result<(), Fault> {
    let systems = figures.of(MEMORY);
    if systems.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "## Memory of one node with {} keys of {VALUE} bytes\n\nOf those that are linked into a program it is a third of that program with three nodes, callers and all.\n\n| system | MiB |\n|---|---|",
        options.keys
    )?;
    for (system, measure) in systems {
        writeln!(text, "| {} | {:.1} |", system.name, mebibytes(measure))?;
    }
    text.push('\n');
    Ok(())
}

fn mebibytes(measure: &Measure) -> f64 {
    measure.figure / f64::from(1 << 20)
}

/// The plots by the names of their files.
fn pictures(figures: &Figures, options: &Options) -> Vec<(&'static str, String)> {
    let bars = |load: &str| -> Vec<Bar> {
        let bar = |(system, measure): (&System, &Measure)| Bar {
            label: system.name.to_owned(),
            value: measure.figure,
            text: whole(measure.figure),
            ours: system.name.starts_with("Plenary"),
            faint: !system.durable,
        };
        figures.of(load).into_iter().map(bar).collect()
    };
    let panel = |title: &str, load: &str| Panel {
        title: title.to_owned(),
        bars: bars(load),
    };
    let writes = [1, 64, 256].map(|callers| {
        let callers_are = if callers == 1 {
            "1 caller".to_owned()
        } else {
            format!("{callers} callers")
        };
        panel(
            &format!("{callers_are} on the leader"),
            &format!("writes, {callers} on the leader"),
        )
    });
    let ranges = figures
        .of("writes, 64 on the leader")
        .into_iter()
        .filter_map(|(system, measure)| {
            Some(Range {
                label: system.name.to_owned(),
                values: [
                    measure.latency_us[0]?,
                    measure.latency_us[1]?,
                    measure.latency_us[2]?,
                ],
                ours: system.name.starts_with("Plenary"),
            })
        });
    let reads = ["on the leader", "on a follower"].map(|place| {
        panel(
            &format!("64 callers {place}"),
            &format!("linearizable reads, 64 {place}"),
        )
    });
    let tests = TESTS.map(|test| {
        let bar = |(label, measure): (&str, Option<&Measure>)| {
            Some(Bar {
                label: label.to_owned(),
                value: measure?.figure,
                text: whole(measure?.figure),
                ours: label.starts_with("Plenary"),
                faint: false,
            })
        };
        let labels = ["Redis, 2 replicas", "Plenary, leader", "Plenary, follower"];
        Panel {
            title: test.to_owned(),
            bars: labels
                .into_iter()
                .zip(of_test(figures, test))
                .filter_map(bar)
                .collect(),
        }
    });
    let mut memory = panel("one node, MiB", MEMORY);
    for (bar, (_, measure)) in memory.bars.iter_mut().zip(figures.of(MEMORY)) {
        bar.text = format!("{:.1}", mebibytes(measure));
        bar.faint = false;
    }
    vec![
        (
            "writes.svg",
            plot::bars(
                &format!("Writes of {VALUE} bytes per second, three nodes"),
                "faint: not on disk yet when it is acknowledged",
                &writes,
            ),
        ),
        (
            "latency.svg",
            plot::ranges(
                "64 callers that write: how long each waits",
                "half, 99 %, 99.9 % of the answers; µs",
                &ranges.collect::<Vec<_>>(),
            ),
        ),
        (
            "reads.svg",
            plot::bars("Linearizable reads per second, three nodes", "", &reads),
        ),
        (
            "redis-benchmark.svg",
            plot::bars(
                &format!("redis-benchmark -c 50 -d {VALUE}, requests per second"),
                "Redis flushes on one machine, Plenary on two of three",
                &tests,
            ),
        ),
        (
            "memory.svg",
            plot::bars(
                &format!("Memory with {} keys of {VALUE} bytes", whole(options.keys as f64)),
                "",
                &[memory],
            ),
        ),
    ]
}
