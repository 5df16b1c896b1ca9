//! `SORT`: the elements of a list, set or sorted set in an order that other keys may give.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
