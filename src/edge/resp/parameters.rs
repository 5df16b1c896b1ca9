//! The parameters of `CONFIG`: every one that Redis 7.0 has, and what each is here.
//!
//! | kind | what setting it does |
//! |---|---|
//! | `own` | changes this node's endpoint, until it stops |
//! | `common` | changes all nodes, through the log |
//! | `fixed` | refused: it is set where the node is started, or follows from what Plenary is |
//! | `kept` | checked as Redis checks it, kept and shown; there is nothing here that it could change |

use super::Shared;
use crate::config::TlsConfig;
use crate::machine::args::integer;
use crate::machine::glob::PATTERN_BYTES_MAX;
use crate::machine::keyspace::DATABASES;
use crate::machine::settings::EXPIRE_SLACK_PERCENT_MAX;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// One parameter.
pub(super) struct Parameter {
    /// The first is the one that `CONFIG REWRITE` would write; the others are its old names.
    pub(super) names: &'static [&'static str],
    pub(super) kind: Kind,
    /// Shown only to who asks for it by name.
    pub(super) hidden: bool,
}

/// What setting a parameter does.
pub(super) enum Kind {
    Fixed(fn(&Shared) -> String),
    Own(Check, fn(&Shared) -> String, fn(&Shared, &str)),
    Common(Check),
    Kept(Check, &'static str),
    /// One of the settings of TLS: see [`super::config`].
    Tls(fn(&TlsConfig) -> String),
    /// `requirepass`: a password of the user `default`, who is common to all nodes.
    Password,
}

/// Which values a parameter takes.
pub(super) enum Check {
    YesNo,
    /// A number in these bounds.
    Integer(i64, i64),
    /// A number of bytes in these bounds, with or without a unit.
    Memory(i64, i64),
    /// A number of bytes, or a part of the memory.
    MemoryOrPercent,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words.
    Choices(&'static [&'static str]),
    Text,
    /// What this makes of the current value and the new one.
    Special(fn(&str, &str) -> Result<String, String>),
}

use Check::{Choice, Choices, Integer, Memory, MemoryOrPercent, Text, YesNo};

const I32_MIN: i64 = i32::MIN as i64;
const I32_MAX: i64 = i32::MAX as i64;
const U32_MAX: i64 = u32::MAX as i64;
const I64_MAX: i64 = i64::MAX;

const fn fixed(names: &'static [&'static str], get: fn(&Shared) -> String) -> Parameter {
    row(names, Kind::Fixed(get))
}

const fn own(
    names: &'static [&'static str],
    check: Check,
    get: fn(&Shared) -> String,
    set: fn(&Shared, &str),
) -> Parameter {
    row(names, Kind::Own(check, get, set))
}

/// A number of clients that the system has room for.
fn clients(now: &str, new: &str) -> Result<String, String> {
    let value = Integer(1, U32_MAX).value(now, new)?;
    let room = super::descriptors::room();
    if value.parse::<usize>().is_ok_and(|clients| clients <= room) {
        Ok(value)
    } else {
        Err(format!(
            "The operating system is not able to handle the specified number of clients, try with {room}"
        ))
    }
}

const fn common(names: &'static [&'static str], check: Check) -> Parameter {
    row(names, Kind::Common(check))
}

const fn kept(names: &'static [&'static str], check: Check, value: &'static str) -> Parameter {
    row(names, Kind::Kept(check, value))
}

const fn hidden(names: &'static [&'static str], check: Check, value: &'static str) -> Parameter {
    Parameter {
        hidden: true,
        ..kept(names, check, value)
    }
}

const fn row(names: &'static [&'static str], kind: Kind) -> Parameter {
    Parameter {
        names,
        kind,
        hidden: false,
    }
}

/// The parameter of a name in any case.
pub(super) fn by_name(name: &[u8]) -> Option<&'static Parameter> {
    let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    PARAMETERS
        .iter()
        .find(|parameter| parameter.names.iter().any(&is))
}

impl Parameter {
    /// The value as `CONFIG GET` shows it.
    pub(super) fn get(&self, shared: &Shared) -> String {
        match &self.kind {
            Kind::Fixed(get) | Kind::Own(_, get, _) => get(shared),
            Kind::Common(_) => shared.node.settings().get(self.names[0]).unwrap_or_default(),
            Kind::Kept(_, value) => shared
                .kept
                .get(self.names[0])
                .unwrap_or_else(|| (*value).to_owned()),
            Kind::Tls(get) => shared.tls_config().map(|tls| get(&tls)).unwrap_or_default(),
            Kind::Password => shared.access.shown_password(shared),
        }
    }
}

