//! Laws of the machine, tried with commands made by chance: same log, same state; snapshot and rest make the whole; resent is once; a
//! refusal and a read change nothing; a command touches no key that permissions do not see; a key is absent exactly from its deadline on; nothing panics.
//!
//! The commands follow the syntax that each row of the table states, so a row added later is tried without a word here
//! (`every_row_is_reached` tells if it is not). Not for what a single command means: that is in `tests/golden`.

use bytes::Bytes;
use plenary::machine::entry::{self, Command, Entry, Millis, Origin};
use plenary::machine::interface::{KeyUse, key_uses};
use plenary::machine::internal;
use plenary::machine::keyspace::{Chance, DATABASES, Store, Walk};
use plenary::machine::reply::Reply;
use plenary::machine::table::{self, Run, Spec};
use plenary::machine::{Machine, Outcome, snapshot};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::{BTreeMap, BTreeSet};

/// The same cases at every run, so that a failure is never seen only once; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` try others.
fn config(cases: u32) -> ProptestConfig {
    let defaults = ProptestConfig::default();
    let set = |name: &str| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if set("PROPTEST_CASES") {
            defaults.cases
        } else {
            cases
        },
        rng_seed: if set("PROPTEST_RNG_SEED") {
            defaults.rng_seed
        } else {
            RngSeed::Fixed(2026)
        },
        failure_persistence: None,
        ..defaults
    }
}

/// Rows that the log may carry.
fn rows() -> Vec<Spec> {
    table::all()
        .filter(|spec| !matches!(spec.run, Run::Local))
        .collect()
}

/// Values that are wrong in most places. None of them is a bit or byte of a string of very many bytes, which would take its time.
const HOSTILE: &[&[u8]] = &[
    b"",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"-9223372036854775807",
    b"18446744073709551615",
    b"4294967296",
    b"1e400",
    b"1e-5000",
    b"nan",
    b"-inf",
    b"0x",
    b"01",
    b"*",
    b"[",
    b"[^",
    b"\\",
    b"\0",
    b"\xff\xfe\r\n",
    b"..............................................................................................................",
];

const NUMBERS: &[&[u8]] = &[
    b"1", b"2", b"3", b"0", b"5", b"17", b"100", b"-2", b"1500", b"100000",
];

const VALUES: &[&[u8]] = &[
    b"1",
    b"12",
    b"3.5",
    b"a",
    b"value",
    b"a value longer than the 44 bytes that are embedded in an object",
    b"a value longer than the 64 bytes up to which a hash stays small, so that it becomes large",
];

/// Groups of commands whose keys hold a type of their own.
const GROUPS: &[&str] = &[
    "string",
    "hash",
    "session",
    "list",
    "set",
    "sorted-set",
    "stream",
    "cache",
];

const FIELDS: &[&[u8]] = &[b"f1", b"f2", b"f3", b"f4", b"f5", b"f6"];

const IDS: &[&[u8]] = &[
    b">", b">", b"0", b"1", b"5", b"17-2", b"100-*", b"1500", b"$", b"-", b"+",
];

const PATTERNS: &[&[u8]] = &[b"*", b"f*", b"?1", b"[a-z]*", b"string*"];

/// Makes arguments from the syntax that a row states.
struct Maker<'a> {
    chance: &'a mut Chance,
    group: &'a str,
    /// Of 100 values, how many are hostile.
    hostile: usize,
    /// Words of options that also stand where others do, and options that come again; nothing where each stands in its place, once at most.
    words: Vec<String>,
    argv: Vec<Bytes>,
}

/// What a syntax is made of.
enum Part {
    Word(String),
    /// `[a | b]` (may be left out) or `<a | b>`.
    Choice {
        optional: bool,
        repeated: bool,
        ways: Vec<Vec<Part>>,
    },
}

fn parts(words: &mut std::iter::Peekable<impl Iterator<Item = String>>) -> Vec<Vec<Part>> {
    let mut ways = vec![Vec::new()];
    while let Some(word) = words.next() {
        match word.as_str() {
            "]" | ">" => break,
            "|" => ways.push(Vec::new()),
            "[" | "<" => {
                let inner = parts(words);
                let repeats = |way: &Vec<Part>| matches!(way.last(), Some(Part::Word(word)) if word == "...");
                let (optional, repeated) = (word == "[", inner.iter().any(repeats));
                ways.last_mut().expect("one way: made above").push(Part::Choice {
                    optional,
                    repeated,
                    ways: inner,
                });
            }
            _ => ways
                .last_mut()
                .expect("one way: made above")
                .push(Part::Word(word)),
        }
    }
    ways
}

