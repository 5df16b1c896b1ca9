//! Keeping sessions alive without a write for each use: a renewal is written down once half of a session's slack is used up, together with those of
//! other sessions, and at once only where the session might otherwise end too early. So a page that only reads costs no consensus.

use super::word;
use crate::cache::Cache;
use crate::error::Result;
use crate::machine::reply::Reply;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long renewals are gathered: so many entries a second, at most, come of all uses on this node. A quarter of the least slack.
const GATHER: Duration = Duration::from_millis(250);

/// Sessions that one command renews.
const RENEWED_MAX: usize = 1_000;

/// The most that wait to be renewed. A use beyond that is not noted; the next one of that session will be.
const GATHERED_MAX: usize = 1_000_000;

/// Sessions to be renewed, gathered on this node.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewals {
    gathered: Arc<Mutex<BTreeSet<Bytes>>>,
}

impl Renewals {
    /// A session is to be renewed soon. Whoever adds the first sees to it that they are.
    pub(super) fn soon(&self, cache: &Cache, key: Bytes) {
        if !self.add(key) {
            return;
        }
        let (renewals, cache) = (self.clone(), cache.clone());
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            for argv in renewals.take() {
                // Not renewed, it lives for its idle timeout all the same, and the next use tries again.
                if let Err(error) = cache.write(argv).await {
                    tracing::debug!(%error, "sessions were not renewed");
                }
            }
        });
    }

    /// Whether it is the first that was gathered.
    fn add(&self, key: Bytes) -> bool {
        let mut gathered = self.gathered.lock();
        gathered.len() < GATHERED_MAX && gathered.insert(key) && gathered.len() == 1
    }

    /// What was gathered, as commands.
    fn take(&self) -> Vec<Vec<Bytes>> {
        let gathered: Vec<Bytes> = std::mem::take(&mut *self.gathered.lock()).into_iter().collect();
        gathered.chunks(RENEWED_MAX).map(touch).collect()
    }
}

/// Renews a session before its use is answered. Whether it was there.
pub(super) async fn now(cache: &Cache, key: Bytes) -> Result<bool> {
    Ok(cache.write(touch(&[key])).await? == Reply::Integer(1))
}

fn touch(keys: &[Bytes]) -> Vec<Bytes> {
    std::iter::once(word("SESSION.TOUCH"))
        .chain(keys.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::entry::{Command, Entry, Millis, Origin};
    use crate::machine::value::session::Renewal;

    /// A node of simulated time: what it applied, and how many entries that took.
    #[derive(Default)]
    struct Node {
        machine: Machine,
        entries: usize,
    }

    impl Node {
        fn apply(&mut self, at: Millis, commands: Vec<Command>) {
            self.machine.apply(&Entry {
                format: Entry::FORMAT,
                at,
                seed: 1,
                origin: Origin::default(),
                commands,
            });
            self.entries += 1;
        }

        fn view(&mut self, renewals: &Renewals, key: &Bytes, now: Millis) {
            let view = self.machine.view(now, 0);
            let session = view.session(key).expect("a session").expect("it lives");
            let deadline = view.slot(key).and_then(|slot| slot.deadline());
            match session.renewal(deadline, now) {
                Renewal::No => {}
                Renewal::Soon => drop(renewals.add(key.clone())),
                Renewal::Now => {
                    let argv = touch(std::slice::from_ref(key));
                    self.apply(now, vec![Command { db: 0, argv }]);
                }
            }
        }
    }

    /// Its node may be behind the log by a quarter of the slack.
    #[test]
    fn a_session_used_where_the_log_is_behind_does_not_end_early() {
        const IDLE_MS: u64 = 20 * 60 * 1_000;
        const SLACK_MS: u64 = IDLE_MS / 20;
        for used_at in (1_000..2 * SLACK_MS).step_by(500) {
            let (mut node, renewals) = (Node::default(), Renewals::default());
            let key = Bytes::from("session");
            let argv = vec!["SESSION.CREATE".into(), key.clone(), IDLE_MS.to_string().into()];
            node.apply(1, vec![Command { db: 0, argv }]);
            node.view(&renewals, &key, used_at.saturating_sub(SLACK_MS / 4));
            let slot = node.machine.view(1, 0).slot(&key).cloned();
            let deadline = slot.and_then(|slot| slot.deadline()).expect("it ends");
            // What is written down at once is stamped by the leader, who is not behind.
            assert!(
                node.entries == 2 || deadline >= used_at + IDLE_MS,
                "used at {used_at}, it ends at {deadline}"
            );
        }
    }

    #[test]
    fn ten_thousand_views_take_less_than_a_hundred_entries() {
        const SESSIONS: u64 = 500;
        const VIEWS: u64 = 10_000;
        const IDLE_MS: u64 = 20 * 60 * 1_000;
        let (mut node, renewals) = (Node::default(), Renewals::default());
        let key = |session: u64| Bytes::from(format!("session {session}"));
        let created = (0..SESSIONS).map(|session| {
            let argv = ["SESSION.CREATE".into(), key(session), IDLE_MS.to_string().into()];
            Command {
                db: 0,
                argv: argv.to_vec(),
            }
        });
        node.apply(1, created.collect());
        node.entries = 0;
        // Each session is viewed every 2 s; the views of all are spread over that time.
        let at = |view: u64| 1 + view * 2_000 / SESSIONS;
        let gather = u64::try_from(GATHER.as_millis()).expect("short");
        let mut flush = gather;
        for view in 0..VIEWS {
            node.view(&renewals, &key(view % SESSIONS), at(view));
            if at(view) >= flush {
                flush = at(view) + gather;
                for argv in renewals.take() {
                    node.apply(at(view), vec![Command { db: 0, argv }]);
                }
            }
        }
        assert!(node.entries > 0, "half of the slack, 30 s, was used up");
        assert!(node.entries <= 100, "{} entries for {VIEWS} views", node.entries);
        // And none ends early: each lives for its idle timeout from its last view on, and the slack longer at most.
        for session in 0..SESSIONS {
            let idle = at(VIEWS - SESSIONS + session) + IDLE_MS;
            let slot = node.machine.view(at(VIEWS), 0).slot(&key(session)).cloned();
            let deadline = slot.and_then(|slot| slot.deadline()).expect("it lives, and ends");
            assert!(
                (idle..=idle + IDLE_MS / 20).contains(&deadline),
                "{deadline} for {idle}"
            );
        }
    }
}
