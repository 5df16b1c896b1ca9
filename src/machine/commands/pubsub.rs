//! Messages to the subscribers of channels, in the order of the log.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
