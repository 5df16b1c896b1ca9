//! The other members, as far as this node hears from them: all are asked all the time, and what they answer is looked at by six.
//!
//! | who | what for |
//! |---|---|
//! | `clock` | the members' common time, by which a leader stamps |
//! | `departed` | who is silent, so that nobody waits behind a node that is gone |
//! | `ticker` | who writes a snapshot, so that not all do at once |
//! | `propose` | the level that all members understand, up to which a leader may stamp |
//! | `Node::ready`, `/ready` | whether a majority is heard from: Raft itself names a leader also where nobody is reached any more |
//! | `min-replicas-to-write` | how many are near: a majority has every acknowledged write in any case, and who wants more can have writes refused |

use super::clock::{self, Clock};
use crate::machine::entry::{Entry, Millis};
use crate::machine::reply::CommandError;
use crate::mutant::Mutant;
use crate::raft::client::Peers;
use crate::raft::replica::Replica;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a write is answered while too few members are heard from.
#[cfg_attr(
    not(feature = "lua"),
    allow(dead_code, reason = "scripts and the Redis endpoint use it")
)]
pub(crate) const NO_REPLICAS: CommandError =
    CommandError::text("NOREPLICAS Not enough good replicas to write.");

/// How long the others are left alone between two questions, and how long one may take to answer.
const PAUSE: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(1);

/// How long one may take until the clocks agree, and while a write needs some near: with the pause less than the least lag there is, so that who answers is
/// never missed because another does not.
pub(super) const ANSWER_WHILE_HURRIED: Duration = Duration::from_millis(400);

/// The pause until the clocks agree, for which a leader's first write waits.
const PAUSE_AT_FIRST: Duration = Duration::from_millis(20);

/// How long a majority waits for the clocks of the others, at first: the more are known, the less one that is wrong can do.
const ALL_AGREE_WITHIN: Duration = Duration::from_millis(500);

/// How long a majority that is there is given to tell its clocks: members of an older version do not.
const ALL_TELL_WITHIN: Duration = Duration::from_secs(2);

/// Who was not heard from for this long has missed at least one question, and does nothing that anybody waits for.
const SILENT: Duration = Duration::from_secs(3);

/// Who was not heard from for this long does not make up a majority with this node: several questions went unanswered, so it is no answer that took long.
const UNHEARD: Duration = Duration::from_secs(5);

/// Seconds after which a member that was not heard from does not count, at first. Redis: `min-replicas-max-lag`.
const MAX_LAG_S: u64 = 10;

/// The other members, as far as they were heard from.
#[derive(Debug)]
pub(crate) struct Fellows {
    wanted: AtomicUsize,
    /// 0: whoever was ever heard from counts, and as in Redis nothing is refused.
    max_lag_s: AtomicU64,
    /// What all members understand, as far as all have said.
    level: AtomicU8,
    /// What is known of each. Held to look or to note it.
    known: Mutex<BTreeMap<u64, Fellow>>,
    changed: Notify,
}

/// One other member.
#[derive(Clone, Copy, Debug)]
struct Fellow {
    /// Since when it is asked.
    asked: Instant,
    /// When it answered last, and what its clock said; 0: it does not tell.
    heard: Option<(Instant, Millis)>,
    /// Whether it said that it writes a snapshot.
    writes_snapshot: bool,
    /// What its program understood when it answered last.
    level: Option<u8>,
}

