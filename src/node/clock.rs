//! The leader's time and chance, for the stamp of a group. The only place in node/ that asks the system for either.

use crate::machine::entry::Millis;
use crate::raft::state_store::State;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a leader stamps groups with.
#[derive(Debug)]
pub(super) struct Clock {
    state: State,
    chance: AtomicU64,
}

impl Clock {
    pub(super) fn new(state: State) -> Result<Self, getrandom::Error> {
        Ok(Self { state, chance: AtomicU64::new(getrandom::u64()?) })
    }

    /// This machine's clock, but never behind the log's, as far as it is known here.
    pub(super) fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Millis::try_from(wall).unwrap_or(Millis::MAX).max(self.state.now())
    }

    /// A number by chance, for a group's seed: a Weyl sequence from a random start, which the machine mixes.
    pub(super) fn chance(&self) -> u64 {
        self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}
