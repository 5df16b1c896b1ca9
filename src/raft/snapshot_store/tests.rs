//! Snapshot files: written, received, damaged, interrupted.

use super::*;
use crate::config::Durability;
use crate::raft::LogId;
use crate::raft::rests::AFTER_BYTES;
use openraft::impls::leader_id_adv::LeaderId;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

fn store(data: &TempDir) -> SnapshotStore {
    let (meta, _) = Meta::open(data.path(), Durability::Fsync, Some("boot")).unwrap();
    SnapshotStore::open(meta).unwrap()
}

fn covers(index: u64) -> SnapshotMeta {
    let last_log_id = Some(LogId {
        leader_id: LeaderId { term: 2, node_id: 9 },
        index,
    });
    SnapshotMeta {
        last_log_id,
        ..SnapshotMeta::default()
    }
}

fn write(store: &SnapshotStore, index: u64) -> SnapshotFile {
    store
        .write(&covers(index), |out| {
            out.write_all(format!("state at {index}").as_bytes())
        })
        .unwrap()
}

fn text(from: &mut dyn Read) -> io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).map(|_| text)
}

fn load(store: &SnapshotStore, purged: Option<u64>) -> Result<Option<String>, Error> {
    Ok(store.load_newest(purged, text)?.map(|(_, text)| text))
}

fn names(data: &TempDir) -> Vec<String> {
    let items = fs::read_dir(data.path().join("snapshots")).unwrap();
    let mut names: Vec<_> = items
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_newest_two_are_kept_over_starts() {
    let data = TempDir::new().unwrap();
    let store_ = store(&data);
    assert_eq!(load(&store_, None).unwrap(), None);
    for index in [10, 20, 30] {
        write(&store_, index);
    }
    assert_eq!(names(&data), ["20-2-9.snap", "30-2-9.snap"]);
    assert_eq!(load(&store_, Some(25)).unwrap().unwrap(), "state at 30");
    drop(store_);
    fs::write(data.path().join("snapshots/7.aside"), "half written").unwrap();
    fs::write(
        data.path().join("snapshots/40-2-9.snap"),
        "renamed, but in no catalogue",
    )
    .unwrap();
    let store_ = store(&data);
    assert_eq!(
        names(&data),
        ["20-2-9.snap", "30-2-9.snap"],
        "what no catalogue knows goes at start"
    );
    assert_eq!(store_.newest().unwrap().meta, covers(30));
    assert_eq!(load(&store_, Some(30)).unwrap().unwrap(), "state at 30");
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    write(&store, 10);
    let failed = store.write(&covers(20), |out| {
        out.write_all(&[0; 1 << 20])?;
        Err(io::Error::other("no more"))
    });
    assert!(failed.is_err());
    assert_eq!(names(&data), ["10-2-9.snap"]);
    assert_eq!(store.newest().unwrap().meta, covers(10));
}

#[test]
fn a_damaged_snapshot_is_passed_over_while_the_log_covers_the_difference() {
    for damage in [flip as fn(&Path, usize), |path, _| fs::remove_file(path).unwrap()] {
        let data = TempDir::new().unwrap();
        let store_ = store(&data);
        for index in [10, 20] {
            write(&store_, index);
        }
        damage(&store_.newest().unwrap().path, 40);
        for _ in 0..2 {
            let error = load(&store_, Some(15)).unwrap_err().to_string();
            assert!(
                error.contains("is damaged") && error.contains("join as a new member"),
                "{error}"
            );
        }
        assert_eq!(load(&store_, Some(10)).unwrap().unwrap(), "state at 10");
        assert_eq!(
            store_.newest().unwrap().meta,
            covers(10),
            "the damaged one no longer counts"
        );
        write(&store_, 20);
        assert_eq!(
            load(&store_, Some(20)).unwrap().unwrap(),
            "state at 20",
            "it can be written again"
        );
    }
}

#[test]
fn the_only_snapshot_damaged_is_passed_over_only_if_the_log_has_everything() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    flip(&write(&store, 10).path, 40);
    assert!(
        load(&store, Some(10))
            .unwrap_err()
            .to_string()
            .contains("is damaged")
    );
    assert_eq!(load(&store, None).unwrap(), None);
    let error = load(&store, Some(3)).unwrap_err().to_string();
    assert!(error.contains("snapshots are missing"), "{error}");
}

