//! Lists: elements in the order they were pushed; the commands that wait for one are here too.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
