//! HyperLogLogs.

use super::grammar::{Kind, Pool};

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
        "APPEND key 'x",
    ],
    words,
};

fn words(_: &str) -> Option<Pool> {
    None
}
