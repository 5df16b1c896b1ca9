//! HyperLogLogs. PFCOUNT of one key keeps the estimate in the key's bytes in Redis; here a read changes nothing.

use super::grammar::{Kind, Pool};
use crate::oracle::Answer;

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
        other => other,
    }
}
