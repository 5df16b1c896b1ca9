//! Commands as the machine applies and reads them, each in a group of its own where nothing else is said; and snapshots.

use super::{BEGIN, Row, STEPS, Step, VALUE};
use bytes::Bytes;
use plenary::machine::entry::{Command, Entry, Origin};
use plenary::machine::{Machine, Outcome, snapshot};
use std::hint::black_box;

/// Keys that are there before the first step: one for each.
const KEYS: usize = STEPS;

/// Commands of a group that is not one command's.
const GROUP: usize = 16;

/// Items of a session, and fields of a hash.
const ITEMS: usize = 8;

pub(super) const OPERATIONS: &[Row] = &[
    ("SET of a new key", 1, || {
        writes(&[], |step| vec![text("SET"), key("new", step), value()])
    }),
    ("SET of an existing key", 1, || {
        writes(&[set], |step| vec![text("SET"), key("string", step), value()])
    }),
    ("SET EX of an existing key", 1, || {
        let of = |step| vec![text("SET"), key("string", step), value(), text("EX"), text("600")];
        writes(&[set], of)
    }),
    ("16 SET in one group, each", GROUP, || {
        groups(&[set], GROUP, |at| {
            vec![text("SET"), key("string", at % KEYS), value()]
        })
    }),
    ("GET", 1, || {
        reads(&[set], |step| vec![text("GET"), key("string", step)])
    }),
    ("GET of nothing", 1, || {
        reads(&[set], |step| vec![text("GET"), key("none", step)])
    }),
    ("DEL", 1, || {
        writes(&[set], |step| vec![text("DEL"), key("string", step)])
    }),
    ("INCR", 1, || {
        let number = |at| vec![text("SET"), key("number", at), text("41")];
        writes(&[number], |step| vec![text("INCR"), key("number", step)])
    }),
    ("EXPIRE", 1, || {
        let of = |step: usize| vec![text("EXPIRE"), key("string", step), decimal(600 + step)];
        writes(&[set], of)
    }),
    ("HSET of a field", 1, || {
        writes(&[hset], |step| {
            vec![text("HSET"), key("hash", step), item(step), value()]
        })
    }),
    ("HGETALL of 8 fields", 1, || {
        reads(&[hset], |step| vec![text("HGETALL"), key("hash", step)])
    }),
    ("LPUSH", 1, || {
        let of = |step| vec![text("LPUSH"), key("list", step % 64), value()];
        writes(&[], of)
    }),
    ("RPOP", 1, || {
        let push = |at| vec![text("LPUSH"), key("list", at % 64), value()];
        writes(&[push], |step| vec![text("RPOP"), key("list", step % 64)])
    }),
    ("SADD", 1, || {
        let of = |step| vec![text("SADD"), key("set", step % 64), key("member", step)];
        writes(&[], of)
    }),
    ("ZADD of a changed score, 1,024 members", 1, || {
        let add = |at| vec![text("ZADD"), text("ranking"), decimal(at), key("member", at)];
        let of = |step: usize| {
            let score = decimal(step.wrapping_mul(7_919) % 4_096);
            vec![text("ZADD"), text("ranking"), score, key("member", step)]
        };
        writes(&[add], of)
    }),
    ("SESSION.CREATE, 8 items", 1, || writes(&[], session)),
    ("SESSION.SAVE of an item", 1, || {
        let of = |step| {
            let mut argv = vec![
                text("SESSION.SAVE"),
                key("session", step),
                text("*"),
                text("SET"),
                text("1"),
            ];
            argv.extend([item(step), value()]);
            argv
        };
        writes(&[session], of)
    }),
    ("SESSION.LOAD, 8 items", 1, || {
        reads(&[session], |step| {
            vec![text("SESSION.LOAD"), key("session", step)]
        })
    }),
    ("a session, shared with its reader", 1, || {
        let machine = machine_with(&[session]);
        let keys: Vec<Bytes> = (0..STEPS).map(|step| key("session", step)).collect();
        Box::new(move |step| {
            let found = machine.view(BEGIN, 0).slot(&keys[step]).expect("created before");
            black_box(found.value.as_shared_session().expect("a session").clone());
        })
    }),
    ("a snapshot written, each string", KEYS, || written(set)),
    ("a snapshot read, each string", KEYS, || read(set)),
    ("a snapshot written, each session", KEYS, || written(session)),
    ("a snapshot read, each session", KEYS, || read(session)),
];

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn decimal(number: usize) -> Bytes {
    number.to_string().into()
}

