//! `DUMP` and `RESTORE`: values in the encoding of Redis' RDB files.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
