//! The log in a data folder, over both journals: what a node relies on, on a real disk.

use super::{Chance, Model, Step, append, entry};
use crate::config::{Durability, LogKind};
use crate::error::Error;
use crate::raft::fault::Fault;
use crate::raft::log::{LogStopper, LogStore};
use crate::raft::meta::Meta;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub(in crate::raft::log) const KINDS: [LogKind; 2] = [LogKind::Segments, LogKind::Sled];

/// A log as a node has it.
#[derive(Debug)]
pub(in crate::raft::log) struct Opened {
    pub(in crate::raft::log) log: LogStore,
    pub(in crate::raft::log) stopper: LogStopper,
    pub(in crate::raft::log) meta: Meta,
}

pub(in crate::raft::log) fn open(data: &Path, kind: LogKind) -> Result<Opened, Error> {
    let (meta, _) = Meta::open(data, Durability::Fsync, Some("boot"))?;
    let (log, stopper) = LogStore::open(meta.journal(kind)?, Durability::Fsync, Fault::default())?;
    Ok(Opened { log, stopper, meta })
}

/// Runs a history of this many steps by chance. What the log must hold after it.
pub(in crate::raft::log) async fn history(
    data: &Path,
    kind: LogKind,
    steps: u64,
    content_bytes: u64,
) -> Model {
    let mut opened = open(data, kind).unwrap();
    let (mut chance, mut model) = (Chance(7), Model::default());
    for _ in 0..steps {
        let step = model.step(&mut chance, content_bytes);
        step.run(&mut opened.log).await.unwrap();
        model.apply(&step);
    }
    opened.stopper.stop().await.unwrap();
    model
}

/// Everything in the folder of this name, as the system has it now.
pub(in crate::raft::log) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let to = to.join(item.file_name());
        if item.path().is_dir() {
            copy(&item.path(), &to);
        } else {
            std::fs::copy(item.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn batches_of_any_size_come_back() {
    for kind in KINDS {
        let data = TempDir::new().unwrap();
        let model = history(data.path(), kind, 150, 60 << 10).await;
        let mut opened = open(data.path(), kind).unwrap();
        let next = model.entries.last().unwrap().log_id.index + 1;
        let large = vec![entry(99, next, vec![1; 3 << 20])];
        append(&mut opened.log, large).await.unwrap().await.unwrap();
        opened.stopper.stop().await.unwrap();
        drop(opened);
        let mut again = open(data.path(), kind).unwrap();
        let now = Model::of(&mut again.log).await;
        assert_eq!(now.entries[..model.entries.len()], model.entries, "{kind}");
        assert_eq!(now.entries.len(), model.entries.len() + 1, "{kind}");
        again.stopper.stop().await.unwrap();
    }
}

/// What a child process is told by.
const KILL_CHILD: &str = "PLENARY_TEST_KILL_CHILD";
const KILL_CHILD_FROM: &str = "PLENARY_TEST_KILL_CHILD_FROM";
const STRACE_CHILD: &str = "PLENARY_TEST_STRACE_CHILD";
const OPENING_CHILD: &str = "PLENARY_TEST_OPENING_CHILD";
const CHILD_KIND: &str = "PLENARY_TEST_CHILD_KIND";

/// Steps that the child has under way at once.
const UNDER_WAY: u64 = 8;

/// The child's history, a function of the step's number alone.
fn child_step(number: u64, model: &Model) -> Step {
    model.step(&mut Chance(number * 7_919), 40 << 10)
}

/// This test program with one test of the log's, which is told the kind of its log.
pub(super) fn child(name: &str, kind: LogKind) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("raft::log::tests::{name}");
    command
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CHILD_KIND, kind.to_string())
        .env("RUST_BACKTRACE", "0");
    command
}

fn child_kind() -> LogKind {
    std::env::var(CHILD_KIND).unwrap().parse().unwrap()
}

pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Runs as a process of its own, to be killed: does the steps from the given one on and says each that is durable.
#[tokio::test]
async fn kill_child() {
    let Some(data) = std::env::var_os(KILL_CHILD) else {
        return;
    };
    let from: u64 = std::env::var(KILL_CHILD_FROM).unwrap().parse().unwrap();
    let mut opened = open(Path::new(&data), child_kind()).unwrap();
    let mut model = Model::of(&mut opened.log).await;
    say("\n@ open");
    let mut under_way = std::collections::VecDeque::new();
    for number in from.. {
        let step = child_step(number, &model);
        model.apply(&step);
        match &step {
            Step::Append(entries) => {
                under_way.push_back((number, append(&mut opened.log, entries.clone()).await.unwrap()));
            }
            other => {
                // These wait until they are durable, and then so is all before them.
                other.run(&mut opened.log).await.unwrap();
                if !matches!(other, Step::Purge(_)) {
                    say(&format!("@ {number}"));
                    under_way.clear();
                }
            }
        }
        while under_way.len() as u64 > UNDER_WAY {
            let (number, durable) = under_way.pop_front().unwrap();
            durable.await.unwrap();
            say(&format!("@ {number}"));
        }
    }
}

