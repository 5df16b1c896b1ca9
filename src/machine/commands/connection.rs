//! Connection and server commands: rows only. The edge runs them, because they concern a connection or this node.

use crate::machine::table::{Spec, local};

pub(super) const CONNECTION: &[Spec] = &[local("PING", "[message]").flags("fast")];

pub(super) const SERVER: &[Spec] = &[];
