//! Commands that administer a server: rows, and what of them asks the state. The edge runs the others.
//!
//! Flags and categories are those of Redis 7.0.15, so that `COMMAND INFO` says the same.

use crate::machine::args::Args;
use crate::machine::keyspace::View;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, local, read};

/// Flags of what only an administrator calls.
const ADMIN: &str = "admin noscript loading stale";
const CALM: &str = "loading stale";
const SAVE: &str = "admin noscript no_async_loading";
const PLENARY: &str = "plenary 0.1.0";

#[rustfmt::skip]
pub(super) const COMMANDS: &[Spec] = &[
    local("BGREWRITEAOF", "").flags(SAVE).summary("Asynchronously rewrite the append-only file"),
    local("BGSAVE", "[SCHEDULE]").flags(SAVE).summary("Asynchronously save the dataset to disk"),
    local("COMMAND|GETKEYSANDFLAGS", "command argument [argument ...]").categories("connection").since("7.0.0").flags(CALM)
        .summary("Extract keys and access flags given a full Redis command"),
    local("CONFIG|REWRITE", "").since("2.8.0").flags(ADMIN).summary("Rewrite the configuration file with the in memory configuration"),
    local("DEBUG", "subcommand [argument ...]").flags("admin noscript loading stale").summary("A container for debugging commands"),
    local("LASTSAVE", "").flags("loading stale fast").categories("admin dangerous").summary("Get the UNIX time stamp of the last successful save to disk"),
    local("LATENCY", "subcommand [argument ...]").since("2.8.13").summary("A container for latency diagnostics commands"),
    local("LATENCY|DOCTOR", "").since("2.8.13").flags(ADMIN).summary("Return a human readable latency analysis report."),
    local("LATENCY|GRAPH", "event").since("2.8.13").flags(ADMIN).summary("Return a latency graph for the event."),
    local("LATENCY|HELP", "").since("2.8.13").flags(CALM).summary("Show helpful text about the different subcommands."),
    local("LATENCY|HISTOGRAM", "[command ...]").since("7.0.0").flags(ADMIN)
        .summary("Return the cumulative distribution of latencies of a subset of commands or all."),
    local("LATENCY|HISTORY", "event").since("2.8.13").flags(ADMIN).summary("Return timestamp-latency samples for the event."),
    local("LATENCY|LATEST", "").since("2.8.13").flags(ADMIN).summary("Return the latest latency samples for all events."),
    local("LATENCY|RESET", "[event ...]").since("2.8.13").flags(ADMIN).summary("Reset latency data for one or more events."),
    local("LOLWUT", "[VERSION version]").since("5.0.0").flags("readonly fast").categories("read").summary("Display some computer art and the Redis version"),
    local("MEMORY", "subcommand [argument ...]").since("4.0.0").summary("A container for memory diagnostics commands"),
    local("MEMORY|DOCTOR", "").since("4.0.0").summary("Outputs memory problems report"),
    local("MEMORY|HELP", "").since("4.0.0").flags(CALM).summary("Show helpful text about the different subcommands"),
    local("MEMORY|MALLOC-STATS", "").since("4.0.0").summary("Show allocator internal stats"),
    local("MEMORY|PURGE", "").since("4.0.0").summary("Ask the allocator to release memory"),
    local("MEMORY|STATS", "").since("4.0.0").summary("Show memory usage details"),
    read("MEMORY|USAGE", "key [SAMPLES count]", memory_usage).since("4.0.0").summary("Estimate the memory usage of a key"),
    local("MODULE", "subcommand [argument ...]").since("4.0.0").summary("A container for module commands"),
    local("MODULE|LIST", "").since("4.0.0").flags("admin noscript").summary("List all modules loaded by the server"),
    local("PLENARY|COMPAT", "").since(PLENARY).flags(ADMIN)
        .summary("What clients sent and this endpoint does not know, with how often and by which library"),
    local("PLENARY|KEYS", "action [argument ...]").since(PLENARY).flags(ADMIN)
        .summary("SHOW the access keys, ROTATE primary|secondary [key], or REMOVE secondary"),
    local("SAVE", "").flags("admin noscript no_async_loading no_multi").summary("Synchronously save the dataset to disk"),
    local("SHUTDOWN", "[NOSAVE|SAVE] [NOW] [FORCE] [ABORT]").flags("admin noscript loading stale no_multi allow_busy")
        .summary("Synchronously save the dataset to disk and then shut down the server"),
    local("SLOWLOG", "subcommand [argument ...]").since("2.2.12").summary("A container for slow log commands"),
    local("SLOWLOG|GET", "[count]").since("2.2.12").flags("admin loading stale").summary("Get the slow log's entries"),
    local("SLOWLOG|HELP", "").since("6.2.0").flags(CALM).summary("Show helpful text about the different subcommands"),
    local("SLOWLOG|LEN", "").since("2.2.12").flags("admin loading stale").summary("Get the slow log's length"),
    local("SLOWLOG|RESET", "").since("2.2.12").flags("admin loading stale").summary("Clear all entries from the slow log"),
];

#[rustfmt::skip]
pub(super) const GENERIC: &[Spec] = &[
    local("WAIT", "numreplicas timeout").categories("connection").since("3.0.0").flags("noscript").summary("Wait for the synchronous replication of all the write commands sent in the context of the current connection"),
    local("WAITAOF", "numlocal numreplicas timeout").categories("connection").since("7.2.0").flags("noscript").summary("Wait until the writes of this connection are in the logs of so many"),
];

/// `MEMORY USAGE key [SAMPLES count]`: as it is counted, so nothing needs to be sampled.
fn memory_usage(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    while !args.is_empty() {
        if !args.keyword("SAMPLES") || args.is_empty() {
            return Err(CommandError::Syntax);
        }
        if args.integer()? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    Ok(view.bytes_of(key).map_or(Reply::Nil, Reply::count))
}
