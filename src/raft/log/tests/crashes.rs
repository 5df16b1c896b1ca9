//! A crash at every flush, and between: log, records and snapshots on a disk in memory that loses what was not flushed.
//!
//! A history runs once, and each state that the disk goes through is kept. Then, for each of them, the power is lost there (with every
//! combination of what may survive that is feasible, see `files/simulated.rs`) or the process killed, and what is left is opened:
//!
//! * it opens, and holds the history up to some step: not before the last one that was acknowledged, not beyond the last that was begun. So
//!   nothing acknowledged is missing, nothing truncated comes back, no vote goes back, no purge is undone;
//! * a snapshot that was acknowledged is there, and one from which the log goes on;
//! * what was seen after opening is there for good: openraft counts on it. The power is lost again, also while it opens;
//! * it goes on: a further entry is acknowledged, and then survives.
//!
//! A failure says the seed, the moment and what survived; `PLENARY_SEED=N` runs that seed alone, `PLENARY_SEEDS=N` the first N.

use super::{Chance, Model, Step, append, entry, id};
use crate::config::{Durability, LogKind};
use crate::error::Error;
use crate::raft::fault::Fault;
use crate::raft::files;
use crate::raft::files::simulated::{Disk, Moment, Trouble};
use crate::raft::log::{LogStopper, LogStore};
use crate::raft::meta::Meta;
use crate::raft::snapshot_store::{SnapshotFile, SnapshotMeta, SnapshotStore};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of a segment here: room for a few batches.
const SEGMENT_BYTES: u64 = 4 << 10;

/// Bytes of an entry's content, at most: a batch reaches over a few sectors.
const CONTENT_BYTES: u64 = 500;

/// Steps of a history.
const STEPS: usize = 80;

/// Combinations of what survives that are tried at a moment with more of them.
const COMBINATIONS: usize = 24;

const DATA: &str = "/data";

/// Everything of a node that is on its disk.
struct Stores {
    log: LogStore,
    stopper: LogStopper,
    snapshots: SnapshotStore,
    meta: Meta,
}

fn meta(disk: &Disk) -> Result<Meta, Error> {
    let disk = files::Disk::Simulated(disk.clone());
    let (meta, _) = Meta::open_on(disk, Path::new(DATA), Durability::Fsync, Some("boot"))?;
    Ok(meta)
}

fn open(disk: &Disk) -> Result<Stores, Error> {
    let meta = meta(disk)?;
    let journal = meta.journal(LogKind::Segments)?;
    let (log, stopper) = LogStore::open_as_task(journal, Durability::Fsync, Fault::default())?;
    Ok(Stores {
        log,
        stopper,
        snapshots: SnapshotStore::open(meta.clone())?,
        meta,
    })
}

/// What a data folder must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    log: Model,
    /// The index of the newest snapshot.
    snapshot: Option<u64>,
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Deed {
    Log(Step),
    /// A snapshot is written here.
    Write(u64),
    /// A snapshot is received from another node and installed.
    Install(u64),
}

impl Expected {
    fn last(&self) -> u64 {
        self.log.last().map_or(0, |id| id.index)
    }

    /// The next step, as openraft would take it: only what a snapshot covers is purged, and only what none covers is truncated.
    fn deed(&self, chance: &mut Chance) -> Deed {
        let covered = self.snapshot.unwrap_or(0);
        if covered > self.last() {
            return Deed::Log(Step::Purge(id(1, covered)));
        }
        loop {
            let live = self.log.entries.len();
            match chance.below(20) {
                0 | 1 if live > 2 && self.log.entries[live / 2].log_id.index > covered => {
                    return Deed::Write(self.log.entries[live / 2].log_id.index);
                }
                2 if live > 2 && self.last() - 1 > covered => {
                    return Deed::Install(self.last() - 1 + chance.below(5));
                }
                _ => {}
            }
            match self.log.step(chance, CONTENT_BYTES) {
                Step::Purge(upto) if upto.index > covered => {}
                Step::Truncate(after) if after.index < covered => {}
                step => return Deed::Log(step),
            }
        }
    }

    fn apply(&mut self, deed: &Deed) {
        match deed {
            Deed::Log(step) => self.log.apply(step),
            Deed::Write(index) | Deed::Install(index) => self.snapshot = Some(*index),
        }
    }

    async fn of(stores: &mut Stores) -> Result<Self, Error> {
        let log = Model::of(&mut stores.log).await;
        let purged = log.purged.map(|id| id.index);
        let loaded = stores.snapshots.load_newest(purged, text)?;
        let snapshot = loaded.map(|(meta, text)| {
            let index = meta.last_log_id.unwrap().index;
            assert_eq!(text, content(index));
            index
        });
        Ok(Self { log, snapshot })
    }
}

