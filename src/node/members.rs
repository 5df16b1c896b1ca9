//! Changes of the members: asked of any node, carried out by the leader, one at a time.

use super::departed::record_of;
use super::discovery::runs_already;
use crate::raft::Member;
use crate::raft::client::{MemberChange, Peers};
use crate::raft::replica::{Replica, Role, State};
use crate::raft::state_store;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Entries a learner may be behind to count as caught up.
const CAUGHT_UP: u64 = 512;

/// How often the leader looks whether a learner that asked for a vote has caught up.
const LOOK: Duration = Duration::from_millis(100);

/// How long a change of voters that could not be ended is left alone: there is no majority, or its first entry is under way.
const END_AGAIN: Duration = Duration::from_secs(1);

/// How long a member may take to answer: where it was and where it is, before that is noted; and whether it is there, before voters change.
const HELLO: Duration = Duration::from_millis(500);

/// Voters at most: more make every write slower and protect no better.
const VOTERS_MAX: usize = 7;

/// Carries out changes on the leader; passes them on elsewhere.
#[derive(Debug)]
pub(super) struct Members {
    node: u64,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    /// What this node has applied: who has ever written.
    applied: state_store::State,
    /// Learners that asked to vote, on the leader that let them in. Held while one change is carried out: Raft takes one at a time.
    joining: Mutex<BTreeSet<u64>>,
}

