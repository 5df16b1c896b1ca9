//! The data folder over several starts, two processes, power loss and damage.

use super::*;
use tempfile::TempDir;

fn open(data: &Path) -> (Meta, Fresh) {
    Meta::open(data, Durability::Fsync, Some("boot 1")).unwrap()
}

#[test]
fn a_node_keeps_what_it_is_over_starts() {
    let data = TempDir::new().unwrap();
    let folder = data.path().join("made/if/absent");
    let (meta, fresh) = open(&folder);
    let node = meta.node_id();
    assert_eq!((fresh, meta.start()), (Fresh::New, 1));
    assert!(node > 0 && node < 1 << 63);
    assert_eq!(meta.cluster(), None);
    meta.set_cluster(7).unwrap();
    drop(meta);
    let (meta, fresh) = open(&folder);
    assert_eq!((fresh, meta.node_id(), meta.start()), (Fresh::Known, node, 2));
    assert_eq!(meta.cluster(), Some(7));
    meta.close_cleanly().unwrap();
    drop(meta);
    let (meta, _) = open(&folder);
    assert_eq!((meta.start(), meta.cluster()), (3, Some(7)));
}

#[test]
fn two_nodes_draw_different_ids() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    assert_ne!(open(one.path()).0.node_id(), open(two.path()).0.node_id());
}

#[test]
fn a_folder_has_one_process() {
    let data = TempDir::new().unwrap();
    let first = open(data.path());
    let second = Meta::open(data.path(), Durability::Fsync, None).map(|_| ());
    assert!(
        matches!(&second, Err(Error::FolderInUse(folder)) if folder == data.path()),
        "{second:?}"
    );
    drop(first);
    open(data.path());
}

#[test]
fn power_loss_without_flushes_makes_a_new_node() {
    let data = TempDir::new().unwrap();
    let start = |durability, boot| {
        let (meta, fresh) = Meta::open(data.path(), durability, boot).unwrap();
        (meta.node_id(), fresh, meta)
    };
    let (first, _, _) = start(Durability::Os, Some("boot 1"));
    let (same, fresh, _) = start(Durability::Os, Some("boot 1"));
    assert_eq!(
        (same, fresh),
        (first, Fresh::Known),
        "a killed process keeps the page cache"
    );
    fs::write(data.path().join("snapshots"), "stands for snapshots").unwrap();
    let (second, fresh, _) = start(Durability::Fsync, Some("boot 2"));
    assert_eq!(
        fresh,
        Fresh::Discarded(data.path().join("discarded-1")),
        "what counts is how the data was written"
    );
    assert_ne!(first, second);
    assert!(data.path().join("discarded-1/snapshots").exists() && !data.path().join("snapshots").exists());
    let (same, fresh, _) = start(Durability::Os, Some("boot 3"));
    assert_eq!((same, fresh), (second, Fresh::Known), "everything was flushed");
    let (third, fresh, meta) = start(Durability::Os, None);
    assert_eq!(
        fresh,
        Fresh::Discarded(data.path().join("discarded-2")),
        "an unknown boot may be another one"
    );
    assert!(!data.path().join("discarded-1").exists(), "one is kept");
    meta.close_cleanly().unwrap();
    drop(meta);
    let (same, fresh, _) = start(Durability::Os, Some("boot 4"));
    assert_eq!((same, fresh), (third, Fresh::Known), "a clean stop flushes");
}

#[test]
fn what_a_start_without_flushes_left_is_relied_on_once_it_is_flushed() {
    for flushed in [false, true] {
        let data = TempDir::new().unwrap();
        let start = |durability, boot| Meta::open(data.path(), durability, Some(boot)).unwrap();
        drop(start(Durability::Os, "boot 1"));
        for _ in 0..2 {
            let (meta, fresh) = start(Durability::Fsync, "boot 1");
            assert_eq!(fresh, Fresh::Known);
            if flushed {
                meta.flushed().unwrap();
            }
        }
        let (_, fresh) = start(Durability::Fsync, "boot 2");
        if flushed {
            assert_eq!(fresh, Fresh::Known);
        } else {
            assert_eq!(fresh, Fresh::Discarded(data.path().join("discarded-1")));
        }
    }
}

