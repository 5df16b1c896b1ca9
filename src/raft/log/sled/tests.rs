//! What is sled's own: damage, parts, and files that sled never flushes. What every journal must do is in `log/tests/disk.rs`.

use super::*;
use crate::config::LogKind;
use crate::raft::log::tests::disk::{Opened, copy};
use crate::raft::log::tests::{Chance, Model, append, disk, entry, id, indices};
use crate::raft::meta::Meta;
use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

fn open(data: &Path) -> Result<Opened, Error> {
    disk::open(data, LogKind::Sled)
}

async fn history(data: &Path, steps: u64, content_bytes: u64) -> Model {
    disk::history(data, LogKind::Sled, steps, content_bytes).await
}

#[tokio::test]
async fn nothing_lies_in_files_that_sled_never_flushes() {
    let data = TempDir::new().unwrap();
    let model = history(data.path(), 150, 60 << 10).await;
    let mut opened = open(data.path()).unwrap();
    let next = model.entries.last().unwrap().log_id.index + 1;
    let large = vec![entry(99, next, vec![1; 3 << 20])];
    append(&mut opened.log, large).await.unwrap().await.unwrap();
    opened.stopper.stop().await.unwrap();
    drop(opened);
    let blobs = std::fs::read_dir(data.path().join("sled/blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "sled wrote values to files of their own");
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
    let mut journal = SledJournal::open(meta.database(), Durability::Fsync).unwrap();
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
    let model = history(data.path(), 150, 100).await;
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
