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
    // Bitmaps.
    "SETBIT key bit number",
    "SETBIT key bit 1",
    "GETBIT key bit",
    "BITCOUNT key",
    "BITCOUNT key index index",
    "BITCOUNT key index index unit",
    "BITPOS key number index?",
    "BITPOS key 0 index index unit?",
    "BITPOS key 1 index index unit?",
    "BITOP operation key key key*",
    "BITFIELD key field_op field_op? field_op? field_op?",
    "BITFIELD_RO key field_op field_op?",
    // HyperLogLogs. PFCOUNT of one key writes in Redis.
    "PFADD key value value*",
    "PFMERGE key key key*",
    "PFCOUNT key key",
    "PFDEBUG DECODE key",
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
        "bit" => &["0", "1", "7", "8", "13", "100", "-1", "4294967296", "x"],
        "unit" => &["BIT", "BYTE", "bit", "nonsense"],
        "operation" => &["AND", "OR", "XOR", "NOT", "nonsense"],
        "field_op" => &[
            "GET u8 0",
            "GET i5 3",
            "GET u63 #1",
            "GET i64 40",
            "SET u8 4 300",
            "SET i7 #3 -70",
            "SET i64 1 9223372036854775807",
            "SET u63 5 -1",
            "INCRBY u8 0 100",
            "INCRBY i8 2 100",
            "INCRBY i64 1 9223372036854775807",
            "INCRBY u63 9 -9223372036854775808",
            "INCRBY u3 #2 -3",
            "OVERFLOW SAT",
            "OVERFLOW FAIL",
            "OVERFLOW WRAP",
            "GET u64 0",
            "nonsense",
        ],
        "offset" => &["0", "1", "7", "50", "-1", "536870912", "x"],
        "db" => &["0", "1", "2", "16", "-1", "x"],
        "pattern" => &["*", "?", "[a-c]", "[^a]", "a*", "", "\\a", "*[", "**"],
        "type" => &["string", "hash", "HASH", "list"],
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
                "option" | "lcs" | "field_op" => {
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
            for ask in ["GET", "HGETALL", "PEXPIRETIME", "TYPE"] {
                let argv = [ask.as_bytes().to_vec(), key.as_bytes().to_vec()];
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

/// As more and more is added, sparse, turning dense and dense, the bytes are the same after every step, and so is the estimate.
#[test]
fn hyperloglogs_have_the_bytes_of_redis() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    for seed in 1..=8 {
        redis.reset();
        let (mut machine, mut chance) = (Machine::default(), Chance::new(seed));
        let mut both = |words: &[String]| {
            let argv: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let (ours, theirs) = (oracle::run(&mut machine, AT, seed, 0, &argv), redis.run(0, &argv));
            assert_eq!(ours.render(), theirs.render(), "seed {seed}: {words:?}");
        };
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut batch = 1;
        for step in 0..60 {
            let mut add = words(&format!("PFADD h{}", chance.below(3)));
            add.extend((0..batch).map(|_| chance.below(200_000).to_string()));
            both(&add);
            if step % 7 == 3 {
                both(&words("PFMERGE h0 h1 h2"));
            }
            for key in 0..3 {
                both(&words(&format!("GET h{key}")));
                both(&words(&format!("PFCOUNT h{key} h{}", chance.below(3))));
            }
            batch = batch * 6 / 5 + 1;
        }
    }
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
