//! Sequences of steps by chance: what is put to both sides.

use super::grammar::{Judged, Kind, Shape, pick};
use super::oracle::quote;
use super::{KINDS, Subject};
use plenary::machine::keyspace::Chance;
use plenary::machine::table::{self, Run};
use std::collections::BTreeSet;

pub type Argv = Vec<Vec<u8>>;

/// What happens to both sides.
#[derive(Clone)]
pub enum Step {
    /// One command, or a transaction from its MULTI to its end.
    Run {
        db: u8,
        judged: Judged,
        commands: Vec<Argv>,
    },
    /// What one side dumped is restored on the other.
    Carry { db: u8, key: Vec<u8>, to_redis: bool },
}

impl Step {
    fn one(db: u8, judged: Judged, argv: Argv) -> Self {
        let commands = vec![argv];
        Self::Run { db, judged, commands }
    }

    /// What it is counted under.
    pub fn name(&self) -> String {
        match self {
            Self::Run { commands, .. } => String::from_utf8_lossy(&commands[0][0]).to_ascii_uppercase(),
            Self::Carry { to_redis: true, .. } => "carry to redis".to_owned(),
            Self::Carry { .. } => "carry from redis".to_owned(),
        }
    }

    /// Whether a command of this name is in it.
    pub fn names(&self, name: &str) -> bool {
        let is = |argv: &Argv| argv[0].eq_ignore_ascii_case(name.as_bytes());
        matches!(self, Self::Run { commands, .. } if commands.iter().any(is))
    }

    /// Whether a NUL is in an argument.
    pub fn has_nul(&self) -> bool {
        let has = |argv: &Argv| argv.iter().any(|argument| argument.contains(&0));
        matches!(self, Self::Run { commands, .. } if commands.iter().any(has))
    }

    /// As a person would type it.
    pub fn show(&self) -> String {
        match self {
            Self::Run { db, commands, .. } => {
                let line = |argv: &Argv| {
                    argv.iter()
                        .map(|argument| quote(argument))
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                let lines: Vec<String> = commands.iter().map(line).collect();
                let db = if *db == 0 {
                    String::new()
                } else {
                    format!("db={db} ")
                };
                db + &lines.join("\n    ")
            }
            Self::Carry { db, key, to_redis } => {
                let way = if *to_redis {
                    "ours, into redis"
                } else {
                    "redis', into ours"
                };
                format!("db={db} DUMP and RESTORE of {}: {way}", quote(key))
            }
        }
    }
}

/// A type, with those of its shapes that the table knows.
pub struct Generator {
    pub kind: &'static Kind,
    shapes: Vec<Shape>,
    weight: usize,
}

impl Generator {
    /// None if the subject lacks the type: the command of its first shape.
    pub fn of(kind: &'static Kind, subject: &Subject) -> Option<Self> {
        let mut shapes: Vec<Shape> = kind.shapes.iter().map(|line| Shape::parse(line)).collect();
        let is_there = is_known(&shapes[0].names, subject);
        shapes.retain(|shape| is_known(&shape.names, subject));
        let weight = shapes.iter().map(|shape| shape.weight).sum();
        is_there.then_some(Self { kind, shapes, weight })
    }

