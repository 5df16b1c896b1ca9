//! Scripts and functions that all nodes know.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