#[tokio::test]
async fn a_process_killed_at_any_moment_keeps_everything_acknowledged_in_segments() {
    kill_at_any_moment(LogKind::Segments).await;
}

#[tokio::test]
async fn a_process_killed_at_any_moment_keeps_everything_acknowledged_in_sled() {
    kill_at_any_moment(LogKind::Sled).await;
}

async fn kill_at_any_moment(kind: LogKind) {
    let data = TempDir::new().unwrap();
    let mut chance = Chance(std::process::id().into());
    // How many steps are surely in the log, and what it holds then.
    let (mut done, mut model, mut acknowledged_in_all) = (0, Model::default(), 0);
    for round in 0..20 {
        let acknowledged = run_and_kill(data.path(), kind, done, round, &mut chance);
        acknowledged_in_all += acknowledged.map_or(0, |last| last + 1 - done);
        let mut opened = open(data.path(), kind).unwrap();
        let now = Model::of(&mut opened.log).await;
        opened.stopper.stop().await.unwrap();
        let least = acknowledged.map_or(done, |last| last + 1);
        while done < least {
            model.apply(&child_step(done, &model));
            done += 1;
        }
        // Steps that were under way may be there or not, but only the first few of them, in order.
        let most = done + 3 * UNDER_WAY;
        while now != model && done < most {
            model.apply(&child_step(done, &model));
            done += 1;
        }
        assert!(
            now == model,
            "round {round}: {least} steps were acknowledged, the log holds something else"
        );
    }
    assert!(
        acknowledged_in_all > 200,
        "only {acknowledged_in_all} steps: the test does not reach what it should"
    );
}

/// Runs the child and kills it at a random moment. The last step it said to be durable.
fn run_and_kill(data: &Path, kind: LogKind, from: u64, round: u64, chance: &mut Chance) -> Option<u64> {
    let mut running = child("disk::kill_child", kind)
        .env(KILL_CHILD, data)
        .env(KILL_CHILD_FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    // Each fourth is killed while it opens, the others after some steps; the moment in between is by chance too.
    let wanted = if round % 4 == 3 { 0 } else { 1 + chance.below(150) };
    let mut said = lines.by_ref().filter(|line| line.starts_with("@ "));
    let mut last = said.by_ref().take(usize::try_from(wanted).unwrap()).last();
    std::thread::sleep(Duration::from_micros(chance.below(if wanted == 0 {
        60_000
    } else {
        3_000
    })));
    running.kill().unwrap();
    running.wait().unwrap();
    if let Some(later) = said.last() {
        last = Some(later);
    }
    last.and_then(|line| line["@ ".len()..].trim().parse().ok())
}

/// Runs under strace: appends, and says each that is durable.
#[tokio::test]
async fn strace_child() {
    let Some(data) = std::env::var_os(STRACE_CHILD) else {
        return;
    };
    let mut opened = open(Path::new(&data), child_kind()).unwrap();
    say("\n@ 0");
    for index in 1..=20 {
        append(&mut opened.log, vec![entry(1, index, "content")])
            .await
            .unwrap()
            .await
            .unwrap();
        say(&format!("@ {index}"));
    }
    opened.stopper.stop().await.unwrap();
}

/// Shows that the bytes of each append are written to the log's file, that this file is then flushed to the disk, and only
/// then the append is acknowledged.
#[test]
fn each_append_ends_in_a_flush_to_the_disk_before_it_is_acknowledged() {
    KINDS.into_iter().for_each(appends_are_flushed);
}

fn appends_are_flushed(kind: LogKind) {
    let (data, trace) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let how = [
        "-y",
        "-e",
        "trace=fdatasync,fsync,sync_file_range,pwrite64,write,writev",
    ];
    let child = child("disk::strace_child", kind);
    let ended = strace(&child, &how, (STRACE_CHILD, data.path()), trace.path());
    if !ended.success() {
        return not_shown();
    }
    let (call_of_batches, file) = match kind {
        LogKind::Segments => ("writev(", "log/00000000000000000001.log"),
        LogKind::Sled => ("pwrite64(", "sled/db"),
    };
    let file = format!("{}>", data.path().join(file).display());
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    // Of each thread the call that it has begun and not ended, if it is a flush of the log.
    let mut flushing = std::collections::HashMap::new();
    let (mut written, mut flushed, mut acknowledged) = (0, 0, 0);
    let (mut flushed_before, mut unflushed) = (0, false);
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if call.starts_with(call_of_batches) && call.contains(&file) {
            (written, unflushed) = (written + 1, true);
        } else if call.starts_with("fdatasync(") && call.contains(&file) {
            // A write that begins after the flush has begun may not be covered by it.
            unflushed = false;
            if call.ends_with("= 0") {
                flushed += 1;
            } else {
                flushing.insert(thread, ());
            }
        } else if call.starts_with("<... fdatasync resumed") && flushing.remove(thread).is_some() {
            assert!(call.ends_with("= 0"), "{line}");
            flushed += 1;
        } else if call.starts_with("write(1<") && call.contains("\"@ ") && !call.contains("\"@ 0") {
            assert!(
                written > 0 && !unflushed,
                "acknowledged before its write was flushed: {line}"
            );
            assert!(
                flushed > flushed_before,
                "acknowledged without a flush of its own: {line}"
            );
            (acknowledged, flushed_before) = (acknowledged + 1, flushed);
        }
    }
    assert_eq!(acknowledged, 20, "{kind}: every append is seen in the trace");
}