/// Values of parameters that change nothing here.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<BTreeMap<&'static str, String>>);

impl Kept {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.lock().get(name).cloned()
    }

    pub(super) fn set(&self, name: &'static str, value: String) {
        self.0.lock().insert(name, value);
    }
}

impl Check {
    /// The value as it is kept.
    ///
    /// # Errors
    /// What Redis says is wrong with it.
    pub(super) fn value(&self, current: &str, value: &str) -> Result<String, String> {
        match self {
            YesNo => match value.to_ascii_lowercase().as_str() {
                word @ ("yes" | "no") => Ok(word.to_owned()),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Integer(least, most) => {
                let number =
                    integer(value.as_bytes()).ok_or("argument couldn't be parsed into an integer")?;
                within(number, *least, *most)
            }
            Memory(least, most) => within(
                memory(value).ok_or("argument must be a memory value")?,
                *least,
                *most,
            ),
            MemoryOrPercent => match value.strip_suffix('%').map(|part| integer(part.as_bytes())) {
                Some(Some(0..=100)) => Ok(value.to_owned()),
                Some(Some(101..)) => Err("percentage argument must be less or equal to 100".to_owned()),
                _ => match memory(value) {
                    Some(bytes) => Ok(bytes.to_string()),
                    None => Err("argument must be a memory or percent value".to_owned()),
                },
            },
            Choice(words) => {
                let known = words.iter().find(|word| word.eq_ignore_ascii_case(value));
                known.map(|word| (*word).to_owned()).ok_or_else(|| one_of(words))
            }
            Choices(words) => {
                let chosen: Vec<String> = value.split_whitespace().map(str::to_ascii_lowercase).collect();
                let all_known = chosen.iter().all(|word| words.contains(&word.as_str()));
                if chosen.is_empty() || !all_known {
                    return Err(one_of(words));
                }
                let mut shown: Vec<&str> = words
                    .iter()
                    .copied()
                    .filter(|word| chosen.iter().any(|other| other == word))
                    .collect();
                // The first stands for none of the others.
                if shown.len() > 1 {
                    shown.retain(|word| *word != words[0]);
                }
                if shown.contains(&"save") && shown.contains(&"nosave") {
                    return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned());
                }
                Ok(shown.join(" "))
            }
            Text => Ok(value.to_owned()),
            Check::Special(check) => check(current, value),
        }
    }
}

fn within(number: i64, least: i64, most: i64) -> Result<String, String> {
    if (least..=most).contains(&number) {
        Ok(number.to_string())
    } else {
        Err(format!("argument must be between {least} and {most} inclusive"))
    }
}

fn one_of(words: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", words.join(", "))
}

/// A number of bytes with a unit of Redis: `k` and `m` count by thousands, `kb` and `mb` by 1024.
pub(super) fn memory(text: &str) -> Option<i64> {
    let digits = text
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// `save`: pairs of seconds and changes.
fn save(_: &str, value: &str) -> Result<String, String> {
    let numbers: Option<Vec<i64>> = value
        .split_whitespace()
        .map(|number| number.parse().ok())
        .collect();
    numbers
        .filter(|numbers| {
            numbers.len() % 2 == 0 && numbers.chunks(2).all(|pair| pair[0] >= 1 && pair[1] >= 0)
        })
        .map(|numbers| joined(&numbers))
        .ok_or_else(|| "Invalid save parameters".to_owned())
}

/// `client-output-buffer-limit` at first. There are no replicas that are clients: their class decides nothing.
const OUTPUT_LIMITS: &str = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";

/// `client-output-buffer-limit`: class, hard limit, soft limit and its seconds; classes that are not named stay as they are.
fn output_limits(current: &str, value: &str) -> Result<String, String> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let mut limits: Vec<String> = current.split_whitespace().map(str::to_owned).collect();
    if !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    for group in words.chunks(4) {
        let class = match group[0].to_ascii_lowercase().as_str() {
            "normal" => 0,
            "slave" | "replica" => 4,
            "pubsub" => 8,
            _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
        };
        let numbers = memory(group[1])
            .zip(memory(group[2]))
            .zip(group[3].parse::<i64>().ok());
        let Some(((hard, soft), seconds)) = numbers.filter(|(_, seconds)| *seconds >= 0) else {
            return Err(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_owned(),
            );
        };
        for (place, number) in limits[class + 1..].iter_mut().zip([hard, soft, seconds]) {
            *place = number.to_string();
        }
    }
    Ok(limits.join(" "))
}

