//! Commands that concern a connection or this node, by the name of their row: one small function each.
//!
//! Here are the table and what a connection says of itself; `CLIENT`, `COMMAND`, `CONFIG`, `INFO` and `PLENARY` have files of their
//! own. Replies and errors are those of Redis 7.0.15.

use super::connection::Caller;
use super::encode::Protocol;
use super::permit::authenticate;
use super::{
    REDIS_VERSION, acl, blocking, catalogue, client, compat, config, info, keys, latency, members, migrate,
    monitor, multi, pubsub, script, server, slowlog, tracking,
};
use crate::machine::args::{Args, integer};
use crate::machine::keyspace::DATABASES;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::Spec;
use bytes::BytesMut;
use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::LazyLock;

/// What a command comes to.
pub(super) type Answer = Result<Reply, CommandError>;

/// The reply of a command that has to wait.
pub(super) type Waiting<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A command that has to wait.
pub(super) type RunLater = for<'a> fn(&'a mut Caller, Args<'a>) -> Waiting<'a>;

/// The reply of a command that may wait as long as it likes: nothing of the connection, which gives and takes bytes meanwhile.
pub(super) type Attended = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a local command runs.
#[derive(Clone, Copy)]
pub(super) enum Local {
    /// At once.
    Now(fn(&mut Caller, &mut Args<'_>) -> Answer),
    /// After asking the node; the connection waits.
    Later(RunLater),
    /// After others, if they ever come so far; the connection waits, and notices when its client is gone. In a transaction it is answered at once.
    Long(fn(&Caller, &mut Args<'_>) -> Result<Attended, CommandError>),
    /// At once, answering by messages instead of one reply.
    Pushing(fn(&mut Caller, &mut Args<'_>, &mut BytesMut) -> Result<(), CommandError>),
    /// `EXEC`, which runs others.
    Exec,
}

use Local::{Exec, Later, Long, Now, Pushing};

#[rustfmt::skip]
const COMMANDS: &[(&str, Local)] = &[
    ("ACL|CAT",           Now(acl::cat)),
    ("ACL|DRYRUN",        Now(acl::dryrun)),
    ("ACL|GENPASS",       Now(acl::genpass)),
    ("ACL|GETUSER",       Now(acl::getuser)),
    ("ACL|HELP",          Now(acl::help)),
    ("ACL|LIST",          Now(acl::list)),
    ("ACL|LOAD",          Now(acl::no_file)),
    ("ACL|LOG",           Now(acl::log)),
    ("ACL|SAVE",          Now(acl::no_file)),
    ("ACL|USERS",         Now(acl::users)),
    ("ACL|WHOAMI",        Now(acl::whoami)),
    ("ASKING",            Now(no_cluster)),
    ("AUTH",              Now(auth)),
    ("CLIENT|CACHING",    Now(tracking::caching)),
    ("BGREWRITEAOF",      Now(server::bgrewriteaof)),
    ("BGSAVE",            Now(server::bgsave)),
    ("CLIENT|GETNAME",    Now(client::getname)),
    ("CLIENT|GETREDIR",   Now(tracking::getredir)),
    ("CLIENT|HELP",       Now(client::help)),
    ("CLIENT|ID",         Now(client::id)),
    ("CLIENT|INFO",       Now(client::info)),
    ("CLIENT|KILL",       Now(client::kill)),
    ("CLIENT|LIST",       Now(client::list)),
    ("CLIENT|NO-EVICT",   Now(client::no_evict)),
    ("CLIENT|NO-TOUCH",   Now(client::no_touch)),
    ("CLIENT|PAUSE",      Now(blocking::pause)),
    ("CLIENT|REPLY",      Now(client::reply)),
    ("CLIENT|SETINFO",    Now(client::setinfo)),
    ("CLIENT|SETNAME",    Now(client::setname)),
    ("CLIENT|TRACKING",   Now(tracking::tracking)),
    ("CLIENT|TRACKINGINFO", Now(tracking::trackinginfo)),
    ("CLIENT|UNBLOCK",    Now(blocking::unblock)),
    ("CLIENT|UNPAUSE",    Now(blocking::unpause)),
    ("CLUSTER",           Now(no_cluster)),
    ("COMMAND",           Now(catalogue::all)),
    ("COMMAND|COUNT",     Now(catalogue::count)),
    ("COMMAND|DOCS",      Now(catalogue::docs)),
    ("COMMAND|GETKEYS",   Now(catalogue::getkeys)),
    ("COMMAND|GETKEYSANDFLAGS", Now(catalogue::getkeysandflags)),
    ("COMMAND|HELP",      Now(catalogue::help)),
    ("COMMAND|INFO",      Now(catalogue::info)),
    ("COMMAND|LIST",      Now(catalogue::list)),
    ("CONFIG|GET",        Now(config::get)),
    ("CONFIG|HELP",       Now(config::help)),
    ("CONFIG|RESETSTAT",  Now(config::resetstat)),
    ("CONFIG|REWRITE",    Now(config::rewrite)),
    ("CONFIG|SET",        Later(config::set)),
    ("DEBUG",             Later(server::debug)),
    ("DISCARD",           Now(multi::discard)),
    ("ECHO",              Now(echo)),
    ("EXEC",              Exec),
    ("EVAL",              Later(script::eval)),
    ("EVALSHA",           Later(script::evalsha)),
    ("EVALSHA_RO",        Later(script::evalsha_ro)),
    ("EVAL_RO",           Later(script::eval_ro)),
    ("FCALL",             Later(script::fcall)),
    ("FCALL_RO",          Later(script::fcall_ro)),
    ("FUNCTION|DELETE",   Later(script::function_delete)),
    ("FUNCTION|DUMP",     Now(script::function_dump)),
    ("FUNCTION|FLUSH",    Later(script::function_flush)),
    ("FUNCTION|HELP",     Now(script::function_help)),
    ("FUNCTION|KILL",     Later(script::function_kill)),
    ("FUNCTION|LIST",     Now(script::function_list)),
    ("FUNCTION|LOAD",     Later(script::function_load)),
    ("FUNCTION|RESTORE",  Later(script::function_restore)),
    ("FUNCTION|STATS",    Later(script::function_stats)),
    ("HELLO",             Now(hello)),
    ("INFO",              Now(info::info)),
    ("MONITOR",           Pushing(monitor::monitor)),
    ("MULTI",             Now(multi::multi)),
    ("LASTSAVE",          Now(server::lastsave)),
    ("LATENCY|DOCTOR",    Now(latency::doctor)),
    ("LATENCY|GRAPH",     Now(latency::graph)),
    ("LATENCY|HELP",      Now(latency::help)),
    ("LATENCY|HISTOGRAM", Now(latency::histogram)),
    ("LATENCY|HISTORY",   Now(latency::history)),
    ("LATENCY|LATEST",    Now(latency::latest)),
    ("LATENCY|RESET",     Now(latency::reset)),
    ("LOLWUT",            Now(server::lolwut)),
    ("MEMORY|DOCTOR",     Now(server::memory_doctor)),
    ("MEMORY|HELP",       Now(server::memory_help)),
    ("MEMORY|MALLOC-STATS", Now(server::memory_malloc_stats)),
    ("MEMORY|PURGE",      Now(server::memory_purge)),
    ("MEMORY|STATS",      Now(server::memory_stats)),
    ("MIGRATE",           Later(migrate::migrate)),
    ("MODULE|LIST",       Now(server::no_modules)),
    ("PING",              Now(ping)),
    ("PLENARY|COMPAT",    Now(compat::compat)),
    ("PLENARY|DIGEST",    Later(members::digest)),
    ("PLENARY|FRESH",     Now(members::fresh)),
    ("PLENARY|HELP",      Now(members::help)),
    ("PLENARY|KEYS",      Later(keys::keys)),
    ("PLENARY|MEMBERS",   Later(members::members)),
    ("PLENARY|STATUS",    Later(members::status)),
    ("PLENARY|TOKEN",     Later(members::token)),
    ("PLENARY|WAITFOR",   Later(members::waitfor)),
    ("PSUBSCRIBE",        Pushing(pubsub::psubscribe)),
    ("PUBSUB|CHANNELS",   Now(pubsub::channels)),
    ("PUBSUB|HELP",       Now(pubsub::help)),
    ("PUBSUB|NUMPAT",     Now(pubsub::numpat)),
    ("PUBSUB|NUMSUB",     Now(pubsub::numsub)),
    ("PUBSUB|SHARDCHANNELS", Now(pubsub::shardchannels)),
    ("PUBSUB|SHARDNUMSUB", Now(pubsub::shardnumsub)),
    ("PUNSUBSCRIBE",      Pushing(pubsub::punsubscribe)),
    ("QUIT",              Now(quit)),
    ("READONLY",          Now(no_cluster)),
    ("READWRITE",         Now(no_cluster)),
    ("RESET",             Now(reset)),
    ("ROLE",              Now(role)),
    ("SAVE",              Later(server::save)),
    ("SCRIPT|DEBUG",      Now(script::script_debug)),
    ("SCRIPT|EXISTS",     Now(script::script_exists)),
    ("SCRIPT|FLUSH",      Later(script::script_flush)),
    ("SCRIPT|HELP",       Now(script::script_help)),
    ("SCRIPT|KILL",       Later(script::script_kill)),
    ("SCRIPT|LOAD",       Later(script::script_load)),
    ("SELECT",            Now(select)),
    ("SSUBSCRIBE",        Pushing(pubsub::ssubscribe)),
    ("SUBSCRIBE",         Pushing(pubsub::subscribe)),
    ("SUNSUBSCRIBE",      Pushing(pubsub::sunsubscribe)),
    ("TIME",              Now(time)),
    ("UNSUBSCRIBE",       Pushing(pubsub::unsubscribe)),
    ("UNWATCH",           Now(multi::unwatch)),
    ("WATCH",             Later(multi::watch)),
    ("SHUTDOWN",          Now(server::shutdown)),
    ("SLOWLOG|GET",       Now(slowlog::get)),
    ("SLOWLOG|HELP",      Now(slowlog::help)),
    ("SLOWLOG|LEN",       Now(slowlog::len)),
    ("SLOWLOG|RESET",     Now(slowlog::reset)),
    ("WAIT",              Long(server::wait)),
    ("WAITAOF",           Long(server::waitaof)),
];

static TABLE: LazyLock<HashMap<&str, Local>> = LazyLock::new(|| COMMANDS.iter().copied().collect());

/// The function of a row, by the row's name. All that concerns a Redis Cluster is refused by one.
pub(super) fn by_name(name: &str) -> Option<Local> {
    let (container, _) = name.split_once('|').unwrap_or((name, ""));
    let name = if container == "CLUSTER" { container } else { name };
    TABLE.get(name).copied()
}

/// What a row without a function answers.
pub(super) fn unknown(spec: &Spec) -> CommandError {
    refusal(format!("ERR this endpoint does not run '{}'", spec.name))
}

/// The reply of a `HELP` subcommand, as Redis lays it out.
pub(super) fn help_of(command: &str, lines: &[&'static str]) -> Reply {
    let head = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let tail = ["HELP", "    Prints this help."];
    let lines = lines
        .iter()
        .chain(&tail)
        .map(|line| Reply::Simple(Cow::Borrowed(*line)));
    Reply::Array(
        std::iter::once(Reply::Simple(Cow::Owned(head)))
            .chain(lines)
            .collect(),
    )
}

/// The text of an argument, for an error.
pub(super) fn quoted(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// What a subcommand is told that has too much behind it, or what is none at all.
pub(super) fn subcommand_syntax(args: &Args<'_>) -> CommandError {
    let sub: String = quoted(&args.argv()[1]).chars().take(128).collect();
    let name = quoted(&args.argv()[0]).to_ascii_uppercase();
    refusal(format!(
        "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {name} HELP."
    ))
}

/// Bytes that are kept of a word which somebody else chose, where it is noted for others to see.
pub(super) const NOTED_BYTES: usize = 128;

/// As much of a text as is kept where it is noted.
pub(super) fn noted(text: &str) -> &str {
    let ends = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=NOTED_BYTES.min(text.len())).rev().find(ends);
    &text[..end.unwrap_or(0)]
}

/// A refusal with a text made up for it.
pub(super) fn refusal(text: String) -> CommandError {
    CommandError::Other(Cow::Owned(text))
}

/// A subscriber that speaks RESP2 could not tell the plain answer from a message.
fn ping(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let subscriber = caller.subscribed > 0 && caller.protocol == Protocol::Resp2;
    match args.rest() {
        message @ ([] | [_]) if subscriber => {
            let message = message.first().cloned().unwrap_or_default();
            Ok(Reply::Array(vec![Reply::bulk("pong"), Reply::Bulk(message)]))
        }
        [] => Ok(Reply::Simple(Cow::Borrowed("PONG"))),
        [message] => Ok(Reply::Bulk(message.clone())),
        _ => Err(CommandError::Arity("ping".to_owned())),
    }
}

fn echo(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    Ok(Reply::Bulk(args.bytes()?.clone()))
}

fn select(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    caller.db = database(args.bytes()?)?;
    caller.client.shown.lock().db = caller.db;
    Ok(Reply::OK)
}

/// The database that `SELECT` means.
pub(super) fn database(index: &[u8]) -> Result<u8, CommandError> {
    let index = integer(index).ok_or(CommandError::NotAnInteger)?;
    let index = i32::try_from(index).map_err(|_| {
        CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647")
    })?;
    let known = u8::try_from(index)
        .ok()
        .filter(|index| usize::from(*index) < DATABASES);
    known.ok_or(CommandError::text("ERR DB index is out of range"))
}

fn quit(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    caller.closing = true;
    Ok(Reply::OK)
}

fn reset(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    caller.reset();
    Ok(Reply::Simple(Cow::Borrowed("RESET")))
}

/// `AUTH [username] password`.
fn auth(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    const NO_KEY: CommandError = CommandError::text(
        "ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?",
    );
    match args.rest() {
        [_] if caller.shared.access.open(&caller.shared) => Err(NO_KEY),
        [password] => authenticate(caller, b"default", password, b"AUTH").map(|()| Reply::OK),
        [user, password] => authenticate(caller, user, password, b"AUTH").map(|()| Reply::OK),
        _ => Err(CommandError::Syntax),
    }
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`. As in Redis, what stands before an error has happened.
fn hello(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    const STRANGER: CommandError = CommandError::text(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be \
         used to authenticate the client and select the RESP protocol version at the same time",
    );
    let mut protocol = caller.protocol;
    if let Some(version) = args.peek() {
        const NO_NUMBER: CommandError =
            CommandError::text("ERR Protocol version is not an integer or out of range");
        protocol = match integer(version).ok_or(NO_NUMBER)? {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(CommandError::text("NOPROTO unsupported protocol version")),
        };
        args.bytes()?;
    }
    while let Some(option) = args.peek() {
        if args.remaining() >= 3 && args.keyword("AUTH") {
            let (user, password) = (args.bytes()?, args.bytes()?);
            authenticate(caller, user, password, b"HELLO")?;
        } else if args.remaining() >= 2 && args.keyword("SETNAME") {
            client::name(caller, args.bytes()?)?;
        } else {
            return Err(refusal(format!(
                "ERR Syntax error in HELLO option '{}'",
                quoted(option)
            )));
        }
    }
    if !caller.known {
        return Err(STRANGER);
    }
    caller.speak(protocol);
    let id = i64::try_from(caller.client.id).expect("nobody connects 2^63 times");
    let pairs = [
        ("server", Reply::bulk("redis")),
        ("version", Reply::bulk(REDIS_VERSION)),
        (
            "proto",
            Reply::Integer(if protocol == Protocol::Resp3 { 3 } else { 2 }),
        ),
        ("id", Reply::Integer(id)),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Ok(Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    ))
}

/// Every node takes writes and forwards them, so to a client each is a master without replicas.
fn role(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Array(vec![
        Reply::bulk("master"),
        Reply::Integer(0),
        Reply::Array(Vec::new()),
    ]))
}

/// Seconds and microseconds, by the log's clock as this node estimates it: it counts milliseconds.
fn time(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let now = caller.shared.node.now();
    Ok(Reply::bulks([
        (now / 1000).to_string(),
        (now % 1000 * 1000).to_string(),
    ]))
}

fn no_cluster(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Err(CommandError::text(
        "ERR This instance has cluster support disabled",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::table::{self, Run};

    #[test]
    fn every_local_row_has_a_function_and_every_function_a_row() {
        for (name, _) in COMMANDS {
            assert!(
                matches!(table::by_name(name).map(|spec| spec.run), Some(Run::Local)),
                "{name} has no local row"
            );
        }
        for spec in table::all().filter(|spec| matches!(spec.run, Run::Local)) {
            // A container needs a subcommand: its own row only states the arity.
            let container = !table::subcommands(spec.name).is_empty() && spec.arity() == -2;
            assert!(
                container || by_name(spec.name).is_some(),
                "{} has no function",
                spec.name
            );
        }
    }
}
