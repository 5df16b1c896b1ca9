//! The journal on a real disk: killed processes, damaged files, and what reaches the disk.

use super::*;
use crate::raft::fault::Fault;
use crate::raft::log::tests::{Chance, Model, append, entry, id, indices};
use crate::raft::log::{LogStopper, LogStore};
use crate::raft::meta::Meta;
use openraft::storage::RaftLogStorage;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A log as a node has it.
struct Opened {
    log: LogStore,
    stopper: LogStopper,
    _meta: Meta,
}

fn open(data: &Path) -> Result<Opened, Error> {
    let (meta, _) = Meta::open(data, Durability::Fsync, Some("boot"))?;
    let (log, stopper) = LogStore::open(meta.journal()?, Durability::Fsync, Fault::default())?;
    Ok(Opened {
        log,
        stopper,
        _meta: meta,
    })
}

/// Runs a history of this many steps by chance. What the log must hold after it.
async fn history(data: &Path, steps: u64, content_bytes: u64) -> Model {
    let mut opened = open(data).unwrap();
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
fn copy(from: &Path, to: &Path) {
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
async fn large_batches_come_back_and_nothing_lies_in_files_that_sled_never_flushes() {
    let data = TempDir::new().unwrap();
    let model = history(data.path(), 150, 60 << 10).await;
    let mut opened = open(data.path()).unwrap();
    append(
        &mut opened.log,
        vec![entry(
            99,
            model.entries.last().unwrap().log_id.index + 1,
            vec![1; 3 << 20],
        )],
    )
    .await
    .unwrap()
    .await
    .unwrap();
    opened.stopper.stop().await.unwrap();
    drop(opened);
    let blobs = std::fs::read_dir(data.path().join("sled/blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "sled wrote values to files of their own");
    let mut again = open(data.path()).unwrap();
    let now = Model::of(&mut again.log).await;
    assert_eq!(now.entries[..model.entries.len()], model.entries);
    assert_eq!(now.entries.len(), model.entries.len() + 1);
    again.stopper.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_purged_vanishes_step_by_step() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    for index in 1..=1_000 {
        append(&mut opened.log, vec![entry(1, index, "content")])
            .await
            .unwrap()
            .await
            .unwrap();
    }
    opened.log.purge(id(1, 990)).await.unwrap();
    opened.stopper.stop().await.unwrap();
    drop(opened);
    // Whatever was left at the stop goes after the next start.
    let (meta, _) = Meta::open(data.path(), Durability::Fsync, Some("boot")).unwrap();
    let mut journal = meta.journal().unwrap();
    journal.recover(&mut |_, _| Ok(())).unwrap();
    while journal.tidy().unwrap() {}
    assert!(
        journal.log.len() <= 12,
        "{} parts are kept for 10 entries",
        journal.log.len()
    );
    assert_eq!(recovered_indices(data.path(), (meta, journal)).await.len(), 10);
}

/// What a log opened afterwards holds.
async fn recovered_indices(data: &Path, opened: (Meta, SledJournal)) -> Vec<(u64, u64)> {
    drop(opened);
    let opened = open(data).unwrap();
    let indices = indices(&opened.log).await;
    opened.stopper.stop().await.unwrap();
    indices
}

/// The sequence number of the log's last part.
fn last(log: &Tree) -> [u8; 8] {
    log.last().unwrap().unwrap().0.as_ref().try_into().unwrap()
}

/// Opens the database alone and changes it.
async fn tamper(data: &Path, change: impl FnOnce(&Arc<Database>)) {
    let (meta, _) = Meta::open(data, Durability::Fsync, Some("boot")).unwrap();
    change(&meta.database());
    meta.database().durable().unwrap();
}

fn refusal(data: &Path) -> String {
    open(data)
        .map(|_| ())
        .expect_err("a damaged log is refused")
        .to_string()
}

#[tokio::test]
async fn a_torn_batch_that_was_never_acknowledged_is_cut() {
    let data = TempDir::new().unwrap();
    let model = history(data.path(), 40, 100).await;
    tamper(data.path(), |database| {
        let log = database.tree("log").unwrap();
        let next = u64::from_be_bytes(last(&log)) + 1;
        log.insert(next.to_be_bytes(), encode_part(next, 0, 3, b"first of three"))
            .unwrap();
        log.insert(
            (next + 1).to_be_bytes(),
            encode_part(next + 1, 1, 3, b"second of three"),
        )
        .unwrap();
    })
    .await;
    for _ in 0..2 {
        let mut opened = open(data.path()).unwrap();
        assert_eq!(Model::of(&mut opened.log).await, model);
        opened.stopper.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_hole_a_lost_end_and_a_damaged_part_are_refused_with_advice() {
    let intact = TempDir::new().unwrap();
    history(intact.path(), 40, 100).await;
    type Change = fn(&Tree, [u8; 8]);
    let cases: [(&str, Change); 4] = [
        ("its end is lost", |log, last| drop(log.remove(last).unwrap())),
        ("is missing", |log, last| {
            log.remove((u64::from_be_bytes(last) - 3).to_be_bytes()).unwrap();
        }),
        ("checksum does not fit", |log, last| {
            let mut value = log.get(last).unwrap().unwrap().to_vec();
            *value.last_mut().unwrap() ^= 1;
            log.insert(last, value).unwrap();
        }),
        ("no sequence number", |log, _| {
            drop(log.insert(b"zzz", b"").unwrap())
        }),
    ];
    for (expected, change) in cases {
        let data = TempDir::new().unwrap();
        copy(intact.path(), data.path());
        tamper(data.path(), |database| {
            let log = database.tree("log").unwrap();
            change(&log, last(&log));
        })
        .await;
        for _ in 0..2 {
            let text = refusal(data.path());
            assert!(
                text.contains(expected) && text.contains("join as a new member"),
                "{expected}: {text}"
            );
            assert!(text.contains(data.path().to_str().unwrap()), "{text}");
        }
    }
}

#[tokio::test]
async fn leftovers_below_the_floor_are_no_hole() {
    let data = TempDir::new().unwrap();
    let model = history(data.path(), 60, 100).await;
    tamper(data.path(), |database| {
        let log = database.tree("log").unwrap();
        log.insert(1u64.to_be_bytes(), b"half deleted").unwrap();
        log.insert(3u64.to_be_bytes(), b"half deleted").unwrap();
        let floor = database
            .tree("log-floor")
            .unwrap()
            .get(b"floor")
            .unwrap()
            .expect("the history purges");
        assert!(decode_floor(&floor).unwrap() > 3);
    })
    .await;
    let mut opened = open(data.path()).unwrap();
    assert_eq!(Model::of(&mut opened.log).await, model);
    opened.stopper.stop().await.unwrap();
}

/// Whatever byte of whatever file is flipped or cut off: everything acknowledged is there, or the node says that it is not.
#[tokio::test]
async fn damaged_files_never_lose_anything_silently() {
    let intact = TempDir::new().unwrap();
    let model = history(intact.path(), 150, 200).await;
    let mut files = vec![intact.path().join("run"), intact.path().join("log.mark")];
    files.extend(
        std::fs::read_dir(intact.path().join("sled"))
            .unwrap()
            .map(|item| item.unwrap().path()),
    );
    files.retain(|path| path.is_file() && std::fs::metadata(path).unwrap().len() > 0);
    assert!(
        files.len() >= 4,
        "run, log.mark, sled's file and its settings: {files:?}"
    );
    let (mut chance, mut refused, mut whole) = (Chance(1), 0, 0);
    for path in &files {
        let content = std::fs::read(path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let is_database = path.ends_with("db");
        for round in 0..if is_database { 120 } else { 12 } {
            let data = TempDir::new().unwrap();
            copy(intact.path(), data.path());
            let target = data.path().join(path.strip_prefix(intact.path()).unwrap());
            let at = chance.below(used as u64) as usize;
            let mut content = content.clone();
            let cut = round % 4 == 0;
            if cut {
                content.truncate(at);
            } else {
                content[at] ^= 1 << chance.below(8);
            }
            std::fs::write(&target, content).unwrap();
            match open(data.path()) {
                Err(error) => {
                    assert!(
                        matches!(&error, Error::Folder { why, .. } if !why.is_empty()),
                        "{error}"
                    );
                    refused += 1;
                }
                Ok(mut opened) => {
                    let now = Model::of(&mut opened.log).await;
                    assert!(
                        now == model,
                        "{} {at} of {}: data lost",
                        ["flip at", "cut at"][usize::from(cut)],
                        path.display()
                    );
                    opened.stopper.stop().await.unwrap();
                    whole += 1;
                }
            }
        }
    }
    assert!(
        refused > 20 && whole > 0,
        "{refused} refused, {whole} whole: the test does not reach what it should"
    );
}

/// What a child process is told by.
const KILL_CHILD: &str = "PLENARY_TEST_KILL_CHILD";
const KILL_CHILD_FROM: &str = "PLENARY_TEST_KILL_CHILD_FROM";
const STRACE_CHILD: &str = "PLENARY_TEST_STRACE_CHILD";

/// Steps that the child has under way at once.
const UNDER_WAY: u64 = 8;

/// The child's history, a function of the step's number alone.
fn child_step(number: u64, model: &Model) -> crate::raft::log::tests::Step {
    model.step(&mut Chance(number * 7_919), 40 << 10)
}

fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0");
    command
}

fn say(line: &str) {
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
    let mut opened = open(Path::new(&data)).unwrap();
    let mut model = Model::of(&mut opened.log).await;
    say("\n@ open");
    let mut under_way = std::collections::VecDeque::new();
    for number in from.. {
        let step = child_step(number, &model);
        model.apply(&step);
        match &step {
            crate::raft::log::tests::Step::Append(entries) => {
                under_way.push_back((number, append(&mut opened.log, entries.clone()).await.unwrap()));
            }
            other => {
                // These wait until they are durable, and then so is all before them.
                other.run(&mut opened.log).await.unwrap();
                if !matches!(other, crate::raft::log::tests::Step::Purge(_)) {
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
async fn a_process_killed_at_any_moment_keeps_everything_acknowledged() {
    let data = TempDir::new().unwrap();
    let mut chance = Chance(std::process::id().into());
    // How many steps are surely in the log, and what it holds then.
    let (mut done, mut model, mut acknowledged_in_all) = (0, Model::default(), 0);
    for round in 0..20 {
        let acknowledged = run_and_kill(data.path(), done, round, &mut chance);
        acknowledged_in_all += acknowledged.map_or(0, |last| last + 1 - done);
        let mut opened = open(data.path()).unwrap();
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
fn run_and_kill(data: &Path, from: u64, round: u64, chance: &mut Chance) -> Option<u64> {
    let mut running = child("raft::log::sled::tests::kill_child")
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
    let mut opened = open(Path::new(&data)).unwrap();
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

/// Shows that the bytes of each append are written to sled's file, that this file is then flushed to the disk, and only
/// then the append is acknowledged.
#[test]
fn each_append_ends_in_a_flush_to_the_disk_before_it_is_acknowledged() {
    let (data, trace) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let child = child("raft::log::sled::tests::strace_child");
    let status = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-e",
            "trace=fdatasync,fsync,sync_file_range,pwrite64,write",
            "-o",
        ])
        .arg(trace.path())
        .arg(child.get_program())
        .args(child.get_args())
        .env(STRACE_CHILD, data.path())
        .stdout(Stdio::null())
        .status();
    let traced = status.is_ok_and(|status| status.success());
    if !traced {
        assert!(
            std::env::var_os("CI").is_none(),
            "strace is missing or may not trace: install it"
        );
        println!("not shown: strace is missing or may not trace");
        return;
    }
    let database = format!("{}/sled/db>", data.path().display());
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    // Of each thread the call that it has begun and not ended, if it is a flush of the database.
    let mut flushing = std::collections::HashMap::new();
    let (mut written, mut flushed, mut acknowledged) = (0, 0, 0);
    let (mut flushed_before, mut unflushed) = (0, false);
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if call.starts_with("pwrite64(") && call.contains(&database) {
            (written, unflushed) = (written + 1, true);
        } else if call.starts_with("fdatasync(") && call.contains(&database) {
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
    assert_eq!(acknowledged, 20, "every append is seen in the trace");
}