/// `expire-slack-keys`: each key that is given a life is held against them where the log is applied.
fn patterns(_: &str, value: &str) -> Result<String, String> {
    if value.len() > PATTERN_BYTES_MAX {
        return Err(format!("patterns are longer than {PATTERN_BYTES_MAX} bytes"));
    }
    Ok(value.to_owned())
}

/// `oom-score-adj-values`: three scores that do not fall.
fn oom_scores(_: &str, value: &str) -> Result<String, String> {
    let scores: Option<Vec<i64>> = value.split_whitespace().map(|score| score.parse().ok()).collect();
    let scores = scores
        .filter(|scores| scores.len() == 3)
        .ok_or("wrong number of arguments")?;
    if scores.iter().all(|score| (-2000..=2000).contains(score)) {
        Ok(joined(&scores))
    } else {
        Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.".to_owned())
    }
}

/// `latency-tracking-info-percentiles`: each from 0 to 100.
fn percentiles(_: &str, value: &str) -> Result<String, String> {
    let parts: Option<Vec<f64>> = value.split_whitespace().map(|part| part.parse().ok()).collect();
    let parts = parts.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
    if parts.iter().all(|part| (0.0..=100.0).contains(part)) {
        Ok(joined(&parts))
    } else {
        Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".to_owned())
    }
}

