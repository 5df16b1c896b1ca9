//! SORT, on keys of its own: to sort a sorted set changes in Redis how it is held, and texts with a NUL in them are equal to it.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "sort",
    keys: &["n1", "n2", "u1"],
    shapes: &[
        "2 SORT own ALPHA [ LIMIT index count ] [ ( ASC | DESC ) ]",
        "SORT own [ LIMIT index count ] [ ( ASC | DESC ) ]",
        "SORT numbers [ BY by ] [ LIMIT index count ] ( GET get )* [ ( ASC | DESC ) ]",
        // Of equal texts nobody says which comes first.
        "sort SORT numbers BY by [ ( ASC | DESC ) ] ALPHA",
        "SORT numbers [ BY by ] ( GET get )* STORE numbers",
        "SORT own ALPHA STORE numbers",
        "SORT_RO own ALPHA ( GET get )*",
        "SORT_RO own STORE numbers",
        "sort SORT own ( BY by | LIMIT 0 | ASC | ALPHA | nonsense )+ ALPHA",
        "2 SET weight number",
        "2 HSET fields name number",
        "2 RPUSH numbers number+",
        "RPUSH numbers letter+",
        "SADD 'u1 number+",
        "SADD 'u1 letter+",
        "ZADD 'v1 number letter number number",
        "LRANGE numbers 0 -1",
        "2 LTRIM numbers 0 3",
        "DEL own",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "own" => (&["n1", "n2", "u1", "v1"], &["s1", "l1", "nokey"]),
        "letter" => (&["a", "b", "ab", "A"], &[""]),
        "numbers" => (&["n1", "n2"], &[]),
        "number" => (&["1", "2", "3", "10", "-1", "2.5"], &["x", ""]),
        "weight" => (&["w_1", "w_2", "w_3", "w_a", "w_b"], &[]),
        "fields" => (&["o_1", "o_2", "o_a"], &[]),
        "name" => (&["f", "g"], &[]),
        "by" => (&["w_*", "o_*->f", "o_*->nofield"], &["*", "o_*->", "->f", ""]),
        "get" => (&["#", "w_*", "o_*->f"], &["*", "", "nothing", "o_*->"]),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
