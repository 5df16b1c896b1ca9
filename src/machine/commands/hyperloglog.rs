//! HyperLogLogs: how many different things were seen, about.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
