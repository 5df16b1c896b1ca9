//! The leader's time and chance, for the stamp of a group.
//!
//! One clock that is wrong must end nobody's session. So a group is not stamped with its leader's clock but with the members' common one: the
//! lower median of theirs, learned by asking ([`super::fellows`]) and carried on by this node's monotonic clock in between. As long as a majority's
//! clocks are right, so is the log's, whoever leads; where two of two disagree, the one that is behind counts, for late is allowed and early is not.

use crate::machine::entry::Millis;
use crate::raft::ground::Wall;
use crate::raft::state_store::State;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a leader waits for the others' clocks until it says so.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// What a leader stamps groups with.
#[derive(Debug)]
pub(super) struct Clock {
    state: State,
    /// This machine's own.
    wall: Wall,
    chance: AtomicU64,
    /// The monotonic clock: time since then.
    began: Instant,
    /// The common time when this one began; 0 until it is known.
    began_at: AtomicU64,
    agreed: watch::Sender<bool>,
}

impl Clock {
    /// `chance` is drawn anew at each start.
    pub(super) fn new(state: State, wall: Wall, chance: u64) -> Self {
        Self {
            state,
            wall,
            chance: AtomicU64::new(chance),
            began: Instant::now(),
            began_at: AtomicU64::new(0),
            agreed: watch::Sender::new(false),
        }
    }

    /// This machine's clock, in milliseconds since the Unix epoch.
    pub(super) fn wall(&self) -> Millis {
        self.wall.now()
    }

    /// The members' common time, but never behind the log's, as far as that is known here. Before the members agree it is the log's alone: nothing ends early
    /// by it, but nothing may be stamped with it either ([`Clock::agreed`]).
    pub(super) fn now(&self) -> Millis {
        let log = self.state.now();
        match self.began_at.load(Ordering::Relaxed) {
            0 => log,
            began_at => log.max(began_at.saturating_add(since(self.began))),
        }
    }

    /// A number by chance, for a group's seed: a Weyl sequence from a random start, which the machine mixes.
    pub(super) fn chance(&self) -> u64 {
        self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Notes the members' common time.
    pub(super) fn agree(&self, common: Millis) {
        let began_at = common.saturating_sub(since(self.began)).max(1);
        self.began_at.store(began_at, Ordering::Relaxed);
        self.agreed.send_replace(true);
    }

    /// Whether it is known.
    pub(super) fn has_agreed(&self) -> bool {
        *self.agreed.borrow()
    }

    /// Waits until it is known, so that [`Clock::now`] may be a stamp. A leader need not wait but right after its start; where a majority follows it and does not
    /// tell its time, it waits on, for its own clock may be the one that is wrong.
    pub(super) async fn agreed(&self) {
        if self.has_agreed() {
            return;
        }
        let mut agreed = self.agreed.subscribe();
        let known = agreed.wait_for(|agreed| *agreed);
        if tokio::time::timeout(TOLD_AFTER, known).await.is_err() {
            tracing::warn!("no majority has told its time: nothing is written until it does");
            // Its other end is this clock's own.
            let _ = agreed.wait_for(|agreed| *agreed).await;
        }
    }
}

/// Milliseconds since then, by the monotonic clock.
pub(super) fn since(then: Instant) -> Millis {
    Millis::try_from(then.elapsed().as_millis()).unwrap_or(Millis::MAX)
}

/// The common time of clocks, of which there is at least one: half of them at least are not behind it.
pub(super) fn common(clocks: &mut [Millis]) -> Millis {
    clocks.sort_unstable();
    clocks[(clocks.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a minority's clocks say, the log's is never ahead of all right ones, and never behind all of them.
        #[test]
        fn a_minority_moves_nobodys_time(
            right in proptest::collection::vec(1_000_000u64..1_000_100, 1..6),
            wrong in proptest::collection::vec(any::<u64>(), 0..5),
        ) {
            prop_assume!(wrong.len() < right.len());
            let mut clocks: Vec<Millis> = right.iter().chain(&wrong).copied().collect();
            let common = common(&mut clocks);
            prop_assert!(right.iter().min().is_some_and(|least| *least <= common));
            prop_assert!(right.iter().max().is_some_and(|most| common <= *most));
        }
    }

    #[test]
    fn of_two_that_disagree_the_one_behind_counts() {
        assert_eq!(common(&mut [7_200, 3_600]), 3_600);
        assert_eq!(common(&mut [7_200]), 7_200);
    }
}
