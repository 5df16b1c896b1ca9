//! What belongs to a connection: transactions that are watched, and what has no key.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "connection",
    // Of its own: that one is there before it is watched, `sequence` sees to.
    keys: &["w1", "w2"],
    shapes: &[
        "PING [ value ]",
        "PING value value",
        "ECHO value",
        "3 WATCH key+",
        "UNWATCH",
        "EXEC",
        "DISCARD",
        "SET key value",
        "CLIENT GETNAME",
        "CLIENT SETNAME name",
        "CLIENT nonsense",
        "SELECT nonsense",
        "SELECT 16",
        "SWAPDB 0 nonsense",
        "AUTH value",
        "AUTH 'default value",
        "HELLO 4",
        "HELLO nonsense",
        "COMMAND GETKEYS GET key",
        "COMMAND GETKEYS MSET key value key value",
        "COMMAND GETKEYS nonsense key",
        "COMMAND GETKEYS",
        "PUBLISH value value",
        "READONLY",
        "nonsense value value",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "name" => (&["me", ""], &["a b", "x\n"]),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