#[test]
fn setting_aside_goes_on_where_it_was_interrupted() {
    let data = TempDir::new().unwrap();
    drop(Meta::open(data.path(), Durability::Os, Some("boot 1")).unwrap());
    fs::create_dir(data.path().join("discarded-1")).unwrap();
    fs::rename(data.path().join("sled"), data.path().join("discarded-1/sled")).unwrap();
    let (_, fresh) = Meta::open(data.path(), Durability::Os, Some("boot 2")).unwrap();
    assert_eq!(fresh, Fresh::Discarded(data.path().join("discarded-1")));
    assert!(
        ["sled", "run"]
            .iter()
            .all(|name| data.path().join("discarded-1").join(name).exists())
    );
}

#[test]
fn a_first_start_that_was_interrupted_begins_anew() {
    let data = TempDir::new().unwrap();
    fs::write(data.path().join("run"), cold::encode(&Run::none())).unwrap();
    fs::create_dir(data.path().join("sled")).unwrap();
    fs::write(data.path().join("sled/db"), "half made").unwrap();
    let (meta, fresh) = open(data.path());
    assert_eq!((fresh, meta.start()), (Fresh::New, 1));
}

#[test]
fn lost_records_are_noticed() {
    let data = TempDir::new().unwrap();
    drop(open(data.path()));
    let (meta, _) = open(data.path());
    // As if sled had cut its end: the second start never was.
    meta.0.put(key::START, &1u64).unwrap();
    drop(meta);
    let text = Meta::open(data.path(), Durability::Fsync, None)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("start 2 was begun") && text.contains("join as a new member"),
        "{text}"
    );

    let data = TempDir::new().unwrap();
    drop(open(data.path()));
    fs::remove_dir_all(data.path().join("sled")).unwrap();
    let text = Meta::open(data.path(), Durability::Fsync, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("their end is lost"), "{text}");

    let data = TempDir::new().unwrap();
    drop(open(data.path()));
    fs::remove_file(data.path().join("run")).unwrap();
    let text = Meta::open(data.path(), Durability::Fsync, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("`run` is missing"), "{text}");
    // The log alone is evidence enough.
    fs::rename(data.path().join("sled"), data.path().join("log")).unwrap();
    let text = Meta::open(data.path(), Durability::Fsync, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("`run` is missing"), "{text}");
}

#[test]
fn a_folder_of_a_later_version_is_refused_by_name() {
    let data = TempDir::new().unwrap();
    let later = Run {
        format: FORMAT + 1,
        start: 1,
        ..Run::none()
    };
    fs::write(data.path().join("run"), cold::encode(&later)).unwrap();
    let text = Meta::open(data.path(), Durability::Fsync, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("it has format 3, this program reads 2"), "{text}");
}

#[test]
fn a_record_of_a_later_version_is_refused_by_name() {
    let mut bytes = cold::encode(&7_u64);
    bytes[0] += 1;
    let said = cold::decode::<u64>(&bytes).unwrap_err().to_string();
    assert_eq!(
        said,
        "a record of format 2: this program reads 1; run a newer one"
    );

    let data = TempDir::new().unwrap();
    drop(open(data.path()));
    let run = data.path().join("run");
    let mut bytes = fs::read(&run).unwrap();
    bytes[0] += 1;
    fs::write(&run, bytes).unwrap();
    let text = Meta::open(data.path(), Durability::Fsync, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains(&said) && !text.contains(ADVICE), "{text}");
}

#[test]
fn every_flip_and_cut_of_a_record_is_noticed() {
    let run = Run {
        format: 1,
        start: 3,
        fsync: true,
        boot: Some("b".into()),
        clean: false,
    };
    let bytes = cold::encode(&run);
    assert_eq!(cold::decode::<Run>(&bytes).unwrap(), run);
    for at in 0..bytes.len() {
        assert!(cold::decode::<Run>(&bytes[..at]).is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert!(cold::decode::<Run>(&flipped).is_err(), "flip at {at}");
    }
    let surplus = [&bytes[..], &[0]].concat();
    assert!(cold::decode::<Run>(&surplus).is_err());
}

#[test]
fn the_bytes_of_records_stay() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let run = Run {
        format: 1,
        start: 3,
        fsync: true,
        boot: Some("b".into()),
        clean: false,
    };
    assert_eq!(
        hex(cold::encode(&run)),
        "0179136f6f010000000300000000000000010101000000000000006200"
    );
    assert_eq!(hex(cold::encode(&Some(7u64))), "01f409b7fb010700000000000000");
    assert_eq!(hex(cold::encode(&true)), "011bdf05a501");
}
