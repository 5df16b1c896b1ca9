//! How many other members this node hears from, for `min-replicas-to-write`: a majority has every acknowledged write in any case, and who wants
//! more can have writes refused. While nobody wants to know, nobody is asked.

use crate::machine::reply::CommandError;
use crate::raft::client::Peers;
use crate::raft::replica::Replica;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What a write is answered while too few members are heard from.
#[cfg_attr(
    not(feature = "lua"),
    allow(dead_code, reason = "scripts and the Redis endpoint use it")
)]
pub(crate) const NO_REPLICAS: CommandError =
    CommandError::text("NOREPLICAS Not enough good replicas to write.");

/// How long the others are left alone between two questions, and how long one may take to answer: together less than the least lag there is, so
/// that who answers is never missed because another does not.
const PAUSE: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_millis(400);

/// Seconds after which a member that was not heard from does not count, at first. Redis: `min-replicas-max-lag`.
const MAX_LAG_S: u64 = 10;

/// The other members, as far as they were heard from.
#[derive(Debug)]
pub(crate) struct Fellows {
    wanted: AtomicUsize,
    /// 0: whoever was ever heard from counts, and as in Redis nothing is refused.
    max_lag_s: AtomicU64,
    /// When each answered last. Held to look or to note it.
    heard: Mutex<BTreeMap<u64, Instant>>,
    changed: Notify,
}

impl Default for Fellows {
    fn default() -> Self {
        Self {
            wanted: AtomicUsize::new(0),
            max_lag_s: AtomicU64::new(MAX_LAG_S),
            heard: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Fellows {
    /// How many others must be near for a write; 0: none.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub(super) fn want(&self, wanted: usize) {
        self.wanted.store(wanted, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// After how many seconds a member that is not heard from does not count.
    pub(super) fn max_lag_s(&self) -> u64 {
        self.max_lag_s.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub(super) fn set_max_lag_s(&self, seconds: u64) {
        self.max_lag_s.store(seconds, Ordering::Relaxed);
    }

    /// How many others were heard from lately.
    pub(super) fn near(&self) -> usize {
        let most = Duration::from_secs(self.max_lag_s());
        let heard = self.heard.lock();
        heard.values().filter(|at| at.elapsed() <= most).count()
    }

    /// Whether fewer are than a write needs.
    pub(super) fn lack(&self) -> bool {
        let wanted = self.wanted();
        wanted > 0 && self.max_lag_s() > 0 && self.near() < wanted
    }

    /// Asks all others once.
    pub(super) async fn ask(&self, me: u64, replica: &Replica, peers: &Peers) {
        let members = replica.state().members;
        let asked = members
            .iter()
            .filter(|(id, _)| **id != me)
            .map(|(id, (member, _))| async {
                let answer = tokio::time::timeout(ANSWER, peers.status(*id, &member.raft_addr)).await;
                matches!(answer, Ok(Ok(_))).then_some(*id)
            });
        let answered = futures::future::join_all(asked).await;
        let mut heard = self.heard.lock();
        heard.retain(|id, _| members.contains_key(id));
        heard.extend(answered.into_iter().flatten().map(|id| (id, Instant::now())));
    }
}

/// Asks the others while somebody wants some, as long as the node runs.
pub(super) async fn ask(me: u64, replica: Arc<Replica>, peers: Arc<Peers>, fellows: Arc<Fellows>) {
    loop {
        if fellows.wanted() == 0 {
            fellows.changed.notified().await;
        } else {
            fellows.ask(me, &replica, &peers).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_heard_from_too_long_ago_does_not_count() {
        let fellows = Fellows::default();
        assert!(!fellows.lack(), "nobody is wanted");
        fellows.want(2);
        assert!(fellows.lack());
        let long_ago = Instant::now()
            .checked_sub(Duration::from_secs(MAX_LAG_S + 1))
            .unwrap();
        fellows.heard.lock().extend([(1, Instant::now()), (2, long_ago)]);
        assert!(fellows.lack() && fellows.near() == 1);
        fellows.set_max_lag_s(MAX_LAG_S * 2);
        assert!(!fellows.lack() && fellows.near() == 2);
        fellows.want(3);
        assert!(fellows.lack());
        fellows.set_max_lag_s(0);
        assert!(!fellows.lack(), "as in Redis");
    }
}