fn parse(syntax: &str) -> Vec<Part> {
    let mut spaced = syntax.to_owned();
    for mark in ["[", "]", "<", ">", "|", "..."] {
        spaced = spaced.replace(mark, &format!(" {mark} "));
    }
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    parts(&mut words.into_iter().peekable()).swap_remove(0)
}

impl Maker<'_> {
    fn percent(&mut self, percent: usize) -> bool {
        self.chance.below(100) < percent
    }

    fn one_of(&mut self, pool: &[&[u8]]) -> Bytes {
        Bytes::copy_from_slice(pool[self.chance.below(pool.len())])
    }

    fn follow(&mut self, parts: &[Part]) {
        for part in parts {
            match part {
                Part::Word(word) if word == "..." => {}
                Part::Word(word) => {
                    let value = if self.percent(self.hostile) {
                        self.one_of(HOSTILE)
                    } else if !self.words.is_empty() && self.percent(5) {
                        self.words[self.chance.below(self.words.len())].clone().into()
                    } else {
                        self.word(word)
                    };
                    self.argv.push(value);
                }
                Part::Choice {
                    optional,
                    repeated,
                    ways,
                } => {
                    let times = match (repeated, optional) {
                        // Streams are read with as many ids as keys, and items of sessions are counted.
                        (true, _) if matches!(self.group, "stream" | "session") => self.chance.below(2),
                        (true, _) => self.chance.below(4),
                        (false, true) if !self.words.is_empty() && self.percent(30) => {
                            1 + self.chance.below(3)
                        }
                        (false, true) => usize::from(self.percent(30)),
                        (false, false) => 1,
                    };
                    for _ in 0..times {
                        let way = self.chance.below(ways.len());
                        self.follow(&ways[way]);
                    }
                }
            }
        }
    }

    fn word(&mut self, word: &str) -> Bytes {
        let is_any = |parts: &[&str]| parts.iter().any(|part| word.contains(part));
        if word
            .chars()
            .all(|c| c.is_ascii_uppercase() || !c.is_ascii_alphabetic())
        {
            return Bytes::from(word.to_owned());
        }
        if word == "serialized-value" {
            // What DUMP gives of the string 12.
            return Bytes::from_static(b"\x00\xc0\x0c\x0a\x00<*\xf8Q\\\x04\xbc\xd5");
        }
        if word == "numfields" {
            return self.one_of(&[b"1", b"1", b"2", b"3"]);
        }
        // As many as most often follow.
        if word == "numkeys" || word == "numtags" {
            return self.one_of(&[b"1", b"1", b"2"]);
        }
        if word == "timeout" {
            return self.one_of(&[b"0", b"0.5", b"1", b"100"]);
        }
        if word == "session" || is_any(&["key", "source", "destination"]) {
            let group = match self.group {
                "geo" => "sorted-set",
                group if GROUPS.contains(&group) => group,
                _ => GROUPS[self.chance.below(GROUPS.len())],
            };
            let group = if self.percent(5) { "string" } else { group };
            return Bytes::from(format!("{group}{}", self.chance.below(4)));
        }
        if word == "tag" {
            return Bytes::from(format!("tag{}", self.chance.below(3)));
        }
        if is_any(&["field", "name", "member"]) {
            return self.one_of(FIELDS);
        }
        if is_any(&["pattern"]) {
            return self.one_of(PATTERNS);
        }
        if is_any(&["value", "element", "user", "message"]) {
            return self.one_of(VALUES);
        }
        if self.group == "stream" && matches!(word, "group" | "consumer") {
            let names = if word == "group" { 1 } else { 3 };
            return self.one_of(&FIELDS[..names]);
        }
        if self.group == "stream" && matches!(word, "id" | "last-id" | "max-deleted-id" | "start" | "end") {
            return self.one_of(IDS);
        }
        if word == "lease-ms" {
            return self.one_of(&[b"1", b"2", b"50", b"0"]);
        }
        if word == "version" {
            return self.one_of(&[b"*", b"*", b"1", b"2", b"3"]);
        }
        if word == "count" && self.group == "session" {
            return self.one_of(&[b"1", b"1", b"2"]);
        }
        if word == "count" || is_any(&["db", "cursor", "index"]) {
            return self.one_of(&NUMBERS[..4]);
        }
        if matches!(word, "min" | "max") {
            return self.one_of(&[b"1", b"(5", b"-inf", b"+inf", b"-", b"+", b"[f2", b"(f5"]);
        }
        if matches!(word, "score" | "increment" | "weight") && self.percent(30) {
            return self.one_of(&[b"1.5", b"-0", b"inf", b"-inf"]);
        }
        if word == "unit" {
            return self.one_of(&[b"m", b"km", b"ft", b"mi"]);
        }
        if word == "operation" {
            return self.one_of(&[b"AND", b"OR", b"XOR", b"NOT"]);
        }
        if word == "encoding" {
            return self.one_of(&[b"u1", b"u8", b"i5", b"i64", b"u63"]);
        }
        if word == "subcommand" {
            return self.one_of(&[b"GETREG", b"DECODE", b"ENCODING", b"TODENSE"]);
        }
        if word == "type" {
            return self.one_of(&[
                b"string", b"hash", b"session", b"list", b"set", b"zset", b"stream",
            ]);
        }
        if is_any(&["unix-time"]) {
            return self.one_of(&[b"1", b"5000", b"99999999999"]);
        }
        self.one_of(NUMBERS)
    }
}

