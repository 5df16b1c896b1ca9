//! hash commands.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