    fn generate(&self, chance: &mut Chance) -> (Judged, Argv) {
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

    /// A command, now and then one that no shape says.
    fn command(&self, chance: &mut Chance) -> (Judged, Argv) {
        let (judged, mut argv) = self.generate(chance);
        if chance.below(25) > 0 {
            return (judged, argv);
        }
        spoil(&mut argv, chance);
        let judged = if judged == Judged::Whole {
            Judged::Sorted
        } else {
            judged
        };
        (judged, argv)
    }
}

fn is_known(names: &[String], subject: &Subject) -> bool {
    let row = names.iter().find_map(|name| table::by_name(name));
    row.is_some_and(|row| subject.has_connections() || !matches!(row.run, Run::Local))
}

/// An argument less, one more, another one.
fn spoil(argv: &mut Argv, chance: &mut Chance) {
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
    let is_one_of = |parts: &[&[u8]]| {
        parts
            .iter()
            .any(|part| name.windows(part.len()).any(|window| window == *part))
    };
    // Chance, cursors and seconds that pass would make a difference of what is none.
    if is_one_of(&[
        b"SCAN", b"RAND", b"SPOP", b"EVAL", b"CLIENT", b"COMMAND", b"HELLO", b"SORT", b"LPOS",
    ]) {
        return;
    }
    // Ranges of members mean something only where all have one score.
    if argv.get(1).is_some_and(|key| key.starts_with(b"y")) {
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
pub fn sequence(generators: &[Generator], subject: &Subject, seed: u64, length: usize) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let focus = (chance.below(2) == 0).then(|| chance.below(generators.len()));
    let carries = table::by_name("DUMP").is_some() && table::by_name("RESTORE").is_some();
    let transacts = subject.has_connections() && table::by_name("MULTI").is_some();
    let mut steps = Vec::with_capacity(length);
    while steps.len() < length {
        let generator = match focus {
            Some(at) if chance.below(10) > 0 => &generators[at],
            _ => &generators[chance.below(generators.len())],
        };
        let db = [0, 0, 0, 0, 0, 0, 1, 2][chance.below(8)];
        let is_rare = chance.below(60) == 0;
        if is_rare && carries && chance.below(2) == 0 {
            let key = pick(&mut chance, generator.kind.keys).as_bytes().to_vec();
            let to_redis = chance.below(2) == 0;
            // A dump does not say when its key ends.
            let argv = vec![b"PERSIST".to_vec(), key.clone()];
            steps.push(Step::one(db, Judged::Whole, argv));
            steps.push(Step::Carry { db, key, to_redis });
        } else if is_rare && transacts {
            steps.push(transaction(generator, db, &mut chance));
        } else {
            let (judged, argv) = generator.command(&mut chance);
            if argv[0] == b"WATCH" {
                // Only what is there: one that is not, and comes and goes before EXEC, is a change to a Redis and none here. And long: a short one
                // that becomes `raw`, while no bit of it changes, is a change here and none to a Redis.
                let there = |key: &Vec<u8>| vec![b"SETNX".to_vec(), key.clone(), vec![b'w'; 64]];
                steps.extend(
                    argv[1..]
                        .iter()
                        .map(|key| Step::one(db, Judged::Whole, there(key))),
                );
            }
            steps.push(Step::one(db, judged, argv));
        }
    }
    steps.extend(reads(&steps));
    steps
}

/// Commands between MULTI and EXEC, or DISCARD.
fn transaction(generator: &Generator, db: u8, chance: &mut Chance) -> Step {
    let mut commands = vec![vec![b"MULTI".to_vec()]];
    let mut judged = Judged::Sorted;
    for _ in 0..chance.below(5) {
        let (how, argv) = generator.command(chance);
        if how == Judged::Form {
            judged = Judged::Form;
        }
        commands.push(argv);
    }
    let end = if chance.below(6) == 0 { "DISCARD" } else { "EXEC" };
    commands.push(vec![end.as_bytes().to_vec()]);
    Step::Run { db, judged, commands }
}

/// After all, every key must hold the same.
fn reads(steps: &[Step]) -> Vec<Step> {
    const ASKS: [&str; 9] = [
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
    let keys = KINDS.iter().flat_map(|kind| kind.keys);
    let known: BTreeSet<&[u8]> = keys.map(|key| key.as_bytes()).collect();
    let mut seen = BTreeSet::new();
    for step in steps {
        if let Step::Run { db, commands, .. } = step {
            let arguments = commands.iter().flat_map(|argv| &argv[1..]);
            let keys = arguments.filter(|argument| known.contains(argument.as_slice()));
            seen.extend(keys.map(|key| (*db, key.clone())));
        }
    }
    let asks = ASKS.map(|ask| ask.split(' ').collect::<Vec<_>>());
    let mut reads = Vec::new();
    for (db, key) in seen {
        for ask in asks.iter().filter(|ask| table::by_name(ask[0]).is_some()) {
            let word = |word: &&str| {
                if *word == "key" {
                    key.clone()
                } else {
                    word.as_bytes().to_vec()
                }
            };
            reads.push(Step::one(db, Judged::Sorted, ask.iter().map(word).collect()));
        }
    }
    reads
}
