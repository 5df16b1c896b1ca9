//! Snapshots of formats 2 and 3 are read for ever: `golden/snapshot-v2.hex` and `golden/snapshot-v3.hex` hold everything that a machine could hold, as those
//! formats were first written.
//!
//! The same, in the format of today, is held to what is written today, so that a change of the writer is seen here: whoever changes what is written gives it the next
//! number, reads both, and adds a fixture beside this one (`PLENARY_GOLDEN=record cargo test --test snapshot_format` writes one where there is
//! none). Settings alone may grow: they are kept by name and count, so that those a fixture does not have are at their defaults.

mod oracle;

use bytes::Bytes;
use oracle::Answer;
use plenary::machine::access::Which;
use plenary::machine::effects;
use plenary::machine::entry::{Command, Entry, Millis, Origin};
use plenary::machine::event::Event;
use plenary::machine::reply::Reply;
use plenary::machine::scripts::{self, Policy};
use plenary::machine::{Machine, Outcome, internal, snapshot};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The log's clock.
const AT: Millis = 1_700_000_000_000;

/// What a client may have done, in its database.
const COMMANDS: &[(u8, &str)] = &[
    (0, "SET int 12"),
    (0, "SET embstr short PX 9000000"),
    (0, "SET raw ab"),
    (0, "APPEND raw cd"),
    (0, "SETBIT bits 1000 1"),
    (0, "RPUSH list a 1 -70000"),
    (0, "SADD intset 1 2 3"),
    (0, "SADD hashtable a b c"),
    (0, "SREM hashtable b"),
    (0, "ZADD listpack 1.5 a -inf b 2 c"),
    (0, "ZADD skiplist 1 a 2 b 3 c 4 d 5 e"),
    (0, "ZREM skiplist c"),
    (0, "HSET hash name value 17 18"),
    (0, "HSET great a 1 b 2 c 3 d 4 e 5"),
    (0, "HSET ending a 1 b 2 c 3"),
    (0, "HPEXPIRE ending 500000 FIELDS 1 a"),
    (0, "HPEXPIRE ending 700000 FIELDS 1 b"),
    (0, "PFADD hll a b c"),
    (0, "GEOADD places 13.361389 38.115556 Palermo"),
    (0, "XADD stream 1-1 f v g w"),
    (0, "XADD stream 2-1 f 300 g -7"),
    (0, "XADD stream 3-1 other v"),
    (0, "XADD stream 4-1 f v g w"),
    (0, "XADD stream 5-1 f v g w"),
    (0, "XDEL stream 2-1"),
    (0, "XGROUP CREATE stream group 0"),
    (0, "XREADGROUP GROUP group alice COUNT 2 STREAMS stream >"),
    (0, "XREADGROUP GROUP group bob COUNT 1 STREAMS stream >"),
    (0, "XCLAIM stream group bob 0 1-1 RETRYCOUNT 7"),
    (0, "XGROUP CREATE stream idle $ ENTRIESREAD 5"),
    (0, "XGROUP CREATE empty group $ MKSTREAM"),
    (15, "SET other database"),
    (
        15,
        "SESSION.CREATE session 1800000 OWNER ann ABSOLUTE 99000000 ITEMS 2 name Ann theme dark",
    ),
    (15, "SESSION.SAVE session 1 SET 1 theme light"),
    (
        15,
        "SESSION.CREATE locked 1800000 SLACK 5000 OWNER ann ITEMS 3 a 1 b 2 c 3 EXPIRE 1 b 600000",
    ),
    (15, "SESSION.SAVE locked 1 DEL 1 a SET 1 c 4"),
    (15, "SESSION.LOCK locked SHARED web-1 60000"),
    (15, "SESSION.LOCK locked SHARED web-2 70000"),
    (15, "SESSION.CREATE left 1800000 ITEMS 1 a 1"),
    (15, "SESSION.RENAME left moved GRACE 600000"),
    (15, "SESSION.CREATE ended 1800000 OWNER bob ITEMS 1 a 1"),
    (15, "SESSION.END ended"),
    (
        0,
        "ACL SETUSER ann on #9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 ~a:* %R~b:* resetchannels &news +@read -get \"(+set ~c:*)\"",
    ),
    (0, "ACL SETUSER off off nopass"),
    (0, "SET lively v EX 1200"),
];

/// What the machine answers that was read.
const ASKED: &[(u8, &str)] = &[
    (0, "MGET int embstr raw"),
    (0, "PEXPIRETIME embstr"),
    (0, "BITCOUNT bits"),
    (0, "LRANGE list 0 -1"),
    (0, "SMEMBERS intset"),
    (0, "SMEMBERS hashtable"),
    (0, "ZRANGE listpack 0 -1 WITHSCORES"),
    (0, "ZRANGE skiplist 0 -1 WITHSCORES"),
    (0, "HGETALL hash"),
    (0, "HGETALL great"),
    (0, "HPEXPIRETIME ending FIELDS 3 a b c"),
    (0, "PFCOUNT hll"),
    (0, "GEOPOS places Palermo"),
    (0, "XINFO STREAM stream FULL"),
    (0, "XPENDING stream group"),
    (0, "XINFO GROUPS stream"),
    (0, "XLEN empty"),
    (0, "OBJECT ENCODING raw"),
    (0, "OBJECT ENCODING intset"),
    (0, "OBJECT ENCODING hashtable"),
    (0, "OBJECT ENCODING listpack"),
    (0, "OBJECT ENCODING skiplist"),
    (0, "OBJECT ENCODING hash"),
    (0, "OBJECT ENCODING great"),
    (0, "DBSIZE"),
    (15, "GET other"),
    (15, "SESSION.LOAD session"),
];

