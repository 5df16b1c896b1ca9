//! SORT, on keys of its own for the most part.

use super::grammar::{Kind, Pool};
use super::oracle::Answer;

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
        "SET 'text number",
        "DEL own",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "own" => (&["n1", "n2", "u1", "v1"], &["text", "nokey"]),
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

/// The answer with one name for the encodings that reading changes in Redis.
pub fn without_encodings(answer: Answer) -> Answer {
    match answer {
        Answer::Bulk(encoding) if encoding == b"skiplist" => Answer::Bulk(b"listpack".to_vec()),
        Answer::Bulk(encoding) if encoding == b"raw" => Answer::Bulk(b"embstr".to_vec()),
        Answer::Array(answers) => Answer::Array(answers.into_iter().map(without_encodings).collect()),
        other => other,
    }
}

/// Whether Redis refuses what is a number because an error of an earlier command is still noted (`errno`): nothing after it can be compared.
pub fn is_haunted(theirs: &Answer) -> bool {
    matches!(theirs, Answer::Error(text) if text == b"ERR One or more scores can't be converted into double")
}
