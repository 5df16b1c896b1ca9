//! Whole data folders, as the programs of former commits left them when they were killed: log, records, marks and a snapshot. Today's program opens each, finds all that
//! was acknowledged, and goes on in it; its log may be moved to the other kind of files then.
//!
//! `golden/folder-COMMIT-KIND.txt` has what the former program answered, then its files. Each stays for ever. A new one is recorded by adding a commit to
//! `upgrade/commits` and `PLENARY_GOLDEN=record cargo test --test data_folder`: it builds the program of that commit, and writes no fixture anew that is there.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod oracle;
mod process;

use common::free_port;
use oracle::Answer;
use process::{Process, plenary, program, wait_until};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Levels, and the commits of a program of each, the oldest whose formats are promised first.
const COMMITS: &str = include_str!("upgrade/commits");

/// The kinds of log.
const KINDS: [&str; 2] = ["segments", "sled"];

/// What is in the snapshot. Lives end in 2100.
const BEFORE: &[&str] = &[
    "SET string \"\\x00\\xff\"",
    "SET lively v PXAT 4102444800000",
    "SETBIT bits 1000 1",
    "RPUSH list a 1 -70000",
    "SADD numbers 1 2 3",
    "SADD set a b c",
    "ZADD ranks 1.5 a -inf b 2 c",
    "HSET hash name value 17 18",
    "HPEXPIREAT hash 4102444800000 FIELDS 1 name",
    "PFADD hll a b c",
    "GEOADD places 13.361389 38.115556 Palermo",
    "XADD stream 1-1 f v g w",
    "XADD stream 2-1 other v",
    "XGROUP CREATE stream group 0",
    "XREADGROUP GROUP group alice COUNT 2 STREAMS stream >",
    "SESSION.CREATE session 3000000000000 OWNER ann ITEMS 2 name Ann theme dark",
    "CACHE.SET page value PX 3000000000000 TAGS 1 tag",
    "CACHE.SET gone value PX 3000000000000 TAGS 1 old",
    "CACHE.INVALIDATE old",
    "ACL SETUSER ann on #9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 ~a:* +@read",
    "CONFIG SET notify-keyspace-events KEg hash-max-listpack-entries 4",
    "SCRIPT LOAD \"return 1\"",
    "FUNCTION LOAD \"#!lua name=library\\nredis.register_function{function_name='f',callback=function() return 7 end,flags={'no-writes'}}\"",
];

/// What is in the log alone.
const BEHIND: &[&str] = &[
    "APPEND string more",
    "LPOP list",
    "SREM set b",
    "ZINCRBY ranks 3 a",
    "HSET hash late value",
    "XADD stream 3-1 f v",
    "XACK stream group 1-1",
    "SESSION.SAVE session 1 SET 1 theme light",
    "EVAL \"redis.call('SET', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[1])\" 1 counted 41",
    "DEL numbers",
];

/// What the former program was asked at last, and today's is at first.
const ASKED: &[&str] = &[
    "GET string",
    "GET lively",
    "PEXPIRETIME lively",
    "BITCOUNT bits",
    "LRANGE list 0 -1",
    "EXISTS numbers",
    "SMEMBERS set",
    "ZRANGE ranks 0 -1 WITHSCORES",
    "HGETALL hash",
    "HPEXPIRETIME hash FIELDS 2 name late",
    "PFCOUNT hll",
    "GEOPOS places Palermo",
    "XRANGE stream - +",
    "XPENDING stream group",
    "SESSION.GET session name theme",
    "SESSION.OWNED ann",
    "CACHE.GET page",
    "CACHE.GET gone",
    "ACL GETUSER ann",
    "CONFIG GET hash-max-listpack-entries",
    "GET counted",
    "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
    "FCALL_RO f 0",
    "DBSIZE",
];

fn ask(node: &Process, line: &str) -> Answer {
    let words = oracle::words(line).expect("words");
    Answer::from(node.client().unwrap().call(&words).expect(line))
}

/// What a node answers to all that is asked, and the digest of its state.
fn answers(node: &Process) -> String {
    let mut answers = String::new();
    for line in ASKED {
        writeln!(answers, "> {line}\n{}", ask(node, line).render()).unwrap();
    }
    let (_, digest) = node.digest().unwrap();
    writeln!(answers, "> digest\n{digest}").unwrap();
    answers
}

/// Lets a node take a snapshot of all that it has.
fn save(node: &Process) {
    let has = node.status().unwrap().last_log_index;
    ask(node, "SAVE");
    wait_until("a snapshot is taken", || match node.status()?.snapshot_index {
        index if index >= has => Ok(()),
        index => Err(format!("{index} of {has}")),
    });
}

/// A node by itself that is not started.
fn alone(folder: &Path, kind: &str) -> Process {
    let address = format!("127.0.0.1:{}", free_port());
    Process::new(folder, "data", &address, &["--log-store", kind])
}

