//! What is counted for each command: calls, time, refusals, failures, and how long calls took as a histogram.
//!
//! The time of a read is that of reading; that of a write counts from when it is handed to the node until it is answered, with its way
//! through the log. Plain counters: nothing is decided by them, so relaxed order is enough.

use super::stats::Counter;
use crate::machine::table::{self, Spec};
use parking_lot::RwLock;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Octaves of a histogram above [`FLOOR_NS`]: up to about 1 s; what took longer counts as that.
const OCTAVES: usize = 20;

/// Parts of an octave: a percentile is off by 6 % at most.
const PARTS: usize = 16;

/// What took less is counted in [`PARTS`] equal parts of it.
const FLOOR_NS: u64 = 1024;

/// Places of histograms that a connection counts in before it tells.
const TALLIED: usize = 16;

/// How long calls took.
#[derive(Debug)]
pub(super) struct Histogram([AtomicU64; (OCTAVES + 1) * PARTS]);

impl Histogram {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn add(&self, place: usize, times: u64) {
        self.0[place].fetch_add(times, Relaxed);
    }

    fn place(nanos: u64) -> usize {
        let parts = PARTS as u64;
        if nanos < FLOOR_NS {
            return usize::try_from(nanos * parts / FLOOR_NS).expect("below PARTS");
        }
        let octave = nanos.ilog2() - FLOOR_NS.ilog2();
        let part = (nanos >> (octave + FLOOR_NS.ilog2() - PARTS.ilog2())) - parts;
        let place = (octave as usize + 1) * PARTS + usize::try_from(part).expect("below PARTS");
        place.min((OCTAVES + 1) * PARTS - 1)
    }

    /// The greatest time that counts in this place, in nanoseconds.
    fn top(place: usize) -> u64 {
        let (octave, part) = (place / PARTS, (place % PARTS) as u64 + 1);
        let step = FLOOR_NS / PARTS as u64;
        match octave {
            0 => part * step - 1,
            octave => (((PARTS as u64 + part) * step) << (octave - 1)) - 1,
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// The time in nanoseconds that this part of the calls (0 to 100) did not exceed.
    pub(super) fn percentile(&self, part: f64) -> u64 {
        let counts = self.counts();
        let total: u64 = counts.iter().sum();
        let wanted = ((part / 100.0 * total as f64).round() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let place = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        place.map_or(0, Self::top)
    }

    /// How many calls there were, and how many took at most 1, 2, 4 … microseconds (of 1,024 nanoseconds), where that says something new.
    pub(super) fn cumulated(&self) -> (u64, Vec<(u64, u64)>) {
        let counts = self.counts();
        let (mut seen, mut steps) = (0, Vec::new());
        for octave in counts.chunks(PARTS).zip(1..) {
            let (parts, nth) = octave;
            let before = seen;
            seen += parts.iter().sum::<u64>();
            if seen > before {
                steps.push((Self::top(nth * PARTS - 1) / 1000, seen));
            }
        }
        (seen, steps)
    }

    fn reset(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|count| count.load(Relaxed) == 0)
    }
}

/// What is counted for one command.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Calls that ran.
    pub(super) calls: Counter,
    nanos: Counter,
    /// Calls that were refused before they ran.
    pub(super) rejected: Counter,
    /// Calls that ran and answered an error.
    pub(super) failed: Counter,
    histogram: OnceLock<Box<Histogram>>,
}

impl Call {
    /// Microseconds of all calls.
    pub(super) fn micros(&self) -> f64 {
        self.nanos.get() as f64 / 1000.0
    }

    fn add(&self, ran: &Ran) {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        self.calls.add(count(ran.times));
        self.nanos.add(count(ran.nanos));
        if ran.failed > 0 {
            self.failed.add(count(ran.failed));
        }
    }

    fn kept(&self) -> &Histogram {
        self.histogram.get_or_init(|| Box::new(Histogram::new()))
    }

    /// How long its calls took, if there were some.
    pub(super) fn histogram(&self) -> Option<&Histogram> {
        self.histogram
            .get()
            .map(|histogram| &**histogram)
            .filter(|histogram| !histogram.is_empty())
    }
}

/// Calls that ran, the time they took together, and how many of them answered an error.
#[derive(Debug, Default)]
struct Ran {
    times: u64,
    nanos: u64,
    failed: u64,
}

/// What the commands of one connection came to since it last told. All connections share the counters, and to write to them from several
/// processors costs more than most commands do: so it is done once for what was read at once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Commands that came, refused ones among them.
    pub(super) commands: usize,
    /// By the id of the row.
    ran: Vec<(usize, Ran)>,
    /// How many fell into which place of the row's histogram; at most [`TALLIED`].
    places: Vec<((usize, usize), u64)>,
}

