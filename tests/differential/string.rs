//! Strings.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "string",
    keys: &["s1", "s2", "s3", "s4", "s5", ""],
    shapes: &[
        "2 GET key",
        "3 SET key value",
        "SET key value [ ( NX | XX ) ] [ GET ] [ ( EXAT far | PXAT far | EX past | PX past | KEEPTTL ) ]",
        "SET key value ( NX | XX | GET | KEEPTTL | PERSIST | EXAT far | PXAT 1 | EXAT 0 | EX 'x | EXAT | nonsense | 'ex )+",
        "2 SET key number",
        "SET key integer",
        "SET key float",
        "SET key blob",
        "SETEX key past value",
        "PSETEX key past value",
        "SETNX key value",
        "GETEX key",
        "GETEX key ( EXAT far | PXAT far | PERSIST | EX past | PX past | nonsense )+",
        "GETDEL key",
        "GETSET key value",
        "MGET key+",
        "MSET ( key value )+",
        "MSET key value key",
        "MSETNX ( key value )+",
        "2 APPEND key value",
        "STRLEN key",
        "2 INCR key",
        "DECR key",
        "INCRBY key number",
        "INCRBY key integer",
        "DECRBY key number",
        "DECRBY key integer",
        "INCRBYFLOAT key float",
        "INCRBYFLOAT key double",
        "2 GETRANGE key index index",
        "SUBSTR key index index",
        "SETRANGE key offset value",
        "LCS key key ( IDX | LEN | WITHMATCHLEN | MINMATCHLEN count | nonsense )*",
        "LCS key key IDX [ MINMATCHLEN count ] [ WITHMATCHLEN ]",
        "OBJECT ENCODING key",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "offset" => (
            &["0", "1", "7", "50"],
            &["-1", "536870912", "x", "9223372036854775807", ""],
        ),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
