//! `CONFIG`: the parameters of Redis that clients and dashboards ask for, as far as they are true here.
//!
//! Only `timeout` and `maxclients` can be set, for this node and until it stops; the rest is set where the node is started.
//! Setting a parameter to what it already is succeeds, so that a client which only makes sure of it starts.

use super::Shared;
use super::connection::Caller;
use super::local::{Answer, help_of, quoted, refusal};
use crate::machine::args::{Args, integer};
use crate::machine::glob;
use crate::machine::keyspace::DATABASES;
use crate::machine::reply::{CommandError, Reply};
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
    ("notify-keyspace-events",    |_| String::new()),
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
    let pair =
        |(name, value): &Parameter| Some((asked(name)?, Reply::Bulk(Bytes::from(value(&caller.shared)))));
    Ok(Reply::Map(PARAMETERS.iter().filter_map(pair).collect()))
}

/// `CONFIG SET parameter value ...`: all of them or none.
pub(super) fn set(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let (pairs, []) = args.rest().as_chunks::<2>() else {
        return Err(CommandError::Syntax);
    };
    let mut changes: Vec<(&str, Option<Change>)> = Vec::new();
    for [name, value] in pairs {
        let lower = name.to_ascii_lowercase();
        let known = PARAMETERS.iter().find(|(known, _)| known.as_bytes() == lower);
        let (name, current) = known.ok_or_else(|| unknown(name))?;
        if changes.iter().any(|(other, _)| other == name) {
            return Err(failed(name, "duplicate parameter"));
        }
        changes.push((
            name,
            change(&caller.shared, name, current, value).map_err(|why| failed(name, &why))?,
        ));
    }
    for (_, change) in changes {
        match change {
            Some(Change::IdleTimeout(seconds)) => {
                caller.shared.idle_timeout_ms.store(seconds * 1000, Relaxed)
            }
            Some(Change::MaxClients(clients)) => caller.shared.max_clients.store(clients, Relaxed),
            None => {}
        }
    }
    Ok(Reply::OK)
}

/// What `CONFIG SET` can change.
enum Change {
    /// In seconds.
    IdleTimeout(u64),
    MaxClients(usize),
}

/// What setting this parameter comes to; none if it has the value already.
fn change(
    shared: &Shared,
    name: &str,
    current: &fn(&Shared) -> String,
    value: &[u8],
) -> Result<Option<Change>, String> {
    let number = |least: i64, most: i64| {
        let number = integer(value).ok_or("argument couldn't be parsed into an integer")?;
        let bounds = || format!("argument must be between {least} and {most} inclusive");
        u32::try_from(number)
            .ok()
            .filter(|_| (least..=most).contains(&number))
            .ok_or_else(bounds)
    };
    match name {
        "timeout" => Ok(Some(Change::IdleTimeout(number(0, TIMEOUT_MAX)?.into()))),
        "maxclients" => Ok(Some(Change::MaxClients(
            usize::try_from(number(1, CLIENTS_MAX)?).expect("32 bits fit"),
        ))),
        _ if current(shared).as_bytes() == value => Ok(None),
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
