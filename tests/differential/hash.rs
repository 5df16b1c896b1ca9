//! Hashes.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "hash",
    keys: &["h1", "h2", "h3"],
    shapes: &[
        "4 HSET key ( field value )+",
        "HSET key field number",
        "HSET key field integer",
        "HSET key field float",
        "HSET key field long",
        "HSET key long value",
        "HSET key ( serial value ){40}",
        "HSET key ( field value )+ field",
        "HMSET key ( field value )+",
        "HSETNX key field value",
        "2 HGET key field",
        "2 HMGET key field+",
        "2 sort HGETALL key",
        "2 HDEL key field+",
        "HDEL key serial{60}",
        "HEXISTS key field",
        "2 HLEN key",
        "HSTRLEN key field",
        "sort HKEYS key",
        "sort HVALS key",
        "HINCRBY key field number",
        "HINCRBY key field integer",
        "HINCRBYFLOAT key field float",
        "HINCRBYFLOAT key field double",
        "sort HSCAN key 0 COUNT 10000",
        "sort HSCAN key 0 MATCH pattern COUNT 10000",
        "HSCAN key 'x",
        "HSCAN key 0 ( COUNT 0 | COUNT 'x | COUNT | MATCH | nonsense )",
        "form HRANDFIELD key",
        "form HRANDFIELD key count [ WITHVALUES ]",
        "form HRANDFIELD key -5 [ WITHVALUES ]",
        "sort HRANDFIELD key 1000",
        "OBJECT ENCODING key",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "field" => (&["f", "g", "h", "1"], &["", "\0"]),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
