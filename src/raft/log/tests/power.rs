//! Power loss with the log in sled, whose files no disk of ours can hold: what the system is called for is followed instead.
//!
//! A child process runs a history over a data folder under strace, and says each step that it begins and each that is durable. The calls that
//! change a disk, with all their bytes, are then made once more on a disk in memory that knows what was flushed (`files/simulated.rs`), and after
//! each of them the power is lost there. What survives is written to a folder and opened:
//!
//! * it opens, as the node that it was;
//! * log and records are those after some step: not before the last one that was said to be durable, not beyond the last that was begun;
//! * it goes on: a further entry is there after the next start;
//! * and the power may be lost once more, at any moment while it opens: what was seen then is there for good.
//!
//! Only `fsync` and `fdatasync` make durable, and only what had ended before they began; `sync_file_range`, on which sled relies, makes nothing so.
//!
//! A failure says the seed, the moment and what survived; `PLENARY_SEED=N` runs that seed alone, `PLENARY_SEEDS=N` the first N.

use super::crashes::seeds;
use super::disk::{self, Opened, child, say};
use super::{Chance, Model, Step, append, entry, id};
use crate::config::LogKind;
use crate::raft::files::simulated;
use crate::raft::files::{Disk, Open};
use crate::raft::log::sled::SEGMENT_BYTES;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How often a history is opened, each time for as many steps.
const STARTS: usize = 3;

/// Steps of a history.
const STEPS: usize = 24;

/// Bytes of an entry's content, at most, and of one in [`LARGE_ONE_IN`].
const CONTENT_BYTES: u64 = 2 << 10;
const LARGE_BYTES: u64 = 100 << 10;
const LARGE_ONE_IN: u64 = 8;

/// Bytes of the batch that each history has one of, after [`HUGE_AFTER`] steps: it reaches over several of sled's segments. All is purged with the next
/// step, so that sled clears segments at a start.
const HUGE_BYTES: usize = 5 << 19;
const HUGE_AFTER: usize = 14;

/// Combinations of what survives that are tried at a moment with more of them, and where sled's file is large.
const COMBINATIONS: usize = 12;
const COMBINATIONS_OF_LARGE: usize = 4;

/// Bytes of sled's file beyond which only one in so many moments is tried: each takes a tenth of a second.
const MANY_BYTES: u64 = 3 << 20;
const TRIED_ONE_IN: usize = 6;

/// Fewer moments than of one start would show that the trace is not understood.
const MOMENTS_AT_LEAST: usize = 20;

/// Of how many moments one is followed by a second power loss, while what the first one left is opened; and which is the first: one of the first start.
const AGAIN_ONE_IN: usize = 200;
const AGAIN_FROM: usize = 20;

/// What a child process is told by: its root folder, its history's seed, and after which step it ends.
const CHILD: &str = "PLENARY_TEST_POWER_CHILD";
const CHILD_SEED: &str = "PLENARY_TEST_POWER_CHILD_SEED";
const CHILD_END: &str = "PLENARY_TEST_POWER_CHILD_END";

/// How a test program ends whose test has failed.
const PANICKED: i32 = 101;

/// The data folder below the root.
const DATA: &str = "data";

/// One step of a history.
#[derive(Clone, Debug)]
enum Deed {
    Log(Step),
    /// A record of the node's, which is in sled whatever the log is in.
    Record(u64),
}

/// What a data folder must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    log: Model,
    record: Option<u64>,
}

impl Expected {
    fn apply(&mut self, deed: &Deed) {
        match deed {
            Deed::Log(step) => self.log.apply(step),
            Deed::Record(record) => self.record = Some(*record),
        }
    }

    async fn of(opened: &mut Opened) -> Self {
        Self {
            log: Model::of(&mut opened.log).await,
            record: opened.meta.cluster(),
        }
    }
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
        for number in 0..STEPS {
            let mut now = expected.last().unwrap().clone();
            let bytes = match chance.below(LARGE_ONE_IN) {
                0 => LARGE_BYTES,
                _ => CONTENT_BYTES,
            };
            let next = now.log.last().map_or(1, |last| last.index + 1);
            deeds.push(match number {
                HUGE_AFTER => Deed::Log(Step::Append(vec![entry(99, next, vec![1; HUGE_BYTES])])),
                number if number == HUGE_AFTER + 1 => Deed::Log(Step::Purge(id(99, next - 1))),
                _ if chance.below(10) == 0 => Deed::Record(number as u64 + 1),
                _ => Deed::Log(now.log.step(&mut chance, bytes)),
            });
            now.apply(deeds.last().unwrap());
            expected.push(now);
        }
        Self {
            seed,
            deeds,
            expected,
        }
    }

    /// After how many steps it holds this, as far as that is between the two.
    fn find(&self, now: &Expected, from: usize, to: usize) -> Option<usize> {
        (from..=to).find(|at| self.expected[*at] == *now)
    }
}

