//! Lists.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "list",
    keys: &["l1", "l2", "l3"],
    shapes: &[
        "3 RPUSH key member+",
        "3 LPUSH key member+",
        "RPUSH key value+",
        "RPUSH key long",
        "RPUSH key serial{150}",
        "RPUSH key blob{40}",
        "LPUSHX key member+",
        "RPUSHX key member+",
        "LPOP key",
        "RPOP key",
        "LPOP key count",
        "RPOP key count",
        "LLEN key",
        "3 LRANGE key 0 -1",
        "2 LRANGE key index index",
        "2 LINDEX key index",
        "2 LSET key index member",
        "LSET key index long",
        "2 LINSERT key ( BEFORE | AFTER | 'before ) member member",
        "LINSERT key nonsense member member",
        "2 LREM key index member",
        "LTRIM key index index",
        "2 LPOS key member [ RANK rank ] [ COUNT count ] [ MAXLEN count ]",
        "LPOS key member ( RANK rank | COUNT count | MAXLEN count | RANK | nonsense )*",
        "2 LMOVE key key ( LEFT | RIGHT ) ( LEFT | RIGHT | 'right | nonsense )",
        "RPOPLPUSH key key",
        "LMPOP #key+ ( LEFT | RIGHT | nonsense ) [ COUNT count ] [ nonsense ]",
        "BLPOP key+ timeout",
        "BRPOP key+ timeout",
        "BLMOVE key key ( LEFT | RIGHT ) ( LEFT | RIGHT | nonsense ) timeout",
        "BRPOPLPUSH key key timeout",
        "BLMPOP timeout #key+ ( LEFT | RIGHT | nonsense ) [ COUNT count ]",
        "OBJECT ENCODING key",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        // Not the least number there is: with it Redis counts what wraps around.
        "rank" => (
            &["1", "2", "-1", "-2"],
            &["0", "x", "", "9223372036854775807", "-9223372036854775807"],
        ),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
