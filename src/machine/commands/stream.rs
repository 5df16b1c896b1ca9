//! Streams: entries in the order of their ids, and the groups that read them.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
