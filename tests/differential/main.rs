//! Random commands of every type, valid and not, answered by a machine and by a real Redis: every answer must be the same.
//!
//! Runs where `PLENARY_REDIS_SERVER` names the server. `PLENARY_COMMANDS` says how many commands (a million take minutes; fewer without
//! it), `PLENARY_SEED` repeats a run. Each file beside this one knows a type; a type is put to the test as soon as the table has its
//! commands. What differs is cut down to the commands that it needs, and told with their answers; the run goes on with others.
//!
//! Time is left out: deadlines are far away or in the past, and answers that count from now are not asked for (scripts have them); nor is
//! DBSIZE, in which Redis counts what has ended but was not found yet.

#![allow(unreachable_pub, reason = "one program: what its files share")]

mod bits;
mod common;
mod geo;
mod grammar;
mod hash;
mod hll;
mod keys;
mod list;
#[path = "../oracle/mod.rs"]
mod oracle;
mod set;
mod sort;
mod stream;
mod string;
mod zset;

use grammar::{Judged, Kind, Shape, pick};
use oracle::{Answer, Server, quote};
use plenary::machine::Machine;
use plenary::machine::keyspace::Chance;
use plenary::machine::table::{self, Run};
use std::collections::{BTreeMap, BTreeSet};

/// Commands of a sequence: short ones begin anew often, long ones come far.
const LENGTHS: [usize; 6] = [20, 200, 2_000, 20, 200, 10_000];

/// Commands of a run, if nothing says how many.
const COMMANDS: usize = 60_000;

/// Commands that are on their way to Redis at once.
const BATCH: usize = 250;

/// Differences after which a run has seen enough; of one command only the first is told.
const DIFFERENCES: usize = 12;

/// Replays that cutting one sequence down may take.
const REPLAYS: usize = 400;

/// Any `at` will do as long as past and future are those of a real clock.
const AT: u64 = 1_700_000_000_000;

const KINDS: [&Kind; 11] = [
    &string::KIND,
    &hash::KIND,
    &keys::KIND,
    &list::KIND,
    &set::KIND,
    &zset::KIND,
    &geo::KIND,
    &bits::KIND,
    &hll::KIND,
    &stream::KIND,
    &sort::KIND,
];

/// A key of any type.
fn any_key(chance: &mut Chance) -> &'static str {
    let kind = KINDS[chance.below(KINDS.len())];
    pick(chance, kind.keys)
}

/// What happens to both sides.
#[derive(Clone)]
enum Step {
    Run {
        db: u8,
        judged: Judged,
        argv: Vec<Vec<u8>>,
    },
    /// What one side dumped is restored on the other.
    Carry { db: u8, key: Vec<u8>, to_redis: bool },
}

/// A type, with those of its shapes that the table knows.
struct Generator {
    kind: &'static Kind,
    shapes: Vec<Shape>,
    weight: usize,
}

impl Generator {
    /// None if the table lacks the type: the command of its first shape.
    fn of(kind: &'static Kind) -> Option<Self> {
        let mut shapes: Vec<Shape> = kind.shapes.iter().map(|line| Shape::parse(line)).collect();
        let first = shapes[0].names.clone();
        shapes.retain(|shape| is_known(&shape.names));
        let weight = shapes.iter().map(|shape| shape.weight).sum();
        is_known(&first).then_some(Self { kind, shapes, weight })
    }