/// A command of this row: mostly as its syntax says, sometimes with arguments that are not.
fn command(spec: &Spec, seed: u64, hostile: usize) -> Command {
    command_with(spec, seed, hostile, Vec::new())
}

/// A command of this row whose options come again, and whose keys and values are called as they are.
fn tangled(spec: &Spec, seed: u64) -> Command {
    let marks = |c: char| "[]<>|.".contains(c) || c.is_whitespace();
    let words = spec.syntax.split(marks);
    let is_option = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
    let words = words.filter(is_option).map(str::to_owned).collect();
    command_with(spec, seed, 0, words)
}

fn command_with(spec: &Spec, seed: u64, hostile: usize, words: Vec<String>) -> Command {
    let mut chance = Chance::new(seed);
    let db = if chance.below(100) < 2 {
        16 + chance.below(240)
    } else {
        chance.below(2)
    };
    let argv = spec
        .name
        .split('|')
        .map(|word| Bytes::from(word.to_owned()))
        .collect();
    let mut maker = Maker {
        chance: &mut chance,
        group: spec.group,
        hostile,
        words,
        argv,
    };
    maker.follow(&parse(spec.syntax));
    if maker.percent(hostile) {
        let length = maker.chance.below(maker.argv.len() + 3);
        let filler = maker.one_of(HOSTILE);
        maker.argv.resize(length.max(1), filler);
    }
    Command {
        db: u8::try_from(db).expect("below 256"),
        argv: maker.argv,
    }
}

/// A log: each group with its commands, in order, of three nodes by turns.
fn log(groups: usize) -> impl Strategy<Value = Vec<Entry>> {
    let commands = prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..6);
    let group = (0u64..400, any::<u64>(), 0u64..3, commands);
    prop::collection::vec(group, 1..groups).prop_map(|groups| {
        let (rows, mut at, mut numbers) = (rows(), 1_000, BTreeMap::new());
        let mut entry = |(later, seed, node, commands): (u64, u64, u64, Vec<(prop::sample::Index, u64)>)| {
            at += later;
            let number = numbers.entry(node).or_insert(0);
            *number += 1;
            let origin = Origin {
                node,
                start: 1,
                number: *number,
            };
            let commands = commands
                .into_iter()
                .map(|(row, seed)| (row.get(&rows), seed))
                .filter(|(spec, seed)| !wipes(spec) || seed.is_multiple_of(8))
                .map(|(spec, seed)| command(spec, seed, 6))
                .collect();
            Entry {
                format: Entry::FORMAT,
                at,
                seed,
                origin,
                commands,
            }
        };
        groups.into_iter().map(&mut entry).collect()
    })
}

