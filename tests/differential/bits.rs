//! Bits of strings.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "bits",
    keys: &["b1", "b2", "b3"],
    shapes: &[
        "4 SETBIT key bit one",
        "GETBIT key bit",
        "SET key blob",
        "SET key value",
        "2 BITCOUNT key",
        "2 BITCOUNT key index index [ ( BYTE | BIT | 'bit | nonsense ) ]",
        "BITCOUNT key index",
        "BITPOS key one",
        "2 BITPOS key one index [ index ] ",
        "2 BITPOS key one index index ( BYTE | BIT | nonsense )",
        "2 BITOP ( AND | OR | XOR | 'xor | NOT | nonsense ) key key+",
        "BITOP NOT key key",
        "4 BITFIELD key ( GET field place | SET field place integer | INCRBY field place number | OVERFLOW ( WRAP | SAT | FAIL | nonsense ) )+",
        "2 BITFIELD_RO key ( GET field place )+",
        "BITFIELD_RO key SET field place number",
        "BITFIELD key ( GET | SET field | nonsense | GET field )",
        "GET key",
        "STRLEN key",
        "OBJECT ENCODING key",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "bit" => (
            &["0", "1", "7", "8", "15", "100", "1000"],
            &["-1", "4294967296", "x", "", "9223372036854775807"],
        ),
        "one" => (&["0", "1"], &["2", "-1", "x", ""]),
        "field" => (
            &["u1", "i1", "u8", "i8", "i5", "u63", "i64", "u32", "i16"],
            &["u64", "i65", "u0", "x", "", "8", "i-1"],
        ),
        "place" => (
            &["0", "1", "7", "100", "#0", "#1", "#3"],
            &["-1", "#-1", "x", "#", "4294967296", ""],
        ),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
