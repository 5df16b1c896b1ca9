//! Random sequences of commands, answered by a machine and by a real Redis: every answer must be the same.
//!
//! Runs where `PLENARY_REDIS_SERVER` names the server. `PLENARY_SEED` repeats a sequence that failed. Time is left out: deadlines are
//! far away or in the past, and answers that
//! count from now are not asked for (scripts have them); nor is DBSIZE, in which Redis counts what has ended but was not found yet.

mod oracle;

use oracle::{Answer, Server, quote};
use plenary::machine::Machine;
use plenary::machine::keyspace::Chance;

/// Sequences per run, and commands of each: short ones begin anew often, long ones come far.
const SEQUENCES: [usize; 4] = [20, 200, 2_000, 20_000];

/// Any `at` will do as long as past and future are those of a real clock.
const AT: u64 = 1_700_000_000_000;

/// Commands by shape. A word in lower case stands for one of [`choices`], `a|b` for either, `x?` for x or nothing, `x*` for x up to three
/// times; upper case is itself. `sort` in front: the order of the answer means nothing (a large hash of Redis has none).
const SHAPES: &[&str] = &[
    // Strings.
    "GET key",
    "SET key value",
    "SET key value option? option? option?",
    "SET key number",
    "SETEX key time value",
    "PSETEX key time value",
    "SETNX key value",
    "GETEX key",
    "GETEX key option option?",
    "GETDEL key",
    "GETSET key value",
    "MGET key key*",
    "MSET key value",
    "MSET key value key number",
    "MSETNX key value key value",
    "APPEND key value",
    "STRLEN key",
    "INCR key",
    "DECR key",
    "INCRBY key number",
    "DECRBY key number",
    "INCRBYFLOAT key float",
    "GETRANGE key index index",
    "SUBSTR key index index",
    "SETRANGE key offset value",
    "LCS key key lcs? lcs? lcs?",
    // Keys.
    "DEL key key*",
    "UNLINK key key*",
    "EXISTS key key*",
    "TOUCH key key*",
    "TYPE key",
    "EXPIREAT key far condition? condition?",
    "PEXPIREAT key far condition? condition?",
    "EXPIRE key past condition?",
    "PEXPIRE key past condition?",
    "EXPIRETIME key",
    "PEXPIRETIME key",
    "PERSIST key",
    "RENAME key key",
    "RENAMENX key key",
    "COPY key key",
    "COPY key key REPLACE",
    "COPY key key DB db",
    "COPY key key DB db REPLACE",
    "MOVE key db",
    "OBJECT ENCODING key",
    "OBJECT FREQ key",
    "SWAPDB db db",
    "sort KEYS pattern",
    "sort SCAN 0 COUNT 10000 MATCH pattern",
    "sort SCAN 0 TYPE type COUNT 10000",
    "RANDOMKEY key",
    "FLUSHDB key",
    // Hashes.
    "HSET key field value",
    "HSET key field value field number",
    "HSET key field float",
    "HMSET key field value",
    "HSETNX key field value",
    "HGET key field",
    "HMGET key field field*",
    "sort HGETALL key",
    "HDEL key field field*",
    "HEXISTS key field",
    "HLEN key",
    "HSTRLEN key field",
    "sort HKEYS key",
    "sort HVALS key",
    "HINCRBY key field number",
    "HINCRBYFLOAT key field float",
    "HSET key field",
    "sort HSCAN key 0 COUNT 10000",
    "sort HSCAN key 0 MATCH pattern",
    // Lists.
    "RPUSH key value value*",
    "LPUSH key value value* number*",
    "RPUSH key number number*",
    "LPUSHX key value value*",
    "RPUSHX key value value*",
    "LPOP key",
    "RPOP key",
    "LPOP key index",
    "RPOP key index",
    "LLEN key",
    "LINDEX key index",
    "LRANGE key index index",
    "LSET key index value",
    "LTRIM key index index",
    "LREM key index value",
    "LINSERT key side value value",
    "LPOS key value",
    "LPOS key value lpos? lpos? lpos?",
    "LMOVE key key end end",
    "RPOPLPUSH key key",
    "LMPOP 1 key end",
    "LMPOP 2 key key end mpop?",
    "LMPOP number key end",
    "BLPOP key key 0.001",
    "BRPOP key 0.001",
    "BLMOVE key key end end 0.001",
    "BRPOPLPUSH key key 0.001",
    "BLMPOP 0.001 2 key key end mpop?",
    "BLPOP key -1",
    "BLMPOP -1 number key end mpop?",
    // Sets. Whatever is taken by chance is the only one or all there is.
    "SADD key member member*",
    "SADD key member member member member*",
    "SADD key number number*",
    "SREM key member member*",
    "SCARD key",
    "SISMEMBER key member",
    "SMISMEMBER key member member*",
    "sort SMEMBERS key",
    "SMOVE key key member",
    "sort SINTER key key*",
    "sort SUNION key key*",
    "sort SDIFF key key*",
    "SINTERSTORE key key key*",
    "SUNIONSTORE key key key*",
    "SDIFFSTORE key key key*",
    "SINTERCARD 2 key key limit?",
    "SINTERCARD number key limit?",
    "sort SPOP key 10000",
    "SPOP key 0",
    "sort SRANDMEMBER key 10000",
    "sort SSCAN key 0 COUNT 10000",
    "sort SSCAN key 0 COUNT 10000 MATCH pattern",
    "SPOP key key",
];

