//! The commands, one file per type. Each file is a table of rows and the functions they name.

mod acl;
mod bitmap;
mod cache;
mod connection;
mod dump;
mod expiry;
mod field_expiry;
mod geo;
mod hash;
mod hyperloglog;
mod key;
#[cfg(test)]
mod later;
mod list;
mod pubsub;
mod scan;
mod script;
mod server;
pub(super) mod session;
mod session_lock;
mod session_owner;
mod set;
pub(super) mod sort;
mod stream;
mod stream_group;
mod stream_info;
mod stream_read;
mod string;
mod transaction;
mod zset;
mod zset_combine;

use super::table::Spec;

/// Every table with the group its rows belong to.
pub(super) const GROUPS: &[(&str, &[Spec])] = &[
    ("string", string::COMMANDS),
    ("hash", hash::COMMANDS),
    ("hash", field_expiry::COMMANDS),
    ("list", list::COMMANDS),
    ("set", set::COMMANDS),
    ("sorted-set", zset::COMMANDS),
    ("sorted-set", zset_combine::COMMANDS),
    ("stream", stream::COMMANDS),
    ("stream", stream_read::COMMANDS),
    ("stream", stream_group::COMMANDS),
    ("stream", stream_info::COMMANDS),
    ("bitmap", bitmap::COMMANDS),
    ("hyperloglog", hyperloglog::COMMANDS),
    ("geo", geo::COMMANDS),
    ("generic", key::COMMANDS),
    ("generic", server::GENERIC),
    ("generic", sort::COMMANDS),
    ("generic", dump::COMMANDS),
    ("pubsub", pubsub::COMMANDS),
    ("scripting", script::COMMANDS),
    ("transactions", transaction::COMMANDS),
    ("session", session::COMMANDS),
    ("session", session_lock::COMMANDS),
    ("session", session_owner::COMMANDS),
    ("cache", cache::COMMANDS),
    #[cfg(test)]
    ("generic", later::COMMANDS),
    ("connection", connection::CONNECTION),
    ("cluster", connection::CLUSTER),
    ("server", connection::SERVER),
    ("server", acl::COMMANDS),
    ("server", server::COMMANDS),
    ("server", key::SERVER),
    ("server", dump::SERVER),
];