impl Default for Fellows {
    fn default() -> Self {
        Self {
            wanted: AtomicUsize::new(0),
            max_lag_s: AtomicU64::new(MAX_LAG_S),
            level: AtomicU8::new(Entry::FIRST_FORMAT),
            known: Mutex::default(),
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

    /// The level that all members' programs understand; the first while one of them has not said.
    pub(super) fn level(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    /// Finds it anew, from what all others have said.
    fn note_level(&self) {
        let known = self.known.lock();
        let told = known
            .values()
            .map(|fellow| fellow.level.unwrap_or(Entry::FIRST_FORMAT));
        let all = told.fold(Entry::FORMAT, u8::min);
        let level = if Mutant::IgnoreLevel.is_planted() {
            Entry::FORMAT
        } else {
            all
        };
        self.level.store(level, Ordering::Relaxed);
    }

    /// How many others were heard from lately.
    pub(super) fn near(&self) -> usize {
        let most = Duration::from_secs(self.max_lag_s());
        let known = self.known.lock();
        let heard = known.values().filter_map(|fellow| fellow.heard);
        heard.filter(|(at, _)| at.elapsed() <= most).count()
    }

    /// Whether this node hears from a majority of these voters, itself among them if it votes.
    pub(super) fn are_majority(&self, me: u64, voters: &[u64]) -> bool {
        let known = self.known.lock();
        let heard = |id: &u64| known.get(id).and_then(|fellow| fellow.heard);
        let near = |id: &&u64| **id == me || heard(id).is_some_and(|(at, _)| at.elapsed() <= UNHEARD);
        voters.iter().filter(near).count() > voters.len() / 2
    }

    /// For how long a member has not been heard from; none where it is not asked.
    pub(super) fn silent_for(&self, id: u64) -> Option<Duration> {
        let known = self.known.lock();
        let fellow = known.get(&id)?;
        let since = fellow.heard.map_or(fellow.asked, |(at, _)| at);
        Some(since.elapsed())
    }

    /// Whether another member writes a snapshot, as far as is known. Who is silent does not.
    pub(super) fn write_snapshots(&self) -> bool {
        let heard = |fellow: &Fellow| fellow.heard.is_some_and(|(at, _)| at.elapsed() <= SILENT);
        let known = self.known.lock();
        known
            .values()
            .any(|fellow| fellow.writes_snapshot && heard(fellow))
    }

    /// Whether fewer are than a write needs.
    pub(super) fn lack(&self) -> bool {
        let wanted = self.wanted();
        wanted > 0 && self.max_lag_s() > 0 && self.near() < wanted
    }

    /// Asks all others once. Each is noted when it answers: none has to wait for one that does not.
    pub(super) async fn ask(&self, me: u64, replica: &Replica, peers: &Peers, patience: Duration) {
        let members = replica.state().members;
        let others = || members.iter().filter(|(id, _)| **id != me);
        {
            let mut known = self.known.lock();
            known.retain(|id, _| members.contains_key(id));
            for (id, _) in others() {
                known.entry(*id).or_insert(Fellow {
                    asked: Instant::now(),
                    heard: None,
                    writes_snapshot: false,
                    level: None,
                });
            }
        }
        let asked = others().map(|(id, (member, _))| async {
            let answer = tokio::time::timeout(patience, peers.status(*id, &member.raft_addr)).await;
            if let Ok(Ok(answer)) = answer
                && let Some(fellow) = self.known.lock().get_mut(id)
            {
                fellow.heard = Some((Instant::now(), answer.wall_ms));
                fellow.writes_snapshot = answer.writes_snapshot;
                fellow.level = Some(
                    u8::try_from(answer.level)
                        .unwrap_or(u8::MAX)
                        .max(Entry::FIRST_FORMAT),
                );
            }
        });
        futures::future::join_all(asked).await;
        // A node that belongs nowhere yet knows nothing of who will be a member with it.
        if members.contains_key(&me) {
            self.note_level();
        }
    }

    /// The common time of those of these voters that were ever heard from, this node's own clock (`wall`) among them; none while no majority is known, or not all
    /// are and there is time left to wait for them. Of a majority that was heard from and does not tell, what there is counts in the end.
    fn common_time(&self, me: u64, wall: Millis, voters: &[u64], waited: Duration) -> Option<Millis> {
        let known = self.known.lock();
        let heard = voters.iter().filter_map(|id| known.get(id)?.heard);
        let heard: Vec<(Instant, Millis)> = heard.collect();
        let told = heard.iter().filter(|(_, wall)| *wall > 0);
        let mut clocks: Vec<Millis> = told
            .map(|(at, wall)| wall.saturating_add(clock::since(*at)))
            .collect();
        let votes = voters.contains(&me);
        if votes {
            clocks.push(wall);
        }
        let is_majority = |count: usize| count > voters.len() / 2;
        let all = clocks.len() == voters.len();
        let enough = is_majority(clocks.len()) && waited >= ALL_AGREE_WITHIN;
        let there = is_majority(heard.len() + usize::from(votes)) && waited >= ALL_TELL_WITHIN;
        (all || enough || there && votes).then(|| clock::common(&mut clocks))
    }
}

/// Asks the others and compares the clocks, as long as the node runs.
pub(super) async fn ask(
    me: u64,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    fellows: Arc<Fellows>,
    clock: Arc<Clock>,
) {
    // Since when a majority could have been asked.
    let mut belongs: Option<Instant> = None;
    loop {
        let members = replica.state().members;
        let votes = |(id, (_, votes)): (&u64, &(_, bool))| votes.then_some(*id);
        let voters: Vec<u64> = members.iter().filter_map(votes).collect();
        if !voters.is_empty() {
            belongs.get_or_insert_with(Instant::now);
        }
        let hurried = fellows.wanted() > 0 || !clock.has_agreed();
        let patience = if hurried { ANSWER_WHILE_HURRIED } else { ANSWER };
        fellows.ask(me, &replica, &peers, patience).await;
        if let Some(belongs) = belongs
            && let Some(common) = fellows.common_time(me, clock.wall(), &voters, belongs.elapsed())
        {
            clock.agree(if Mutant::OwnClock.is_planted() {
                clock.wall()
            } else {
                common
            });
        }
        let pause = if clock.has_agreed() { PAUSE } else { PAUSE_AT_FIRST };
        // Whoever wants some near wants to know at once.
        let _ = tokio::time::timeout(pause, fellows.changed.notified()).await;
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
        let heard = |at| Fellow {
            asked: long_ago,
            heard: Some((at, 0)),
            writes_snapshot: true,
            level: None,
        };
        fellows.known.lock().insert(2, heard(long_ago));
        assert!(!fellows.write_snapshots(), "it is silent");
        fellows.known.lock().insert(1, heard(Instant::now()));
        assert!(fellows.write_snapshots());
        assert!(fellows.lack() && fellows.near() == 1);
        fellows.set_max_lag_s(MAX_LAG_S * 2);
        assert!(!fellows.lack() && fellows.near() == 2);
        fellows.want(3);
        assert!(fellows.lack());
        fellows.set_max_lag_s(0);
        assert!(!fellows.lack(), "as in Redis");
    }

    #[test]
    fn a_majority_of_the_voters_is_heard_from_or_not() {
        let fellows = Fellows::default();
        assert!(fellows.are_majority(1, &[1]), "a node by itself");
        assert!(!fellows.are_majority(1, &[1, 2]), "nobody was asked yet");
        let heard = |ago: Duration| Fellow {
            asked: Instant::now(),
            heard: Instant::now().checked_sub(ago).map(|at| (at, 0)),
            writes_snapshot: false,
            level: None,
        };
        fellows.known.lock().insert(2, heard(Duration::ZERO));
        assert!(fellows.are_majority(1, &[1, 2, 3]));
        assert!(!fellows.are_majority(1, &[2, 3]), "it has no vote itself");
        fellows.known.lock().insert(2, heard(2 * UNHEARD));
        assert!(!fellows.are_majority(1, &[1, 2, 3]), "it is long ago");
    }

    #[test]
    fn the_level_is_that_of_the_least_and_the_first_until_all_have_said() {
        let fellows = Fellows::default();
        assert_eq!(fellows.level(), Entry::FIRST_FORMAT, "nobody was looked for");
        let level_with = |levels: &[Option<u8>]| {
            let told = levels.iter().zip(2..).map(|(level, id)| {
                let fellow = Fellow {
                    asked: Instant::now(),
                    heard: None,
                    writes_snapshot: false,
                    level: *level,
                };
                (id, fellow)
            });
            *fellows.known.lock() = told.collect();
            fellows.note_level();
            fellows.level()
        };
        assert_eq!(level_with(&[]), Entry::FORMAT, "a node by itself");
        assert_eq!(level_with(&[Some(Entry::FORMAT), None]), Entry::FIRST_FORMAT);
        assert_eq!(
            level_with(&[Some(Entry::FORMAT), Some(Entry::FIRST_FORMAT)]),
            Entry::FIRST_FORMAT
        );
        assert_eq!(
            level_with(&[Some(Entry::FORMAT + 1), Some(Entry::FORMAT + 1)]),
            Entry::FORMAT,
            "its own counts"
        );
    }

    #[test]
    fn clocks_are_common_once_all_or_after_a_while_a_majority_is_known() {
        let (fellows, now) = (Fellows::default(), 1_795_000_000_000);
        let told = |wall| Fellow {
            asked: Instant::now(),
            heard: Some((Instant::now(), wall)),
            writes_snapshot: false,
            level: None,
        };
        let common = |waited| fellows.common_time(1, now, &[1, 2, 3], waited);
        assert_eq!(common(ALL_TELL_WITHIN), None, "its own is no majority");
        fellows.known.lock().insert(2, told(0));
        assert_eq!(common(ALL_AGREE_WITHIN), None, "it does not tell");
        assert_eq!(common(ALL_TELL_WITHIN), Some(now), "it is of an older version");
        fellows.known.lock().insert(2, told(5));
        assert_eq!(common(Duration::ZERO), None, "the third may yet answer");
        assert!(common(ALL_AGREE_WITHIN).is_some_and(|common| common < 1_000));
        fellows.known.lock().insert(3, told(now + 3_600_000));
        let common = common(Duration::ZERO).unwrap();
        assert!(
            (now..now + 60_000).contains(&common),
            "the middle one: this node's"
        );
    }
}
