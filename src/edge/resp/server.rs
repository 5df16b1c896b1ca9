//! Commands that administer a server: saving, waiting for others, memory, stopping, and `DEBUG`.

use super::connection::{Answers, Caller};
use super::encode::{self, Protocol};
use super::info;
use super::local::{Answer, Attended, Waiting, help_of, quoted, refusal};
use super::{REDIS_VERSION, trouble};
use crate::config::DebugCommand;
use crate::machine::args::{Args, integer};
use crate::machine::glob;
use crate::machine::keyspace::{DATABASES, Store};
use crate::machine::reply::{CommandError, Reply};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// When the members are asked again how far they are, while somebody waits for them; doubled each time, up to [`ASK_SELDOM`].
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// How often they are asked in the end: somebody may wait for more members than there are.
const ASK_SELDOM: Duration = Duration::from_millis(500);

/// `WAIT replicas milliseconds`: how many other members have applied the last write of this connection. As every acknowledged write is on a
/// majority, it is never less than that majority without this node.
pub(super) fn wait(caller: &Caller, args: &mut Args<'_>) -> Result<Attended, CommandError> {
    let wanted = args.integer()?;
    let others = others_at(caller, wanted, milliseconds(args.bytes()?)?);
    Ok(Box::pin(async move { Ok(Reply::count(others.await)) }))
}

/// `WAITAOF local replicas milliseconds`: every acknowledged write is in this node's log as well.
pub(super) fn waitaof(caller: &Caller, args: &mut Args<'_>) -> Result<Attended, CommandError> {
    const RANGE: CommandError = CommandError::text("ERR value is out of range, value must between 0 and 1");
    let local = integer(args.bytes()?)
        .filter(|local| (0..=1).contains(local))
        .ok_or(RANGE)?;
    let wanted = args.integer()?;
    let others = others_at(caller, wanted, milliseconds(args.bytes()?)?);
    Ok(Box::pin(async move {
        let others = Reply::count(others.await);
        Ok(Reply::Array(vec![Reply::Integer(local.max(1)), others]))
    }))
}

/// None: without end.
fn milliseconds(argument: &Bytes) -> Result<Option<Duration>, CommandError> {
    const NO_NUMBER: CommandError = CommandError::text("ERR timeout is not an integer or out of range");
    const NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");
    let millis = u64::try_from(integer(argument).ok_or(NO_NUMBER)?).map_err(|_| NEGATIVE)?;
    Ok(Some(Duration::from_millis(millis)).filter(|patience| !patience.is_zero()))
}

/// How many other members have applied the last write of this connection; asks until there are so many or the time is over. In a transaction
/// nobody is asked, as in Redis nobody waits there.
fn others_at(
    caller: &Caller,
    wanted: i64,
    patience: Option<Duration>,
) -> impl Future<Output = usize> + Send + use<> {
    let (node, token, at_once) = (caller.shared.node.clone(), caller.seen, caller.executing);
    async move {
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        let majority = node.status().members.iter().filter(|member| member.voter).count() / 2 + 1;
        // Whoever wrote nothing has nothing to wait for: everybody has that.
        let mut known = if token.0 > 0 { majority - 1 } else { 0 };
        let mut again = ASK_AGAIN;
        if at_once {
            return known;
        }
        loop {
            let asked = async {
                let status = node.cluster_status().await;
                let others = status.members.iter().filter(|member| member.id != status.node_id);
                others
                    .filter(|member| member.applied_index >= Some(token.0))
                    .count()
            };
            let answered = match deadline {
                Some(deadline) => timeout_at(deadline, asked).await.ok(),
                None => Some(asked.await),
            };
            known = known.max(answered.unwrap_or(0));
            let enough = i64::try_from(known).is_ok_and(|known| known >= wanted);
            let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if enough || late {
                return known;
            }
            let next = Instant::now() + again;
            sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
            again = (again * 2).min(ASK_SELDOM);
        }
    }
}

/// `SAVE`: what is acknowledged is in the log already; this takes a snapshot of it.
pub(super) fn save<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let changes = caller.shared.node.view(0, |view| view.store().writes());
        caller.shared.node.snapshot().await.map_err(trouble)?;
        caller.shared.stats.saved_changes.set(changes);
        Ok(Reply::OK)
    })
}

/// `BGSAVE [SCHEDULE]`.
pub(super) fn bgsave(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let _ = args.keyword("SCHEDULE");
    args.end()?;
    in_background(caller);
    Ok(Reply::Simple("Background saving started".into()))
}

