//! SORT of what the other types hold.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "sort",
    keys: &["l1", "l2", "t1", "t2", "z1", "z2"],
    shapes: &[
        "2 SORT key ALPHA [ LIMIT index count ] [ ( ASC | DESC ) ]",
        "SORT key [ LIMIT index count ] [ ( ASC | DESC ) ]",
        "SORT numbers [ LIMIT index count ] [ ( ASC | DESC ) ]",
        "SORT numbers [ BY by ] [ LIMIT index count ] ( GET get )* [ ( ASC | DESC ) ] [ ALPHA ]",
        "SORT numbers [ BY by ] ( GET get )* [ ALPHA ] STORE numbers",
        "SORT key ALPHA STORE numbers",
        "SORT_RO key ALPHA ( GET get )*",
        "SORT_RO key STORE numbers",
        "SORT key ( BY by | LIMIT 0 | LIMIT index count | GET get | ASC | ALPHA | nonsense )+ ALPHA",
        "2 SET weight number",
        "2 HSET fields name number",
        "RPUSH numbers number+",
        "LRANGE numbers 0 -1",
        "DEL numbers",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
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
