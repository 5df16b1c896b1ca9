//! On the leader: proposes a tick when a deadline has passed, so that expiry is an event in the log. On every node: takes a snapshot when the
//! log has grown by so many bytes.

use super::propose::Outbound;
use crate::machine::entry::{self, Origin};
use crate::raft::log::LogReader;
use crate::raft::replica::{Replica, Role};
use crate::raft::state_store::State;
use std::sync::Arc;
use std::time::Duration;

/// How late a key may end at most, besides the time of a write: a key set with a shorter life than this is found at the next look.
const LOOK: Duration = Duration::from_millis(20);

/// How often the size of the log is looked at.
const MEASURE: Duration = Duration::from_millis(500);

/// Ends keys whose deadline has passed, while this node leads.
pub(super) async fn tick(state: State, outbound: Outbound) {
    loop {
        tokio::time::sleep(LOOK).await;
        if outbound.replica.state().role != Role::Leader {
            continue;
        }
        let due = state
            .machine()
            .read()
            .next_deadline()
            .is_some_and(|deadline| deadline <= outbound.clock.now());
        if due {
            let tick = entry::encode(Origin::default(), &[]);
            if let Some(why) = outbound.propose_at_once(tick).await {
                // Another leads now, and ticks.
                tracing::debug!(why, "a tick was refused");
            }
        }
    }
}

/// Takes a snapshot each time the log has grown by `limit` bytes.
pub(super) async fn snapshot(replica: Arc<Replica>, log: LogReader, limit: u64) {
    loop {
        tokio::time::sleep(MEASURE).await;
        if log.bytes_after(replica.state().snapshot_index) >= limit
            && let Err(why) = replica.snapshot().await
        {
            tracing::warn!(why, "no snapshot was taken");
        }
    }
}
