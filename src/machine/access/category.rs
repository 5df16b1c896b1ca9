//! The categories of commands that rules name: `+@read`.

use crate::machine::table::{self, Run, Spec};

/// The categories in the order in which Redis names them, and ours behind.
pub const CATEGORIES: [&str; 23] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "session",
    "cache",
];

/// The categories of a row: those that follow from its group and flags, and those it names.
pub fn of(spec: &Spec) -> impl Iterator<Item = &'static str> {
    // A container does nothing itself.
    let container = spec.flags.is_empty() && !table::subcommands(spec.name).is_empty();
    CATEGORIES.into_iter().filter(move |category| {
        if container {
            *category == "slow"
        } else {
            follows(spec, category) || spec.categories.split_whitespace().any(|named| named == *category)
        }
    })
}

fn follows(spec: &Spec, category: &str) -> bool {
    let has = |flag: &str| spec.flags.split_whitespace().any(|other| other == flag);
    match category {
        // What sorts is of its types; what waits for others is of a connection.
        "keyspace" => {
            spec.group == "generic" && !spec.name.starts_with("SORT") && !matches!(spec.run, Run::Local)
        }
        // A HELP reads nothing, nor does a test of itself, whoever answers it.
        "read" => {
            matches!(spec.run, Run::Read(_)) && !spec.name.ends_with("|HELP") && spec.name != "PFSELFTEST"
        }
        "write" => spec.changes(),
        "sortedset" => spec.group == "sorted-set",
        "admin" | "dangerous" => has("admin"),
        "fast" => has("fast"),
        "slow" => !has("fast"),
        "blocking" => has("blocking"),
        "transaction" => spec.group == "transactions",
        // A HELP is of its container, which is of nothing.
        "pubsub" => spec.group == category && !spec.name.ends_with("|HELP"),
        _ => spec.group == category,
    }
}

/// The categories of a row as bits, by their place in [`CATEGORIES`].
pub(super) fn bits(spec: &Spec) -> u32 {
    of(spec).fold(0, |bits, category| bits | bit(category).unwrap_or(0))
}

/// The bit of a category in any case.
pub(super) fn bit(name: &str) -> Option<u32> {
    let place = CATEGORIES
        .iter()
        .position(|category| category.eq_ignore_ascii_case(name))?;
    Some(1 << place)
}