    fn generate(&self, chance: &mut Chance) -> (Judged, Vec<Vec<u8>>) {
        let mut at = chance.below(self.weight);
        let shape = self
            .shapes
            .iter()
            .find(|shape| match at.checked_sub(shape.weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
        let shape = shape.expect("below the sum of the weights");
        (shape.judged, shape.fill(self.kind, chance))
    }
}

fn is_known(names: &[String]) -> bool {
    let row = names.iter().find_map(|name| table::by_name(name));
    row.is_some_and(|row| !matches!(row.run, Run::Local))
}

fn argv(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// What no shape says: an argument less, one more, another one.
fn spoil(argv: &mut Vec<Vec<u8>>, chance: &mut Chance) {
    const ODD: [&str; 11] = [
        "",
        "-1",
        "0",
        "x",
        "nan",
        "(",
        "[a",
        "\0",
        "9223372036854775808",
        "-9223372036854775808",
        "1.5",
    ];
    let name = argv[0].to_ascii_uppercase();
    // Chance, cursors and seconds that pass would make a difference of what is none.
    let is_one_of = |parts: &[&[u8]]| {
        parts
            .iter()
            .any(|part| name.windows(part.len()).any(|window| window == *part))
    };
    if is_one_of(&[b"SCAN", b"RAND", b"SPOP"]) {
        return;
    }
    let timed = is_one_of(&[b"EX", b"SET", b"RESTORE"]);
    let at = 1 + chance.below(argv.len());
    match chance.below(5) {
        0 => argv.truncate(argv.len().max(2) - 1),
        1 => argv[0].make_ascii_lowercase(),
        _ if timed => {}
        2 if at < argv.len() => drop(argv.remove(at)),
        3 => argv.push(pick(chance, &ODD).as_bytes().to_vec()),
        _ if at < argv.len() => argv[at] = pick(chance, &ODD).as_bytes().to_vec(),
        _ => {}
    }
}

/// A sequence: of one type and what is done to keys, or of all.
fn sequence(generators: &[Generator], seed: u64, length: usize) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let focus = (chance.below(2) == 0).then(|| chance.below(generators.len()));
    let carries = table::by_name("DUMP").is_some() && table::by_name("RESTORE").is_some();
    let mut steps = Vec::with_capacity(length);
    while steps.len() < length {
        let generator = match focus {
            Some(at) if chance.below(10) > 0 => &generators[at],
            _ => &generators[chance.below(generators.len())],
        };
        let db = [0, 0, 0, 0, 0, 0, 1, 2][chance.below(8)];
        if carries && chance.below(60) == 0 {
            let key = pick(&mut chance, generator.kind.keys).as_bytes().to_vec();
            let to_redis = chance.below(2) == 0;
            let argv = vec![b"PERSIST".to_vec(), key.clone()];
            steps.push(Step::Run {
                db,
                judged: Judged::Whole,
                argv,
            });
            steps.push(Step::Carry { db, key, to_redis });
            continue;
        }
        let (mut judged, mut argv) = generator.generate(&mut chance);
        if chance.below(25) == 0 {
            spoil(&mut argv, &mut chance);
            if judged == Judged::Whole && argv.len() > 1 {
                judged = Judged::Sorted;
            }
        }
        steps.push(Step::Run { db, judged, argv });
    }
    steps.extend(reads(&steps));
    steps
}

/// After all, every key must hold the same.
fn reads(steps: &[Step]) -> Vec<Step> {
    let known: BTreeSet<&[u8]> = KINDS
        .iter()
        .flat_map(|kind| kind.keys)
        .map(|key| key.as_bytes())
        .collect();
    let mut seen = BTreeSet::new();
    for step in steps {
        if let Step::Run { db, argv, .. } = step {
            let keys = argv[1..]
                .iter()
                .filter(|argument| known.contains(argument.as_slice()));
            seen.extend(keys.map(|key| (*db, key.clone())));
        }
    }
    let asks = [
        "TYPE key",
        "PEXPIRETIME key",
        "GET key",
        "HGETALL key",
        "LRANGE key 0 -1",
        "SMEMBERS key",
        "ZRANGE key 0 -1 WITHSCORES",
        "XRANGE key - +",
        "OBJECT ENCODING key",
    ];
    let asks = asks.map(|ask| ask.split(' ').collect::<Vec<_>>());
    let mut reads = Vec::new();
    for (db, key) in seen {
        for ask in asks.iter().filter(|ask| table::by_name(ask[0]).is_some()) {
            let argv = ask.iter().map(|word| {
                if *word == "key" {
                    key.clone()
                } else {
                    word.as_bytes().to_vec()
                }
            });
            reads.push(Step::Run {
                db,
                judged: Judged::Sorted,
                argv: argv.collect(),
            });
        }
    }
    reads
}

/// The machine's answer and Redis'.
type Answers = (Answer, Answer);

/// Plays steps from nothing on; the first that differs, with both answers.
fn play(redis: &mut Server, seed: u64, steps: &[Step]) -> Option<(usize, Answers)> {
    redis.reset();
    let mut machine = Machine::default();
    let mut at = 0;
    while at < steps.len() {
        if let Step::Carry { db, key, to_redis } = &steps[at] {
            let answers = carry(redis, &mut machine, seed, *db, key, *to_redis);
            if answers.0 != answers.1 {
                return Some((at, answers));
            }
            at += 1;
            continue;
        }
        let runs: Vec<_> = steps[at..]
            .iter()
            .map_while(|step| match step {
                Step::Run { db, judged, argv } => Some((*db, *judged, argv)),
                Step::Carry { .. } => None,
            })
            .take(BATCH)
            .collect();
        let ours_and_theirs = redis.batch(runs.iter().map(|(db, _, argv)| (*db, argv.as_slice())), || {
            let ours = runs
                .iter()
                .map(|(db, _, argv)| oracle::run(&mut machine, AT, seed, *db, argv));
            ours.collect::<Vec<_>>()
        });
        for (number, ((_, judged, argv), (ours, theirs))) in runs.iter().zip(ours_and_theirs).enumerate() {
            let [ours, theirs] = [ours, theirs].map(|answer| comparable(*judged, argv, answer));
            if ours != theirs {
                return Some((at + number, (ours, theirs)));
            }
        }
        at += runs.len();
    }
    None
}

fn comparable(judged: Judged, argv: &[Vec<u8>], answer: Answer) -> Answer {
    let answer = stream::without_times(argv, answer);
    match judged {
        Judged::Whole => answer,
        Judged::Sorted => answer.sorted(),
        Judged::Form => answer.form(),
    }
}

/// Dumps a key on one side and restores it on the other; what the dump and the restoring came to, and what they should have.
fn carry(
    redis: &mut Server,
    machine: &mut Machine,
    seed: u64,
    db: u8,
    key: &[u8],
    to_redis: bool,
) -> Answers {
    let dump = [b"DUMP".to_vec(), key.to_vec()];
    let payload = if to_redis {
        oracle::run(machine, AT, seed, db, &dump)
    } else {
        redis.run(db, &dump)
    };
    let Answer::Bulk(payload) = payload else {
        return (payload, Answer::Nil);
    };
    let restore = [
        b"RESTORE".to_vec(),
        key.to_vec(),
        b"0".to_vec(),
        payload,
        b"REPLACE".to_vec(),
    ];
    let ok = Answer::Simple(b"OK".to_vec());
    if to_redis {
        (ok, redis.run(db, &restore))
    } else {
        (oracle::run(machine, AT, seed, db, &restore), ok)
    }
}

/// The steps without those that the last one's difference does not need.
fn shrink(redis: &mut Server, seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    let mut replays = 0;
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at + 1 < steps.len() && replays < REPLAYS {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len() - 1));
            replays += 1;
            // Any difference will do, as long as it is one.
            if let Some((last, _)) = play(redis, seed, &fewer) {
                fewer.truncate(last + 1);
                steps = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    steps
}

fn show(step: &Step) -> String {
    match step {
        Step::Run { db, argv, .. } => {
            let words: Vec<String> = argv.iter().map(|argument| quote(argument)).collect();
            let db = if *db == 0 {
                String::new()
            } else {
                format!("db={db} ")
            };
            format!("{db}{}", words.join(" "))
        }
        Step::Carry { db, key, to_redis } => {
            let way = if *to_redis {
                "the machine's, into redis"
            } else {
                "redis', into the machine"
            };
            format!("db={db} DUMP and RESTORE of {}: {way}", quote(key))
        }
    }
}

/// What a difference needs, with the answers to the last command.
fn tell(redis: &mut Server, seed: u64, steps: &[Step]) -> String {
    let Some((last, (ours, theirs))) = play(redis, seed, steps) else {
        return "a difference that did not come again".to_owned();
    };
    let lines: Vec<String> = steps[..=last].iter().map(show).collect();
    format!(
        "{}\nours:  {}\nredis: {}",
        lines.join("\n"),
        ours.render(),
        theirs.render()
    )
}

fn name_of(step: &Step) -> String {
    match step {
        Step::Run { argv, .. } => String::from_utf8_lossy(&argv[0]).to_ascii_uppercase(),
        Step::Carry { to_redis, .. } => {
            format!("carry to {}", if *to_redis { "redis" } else { "the machine" })
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
    )
}

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    // The same seed each time, so that a red run is red for its change and not for its luck.
    let seed = setting("PLENARY_SEED").unwrap_or(1);
    let wanted =
        setting("PLENARY_COMMANDS").map_or(COMMANDS, |number| usize::try_from(number).expect("64 bits"));
    let generators: Vec<Generator> = KINDS.iter().filter_map(|kind| Generator::of(kind)).collect();
    let off: Vec<&str> = KINDS
        .iter()
        .map(|kind| kind.name)
        .filter(|name| generators.iter().all(|generator| generator.kind.name != *name))
        .collect();
    println!("PLENARY_SEED={seed} PLENARY_COMMANDS={wanted}; types the table lacks: {off:?}");

    let mut chance = Chance::new(seed);
    let (mut compared, mut asked) = (0, BTreeMap::<String, usize>::new());
    let mut differences = BTreeMap::<String, String>::new();
    for length in LENGTHS.iter().cycle() {
        if compared >= wanted || differences.len() >= DIFFERENCES {
            break;
        }
        let seed = chance.draw();
        let mut steps = sequence(&generators, seed, *length);
        let difference = play(&mut redis, seed, &steps);
        if let Some((last, _)) = &difference {
            steps.truncate(last + 1);
        }
        compared += steps.len();
        steps
            .iter()
            .for_each(|step| *asked.entry(name_of(step)).or_default() += 1);
        let Some(last) = steps.last().filter(|_| difference.is_some()) else {
            continue;
        };
        if !differences.contains_key(&name_of(last)) {
            let name = name_of(last);
            let steps = shrink(&mut redis, seed, steps);
            differences.insert(name, tell(&mut redis, seed, &steps));
        }
    }
    let commands: Vec<String> = asked
        .iter()
        .map(|(name, times)| format!("{name} {times}"))
        .collect();
    println!("{compared} commands compared: {}", commands.join(", "));
    let told: Vec<String> = differences.into_values().collect();
    assert!(
        told.is_empty(),
        "PLENARY_SEED={seed}: {} differences\n\n{}",
        told.len(),
        told.join("\n\n")
    );
}

/// Shapes are data: one that cannot be read, or has a word without a pool, is found before its type is there.
#[test]
fn every_shape_can_be_filled() {
    let mut chance = Chance::new(1);
    for kind in KINDS {
        for line in kind.shapes {
            let shape = Shape::parse(line);
            for _ in 0..200 {
                assert!(!shape.fill(kind, &mut chance).is_empty(), "{}: {line}", kind.name);
            }
        }
    }
    assert_eq!(
        argv(&["GET"]),
        Shape::parse("GET").fill(&string::KIND, &mut chance)
    );
}
