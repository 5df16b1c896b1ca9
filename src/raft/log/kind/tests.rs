//! A log that moves from one kind of journal to the other, and crashes at each step of the way.

use super::*;
use crate::raft::log::tests::disk::{Opened, copy, history, open};
use crate::raft::log::tests::{Model, append, entry};
use crate::raft::meta::Meta;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const STEPS: u64 = 60;

/// A folder whose log is of this kind and what it holds.
async fn written(kind: LogKind) -> (TempDir, Model) {
    let data = TempDir::new().unwrap();
    let model = history(data.path(), kind, STEPS, 40 << 10).await;
    (data, model)
}

async fn stop(opened: Opened) {
    opened.stopper.stop().await.unwrap();
}

/// What a log of this kind in this folder holds, moved there if need be.
async fn holds(data: &Path, kind: LogKind) -> Model {
    let mut opened = open(data, kind).unwrap();
    let model = Model::of(&mut opened.log).await;
    stop(opened).await;
    model
}

/// What is in the data folder for the log alone.
fn own(data: &Path) -> Vec<&'static str> {
    OWN.into_iter().filter(|name| data.join(name).exists()).collect()
}

/// Batches in sled's log.
fn in_sled(data: &Path) -> usize {
    let (meta, _) = Meta::open(data, Durability::Fsync, Some("boot")).unwrap();
    let database = meta.database();
    database.tree("log").unwrap().len() + database.tree("log-floor").unwrap().len()
}

/// Changes the note and nothing else.
fn note(data: &Path, kind: LogKind) {
    let (meta, _) = Meta::open(data, Durability::Fsync, Some("boot")).unwrap();
    meta.note(kind);
}

fn copied(intact: &Path) -> TempDir {
    let data = TempDir::new().unwrap();
    copy(intact, data.path());
    data
}

#[tokio::test]
async fn a_log_is_moved_there_and_back_and_keeps_everything() {
    // As earlier versions left it: in sled, without a note.
    let (data, mut model) = written(LogKind::Sled).await;
    let data = data.path();
    assert_eq!((own(data), in_sled(data) > 0), (vec!["log.mark"], true));
    for kind in [
        LogKind::Segments,
        LogKind::Sled,
        LogKind::Segments,
        LogKind::Segments,
    ] {
        let mut opened = open(data, kind).unwrap();
        assert_eq!(Model::of(&mut opened.log).await, model, "moved to {kind}");
        let next = model.entries.last().unwrap().log_id.index + 1;
        let entries = vec![entry(99, next, format!("in {kind}"))];
        append(&mut opened.log, entries.clone())
            .await
            .unwrap()
            .await
            .unwrap();
        model.entries.extend(entries);
        stop(opened).await;
        assert_eq!(holds(data, kind).await, model, "written in {kind}");
        match kind {
            LogKind::Segments => assert_eq!((own(data), in_sled(data)), (vec!["log"], 0)),
            LogKind::Sled => assert_eq!((own(data), in_sled(data) > 0), (vec!["log.mark"], true)),
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_move_leaves_a_log_that_starts() {
    let (sled, model) = written(LogKind::Sled).await;
    let segments = copied(sled.path());
    assert_eq!(holds(segments.path(), LogKind::Segments).await, model);
    let back = copied(segments.path());
    assert_eq!(holds(back.path(), LogKind::Sled).await, model);
    let with_folder =
        |data: &TempDir, name: &str| copy(&segments.path().join("log"), &data.path().join(name));
    type Step<'a> = (&'static str, Box<dyn Fn() -> TempDir + 'a>);
    let steps: Vec<Step<'_>> = vec![
        (
            "to segments: the new log is half made",
            Box::new(|| {
                let data = copied(sled.path());
                fs::create_dir(data.path().join(NEW)).unwrap();
                fs::write(data.path().join(NEW).join("floor"), b"half").unwrap();
                data
            }),
        ),
        (
            "to segments: the new log is made, but not in its place",
            Box::new(|| {
                let data = copied(sled.path());
                with_folder(&data, NEW);
                data
            }),
        ),
        (
            "to segments: it is in its place, but not noted",
            Box::new(|| {
                let data = copied(sled.path());
                with_folder(&data, LOG);
                data
            }),
        ),
        (
            "to segments: it is noted, but sled's is not removed",
            Box::new(|| {
                let data = copied(sled.path());
                with_folder(&data, LOG);
                note(data.path(), LogKind::Segments);
                data
            }),
        ),
        (
            "to segments: of sled's only the mark is removed",
            Box::new(|| {
                let data = copied(sled.path());
                with_folder(&data, LOG);
                note(data.path(), LogKind::Segments);
                fs::remove_file(data.path().join("log.mark")).unwrap();
                data
            }),
        ),
        (
            "to sled: sled's log is half made",
            Box::new(|| {
                let data = copied(segments.path());
                {
                    let (meta, _) = Meta::open(data.path(), Durability::Fsync, Some("boot")).unwrap();
                    let mut half = SledJournal::open(meta.database(), Durability::Fsync).unwrap();
                    half.append(b"no record").unwrap();
                    half.sync().unwrap();
                }
                data
            }),
        ),
        (
            "to sled: segments are set aside, but that is not noted",
            Box::new(|| {
                let data = copied(back.path());
                note(data.path(), LogKind::Segments);
                with_folder(&data, OLD);
                data
            }),
        ),
        (
            "to sled: it is noted, but segments are not removed",
            Box::new(|| {
                let data = copied(back.path());
                with_folder(&data, OLD);
                data
            }),
        ),
    ];
    for (step, crashed) in &steps {
        for wanted in [LogKind::Segments, LogKind::Sled] {
            let data = crashed();
            for start in 1..=2 {
                assert_eq!(
                    holds(data.path(), wanted).await,
                    model,
                    "{step}; start {start}, {wanted} wanted"
                );
            }
            let left = match wanted {
                LogKind::Segments => vec!["log"],
                LogKind::Sled => vec!["log.mark"],
            };
            assert_eq!(own(data.path()), left, "{step}; {wanted} wanted");
        }
    }
}

#[tokio::test]
async fn a_log_that_is_gone_is_missed() {
    let (data, _) = written(LogKind::Segments).await;
    fs::remove_dir_all(data.path().join("log")).unwrap();
    for wanted in [LogKind::Segments, LogKind::Sled] {
        let text = open(data.path(), wanted).map(|_| ()).unwrap_err().to_string();
        assert!(
            text.contains("its folder `log` is missing") && text.contains("join as a new member"),
            "{text}"
        );
        assert_eq!(
            own(data.path()),
            Vec::<&str>::new(),
            "nothing is made in its place"
        );
    }
}

#[tokio::test]
async fn a_damaged_log_is_not_moved() {
    for (from, wanted) in [
        (LogKind::Sled, LogKind::Segments),
        (LogKind::Segments, LogKind::Sled),
    ] {
        let (data, _) = written(from).await;
        match from {
            LogKind::Sled => {
                let (meta, _) = Meta::open(data.path(), Durability::Fsync, Some("boot")).unwrap();
                let log = meta.database().tree("log").unwrap();
                log.pop_max().unwrap();
                meta.database().durable().unwrap();
            }
            LogKind::Segments => {
                let path: PathBuf = data.path().join("log/00000000000000000001.log");
                fs::OpenOptions::new()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(500)
                    .unwrap();
            }
        }
        for _ in 0..2 {
            let text = open(data.path(), wanted).map(|_| ()).unwrap_err().to_string();
            assert!(text.contains("join as a new member"), "{text}");
            assert_eq!(data.path().join("log").exists(), from == LogKind::Segments);
        }
    }
}
