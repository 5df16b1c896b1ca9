//! Random commands of every type, valid and not, answered by a machine and by a real Redis: every answer must be the same.
//!
//! Once the machine alone, and once a node through its Redis endpoint, with transactions and scripts; and streams that grow long.
//!
//! Runs where `PLENARY_REDIS_SERVER` names the server. `PLENARY_COMMANDS` says how many commands (a million take minutes; fewer without
//! it), `PLENARY_SEED` repeats a run. Each file beside this one knows a type; a type is put to the test as soon as the table has its
//! commands. What differs is cut down to the commands that it needs, and told with their answers; the run goes on with others.
//!
//! Time is left out: deadlines are far away or in the past, and answers that count from now are not asked for (scripts have them); nor is
//! DBSIZE, in which Redis counts what has ended but was not found yet.

#![cfg(feature = "resp")]
#![allow(unreachable_pub, reason = "one program: what its files share")]

mod bits;
mod common;
mod connection;
mod endpoint;
mod geo;
mod grammar;
mod hash;
mod hll;
mod keys;
mod list;
mod long_streams;
#[path = "../oracle/mod.rs"]
mod oracle;
mod script;
mod sequence;
mod set;
mod sides;
mod sort;
mod stream;
mod string;
mod zset;

use endpoint::Endpoint;
use grammar::{Kind, Shape, pick};
use oracle::Server;
use plenary::machine::keyspace::Chance;
use sequence::{Generator, sequence};
use sides::{Sides, Subject};
use std::collections::BTreeMap;

/// Commands of a sequence: short ones begin anew often, long ones come far.
const LENGTHS: [usize; 6] = [20, 200, 2_000, 20, 200, 10_000];

/// Commands of a run, if nothing says how many.
const COMMANDS: usize = 60_000;

/// Of the endpoint, where each write goes through a log: one command for so many of the machine's.
const ENDPOINT_SHARE: usize = 6;

/// Differences after which a run has seen enough; of one command only the first is told.
const DIFFERENCES: usize = 12;

const KINDS: [&Kind; 13] = [
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
    &script::KIND,
    &connection::KIND,
];

/// A key of any type but one whose bytes differ on purpose.
fn any_key(chance: &mut Chance) -> &'static str {
    let kind = KINDS[chance.below(KINDS.len())];
    pick(
        chance,
        if kind.name == hll::KIND.name {
            &["k1"]
        } else {
            kind.keys
        },
    )
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
    )
}

/// Compares until a share of what is wanted is compared; fails with every difference found.
fn compare(mut sides: Sides, share: usize) {
    // The same seed each time, so that a red run is red for its change and not for its luck.
    let seed = setting("PLENARY_SEED").unwrap_or(1);
    let wanted = setting("PLENARY_COMMANDS")
        .map_or(COMMANDS, |number| usize::try_from(number).expect("64 bits"))
        / share;
    let generators: Vec<Generator> = KINDS
        .iter()
        .filter_map(|kind| Generator::of(kind, &sides.subject))
        .collect();
    let is_on = |kind: &&&Kind| {
        generators
            .iter()
            .any(|generator| generator.kind.name == kind.name)
    };
    let off: Vec<&str> = KINDS
        .iter()
        .filter(|kind| !is_on(kind))
        .map(|kind| kind.name)
        .collect();
    println!("PLENARY_SEED={seed} PLENARY_COMMANDS={wanted}; not put to the test: {off:?}");

    let mut chance = Chance::new(seed);
    let (mut compared, mut asked) = (0, BTreeMap::<String, usize>::new());
    let mut differences = BTreeMap::<String, String>::new();
    for length in LENGTHS.iter().cycle() {
        if compared >= wanted || differences.len() >= DIFFERENCES {
            break;
        }
        let seed = chance.draw();
        let mut steps = sequence(&generators, &sides.subject, seed, *length);
        let difference = sides.play(seed, &steps);
        if let Some((last, _)) = &difference {
            steps.truncate(last + 1);
        }
        compared += steps.len();
        for step in &steps {
            *asked.entry(step.name()).or_default() += 1;
        }
        if let (Some((_, answers)), Some(last)) = (difference, steps.last()) {
            let name = last.name();
            if let std::collections::btree_map::Entry::Vacant(place) = differences.entry(name) {
                let told = sides.shrink(seed, steps.clone());
                let told = sides.tell(seed, &told).unwrap_or_else(|| {
                    let (ours, theirs) = (answers.0.render(), answers.1.render());
                    format!(
                        "a difference that did not come again: {}\nours:  {ours}\nredis: {theirs}",
                        last.show()
                    )
                });
                // At once: whoever watches a long run need not wait for its end.
                println!("\n{told}\n");
                place.insert(told);
            }
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

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    if let Some(redis) = Server::from_environment() {
        let subject = Subject::Machine(Box::default());
        compare(Sides { subject, redis }, 1);
    }
}

#[test]
fn random_commands_are_answered_by_the_endpoint_as_redis_answers_them() {
    if let Some(redis) = Server::from_environment() {
        let endpoint = Endpoint::start();
        let subject = Subject::Endpoint(endpoint.connect());
        compare(Sides { subject, redis }, ENDPOINT_SHARE);
    }
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
        Shape::parse("GET").fill(&string::KIND, &mut chance),
        [b"GET".to_vec()]
    );
}