/// Rows that empty whole databases are made rare, or little would ever be in them.
fn wipes(spec: &Spec) -> bool {
    spec.name.starts_with("FLUSH")
}

fn apply_all<'a>(machine: &mut Machine, entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Outcome> {
    entries
        .into_iter()
        .map(|entry| state_of(machine, entry))
        .collect()
}

/// What came of an entry, but for what `OBJECT` says of the use of keys: that is each node's own, and in no snapshot.
fn state_of(machine: &mut Machine, entry: &Entry) -> Outcome {
    let mut outcome = machine.apply(entry);
    if let Outcome::Applied(replies) = &mut outcome {
        for (reply, command) in replies.iter_mut().zip(&entry.commands) {
            if command.argv[0].eq_ignore_ascii_case(b"OBJECT") {
                *reply = Reply::Nil;
            }
        }
    }
    outcome
}

fn machine_of(entries: &[Entry]) -> Machine {
    let mut machine = Machine::default();
    apply_all(&mut machine, entries);
    machine
}

fn bytes_of(machine: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(machine, &mut bytes).expect("a Vec takes everything");
    bytes
}

/// A group of no node's, so that it may be applied at any point.
fn alone(at: Millis, commands: Vec<Command>) -> Entry {
    Entry {
        format: Entry::FORMAT,
        at,
        seed: 7,
        origin: Origin::default(),
        commands,
    }
}

fn reply_of(machine: &mut Machine, at: Millis, command: Command) -> Reply {
    match machine.apply(&alone(at, vec![command])) {
        Outcome::Applied(mut replies) => replies.remove(0),
        other => panic!("a group without callers was not applied: {other:?}"),
    }
}

