//! What a soak found: a page of figures and four plots.

use super::super::plot::{self, Line};
use super::load::Shared;
use super::members::MEMBERS;
use super::{MEMORY_GROWTH_PERCENT_MAX, Options, Record, Sample, growth_percent};
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MIB: f64 = (1 << 20) as f64;

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// One line after each rest.
pub(super) fn progress(record: &Record, shared: &Shared, elapsed: Duration) {
    let (acknowledged, violations) = (load(&shared.acknowledged), shared.violations().len());
    println!(
        "{} s: {acknowledged} acknowledged, {} unknown, {} kills, {} rolls, {} rests, {violations} violations",
        elapsed.as_secs(),
        load(&shared.unknown),
        record.kills.len(),
        record.rolls.len(),
        record.rests.len(),
    );
}

/// Writes `report.md` and the plots.
///
/// # Errors
/// What the system says.
pub(super) fn write(options: &Options, record: &Record, shared: &Shared) -> io::Result<()> {
    let violations = shared.violations();
    // Writing to a `String` cannot fail.
    let mut text = format!(
        "# A soak of {} s\n\nWritten by `plenary bench --soak --for {0}s --seed {} --workers {}`, plenary {}.\n\n",
        options.span.as_secs(),
        options.seed,
        options.workers,
        env!("CARGO_PKG_VERSION"),
    );
    if violations.is_empty() {
        text.push_str("Nothing happened that must not.\n\n");
    } else {
        let _ = writeln!(text, "**{} violations:**\n", violations.len());
        for violation in &violations {
            let _ = writeln!(text, "- {}", violation.replace('\n', "\n  "));
        }
        text.push('\n');
    }
    text.push_str("| what | how much |\n|---|---|\n");
    for (what, figure) in figures(record, shared) {
        let _ = writeln!(text, "| {what} | {figure} |");
    }
    for (name, picture) in pictures(record) {
        let _ = writeln!(text, "\n![{name}]({name}.svg)");
        std::fs::write(options.report.join(format!("{name}.svg")), picture)?;
    }
    std::fs::write(options.report.join("report.md"), text)?;
    println!("written: {}", options.report.join("report.md").display());
    Ok(())
}

fn figures(record: &Record, shared: &Shared) -> Vec<(&'static str, String)> {
    let rests = &record.rests;
    let memory = |rest: &Sample| {
        rest.memory
            .iter()
            .flatten()
            .map(|bytes| *bytes as f64 / MIB)
            .fold(0.0, f64::max)
    };
    let disk = |rest: &Sample| {
        rest.disk
            .iter()
            .map(|bytes| *bytes as f64 / MIB)
            .fold(0.0, f64::max)
    };
    let most = |of: &dyn Fn(&Sample) -> f64| rests.iter().map(of).fold(0.0, f64::max);
    let mut rates: Vec<f64> = record.samples.iter().map(|sample| sample.per_second).collect();
    let mut p99: Vec<f64> = record.samples.iter().map(|sample| sample.p99_ms).collect();
    let growth = growth_percent(&rests[rests.len() / 3..]);
    vec![
        ("commands acknowledged", load(&shared.acknowledged).to_string()),
        ("whose outcome is unknown", load(&shared.unknown).to_string()),
        ("refused, or nobody there", load(&shared.refused).to_string()),
        ("messages heard", load(&shared.messages).to_string()),
        ("members killed", record.kills.len().to_string()),
        ("members stopped and started", record.rolls.len().to_string()),
        ("rests: all looked up, states compared", rests.len().to_string()),
        (
            "commands a second, median of the moments",
            format!("{:.0}", median(&mut rates)),
        ),
        (
            "99 % answered within, median of the moments",
            format!("{:.1} ms", median(&mut p99)),
        ),
        (
            "memory of the largest member at a rest, most",
            format!("{:.0} MiB", most(&memory)),
        ),
        (
            "growth of all members' memory over the last two thirds of the rests",
            growth.map_or("not known".to_owned(), |percent| {
                format!("{percent:.1} % ({MEMORY_GROWTH_PERCENT_MAX:.0} % at most)")
            }),
        ),
        (
            "disk of the largest member at a rest, most",
            format!("{:.0} MiB", most(&disk)),
        ),
    ]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn pictures(record: &Record) -> [(&'static str, String); 4] {
    let marks: Vec<f64> = [&record.kills[..], &record.rolls].concat();
    let one = |label: &str, of: fn(&Sample) -> f64| {
        vec![Line {
            label: label.to_owned(),
            points: record
                .samples
                .iter()
                .map(|sample| (sample.at, of(sample)))
                .collect(),
        }]
    };
    let each = |of: fn(&Sample, usize) -> Option<f64>| -> Vec<Line> {
        let line = |which: usize| Line {
            label: format!("n{which}"),
            points: record
                .samples
                .iter()
                .filter_map(|sample| Some((sample.at, of(sample, which)?)))
                .collect(),
        };
        (0..MEMBERS).map(line).collect()
    };
    let note = "below: members that were killed or rolled";
    let memory = each(|sample, which| sample.memory[which].map(|bytes| bytes as f64 / MIB));
    let disk = each(|sample, which| Some(sample.disk[which] as f64 / MIB));
    let rate = one("all workers", |sample| sample.per_second);
    let p99 = one("all workers", |sample| sample.p99_ms);
    [
        (
            "rate",
            plot::lines("Commands acknowledged per second", note, &rate, &marks),
        ),
        ("p99", plot::lines("99 % answered within, ms", note, &p99, &marks)),
        (
            "memory",
            plot::lines("Memory of each member, MiB", note, &memory, &marks),
        ),
        (
            "disk",
            plot::lines("Disk of each member, MiB", note, &disk, &marks),
        ),
    ]
}
