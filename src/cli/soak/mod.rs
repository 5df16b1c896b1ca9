//! `plenary bench --soak`: three members under a mixed load for as long as it is told, killed and rolled by chance, and looked after.
//!
//! It goes in rounds. In each the workers write while members go and come, one at a time; then all rest, and what they were told is held against what every
//! member has, the members' states against each other. Memory and disk are looked at all the time, and their growth is judged from rest to rest.
//! In reading order: `load` (what is written, and what must be found), `members` (the processes), `report` (figures and plots).

mod load;
mod members;
mod report;

use load::{Shared, Worker};
use members::{MEMBERS, Member};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a round lasts, and how many there are at least.
const ROUND: Duration = Duration::from_secs(60);
const ROUNDS_MIN: u32 = 3;

/// How often members are looked after.
const LOOK: Duration = Duration::from_millis(100);

/// Points of a plot, about.
const SAMPLES: u32 = 600;

/// How long all are left alone before the next goes, at most (a quarter of a round, if that is less: each round has one), and how long it stays away, at most;
/// milliseconds.
const BETWEEN_MS: u64 = 12_000;
const AWAY_MS: u64 = 4_000;

/// How long a member may take to serve again, to stop, and all of them to be at one index: on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);

/// By how much the members' memory may grow over the rests that are judged, in percent of what it is on average.
const MEMORY_GROWTH_PERCENT_MAX: f64 = 25.0;

/// Rests that are judged, at least: fewer tell nothing. The first third is left out, in which memory becomes what it is.
const RESTS_JUDGED_MIN: usize = 8;

/// What a member may take on the disk: segments of 64 MiB, spare ones among them, two snapshots, sled.
const DISK_BYTES_MAX: u64 = 1 << 30;

/// What a soak is told.
pub(super) struct Options {
    pub(super) span: Duration,
    pub(super) seed: u64,
    pub(super) workers: usize,
    /// Where the report is written.
    pub(super) report: PathBuf,
}

/// Members and load at one moment.
struct Sample {
    at: f64,
    per_second: f64,
    p99_ms: f64,
    memory: [Option<u64>; MEMBERS],
    disk: [u64; MEMBERS],
}

/// What is written down on the way.
#[derive(Default)]
struct Record {
    samples: Vec<Sample>,
    /// Those that were taken while all rested.
    rests: Vec<Sample>,
    kills: Vec<f64>,
    rolls: Vec<f64>,
}

/// Where the member is that was made to go.
enum Away {
    /// It was asked to stop, then.
    Stopping(usize, Instant),
    /// It is gone, and comes back then.
    Gone(usize, Instant),
    /// It was started, then.
    Coming(usize, Instant),
    /// All are there; the next goes then.
    None(Instant),
}

