//! Users and what they may do, the same on every node.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
