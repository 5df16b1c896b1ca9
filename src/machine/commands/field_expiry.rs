//! Fields of hashes that end by themselves: the `HEXPIRE` family of Redis 7.4.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
