//! `LATENCY`: when this node was slow, by kind of event, and how long the calls of each command took.

use super::calls::Histogram;
use super::catalogue;
use super::connection::Caller;
use super::local::{Answer, help_of, quoted, refusal};
use crate::machine::args::Args;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Spec};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Samples that are kept of a kind of event. Redis: 160.
const SAMPLES: usize = 160;

/// The slow events.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// `latency-monitor-threshold`, in milliseconds; 0: nothing is noted.
    threshold_ms: AtomicU64,
    /// By kind, of which there are few: they are our own names. Held to put one in or to copy.
    events: Mutex<BTreeMap<&'static str, Series>>,
}

/// The events of one kind.
#[derive(Clone, Debug, Default)]
struct Series {
    /// Second and milliseconds, the oldest first; the greatest of each second.
    samples: VecDeque<(u64, u64)>,
    /// The longest since a reset, in milliseconds.
    longest: u64,
}

impl Latency {
    pub(super) fn threshold_ms(&self) -> u64 {
        self.threshold_ms.load(Relaxed)
    }

    pub(super) fn set_threshold_ms(&self, threshold: u64) {
        self.threshold_ms.store(threshold, Relaxed);
    }

    /// From when on an event is noted; none: nothing is.
    pub(super) fn threshold(&self) -> Option<Duration> {
        let threshold = self.threshold_ms();
        (threshold > 0).then(|| Duration::from_millis(threshold))
    }

    /// Whether an event that took so long is noted.
    pub(super) fn wants(&self, took: Duration) -> bool {
        self.threshold().is_some_and(|threshold| took >= threshold)
    }

    /// Notes a command as the kind of event that it is.
    pub(super) fn command(&self, spec: &Spec, took: Duration, at_seconds: u64) {
        let fast = spec.flags.split(' ').any(|flag| flag == "fast");
        self.note(if fast { "fast-command" } else { "command" }, took, at_seconds);
    }

    fn note(&self, event: &'static str, took: Duration, at_seconds: u64) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut events = self.events.lock();
        let series = events.entry(event).or_default();
        series.longest = series.longest.max(took_ms);
        match series.samples.back_mut() {
            Some((second, longest)) if *second == at_seconds => *longest = took_ms.max(*longest),
            _ => series.samples.push_back((at_seconds, took_ms)),
        }
        if series.samples.len() > SAMPLES {
            series.samples.pop_front();
        }
    }

    fn series(&self, event: &[u8]) -> Option<Series> {
        self.events
            .lock()
            .iter()
            .find(|(name, _)| name.as_bytes() == event)
            .map(|(_, series)| series.clone())
    }
}

fn number(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn latest(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let events = caller.shared.latency.events.lock();
    let shown = events.iter().filter_map(|(name, series)| {
        let (second, took) = series.samples.back()?;
        Some(Reply::Array(vec![
            Reply::bulk(name),
            number(*second),
            number(*took),
            number(series.longest),
        ]))
    });
    Ok(Reply::Array(shown.collect()))
}

/// `LATENCY HISTORY event`.
pub(super) fn history(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let series = caller.shared.latency.series(args.bytes()?).unwrap_or_default();
    let sample = |(second, took): (u64, u64)| Reply::Array(vec![number(second), number(took)]);
    Ok(Reply::Array(series.samples.into_iter().map(sample).collect()))
}

/// `LATENCY RESET [event ...]`: how many kinds were emptied.
pub(super) fn reset(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let mut events = caller.shared.latency.events.lock();
    let before = events.len();
    match args.rest() {
        [] => events.clear(),
        named => events.retain(|name, _| !named.iter().any(|event| event == name.as_bytes())),
    }
    Ok(Reply::count(before - events.len()))
}

/// `LATENCY GRAPH event`: one column per sample, the longest on top.
pub(super) fn graph(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    const ROWS: u64 = 4;
    let event = args.bytes()?;
    let missing = || refusal(format!("ERR No samples available for event '{}'", quoted(event)));
    let series = caller.shared.latency.series(event).ok_or_else(missing)?;
    let least = series.samples.iter().map(|(_, took)| *took).min().unwrap_or(0);
    let most = series.samples.iter().map(|(_, took)| *took).max().unwrap_or(0);
    let mut text = format!(
        "{} - high {most} ms, low {least} ms (all time high {} ms)\n{}\n",
        quoted(event),
        series.longest,
        "-".repeat(80)
    );
    let range = (most - least).max(1);
    for row in (0..ROWS).rev() {
        let mark = |took: u64| {
            let height = (took - least) * ROWS / range;
            match height.cmp(&row) {
                std::cmp::Ordering::Greater => '|',
                std::cmp::Ordering::Equal => '_',
                std::cmp::Ordering::Less => ' ',
            }
        };
        let line: String = series.samples.iter().map(|(_, took)| mark(*took)).collect();
        writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
    }
    Ok(Reply::Verbatim(text.into()))
}

/// `LATENCY DOCTOR`: what was slow, in words.
pub(super) fn doctor(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let latency = &caller.shared.latency;
    let events = latency.events.lock().clone();
    let text = if latency.threshold_ms() == 0 && events.is_empty() {
        "Latency monitoring is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on: what takes longer is noted.\n"
            .to_owned()
    } else if events.is_empty() {
        "Nothing took longer than the threshold so far.\n".to_owned()
    } else {
        let mut text = "What took longer than the threshold:\n\n".to_owned();
        for (name, series) in &events {
            let (count, total) = (
                series.samples.len() as u64,
                series.samples.iter().map(|(_, took)| took).sum::<u64>(),
            );
            writeln!(
                text,
                "{name}: {count} seconds with such events, {} ms on average, {} ms at most.",
                total / count.max(1),
                series.longest
            )
            .expect("a String takes everything");
        }
        text.push_str("\nA write takes as long as a majority needs to store it: look at the disks and at the network between the nodes. ");
        text.push_str("SLOWLOG GET names the commands.\n");
        text
    };
    Ok(Reply::Verbatim(text.into()))
}

/// `LATENCY HISTOGRAM [command ...]`: of those that were called; a container stands for its subcommands.
pub(super) fn histogram(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let calls = &caller.shared.calls;
    let named = catalogue::named(args)?;
    let shown = |spec: Spec| {
        let histogram = calls.of(&spec).histogram()?;
        Some((Reply::bulk(spec.name.to_ascii_lowercase()), cumulated(histogram)))
    };
    let pairs: Vec<(Reply, Reply)> = if named.is_empty() {
        table::all().filter_map(shown).collect()
    } else {
        named.iter().flat_map(family).filter_map(shown).collect()
    };
    Ok(Reply::Map(pairs))
}

/// The command of a name and its subcommands.
fn family(name: &Bytes) -> impl Iterator<Item = Spec> {
    let name = quoted(name).to_ascii_uppercase();
    table::all().filter(move |spec| {
        let container = spec.name.split_once('|').map(|(container, _)| container);
        spec.name == name || container == Some(name.as_str())
    })
}

fn cumulated(histogram: &Histogram) -> Reply {
    let (calls, steps) = histogram.cumulated();
    let steps = steps
        .into_iter()
        .map(|(micros, count)| (number(micros), number(count)));
    Reply::Map(vec![
        (Reply::bulk("calls"), number(calls)),
        (Reply::bulk("histogram_usec"), Reply::Map(steps.collect())),
    ])
}

/// Nothing can come after it, as in Redis.
pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(help_of(
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
    ))
}