/// Everything of a machine that can be seen and must be the same on two nodes.
fn assert_same(one: &Machine, other: &Machine) {
    assert_eq!(one.digest(), other.digest());
    assert_eq!(bytes_of(one), bytes_of(other));
    assert_eq!(one.next_deadline(), other.next_deadline());
    assert_eq!(one.store().bytes(), other.store().bytes());
    assert_eq!(one.once(), other.once());
    for db in 0..u8::try_from(DATABASES).expect("16") {
        assert_eq!(one.store().counts(db), other.store().counts(db));
        let mut cursor = 0;
        loop {
            let now = one.store().clock();
            let (next, found) = one.view(now, db).scan(cursor, 2);
            assert_eq!((next, found), other.view(now, db).scan(cursor, 2));
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn the_same_log_makes_the_same_state(entries in log(40)) {
        let (mut one, mut other) = (Machine::default(), Machine::default());
        prop_assert_eq!(apply_all(&mut one, &entries), apply_all(&mut other, &entries));
        assert_same(&one, &other);
    }

    /// Reads and evictions: what a node has seen read decides what it proposes as a leader, and nothing else.
    #[test]
    fn the_same_log_makes_the_same_state_whatever_was_read(
        entries in log(40),
        policy in prop::sample::select(vec!["allkeys-lru", "allkeys-lfu", "volatile-random", "volatile-ttl", "noeviction"]),
        room in 0usize..3_000,
    ) {
        let (mut one, mut leader) = (Machine::default(), Machine::default());
        let reads: Vec<Spec> = rows().into_iter().filter(|spec| matches!(spec.run, Run::Read(_))).collect();
        let most = Store::bytes_when_empty() + room;
        let limits = [("maxmemory", most.to_string()), ("maxmemory-policy", policy.to_owned())];
        let limits = internal::set(&limits.map(|(name, value)| (name.to_owned(), value)));
        for machine in [&mut one, &mut leader] {
            prop_assert_eq!(reply_of(machine, 1, limits.clone()), Reply::OK);
        }
        for entry in &entries {
            prop_assert_eq!(state_of(&mut one, entry), state_of(&mut leader, entry));
            let (at, mut chance) = (entry.at + 7, Chance::new(entry.seed));
            for _ in 0..4 {
                let command = command(&reads[chance.below(reads.len())], chance.draw(), 6);
                leader.read(at, command.db, &command.argv);
            }
            let chosen = leader.store().candidates(8, at, &mut chance, &mut Walk::default());
            // What has ended and was not removed yet is no candidate, and frees memory by itself.
            if leader.store().next_deadline().is_none_or(|deadline| deadline > at) {
                prop_assert_eq!(chosen.is_empty() && leader.store().is_full(), leader.store().is_out_of_memory());
            }
            let evict = alone(entry.at, vec![internal::evict(&chosen)]);
            let full = leader.store().is_full();
            let gone = one.apply(&evict);
            prop_assert_eq!(&gone, &leader.apply(&evict));
            if full && !chosen.is_empty() {
                prop_assert_ne!(gone, Outcome::Applied(vec![Reply::Integer(0)]), "what was chosen a moment ago goes");
            }
        }
        assert_same(&one, &leader);
    }

    #[test]
    fn a_snapshot_and_the_rest_make_the_whole(
        entries in log(40),
        cut in any::<prop::sample::Index>(),
        slack in prop::sample::select(vec!["0", "50"]),
    ) {
        let cut = cut.index(entries.len() + 1);
        let mut whole = Machine::default();
        let slack = internal::set(&[("expire-slack-percent".to_owned(), slack.to_owned())]);
        prop_assert_eq!(reply_of(&mut whole, 1, slack), Reply::OK);
        apply_all(&mut whole, &entries[..cut]);
        let (frozen, bytes) = (whole.freeze(), bytes_of(&whole));
        let mut restored = snapshot::read(&mut &bytes[..]).unwrap();
        assert_same(&whole, &restored);
        let rest = apply_all(&mut whole, &entries[cut..]);
        prop_assert_eq!(rest, apply_all(&mut restored, &entries[cut..]));
        assert_same(&whole, &restored);
        prop_assert_eq!(bytes_of(&frozen), bytes, "what came after a freeze reached it");
    }

    #[test]
    fn a_group_sent_again_is_applied_once(entries in log(40)) {
        let (mut once, mut again) = (Machine::default(), Machine::default());
        for (index, entry) in entries.iter().enumerate() {
            prop_assert_eq!(once.apply(entry), again.apply(entry));
            // It comes again, and so does an earlier one, under the stamp of a later leader.
            for late in [index, index / 2] {
                let late = Entry { at: entry.at, seed: !entry.seed, ..entries[late].clone() };
                prop_assert_eq!(again.apply(&late), Outcome::Past);
            }
        }
        assert_same(&once, &again);
    }

    #[test]
    fn a_refused_command_changes_nothing(entries in log(30), row in any::<prop::sample::Index>(), seeds in prop::collection::vec(any::<u64>(), 24)) {
        let mut machine = machine_of(&entries);
        let (at, rows) = (machine.store().clock() + 1, rows());
        for seed in seeds {
            machine.apply(&alone(at, Vec::new()));
            let (before, command) = (machine.digest(), command(row.get(&rows), seed, 30));
            if let Reply::Error(error) = reply_of(&mut machine, at, command.clone()) {
                prop_assert_eq!(machine.digest(), before, "{:?} was refused ({}) and has changed the state", command, error);
            }
        }
    }

    #[test]
    fn a_read_changes_nothing(entries in log(30), reads in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 8)) {
        let mut machine = machine_of(&entries);
        let at = machine.store().clock() + 1;
        machine.apply(&alone(at, Vec::new()));
        let before = machine.digest();
        let rows: Vec<Spec> = rows().into_iter().filter(|spec| matches!(spec.run, Run::Read(_))).collect();
        for (row, seed) in reads {
            let command = command(row.get(&rows), seed, 6);
            machine.read(at + seed % 5_000, command.db, &command.argv);
            reply_of(&mut machine, at, command.clone());
            prop_assert_eq!(machine.digest(), before, "{:?}", command);
        }
    }

    #[test]
    fn a_key_lives_exactly_to_the_end_of_the_millisecond_of_its_deadline(entries in log(40)) {
        let mut machine = machine_of(&entries);
        let clock = machine.store().clock();
        let slots: Vec<(u8, Vec<u8>, Option<Millis>)> =
            machine.store().slots().map(|(db, key, slot)| (db, key.to_vec(), slot.deadline())).collect();
        let of_keys = slots.iter().filter_map(|(_, _, deadline)| *deadline);
        let of_fields = machine.store().slots().filter_map(|(_, _, slot)| slot.value.first_deadline());
        let of_waiting = machine.store().waiting().next_deadline();
        prop_assert_eq!(machine.next_deadline(), of_keys.chain(of_fields).chain(of_waiting).min());
        for (db, key, deadline) in &slots {
            let lives = |now: Millis| machine.view(now, *db).slot(key).is_some();
            match deadline {
                Some(deadline) => {
                    prop_assert!(*deadline >= clock, "its time had come, and it is still held");
                    prop_assert_eq!((lives(*deadline), lives(deadline + 1)), (true, false));
                }
                None => prop_assert!(lives(Millis::MAX)),
            }
        }
        while let Some(deadline) = machine.next_deadline() {
            machine.apply(&alone(deadline + 1, Vec::new()));
            prop_assert!(machine.store().slots().all(|(_, _, slot)| slot.deadline().is_none_or(|at| at > deadline)));
        }
    }

    #[test]
    fn bytes_that_are_no_group_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        let _ = entry::decode(&Bytes::from(bytes.clone()));
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(entry) = entry::decode(&Bytes::from(bytes)) {
            Machine::default().apply(&entry);
        }
    }

    #[test]
    fn a_damaged_group_is_refused_or_applied(entries in log(6), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for entry in &entries {
            let group = entry::encode(entry.origin, &entry.commands);
            let group = entry::stamp(group, entry.format, entry.at, entry.seed);
            prop_assert_eq!(&entry::decode(&group).unwrap(), entry);
            let mut damaged = group.to_vec();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            if let Ok(entry) = entry::decode(&Bytes::from(damaged)) {
                Machine::default().apply(&entry);
            }
        }
    }

    #[test]
    fn a_damaged_snapshot_is_refused(entries in log(20), at in any::<prop::sample::Index>(), change in 1u8..) {
        let bytes = bytes_of(&machine_of(&entries));
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= change;
        prop_assert!(snapshot::read(&mut &damaged[..]).is_err());
        prop_assert!(snapshot::read(&mut &bytes[..at.index(bytes.len())]).is_err());
    }
}

