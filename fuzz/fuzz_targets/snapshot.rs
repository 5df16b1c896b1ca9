//! The content of a snapshot, with frames and checksums that fit, as a start reads it and as another member sends it in a file: no panic, no memory
//! on the word of a length; what is read is written again and read as the same, and goes on as what it was read from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plenary::machine::entry::{Command, Entry, Origin};
use plenary::machine::{Machine, snapshot};
use plenary::testing::SnapshotProbe;
use plenary_fuzz::{bounded, cold, folder, snapshot as framed};
use std::sync::LazyLock;

/// Ticks of a clock beyond every deadline, and commands that look at all there is.
const GOES_ON: &str = "PING|DBSIZE|FLUSHALL|SESSION.CREATE new 1000 OWNER o ITEMS 1 a b|SET k v";

static FILES: LazyLock<SnapshotProbe> =
    LazyLock::new(|| SnapshotProbe::open(&folder("snapshot")).expect("a fresh folder"));

/// A file around a stream: `meta` is a cold record's content.
fn file(meta: &[u8], stream: &[u8]) -> Vec<u8> {
    let meta = cold(meta);
    let mut bytes = b"PLNSNAP\x01".to_vec();
    bytes.extend((meta.len() as u32).to_le_bytes());
    bytes.extend(meta);
    bytes.extend(stream);
    let foot = bytes.len();
    bytes.extend((stream.len() as u64).to_le_bytes());
    bytes.extend(crc32fast::hash(stream).to_le_bytes());
    let crc = crc32fast::hash(&bytes[foot..]);
    bytes.extend(crc.to_le_bytes());
    bytes
}

fn goes_on(machine: &mut Machine) -> String {
    let mut told = String::new();
    for (step, line) in GOES_ON.split('|').enumerate() {
        let entry = Entry {
            format: Entry::FORMAT,
            at: 1_700_000_000_000 << step.min(1),
            seed: 1,
            origin: Origin::default(),
            commands: vec![Command::new(0, line.split(' ').map(str::to_owned))],
        };
        told.push_str(&format!("{:?}", machine.apply(&entry)));
    }
    told
}

fuzz_target!(|data: &[u8]| {
    // Format, how many slots, how long the head of the file is: the rest is its meta, and the content.
    let [version, few, many, meta, rest @ ..] = data else {
        return;
    };
    let (meta, content) = rest.split_at(usize::from(*meta).min(rest.len()));
    let slots = u64::from(u16::from_le_bytes([*few, *many]));
    let stream = framed(u32::from(version % 6), slots, content);
    let read = bounded(data.len(), || snapshot::read(&mut stream.as_slice()));
    // Each file is a handful of calls of the system: a few of them will do.
    LazyLock::force(&FILES);
    let filed = (crc32fast::hash(data) % 16 == 0).then(|| {
        let file = file(meta, &stream);
        bounded(data.len(), || FILES.receive(&file, 1 + usize::from(*few)))
    });
    let Ok(mut machine) = read else {
        assert!(
            filed.is_none_or(|filed| filed.is_err()),
            "a file holds what a stream may not"
        );
        return;
    };
    if let Some(Ok(filed)) = filed {
        assert_eq!(filed.digest(), machine.digest());
    }
    let mut bytes = Vec::new();
    snapshot::write(&machine, &mut bytes).expect("memory takes it");
    let mut again = snapshot::read(&mut bytes.as_slice()).expect("what was written is read");
    assert_eq!(machine.digest(), again.digest());
    assert_eq!(goes_on(&mut machine), goes_on(&mut again));
    assert_eq!(machine.digest(), again.digest());
});