/// The file of a folder that the program of this commit has left.
fn path(commit: &str, kind: &str) -> PathBuf {
    let name = format!("tests/golden/folder-{}-{kind}.txt", &commit[..8]);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Lets the program of this commit fill a folder, and kills it.
fn record(commit: &str, kind: &str) -> String {
    let former = process::older::build(commit).expect("a repository with its history");
    let folder = tempfile::tempdir().unwrap();
    let mut node = alone(folder.path(), kind);
    node.start_by(&mut program(&former, ["serve"]));
    node.ready();
    BEFORE.iter().for_each(|line| drop(ask(&node, line)));
    save(&node);
    BEHIND.iter().for_each(|line| drop(ask(&node, line)));
    let mut text = answers(&node);
    node.kill();
    pack(&node.data, Path::new(""), &mut text);
    text
}

/// Bytes of a line of a file; lines of zeros are left out.
const LINE_BYTES: usize = 64;

/// Appends the files of a folder: a line with name and length, then places and bytes.
fn pack(folder: &Path, within: &Path, text: &mut String) {
    let mut items: Vec<_> = std::fs::read_dir(folder.join(within))
        .unwrap()
        .map(|item| item.unwrap().file_name())
        .collect();
    items.sort();
    for name in items {
        let name = within.join(name);
        if folder.join(&name).is_dir() {
            pack(folder, &name, text);
            continue;
        }
        let content = std::fs::read(folder.join(&name)).unwrap();
        writeln!(text, "= {} {}", name.display(), content.len()).unwrap();
        for (number, line) in content.chunks(LINE_BYTES).enumerate() {
            if line.iter().any(|byte| *byte != 0) {
                let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(text, "{} {hex}", number * LINE_BYTES).unwrap();
            }
        }
    }
}

/// Puts the files of a fixture into a folder. What was answered then.
fn unpack(fixture: &str, folder: &Path) -> String {
    let files = fixture.find("\n= ").expect("files come behind answers") + 1;
    let mut content: Vec<u8> = Vec::new();
    // From the end: what a file holds comes before its name then.
    for line in fixture[files..].lines().rev() {
        let (first, last) = line.rsplit_once(' ').expect("two words");
        if let Some(name) = first.strip_prefix("= ") {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = File::create(path).unwrap();
            file.write_all(&std::mem::take(&mut content)).unwrap();
            file.set_len(last.parse().expect("a length")).unwrap();
            continue;
        }
        let place: usize = first.parse().expect("a place");
        let end = place + last.len() / 2;
        content.resize(content.len().max(end), 0);
        for (at, byte) in content[place..end].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&last[2 * at..2 * at + 2], 16).expect("two digits");
        }
    }
    fixture[..files].to_owned()
}

fn fixture(commit: &str, kind: &str) -> String {
    // Two tests may miss the same one: it is recorded once.
    static RECORDING: Mutex<()> = Mutex::new(());
    let path = path(commit, kind);
    let recording = RECORDING.lock();
    if std::env::var("PLENARY_GOLDEN").as_deref() == Ok("record") && !path.exists() {
        std::fs::write(&path, record(commit, kind)).expect("the folder is ours");
    }
    drop(recording);
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; the head of this file says how it is recorded",
            path.display()
        )
    })
}

/// Opens the folder of this program and kind with the log in this kind of files, and goes on in it.
fn goes_on(commit: &str, kind: &str, with: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = alone(folder.path(), with);
    let then = unpack(&fixture(commit, kind), &node.data);
    node.start_by(&mut plenary(["serve"]));
    node.ready();
    let of = format!("{commit} {kind}, opened with {with}");
    assert_eq!(answers(&node), then, "{of}");
    for line in [
        "SET after the-upgrade",
        "HSET hash again value",
        "SAVE",
        "INCR counted",
    ] {
        assert!(!matches!(ask(&node, line), Answer::Error(_)), "{of}: {line}");
    }
    let (_, digest) = node.digest().unwrap();
    node.kill();
    node.start_by(&mut plenary(["serve"]));
    node.ready();
    assert_eq!(node.digest().unwrap().1, digest, "{of}");
    assert_eq!(ask(&node, "GET after").render(), "\"the-upgrade\"", "{of}");
    assert_eq!(ask(&node, "GET counted").render(), "\"43\"", "{of}");
}

fn commits() -> impl Iterator<Item = &'static str> {
    let commits = COMMITS.lines().map(|line| line.split_once(' '));
    commits.map(|commit| commit.expect("a level and a commit").1)
}

#[test]
fn each_former_folder_is_opened_and_gone_on_with() {
    for commit in commits() {
        KINDS.iter().for_each(|kind| goes_on(commit, kind, kind));
    }
}

#[test]
fn each_former_log_may_be_moved_to_the_other_kind() {
    for commit in commits() {
        goes_on(commit, KINDS[0], KINDS[1]);
        goes_on(commit, KINDS[1], KINDS[0]);
    }
}