/// What a snapshot holds: a few sectors.
fn content(index: u64) -> String {
    format!("state at {index} ").repeat(1 + (index % 100) as usize)
}

fn text(from: &mut dyn Read) -> io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).map(|_| text)
}

fn write(snapshots: &SnapshotStore, index: u64) -> io::Result<SnapshotFile> {
    let covers = SnapshotMeta {
        last_log_id: Some(id(1, index)),
        ..SnapshotMeta::default()
    };
    snapshots.write(&covers, |out| out.write_all(content(index).as_bytes()))
}

/// Receives a snapshot from another node and installs it.
fn install(snapshots: &SnapshotStore, index: u64) -> io::Result<()> {
    let other = meta(&Disk::new(index, SEGMENT_BYTES)).map_err(io::Error::other)?;
    let other = SnapshotStore::open(other).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    write(&other, index)?.open()?.read_to_end(&mut bytes)?;
    let mut receiving = snapshots.receive()?;
    bytes.chunks(700).try_for_each(|chunk| receiving.write(chunk))?;
    snapshots.adopt(&receiving.finish()?).map(drop)
}

/// How far a history is: steps of the log up to here are durable, snapshots up to here, and nothing beyond this was begun.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    log: usize,
    snapshots: usize,
    begun: usize,
}

impl Progress {
    fn note(self, disk: &Disk) {
        disk.note([self.log, self.snapshots, self.begun]);
    }

    fn of(moment: &Moment) -> Self {
        let [log, snapshots, begun] = moment.noted;
        Self {
            log,
            snapshots,
            begun,
        }
    }
}

/// How much is done with what a crash left; each costs several times what the one before does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It is opened.
    Once,
    /// It goes on, and the power is lost again.
    GoingOn,
    /// The power is also lost at each moment while it opens.
    AlsoCrashing,
}

