//! Groups of commands as the log has had them: `golden/groups.hex` holds one of each kind of command that only nodes write, and of those that clients do, each a
//! group as it was first written. They are read for ever, come to the same on a machine (`golden/groups.txt`), and are written byte for byte the same today.
//!
//! `PLENARY_GOLDEN=record cargo test --test formats` adds kinds that are new, and writes no other line anew: whoever changes a layout gives the command another
//! name (or groups another format) and adds it here. The other formats are pinned where they are written; `ARCHITECTURE.md` has the table.

mod oracle;

use bytes::Bytes;
use oracle::Answer;
use plenary::machine::access::Which;
use plenary::machine::effects;
use plenary::machine::entry::{self, Command, Entry, Millis, Origin};
use plenary::machine::internal::{self, Unwait, Watch};
use plenary::machine::keyspace::{Candidate, Due};
use plenary::machine::recency::Use;
use plenary::machine::reply::Reply;
use plenary::machine::scripts::{self, Policy};
use plenary::machine::{Machine, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The log's clock.
const AT: Millis = 1_700_000_000_000;

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn client(line: &str) -> Command {
    Command::new(0, oracle::words(line).expect("words"))
}

/// A group of each kind by its name, in the order in which they are applied.
fn groups() -> Vec<(&'static str, Vec<Command>)> {
    let watch = |key, version| Watch {
        db: 0,
        key: text(key),
        version,
    };
    let effects = oracle::effects(
        AT,
        client("SET script wrote"),
        Reply::Array(vec![Reply::Integer(-7), Reply::bulk("text"), Reply::Nil]),
    );
    let due = Due {
        db: 0,
        key: text("lively"),
        life: 1_200_000,
        slack: 60_000,
        used_at: AT + 600_000,
    };
    let candidate = Candidate {
        db: 0,
        key: text("string"),
        version: 1,
        bytes: 0,
        deadline: None,
        used: Use {
            idle_ms: 0,
            frequency: 0,
        },
    };
    let code = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    vec![
        (
            "clients",
            vec![
                client("SET string \"\\x00\\xff\" PX 9000000"),
                client("INCR number"),
                Command::new(15, ["LPUSH", "list", "1"]),
            ],
        ),
        (
            ".set",
            vec![internal::set(
                &[("expire-slack-percent", "5"), ("expire-slack-keys", "lively")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            )],
        ),
        ("tick", vec![]),
        (
            ".exec",
            vec![internal::exec(
                &[watch("absent", 0)],
                vec![client("SET exec 1"), client("INCR exec")],
            )],
        ),
        (
            ".exec of what has changed",
            vec![internal::exec(
                &[watch("number", 9_999)],
                vec![client("SET exec 7")],
            )],
        ),
        (".scripts", vec![effects::encode(vec![effects])]),
        (
            ".key",
            vec![
                internal::key(Which::Primary, Some(&[1; 32])),
                internal::key(Which::Secondary, None),
            ],
        ),
        (
            ".script",
            vec![scripts::script(text(code), text("return 1"), true)],
        ),
        (".flush-scripts", vec![scripts::flush_scripts()]),
        (
            ".libraries",
            vec![scripts::libraries(vec![oracle::library()], Policy::New)],
        ),
        (".delete-library", vec![scripts::delete_library(text("library"))]),
        (".flush-libraries", vec![scripts::flush_libraries()]),
        ("a key that is used", vec![client("SET lively v EX 1200")]),
        (".renew", vec![internal::renew([&due])]),
        (
            ".end",
            vec![internal::end(0, vec![text("string"), text("absent")])],
        ),
        (
            "one that waits",
            vec![client("BLPOP queue 0"), client("BLPOP queue 0")],
        ),
        (
            ".unwait",
            vec![
                internal::unwait(1, Unwait::Error),
                internal::unwait(2, Unwait::Timeout),
            ],
        ),
        (".evict", vec![internal::evict([&candidate])]),
        (".gone", vec![internal::gone(7, 2)]),
    ]
}

/// The group of these commands, as a leader has stamped it.
fn group(number: u64, commands: &[Command]) -> Bytes {
    let (node, start) = (7, 2);
    let number = if commands.is_empty() { 0 } else { number };
    let group = entry::encode(Origin { node, start, number }, commands);
    entry::stamp(group, Entry::FIRST_FORMAT, AT, 42)
}

/// All groups of today, by name.
fn written() -> Vec<(&'static str, Bytes)> {
    let mut number = 0;
    let groups = groups().into_iter().map(|(name, commands)| {
        number += u64::from(!commands.is_empty());
        (name, group(number, &commands))
    });
    groups.collect()
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn records() -> bool {
    std::env::var("PLENARY_GOLDEN").is_ok_and(|word| word == "record")
}

/// The groups as they were first written: a name, a colon, bytes.
fn first_written() -> BTreeMap<String, Bytes> {
    let lines = std::fs::read_to_string(golden("groups.hex")).unwrap_or_default();
    let line = |line: &str| {
        let (name, hex) = line.rsplit_once(": ").expect("a name and bytes");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        (name.to_owned(), (0..hex.len()).step_by(2).map(byte).collect())
    };
    lines.lines().map(line).collect()
}

fn fixtures() -> BTreeMap<String, Bytes> {
    let mut fixtures = first_written();
    if records() {
        let mut lines = String::new();
        for (name, bytes) in written() {
            let bytes = fixtures.entry(name.to_owned()).or_insert(bytes);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(lines, "{name}: {hex}").expect("a String takes everything");
        }
        std::fs::write(golden("groups.hex"), lines).expect("the folder is ours");
    }
    fixtures
}

#[test]
fn what_is_written_today_is_what_was_written_first() {
    let fixtures = fixtures();
    for (name, bytes) in written() {
        let first = fixtures
            .get(name)
            .unwrap_or_else(|| panic!("{name} is new: PLENARY_GOLDEN=record cargo test --test formats"));
        assert_eq!(first, &bytes, "{name}: another layout needs another name");
        let entry = entry::decode(first).expect("it is read");
        let again = entry::stamp(
            entry::encode(entry.origin, &entry.commands),
            entry.format,
            entry.at,
            entry.seed,
        );
        assert_eq!(first, &again, "{name}: read and written again");
    }
    assert_eq!(
        fixtures.len(),
        written().len(),
        "what was written once stays here"
    );
}

/// What a machine makes of all of them, one after the other.
#[test]
fn what_was_written_first_comes_to_what_it_came_to_then() {
    let (fixtures, mut machine, mut answers) = (fixtures(), Machine::default(), String::new());
    for (name, _) in written() {
        let entry = entry::decode(&fixtures[name]).expect("it is read");
        let Outcome::Applied(replies) = machine.apply(&entry) else {
            panic!("{name}: a group in its turn");
        };
        writeln!(answers, "> {name}").expect("a String takes everything");
        for reply in replies {
            writeln!(answers, "{}", Answer::from(reply).render()).expect("a String takes everything");
        }
        for event in machine.store_mut().take_events() {
            writeln!(answers, "{event:?}").expect("a String takes everything");
        }
    }
    if records() {
        std::fs::write(golden("groups.txt"), &answers).expect("the folder is ours");
    }
    assert_eq!(
        answers,
        std::fs::read_to_string(golden("groups.txt")).expect("the answers are there")
    );
}

/// Every name that the machine knows of commands that only nodes write is in a fixture.
#[test]
fn no_kind_is_left_out() {
    let source =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine/internal.rs"));
    let source = source.expect("the source is there");
    let known = source.lines().filter_map(|line| line.trim().strip_prefix("b\"."));
    let known: Vec<String> = known
        .filter_map(|line| Some(format!(".{}", line.split_once("\" =>")?.0)))
        .collect();
    assert!(known.len() > 10, "{known:?}");
    let groups = groups();
    for name in known {
        let is_there = groups
            .iter()
            .flat_map(|(_, commands)| commands)
            .any(|command| command.argv[0] == name);
        assert!(is_there, "{name} has no fixture");
    }
}