/// Runs under strace: goes on with the history from where the data folder is.
#[tokio::test]
async fn power_child() {
    let Some(root) = std::env::var_os(CHILD) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (history, end) = (History::new(number(CHILD_SEED)), number(CHILD_END) as usize);
    let data = Path::new(&root).join(DATA);
    let mut opened = disk::open(&data, LogKind::Sled).unwrap();
    let now = Expected::of(&mut opened).await;
    let at = history.find(&now, 0, history.deeds.len()).unwrap();
    // What is seen once must not change any more.
    say(&format!(
        "\n@ node {}\n@ begun {at}\n@ done {at}",
        opened.meta.node_id()
    ));
    for (number, deed) in (1_usize..).zip(&history.deeds).take(end).skip(at) {
        say(&format!("@ begun {number}"));
        match deed {
            Deed::Log(step) => step.run(&mut opened.log).await.unwrap(),
            Deed::Record(record) => opened.meta.set_cluster(*record).unwrap(),
        }
        // Nobody waits for a purge; when the next step is durable, it is too.
        if !matches!(deed, Deed::Log(Step::Purge(_))) {
            say(&format!("@ done {number}"));
        }
        if number.is_multiple_of(history.deeds.len() / STARTS) {
            close(opened).await;
            say(&format!("@ done {number}"));
            opened = disk::open(&data, LogKind::Sled).unwrap();
        }
    }
    close(opened).await;
}

async fn close(opened: Opened) {
    opened.stopper.stop().await.unwrap();
    opened.meta.close_cleanly().unwrap();
}

/// A call that has ended: its name, its arguments as strace writes them (every text in hexadecimal digits), and what it answered.
#[derive(Debug)]
struct Call {
    name: String,
    args: Vec<String>,
    answer: i64,
}

impl Call {
    /// Of a line without its thread; `None` for what is no call, or one that was refused.
    fn parse(text: &str) -> Option<Self> {
        let (call, answer) = text.rsplit_once(" = ")?;
        let (name, args) = call.trim_end().strip_suffix(')')?.split_once('(')?;
        let digits = answer.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self {
            name: name.to_owned(),
            args: args.split(", ").map(str::to_owned).collect(),
            answer: digits.parse().ok()?,
        })
    }

    fn is_flush(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }

    fn number(&self, at: usize) -> u64 {
        self.args[at].parse().unwrap()
    }

    /// The number of an open file.
    fn descriptor(&self, at: usize) -> String {
        let (number, _) = self.args[at].split_once('<').unwrap();
        number.to_owned()
    }

    fn bytes(&self, at: usize) -> Vec<u8> {
        unhex(self.args[at].trim_matches('"'))
    }

    /// What an argument that is a file's or folder's number stands for.
    fn file(&self, at: usize) -> PathBuf {
        let between = self.args[at]
            .split_once('<')
            .and_then(|(_, rest)| rest.strip_suffix('>'));
        text(unhex(between.unwrap_or_default())).into()
    }

    fn path(&self, at: usize) -> PathBuf {
        text(self.bytes(at)).into()
    }

    /// A name in a folder that is the argument before it.
    fn path_in(&self, at: usize) -> PathBuf {
        self.file(at).join(self.path(at + 1))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.args[0].contains('<') {
            true if self.args[0].starts_with("AT_FDCWD") => self.path_in(0),
            true => self.file(0),
            false => self.path(0),
        };
        write!(f, "{} {} = {}", self.name, path.display(), self.answer)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    let each = digits.as_bytes().chunks_exact(4);
    let digit = |at: u8| (at as char).to_digit(16).unwrap() as u8;
    each.map(|byte| digit(byte[2]) << 4 | digit(byte[3])).collect()
}

