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
    // Sorted sets.
    "ZADD key score member",
    "ZADD key score member score member score member",
    "ZADD key zadd? zadd? zadd? score member score member*",
    "ZADD key zadd? INCR score member",
    "ZINCRBY key score member",
    "ZREM key member member*",
    "ZSCORE key member",
    "ZMSCORE key member member*",
    "ZCARD key",
    "ZRANK key member",
    "ZREVRANK key member",
    "ZCOUNT key scores scores",
    "ZADD lexical 0 member 0 member",
    "ZREM lexical member",
    "ZLEXCOUNT lexical members members",
    "ZRANGE key index index WITHSCORES?",
    "ZRANGE key index index REV",
    "ZRANGE key scores scores BYSCORE zrange? zrange? zrange?",
    "ZRANGE lexical members members BYLEX zrange? zrange?",
    "ZRANGE key index index zrange? zrange?",
    "ZRANGESTORE key key index index REV?",
    "ZRANGESTORE key key scores scores BYSCORE zrange? zrange?",
    "ZREVRANGE key index index WITHSCORES?",
    "ZRANGEBYSCORE key scores scores WITHSCORES? zrange?",
    "ZREVRANGEBYSCORE key scores scores WITHSCORES? zrange?",
    "ZRANGEBYLEX lexical members members zrange?",
    "ZREVRANGEBYLEX lexical members members zrange?",
    "ZREMRANGEBYRANK key index index",
    "ZREMRANGEBYSCORE key scores scores",
    "ZREMRANGEBYLEX lexical members members",
    "ZPOPMIN key small?",
    "ZPOPMAX key small?",
    "ZMPOP 1 key MIN",
    "ZMPOP 2 key key MAX COUNT small",
    "BZPOPMIN key key 0.01",
    "sort ZSCAN key 0 COUNT 10000",
    "sort ZSCAN key 0 MATCH pattern COUNT 10000",
    "ZUNION 2 key key combine? combine? WITHSCORES?",
    "ZINTER 2 key key combine? combine? WITHSCORES?",
    "ZDIFF 2 key key WITHSCORES?",
    "ZUNIONSTORE key 2 key key combine? combine?",
    "ZINTERSTORE key 2 key key combine? combine?",
    "ZDIFFSTORE key small key key",
    "ZINTERCARD small key key LIMIT small",
    // Places.
    "GEOADD places longitude latitude place",
    "GEOADD places longitude latitude place longitude latitude place",
    "GEOADD places zadd? longitude latitude place",
    "GEOPOS places place place",
    "GEOHASH places place place",
    "GEODIST places place place unit?",
    "GEORADIUS places longitude latitude radius unit geo? geo? geo? geo?",
    "GEORADIUS places longitude latitude radius unit STORE found geo?",
    "GEORADIUS places longitude latitude radius unit STOREDIST distances geo?",
    "GEORADIUS_RO places longitude latitude radius unit geo? geo?",
    "GEORADIUSBYMEMBER places place radius unit geo? geo? geo? geo?",
    "GEORADIUSBYMEMBER_RO places place radius unit geo? geo?",
    "GEOSEARCH places FROMMEMBER place BYRADIUS radius unit geo? geo?",
    "GEOSEARCH places FROMLONLAT longitude latitude BYRADIUS radius unit geo? geo? geo?",
    "GEOSEARCH places FROMMEMBER place BYBOX radius radius unit geo? geo?",
    "GEOSEARCH places FROMLONLAT longitude latitude BYBOX radius radius unit geo? geo? geo?",
    "GEOSEARCHSTORE found places FROMLONLAT longitude latitude BYBOX radius radius unit ASC COUNT small",
    "GEOSEARCHSTORE distances places FROMMEMBER place BYRADIUS radius unit STOREDIST",
    // Without scores: their last digit may be another one than that of the C library.
    "ZRANGE distances 0 -1",
    "ZRANGE found 0 -1 WITHSCORES",
    "ZRANGE places 0 -1 WITHSCORES",
    "ZREM places place",
    "DEL places found distances",
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
        // Of one score: what a range of members is where scores differ, Redis does not say.
        "lexical" => &["l", "m"],
        "score" => &[
            "0",
            "-0",
            "1",
            "2",
            "3",
            "-1.5",
            "0.1",
            "inf",
            "-inf",
            "nan",
            "1e18",
            "1e19",
            "-1e300",
            "1e400",
            "x",
            "",
            "0x10",
            "5e-324",
            "3.14159265358979",
        ],
        "scores" => &[
            "-inf", "+inf", "0", "(0", "1", "(1", "2", "(3", "-2", "(-inf", "(inf", "1e400", "x", "(", "",
            "nan", " 1", "1 ",
        ],
        "members" => &[
            "-", "+", "[1", "(1", "[2", "(4", "[x", "[", "(", "1", "-x", "+x", "", "[1000",
        ],
        "places" => &["p", "q"],
        "found" => &["found"],
        "distances" => &["distances"],
        "place" => &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"],
        "longitude" => &[
            "13.361389",
            "15.087269",
            "-180",
            "180",
            "0",
            "-0.1275",
            "179.9",
            "-179.9",
            "2.3488",
            "-122.27652",
            "139.6917",
            "x",
            "180.1",
            "1e-7",
            "37.5",
            "-73.9733487",
            "100",
        ],
        "latitude" => &[
            "38.115556",
            "37.502669",
            "0",
            "85.05112878",
            "-85.05112878",
            "51.507",
            "-33.8688",
            "48.8534",
            "66.5",
            "-80.3",
            "x",
            "85.1",
            "1e-7",
            "37.80574",
            "40.7648057",
            "84.9",
        ],
        "radius" => &[
            "0", "1", "10", "200", "500", "3000", "12000", "30000", "100000", "1e9", "0.5", "-1", "x", "inf",
        ],
        "unit" => &["m", "km", "KM", "mi", "ft", "parsec"],
        "geo" => &[
            "WITHDIST",
            "WITHHASH",
            "WITHCOORD",
            "withdist",
            "ASC",
            "DESC",
            "COUNT 2",
            "COUNT 5",
            "COUNT 3 ANY",
            "COUNT 0",
            "COUNT",
            "ANY",
            "STORE found",
            "nonsense",
        ],
        "zadd" => &["NX", "XX", "GT", "LT", "CH", "ch", "INCR", "nonsense"],
        "zrange" => &[
            "WITHSCORES",
            "REV",
            "LIMIT 1 2",
            "LIMIT 0 -1",
            "LIMIT -1 5",
            "LIMIT 2 0",
            "LIMIT 0",
            "nonsense",
        ],
        "small" => &["0", "1", "2", "3", "-1", "x", "100"],
        "combine" => &[
            "WEIGHTS 2 3",
            "WEIGHTS 0 inf",
            "WEIGHTS x 1",
            "WEIGHTS 1",
            "AGGREGATE MIN",
            "AGGREGATE MAX",
            "AGGREGATE SUM",
            "AGGREGATE x",
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
        "member" => &[
            "1",
            "2",
            "3",
            "4",
            "5",
            "-7",
            "1000",
            "x",
            "y",
            "",
            "01",
            "[",
            "a\0",
            "1234567890123456789012345678901234567890123456789012345678901234567890",
        ],
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
                "option" | "lcs" | "field_op" | "lpos" | "mpop" | "limit" | "zrange" | "combine" | "geo" => {
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
            for ask in [
                "GET _",
                "HGETALL _",
                "LRANGE _ 0 -1",
                "SMEMBERS _",
                "ZRANGE _ 0 -1 WITHSCORES",
                "PEXPIRETIME _",
                "TYPE _",
                "OBJECT ENCODING _",
            ] {
                let argv = ask.split(' ').map(|word| if word == "_" { key } else { word });
                let argv: Vec<Vec<u8>> = argv.map(|word| word.as_bytes().to_vec()).collect();
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
