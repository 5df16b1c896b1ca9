//! Streams and their groups. Times are left out: `*` as an id, and how long an entry has waited.

use super::grammar::{Kind, Pool};
use crate::oracle::Answer;

pub const KIND: Kind = Kind {
    name: "stream",
    keys: &["x1", "x2"],
    shapes: &[
        "6 XADD key id ( field value )+",
        "2 XADD key auto field value",
        "XADD key [ NOMKSTREAM ] [ ( MAXLEN | MINID ) [ = ] id ] id field value",
        "XADD key MAXLEN = count id field value",
        "XADD key MAXLEN = count LIMIT count id field value",
        "XADD key ( NOMKSTREAM | MAXLEN count | MINID id | LIMIT 5 | nonsense )+ id field value",
        "XADD key id ( field value )+ field",
        "XLEN key",
        "3 XRANGE key from to [ COUNT count ]",
        "2 XREVRANGE key to from [ COUNT count ]",
        "XDEL key id+",
        "XTRIM key MAXLEN [ = ] count",
        "XTRIM key MINID [ = ] id",
        "XTRIM key ( MAXLEN count | MINID id | LIMIT 5 | nonsense )+",
        "2 XREAD [ COUNT count ] STREAMS key from",
        "XREAD [ COUNT count ] STREAMS key key from from",
        "XREAD STREAMS key key from",
        "XREAD STREAMS key $",
        "XREAD [ COUNT count ] BLOCK timeout STREAMS key ( from | $ )",
        "XREADGROUP GROUP group consumer BLOCK timeout STREAMS key ( > | id )",
        "3 XGROUP CREATE key group ( id | $ | 0 ) [ MKSTREAM ] [ ENTRIESREAD number ]",
        "XGROUP SETID key group ( id | $ | 0 ) [ ENTRIESREAD number ]",
        "XGROUP DESTROY key group",
        "2 XGROUP CREATECONSUMER key group consumer",
        "XGROUP DELCONSUMER key group consumer",
        "XGROUP nonsense key group",
        "5 XREADGROUP GROUP group consumer [ COUNT count ] [ NOACK ] STREAMS key ( > | > | id | 0 )",
        "XREADGROUP GROUP group consumer STREAMS key key > >",
        "2 XACK key group id+",
        "2 XPENDING key group",
        "3 XPENDING key group [ IDLE 0 ] from to count [ consumer ]",
        "XPENDING key group from to",
        "2 XCLAIM key group consumer 0 id+ [ FORCE ] [ JUSTID ] [ RETRYCOUNT count ] [ LASTID id ]",
        "XCLAIM key group consumer 9223372036854775807 id+",
        "XCLAIM key group consumer 0 id ( FORCE | JUSTID | IDLE 'x | RETRYCOUNT 'x | nonsense )+",
        "2 XAUTOCLAIM key group consumer 0 from [ COUNT count ] [ JUSTID ]",
        "2 XINFO STREAM key",
        "XINFO STREAM key FULL [ COUNT count ]",
        "2 XINFO GROUPS key",
        "2 XINFO CONSUMERS key group",
        "XSETID key id [ ENTRIESADDED number ] [ MAXDELETEDID id ]",
        "OBJECT ENCODING key",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "id" => (
            &[
                "1", "2-1", "3-0", "3-1", "5", "7-7", "10-1", "20", "50-50", "100", "1000-1", "1000-2",
                "5000-1",
            ],
            &[
                "0-0",
                "0",
                "1-1-1",
                "x",
                "",
                "-",
                "+",
                "18446744073709551615-18446744073709551615",
                "18446744073709551616",
                "1-",
                "-1",
                "(1",
            ],
        ),
        "auto" => (
            &["1000-*", "2000-*", "5000-*", "6000-*", "3-*"],
            &["*-1", "x-*", "-*"],
        ),
        "from" => (
            &["-", "0", "1", "3-1", "(3-1", "(5", "10", "-"],
            &["x", "", "+", "(+", "(", "(-"],
        ),
        "to" => (
            &["+", "+", "10", "(10-1", "5", "7-7", "1000"],
            &["x", "", "-", "(+", "("],
        ),
        "group" => (&["g", "g", "gg"], &["", "nogroup"]),
        "consumer" => (&["alice", "bob", "carol"], &[""]),
        "field" => (&["f", "g"], &[""]),
        _ => return None,
    };
    Some(Pool { usual, odd })
}

/// The answer without what clocks and radix trees come to.
pub fn without_times(commands: &[Vec<Vec<u8>>], answer: Answer) -> Answer {
    let names = commands.iter().map(|argv| argv[0].to_ascii_uppercase());
    names.fold(answer, |answer, name| match name.as_slice() {
        b"XPENDING" => without_idle(answer),
        b"XINFO" => without_fields(answer),
        _ => answer,
    })
}

/// Without the third field of each row of XPENDING: id, consumer, idle, deliveries. In a transaction's answer the rows stand deeper.
fn without_idle(answer: Answer) -> Answer {
    match answer {
        Answer::Array(mut fields) => match fields[..] {
            [
                Answer::Bulk(_),
                Answer::Bulk(_),
                Answer::Integer(ref mut idle),
                Answer::Integer(_),
            ] => {
                *idle = 0;
                Answer::Array(fields)
            }
            _ => Answer::Array(fields.into_iter().map(without_idle).collect()),
        },
        other => other,
    }
}

fn without_fields(answer: Answer) -> Answer {
    const LEFT_OUT: [&[u8]; 6] = [
        b"radix-tree-keys",
        b"radix-tree-nodes",
        b"idle",
        b"inactive",
        b"seen-time",
        b"active-time",
    ];
    // A time of day: what FULL says of a delivery.
    let untimed = |number: i64| if number > 1_600_000_000_000 { 0 } else { number };
    let Answer::Array(answers) = answer else {
        return match answer {
            Answer::Integer(number) => Answer::Integer(untimed(number)),
            other => other,
        };
    };
    let mut left_out = false;
    let answers = answers.into_iter().map(|answer| {
        let name = matches!(&answer, Answer::Bulk(name) if LEFT_OUT.contains(&name.as_slice()));
        match std::mem::replace(&mut left_out, name) {
            true if matches!(answer, Answer::Integer(_)) => Answer::Integer(0),
            _ => without_fields(answer),
        }
    });
    Answer::Array(answers.collect())
}