/// The calls in the order in which they ended. A flush makes durable only what had ended before it began: if there is anything else of its file in
/// between, it stands where it began.
fn calls(trace: &str) -> Vec<Call> {
    let (mut calls, mut under_way) = (Vec::new(), HashMap::new());
    for line in trace.lines() {
        let (thread, text) = line.split_once(' ').unwrap();
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            under_way.insert(thread, (begun, calls.len()));
            calls.push(None);
            continue;
        }
        let resumed = text
            .strip_prefix("<... ")
            .and_then(|rest| rest.split_once(" resumed>"));
        let (call, began) = match resumed {
            None => (Call::parse(text), calls.len()),
            Some((_, end)) => {
                let (begun, at) = under_way.remove(thread).unwrap();
                (Call::parse(&format!("{begun}{end}")), at)
            }
        };
        let Some(call) = call else { continue };
        let of_its_file =
            |other: &Option<Call>| other.as_ref().is_some_and(|other| other.file(0) == call.file(0));
        if call.is_flush() && calls[began..].iter().any(of_its_file) {
            calls[began] = Some(call);
        } else {
            calls.push(Some(call));
        }
    }
    calls.into_iter().flatten().collect()
}

/// What was said when: steps up to here are durable, and none beyond this was begun.
#[derive(Clone, Debug, Default)]
struct Progress {
    node: Option<u64>,
    done: usize,
    begun: usize,
    /// Whether the child is in the middle of a step now.
    under_way: bool,
}

impl Progress {
    fn hear(&mut self, said: &str) {
        for line in said.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["@", "node", number] => self.node = Some(number.parse().unwrap()),
                ["@", "done", number] => (self.done, self.under_way) = (number.parse().unwrap(), false),
                ["@", "begun", number] => (self.begun, self.under_way) = (number.parse().unwrap(), true),
                _ => {}
            }
        }
    }
}

/// The child's calls, made once more on a disk in memory.
struct Replay {
    root: PathBuf,
    memory: simulated::Disk,
    disk: Disk,
    /// Where the cursors of open files are, by their numbers.
    cursors: HashMap<String, u64>,
    progress: Progress,
    /// Bytes written to sled's file since it was flushed.
    unflushed: usize,
}

impl Replay {
    fn new(root: &Path, memory: simulated::Disk, progress: Progress) -> Self {
        Self {
            root: root.to_owned(),
            disk: Disk::Simulated(memory.clone()),
            memory,
            cursors: HashMap::new(),
            progress,
            unflushed: 0,
        }
    }

    /// Where a path is on the disk in memory, if it is below the root.
    fn here(&self, path: &Path) -> Option<PathBuf> {
        Some(Path::new("/").join(path.strip_prefix(&self.root).ok()?))
    }

    /// Makes a call. Whether it may have changed what power loss leaves.
    ///
    /// # Panics
    /// For one that changes the data folder in a way that is not known here.
    fn make(&mut self, call: &Call) -> bool {
        match call.name.as_str() {
            "openat" => self.open(call),
            "mkdir" => self
                .here(&call.path(0))
                .is_some_and(|path| self.did(self.disk.create_folder(&path))),
            "rename" => {
                let (from, to) = (self.here(&call.path(0)), self.here(&call.path(1)));
                from.zip(to)
                    .is_some_and(|(from, to)| self.did(self.disk.rename(&from, &to)))
            }
            "unlink" | "rmdir" => self
                .here(&call.path(0))
                .is_some_and(|path| self.did(self.disk.remove(&path))),
            "unlinkat" => self
                .here(&call.path_in(0))
                .is_some_and(|path| self.did(self.disk.remove(&path))),
            "write" if call.args[0].starts_with("1<") => {
                self.progress.hear(&text(call.bytes(1)));
                false
            }
            _ => match self.here(&call.file(0)) {
                Some(path) => self.change(call, &path),
                None => false,
            },
        }
    }

    /// Bytes of sled's file.
    fn len(&self) -> u64 {
        let file = self
            .disk
            .open(&Path::new("/").join(DATA).join("sled/db"), Open::Read);
        file.map_or(0, |file| file.len().unwrap())
    }

    fn did(&self, end: std::io::Result<()>) -> bool {
        end.unwrap();
        true
    }

    fn open(&mut self, call: &Call) -> bool {
        self.cursors.insert(call.answer.to_string(), 0);
        let flags = &call.args[2];
        let Some(path) = self.here(&call.path_in(0)).filter(|_| flags.contains("O_CREAT")) else {
            return false;
        };
        assert!(!flags.contains("O_APPEND"), "{path:?}: {flags}");
        let how = match flags.contains("O_TRUNC") {
            true => Open::Create,
            false => Open::OrCreate,
        };
        self.disk.open(&path, how).unwrap();
        true
    }

