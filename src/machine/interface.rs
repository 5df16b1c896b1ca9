//! What Redis 7.0 says of its commands beside their rows: tips, and key specifications, which tell where the keys stand and what is done
//! with each. `COMMAND INFO` shows them, `COMMAND GETKEYSANDFLAGS` and the permissions of users follow them.

use super::args::integer;
use super::glob::PATTERN_BYTES_MAX;
use super::reply::CommandError;
use super::table::{Run, Spec};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One run of keys among the arguments of a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeySpec {
    /// What cannot be said otherwise; mostly nothing.
    pub note: &'static str,
    /// `RO`, `RW`, `OW` or `RM`, then what is done with the content: `access`, `update`, `insert`, `delete`.
    pub flags: &'static str,
    /// Where it begins.
    pub begin: Begin,
    /// How many keys there are from there on.
    pub find: Find,
}

/// Where a run of keys begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Begin {
    /// At this argument.
    At(usize),
    /// Behind this word, looked for from this argument on; from the end backwards where it is negative.
    Behind(&'static str, i64),
    /// It cannot be told.
    Unknown,
}

/// Which arguments from there on are keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Find {
    /// Last key (counted from the first; from the end where negative), step, and the part of the rest that is keys (2: half of it).
    Range(i64, usize, usize),
    /// Where the count stands, where the first key stands (both counted from the beginning), step.
    Counted(usize, usize, usize),
    /// It cannot be told.
    Unknown,
}

use Begin::{At, Behind};
use Find::{Counted, Range};

const fn keys(flags: &'static str, begin: Begin, find: Find) -> KeySpec {
    KeySpec {
        note: "",
        flags,
        begin,
        find,
    }
}

impl KeySpec {
    const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// The positions of its keys; none where the arguments do not fit it.
    fn positions(&self, argv: &[Bytes]) -> Vec<usize> {
        self.range(argv).unwrap_or_default()
    }

    fn range(&self, argv: &[Bytes]) -> Option<Vec<usize>> {
        let begin = match self.begin {
            At(at) => at,
            Behind(word, from) => {
                let is_word = |at: &usize| argv[*at].eq_ignore_ascii_case(word.as_bytes());
                let at = match usize::try_from(from) {
                    Ok(from) => (from..argv.len()).find(is_word),
                    Err(_) => {
                        let end = argv.len().checked_sub(usize::try_from(-from).ok()? - 1)?;
                        (1..end).rev().find(is_word)
                    }
                };
                at? + 1
            }
            Begin::Unknown => return None,
        };
        let (first, last, step) = match self.find {
            Range(last, step, limit) => {
                let last = match usize::try_from(last) {
                    Ok(last) => begin + last,
                    Err(_) if limit >= 2 => (begin + argv.len().checked_sub(begin)? / limit)
                        .checked_add_signed(isize::try_from(last).ok()?)?,
                    Err(_) => argv.len().checked_add_signed(isize::try_from(last).ok()?)?,
                };
                (begin, last, step)
            }
            Counted(count, first, step) => {
                let count = usize::try_from(integer(argv.get(begin + count)?)?).ok()?;
                let first = begin + first;
                (first, (first + count.checked_mul(step)?).checked_sub(step)?, step)
            }
            Find::Unknown => return None,
        };
        (last < argv.len() && first <= last).then(|| (first..=last).step_by(step.max(1)).collect())
    }
}

/// A key among the arguments of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Its position in argv.
    pub at: usize,
    /// What is done with it, in the words of [`KeySpec::flags`].
    pub flags: &'static str,
}

impl KeyUse {
    /// Whether its content is read.
    pub fn reads(self) -> bool {
        self.has("access")
    }

    /// Whether its content is changed.
    pub fn writes(self) -> bool {
        self.has("update") || self.has("insert") || self.has("delete")
    }

    fn has(self, flag: &str) -> bool {
        self.flags.split(' ').any(|other| other == flag)
    }
}

