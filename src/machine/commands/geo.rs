//! Places: sorted sets whose scores are positions on the earth.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