    fn copy(&mut self, call: &Call, from: usize, to: usize) {
        let path = |at| self.here(&call.file(at)).unwrap();
        let (bytes, file) = (
            self.disk.read(&path(from)).unwrap(),
            self.disk.open(&path(to), Open::Write).unwrap(),
        );
        let from = self.pass(call, from) as usize;
        file.write_all_at(&bytes[from..][..call.answer as usize], self.pass(call, to))
            .unwrap();
    }

    /// Moves the cursor of an open file over what was read or written. Where it was.
    fn pass(&mut self, call: &Call, at: usize) -> u64 {
        let cursor = self.cursors.entry(call.descriptor(at)).or_default();
        *cursor += call.answer as u64;
        *cursor - call.answer as u64
    }

    /// A call that changes an open file, or flushes it, or a folder.
    fn change(&mut self, call: &Call, path: &Path) -> bool {
        if call.is_flush() && self.disk.list(path).is_ok() {
            return self.did(self.disk.sync_folder(path));
        }
        let file = self.disk.open(path, Open::Write).unwrap();
        if path.ends_with("sled/db") {
            self.unflushed = if call.is_flush() {
                0
            } else {
                self.unflushed + call.answer as usize
            };
            assert!(
                !self.progress.under_way || self.unflushed < SEGMENT_BYTES,
                "{} bytes are not flushed, {:?}: see UNFLUSHED",
                self.unflushed,
                self.progress
            );
        }
        match call.name.as_str() {
            "fsync" | "fdatasync" => file.sync_all().unwrap(),
            "ftruncate" => file.set_len(call.number(1)).unwrap(),
            "pwrite64" => file
                .write_all_at(&call.bytes(1)[..call.answer as usize], call.number(3))
                .unwrap(),
            "write" => file
                .write_all_at(&call.bytes(1)[..call.answer as usize], self.pass(call, 0))
                .unwrap(),
            "copy_file_range" => self.copy(call, 0, 2),
            "sendfile" => self.copy(call, 1, 0),
            "lseek" => {
                self.cursors.insert(call.descriptor(0), call.answer as u64);
                return false;
            }
            "sync_file_range" => return false,
            other => panic!("{other} of {}: what does it to the disk?", path.display()),
        }
        true
    }
}

/// Everything below a folder; of folders their names alone.
fn all_below(folder: &Path, disk: &Disk) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut folders, mut found) = (vec![folder.to_owned()], BTreeMap::new());
    while let Some(here) = folders.pop() {
        for name in disk.list(&here).unwrap() {
            let path = here.join(name);
            let bytes = disk.read(&path).ok();
            if bytes.is_none() {
                folders.push(path.clone());
            }
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
        }
    }
    found
}

/// Writes all of a disk to a folder of the system's.
fn lay_out(memory: &simulated::Disk, root: &Path) {
    for (path, bytes) in all_below(Path::new("/"), &Disk::Simulated(memory.clone())) {
        let path = root.join(path);
        match bytes {
            None => std::fs::create_dir(path).unwrap(),
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
        }
    }
}

/// A folder in memory, where there is such: nothing here hangs on its flushes.
fn memory_folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Runs the child, up to this step, over what is below the root. Its calls that change a disk; `None` where strace does not work.
fn traced(root: &Path, seed: u64, end: usize) -> Option<Vec<Call>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let changing = "trace=openat,lseek,write,writev,pwrite64,?pwritev,?pwritev2,ftruncate,?truncate,fallocate,?copy_file_range,sendfile,fsync,fdatasync,\
                    sync_file_range,?rename,?renameat,renameat2,?link,linkat,?unlink,unlinkat,?rmdir,?mkdir,mkdirat";
    let mut child = child("power::power_child", LogKind::Sled);
    child
        .env(CHILD_SEED, seed.to_string())
        .env(CHILD_END, end.to_string());
    let how = ["-y", "-xx", "-s", "16777216", "-e", changing];
    let ended = disk::strace(&child, &how, (CHILD, root), file.path());
    assert_ne!(ended.code(), Some(PANICKED), "the child failed");
    let trace = ended
        .success()
        .then(|| std::fs::read_to_string(file.path()).unwrap());
    trace.as_deref().map(calls)
}

impl History {
    /// Opens what power loss left. How far the history is there, or what is wrong.
    async fn reopen(&self, root: &Path, progress: &Progress) -> Result<(Opened, usize), String> {
        let opened = disk::open(&root.join(DATA), LogKind::Sled);
        let mut opened = opened.map_err(|error| format!("it does not open: {error}"))?;
        let node = opened.meta.node_id();
        if progress.node.is_some_and(|said| said != node) {
            return Err(format!("it is node {node}"));
        }
        let now = Expected::of(&mut opened).await;
        match self.find(&now, progress.done, progress.begun) {
            Some(at) => Ok((opened, at)),
            None => Err(format!(
                "it holds something else: {:?}",
                self.find(&now, 0, self.deeds.len())
            )),
        }
    }