/// `BGREWRITEAOF`: a snapshot lets the log be cut, which is what it is for.
pub(super) fn bgrewriteaof(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    in_background(caller);
    Ok(Reply::Simple(
        "Background append only file rewriting started".into(),
    ))
}

fn in_background(caller: &Caller) {
    let shared = caller.shared.clone();
    let changes = shared.node.view(0, |view| view.store().writes());
    tokio::spawn(async move {
        match shared.node.snapshot().await {
            Ok(()) => shared.stats.saved_changes.set(changes),
            Err(error) => tracing::warn!(%error, "no snapshot was taken"),
        }
    });
}

/// `LASTSAVE`: now, as everything that was acknowledged is stored.
pub(super) fn lastsave(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let seconds = caller.shared.node.now() / 1000;
    Ok(Reply::Integer(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

/// `SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] [ABORT]`: hands over leadership, finishes and stops this node. Nothing is lost either way.
pub(super) fn shutdown(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let (mut save, mut nosave, mut other, mut abort) = (false, false, false, false);
    for word in args.rest() {
        match word.to_ascii_lowercase().as_slice() {
            b"save" => save = true,
            b"nosave" => nosave = true,
            b"now" | b"force" => other = true,
            b"abort" => abort = true,
            _ => return Err(CommandError::Syntax),
        }
    }
    if (save && nosave) || (abort && (save || nosave || other)) {
        return Err(CommandError::Syntax);
    }
    if abort {
        return Err(CommandError::text("ERR No shutdown in progress."));
    }
    tracing::info!(client = caller.client.id, peer = %caller.client.peer, "a client asks this node to stop");
    let node = caller.shared.node.clone();
    tokio::spawn(async move {
        if let Err(error) = node.stop().await {
            tracing::warn!(%error, "the node did not stop cleanly");
        }
    });
    // As from Redis, no answer comes: clients take the end of the connection for it.
    (caller.closing, caller.answers) = (true, Answers::Off);
    Ok(Reply::OK)
}

/// `LOLWUT [VERSION version]`.
pub(super) fn lolwut(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    if args.remaining() >= 2 && args.keyword("VERSION") {
        args.integer()?;
    }
    let plenum = "      o   o   o\n    o     |     o\n     \\____|____/\n      all have met\n";
    Ok(Reply::Verbatim(
        format!("{plenum}\nRedis ver. {REDIS_VERSION}\n").into(),
    ))
}

/// `MODULE LIST`.
pub(super) fn no_modules(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Array(Vec::new()))
}

/// `MEMORY STATS`: what is counted here, under Redis' names.
pub(super) fn memory_stats(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let shared = &caller.shared;
    let status = shared.node.status();
    let resident = info::resident_bytes().unwrap_or(status.used_bytes);
    let number = |number: u64| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let used = shared.peak.of(status.used_bytes);
    let mut pairs: Vec<(String, Reply)> = vec![
        ("peak.allocated".to_owned(), number(used)),
        ("total.allocated".to_owned(), number(status.used_bytes)),
    ];
    let empty = Store::bytes_when_empty() as u64;
    let dataset = status.used_bytes.saturating_sub(empty);
    pairs.push(("startup.allocated".to_owned(), number(empty)));
    let zeros = [
        "replication.backlog",
        "clients.slaves",
        "clients.normal",
        "cluster.links",
        "aof.buffer",
        "lua.caches",
        "functions.caches",
    ];
    pairs.extend(zeros.map(|name| (name.to_owned(), Reply::Integer(0))));
    for db in 0..u8::try_from(DATABASES).expect("few databases") {
        if shared.node.view(db, |view| view.store().counts(db)).0 > 0 {
            let parts = [
                "overhead.hashtable.main",
                "overhead.hashtable.expires",
                "overhead.hashtable.slot-to-keys",
            ];
            let parts = parts.map(|name| (Reply::bulk(name), Reply::Integer(0)));
            pairs.push((format!("db.{db}"), Reply::Map(parts.to_vec())));
        }
    }
    let ratio = resident as f64 / status.used_bytes.max(1) as f64;
    pairs.extend(
        [
            ("overhead.total", number(empty)),
            ("keys.count", number(status.keys)),
            ("keys.bytes-per-key", number(dataset / status.keys.max(1))),
            ("dataset.bytes", number(dataset)),
            ("dataset.percentage", Reply::Double(100.0)),
            (
                "peak.percentage",
                Reply::Double(status.used_bytes as f64 * 100.0 / used.max(1) as f64),
            ),
            ("allocator.allocated", number(status.used_bytes)),
            ("allocator.active", number(resident)),
            ("allocator.resident", number(resident)),
            ("allocator-fragmentation.ratio", Reply::Double(ratio)),
            (
                "allocator-fragmentation.bytes",
                number(resident.saturating_sub(status.used_bytes)),
            ),
            ("allocator-rss.ratio", Reply::Double(1.0)),
            ("allocator-rss.bytes", Reply::Integer(0)),
            ("rss-overhead.ratio", Reply::Double(1.0)),
            ("rss-overhead.bytes", Reply::Integer(0)),
            ("fragmentation", Reply::Double(ratio)),
            (
                "fragmentation.bytes",
                number(resident.saturating_sub(status.used_bytes)),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    ))
}

/// `MEMORY DOCTOR`.
pub(super) fn memory_doctor(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let status = caller.shared.node.status();
    let resident = info::resident_bytes().unwrap_or(status.used_bytes);
    let text = format!(
        "{} keys take {} of memory as they are counted; the process has {} in all.\n",
        status.keys,
        info::human(status.used_bytes),
        info::human(resident)
    );
    Ok(Reply::Verbatim(text.into()))
}

pub(super) fn memory_malloc_stats(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::bulk("Stats not supported for the current allocator"))
}

/// The system's allocator gives back by itself.
pub(super) fn memory_purge(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::OK)
}

pub(super) fn memory_help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "MEMORY",
        &[
            "DOCTOR",
            "    Return memory problems reports.",
            "MALLOC-STATS",
            "    Return internal statistics report from the memory allocator.",
            "PURGE",
            "    Attempt to purge dirty pages for reclamation by the allocator.",
            "STATS",
            "    Return information about the memory usage of the server.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
        ],
    ))
}