/// The tips on a command, space separated.
pub fn tips(spec: &Spec) -> &'static str {
    TABLE.get(spec.name).map_or("", |(tips, _)| *tips)
}

/// Why a command is not run that brings a pattern which is too long: asked by who takes it from a client or a script, for what is in a log runs.
pub fn refuses_pattern(spec: &Spec, argv: &[Bytes]) -> Option<CommandError> {
    // First what nearly every command comes to: none of its words is as long.
    if argv.iter().all(|argument| argument.len() <= PATTERN_BYTES_MAX) {
        return None;
    }
    // Where patterns, and words beside them that are all short, begin.
    let from = match spec.name {
        "KEYS" | "PSUBSCRIBE" => 1,
        "SCAN"
        | "CONFIG|GET"
        | "PUBSUB|CHANNELS"
        | "PUBSUB|SHARDCHANNELS"
        | "COMMAND|LIST"
        | "FUNCTION|LIST" => 2,
        "HSCAN" | "SSCAN" | "ZSCAN" | "ACL|SETUSER" => 3,
        _ => return None,
    };
    let is_long = |argument: &Bytes| {
        if argument.len() <= PATTERN_BYTES_MAX {
            return false;
        }
        // Rules for users: only some are patterns, and one in brackets has several.
        let mut rules = argument.split(|byte| *byte == b' ');
        let is_long_pattern = |rule: &[u8]| {
            let rule = rule.strip_prefix(b"(").unwrap_or(rule);
            rule.len() > PATTERN_BYTES_MAX && matches!(rule, [b'~' | b'%' | b'&', ..])
        };
        spec.name != "ACL|SETUSER" || rules.any(is_long_pattern)
    };
    let refused = argv.iter().skip(from).any(is_long);
    refused
        .then(|| CommandError::Other(format!("ERR pattern is longer than {PATTERN_BYTES_MAX} bytes").into()))
}

/// The key specifications of a command; none where it has no keys, or where Redis 7.0 does not know it.
pub fn key_specs(spec: &Spec) -> &'static [KeySpec] {
    TABLE.get(spec.name).map_or(&[], |(_, specs)| *specs)
}

/// Every key among a command's arguments, and what is done with it.
pub fn key_uses(spec: &Spec, argv: &[Bytes]) -> Vec<KeyUse> {
    let mut uses = uses_of(spec, argv);
    uses.retain(|key| key.at < argv.len());
    uses
}

fn uses_of(spec: &Spec, argv: &[Bytes]) -> Vec<KeyUse> {
    let said = |word: &str| {
        argv.iter()
            .any(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    };
    let first = |flags| vec![KeyUse { at: 1, flags }];
    match spec.name {
        "SET"
            if argv
                .iter()
                .skip(3)
                .any(|argument| argument.eq_ignore_ascii_case(b"get")) =>
        {
            return first("RW access update");
        }
        "SET" => return first("OW update"),
        "BITFIELD" if !said("set") && !said("incrby") => return first("RO access"),
        "BITFIELD" => return first("RW access update"),
        // The last STORE is the one that counts.
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" => {
            let found = spec.keys_at(argv).into_iter().enumerate();
            return found
                .map(|(nth, at)| KeyUse {
                    at,
                    flags: if nth == 0 { "RO access" } else { "OW update" },
                })
                .collect();
        }
        // A group or consumer can be called STREAMS.
        "XREAD" | "XREADGROUP" => {
            let found = spec.keys_at(argv).into_iter();
            return found
                .map(|at| KeyUse {
                    at,
                    flags: "RO access",
                })
                .collect();
        }
        // Differs: Redis tells whoever may call it of any key.
        "DEBUG" => {
            let asks = |what: &str| {
                argv.get(1)
                    .is_some_and(|word| word.eq_ignore_ascii_case(what.as_bytes()))
            };
            let end = match () {
                () if asks("OBJECT") => 3,
                () if asks("DIGEST-VALUE") => argv.len(),
                () => 2,
            };
            let found = 2..end;
            return found
                .map(|at| KeyUse {
                    at,
                    flags: "RO access",
                })
                .collect();
        }
        _ => {}
    }
    let specs = key_specs(spec);
    let complete = !specs.iter().any(|spec| spec.flags.ends_with("incomplete"));
    if !specs.is_empty() && complete {
        return specs
            .iter()
            // The name of a shard channel is found like a key, and is none.
            .filter(|spec| spec.flags != "not_key")
            .flat_map(|spec| {
                spec.positions(argv).into_iter().map(|at| KeyUse {
                    at,
                    flags: spec.flags,
                })
            })
            .collect();
    }
    let flags = match spec.run {
        Run::Read(_) => "RO access",
        _ => specs.first().map_or("RW access update", |spec| spec.flags),
    };
    spec.keys_at(argv)
        .into_iter()
        .map(|at| KeyUse { at, flags })
        .collect()
}