    /// Everything that must be so of a disk after power loss.
    async fn check(&self, left: &simulated::Disk, progress: &Progress, going_on: bool) -> Result<(), String> {
        let root = memory_folder();
        lay_out(left, root.path());
        let (mut opened, at) = self.reopen(root.path(), progress).await?;
        if !going_on {
            return Ok(());
        }
        let mut log = self.expected[at].log.clone();
        let next = entry(99, log.last().map_or(1, |id| id.index + 1), "further");
        append(&mut opened.log, vec![next.clone()])
            .await
            .unwrap()
            .await
            .unwrap();
        log.entries.push(next);
        close(opened).await;
        let again = disk::open(&root.path().join(DATA), LogKind::Sled);
        let mut again = again.map_err(|error| format!("after a further entry: {error}"))?;
        let now = Model::of(&mut again.log).await;
        close(again).await;
        if now == log {
            Ok(())
        } else {
            Err("a further entry is lost".to_owned())
        }
    }

    /// Every way to lose the power at this moment.
    async fn lose(&self, call: &Call, replay: &Replay, tried: &mut Tried) {
        let (moment, progress) = (replay.memory.moment(), &replay.progress);
        tried.moments += 1;
        let large = replay.len() > MANY_BYTES;
        // What a start has flushed is always tried: with what it has not.
        let starts = call.is_flush() && !progress.under_way;
        if large && !starts && !tried.moments.is_multiple_of(TRIED_ONE_IN) {
            return;
        }
        let most = if large {
            COMBINATIONS_OF_LARGE
        } else {
            COMBINATIONS
        };
        let combinations = moment.combinations(most, &mut Chance(tried.moments as u64));
        for (at, states) in combinations.iter().enumerate() {
            let left = moment.after_power_loss(self.seed, states);
            if let Err(why) = self.check(&left, progress, at.is_multiple_of(3)).await {
                let survive = states.iter().filter(|state| **state > 0).count();
                panic!(
                    "PLENARY_SEED={}: moment {} (after: {call}), {progress:?}, {survive} of {} undecided things survive: {why}",
                    self.seed,
                    tried.moments,
                    states.len()
                );
            }
            if at == 0 && tried.moments % AGAIN_ONE_IN == AGAIN_FROM {
                tried.again.push((left, progress.clone()));
            }
        }
        tried.states += combinations.len();
    }

    /// Runs the child over what is below the root, up to this step, and loses the power after each of its calls. `None` where strace does not work.
    async fn follow(&self, root: &Path, mut replay: Replay, end: usize, tried: &mut Tried) -> Option<()> {
        for call in traced(root, self.seed, end)? {
            if replay.make(&call) {
                self.lose(&call, &replay, tried).await;
            }
        }
        assert!(tried.moments > MOMENTS_AT_LEAST, "only {} moments", tried.moments);
        let (memory, system) = (
            all_below(Path::new("/"), &replay.disk),
            all_below(root, &Disk::System),
        );
        assert!(
            memory == system,
            "the disk in memory is another than that of the child"
        );
        Some(())
    }
}

/// What was tried, and the disks whose power is lost a second time.
#[derive(Default)]
struct Tried {
    moments: usize,
    states: usize,
    again: Vec<(simulated::Disk, Progress)>,
}

#[tokio::test]
async fn power_loss_at_any_moment_takes_nothing_acknowledged_from_sled() {
    let mut tried = Tried::default();
    for seed in seeds(1..2) {
        let (history, root) = (History::new(seed), memory_folder());
        let replay = Replay::new(root.path(), simulated::Disk::new(seed, 0), Progress::default());
        if history
            .follow(root.path(), replay, history.deeds.len(), &mut tried)
            .await
            .is_none()
        {
            return disk::not_shown();
        }
        for (left, progress) in std::mem::take(&mut tried.again) {
            let root = memory_folder();
            lay_out(&left, root.path());
            let progress = Progress {
                under_way: false,
                ..progress
            };
            let replay = Replay::new(root.path(), left, progress);
            let followed = history.follow(root.path(), replay, 0, &mut tried).await;
            followed.expect("strace works: it did before");
            tried.again.clear();
        }
    }
    println!(
        "{} moments, {} states of the disk opened",
        tried.moments, tried.states
    );
}