impl Tally {
    /// Counts a call that ran.
    pub(super) fn ran(&mut self, spec: &Spec, took: Duration, failed: bool) {
        let nanos = nanos(took);
        let ran = entry(&mut self.ran, spec.id);
        ran.times += 1;
        ran.nanos += nanos;
        ran.failed += u64::from(failed);
        *entry(&mut self.places, (spec.id, Histogram::place(nanos))) += 1;
    }

    /// Whether it is to be told before more is counted.
    pub(super) fn is_full(&self) -> bool {
        self.places.len() >= TALLIED
    }
}

/// The value of a key in a short list, the newest key last.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let at = list.iter().rposition(|(known, _)| *known == key);
    let at = at.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// The calls of every command.
#[derive(Debug)]
pub(super) struct Calls {
    by_id: Box<[Call]>,
    /// `latency-tracking`.
    tracking: AtomicBool,
    /// `latency-tracking-info-percentiles`. Held for a copy.
    percentiles: RwLock<Vec<f64>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            by_id: table::all().map(|_| Call::default()).collect(),
            tracking: AtomicBool::new(true),
            percentiles: RwLock::new(vec![50.0, 99.0, 99.9]),
        }
    }
}

impl Calls {
    /// What is counted for a command.
    pub(super) fn of(&self, spec: &Spec) -> &Call {
        &self.by_id[spec.id]
    }

    /// Takes over what a connection has counted.
    pub(super) fn take(&self, tally: &mut Tally) {
        for (id, ran) in tally.ran.drain(..) {
            self.by_id[id].add(&ran);
        }
        let places = tally.places.drain(..).filter(|_| self.tracking());
        for ((id, place), times) in places {
            self.by_id[id].kept().add(place, times);
        }
    }

    /// Counts calls that ran and took this time together: each counts as the mean of them.
    pub(super) fn ran_often(&self, spec: &Spec, times: u64, took: Duration, failed: u64) {
        let (call, nanos) = (self.of(spec), nanos(took));
        call.add(&Ran { times, nanos, failed });
        if self.tracking() && times > 0 {
            call.kept().add(Histogram::place(nanos / times), times);
        }
    }

    /// Every command that was called or refused, in the order of the table.
    pub(super) fn used(&self) -> impl Iterator<Item = (Spec, &Call)> {
        table::all()
            .map(|spec| (spec, self.of(&spec)))
            .filter(|(_, call)| call.calls.get() > 0 || call.rejected.get() > 0)
    }

    pub(super) fn tracking(&self) -> bool {
        self.tracking.load(Relaxed)
    }

    pub(super) fn track(&self, tracking: bool) {
        self.tracking.store(tracking, Relaxed);
    }

    pub(super) fn percentiles(&self) -> Vec<f64> {
        self.percentiles.read().clone()
    }

    pub(super) fn set_percentiles(&self, percentiles: Vec<f64>) {
        *self.percentiles.write() = percentiles;
    }

    /// `CONFIG RESETSTAT`.
    pub(super) fn reset(&self) {
        for call in &self.by_id {
            for counter in [&call.calls, &call.nanos, &call.rejected, &call.failed] {
                counter.set(0);
            }
            if let Some(histogram) = call.histogram.get() {
                histogram.reset();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_place_whose_top_is_near() {
        for nanos in (0..5000)
            .chain((0..40).map(|bits| 1u64 << bits))
            .chain([u64::MAX])
        {
            let place = Histogram::place(nanos);
            let (top, below) = (Histogram::top(place), place.checked_sub(1).map(Histogram::top));
            assert!(
                nanos <= top || place == (OCTAVES + 1) * PARTS - 1,
                "{nanos}: {top}"
            );
            assert!(below.is_none_or(|below| below < nanos), "{nanos}: {below:?}");
        }
    }

    #[test]
    fn percentiles_and_sums_follow_the_counts() {
        let histogram = Histogram::new();
        for _ in 0..99 {
            histogram.add(Histogram::place(1_000_000), 1);
        }
        histogram.add(Histogram::place(500_000_000), 1);
        let about = |nanos: u64, expected: u64| nanos >= expected && nanos < expected * 17 / 16;
        assert!(about(histogram.percentile(50.0), 1_000_000));
        assert!(about(histogram.percentile(99.0), 1_000_000));
        assert!(about(histogram.percentile(99.9), 500_000_000));
        assert_eq!(histogram.cumulated(), (100, vec![(1048, 99), (536_870, 100)]));
    }
}
