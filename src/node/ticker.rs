//! On the leader: proposes a tick when a deadline has passed, so that expiry is an event in the log. On every node: takes a snapshot when the
//! log has grown enough, and cuts what is kept below it by bytes as well.

use super::fellows::Fellows;
use super::propose::Outbound;
use crate::machine::entry::{self, Origin};
use crate::raft::log::LogReader;
use crate::raft::replica::Replica;
use crate::raft::state_store::State;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How late a key may end at most, besides the time of a write: a key set with a shorter life than this is found at the next look.
const LOOK: Duration = Duration::from_millis(20);

/// While more has ended than one tick takes, the rest between two of them: a million keys that end at once shall leave others room. At least so long, and so
/// many times what the last tick took: a quarter of the time, as Redis gives it.
const REST: Duration = Duration::from_millis(4);
const REST_TIMES: u32 = 3;

/// What has ended is in memory for about so long at most: the rests grow shorter until there are none.
const LATE_MOST: Duration = Duration::from_secs(60);

/// How often the size of the log is looked at: what a fast disk takes meanwhile is in memory.
const MEASURE: Duration = Duration::from_millis(100);

/// How long a member leaves each of those before it to begin a snapshot that all of them are about to write: time enough to hear of it. None is waited for once
/// the log is half as long again.
const TURN: Duration = Duration::from_millis(1_500);

/// Bytes of a snapshot for one of the log that follows it before the next is taken. The log is in memory: this bounds it to a fraction of what the state takes.
const STATE_PER_LOG: u64 = 4;

/// Bytes of log that stay below a snapshot, so that a member that is a little behind needs no snapshot. They are in memory, and entries of full groups are
/// large: 4,096 of them, which Raft keeps by itself, may be many hundred MB.
const KEPT_BYTES: u64 = 16 << 20;

/// Ends keys whose deadline has passed, while this node leads.
pub(super) async fn tick(state: State, outbound: Outbound) {
    let late = |now| state.machine().read().late(now);
    let mut rest = LOOK;
    loop {
        tokio::time::sleep(rest).await;
        rest = LOOK;
        if !outbound.replica.leads() {
            continue;
        }
        let now = outbound.clock.now();
        let Some(late_ms) = late(now) else {
            continue;
        };
        let tick = entry::encode(Origin::default(), &[]);
        let begun = Instant::now();
        if let Some(why) = outbound.propose_at_once(tick).await {
            // Another leads now, and ticks.
            tracing::debug!(why, "a tick was refused");
        } else if late(now).is_some() {
            rest = rest_behind(begun.elapsed(), Duration::from_millis(late_ms));
        }
    }
}

/// The rest after a tick that took so long, if what it ended was late by this much.
fn rest_behind(took: Duration, late: Duration) -> Duration {
    let punctual = 1.0 - late.div_duration_f64(LATE_MOST).min(1.0);
    (took * REST_TIMES).max(REST).mul_f64(punctual)
}

/// Takes a snapshot each time the log has grown enough, and cuts the log down to [`KEPT_BYTES`] below it.
pub(super) async fn snapshot(
    me: u64,
    replica: Arc<Replica>,
    fellows: Arc<Fellows>,
    log: LogReader,
    limit: u64,
) {
    // Since when one is due and nobody writes one.
    let mut free: Option<Instant> = None;
    loop {
        tokio::time::sleep(MEASURE).await;
        let (newest, feeds) = replica.snapshot_bytes();
        let snapshot = replica.snapshot_index();
        let (bytes, due) = (log.bytes_after(snapshot), due_after(limit, newest, feeds));
        if bytes < due || fellows.write_snapshots() {
            free = None;
        } else {
            free.get_or_insert_with(Instant::now);
        }
        let waited = free.map(|since| since.elapsed());
        let before = || replica.state().members.keys().filter(|id| **id < me).count();
        if bytes >= due
            && is_turn(bytes, due, before(), waited)
            && let Err(why) = replica.snapshot().await
        {
            tracing::warn!(why, "no snapshot was taken");
        }
        // Whoever is sent a snapshot goes on from there: it may be an older one.
        let surplus = log.surplus(snapshot, KEPT_BYTES).filter(|_| !feeds);
        if let Some(upto) = surplus
            && let Err(why) = replica.purge(upto).await
        {
            tracing::warn!(why, "the log was not cut");
        }
    }
}

/// Whether to write a snapshot now, where one is due after so many bytes of log, so many members come before this one, and for so long nobody has written one
/// since. For all see the log grow alike, and where all write at once nobody is left to answer quickly.
fn is_turn(bytes: u64, due: u64, before: usize, free: Option<Duration>) -> bool {
    let turns = u32::try_from(before).unwrap_or(u32::MAX);
    bytes >= due.saturating_add(due / 2) || free.is_some_and(|free| free >= TURN.saturating_mul(turns))
}

/// Bytes of log after which the next snapshot is due: `limit`, or a part of the newest snapshot where that is more, so that of a large state not all is
/// written again and again for little that changed. While a member is being sent a snapshot, what the log loses would have to be sent as the next one: it waits
/// until the log since then is as long as that.
fn due_after(limit: u64, newest: u64, feeds: bool) -> u64 {
    let due = limit.max(newest / STATE_PER_LOG);
    if feeds { due.saturating_add(newest) } else { due }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_rest_longer_if_they_are_slow_and_less_the_later_they_are() {
        let (quick, slow) = (REST / 100, REST);
        assert_eq!(rest_behind(quick, Duration::ZERO), REST);
        assert_eq!(rest_behind(slow, Duration::ZERO), slow * REST_TIMES);
        assert_eq!(rest_behind(quick, LATE_MOST / 2), REST / 2);
        assert_eq!(rest_behind(slow, LATE_MOST), Duration::ZERO);
        assert_eq!(rest_behind(quick, 100 * LATE_MOST), Duration::ZERO);
    }

    #[test]
    fn snapshots_are_written_one_after_the_other_unless_the_log_grows_on() {
        let waited = |turns| Some(TURN * turns);
        assert!(is_turn(100, 100, 0, waited(0)), "the first");
        assert!(!is_turn(100, 100, 2, waited(1)), "two come before it");
        assert!(is_turn(100, 100, 2, waited(2)));
        assert!(
            !is_turn(149, 100, 0, None),
            "another writes one, or it is not due"
        );
        assert!(is_turn(150, 100, 2, None));
    }

    #[test]
    fn a_large_state_is_written_less_often_and_the_log_waits_for_who_is_fed() {
        let limit = 64 << 20;
        assert_eq!(due_after(limit, 0, false), limit);
        assert_eq!(due_after(limit, 4 * limit, false), limit, "a small state");
        assert_eq!(due_after(limit, 40 * limit, false), 10 * limit);
        assert_eq!(due_after(limit, 40 * limit, true), 50 * limit);
        assert_eq!(due_after(limit, 0, true), limit, "nothing to send is no reason");
    }
}
