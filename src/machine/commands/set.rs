//! Sets: different members.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
