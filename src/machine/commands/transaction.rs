//! Transactions: rows only. The edge queues the commands and sends them through the log as one (`machine/internal.rs`).

use crate::machine::table::{Spec, local};

const QUICK: &str = "noscript loading stale fast allow_busy";

#[rustfmt::skip]
pub(super) const COMMANDS: &[Spec] = &[
    local("MULTI", "").since("1.2.0").flags(QUICK).summary("Mark the start of a transaction block"),
    local("EXEC", "").since("1.2.0").flags("noscript loading stale skip_slowlog").summary("Execute all commands issued after MULTI"),
    local("DISCARD", "").since("2.0.0").flags(QUICK).summary("Discard all commands issued after MULTI"),
    local("WATCH", "key [key ...]").since("2.2.0").flags(QUICK)
        .summary("Watch the given keys to determine execution of the MULTI/EXEC block"),
    local("UNWATCH", "").since("2.2.0").flags(QUICK).summary("Forget about all watched keys"),
];