static TABLE: LazyLock<HashMap<&str, (&str, &[KeySpec])>> = LazyLock::new(|| {
    ROWS.iter()
        .map(|(name, tips, specs)| (*name, (*tips, *specs)))
        .collect()
});

type Row = (&'static str, &'static str, &'static [KeySpec]);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("APPEND", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("BITCOUNT", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("BITFIELD", "", &[keys("RW access update variable_flags", At(1), Range(0, 1, 0)).note("This command allows both access and modification of the key")]),
    ("BITFIELD_RO", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("BITOP", "", &[keys("OW update", At(2), Range(0, 1, 0)), keys("RO access", At(3), Range(-1, 1, 0))]),
    ("BITPOS", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("BLMOVE", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("RW insert", At(2), Range(0, 1, 0))]),
    ("BLMPOP", "", &[keys("RW access delete", At(2), Counted(0, 1, 1))]),
    ("BLPOP", "", &[keys("RW access delete", At(1), Range(-2, 1, 0))]),
    ("BRPOP", "", &[keys("RW access delete", At(1), Range(-2, 1, 0))]),
    ("BRPOPLPUSH", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("RW insert", At(2), Range(0, 1, 0))]),
    ("BZMPOP", "", &[keys("RW access delete", At(2), Counted(0, 1, 1))]),
    ("BZPOPMAX", "", &[keys("RW access delete", At(1), Range(-2, 1, 0))]),
    ("BZPOPMIN", "", &[keys("RW access delete", At(1), Range(-2, 1, 0))]),
    ("CLIENT|INFO", "nondeterministic_output", &[]),
    ("CLIENT|LIST", "nondeterministic_output", &[]),
    ("CLUSTER|BUMPEPOCH", "nondeterministic_output", &[]),
    ("CLUSTER|COUNT-FAILURE-REPORTS", "nondeterministic_output", &[]),
    ("CLUSTER|GETKEYSINSLOT", "nondeterministic_output", &[]),
    ("CLUSTER|INFO", "nondeterministic_output", &[]),
    ("CLUSTER|LINKS", "nondeterministic_output", &[]),
    ("CLUSTER|NODES", "nondeterministic_output", &[]),
    ("CLUSTER|REPLICAS", "nondeterministic_output", &[]),
    ("CLUSTER|SHARDS", "nondeterministic_output", &[]),
    ("CLUSTER|SLAVES", "nondeterministic_output", &[]),
    ("CLUSTER|SLOTS", "nondeterministic_output", &[]),
    ("COMMAND", "nondeterministic_output_order", &[]),
    ("COMMAND|DOCS", "nondeterministic_output_order", &[]),
    ("COMMAND|INFO", "nondeterministic_output_order", &[]),
    ("COMMAND|LIST", "nondeterministic_output_order", &[]),
    ("CONFIG|SET", "request_policy:all_nodes response_policy:all_succeeded", &[]),
    ("COPY", "", &[keys("RO access", At(1), Range(0, 1, 0)), keys("OW update", At(2), Range(0, 1, 0))]),
    ("DBSIZE", "request_policy:all_shards response_policy:agg_sum", &[]),
    ("DECR", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("DECRBY", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("DEL", "request_policy:multi_shard response_policy:agg_sum", &[keys("RM delete", At(1), Range(-1, 1, 0))]),
    ("DUMP", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("EVAL", "", &[keys("RW access update", At(2), Counted(0, 1, 1)).note("We cannot tell how the keys will be used so we assume the worst, RW and UPDATE")]),
    ("EVAL_RO", "", &[keys("RO access", At(2), Counted(0, 1, 1)).note("We cannot tell how the keys will be used so we assume the worst, RO and ACCESS")]),
    ("EVALSHA", "", &[keys("RW access update", At(2), Counted(0, 1, 1))]),
    ("EVALSHA_RO", "", &[keys("RO access", At(2), Counted(0, 1, 1))]),
    ("EXISTS", "request_policy:multi_shard response_policy:agg_sum", &[keys("RO", At(1), Range(-1, 1, 0))]),
    ("EXPIRE", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("EXPIREAT", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("EXPIRETIME", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("FCALL", "", &[keys("RW access update", At(2), Counted(0, 1, 1)).note("We cannot tell how the keys will be used so we assume the worst, RW and UPDATE")]),
    ("FCALL_RO", "", &[keys("RO access", At(2), Counted(0, 1, 1)).note("We cannot tell how the keys will be used so we assume the worst, RO and ACCESS")]),
    ("FLUSHALL", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("FLUSHDB", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("FUNCTION|DELETE", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("FUNCTION|FLUSH", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("FUNCTION|KILL", "request_policy:all_shards response_policy:one_succeeded", &[]),
    ("FUNCTION|LIST", "nondeterministic_output_order", &[]),
    ("FUNCTION|LOAD", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("FUNCTION|RESTORE", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("FUNCTION|STATS", "nondeterministic_output request_policy:all_shards response_policy:special", &[]),
    ("GEOADD", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("GEODIST", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GEOHASH", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GEOPOS", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GEORADIUS", "", &[keys("RO access", At(1), Range(0, 1, 0)), keys("OW update", Behind("STORE", 6), Range(0, 1, 0)), keys("OW update", Behind("STOREDIST", 6), Range(0, 1, 0))]),
    ("GEORADIUS_RO", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GEORADIUSBYMEMBER", "", &[keys("RO access", At(1), Range(0, 1, 0)), keys("OW update", Behind("STORE", 5), Range(0, 1, 0)), keys("OW update", Behind("STOREDIST", 5), Range(0, 1, 0))]),
    ("GEORADIUSBYMEMBER_RO", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GEOSEARCH", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GEOSEARCHSTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Range(0, 1, 0))]),
    ("GET", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GETBIT", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GETDEL", "", &[keys("RW access delete", At(1), Range(0, 1, 0))]),
    ("GETEX", "", &[keys("RW access update", At(1), Range(0, 1, 0)).note("RW and UPDATE because it changes the TTL")]),
    ("GETRANGE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("GETSET", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("HDEL", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("HEXISTS", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("HGET", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("HGETALL", "nondeterministic_output_order", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("HINCRBY", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("HINCRBYFLOAT", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("HKEYS", "nondeterministic_output_order", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("HLEN", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("HMGET", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("HMSET", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("HRANDFIELD", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("HSCAN", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("HSET", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("HSETNX", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("HSTRLEN", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("HVALS", "nondeterministic_output_order", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("INCR", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("INCRBY", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("INCRBYFLOAT", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("INFO", "nondeterministic_output request_policy:all_shards response_policy:special", &[]),
    ("KEYS", "request_policy:all_shards nondeterministic_output_order", &[]),
    ("LASTSAVE", "nondeterministic_output", &[]),
    ("LATENCY|DOCTOR", "nondeterministic_output request_policy:all_nodes response_policy:special", &[]),
    ("LATENCY|GRAPH", "nondeterministic_output request_policy:all_nodes response_policy:special", &[]),
    ("LATENCY|HISTOGRAM", "nondeterministic_output request_policy:all_nodes response_policy:special", &[]),
    ("LATENCY|HISTORY", "nondeterministic_output request_policy:all_nodes response_policy:special", &[]),
    ("LATENCY|LATEST", "nondeterministic_output request_policy:all_nodes response_policy:special", &[]),
    ("LATENCY|RESET", "request_policy:all_nodes response_policy:all_succeeded", &[]),
    ("LCS", "", &[keys("RO access", At(1), Range(1, 1, 0))]),
    ("LINDEX", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("LINSERT", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("LLEN", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("LMOVE", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("RW insert", At(2), Range(0, 1, 0))]),
    ("LMPOP", "", &[keys("RW access delete", At(1), Counted(0, 1, 1))]),
    ("LPOP", "", &[keys("RW access delete", At(1), Range(0, 1, 0))]),
    ("LPOS", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("LPUSH", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("LPUSHX", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("LRANGE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("LREM", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("LSET", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("LTRIM", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("MEMORY|DOCTOR", "nondeterministic_output request_policy:all_shards response_policy:special", &[]),
    ("MEMORY|MALLOC-STATS", "nondeterministic_output request_policy:all_shards response_policy:special", &[]),
    ("MEMORY|PURGE", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("MEMORY|STATS", "nondeterministic_output request_policy:all_shards response_policy:special", &[]),
    ("MEMORY|USAGE", "", &[keys("RO", At(2), Range(0, 1, 0))]),
    ("MGET", "request_policy:multi_shard", &[keys("RO access", At(1), Range(-1, 1, 0))]),
    ("MIGRATE", "nondeterministic_output", &[keys("RW access delete", At(3), Range(0, 1, 0)), keys("RW access delete incomplete", Behind("KEYS", -2), Range(-1, 1, 0))]),
    ("MODULE|LIST", "nondeterministic_output_order", &[]),
    ("MOVE", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("MSET", "request_policy:multi_shard response_policy:all_succeeded", &[keys("OW update", At(1), Range(-1, 2, 0))]),
    ("MSETNX", "request_policy:multi_shard response_policy:agg_min", &[keys("OW insert", At(1), Range(-1, 2, 0))]),
    ("OBJECT|ENCODING", "nondeterministic_output", &[keys("RO", At(2), Range(0, 1, 0))]),
    ("OBJECT|FREQ", "nondeterministic_output", &[keys("RO", At(2), Range(0, 1, 0))]),
    ("OBJECT|IDLETIME", "nondeterministic_output", &[keys("RO", At(2), Range(0, 1, 0))]),
    ("OBJECT|REFCOUNT", "nondeterministic_output", &[keys("RO", At(2), Range(0, 1, 0))]),
    ("PERSIST", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("PEXPIRE", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("PEXPIREAT", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("PEXPIRETIME", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("PFADD", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("PFCOUNT", "", &[keys("RW access", At(1), Range(-1, 1, 0)).note("RW because it may change the internal representation of the key, and propagate to replicas")]),
    ("PFDEBUG", "", &[keys("RW access", At(2), Range(0, 1, 0))]),
    ("PFMERGE", "", &[keys("RW access insert", At(1), Range(0, 1, 0)), keys("RO access", At(2), Range(-1, 1, 0))]),
    ("PING", "request_policy:all_shards response_policy:all_succeeded", &[]),
    ("PSETEX", "", &[keys("OW update", At(1), Range(0, 1, 0))]),
    ("PTTL", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("RANDOMKEY", "request_policy:all_shards nondeterministic_output", &[]),
    ("RENAME", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("OW update", At(2), Range(0, 1, 0))]),
    ("RENAMENX", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("OW insert", At(2), Range(0, 1, 0))]),
    ("RESTORE", "", &[keys("OW update", At(1), Range(0, 1, 0))]),
    ("RESTORE-ASKING", "", &[keys("OW update", At(1), Range(0, 1, 0))]),
    ("RPOP", "", &[keys("RW access delete", At(1), Range(0, 1, 0))]),
    ("RPOPLPUSH", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("RW insert", At(2), Range(0, 1, 0))]),
    ("RPUSH", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("RPUSHX", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("SADD", "", &[keys("RW insert", At(1), Range(0, 1, 0))]),
    ("SCAN", "nondeterministic_output request_policy:special", &[]),
    ("SCARD", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("SCRIPT|EXISTS", "request_policy:all_shards response_policy:agg_logical_and", &[]),
    ("SCRIPT|FLUSH", "request_policy:all_nodes response_policy:all_succeeded", &[]),
    ("SCRIPT|KILL", "request_policy:all_shards response_policy:one_succeeded", &[]),
    ("SCRIPT|LOAD", "request_policy:all_nodes response_policy:all_succeeded", &[]),
    ("SDIFF", "nondeterministic_output_order", &[keys("RO access", At(1), Range(-1, 1, 0))]),
    ("SDIFFSTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Range(-1, 1, 0))]),
    ("SET", "", &[keys("RW access update variable_flags", At(1), Range(0, 1, 0)).note("RW and ACCESS due to the optional `GET` argument")]),
    ("SETBIT", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("SETEX", "", &[keys("OW update", At(1), Range(0, 1, 0))]),
    ("SETNX", "", &[keys("OW insert", At(1), Range(0, 1, 0))]),
    ("SETRANGE", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("SINTER", "nondeterministic_output_order", &[keys("RO access", At(1), Range(-1, 1, 0))]),
    ("SINTERCARD", "", &[keys("RO access", At(1), Counted(0, 1, 1))]),
    ("SINTERSTORE", "", &[keys("RW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Range(-1, 1, 0))]),
    ("SISMEMBER", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("SLOWLOG|GET", "request_policy:all_nodes nondeterministic_output", &[]),
    ("SLOWLOG|LEN", "request_policy:all_nodes response_policy:agg_sum nondeterministic_output", &[]),
    ("SLOWLOG|RESET", "request_policy:all_nodes response_policy:all_succeeded", &[]),
    ("SMEMBERS", "nondeterministic_output_order", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("SMISMEMBER", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("SMOVE", "", &[keys("RW access delete", At(1), Range(0, 1, 0)), keys("RW insert", At(2), Range(0, 1, 0))]),
    ("SORT", "", &[keys("RO access", At(1), Range(0, 1, 0)), keys("RO access", Begin::Unknown, Find::Unknown).note("For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort"), keys("OW update", Begin::Unknown, Find::Unknown).note("For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array")]),
    ("SORT_RO", "", &[keys("RO access", At(1), Range(0, 1, 0)), keys("RO access", Begin::Unknown, Find::Unknown).note("For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort")]),
    ("SPOP", "nondeterministic_output", &[keys("RW access delete", At(1), Range(0, 1, 0))]),
    ("SPUBLISH", "", &[keys("not_key", At(1), Range(0, 1, 0))]),
    ("SRANDMEMBER", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("SREM", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("SSCAN", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("SSUBSCRIBE", "", &[keys("not_key", At(1), Range(-1, 1, 0))]),
    ("STRLEN", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("SUBSTR", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("SUNION", "nondeterministic_output_order", &[keys("RO access", At(1), Range(-1, 1, 0))]),
    ("SUNIONSTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Range(-1, 1, 0))]),
    ("SUNSUBSCRIBE", "", &[keys("not_key", At(1), Range(-1, 1, 0))]),
    ("TIME", "nondeterministic_output", &[]),
    ("TOUCH", "request_policy:multi_shard response_policy:agg_sum", &[keys("RO", At(1), Range(-1, 1, 0))]),
    ("TTL", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("TYPE", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("UNLINK", "request_policy:multi_shard response_policy:agg_sum", &[keys("RM delete", At(1), Range(-1, 1, 0))]),
    ("WAIT", "request_policy:all_shards response_policy:agg_min", &[]),
    ("WATCH", "", &[keys("RO", At(1), Range(-1, 1, 0))]),
    ("XACK", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("XADD", "nondeterministic_output", &[keys("RW update", At(1), Range(0, 1, 0)).note("UPDATE instead of INSERT because of the optional trimming feature")]),
    ("XAUTOCLAIM", "nondeterministic_output", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("XCLAIM", "nondeterministic_output", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("XDEL", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("XGROUP|CREATE", "", &[keys("RW insert", At(2), Range(0, 1, 0))]),
    ("XGROUP|CREATECONSUMER", "", &[keys("RW insert", At(2), Range(0, 1, 0))]),
    ("XGROUP|DELCONSUMER", "", &[keys("RW delete", At(2), Range(0, 1, 0))]),
    ("XGROUP|DESTROY", "", &[keys("RW delete", At(2), Range(0, 1, 0))]),
    ("XGROUP|SETID", "", &[keys("RW update", At(2), Range(0, 1, 0))]),
    ("XINFO|CONSUMERS", "nondeterministic_output", &[keys("RO access", At(2), Range(0, 1, 0))]),
    ("XINFO|GROUPS", "", &[keys("RO access", At(2), Range(0, 1, 0))]),
    ("XINFO|STREAM", "", &[keys("RO access", At(2), Range(0, 1, 0))]),
    ("XLEN", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("XPENDING", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("XRANGE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("XREAD", "", &[keys("RO access", Behind("STREAMS", 1), Range(-1, 1, 2))]),
    ("XREADGROUP", "", &[keys("RO access", Behind("STREAMS", 4), Range(-1, 1, 2))]),
    ("XREVRANGE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("XSETID", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("XTRIM", "nondeterministic_output", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("ZADD", "", &[keys("RW update", At(1), Range(0, 1, 0))]),
    ("ZCARD", "", &[keys("RO", At(1), Range(0, 1, 0))]),
    ("ZCOUNT", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZDIFF", "", &[keys("RO access", At(1), Counted(0, 1, 1))]),
    ("ZDIFFSTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Counted(0, 1, 1))]),
    ("ZINCRBY", "", &[keys("RW access update", At(1), Range(0, 1, 0))]),
    ("ZINTER", "", &[keys("RO access", At(1), Counted(0, 1, 1))]),
    ("ZINTERCARD", "", &[keys("RO access", At(1), Counted(0, 1, 1))]),
    ("ZINTERSTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Counted(0, 1, 1))]),
    ("ZLEXCOUNT", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZMPOP", "", &[keys("RW access delete", At(1), Counted(0, 1, 1))]),
    ("ZMSCORE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZPOPMAX", "", &[keys("RW access delete", At(1), Range(0, 1, 0))]),
    ("ZPOPMIN", "", &[keys("RW access delete", At(1), Range(0, 1, 0))]),
    ("ZRANDMEMBER", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZRANGE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZRANGEBYLEX", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZRANGEBYSCORE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZRANGESTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Range(0, 1, 0))]),
    ("ZRANK", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZREM", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("ZREMRANGEBYLEX", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("ZREMRANGEBYRANK", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("ZREMRANGEBYSCORE", "", &[keys("RW delete", At(1), Range(0, 1, 0))]),
    ("ZREVRANGE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZREVRANGEBYLEX", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZREVRANGEBYSCORE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZREVRANK", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZSCAN", "nondeterministic_output", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZSCORE", "", &[keys("RO access", At(1), Range(0, 1, 0))]),
    ("ZUNION", "", &[keys("RO access", At(1), Counted(0, 1, 1))]),
    ("ZUNIONSTORE", "", &[keys("OW update", At(1), Range(0, 1, 0)), keys("RO access", At(2), Counted(0, 1, 1))]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::table;

    fn uses(command: &str) -> Vec<(usize, &'static str)> {
        let argv: Vec<Bytes> = command
            .split(' ')
            .map(|word| Bytes::from(word.to_owned()))
            .collect();
        let spec = table::by_name(
            &argv[0]
                .to_ascii_uppercase()
                .iter()
                .map(|byte| char::from(*byte))
                .collect::<String>(),
        );
        key_uses(spec.expect("a row"), &argv)
            .into_iter()
            .map(|key| (key.at, key.flags))
            .collect()
    }

    #[test]
    fn keys_are_found_with_what_is_done_to_them() {
        assert_eq!(uses("get k"), [(1, "RO access")]);
        assert_eq!(uses("set k v"), [(1, "OW update")]);
        assert_eq!(uses("set k v get"), [(1, "RW access update")]);
        assert_eq!(uses("set k get"), [(1, "OW update")]);
        assert_eq!(uses("mset a 1 b 2"), [(1, "OW update"), (3, "OW update")]);
        assert_eq!(uses("del a b"), [(1, "RM delete"), (2, "RM delete")]);
        assert_eq!(uses("rename a b"), [(1, "RW access delete"), (2, "OW update")]);
        assert_eq!(uses("ping"), []);
        assert_eq!(uses("debug object a fast"), [(2, "RO access")]);
        assert_eq!(uses("debug object"), []);
        assert_eq!(
            uses("debug digest-value a b"),
            [(2, "RO access"), (3, "RO access")]
        );
        assert_eq!(uses("debug sleep 0"), []);
        let both = [(1, "RW access update"), (5, "RW access update")];
        assert_eq!(uses("cache.set a v tags 1 b"), both);
        let (read, stored) = ((1, "RO access"), |at| (at, "OW update"));
        assert_eq!(uses("georadius a 0 0 1 m store b storedist c"), [read, stored(9)]);
        assert_eq!(
            uses("georadiusbymember a store 1 m store store"),
            [read, stored(6)]
        );
        assert_eq!(
            uses("xreadgroup noack group g streams streams a >"),
            [(6, "RO access")]
        );
        assert_eq!(
            uses("xread count 1 streams a b 0 0"),
            [(4, "RO access"), (5, "RO access")]
        );
    }

    #[test]
    fn a_run_of_keys_that_does_not_fit_is_empty() {
        let argv: Vec<Bytes> = ["X", "2", "a", "b", "STREAMS", "s", "t", "0", "0"]
            .map(Bytes::from)
            .to_vec();
        assert_eq!(keys("", At(1), Counted(0, 1, 1)).positions(&argv), [2, 3]);
        assert_eq!(keys("", At(2), Counted(0, 1, 1)).positions(&argv), [0usize; 0]);
        assert_eq!(
            keys("", Behind("streams", 1), Range(-1, 1, 2)).positions(&argv),
            [5, 6]
        );
        assert_eq!(
            keys("", Behind("streams", -1), Range(0, 1, 0)).positions(&argv),
            [5]
        );
        assert_eq!(
            keys("", Behind("nothing", 1), Range(0, 1, 0)).positions(&argv),
            [0usize; 0]
        );
        assert_eq!(keys("", At(20), Range(0, 1, 0)).positions(&argv), [0usize; 0]);
        assert_eq!(keys("", At(20), Range(-1, 1, 2)).positions(&argv), [0usize; 0]);
    }
}
