//! What is done to keys of any type.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "keys",
    keys: &["k1", "k2"],
    shapes: &[
        "DEL anykey+",
        "UNLINK anykey+",
        "EXISTS anykey+",
        "TOUCH anykey+",
        "2 TYPE anykey",
        "EXPIREAT anykey far ( NX | XX | GT | LT | 'gt | nonsense )*",
        "PEXPIREAT anykey far ( NX | XX | GT | LT | 'gt | nonsense )*",
        "EXPIRE anykey past ( NX | XX | GT | LT )*",
        "PEXPIRE anykey past ( NX | XX | GT | LT )*",
        "EXPIRETIME anykey",
        "PEXPIRETIME anykey",
        "PERSIST anykey",
        "2 RENAME anykey anykey",
        "RENAMENX anykey anykey",
        "2 COPY anykey anykey",
        "COPY anykey anykey [ DB db ] [ REPLACE ]",
        "COPY anykey anykey ( REPLACE | DB db | DB | nonsense )*",
        "MOVE anykey db",
        "3 OBJECT ENCODING anykey",
        "OBJECT FREQ anykey",
        "SWAPDB db db",
        "sort KEYS pattern",
        "sort SCAN 0 COUNT 10000",
        "sort SCAN 0 COUNT 10000 MATCH pattern",
        "sort SCAN 0 TYPE type COUNT 10000",
        "SCAN 0 ( COUNT 0 | COUNT 'x | COUNT | MATCH | TYPE | nonsense )",
        "SCAN 'x",
        "RANDOMKEY nonsense",
        "FLUSHDB nonsense",
        "RESTORE anykey 0 value",
        "RESTORE anykey number value ( REPLACE | ABSTTL | IDLETIME number | FREQ number | nonsense )*",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "type" => (
            &["string", "hash", "HASH", "list", "set", "zset", "stream"],
            &["x", ""],
        ),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