/// Runs it. Whether nothing happened that must not.
///
/// # Errors
/// What kept it from being run at all.
pub(super) fn run(options: &Options) -> io::Result<bool> {
    let folder = options.report.join("members");
    std::fs::create_dir_all(&options.report)?;
    // Members begin with nothing.
    std::fs::create_dir(&folder).map_err(|error| {
        let what = format!(
            "{}: {error}. Remove what an earlier soak left there",
            folder.display()
        );
        io::Error::new(error.kind(), what)
    })?;
    let mut members = Member::all(&folder)?;
    for member in &mut members {
        member.start()?;
    }
    await_all(&members)?;
    load::prepare(&mut members[0].client().map_err(io::Error::other)?).map_err(io::Error::other)?;
    let shared = Shared::default();
    let round = ROUND.min(options.span / ROUNDS_MIN);
    let mut soak = Soak {
        began: Instant::now(),
        sample_every: (options.span / SAMPLES).max(Duration::from_secs(1)),
        sampled: (Instant::now(), 0),
        away: Away::None(Instant::now()),
        between_ms: BETWEEN_MS.min(u64::try_from(round.as_millis()).unwrap_or(u64::MAX) / 4),
        chance: options.seed,
        record: Record::default(),
        shared: &shared,
    };
    let mut workers: Vec<Worker> = (0..options.workers)
        .map(|name| Worker::new(name, &members, &shared))
        .collect();
    while soak.began.elapsed() < options.span && shared.violations().is_empty() {
        soak.round(&mut members, &mut workers, round)?;
        if let Err(why) = soak.rest(&members, &mut workers) {
            shared.violated(why);
        }
        report::progress(&soak.record, &shared, soak.began.elapsed());
    }
    soak.judge();
    report::write(options, &soak.record, &shared)?;
    let well = shared.violations().is_empty();
    drop(members);
    if well {
        // Where something is wrong, what is in the folders tells more.
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(well)
}

fn await_all(members: &[Member]) -> io::Result<()> {
    let began = Instant::now();
    for member in members {
        while let Err(why) = member.serves() {
            if began.elapsed() > PATIENCE {
                let what = format!("{} does not serve: {why}\n{}", member.name, member.last_words());
                return Err(io::Error::other(what));
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

struct Soak<'s> {
    began: Instant,
    sample_every: Duration,
    /// When the last sample was taken, and how much was acknowledged by then.
    sampled: (Instant, u64),
    away: Away,
    /// How long all are left alone, at most.
    between_ms: u64,
    chance: u64,
    record: Record,
    shared: &'s Shared,
}

impl Soak<'_> {
    /// The workers work for so long, and members go and come. All are there at the end, or something is wrong.
    fn round(
        &mut self,
        members: &mut [Member],
        workers: &mut [Worker<'_>],
        span: Duration,
    ) -> io::Result<()> {
        self.shared.rest.store(false, Ordering::Relaxed);
        self.sampled = (Instant::now(), self.shared.acknowledged.load(Ordering::Relaxed));
        let listeners: Vec<_> = members
            .iter()
            .map(|member| (member.redis.clone(), member.name.clone()))
            .collect();
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(|| worker.work());
            }
            for (redis, name) in &listeners {
                let shared = self.shared;
                scope.spawn(move || load::listen(redis, name, shared));
            }
            let outcome = self.look_after(members, span);
            self.shared.rest.store(true, Ordering::Relaxed);
            outcome
        })
    }

    fn look_after(&mut self, members: &mut [Member], span: Duration) -> io::Result<()> {
        let began = Instant::now();
        self.away = Away::None(began + self.some(self.between_ms));
        loop {
            let over = began.elapsed() >= span || !self.shared.violations().is_empty();
            if over && matches!(self.away, Away::None(_)) {
                return Ok(());
            }
            self.move_on(members, over)?;
            for member in &mut *members {
                let stopping = matches!(self.away, Away::Stopping(..));
                if !stopping && let Some(well) = member.has_ended()? {
                    let (name, words) = (&member.name, member.last_words());
                    self.shared
                        .violated(format!("{name} ended by itself (well: {well}):\n{words}"));
                    self.away = Away::None(Instant::now());
                    return Ok(());
                }
            }
            if self.sampled.0.elapsed() >= self.sample_every {
                let sample = self.sample(members);
                self.record.samples.push(sample);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The next step of a member's going and coming.
    fn move_on(&mut self, members: &mut [Member], over: bool) -> io::Result<()> {
        let now = Instant::now();
        let at = self.began.elapsed().as_secs_f64();
        let late = |since: Instant| since.elapsed() > PATIENCE;
        self.away = match std::mem::replace(&mut self.away, Away::None(now)) {
            Away::None(next) if now < next || over => Away::None(next),
            Away::None(_) => {
                let which = self.draw(MEMBERS as u64) as usize;
                if self.draw(2) == 0 {
                    self.record.kills.push(at);
                    members[which].kill()?;
                    Away::Gone(which, now + self.some(AWAY_MS))
                } else {
                    self.record.rolls.push(at);
                    members[which].ask_to_stop();
                    Away::Stopping(which, now)
                }
            }
            Away::Stopping(which, since) => match members[which].has_ended()? {
                Some(true) => Away::Gone(which, now + self.some(AWAY_MS)),
                Some(false) => {
                    let (name, words) = (&members[which].name, members[which].last_words());
                    self.shared
                        .violated(format!("{name} was asked to stop and failed:\n{words}"));
                    Away::Gone(which, now)
                }
                None if late(since) => {
                    self.shared
                        .violated(format!("{} does not stop", members[which].name));
                    members[which].kill()?;
                    Away::Gone(which, now)
                }
                None => Away::Stopping(which, since),
            },
            Away::Gone(which, until) if now >= until => {
                members[which].start()?;
                Away::Coming(which, now)
            }
            Away::Coming(which, since) => match members[which].serves() {
                Ok(()) => Away::None(now + self.some(self.between_ms)),
                Err(why) if late(since) => {
                    let (name, words) = (&members[which].name, members[which].last_words());
                    self.shared
                        .violated(format!("{name} does not come back: {why}\n{words}"));
                    Away::None(now)
                }
                Err(_) => Away::Coming(which, since),
            },
            same @ Away::Gone(..) => same,
        };
        Ok(())
    }

    /// Nobody writes: all that was acknowledged is there, on every member, and nothing else.
    fn rest(&mut self, members: &[Member], workers: &mut [Worker<'_>]) -> Result<(), String> {
        let began = Instant::now();
        let mut level = Err("nobody was asked".to_owned());
        while level.is_err() {
            level = self.same_everywhere(members);
            if let Err(why) = &level
                && began.elapsed() > PATIENCE
            {
                return Err(format!("the members do not come to one state: {why}"));
            }
            std::thread::sleep(LOOK);
        }
        for (which, member) in members.iter().enumerate() {
            let checked = member.client().and_then(|mut client| {
                load::check_counts(self.shared, member, &mut client)?;
                let last = which + 1 == members.len();
                workers
                    .iter_mut()
                    .try_for_each(|worker| worker.check(member, &mut client, last))
            });
            checked.map_err(|error| format!("{} cannot be asked: {error}", member.name))?;
        }
        let sample = self.sample(members);
        for (member, bytes) in members.iter().zip(sample.disk) {
            if bytes > DISK_BYTES_MAX {
                self.shared
                    .violated(format!("{} takes {bytes} bytes of the disk", member.name));
            }
        }
        self.record.rests.push(sample);
        Ok(())
    }

    /// Whether all are at one index, where their states must be the same.
    fn same_everywhere(&self, members: &[Member]) -> Result<(), String> {
        members.iter().try_for_each(Member::serves)?;
        let digests: Vec<(i64, String)> = members.iter().map(Member::digest).collect::<Result<_, _>>()?;
        let level = digests.iter().all(|digest| digest.0 == digests[0].0);
        if level && digests.iter().any(|digest| digest.1 != digests[0].1) {
            self.shared.violated(format!("states differ: {digests:?}"));
            return Ok(());
        }
        if level {
            Ok(())
        } else {
            Err(format!("{digests:?}"))
        }
    }

    fn sample(&mut self, members: &[Member]) -> Sample {
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        let (then, before) = std::mem::replace(&mut self.sampled, (Instant::now(), acknowledged));
        let mut took = std::mem::take(&mut *load::lock(&self.shared.took_us));
        took.sort_unstable();
        let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
        let look = |which: usize| members.get(which);
        Sample {
            at: self.began.elapsed().as_secs_f64(),
            per_second: (acknowledged - before) as f64 / then.elapsed().as_secs_f64(),
            p99_ms: f64::from(p99) / 1_000.0,
            memory: std::array::from_fn(|which| look(which)?.memory()),
            disk: std::array::from_fn(|which| look(which).map_or(0, Member::disk)),
        }
    }

    /// Whether memory grows from rest to rest.
    fn judge(&mut self) {
        let judged = &self.record.rests[self.record.rests.len() / 3..];
        if judged.len() >= RESTS_JUDGED_MIN
            && let Some(percent) = growth_percent(judged)
            && percent > MEMORY_GROWTH_PERCENT_MAX
        {
            let most = MEMORY_GROWTH_PERCENT_MAX;
            self.shared
                .violated(format!("memory grew by {percent:.0} %, {most:.0} % at most"));
        }
    }

    /// A number below `limit`, the next of the seed.
    fn draw(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// A time up to this.
    fn some(&mut self, most_ms: u64) -> Duration {
        Duration::from_millis(self.draw(most_ms + 1))
    }
}

/// By how much the members' memory grew from the first to the last, by the line that fits best (least squares), in percent of its average. None where the
/// system tells nothing of memory.
fn growth_percent(rests: &[Sample]) -> Option<f64> {
    let points: Vec<(f64, f64)> = rests
        .iter()
        .filter_map(|rest| {
            let all: Option<u64> = rest.memory.iter().copied().sum();
            Some((rest.at, all? as f64))
        })
        .collect();
    let count = points.len() as f64;
    let (first, last) = (points.first()?.0, points.last()?.0);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (at, bytes) = (mean(|point| point.0), mean(|point| point.1));
    let together: f64 = points
        .iter()
        .map(|point| (point.0 - at) * (point.1 - bytes))
        .sum();
    let apart: f64 = points.iter().map(|point| (point.0 - at).powi(2)).sum();
    (apart > 0.0 && bytes > 0.0).then(|| together / apart * (last - first) / bytes * 100.0)
}

/// A time as `90s`, `15m` or `2h`.
///
/// # Errors
/// What is expected instead.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is no time: write 90s, 15m or 2h");
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(expected()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| expected())?;
    let span = Duration::from_secs(u64::from(number) * seconds);
    if span < SPAN_MIN {
        Err(format!("less than {} s shows nothing", SPAN_MIN.as_secs()))
    } else {
        Ok(span)
    }
}

/// The shortest soak.
const SPAN_MIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(span("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "m", "15", "1s", "-1h", "1d", "1½h"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn growth_is_that_of_the_line_through_all_rests() {
        let rest = |at: f64, bytes: u64| Sample {
            at,
            per_second: 0.0,
            p99_ms: 0.0,
            memory: [Some(bytes); MEMBERS],
            disk: [0; MEMBERS],
        };
        let rests: Vec<Sample> = (0..10).map(|n| rest(f64::from(n), 100 + 10 * n as u64)).collect();
        let percent = growth_percent(&rests).unwrap();
        assert!((percent - 90.0 / 145.0 * 100.0).abs() < 1e-9, "{percent}");
        let level: Vec<Sample> = (0..10).map(|n| rest(f64::from(n), 100 + n as u64 % 2)).collect();
        assert!(growth_percent(&level).unwrap() < 1.0);
        let untold = Sample {
            memory: [None; MEMBERS],
            ..rest(1.0, 1)
        };
        assert_eq!(growth_percent(&[untold]), None);
    }
}