/// The longest that `DEBUG SLEEP` keeps a connection waiting.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// `DEBUG`, where `enable_debug_command` allows it.
pub(super) fn debug<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let allowed = match caller.shared.config.debug_command {
            DebugCommand::No => false,
            DebugCommand::Local => caller.client.peer.ip().to_canonical().is_loopback(),
            DebugCommand::Yes => true,
        };
        if !allowed {
            return Err(CommandError::text(
                "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a \
                 local connection, otherwise you need to set this option in the configuration file, and then restart the server.",
            ));
        }
        let name = args.bytes()?;
        match (name.to_ascii_lowercase().as_slice(), args.rest()) {
            (b"sleep", [seconds]) => {
                let seconds: f64 = quoted(seconds).parse().unwrap_or(0.0);
                let pause = Duration::try_from_secs_f64(seconds)
                    .unwrap_or_default()
                    .min(SLEEP_MAX);
                sleep_until(Instant::now() + pause).await;
                Ok(Reply::OK)
            }
            (b"object", [key, ..]) => debug_object(caller, key),
            (b"digest", []) => {
                let (_, digest) = caller.shared.node.digest().await;
                Ok(Reply::Simple(format!("{digest:040x}").into()))
            }
            (b"digest-value", keys) => Ok(Reply::Array(
                keys.iter().map(|key| digest_of(caller, key)).collect(),
            )),
            (b"stringmatch-len", [length, pattern]) if pattern.len() <= glob::PATTERN_BYTES_MAX => {
                let length = usize::try_from(integer(length).ok_or(CommandError::NotAnInteger)?)
                    .unwrap_or(0)
                    .min(1 << 20);
                Ok(Reply::flag(glob::matches(pattern, &vec![b'a'; length])))
            }
            (b"protocol", [kind]) => protocol(caller, kind),
            (b"set-disable-deny-scripts", [flag]) => {
                caller.shared.node.allow_all_in_scripts(flag == "1");
                Ok(Reply::OK)
            }
            (b"error", [text]) => Err(refusal(quoted(text).replace(['\r', '\n'], " "))),
            (b"log", [text]) => {
                tracing::info!("DEBUG LOG: {}", quoted(text));
                Ok(Reply::OK)
            }
            (b"set-active-expire", [flag]) => {
                let active = integer(flag) != Some(0);
                let token = caller.shared.node.set_active_expire(active).await;
                caller.seen = caller.seen.max(token.map_err(trouble)?);
                Ok(Reply::OK)
            }
            (b"change-repl-id", []) | (b"reload" | b"loadaof", _) => Ok(Reply::OK),
            (b"quicklist-packed-threshold" | b"replybuffer", [..]) | (b"pause-cron", [_]) => Ok(Reply::OK),
            (b"htstats", [db, ..]) => {
                let db = integer(db)
                    .and_then(|db| u8::try_from(db).ok())
                    .filter(|db| usize::from(*db) < DATABASES);
                let db = db.ok_or(CommandError::text("ERR Out of range database"))?;
                let (keys, expires) = caller.shared.node.view(db, |view| view.store().counts(db));
                Ok(Reply::Verbatim(
                    format!("[Dictionary HT]\nkeys: {keys}\n[Expires HT]\nkeys: {expires}\n").into(),
                ))
            }
            (b"help", []) => Ok(debug_help()),
            _ => Err(refusal(format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
                quoted(name)
            ))),
        }
    })
}

