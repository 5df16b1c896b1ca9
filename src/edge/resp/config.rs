//! `CONFIG`: the parameters of Redis that clients and dashboards ask for, as far as they are true here.
//!
//! `timeout` and `maxclients` can be set for this node and until it stops, what all nodes share ([`Settings`]) through the log; the
//! rest is set where the node is started.
//! Setting a parameter to what it already is succeeds, so that a client which only makes sure of it starts.

use super::connection::Caller;
use super::local::{Answer, Waiting, help_of, quoted, refusal};
use super::{Shared, trouble};
use crate::machine::args::{Args, integer};
use crate::machine::glob;
use crate::machine::keyspace::DATABASES;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::settings::Settings;
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;

/// A parameter: its name in Redis, and its value here.
type Parameter = (&'static str, fn(&Shared) -> String);

#[rustfmt::skip]
const PARAMETERS: &[Parameter] = &[
    ("appendfsync",               |shared| if shared.node.status().durability == "fsync" { "always" } else { "no" }.to_owned()),
    ("appendonly",                |_| "yes".to_owned()),
    ("bind",                      |shared| shared.address.ip().to_string()),
    ("cluster-enabled",           |_| "no".to_owned()),
    ("databases",                 |_| DATABASES.to_string()),
    ("maxclients",                |shared| shared.max_clients.load(Relaxed).to_string()),
    ("maxmemory",                 |_| "0".to_owned()),
    ("maxmemory-policy",          |_| "noeviction".to_owned()),
    ("port",                      |shared| shared.address.port().to_string()),
    ("proto-max-bulk-len",        |shared| shared.config.max_bulk_bytes.to_string()),
    ("protected-mode",            |shared| if shared.config.access_key.is_none() { "yes" } else { "no" }.to_owned()),
    ("replica-read-only",         |_| "yes".to_owned()),
    // The key itself is told to nobody.
    ("requirepass",               |shared| if shared.config.access_key.is_none() { "" } else { "(hidden)" }.to_owned()),
    ("save",                      |_| String::new()),
    ("slave-read-only",           |_| "yes".to_owned()),
    ("tcp-keepalive",             |_| "0".to_owned()),
    ("timeout",                   |shared| (shared.idle_timeout_ms.load(Relaxed) / 1000).to_string()),
];

/// Redis' largest `timeout`, in seconds.
const TIMEOUT_MAX: i64 = i32::MAX as i64;

/// Redis' largest `maxclients`.
const CLIENTS_MAX: i64 = u32::MAX as i64;

/// `CONFIG GET pattern ...`: what fits any of the patterns, each once. As in Redis, a plain name comes back as it was asked for.
pub(super) fn get(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let patterns = args.rest();
    let asked = |name: &str| {
        let pattern = patterns
            .iter()
            .find(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))?;
        let plain = pattern.eq_ignore_ascii_case(name.as_bytes());
        Some(if plain {
            Reply::Bulk(pattern.clone())
        } else {
            Reply::bulk(name)
        })
    };
    let own = PARAMETERS
        .iter()
        .filter_map(|(name, value)| Some((asked(name)?, value(&caller.shared))));
    let settings = caller.shared.node.settings();
    let shared = Settings::names().filter_map(|name| asked(name).zip(settings.get(name)));
    let pairs = own.chain(shared);
    Ok(Reply::Map(
        pairs
            .map(|(name, value)| (name, Reply::Bulk(Bytes::from(value))))
            .collect(),
    ))
}

/// `CONFIG SET parameter value ...`: all of them or none.
pub(super) fn set<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let changes = changes(&caller.shared, &mut args)?;
        let shared: Vec<(String, String)> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Shared(name, value) => Some((name.clone(), value.clone())),
                _ => None,
            })
            .collect();
        if !shared.is_empty() {
            let node = caller.shared.node.clone();
            caller.seen = caller
                .seen
                .max(node.set_settings(&shared).await.map_err(trouble)?);
        }
        for change in changes {
            match change {
                Change::IdleTimeout(seconds) => caller.shared.idle_timeout_ms.store(seconds * 1000, Relaxed),
                Change::MaxClients(clients) => caller.shared.max_clients.store(clients, Relaxed),
                Change::Nothing | Change::Shared(..) => {}
            }
        }
        Ok(Reply::OK)
    })
}

/// What the arguments ask for, if each of them can be done.
fn changes(shared: &Shared, args: &mut Args<'_>) -> Result<Vec<Change>, CommandError> {
    let (pairs, []) = args.rest().as_chunks::<2>() else {
        return Err(CommandError::Syntax);
    };
    let (mut seen, mut changes) = (Vec::<String>::new(), Vec::new());
    for [asked, value] in pairs {
        let name = String::from_utf8_lossy(asked).to_ascii_lowercase();
        let own = PARAMETERS.iter().find(|(known, _)| *known == name);
        if own.is_none() && !Settings::knows(&name) {
            return Err(unknown(asked));
        }
        if seen.contains(&name) {
            return Err(failed(&name, "duplicate parameter"));
        }
        let change = match own {
            Some((_, current)) => change(shared, &name, current, value),
            None => change_shared(shared, &name, value),
        };
        changes.push(change.map_err(|why| failed(&name, &why))?);
        seen.push(name);
    }
    Ok(changes)
}

/// What `CONFIG SET` can change.
enum Change {
    /// It has the value already.
    Nothing,
    /// In seconds.
    IdleTimeout(u64),
    MaxClients(usize),
    /// A setting that all nodes share, and its value.
    Shared(String, String),
}

/// What setting a shared parameter comes to.
fn change_shared(shared: &Shared, name: &str, value: &[u8]) -> Result<Change, String> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let known = match name {
        "hll-sparse-max-bytes" | "stream-node-max-bytes" => memory(text).map(|bytes| bytes.to_string()),
        _ => Some(text.to_owned()),
    };
    let fits = known.filter(|text| shared.node.settings().set(name, text));
    fits.map(|text| Change::Shared(name.to_owned(), text))
        .ok_or_else(|| {
            match name {
                "notify-keyspace-events" => "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
                "hll-sparse-max-bytes" | "stream-node-max-bytes" => "argument must be a memory value",
                _ => "argument couldn't be parsed into an integer",
            }
            .to_owned()
        })
}

/// A number of bytes as Redis' configuration writes it: `100`, `64kb`, `1g`.
fn memory(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// What setting this parameter comes to.
fn change(
    shared: &Shared,
    name: &str,
    current: &fn(&Shared) -> String,
    value: &[u8],
) -> Result<Change, String> {
    let number = |least: i64, most: i64| {
        let number = integer(value).ok_or("argument couldn't be parsed into an integer")?;
        let bounds = || format!("argument must be between {least} and {most} inclusive");
        u32::try_from(number)
            .ok()
            .filter(|_| (least..=most).contains(&number))
            .ok_or_else(bounds)
    };
    match name {
        "timeout" => Ok(Change::IdleTimeout(number(0, TIMEOUT_MAX)?.into())),
        "maxclients" => Ok(Change::MaxClients(
            usize::try_from(number(1, CLIENTS_MAX)?).expect("32 bits fit"),
        )),
        _ if current(shared).as_bytes() == value => Ok(Change::Nothing),
        _ => Err("can't set immutable config".to_owned()),
    }
}

fn unknown(name: &[u8]) -> CommandError {
    refusal(format!(
        "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
        quoted(name)
    ))
}

fn failed(name: &str, why: &str) -> CommandError {
    refusal(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
    ))
}

pub(super) fn resetstat(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    caller.shared.stats.reset();
    Ok(Reply::OK)
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
        ],
    ))
}
