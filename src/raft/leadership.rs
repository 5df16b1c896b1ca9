//! Whether a leader still leads, as of now: a majority is asked whom it follows.
//!
//! openraft can be asked as well (`ReadPolicy::ReadIndex`), but takes an answer on a stream of entries as one to the last message that says no more
//! than what it answers, whenever that was sent. An answer that was held up on its way for longer than an election takes, by a link that was cut and is whole again, would so become a
//! word of now, and a leader of before would answer reads (`src/simulation/bad_moments.rs` lets it happen). Here the question has an answer of its own: no member that says after a read began that it follows
//! this leader can have voted for another before. It waits for no disk either.

use super::client::Peers;
use super::{Types, Vote};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::RaftState;
use openraft::async_runtime::instant::Instant as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// What a member says to whoever asks whether it follows a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Follows {
    /// Whether its vote is that leader's, of that term.
    pub(super) follows: bool,
    /// How long ago it last heard from it, as it measured that: it votes for nobody else until `election_max` after. None: it has not, since it was started.
    pub(super) heard_ago: Option<Duration>,
}

impl Follows {
    /// What this member's state says to the leader of this vote.
    pub(super) fn of(state: &RaftState<Types>, leader: Vote) -> Self {
        let heard = state.vote_last_modified();
        Self {
            follows: leader.committed && *state.vote_ref() == leader,
            heard_ago: heard.map(|heard| heard.elapsed()),
        }
    }
}

/// Who must be asked: the vote by which this node leads, and the voters of each set of which a majority counts (two while members change), with their
/// addresses.
#[derive(Clone, Debug)]
pub(super) struct Electorate {
    vote: Vote,
    sets: Vec<BTreeSet<u64>>,
    addresses: BTreeMap<u64, String>,
}

impl Electorate {
    /// None if this node does not lead.
    pub(super) fn of(state: &RaftState<Types>, me: u64) -> Option<Self> {
        let vote = *state.vote_ref();
        let leads = vote.committed && vote.leader_id.node_id == me;
        let membership = state.membership_state.effective().membership();
        let nodes = membership
            .nodes()
            .map(|(id, member)| (*id, member.raft_addr.clone()));
        leads.then(|| Self {
            vote,
            sets: membership.get_joint_config().clone(),
            addresses: nodes.collect(),
        })
    }

    pub(super) fn vote(&self) -> Vote {
        self.vote
    }

    /// Whether these are a majority of each set.
    fn suffice(&self, members: &BTreeSet<u64>) -> bool {
        let majority = |set: &BTreeSet<u64>| set.intersection(members).count() > set.len() / 2;
        self.sets.iter().all(majority)
    }

    /// Asks the others until a majority, this node among them, follows it. How long ago the one of them that has heard least of it last did; none if one of them
    /// does not know.
    pub(super) async fn confirm(&self, peers: &Peers, me: u64) -> Result<Option<Duration>, String> {
        let mut following = BTreeSet::from([me]);
        let mut heard_ago = Some(Duration::ZERO);
        let others: BTreeSet<u64> = self
            .sets
            .iter()
            .flatten()
            .copied()
            .filter(|id| *id != me)
            .collect();
        let mut answers: FuturesUnordered<_> = others
            .into_iter()
            .filter_map(|id| {
                let address = self.addresses.get(&id)?;
                Some(async move { (id, peers.follows(id, address, self.vote).await) })
            })
            .collect();
        while !self.suffice(&following) {
            match answers.next().await {
                Some((id, Ok(said))) if said.follows => {
                    following.insert(id);
                    heard_ago = heard_ago.zip(said.heard_ago).map(|(least, ago)| least.max(ago));
                }
                // It follows another, or cannot be asked: then the rest must do.
                Some(_) => {}
                None => return Err("no majority follows this node".to_owned()),
            }
        }
        Ok(heard_ago)
    }
}

/// Until when a majority votes for nobody but this leader, as far as it has said so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    vote: Vote,
    until: Instant,
}

impl Lease {
    /// What follows from a majority's word: asked at `asked`, when the one that had heard least of this leader had done so `heard_ago`.
    pub(super) fn from(
        vote: Vote,
        asked: Instant,
        heard_ago: Option<Duration>,
        length: Duration,
    ) -> Option<Self> {
        let left = length.checked_sub(heard_ago?)?;
        Some(Self {
            vote,
            until: asked + left,
        })
    }

    /// Whether it holds now for the leader of this vote.
    pub(super) fn holds(&self, vote: Vote) -> bool {
        self.vote == vote && Instant::now() < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::ground::Net;

    /// By which node 1 leads.
    fn vote() -> Vote {
        Vote::new_committed(3, 1)
    }

    fn electorate(sets: &[&[u64]]) -> Electorate {
        Electorate {
            vote: vote(),
            sets: sets.iter().map(|set| set.iter().copied().collect()).collect(),
            addresses: BTreeMap::new(),
        }
    }

    #[test]
    fn a_majority_of_each_set_suffices() {
        let suffice =
            |sets: &[&[u64]], members: &[u64]| electorate(sets).suffice(&members.iter().copied().collect());
        assert!(suffice(&[&[1]], &[1]));
        assert!(!suffice(&[&[1, 2]], &[1]), "half is none");
        assert!(suffice(&[&[1, 2, 3]], &[1, 3]));
        assert!(!suffice(&[&[1, 2, 3]], &[1, 4]), "who has no vote does not count");
        assert!(
            !suffice(&[&[1, 2, 3], &[1, 4, 5]], &[1, 2]),
            "while members change, of both"
        );
        assert!(suffice(&[&[1, 2, 3], &[1, 4, 5]], &[1, 2, 4]));
    }

    #[tokio::test]
    async fn who_cannot_be_asked_follows_nobody() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let peers = Peers::new(Net::System, 1, 1, None);
        let mut three = electorate(&[&[1, 2, 3]]);
        three.addresses = [2, 3].map(|id| (id, address.clone())).into();
        assert!(three.confirm(&peers, 1).await.is_err());
        assert_eq!(
            electorate(&[&[1]]).confirm(&peers, 1).await,
            Ok(Some(Duration::ZERO)),
            "one that is by itself asks nobody"
        );
    }

    #[test]
    fn a_lease_is_as_long_as_the_word_that_was_given_first() {
        let (asked, second) = (Instant::now(), Duration::from_secs(1));
        let lease = |heard_ago| Lease::from(vote(), asked, heard_ago, 60 * second);
        let fresh = lease(Some(second)).unwrap();
        assert_eq!(fresh.until, asked + 59 * second);
        assert!(fresh.holds(vote()));
        assert!(!fresh.holds(Vote::new_committed(4, 1)), "another term");
        assert!(lease(Some(61 * second)).is_none(), "too long ago");
        assert!(lease(None).is_none(), "it has forgotten when");
        assert!(!lease(Some(60 * second)).unwrap().holds(vote()), "it is over");
    }
}
