//! Sorted sets: members in the order of their scores.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