/// No argument of any row panics: every row with up to six hostile arguments, on keys of every type and on none.
#[test]
fn no_arguments_panic() {
    let (mut chance, rows) = (Chance::new(2026), rows());
    let mut machine = Machine::default();
    let keys: [&[u8]; 4] = [b"string0", b"hash0", b"session0", b"none"];
    for (step, spec) in rows.iter().cycle().take(rows.len() * 400).enumerate() {
        if step % 50 == 0 {
            let fill = rows.iter().map(|spec| command(spec, chance.draw(), 0)).collect();
            machine.apply(&alone(step as Millis, fill));
        }
        let mut argv: Vec<Bytes> = spec
            .name
            .split('|')
            .map(|word| Bytes::from(word.to_owned()))
            .collect();
        for place in 0..chance.below(7) {
            let pools = [HOSTILE, HOSTILE, NUMBERS, FIELDS, &keys];
            let pool = if place == 0 {
                &keys[..]
            } else {
                pools[chance.below(pools.len())]
            };
            argv.push(Bytes::from_static(pool[chance.below(pool.len())]));
        }
        machine.read(step as Millis, 0, &argv);
        reply_of(&mut machine, step as Millis, Command { db: 0, argv });
    }
    // Times that no clock shows, and numbers that no node counts to.
    for at in [u64::MAX / 2, i64::MAX.unsigned_abs(), u64::MAX - 1, u64::MAX] {
        let commands = rows
            .iter()
            .flat_map(|spec| (0..20).map(|_| command(spec, at, 0)))
            .collect();
        let origin = Origin {
            node: u64::MAX,
            start: at,
            number: 1,
        };
        machine.apply(&Entry {
            format: Entry::FORMAT,
            at,
            seed: u64::MAX,
            origin,
            commands,
        });
    }
    let restored = snapshot::read(&mut &bytes_of(&machine)[..]).unwrap();
    assert_same(&machine, &restored);
}