/// What a word in lower case stands for.
fn choices(word: &str) -> &'static [&'static str] {
    match word {
        "key" => &["a", "b", "c", "d", "e", ""],
        "field" => &["f", "g", "h", "1", ""],
        "value" => &[
            "",
            "x",
            "value",
            "ohmytext",
            "mynewtext",
            "10",
            "007",
            "-5",
            "3.5",
            "\0\u{1}",
            "1234567890123456789012345678901234567890123456",
        ],
        "number" => &[
            "0",
            "1",
            "-1",
            "7",
            "10000",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "1.5",
            "+1",
            "",
            "x",
            "-0",
            "01",
        ],
        "float" => &[
            "0",
            "1",
            "-1",
            "0.1",
            "-0.1",
            "3.14159265358979",
            "1e3",
            "1e-3",
            "1e17",
            "1e18",
            "1e20",
            "-1e20",
            "1e300",
            "1e4932",
            "-1e4932",
            "0x1p-4",
            "inf",
            "nan",
            "1e5000",
            "5e-18",
            "1.5e-17",
            ".5",
            "5.",
            "x",
            "",
            "9007199254740993",
            "0.30000000000000004",
            "123456789.123456789",
        ],
        "time" => &["0", "-1", "x", "9223372036854775807"],
        "far" => &[
            "4000000000",
            "4000000000000",
            "4000000000001",
            "5000000000000",
            "1",
            "0",
            "-1",
            "x",
            "9223372036854775807",
            "9223372036854775",
        ],
        "past" => &["0", "-1", "x", "9223372036854775807", "-9223372036854775808"],
        "option" => &[
            "NX",
            "XX",
            "GET",
            "KEEPTTL",
            "PERSIST",
            "EXAT 4000000000",
            "PXAT 4000000000123",
            "PXAT 1",
            "EXAT 0",
            "EX x",
            "EXAT",
            "nonsense",
            "ex",
        ],
        "condition" => &["NX", "XX", "GT", "LT", "gt", "nonsense"],
        "lcs" => &[
            "IDX",
            "LEN",
            "WITHMATCHLEN",
            "MINMATCHLEN 2",
            "MINMATCHLEN",
            "nonsense",
        ],
        "index" => &[
            "0",
            "1",
            "3",
            "-1",
            "-3",
            "100",
            "-100",
            "9223372036854775807",
            "-9223372036854775808",
            "x",
        ],
        "offset" => &["0", "1", "7", "50", "-1", "536870912", "x"],
        "db" => &["0", "1", "2", "16", "-1", "x"],
        "end" => &["LEFT", "RIGHT", "left", "UP"],
        "side" => &["BEFORE", "AFTER", "before", "BESIDE"],
        "lpos" => &[
            "RANK 1", "RANK 2", "RANK -1", "RANK -2", "RANK 0", "COUNT 0", "COUNT 1", "COUNT 2", "COUNT -1",
            "MAXLEN 0", "MAXLEN 2", "MAXLEN x", "RANK", "nonsense",
        ],
        "mpop" => &[
            "COUNT 1",
            "COUNT 2",
            "COUNT 100",
            "COUNT 0",
            "COUNT x",
            "COUNT",
            "nonsense",
        ],
        "member" => &["1", "2", "3", "4", "5", "-7", "1000", "x", "y", "", "01"],
        "limit" => &["LIMIT 0", "LIMIT 1", "LIMIT 2", "LIMIT -1", "LIMIT", "nonsense"],
        "pattern" => &["*", "?", "[a-c]", "[^a]", "a*", "", "\\a", "*[", "**"],
        "type" => &["string", "hash", "HASH", "list", "set"],
        other => panic!("no choices for {other}"),
    }
}