/// A history by chance, and what must be there after each of its steps.
struct History {
    seed: u64,
    deeds: Vec<Deed>,
    expected: Vec<Expected>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let (mut deeds, mut expected) = (Vec::new(), vec![Expected::default()]);
        for _ in 0..STEPS {
            let mut now = expected.last().unwrap().clone();
            deeds.push(now.deed(&mut chance));
            now.apply(deeds.last().unwrap());
            expected.push(now);
        }
        Self {
            seed,
            deeds,
            expected,
        }
    }

    fn disk(&self) -> Disk {
        Disk::new(self.seed, SEGMENT_BYTES)
    }

    /// Runs it until the disk refuses; steps of the log up to four at once. How far it came.
    async fn run(&self, disk: &Disk, stores: &mut Stores) -> Progress {
        let mut chance = Chance(!self.seed);
        let mut progress = Progress::default();
        while progress.begun < self.deeds.len() {
            let at = progress.begun;
            let most = 1 + chance.below(4) as usize;
            let steps = self.deeds[at..].iter().map_while(|deed| match deed {
                Deed::Log(step) => Some(step),
                _ => None,
            });
            let steps: Vec<_> = steps.take(most).collect();
            progress.begun += steps.len().max(1);
            progress.note(disk);
            let done = match &self.deeds[at] {
                Deed::Log(_) => burst(&steps, disk, stores, &mut progress).await,
                Deed::Write(index) => write(&stores.snapshots, *index).map(drop),
                Deed::Install(index) => install(&stores.snapshots, *index),
            };
            if done.is_err() {
                break;
            }
            progress.snapshots = progress.begun;
            progress.note(disk);
        }
        progress
    }

    /// Opens what a crash left, and says how far the history is there, or what is wrong.
    async fn reopen(&self, disk: &Disk, progress: Progress) -> Result<(Stores, Progress), String> {
        let mut stores = open(disk).map_err(|error| format!("it does not open: {error}"))?;
        let now = Expected::of(&mut stores).await;
        let now = now.map_err(|error| format!("it does not load: {error}"))?;
        let find = |from: usize, is: &dyn Fn(&Expected) -> bool| {
            (from..=progress.begun).find(|at| is(&self.expected[*at]))
        };
        let log = find(progress.log, &|expected| expected.log == now.log);
        let snapshots = find(progress.snapshots, &|expected| expected.snapshot == now.snapshot);
        let (Some(log), Some(snapshots)) = (log, snapshots) else {
            return Err(format!("it holds something else: {now:?}"));
        };
        let seen = Progress {
            log,
            snapshots,
            begun: progress.begun,
        };
        Ok((stores, seen))
    }

    /// Everything that must be so of a disk that a crash left.
    async fn check(&self, disk: &Disk, progress: Progress, how: How) -> Result<(), String> {
        let mut chance = Chance(self.seed);
        if how == How::AlsoCrashing {
            disk.record();
        }
        let (mut stores, seen) = self.reopen(disk, progress).await?;
        if how == How::Once {
            return Ok(());
        }
        for moment in disk.moments() {
            for states in moment.combinations(4, &mut chance) {
                let left = moment.after_power_loss(self.seed, &states);
                let again = self.reopen(&left, progress).await;
                again.map_err(|why| format!("crashed again after {}: {why}", moment.call))?;
            }
        }
        let seen = Progress {
            begun: seen.log.max(seen.snapshots),
            ..seen
        };
        let moment = disk.moment();
        for states in moment.combinations(2, &mut chance) {
            let left = moment.after_power_loss(self.seed, &states);
            let again = self.reopen(&left, seen).await;
            again.map_err(|why| format!("what was seen is gone after the next crash: {why}"))?;
        }
        let mut model = Model::of(&mut stores.log).await;
        let next = entry(99, model.last().map_or(1, |id| id.index + 1), "further");
        let durable = append(&mut stores.log, vec![next.clone()]).await;
        let durable = durable.map_err(|error| format!("it does not go on: {error}"))?;
        durable
            .await
            .map_err(|error| format!("it does not go on: {error}"))?;
        model.entries.push(next);
        let moment = disk.moment();
        for states in moment.combinations(2, &mut chance) {
            let left = moment.after_power_loss(self.seed, &states);
            let mut again = open(&left).map_err(|error| format!("after a further entry: {error}"))?;
            let now = Model::of(&mut again.log).await;
            if now != model {
                return Err(format!("a further entry is lost: {now:?}"));
            }
        }
        Ok(())
    }

    /// Every way to lose the power at this moment, or to be killed. How many.
    async fn crash(&self, number: usize, moment: &Moment) -> usize {
        let progress = Progress::of(moment);
        let fail = |what: &str, why: String| -> ! {
            panic!(
                "PLENARY_SEED={}: moment {number} (after: {}), {progress:?}, {what}: {why}",
                self.seed, moment.call
            )
        };
        let combinations = moment.combinations(COMBINATIONS, &mut Chance(number as u64));
        for (at, states) in combinations.iter().enumerate() {
            let left = moment.after_power_loss(self.seed, states);
            let how = match (at, number) {
                (0, number) if number.is_multiple_of(20) => How::AlsoCrashing,
                (at, _) if at.is_multiple_of(6) => How::GoingOn,
                _ => How::Once,
            };
            if let Err(why) = self.check(&left, progress, how).await {
                let of = moment.undecided();
                fail(&format!("the power is lost, {states:?} of {of:?} survive"), why);
            }
        }
        let left = moment.after_kill(self.seed);
        if let Err(why) = self.check(&left, progress, How::GoingOn).await {
            fail("the process is killed", why);
        }
        combinations.len() + 1
    }
}

/// Begins these steps one after the other and waits for all.
async fn burst(steps: &[&Step], disk: &Disk, stores: &mut Stores, progress: &mut Progress) -> io::Result<()> {
    let first = progress.begun - steps.len() + 1;
    let mut under_way = Vec::new();
    for (number, step) in (first..).zip(steps) {
        match step {
            Step::Append(entries) => {
                under_way.push((number, append(&mut stores.log, entries.clone()).await?));
            }
            // Nobody waits for it.
            Step::Purge(_) => step.run(&mut stores.log).await?,
            // When these are durable, so is all before them.
            Step::Vote(_) | Step::Truncate(_) => {
                step.run(&mut stores.log).await?;
                progress.log = number;
                progress.note(disk);
            }
        }
    }
    for (number, durable) in under_way {
        durable.await?;
        progress.log = progress.log.max(number);
        progress.note(disk);
    }
    Ok(())
}