#[test]
fn every_flip_and_cut_is_noticed_and_leaves_nothing() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, receiver) = (store(&from), store(&to));
    let bytes = fs::read(write(&from, 10).path).unwrap();
    let receive = |bytes: &[u8]| {
        let mut receiving = receiver.receive().unwrap();
        bytes.chunks(7).for_each(|chunk| receiving.write(chunk).unwrap());
        receiving.finish()
    };
    for at in 0..bytes.len() {
        assert!(receive(&bytes[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(receive(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
    assert_eq!(names(&to), [""; 0]);
    let received = receive(&bytes).unwrap();
    assert_eq!((&received.meta, received.len), (&covers(10), bytes.len() as u64));
    assert_eq!(receiver.newest(), None, "it counts when it is installed");
    let adopted = receiver.adopt(&received).unwrap();
    assert_eq!(names(&to), ["10-2-9.snap"]);
    assert_eq!(receiver.adopt(&adopted).unwrap(), adopted, "ours already");
    drop(received);
    assert_eq!(names(&to), ["10-2-9.snap"]);
    // Sent again, and nobody installs it.
    let again = receive(&bytes).unwrap();
    let held = again.clone();
    drop(again);
    assert_eq!(held.read(text).unwrap(), "state at 10");
    drop(held);
    assert_eq!(names(&to), ["10-2-9.snap"]);
    assert_eq!(load(&receiver, Some(10)).unwrap().unwrap(), "state at 10");
}

#[test]
fn a_snapshot_of_a_later_version_is_refused_with_advice() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    let written = write(&store, 5);
    let path = data.path().join("snapshots").join(&names(&data)[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[..7], MAGIC[..7]);
    bytes[7] += 1;
    std::fs::write(&path, bytes).unwrap();
    let refused = written.read(text).unwrap_err().to_string();
    assert!(
        refused.contains("it was written by another version: run a newer one"),
        "{refused}"
    );
    assert!(load(&store, Some(5)).is_err(), "the log begins behind it");
}

#[test]
fn the_bytes_of_a_snapshot_file_stay() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    let bytes = fs::read(write(&store, 10).path).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "504c4e534e41500137000000011a91189a01020000000000000009000000000000000a00000000000000000000000000000000000000000000\
         0000000000000000000073746174652061742031300b00000000000000cdd403d674ed7d40"
    );
}

#[test]
fn whoever_writes_a_snapshot_rests_until_the_node_stops() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    let rested = |name: &str| {
        let file = Disk::System.open(&data.path().join(name), Open::Create).unwrap();
        let mut file = GentleFile::new(file, store.hurry());
        for _ in 0..4 {
            file.write_all(&[1; AFTER_BYTES]).unwrap();
        }
        file.rests.rested()
    };
    assert!(rested("first") > Duration::ZERO);
    store.hurry().up();
    assert_eq!(rested("second"), Duration::ZERO);
}

#[test]
fn whoever_reads_a_snapshot_with_rests_takes_them() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    let content = vec![1; 2 * AFTER_BYTES];
    let written = store.write(&covers(1), |out| out.write_all(&content)).unwrap();
    let mut from = Content::open(written.open().unwrap()).unwrap();
    from.rests = Some(Rests::new(store.hurry()));
    let mut read = Vec::new();
    from.read_to_end(&mut read).unwrap();
    assert_eq!(read, content);
    assert!(from.rests.is_some_and(|rests| rests.rested() > Duration::ZERO));
}

#[test]
fn what_could_not_be_read_again_is_not_published() {
    let data = TempDir::new().unwrap();
    let store = store(&data);
    write(&store, 10);
    let member = crate::raft::Member {
        raft_addr: "a".repeat(META_BYTES),
        resp_addr: String::new(),
    };
    let members =
        openraft::Membership::new(vec![[9].into()], std::collections::BTreeMap::from([(9, member)])).unwrap();
    let covered = SnapshotMeta {
        last_membership: openraft::StoredMembership::new(None, members),
        ..covers(20)
    };
    let refused = store.write(&covered, |out| out.write_all(b"state at 20"));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(load(&store, None).unwrap().unwrap(), "state at 10");
    assert_eq!(names(&data), ["10-2-9.snap"]);
}