fn pick<'a>(chance: &mut Chance, of: &[&'a str]) -> &'a str {
    of[chance.below(of.len())]
}

/// One command in one of three databases, and whether the order of its answer counts.
fn generate(chance: &mut Chance) -> (u8, bool, Vec<Vec<u8>>) {
    let db = [0, 0, 0, 0, 1, 2][chance.below(6)];
    let shape = pick(chance, SHAPES);
    let (sort, shape) = shape
        .strip_prefix("sort ")
        .map_or((false, shape), |shape| (true, shape));
    let mut argv = Vec::new();
    for word in shape.split(' ') {
        let (word, times) = match (word.strip_suffix('?'), word.strip_suffix('*')) {
            (Some(word), _) => (word, chance.below(2)),
            (_, Some(word)) => (word, chance.below(4)),
            (None, None) => (word, 1),
        };
        for _ in 0..times {
            let is_choice = word.starts_with(|first: char| first.is_ascii_lowercase());
            let text = if is_choice {
                pick(chance, choices(word))
            } else {
                word
            };
            // An option brings its number along.
            match word {
                "option" | "lcs" | "lpos" | "mpop" | "limit" => {
                    argv.extend(text.split(' ').map(|word| word.as_bytes().to_vec()))
                }
                _ => argv.push(text.as_bytes().to_vec()),
            }
        }
    }
    (db, sort, argv)
}

fn show(db: u8, argv: &[Vec<u8>]) -> String {
    format!(
        "db={db} {}",
        argv.iter()
            .map(|argument| quote(argument))
            .collect::<Vec<_>>()
            .join(" ")
    )
}

/// Runs one sequence on both; what differs first, with the commands before it on the same keys.
fn compare(redis: &mut Server, seed: u64, commands: usize) -> Result<(), String> {
    redis.reset();
    let (mut machine, mut chance) = (Machine::default(), Chance::new(seed));
    let mut history: Vec<(String, String)> = Vec::new();
    for number in 0..commands {
        let (db, sort, argv) = generate(&mut chance);
        let [ours, theirs] = [
            oracle::run(&mut machine, AT, seed, db, &argv),
            redis.run(db, &argv),
        ]
        .map(|answer| if sort { answer.sorted() } else { answer });
        history.push((show(db, &argv), ours.render()));
        if ours != theirs {
            let last = history.len().saturating_sub(12);
            let lines: Vec<String> = history[last..]
                .iter()
                .map(|(command, answer)| format!("{command}\n    {answer}"))
                .collect();
            return Err(format!(
                "PLENARY_SEED={seed}, command {number} of {commands}:\n{}\nbut redis answered\n    {}",
                lines.join("\n"),
                theirs.render()
            ));
        }
    }
    same_state(&mut machine, redis)
}

/// After all, every key must hold the same.
fn same_state(machine: &mut Machine, redis: &mut Server) -> Result<(), String> {
    for db in 0..3 {
        for key in choices("key") {
            for ask in ["GET", "HGETALL", "LRANGE", "SMEMBERS", "PEXPIRETIME", "TYPE"] {
                let mut argv = vec![ask.as_bytes().to_vec(), key.as_bytes().to_vec()];
                if ask == "LRANGE" {
                    argv.extend([b"0".to_vec(), b"-1".to_vec()]);
                }
                let [ours, theirs] =
                    [oracle::run(machine, AT, 0, db, &argv), redis.run(db, &argv)].map(Answer::sorted);
                if ours != theirs {
                    return Err(format!(
                        "at the end {}\n    {}\nredis\n    {}",
                        show(db, &argv),
                        ours.render(),
                        theirs.render()
                    ));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    let named = std::env::var("PLENARY_SEED")
        .ok()
        .map(|seed| seed.parse().expect("PLENARY_SEED is a number"));
    // The same seeds each time, so that a red run is red for its change and not for its luck.
    let seeds = named.map_or(1..=4, |seed: u64| seed..=seed);
    for seed in seeds {
        for commands in SEQUENCES {
            if let Err(difference) = compare(&mut redis, seed, commands) {
                panic!("{difference}");
            }
        }
    }
}