/// `notify-keyspace-events`: letters.
fn classes(_: &str, value: &str) -> Result<String, String> {
    match crate::machine::event::Classes::parse(value) {
        Some(classes) => Ok(classes.to_string()),
        None => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

/// A value that was checked to be a number not below 0.
fn natural(value: &str) -> u64 {
    value.parse().unwrap_or(u64::MAX)
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[rustfmt::skip]
const PARAMETERS: &[Parameter] = &[
    // Of this node's endpoint.
    own(&["acllog-max-len"], Integer(0, I64_MAX), |shared| shared.acl_log.max_len().to_string(), |shared, value| shared.acl_log.set_max_len(natural(value))),
    own(&["latency-monitor-threshold"], Integer(0, I64_MAX), |shared| shared.latency.threshold_ms().to_string(), |shared, value| shared.latency.set_threshold_ms(natural(value))),
    own(&["latency-tracking"], YesNo, |shared| yes(shared.calls.tracking()), |shared, value| shared.calls.track(value == "yes")),
    own(&["latency-tracking-info-percentiles"], Check::Special(percentiles), |shared| joined(&shared.calls.percentiles()), |shared, value| {
        shared.calls.set_percentiles(value.split_whitespace().filter_map(|part| part.parse().ok()).collect());
    }),
    own(&["busy-reply-threshold", "lua-time-limit"], Integer(0, I64_MAX), |shared| shared.node.script_busy_after_ms().to_string(), |shared, value| {
        shared.node.set_script_busy_after_ms(value.parse().unwrap_or(u64::MAX));
    }),
    own(&["busy-reply-scope"], Choice(&["scripts", "all"]), |shared| if shared.busy_for_all.load(Relaxed) { "all" } else { "scripts" }.to_owned(), |shared, value| {
        shared.busy_for_all.store(value == "all", Relaxed);
    }),
    own(&["client-query-buffer-limit"], Memory(1 << 20, I64_MAX), |shared| shared.limits().command_bytes.to_string(), |shared, value| {
        shared.max_command_bytes.store(value.parse().unwrap_or(usize::MAX), Relaxed);
    }),
    own(&["min-replicas-max-lag", "min-slaves-max-lag"], Integer(0, I32_MAX), |shared| shared.node.fellows().1.to_string(), |shared, value| {
        shared.node.set_fellows_max_lag_s(natural(value));
    }),
    own(&["min-replicas-to-write", "min-slaves-to-write"], Integer(0, I32_MAX), |shared| shared.node.fellows().0.to_string(), |shared, value| {
        shared.node.want_fellows(value.parse().unwrap_or(usize::MAX));
    }),
    own(&["proto-max-bulk-len"], Memory(1 << 20, I64_MAX), |shared| shared.limits().bulk_bytes.to_string(), |shared, value| {
        shared.max_bulk_bytes.store(value.parse().unwrap_or(usize::MAX), Relaxed);
    }),
    own(&["maxclients"], Check::Special(clients), |shared| shared.max_clients.load(Relaxed).to_string(), |shared, value| {
        shared.max_clients.store(value.parse().unwrap_or(usize::MAX), Relaxed);
    }),
    own(&["slowlog-log-slower-than"], Integer(-1, I64_MAX), |shared| shared.slowlog.threshold_us().to_string(), |shared, value| {
        shared.slowlog.set_threshold_us(value.parse().unwrap_or(i64::MAX));
    }),
    own(&["slowlog-max-len"], Integer(0, I64_MAX), |shared| shared.slowlog.max_len().to_string(), |shared, value| shared.slowlog.set_max_len(natural(value))),
    own(&["timeout"], Integer(0, I32_MAX), |shared| (shared.idle_timeout_ms.load(Relaxed) / 1000).to_string(), |shared, value| {
        shared.idle_timeout_ms.store(natural(value).saturating_mul(1000), Relaxed);
    }),

    // Of all nodes.
    common(&["acl-pubsub-default"], Choice(&["allchannels", "resetchannels"])),
    common(&["hash-max-listpack-entries", "hash-max-ziplist-entries"], Integer(0, I64_MAX)),
    common(&["hash-max-listpack-value", "hash-max-ziplist-value"], Memory(0, I64_MAX)),
    common(&["hll-sparse-max-bytes"], Memory(0, I64_MAX)),
    common(&["lfu-decay-time"], Integer(0, I32_MAX)),
    common(&["lfu-log-factor"], Integer(0, I32_MAX)),
    common(&["list-compress-depth"], Integer(0, I32_MAX)),
    common(&["list-max-listpack-size", "list-max-ziplist-size"], Integer(I32_MIN, I32_MAX)),
    common(&["maxmemory"], Memory(0, I64_MAX)),
    common(&["maxmemory-eviction-tenacity"], Integer(0, 100)),
    common(&["maxmemory-policy"], Choice(&["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "allkeys-lru", "allkeys-lfu", "allkeys-random", "noeviction"])),
    common(&["maxmemory-samples"], Integer(1, I32_MAX)),
    common(&["notify-keyspace-events"], Check::Special(classes)),
    common(&["set-max-intset-entries"], Integer(0, I64_MAX)),
    common(&["stream-node-max-bytes"], Memory(0, I64_MAX)),
    common(&["stream-node-max-entries"], Integer(0, I64_MAX)),
    common(&["zset-max-listpack-entries", "zset-max-ziplist-entries"], Integer(0, I64_MAX)),
    common(&["zset-max-listpack-value", "zset-max-ziplist-value"], Memory(0, I64_MAX)),
    common(&["expire-slack-percent"], Integer(0, EXPIRE_SLACK_PERCENT_MAX as i64)),
    common(&["expire-slack-keys"], Check::Special(patterns)),
    common(&["session-events"], Choice(&["no", "yes", "content"])),
    row(&["requirepass"], Kind::Password),
    row(&["tls-cert-file"], Kind::Tls(|tls| tls.cert_file.display().to_string())),
    row(&["tls-key-file"], Kind::Tls(|tls| tls.key_file.display().to_string())),
    row(&["tls-ca-cert-file"], Kind::Tls(|tls| tls.ca_cert_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default())),
    row(&["tls-auth-clients"], Kind::Tls(|tls| tls.clients.to_string())),

    // Set where the node is started, or true by construction.
    fixed(&["appendfsync"], |shared| if shared.node.status().durability == "fsync" { "always" } else { "no" }.to_owned()),
    fixed(&["bind"], |shared| shared.address.ip().to_string()),
    fixed(&["cluster-enabled"], |_| "no".to_owned()),
    fixed(&["daemonize"], |_| "no".to_owned()),
    fixed(&["databases"], |_| DATABASES.to_string()),
    fixed(&["dir"], |_| std::env::current_dir().unwrap_or_default().display().to_string()),
    fixed(&["disable-thp"], |_| "no".to_owned()),
    fixed(&["enable-debug-command"], |shared| shared.config.debug_command.to_string()),
    fixed(&["enable-module-command"], |_| "no".to_owned()),
    fixed(&["pidfile"], |_| String::new()),
    fixed(&["port"], |shared| if shared.config.listen.is_empty() { 0 } else { shared.address.port() }.to_string()),
    fixed(&["protected-mode"], |shared| yes(shared.access.open(shared))),
    fixed(&["supervised"], |_| "no".to_owned()),
    fixed(&["tls-port"], |shared| shared.tls_port.to_string()),

    // The log cannot be turned off. Who does not need it is not refused.
    own(&["appendonly"], YesNo, |_| "yes".to_owned(), |_, _| {}),

    // Of what there is none here: files, replicas, memory that is collected.
    kept(&["masterauth"], Text, ""),
    fixed(&["aclfile"], |_| String::new()),
    kept(&["active-defrag-cycle-max"], Integer(1, 99), "25"),
    kept(&["active-defrag-cycle-min"], Integer(1, 99), "1"),
    kept(&["active-defrag-ignore-bytes"], Memory(1, I64_MAX), "104857600"),
    kept(&["active-defrag-max-scan-fields"], Integer(1, I64_MAX), "1000"),
    kept(&["active-defrag-threshold-lower"], Integer(0, 1000), "10"),
    kept(&["active-defrag-threshold-upper"], Integer(0, 1000), "100"),
    kept(&["active-expire-effort"], Integer(1, 10), "1"),
    kept(&["activedefrag"], YesNo, "no"),
    kept(&["activerehashing"], YesNo, "yes"),
    fixed(&["always-show-logo"], |_| "no".to_owned()),
    kept(&["aof-disable-auto-gc"], YesNo, "no"),
    kept(&["aof-load-truncated"], YesNo, "yes"),
    kept(&["aof-rewrite-incremental-fsync"], YesNo, "yes"),
    kept(&["aof-timestamp-enabled"], YesNo, "no"),
    kept(&["aof-use-rdb-preamble"], YesNo, "yes"),
    fixed(&["aof_rewrite_cpulist"], |_| String::new()),
    fixed(&["appenddirname"], |_| "appendonlydir".to_owned()),
    fixed(&["appendfilename"], |_| "appendonly.aof".to_owned()),
    kept(&["auto-aof-rewrite-min-size"], Memory(0, I64_MAX), "67108864"),
    kept(&["auto-aof-rewrite-percentage"], Integer(0, I32_MAX), "100"),
    fixed(&["bgsave_cpulist"], |_| String::new()),
    kept(&["bind-source-addr"], Text, ""),
    fixed(&["bio_cpulist"], |_| String::new()),
    own(&["client-output-buffer-limit"], Check::Special(output_limits), |shared| {
        shared.kept.get("client-output-buffer-limit").unwrap_or_else(|| OUTPUT_LIMITS.to_owned())
    }, |shared, value| {
        let numbers: Vec<u64> = value.split(' ').map(natural).collect();
        shared.reply_limits.set(&numbers[1..4]);
        shared.hub.limits.set(&numbers[9..]);
        shared.kept.set("client-output-buffer-limit", value.to_owned());
    }),
    kept(&["cluster-allow-pubsubshard-when-down"], YesNo, "yes"),
    kept(&["cluster-allow-reads-when-down"], YesNo, "no"),
    kept(&["cluster-allow-replica-migration"], YesNo, "yes"),
    kept(&["cluster-announce-bus-port"], Integer(0, 65535), "0"),
    kept(&["cluster-announce-hostname"], Text, ""),
    kept(&["cluster-announce-ip"], Text, ""),
    kept(&["cluster-announce-port"], Integer(0, 65535), "0"),
    kept(&["cluster-announce-tls-port"], Integer(0, 65535), "0"),
    fixed(&["cluster-config-file"], |_| "nodes.conf".to_owned()),
    kept(&["cluster-link-sendbuf-limit"], Memory(0, I64_MAX), "0"),
    kept(&["cluster-migration-barrier"], Integer(0, I32_MAX), "1"),
    kept(&["cluster-node-timeout"], Integer(0, I64_MAX), "15000"),
    fixed(&["cluster-port"], |_| "0".to_owned()),
    kept(&["cluster-preferred-endpoint-type"], Choice(&["ip", "hostname", "unknown-endpoint"]), "ip"),
    kept(&["cluster-replica-no-failover", "cluster-slave-no-failover"], YesNo, "no"),
    kept(&["cluster-replica-validity-factor", "cluster-slave-validity-factor"], Integer(0, I32_MAX), "10"),
    kept(&["cluster-require-full-coverage"], YesNo, "yes"),
    kept(&["crash-log-enabled"], YesNo, "yes"),
    kept(&["crash-memcheck-enabled"], YesNo, "yes"),
    kept(&["dbfilename"], Text, "dump.rdb"),
    kept(&["dynamic-hz"], YesNo, "yes"),
    fixed(&["enable-protected-configs"], |_| "no".to_owned()),
    kept(&["hz"], Integer(0, I32_MAX), "10"),
    kept(&["ignore-warnings"], Text, ""),
    fixed(&["io-threads"], |_| "1".to_owned()),
    fixed(&["io-threads-do-reads"], |_| "no".to_owned()),
    kept(&["jemalloc-bg-thread"], YesNo, "yes"),
    kept(&["lazyfree-lazy-eviction"], YesNo, "no"),
    kept(&["lazyfree-lazy-expire"], YesNo, "no"),
    kept(&["lazyfree-lazy-server-del"], YesNo, "no"),
    kept(&["lazyfree-lazy-user-del"], YesNo, "no"),
    kept(&["lazyfree-lazy-user-flush"], YesNo, "no"),
    fixed(&["logfile"], |_| String::new()),
    kept(&["loglevel"], Choice(&["debug", "verbose", "notice", "warning"]), "notice"),
    kept(&["masteruser"], Text, ""),
    kept(&["maxmemory-clients"], MemoryOrPercent, "0"),
    kept(&["no-appendfsync-on-rewrite"], YesNo, "no"),
    kept(&["oom-score-adj"], Choice(&["no", "yes", "relative", "absolute"]), "no"),
    kept(&["oom-score-adj-values"], Check::Special(oom_scores), "0 200 800"),
    kept(&["proc-title-template"], Text, "{title} {listen-addr} {server-mode}"),
    kept(&["propagation-error-behavior"], Choice(&["ignore", "panic-on-replicas", "panic"]), "ignore"),
    kept(&["rdb-del-sync-files"], YesNo, "no"),
    kept(&["rdb-save-incremental-fsync"], YesNo, "yes"),
    fixed(&["rdbchecksum"], |_| "yes".to_owned()),
    kept(&["rdbcompression"], YesNo, "yes"),
    kept(&["repl-backlog-size"], Memory(1, I64_MAX), "1048576"),
    kept(&["repl-backlog-ttl"], Integer(0, I64_MAX), "3600"),
    kept(&["repl-disable-tcp-nodelay"], YesNo, "no"),
    kept(&["repl-diskless-load"], Choice(&["disabled", "on-empty-db", "swapdb"]), "disabled"),
    kept(&["repl-diskless-sync"], YesNo, "yes"),
    kept(&["repl-diskless-sync-delay"], Integer(0, I32_MAX), "5"),
    kept(&["repl-diskless-sync-max-replicas"], Integer(0, I32_MAX), "0"),
    kept(&["repl-ping-replica-period", "repl-ping-slave-period"], Integer(1, I32_MAX), "10"),
    kept(&["repl-timeout"], Integer(1, I32_MAX), "60"),
    kept(&["replica-announce-ip", "slave-announce-ip"], Text, ""),
    kept(&["replica-announce-port", "slave-announce-port"], Integer(0, 65535), "0"),
    kept(&["replica-announced"], YesNo, "yes"),
    kept(&["replica-ignore-disk-write-errors"], YesNo, "no"),
    kept(&["replica-ignore-maxmemory", "slave-ignore-maxmemory"], YesNo, "yes"),
    kept(&["replica-lazy-flush", "slave-lazy-flush"], YesNo, "no"),
    kept(&["replica-priority", "slave-priority"], Integer(0, I32_MAX), "100"),
    kept(&["replica-read-only", "slave-read-only"], YesNo, "yes"),
    kept(&["replica-serve-stale-data", "slave-serve-stale-data"], YesNo, "yes"),
    fixed(&["replicaof", "slaveof"], |_| String::new()),
    kept(&["sanitize-dump-payload"], Choice(&["no", "yes", "clients"]), "no"),
    kept(&["save"], Check::Special(save), ""),
    fixed(&["server_cpulist"], |_| String::new()),
    fixed(&["set-proc-title"], |_| "yes".to_owned()),
    kept(&["shutdown-on-sigint"], Choices(&["default", "save", "nosave", "now", "force"]), "default"),
    kept(&["shutdown-on-sigterm"], Choices(&["default", "save", "nosave", "now", "force"]), "default"),
    kept(&["shutdown-timeout"], Integer(0, I32_MAX), "10"),
    fixed(&["socket-mark-id"], |_| "0".to_owned()),
    kept(&["stop-writes-on-bgsave-error"], YesNo, "yes"),
    fixed(&["syslog-enabled"], |_| "no".to_owned()),
    fixed(&["syslog-facility"], |_| "local0".to_owned()),
    fixed(&["syslog-ident"], |_| "redis".to_owned()),
    fixed(&["tcp-backlog"], |_| "511".to_owned()),
    kept(&["tcp-keepalive"], Integer(0, I32_MAX), "300"),
    own(&["tracking-table-max-keys"], Integer(0, I64_MAX), |shared| shared.hub.tracking.max_keys.load(Relaxed).to_string(), |shared, value| {
        shared.hub.tracking.max_keys.store(value.parse().unwrap_or(usize::MAX), Relaxed);
        shared.hub.tracking.keep_limit(&shared.hub);
    }),
    fixed(&["unixsocket"], |_| String::new()),
    fixed(&["unixsocketperm"], |_| "0".to_owned()),
    hidden(&["key-load-delay"], Integer(I32_MIN, I32_MAX), "0"),
    hidden(&["loading-process-events-interval-bytes"], Integer(1024, I32_MAX), "2097152"),
    hidden(&["rdb-key-save-delay"], Integer(I32_MIN, I32_MAX), "0"),
    hidden(&["use-exit-on-panic"], YesNo, "no"),
    hidden(&["watchdog-period"], Integer(0, I32_MAX), "0"),
];

/// Every parameter.
pub(super) fn all() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS.iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::settings::Settings;

    #[test]
    fn every_shared_setting_is_a_parameter() {
        for name in Settings::names() {
            let parameter = by_name(name.as_bytes()).expect(name);
            assert!(matches!(parameter.kind, Kind::Common(_)), "{name}");
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        let mut names: Vec<&str> = all().flat_map(|parameter| parameter.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_kept_is_a_value() {
        for parameter in all() {
            if let Kind::Kept(check, value) = &parameter.kind {
                assert_eq!(
                    check.value(value, value).as_deref(),
                    Ok(*value),
                    "{}",
                    parameter.names[0]
                );
            }
        }
    }

    #[test]
    fn values_are_checked_as_redis_checks_them() {
        let error = |check: Check, value: &str| check.value("", value).expect_err(value);
        assert_eq!(error(YesNo, "maybe"), "argument must be 'yes' or 'no'");
        assert_eq!(
            error(Integer(0, 5), "6"),
            "argument must be between 0 and 5 inclusive"
        );
        assert_eq!(
            error(Integer(0, 5), "x"),
            "argument couldn't be parsed into an integer"
        );
        assert_eq!(error(Memory(0, 5), "1zb"), "argument must be a memory value");
        assert_eq!(
            error(MemoryOrPercent, "200%"),
            "percentage argument must be less or equal to 100"
        );
        assert_eq!(
            error(Choice(&["a", "b"]), "c"),
            "argument(s) must be one of the following: a, b"
        );
        assert_eq!(Memory(0, I64_MAX).value("", "10mb").as_deref(), Ok("10485760"));
        assert_eq!(Memory(0, I64_MAX).value("", "10m").as_deref(), Ok("10000000"));
        assert_eq!(
            Choices(&["default", "save", "nosave", "now"])
                .value("", "now nosave")
                .as_deref(),
            Ok("nosave now")
        );
        assert_eq!(save("", "3600 1 60 5").as_deref(), Ok("3600 1 60 5"));
        assert_eq!(save("", "").as_deref(), Ok(""));
        assert!(save("", "3600").is_err() && save("", "0 1").is_err());
        let limits = "normal 0 0 0 slave 1 1 1 pubsub 2 2 2";
        assert_eq!(
            output_limits(limits, "replica 1mb 5 6").as_deref(),
            Ok("normal 0 0 0 slave 1048576 5 6 pubsub 2 2 2")
        );
        assert_eq!(percentiles("", "0.0 50.0 99.9").as_deref(), Ok("0 50 99.9"));
        assert_eq!(classes("", "KEA").as_deref(), Ok("AKE"));
    }
}
