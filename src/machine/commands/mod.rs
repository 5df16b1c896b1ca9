//! The commands, one file per type. Each file is a table of rows and the functions they name.

mod connection;
mod expiry;
mod hash;
mod key;
mod session;
mod string;

use super::table::Spec;

/// Every table with the group its rows belong to.
pub(super) const GROUPS: &[(&str, &[Spec])] = &[
    ("string", string::COMMANDS),
    ("hash", hash::COMMANDS),
    ("generic", key::COMMANDS),
    ("session", session::COMMANDS),
    ("connection", connection::CONNECTION),
    ("cluster", connection::CLUSTER),
    ("server", connection::SERVER),
    ("server", key::SERVER),
];