/// The seeds of a test: those it names, or the one that is asked for.
pub(super) fn seeds(named: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("PLENARY_SEED") {
        Ok(seed) => vec![seed.parse().expect("PLENARY_SEED is a number")],
        Err(_) => match std::env::var("PLENARY_SEEDS") {
            Ok(count) => (0..count.parse().expect("PLENARY_SEEDS is a number")).collect(),
            Err(_) => named.collect(),
        },
    }
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_nothing_acknowledged() {
    let (mut moments_in_all, mut states) = (0, 0);
    for seed in seeds(0..2) {
        let history = History::new(seed);
        let disk = history.disk();
        disk.record();
        let mut stores = open(&disk).unwrap();
        history.run(&disk, &mut stores).await;
        stores.stopper.stop().await.unwrap();
        stores.meta.close_cleanly().unwrap();
        let moments = disk.moments();
        for (number, moment) in moments.iter().enumerate() {
            states += history.crash(number, moment).await;
        }
        moments_in_all += moments.len();
    }
    println!("{moments_in_all} moments, {states} states of the disk opened");
}

/// A flush of a file or folder that fails, each in turn: the history ends there, and what was acknowledged before is there whether the
/// process is started again or the power is lost.
#[tokio::test]
async fn a_flush_that_fails_takes_nothing_acknowledged_with_it() {
    let mut failed = 0;
    for seed in seeds(0..1) {
        let history = History::new(seed);
        for flush in 0.. {
            let disk = history.disk();
            let mut stores = open(&disk).unwrap();
            disk.trouble(Trouble::Sync(flush));
            let progress = history.run(&disk, &mut stores).await;
            if disk.is_trouble_ahead() {
                break;
            }
            failed += 1;
            progress.note(&disk);
            let moment = disk.moment();
            let left = moment.combinations(6, &mut Chance(flush));
            let mut left: Vec<_> = left
                .iter()
                .map(|states| moment.after_power_loss(seed, states))
                .collect();
            left.push(moment.after_kill(seed));
            for disk in left {
                let checked = history.check(&disk, progress, How::GoingOn).await;
                checked.unwrap_or_else(|why| {
                    panic!("PLENARY_SEED={seed}: flush {flush} fails, {progress:?}: {why}")
                });
            }
        }
    }
    assert!(failed > 100, "only {failed} flushes");
}

/// The disk is full from one write on, each fifth in turn, and has space again at the next start.
#[tokio::test]
async fn a_disk_that_is_full_takes_nothing_acknowledged_with_it() {
    let mut refused = 0;
    for seed in seeds(0..1) {
        let history = History::new(seed);
        for write in (0..).step_by(5) {
            let disk = history.disk();
            let mut stores = open(&disk).unwrap();
            disk.trouble(Trouble::Full(write));
            let progress = history.run(&disk, &mut stores).await;
            if progress.begun == STEPS && progress.snapshots == STEPS {
                break;
            }
            refused += 1;
            let moment = disk.moment();
            let newest: Vec<_> = moment.undecided().iter().map(|states| states - 1).collect();
            for disk in [moment.after_kill(seed), moment.after_power_loss(seed, &newest)] {
                let checked = history.check(&disk, progress, How::GoingOn).await;
                checked.unwrap_or_else(|why| {
                    panic!("PLENARY_SEED={seed}: full at write {write}, {progress:?}: {why}")
                });
            }
        }
    }
    assert!(refused > 20, "refused {refused} times only");
}

/// All files below a folder of a simulated disk.
fn files_below(disk: &Disk, folder: &Path) -> Vec<(PathBuf, usize)> {
    let disk = files::Disk::Simulated(disk.clone());
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for name in disk.list(&folder).unwrap() {
            let path = folder.join(name);
            match disk.read(&path) {
                Ok(bytes) => found.push((path, bytes.len())),
                Err(_) => folders.push(path),
            }
        }
    }
    found
}

/// A bit of any file flips while nobody looks: all is there, or it is refused with advice. A snapshot may give way to an older one.
#[tokio::test]
async fn a_bit_that_flips_anywhere_is_harmless_or_refused() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in seeds(0..1) {
        let history = History::new(seed);
        let disk = history.disk();
        let mut stores = open(&disk).unwrap();
        let progress = history.run(&disk, &mut stores).await;
        stores.stopper.stop().await.unwrap();
        stores.meta.close_cleanly().unwrap();
        let all = Progress {
            log: progress.begun,
            ..progress
        };
        let moment = disk.moment();
        for (path, bytes) in files_below(&disk, Path::new(DATA)) {
            for byte in (0..bytes).step_by(1 + bytes / 100) {
                let disk = moment.after_kill(seed);
                disk.flip(&path, byte, (byte % 8) as u8);
                let older = Progress {
                    snapshots: if path.extension().is_some_and(|kind| kind == "snap") {
                        0
                    } else {
                        all.snapshots
                    },
                    ..all
                };
                match history.reopen(&disk, older).await {
                    Ok(_) => harmless += 1,
                    Err(why) => {
                        let advice = ["join as a new member", "run a newer one"];
                        assert!(
                            advice.iter().any(|advice| why.contains(advice)),
                            "PLENARY_SEED={seed}: byte {byte} of {}: {why}",
                            path.display()
                        );
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 200 && harmless > 200, "{refused} {harmless}");
}