/// A reply of each kind. What is no reply stands before one.
fn protocol(caller: &mut Caller, kind: &[u8]) -> Answer {
    let resp3 = caller.protocol == Protocol::Resp3;
    let mut preface = BytesMut::new();
    match kind.to_ascii_lowercase().as_slice() {
        b"attrib" if resp3 => {
            encode::attributes(1, &mut preface);
            encode::bulk(b"key-popularity", &mut preface);
            let popularity = [Reply::bulk("key:123"), Reply::Integer(90)];
            encode::encode(&Reply::Array(popularity.into()), caller.protocol, &mut preface);
        }
        b"push" if resp3 => {
            encode::push(2, caller.protocol, &mut preface);
            encode::bulk(b"server-cpu-usage", &mut preface);
            encode::encode(&Reply::Integer(42), caller.protocol, &mut preface);
        }
        b"push" => return Err(CommandError::text("ERR RESP2 is not supported by this command")),
        _ => return Reply::sample(kind),
    }
    caller.preface = Some(preface.freeze());
    if kind.eq_ignore_ascii_case(b"push") {
        return Ok(Reply::bulk("Some real reply following the push reply"));
    }
    Reply::sample(kind)
}

fn debug_object(caller: &Caller, key: &Bytes) -> Answer {
    let looked = caller.shared.node.view(caller.db, |view| {
        // As in Redis also what has ended, while nobody has removed it.
        let all = view.before_any_end();
        let encoding = all.find(key)?.value.encoding();
        Some((encoding, all.bytes_of(key)?, view.last_use(key), view.now()))
    });
    let (encoding, bytes, used, now) = looked.ok_or(CommandError::NoSuchKey)?;
    let idle = used.map_or(0, |used| used.idle_ms / 1000);
    Ok(Reply::Simple(
        format!(
            "Value at:0x0 refcount:1 encoding:{} serializedlength:{bytes} lru:{} lru_seconds_idle:{idle}",
            encoding,
            (now / 1000).saturating_sub(idle) & 0x00ff_ffff
        )
        .into(),
    ))
}

/// Of what is there, in no order: equal for equal values.
fn digest_of(caller: &Caller, key: &Bytes) -> Reply {
    let digest = caller.shared.node.view(caller.db, |view| view.digest_of(key));
    Reply::Simple(format!("{:040x}", digest.unwrap_or(0)).into())
}

fn debug_help() -> Reply {
    help_of(
        "DEBUG",
        &[
            "CHANGE-REPL-ID",
            "    Accepted; there is none to change.",
            "DIGEST",
            "    Output a hex signature representing the current state.",
            "DIGEST-VALUE <key> [<key> ...]",
            "    Output a hex signature of the values of all the specified keys.",
            "ERROR <string>",
            "    Return a Redis protocol error with <string> as message.",
            "HTSTATS <dbid>",
            "    Return how many keys the specified database has.",
            "LOADAOF",
            "    Accepted: the log is what the state comes from.",
            "LOG <message>",
            "    Write <message> to the server log.",
            "OBJECT <key>",
            "    Show low level info about `key` and associated value.",
            "PAUSE-CRON (0|1)",
            "    Accepted; what is done from time to time is not done by one task.",
            "PROTOCOL <type>",
            "    Reply with a test value of the specified type. <type> can be: string,",
            "    integer, double, bignum, null, array, set, map, attrib, push, verbatim, true, false.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Accepted; lists are held another way.",
            "RELOAD [option ...]",
            "    Accepted: the log is what the state comes from.",
            "SET-DISABLE-DENY-SCRIPTS (0|1)",
            "    Let scripts that this node evaluates call PROTOCOL too.",
            "SET-ACTIVE-EXPIRE (0|1)",
            "    Setting it to 0 lets keys end only when somebody finds that they have, on all",
            "    nodes. Use it for test purposes.",
            "SLEEP <seconds>",
            "    Let this connection wait for <seconds>. Decimals allowed.",
            "STRINGMATCH-LEN <len> <pattern>",
            "    Run the fuzz tester against the stringmatchlen() function.",
        ],
    )
}