/// The laws above are empty for a row whose every command is refused: then teach [`Maker::word`] the words of its syntax.
#[test]
fn every_row_is_reached() {
    let (mut chance, rows) = (Chance::new(1), rows());
    let (mut machine, mut reached) = (Machine::default(), BTreeSet::new());
    for (at, spec) in rows.iter().cycle().take(rows.len() * 300).enumerate() {
        if wipes(spec) && !chance.draw().is_multiple_of(8) {
            continue;
        }
        let reply = reply_of(&mut machine, at as Millis, command(spec, chance.draw(), 0));
        if !matches!(reply, Reply::Error(_)) {
            reached.insert(spec.name);
        }
    }
    let missed: Vec<&str> = rows
        .iter()
        .map(|spec| spec.name)
        .filter(|name| !reached.contains(name))
        .collect();
    assert!(
        missed.is_empty(),
        "no command of these rows was ever accepted: {missed:?}"
    );
}

/// What permissions are asked about (`key_uses`) is all that a command can touch: it comes to the same where no other key is there, and changes none
/// that it is not said to write. Not for rows without keys, which look at everything or at nothing, nor for `MAX`, which ends other sessions of an
/// owner: a frozen copy knows of no owners.
#[test]
fn a_command_touches_only_the_keys_that_permissions_see() {
    let (mut chance, mut machine) = (Chance::new(2026), Machine::default());
    let (rows, mut tried) = (rows(), Vec::new());
    for spec in &rows {
        let times = match spec.finder {
            Some(_) => 200,
            None if spec.keys().0 > 0 => 10,
            None => 0,
        };
        tried.extend(std::iter::repeat_n(spec, times));
    }
    for at in 1..tried.len() {
        let spec: &Spec = tried.swap_remove(chance.below(tried.len()));
        let at = at as Millis;
        if at % 50 == 1 {
            let fill = rows.iter().filter(|spec| !wipes(spec));
            let fill = fill.map(|spec| command(spec, chance.draw(), 0));
            machine.apply(&alone(at, fill.collect()));
        }
        let command = tangled(spec, chance.draw());
        let argv = &command.argv;
        machine.apply(&alone(at, Vec::new()));
        let uses = key_uses(spec, argv);
        let (mut whole, mut part) = (machine.freeze(), machine.freeze());
        let others: Vec<(u8, Bytes)> = machine
            .store()
            .slots()
            .map(|(db, key, _)| (db, Bytes::copy_from_slice(key)))
            .filter(|(_, key)| uses.iter().all(|of| argv[of.at] != key))
            .collect();
        // As many changes on either side: versions count them, and tokens follow from versions.
        let each = |make: &dyn Fn(&(u8, Bytes)) -> Command| alone(at, others.iter().map(make).collect());
        whole.apply(&each(&|(db, _)| Command::new(*db, ["SET", "beside", "1"])));
        part.apply(&each(&|(db, key)| {
            Command::new(*db, [Bytes::from("DEL"), key.clone()])
        }));
        let before = seen(&whole);
        let reply = reply_of(&mut whole, at, command.clone());
        if !reads_unnamed_keys(spec, argv) {
            let alone = reply_of(&mut part, at, command.clone());
            assert_eq!(reply, alone, "{command:?} with and without other keys");
        }
        let after = seen(&whole);
        for place in before.keys().chain(after.keys()) {
            // As in Redis: PFCOUNT and PFDEBUG change how a value is held (`RW access`), and XREADGROUP what its group was given.
            let may = |of: &KeyUse| of.writes() || of.flags == "RW access" || spec.name == "XREADGROUP";
            let said = uses.iter().any(|of| argv[of.at] == place.1 && may(of));
            assert!(
                said || before.get(place) == after.get(place),
                "{command:?} changed {place:?}, but uses {uses:?}"
            );
        }
        machine.apply(&alone(at, vec![command]));
    }
}

/// The version and the deadline of each key.
fn seen(machine: &Machine) -> BTreeMap<(u8, Bytes), (u64, Option<Millis>)> {
    let slots = machine.store().slots();
    slots
        .map(|(db, key, slot)| ((db, Bytes::copy_from_slice(key)), (slot.version, slot.deadline())))
        .collect()
}

/// `SORT` with other keys is asked for by [`plenary::machine::access::User::permits_unnamed_keys`]; an entry of the cache holds the names of its tags.
fn reads_unnamed_keys(spec: &Spec, argv: &[Bytes]) -> bool {
    let is_one = |word: &Bytes| word.eq_ignore_ascii_case(b"BY") || word.eq_ignore_ascii_case(b"GET");
    spec.group == "cache" || spec.name.starts_with("SORT") && argv.iter().any(is_one)
}
