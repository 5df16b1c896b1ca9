//! Bitmaps: strings seen as bits.

use crate::machine::table::Spec;

pub(super) const COMMANDS: &[Spec] = &[];