fn key(kind: &str, at: usize) -> Bytes {
    format!("bench:{kind}:{at:08}").into()
}

fn value() -> Bytes {
    Bytes::from(vec![b'v'; VALUE])
}

fn item(at: usize) -> Bytes {
    format!("item {}", at % ITEMS).into()
}

/// Begins each key of a kind: [`machine_with`] applies it for all of them.
type Begin = fn(usize) -> Vec<Bytes>;

fn set(at: usize) -> Vec<Bytes> {
    vec![text("SET"), key("string", at), value()]
}

fn hset(at: usize) -> Vec<Bytes> {
    let mut argv = vec![text("HSET"), key("hash", at)];
    argv.extend((0..ITEMS).flat_map(|field| [item(field), value()]));
    argv
}

fn session(at: usize) -> Vec<Bytes> {
    let mut argv = vec![
        text("SESSION.CREATE"),
        key("session", at),
        text("1200000"),
        text("ITEMS"),
        decimal(ITEMS),
    ];
    argv.extend((0..ITEMS).flat_map(|name| [item(name), value()]));
    argv
}

/// A machine that has applied these, for each of the keys.
fn machine_with(begins: &[Begin]) -> Machine {
    machine_of(begins, KEYS)
}

/// A machine with so many strings.
pub fn strings(keys: usize) -> Machine {
    machine_of(&[set], keys)
}

/// A machine with so many sessions.
pub fn sessions(keys: usize) -> Machine {
    machine_of(&[session], keys)
}

/// The seed of the first entry makes its hashes.
fn machine_of(begins: &[Begin], keys: usize) -> Machine {
    let mut machine = Machine::default();
    let begun = begins.iter().flat_map(|begin| {
        (0..keys).map(|at| Command {
            db: 0,
            argv: begin(at),
        })
    });
    apply(
        &mut machine,
        &Entry {
            format: Entry::FORMAT,
            at: BEGIN,
            seed: 1,
            origin: Origin::default(),
            commands: begun.collect(),
        },
    );
    machine
}

fn apply(machine: &mut Machine, entry: &Entry) {
    let outcome = machine.apply(entry);
    assert!(
        matches!(&outcome, Outcome::Applied(_)),
        "each group is the next one"
    );
    black_box(outcome);
    // As the node does after each.
    black_box(machine.store_mut().take_events());
}

fn writes(begins: &[Begin], command: fn(usize) -> Vec<Bytes>) -> Step {
    groups(begins, 1, command)
}

/// A group of so many commands for each step.
fn groups(begins: &[Begin], commands: usize, command: fn(usize) -> Vec<Bytes>) -> Step {
    let mut machine = machine_with(begins);
    let group = |step: usize| Entry {
        format: Entry::FORMAT,
        at: BEGIN + step as u64,
        seed: step as u64,
        origin: Origin {
            node: 1,
            start: 1,
            number: step as u64 + 1,
        },
        commands: (0..commands)
            .map(|at| Command {
                db: 0,
                argv: command(step * commands + at),
            })
            .collect(),
    };
    let entries: Vec<Entry> = (0..STEPS).map(group).collect();
    Box::new(move |step| apply(&mut machine, &entries[step]))
}

fn reads(begins: &[Begin], command: fn(usize) -> Vec<Bytes>) -> Step {
    let machine = machine_with(begins);
    let commands: Vec<Vec<Bytes>> = (0..STEPS).map(command).collect();
    Box::new(move |step| {
        black_box(machine.read(BEGIN, 0, &commands[step]));
    })
}

/// A snapshot of one of each key, to memory.
fn written(begin: Begin) -> Step {
    let machine = machine_with(&[begin]);
    let mut out = Vec::new();
    Box::new(move |_| {
        out.clear();
        snapshot::write(&machine, &mut out).expect("memory takes it");
        black_box(&out);
    })
}

fn read(begin: Begin) -> Step {
    let mut bytes = Vec::new();
    snapshot::write(&machine_with(&[begin]), &mut bytes).expect("memory takes it");
    Box::new(move |_| {
        black_box(snapshot::read(&mut bytes.as_slice()).expect("what was written is read"));
    })
}
