//! HyperLogLogs. PFCOUNT of one key keeps the estimate in the key's bytes in Redis; here a read changes nothing.

use super::grammar::{Kind, Pool};
use crate::oracle::{self, Answer, Server};
use crate::sides::AT;
use plenary::machine::Machine;
use plenary::machine::keyspace::Chance;

pub const KIND: Kind = Kind {
    name: "hll",
    keys: &["p1", "p2", "p3"],
    shapes: &[
        "3 PFADD key member*",
        "2 PFADD key serial{50}",
        "PFADD key blob{300}",
        "3 PFCOUNT key",
        "2 PFCOUNT key+",
        "2 PFMERGE key key*",
        "STRLEN key",
        "GET key",
        "TYPE key",
        "DEL key",
    ],
    words,
};

fn words(_: &str) -> Option<Pool> {
    None
}

/// The answer without the estimate that the bytes of a HyperLogLog keep.
pub fn without_estimate(answer: Answer) -> Answer {
    match answer {
        Answer::Bulk(mut bytes) if bytes.starts_with(b"HYLL") && bytes.len() >= 16 => {
            bytes[8..16].fill(0);
            Answer::Bulk(bytes)
        }
        Answer::Array(answers) => Answer::Array(answers.into_iter().map(without_estimate).collect()),
        other => other,
    }
}

/// As more and more is added, sparse, turning dense and dense, the bytes are the same after every step, and so is the estimate.
#[test]
fn hyperloglogs_have_the_bytes_of_redis() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    for seed in 1..=8 {
        redis.reset();
        let (mut machine, mut chance) = (Machine::default(), Chance::new(seed));
        let mut both = |words: &[String]| {
            let argv: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let (ours, theirs) = (oracle::run(&mut machine, AT, seed, 0, &argv), redis.run(0, &argv));
            assert_eq!(ours.render(), theirs.render(), "seed {seed}: {words:?}");
        };
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut batch = 1;
        for step in 0..60 {
            let mut add = words(&format!("PFADD h{}", chance.below(3)));
            add.extend((0..batch).map(|_| chance.below(200_000).to_string()));
            both(&add);
            if step % 7 == 3 {
                both(&words("PFMERGE h0 h1 h2"));
            }
            for key in 0..3 {
                both(&words(&format!("GET h{key}")));
                both(&words(&format!("PFCOUNT h{key} h{}", chance.below(3))));
            }
            batch = batch * 6 / 5 + 1;
        }
    }
}