impl Members {
    pub(super) fn new(
        node: u64,
        replica: Arc<Replica>,
        peers: Arc<Peers>,
        applied: state_store::State,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            replica,
            peers,
            applied,
            joining: Mutex::default(),
        })
    }

    /// Carries out a change, here or through the leader. The cluster's id.
    pub(super) async fn change(&self, change: MemberChange) -> Result<u64, String> {
        let state = self.replica.state();
        if state.role == Role::Leader {
            self.carry_out(change).await?;
            return Ok(self.peers.cluster());
        }
        let (_, address) = state
            .leader_address()
            .ok_or("there is no leader now: try again")?;
        self.peers
            .change_member(address, change)
            .await
            .map_err(|status| status.message().to_owned())
    }

    async fn carry_out(&self, change: MemberChange) -> Result<(), String> {
        if let MemberChange::Join(id, member) | MemberChange::Add(id, member) = &change {
            self.must_answer(*id, member).await?;
        }
        let mut joining = self.joining.lock().await;
        let state = self.settled().await?;
        match change {
            MemberChange::Join(id, member) => {
                self.add(&state, id, member).await?;
                if !is_voter(&state, id) {
                    joining.insert(id);
                }
                Ok(())
            }
            MemberChange::Add(id, member) => self.add(&state, id, member).await,
            MemberChange::Promote(id) => self.promote(&state, id).await,
            MemberChange::Remove(id) => {
                joining.remove(&id);
                self.remove(&state, id).await
            }
        }
    }

    /// The members, when a change of voters that was begun is ended: its leader may have died, or whoever asked for it hung up, between its two entries. While this
    /// one's changes are carried out one at a time, any that is under way was left behind.
    async fn settled(&self) -> Result<State, String> {
        let state = self.replica.state();
        if !state.is_joint {
            return Ok(state);
        }
        tracing::info!("a change of voters was left half done: it is ended");
        self.replica.end_change(&state).await?;
        Ok(self.replica.state())
    }

    /// Refuses a member whose address is new and not its own: it could not be sent the log, and with a vote it would be missed.
    async fn must_answer(&self, id: u64, member: &Member) -> Result<(), String> {
        let state = self.replica.state();
        let known = state.members.get(&id).is_some_and(|(known, _)| known == member);
        // The leader needs not reach itself.
        if known || id == self.node {
            return Ok(());
        }
        let address = &member.raft_addr;
        let hello = tokio::time::timeout(HELLO, self.peers.hello(address, member)).await;
        let why = match hello {
            Ok(Ok(hello)) if hello.node == id => return Ok(()),
            Ok(Ok(hello)) => format!("node {} does", hello.node),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "nobody does in time".to_owned(),
        };
        Err(format!(
            "{id} does not answer the leader at {address}: {why}. Check its `advertise` and port"
        ))
    }

    async fn add(&self, state: &State, id: u64, member: Member) -> Result<(), String> {
        match state.members.get(&id) {
            Some((known, _)) if *known == member => Ok(()),
            Some((known, _)) => {
                // A node that moved is not where it was. One that is has a double: two processes of one id could vote twice.
                let hello = self.peers.hello(&known.raft_addr, &member);
                if let Ok(Ok(hello)) = tokio::time::timeout(HELLO, hello).await
                    && hello.node == id
                    && hello.member.raft_addr != member.raft_addr
                {
                    return Err(runs_already(id, &known.raft_addr));
                }
                self.replica.set_member(state, id, member).await
            }
            None if self.has_written(id) => Err(format!(
                "{id} was taken out, and its id never comes back. Give its node an empty folder, and it joins as a new member"
            )),
            None => self.replica.add_learner(state, id, member).await,
        }
    }

    /// Whether a node has ever written into the log: then it was a member, for the entry that made it one stands before. One that joins has not, also where the
    /// answer to its first question was lost, or the leader that added it.
    fn has_written(&self, id: u64) -> bool {
        record_of(&self.applied, id).is_some()
    }

    /// Gives a learner that has caught up a vote. In the same change it replaces a voter with its own address: that one's disk is gone.
    async fn promote(&self, state: &State, id: u64) -> Result<(), String> {
        let (member, voter) = state
            .members
            .get(&id)
            .ok_or_else(|| format!("{id} is no member: add it first"))?;
        if *voter {
            return Ok(());
        }
        let matched = state.matched.get(&id).copied().unwrap_or(0);
        // Of the members as they are now, which is no earlier.
        let added = state.membership.map_or(0, |entry| entry.index);
        if !has_caught_up(matched, added, state.last_log_index) {
            return Err(format!(
                "{id} has {matched} of {} entries: try again when it has caught up",
                state.last_log_index
            ));
        }
        let mut voters: BTreeSet<u64> = state
            .members
            .iter()
            .filter(|(other, (known, voter))| {
                *voter && (**other == id || known.raft_addr != member.raft_addr)
            })
            .map(|(id, _)| *id)
            .collect();
        voters.insert(id);
        if voters.len() > VOTERS_MAX {
            return Err(format!(
                "there are {VOTERS_MAX} voters already; {id} stays a learner"
            ));
        }
        self.must_be_there(state, &voters, Some(id)).await?;
        self.replica.set_voters(state, voters).await
    }

    /// Refuses voters of whom no majority is there, or this one of them is not: nothing could be written any more, no change of the members either.
    async fn must_be_there(
        &self,
        state: &State,
        voters: &BTreeSet<u64>,
        first_of_all: Option<u64>,
    ) -> Result<(), String> {
        let asked = voters.iter().map(|id| async move {
            let (member, _) = state.members.get(id)?;
            let answers = async || {
                let status = self.peers.status(*id, &member.raft_addr);
                matches!(tokio::time::timeout(HELLO, status).await, Ok(Ok(_)))
            };
            (*id == self.node || answers().await).then_some(*id)
        });
        let answers = futures::future::join_all(asked).await;
        let there: BTreeSet<u64> = answers.into_iter().flatten().collect();
        let silent: Vec<String> = voters.difference(&there).map(u64::to_string).collect();
        let missed = first_of_all.is_some_and(|id| !there.contains(&id));
        if missed || there.len() <= voters.len() / 2 {
            return Err(format!(
                "{} of {} that would vote answer, which is too few to go on (silent: {}). Start them again, or take those out first",
                there.len(),
                voters.len(),
                silent.join(", ")
            ));
        }
        Ok(())
    }

    async fn remove(&self, state: &State, id: u64) -> Result<(), String> {
        if !state.members.contains_key(&id) {
            return Err(format!("{id} is no member"));
        }
        if !is_voter(state, id) {
            return self.replica.remove_learner(state, id).await;
        }
        let voters: BTreeSet<u64> = state
            .members
            .keys()
            .copied()
            .filter(|other| *other != id && is_voter(state, *other))
            .collect();
        if voters.is_empty() {
            return Err(format!("{id} is the only voter: a cluster cannot be empty"));
        }
        self.must_be_there(state, &voters, None).await?;
        self.replica.set_voters(state, voters).await
    }

    /// Promotes learners that asked for it, once they have caught up, and ends changes that were left half done. While this node leads.
    pub(super) async fn promote_joining(self: Arc<Self>) {
        let mut end_at = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.replica.leads() {
                continue;
            }
            let mut joining = self.joining.lock().await;
            if self.replica.state().is_joint {
                if end_at <= Instant::now()
                    && let Err(why) = self.settled().await
                {
                    tracing::debug!(why, "a change of voters cannot be ended yet");
                    end_at = Instant::now() + END_AGAIN;
                }
                continue;
            }
            for id in joining.clone() {
                // Anew for each: the one before has changed who votes.
                let state = self.replica.state();
                if state.is_joint {
                    break;
                }
                match self.promote(&state, id).await {
                    Ok(()) => {
                        tracing::info!(id, "a member votes now");
                        joining.remove(&id);
                    }
                    Err(why) => tracing::debug!(id, why, "a member cannot vote yet"),
                }
            }
        }
    }
}

fn is_voter(state: &State, id: u64) -> bool {
    state.members.get(&id).is_some_and(|(_, voter)| *voter)
}

/// Whether a learner that has stored so much of a log has what it takes to vote: the entry by which it was added, and nearly all.
fn has_caught_up(matched: u64, added: u64, last: u64) -> bool {
    matched >= added && matched + CAUGHT_UP >= last
}

#[cfg(test)]
mod tests;