/// The same of what came with format 3.
const ASKED_OF_3: &[(u8, &str)] = &[
    (15, "SESSION.LOAD locked"),
    (15, "SESSION.LOCKS locked"),
    (15, "SESSION.OWNED ann"),
    (15, "SESSION.EVENTS 0"),
];

/// The same of what came with format 4.
const ASKED_OF_4: &[(u8, &str)] = &[(0, "PTTL lively"), (0, "GET lively")];

/// Commands that wait, of node 7.
const WAITING: &[&str] = &[
    "BLPOP queue 0",
    "BZPOPMIN ranks 60",
    "XREAD BLOCK 5000 STREAMS news $",
    "XREADGROUP GROUP group carol BLOCK 0 STREAMS empty >",
];

fn words(line: &str) -> Vec<Vec<u8>> {
    oracle::words(line).expect("words")
}

fn command(db: u8, line: &str) -> Command {
    Command::new(db, words(line))
}

/// Everything a machine can hold.
fn furnished() -> Machine {
    let mut machine = Machine::default();
    let pairs = [
        ("notify-keyspace-events", "KEg"),
        ("acl-pubsub-default", "allchannels"),
        ("hash-max-listpack-entries", "4"),
        ("zset-max-listpack-entries", "3"),
        ("stream-node-max-entries", "2"),
        ("session-events", "content"),
        ("expire-slack-percent", "5"),
        ("expire-slack-keys", "lively"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    oracle::run_internal(&mut machine, AT, internal::set(&pairs));
    for (number, (db, line)) in COMMANDS.iter().enumerate() {
        let answer = oracle::run(&mut machine, AT + number as u64, number as u64, *db, &words(line));
        assert!(!matches!(answer, Answer::Error(_)), "{line}: {}", answer.render());
    }
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let effects = oracle::effects(AT, command(0, "SET script wrote"), Reply::OK);
    for command in [
        internal::key(Which::Primary, Some(&[1; 32])),
        internal::key(Which::Secondary, Some(&[2; 32])),
        scripts::script(
            text("e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
            text("return 1"),
            true,
        ),
        scripts::script(
            text("7f923f79fe76194c868d7e1d0820de36700eb649"),
            text("return 2"),
            false,
        ),
        scripts::libraries(vec![oracle::library()], Policy::New),
        effects::encode(vec![effects]),
    ] {
        oracle::run_internal(&mut machine, AT + 1_000, command);
    }
    let waiting = WAITING.iter().map(|line| command(0, line)).collect();
    let replies = group(&mut machine, 1, waiting);
    assert!(
        replies.iter().all(|reply| matches!(reply, Reply::Waiting(_))),
        "{replies:?}"
    );
    machine
}

/// A millisecond goes by, in the format of today.
fn tick(machine: &mut Machine) {
    machine.apply(&Entry {
        format: Entry::FORMAT,
        at: AT + 2_001,
        seed: 9,
        origin: Origin::default(),
        commands: Vec::new(),
    });
}

/// Applies the next group of node 7.
fn group(machine: &mut Machine, number: u64, commands: Vec<Command>) -> Vec<Reply> {
    let entry = Entry {
        format: Entry::FORMAT,
        at: AT + 2_000,
        seed: 9,
        origin: Origin {
            node: 7,
            start: 2,
            number,
        },
        commands,
    };
    match machine.apply(&entry) {
        Outcome::Applied(replies) => replies,
        other => panic!("a group in its turn: {other:?}"),
    }
}

fn bytes_of(machine: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(machine, &mut bytes).expect("a Vec takes everything");
    bytes
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The layout written today.
const FORMAT: u8 = 4;

static FIXTURE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = path(&format!("snapshot-v{FORMAT}.hex"));
    if std::env::var("PLENARY_GOLDEN").as_deref() == Ok("record") && !path.exists() {
        let mut hex = String::new();
        for line in bytes_of(&furnished()).chunks(60) {
            line.iter()
                .for_each(|byte| write!(hex, "{byte:02x}").expect("a String takes everything"));
            hex.push('\n');
        }
        std::fs::write(&path, hex).expect("the folder is ours");
    }
    fixture(FORMAT)
});

/// A snapshot in this format, as it was written then.
fn fixture(format: u8) -> Vec<u8> {
    let path = path(&format!("snapshot-v{format}.hex"));
    let hex = std::fs::read_to_string(&path).expect("the fixture is there");
    let digits: String = hex.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn read(bytes: &[u8]) -> Machine {
    snapshot::read(&mut &bytes[..]).expect("every format is read")
}

/// The content of a snapshot: before the settings, the settings, behind them. The head of `machine/snapshot.rs` says how it is laid out.
fn content(bytes: &[u8]) -> (Vec<u8>, Vec<[Vec<u8>; 2]>, Vec<u8>) {
    assert_eq!(&bytes[..12], [&b"PLENARY\x1a"[..], &[FORMAT, 0, 0, 0]].concat());
    let (mut content, mut at) = (Vec::new(), 12);
    let number = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
    };
    while bytes[at] == 1 {
        let length = number(bytes, at + 1);
        content.extend(&bytes[at + 9..at + 9 + length]);
        at += 9 + length;
    }
    let mut at = 1 + 4 * 8;
    at += 4 + 24 * number(&content, at);
    let (before, mut settings) = (content[..at].to_vec(), Vec::new());
    let count = number(&content, at);
    at += 4;
    let mut text = || {
        let (from, length) = (at + 4, number(&content, at));
        at = from + length;
        content[from..at].to_vec()
    };
    for _ in 0..count {
        settings.push([text(), text()]);
    }
    (before, settings, content[at..].to_vec())
}

#[test]
fn what_is_read_is_written_the_same_but_for_new_settings() {
    let (then, now) = (content(&FIXTURE), content(&bytes_of(&read(&FIXTURE))));
    assert_eq!(
        (&then.0, &then.2),
        (&now.0, &now.2),
        "another layout needs another number"
    );
    for setting in &then.1 {
        assert!(
            now.1.contains(setting),
            "{:?} is lost",
            String::from_utf8_lossy(&setting[0])
        );
    }
}

#[test]
fn what_is_written_today_is_what_was_written_then() {
    let mut machine = furnished();
    let (then, now) = (content(&FIXTURE), content(&bytes_of(&machine)));
    assert_eq!(
        (then.0, then.2),
        (now.0, now.2),
        "another layout needs another number"
    );
    let mut then = read(&FIXTURE);
    // What is written today is of a higher level, which stands among the settings, and to which the clock moved on.
    tick(&mut then);
    tick(&mut machine);
    assert_eq!(then.digest(), machine.digest());
}

/// What a machine answers that was read, as it was recorded.
fn answers(machine: &Machine, format: u8, asked: &[(u8, &str)]) {
    let mut answers = String::new();
    for (db, line) in asked {
        let answer = Answer::from(machine.read(AT + 3_000, *db, &command(*db, line).argv));
        writeln!(answers, "> {line}\n{}", answer.render()).expect("a String takes everything");
    }
    let path = path(&format!("snapshot-v{format}.txt"));
    if std::env::var("PLENARY_GOLDEN").as_deref() == Ok("record") {
        std::fs::write(&path, &answers).expect("the folder is ours");
    }
    assert_eq!(
        answers,
        std::fs::read_to_string(path).expect("the answers are there")
    );
}

#[test]
fn what_was_read_answers_as_it_did() {
    let machine = read(&FIXTURE);
    answers(&machine, FORMAT, &[ASKED, ASKED_OF_3, ASKED_OF_4].concat());
    let lively = machine.store().slots().find(|(_, key, _)| *key == b"lively");
    let (end, set_at) = (
        lively.map(|(_, _, slot)| slot.end),
        AT + COMMANDS.len() as u64 - 1,
    );
    assert_eq!(end.map(|end| end.life()), Some(1_200_000));
    assert_eq!(end.and_then(|end| end.deadline()), Some(set_at + 1_260_000));
    answers(&read(&fixture(3)), 3, &[ASKED, ASKED_OF_3].concat());
    let machine = read(&fixture(2));
    answers(&machine, 2, ASKED);
    let access = machine.store().access();
    let rules = |name: &[u8]| access.user(name).map(|user| user.is_on());
    assert_eq!([rules(b"ann"), rules(b"off")], [Some(true), Some(false)]);
    assert_eq!(
        access.key(Which::Secondary).and_then(|key| key.hash),
        Some([2; 32])
    );
    let known = machine.store().scripts();
    assert!(known.text(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db").is_some());
    assert!(known.function(b"f").is_some());
    assert_eq!(machine.store().settings().stream_node_max_entries, 2);
}

#[test]
fn who_waited_is_served() {
    let mut machine = read(&FIXTURE);
    assert_eq!(machine.store().waiting().len(), WAITING.len());
    let pushes = [
        "RPUSH queue x",
        "ZADD ranks 1 y",
        "XADD news 9-1 f v",
        "XADD empty 9-1 f v",
    ];
    group(&mut machine, 2, pushes.map(|line| command(0, line)).to_vec());
    let events = machine.store_mut().take_events().into_iter();
    let answered = events.filter(|event| matches!(event, Event::Answered { waiter, .. } if waiter.node == 7));
    assert_eq!(answered.count(), WAITING.len());
    assert!(machine.store().waiting().is_empty());
}