/// Runs the child under strace, which writes to this file. How it ended.
pub(super) fn strace(child: &Command, how: &[&str], told: (&str, &Path), trace: &Path) -> ExitStatus {
    let own = child.get_envs().filter_map(|(name, value)| Some((name, value?)));
    Command::new("strace")
        .arg("-f")
        .args(how)
        .arg("-o")
        .arg(trace)
        .arg(child.get_program())
        .args(child.get_args())
        .envs(own)
        .env(told.0, told.1)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap_or(ExitStatus::from_raw(127 << 8))
}

/// Where tests must show all, strace has to be there.
pub(super) fn not_shown() {
    assert!(
        std::env::var_os("CI").is_none(),
        "strace is missing or may not trace: install it"
    );
    println!("not shown: strace is missing or may not trace");
}

/// Runs under strace: opens, appends twice and stops.
#[tokio::test]
async fn opening_child() {
    let Some(data) = std::env::var_os(OPENING_CHILD) else {
        return;
    };
    let mut opened = open(Path::new(&data), child_kind()).unwrap();
    let model = Model::of(&mut opened.log).await;
    let last = model.entries.last().map(|entry| entry.log_id).or(model.purged);
    let last = last.map_or(0, |id| id.index);
    for index in [last + 1, last + 2] {
        append(&mut opened.log, vec![entry(99, index, "content")])
            .await
            .unwrap()
            .await
            .unwrap();
    }
    opened.stopper.stop().await.unwrap();
}

/// Kills the child before the first of its calls that change a disk, before the second and so on: each folder opens again, and so it does if the
/// next start is killed there too.
#[tokio::test]
async fn a_process_killed_before_any_call_that_changes_the_disk_starts_again() {
    for kind in KINDS {
        let (new, used) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        history(used.path(), kind, 40, 100).await;
        for folder in [new, used] {
            let before = match std::fs::exists(folder.path().join("run")).unwrap() {
                true => Model::of(&mut open(folder.path(), kind).unwrap().log).await,
                false => Model::default(),
            };
            let mut calls = 0;
            while killed_before(calls + 1, folder.path(), kind, &before).await {
                calls += 1;
            }
            if calls == 0 {
                return not_shown();
            }
            assert!(calls > 5, "{kind}: only {calls} calls were seen");
        }
    }
}

/// Whether the child had so many calls, on a copy of the folder; it is killed before that one, and what it leaves is opened.
async fn killed_before(call: u32, folder: &Path, kind: LogKind, before: &Model) -> bool {
    let data = TempDir::new().unwrap();
    copy(folder, data.path());
    let changing = "write,pwrite64,writev,ftruncate,fallocate,?rename,?renameat,renameat2,?unlink,unlinkat,?rmdir,?mkdir,mkdirat,fsync,fdatasync,\
                    sync_file_range";
    let (trace, inject) = (
        format!("trace={changing}"),
        format!("inject={changing}:signal=KILL:when={call}"),
    );
    let child = child("disk::opening_child", kind);
    let run = || {
        let how = ["-e", &trace, "-e", &inject];
        strace(&child, &how, (OPENING_CHILD, data.path()), Path::new("/dev/null"))
    };
    const KILL: i32 = 9;
    if run().signal() != Some(KILL) {
        return false;
    }
    run();
    let mut opened =
        open(data.path(), kind).unwrap_or_else(|error| panic!("{kind}: killed before call {call}: {error}"));
    let now = Model::of(&mut opened.log).await;
    opened.stopper.stop().await.unwrap();
    assert!(
        now.entries.starts_with(&before.entries),
        "{kind}: killed before call {call}"
    );
    true
}
