//! Bytes of a group, as the log and other nodes give them: what is read is written the same, no length makes the reader take memory, and what it
//! holds, commands of nodes among them, panics no machine and comes to the same on two, and on one from its snapshot.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plenary::machine::entry::{self, Part};
use plenary::machine::{Machine, snapshot};
use plenary_fuzz::bounded;
use std::sync::LazyLock;

/// What commands find: a copy costs less than a new one.
static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    let mut machine = Machine::default();
    let lines = "SET k1 10|SET k v PX 100000|RPUSH k2 a b c|HSET h f v|ZADD z 1 a 2 b|SADD s 1 2 x|XADD x 1-1 f v|XGROUP CREATE x g 0|BLPOP nothing 0|\
        SESSION.CREATE se 1800000 OWNER ann ITEMS 2 a 1 b 2|SESSION.LOCK se web-1 60000|SESSION.LOCK se web-2 60000";
    let commands = lines
        .split('|')
        .map(|line| entry::Command::new(0, line.split(' ').map(str::to_owned)));
    let group = entry::encode(
        entry::Origin {
            node: 1,
            start: 1,
            number: 1,
        },
        &commands.collect::<Vec<_>>(),
    );
    let group = entry::stamp(group, entry::Entry::FORMAT, 1_700_000_000_000, 1);
    machine.apply(&entry::decode(&group).expect("as it was written"));
    machine.store_mut().take_events();
    machine
});

fuzz_target!(|data: &[u8]| {
    let group = Bytes::copy_from_slice(data);
    let of = entry::origin(&group);
    let Ok(entry) = bounded(data.len(), || entry::decode(&group)) else {
        return;
    };
    assert_eq!(of, Ok(entry.origin));
    let again = entry::join(entry.origin, &[Part::new(&entry.commands)]);
    let again = entry::stamp(again, entry.format, entry.at, entry.seed);
    assert_eq!(again, group);
    if entry.commands.len() > 64 {
        return;
    }
    let (mut one, mut other) = (MACHINE.freeze(), MACHINE.freeze());
    let (replies, same) = (one.apply(&entry), other.apply(&entry));
    assert_eq!(format!("{replies:?}"), format!("{same:?}"));
    let (told, heard) = (one.store_mut().take_events(), other.store_mut().take_events());
    assert_eq!(format!("{told:?}"), format!("{heard:?}"));
    assert_eq!(one.digest(), other.digest());
    let mut bytes = Vec::new();
    snapshot::write(&one, &mut bytes).expect("memory takes it");
    let third = snapshot::read(&mut bytes.as_slice()).expect("what was written is read");
    assert_eq!(third.digest(), one.digest());
});
