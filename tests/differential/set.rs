//! Sets.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "set",
    keys: &["t1", "t2", "t3", "t4"],
    shapes: &[
        "4 SADD key member+",
        "3 SADD key small+",
        "SADD key value+",
        "SADD key long",
        "SADD key integer+",
        "SADD key integer{100}",
        "SADD key serial{60}",
        "SREM key member+",
        "SREM key serial{60}",
        "SCARD key",
        "2 sort SMEMBERS key",
        "SISMEMBER key member",
        "SMISMEMBER key member+",
        "SMOVE key key member",
        "sort SPOP key 100000",
        "SPOP key ( 0 | -1 | 'x | 1 1 )",
        "form SRANDMEMBER key",
        "form SRANDMEMBER key count",
        "form SRANDMEMBER key -5",
        "sort SRANDMEMBER key 100000",
        "2 sort SINTER key+",
        "2 sort SUNION key+",
        "2 sort SDIFF key+",
        "SINTERSTORE key key+",
        "SUNIONSTORE key key+",
        "SDIFFSTORE key key+",
        "SINTERCARD #key+ [ LIMIT count ]",
        "SINTERCARD #key+ ( LIMIT | LIMIT -1 | nonsense )",
        "sort SSCAN key 0 COUNT 10000",
        "sort SSCAN key 0 MATCH pattern COUNT 10000",
        "SSCAN key 0 ( COUNT 0 | COUNT 'x | COUNT | nonsense )",
        "OBJECT ENCODING key",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "small" => (
            &["1", "2", "3", "-4", "5", "70000", "5000000000", "-1"],
            &["9223372036854775807", "9223372036854775808"],
        ),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
