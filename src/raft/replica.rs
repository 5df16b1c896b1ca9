//! One Raft replica: opened, asked, watched and stopped. The face of this layer to node/, in our own types.

use super::client::{Network, Peers};
use super::leadership::{Electorate, Follows, Lease};
use super::snapshot_store::SnapshotStore;
use super::state_store::{Audit, State as AppliedState, StateStore};
use super::{Group, LogId, Member, Types, Vote};
use crate::config::{ENTRY_BYTES, Timing};
use crate::mutant::Mutant;
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::raft::{Precondition, ReadPolicy};
use openraft::storage::RaftLogStorage;
use openraft::{ChangeMembers, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Log entries kept below a snapshot, so that a member that is a little behind needs no snapshot; fewer where they are large (`node/ticker.rs`).
const KEPT_ENTRIES: u64 = 4_096;

/// Entries of one append request, at most; `limited_get_log_entries` bounds them in bytes too.
const APPEND_ENTRIES: u64 = 256;

/// A Raft replica on this node's disk.
pub(crate) struct Replica {
    raft: Raft<Types, StateStore>,
    snapshots: SnapshotStore,
    state: AppliedState,
    peers: Arc<Peers>,
    /// How long a majority's word counts for reads; none: it is asked for each round of them.
    lease_length: Option<Duration>,
    lease: Mutex<Option<Lease>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica({})", self.raft.node_id())
    }
}

/// What Raft says of this node now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) role: Role,
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) last_log_index: u64,
    pub(crate) committed_index: u64,
    pub(crate) snapshot_index: u64,
    /// Every member, and whether it votes.
    pub(crate) members: BTreeMap<u64, (Member, bool)>,
    /// The entry that made them the members.
    pub(crate) membership: Option<LogId>,
    /// Whether that is the first of the two entries of a change of voters: until there is the second a majority of those before it is needed as well.
    pub(crate) is_joint: bool,
    /// On the leader: what each member has stored.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// Why Raft has stopped, if it did so by itself.
    pub(crate) fault: Option<String>,
}

/// What this node does in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
}

impl Role {
    /// Its name, as `StatusResponse` carries it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

impl State {
    /// Where the leader is reached, if one is known.
    pub(crate) fn leader_address(&self) -> Option<(u64, &str)> {
        let leader = self.leader?;
        self.members
            .get(&leader)
            .map(|(member, _)| (leader, member.raft_addr.as_str()))
    }
}

impl Replica {
    /// Opens the replica on stores that were opened before.
    pub(crate) async fn open<L: RaftLogStorage<Types>>(
        node: u64,
        timing: Timing,
        lease_reads: bool,
        peers: Arc<Peers>,
        log: L,
        states: StateStore,
        snapshots: SnapshotStore,
    ) -> Result<Self, String> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "plenary".to_owned(),
            heartbeat_interval: millis(timing.heartbeat),
            election_timeout_min: millis(timing.election_min),
            election_timeout_max: millis(timing.election_max),
            enable_pre_vote: Some(true),
            // Elections wait until the silence after a start is over: see `Replica::allow_elections`.
            enable_elect: false,
            // A snapshot is taken when the log has grown by so many bytes (node/), for one entry is many commands.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            purge_batch_size: 256,
            max_payload_entries: APPEND_ENTRIES,
            max_append_entries: Some(4_096),
            // What is applied after a restart follows from the saved commit; a leader that trusts its own log would serve stale state.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
        let network = Network { peers: peers.clone() };
        let state = states.state();
        let raft = Raft::new(node, config, network, log, states)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            raft,
            snapshots,
            state,
            peers,
            lease_length: lease_reads.then(|| timing.lease()),
            lease: Mutex::default(),
        })
    }

    pub(super) fn raft(&self) -> &Raft<Types, StateStore> {
        &self.raft
    }

    pub(super) fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// The last audit taken here.
    pub(crate) fn audit(&self) -> Option<Audit> {
        self.state.audit()
    }

    /// The level of the state here.
    pub(super) fn level(&self) -> u8 {
        self.state.level()
    }

    /// Lets this node stand for election.
    pub(crate) fn allow_elections(&self) {
        self.raft.runtime_config().elect(true);
    }

    /// Whether there is a log or a vote: whether this node ever belonged to a cluster that was begun.
    pub(crate) async fn is_initialized(&self) -> Result<bool, String> {
        self.raft
            .is_initialized()
            .await
            .map_err(|error| error.to_string())
    }

    /// Begins a cluster of these members. Harmless when it was begun before.
    pub(crate) async fn initialize(&self, members: BTreeMap<u64, Member>) -> Result<(), String> {
        match self.raft.initialize(members).await {
            Err(openraft::errors::RaftError::Fatal(fatal)) => Err(fatal.to_string()),
            Err(openraft::errors::RaftError::APIError(openraft::errors::InitializeError::NotInMembers(
                error,
            ))) => Err(error.to_string()),
            // `NotAllowed`: the cluster exists already, which is what was wanted.
            Ok(()) | Err(openraft::errors::RaftError::APIError(_)) => Ok(()),
        }
    }

    /// Hands a stamped group to Raft and waits until it is applied here. Refused unless this node leads, and where it is too large: once in the log it would be
    /// tried again for as long as this node leads, and nothing behind it would reach the others. No caller's group is ([`Limits`](crate::config::Limits)).
    pub(crate) async fn propose(&self, group: Bytes) -> Result<(), String> {
        if group.len() > ENTRY_BYTES {
            return Err(format!(
                "an entry of {} bytes, which no message between members holds (limit {ENTRY_BYTES}): please report this",
                group.len()
            ));
        }
        let (responder, applied) = ProgressResponder::complete_only();
        self.raft
            .client_write_ff(Group(group), Some(responder))
            .await
            .map_err(|error| error.to_string())?;
        match applied.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(refused.to_string()),
            Err(_) => Err("Raft has stopped".to_owned()),
        }
    }

    /// An index such that whoever has applied it is as fresh as the cluster is now. On the leader only: a majority is asked whether it follows this node, unless it
    /// has given its word for long enough (`lease_reads`).
    ///
    /// What makes that word hold beside the clocks: a member that was started again grants no vote for as long as it may have given one
    /// (`raft/server.rs`), and a leader that hands over answers no further read.
    pub(crate) async fn read_index(&self) -> Result<u64, String> {
        if Mutant::ReadUnconfirmed.is_planted() {
            return Ok(self.applied());
        }
        if Mutant::ReadOnOldAnswers.is_planted() {
            let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            return Ok(linearizer
                .map_err(|error| error.to_string())?
                .read_log_id()
                .index());
        }
        // Where to read alone. That this node leads is what it thinks; what it needs to know comes now, after the read began.
        let read = self.raft.get_read_linearizer(ReadPolicy::LeaseRead).await;
        let read = *read.map_err(|error| error.to_string())?.read_log_id().log_id();
        let me = *self.raft.node_id();
        let electorate = self
            .raft
            .with_raft_state(move |state| Electorate::of(state, me))
            .await;
        let electorate = electorate.map_err(|error| error.to_string())?;
        let electorate = electorate.ok_or("this node does not lead")?;
        let vote = electorate.vote();
        let index = index_under(vote, read)?;
        if self.lease.lock().is_some_and(|lease| lease.holds(vote)) {
            return Ok(index);
        }
        let asked = Instant::now();
        let heard_ago = electorate.confirm(&self.peers, me).await?;
        if let Some(length) = self.lease_length {
            *self.lease.lock() = Lease::from(vote, asked, heard_ago, length);
        }
        Ok(index)
    }

    /// Whether this member follows the leader of this vote.
    pub(super) async fn follows(&self, leader: Vote) -> Result<Follows, String> {
        let follows = self.raft.with_raft_state(move |state| Follows::of(state, leader));
        follows.await.map_err(|error| error.to_string())
    }

    /// Whether a snapshot that ends here cannot be of the log that is committed here: it ends with another entry at the same place, or a later one before it.
    pub(super) async fn contradicts(&self, last: Option<LogId>) -> Result<bool, String> {
        let contradicts = self.raft.with_raft_state(move |state| {
            let both = last.zip(state.local_committed().copied());
            both.is_some_and(|(last, committed)| last > committed && last.index <= committed.index)
        });
        contradicts.await.map_err(|error| error.to_string())
    }

    /// What Raft says now.
    pub(crate) fn state(&self) -> State {
        state_of(&self.raft.metrics().borrow_watched())
    }

    /// Whether this node leads; much less to find out than the rest of its state.
    pub(crate) fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    /// Whether this node leads and has applied something of its own term: then all that leaders before it may have had stored is applied here, or never will be.
    #[cfg(feature = "lua")]
    pub(crate) fn leads_on_all_before(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics
            .last_applied
            .as_ref()
            .map(|id| id.committed_leader_id().term);
        metrics.state == ServerState::Leader && applied == Some(metrics.current_term)
    }

    /// The last entry of the newest snapshot here; 0: there is none.
    pub(crate) fn snapshot_index(&self) -> u64 {
        let metrics = self.raft.metrics();
        let snapshot = metrics.borrow_watched().snapshot;
        snapshot.map_or(0, |id| id.index)
    }

    /// The last entry applied here.
    pub(crate) fn applied(&self) -> u64 {
        self.raft
            .metrics()
            .borrow_watched()
            .last_applied
            .map_or(0, |id| id.index)
    }

    pub(super) fn vote_and_last_log(&self) -> (Vote, Option<LogId>) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.vote, metrics.last_applied)
    }

    /// Resolves with the state whenever it may have changed.
    pub(crate) fn watch(&self) -> StateWatch {
        StateWatch(self.raft.metrics())
    }

    /// Follows who leads. Unlike [`Replica::watch`] it sleeps through entries.
    pub(crate) fn watch_leader(&self) -> LeaderWatch {
        LeaderWatch(self.raft.server_metrics())
    }

    /// Adds a member without a vote. Does not wait until it has caught up.
    pub(crate) async fn add_learner(&self, seen: &State, id: u64, member: Member) -> Result<(), String> {
        let change = ChangeMembers::AddNodes(BTreeMap::from([(id, member)]));
        self.change_members(seen, change, true).await
    }

    /// Notes a member's new addresses.
    pub(crate) async fn set_member(&self, seen: &State, id: u64, member: Member) -> Result<(), String> {
        // Raft goes on with the links it has.
        self.peers.note_address(id, &member.raft_addr);
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
        self.change_members(seen, change, true).await
    }

    /// Makes these the voters, in one joint change. Members that lose their vote are gone.
    pub(crate) async fn set_voters(&self, seen: &State, voters: BTreeSet<u64>) -> Result<(), String> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.change_members(seen, change, false).await
    }

    /// Writes the second entry of a change of voters that has only its first.
    pub(crate) async fn end_change(&self, seen: &State) -> Result<(), String> {
        // Nobody more: that makes those the voters whom the first entry named last.
        let change = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.change_members(seen, change, false).await
    }

    /// Takes a learner out.
    pub(crate) async fn remove_learner(&self, seen: &State, id: u64) -> Result<(), String> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.change_members(seen, change, false).await
    }

    /// Changes the members, if they are still those that whoever asks for it has seen: what was decided on others may throw one out that came since.
    async fn change_members(
        &self,
        seen: &State,
        change: ChangeMembers<u64, Member>,
        retain: bool,
    ) -> Result<(), String> {
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: seen.membership,
        };
        let changed = self.raft.change_membership_if(change, retain, [unchanged]);
        changed.await.map(drop).map_err(|error| error.to_string())
    }

    /// Asks Raft to hand leadership to another member.
    pub(crate) async fn transfer_leadership(&self, to: u64) -> Result<(), String> {
        self.raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|error| error.to_string())
    }

    /// Bytes of the newest snapshot, 0 without one; and whether a member is being sent one.
    pub(crate) fn snapshot_bytes(&self) -> (u64, bool) {
        let bytes = self.snapshots.newest().map_or(0, |snapshot| snapshot.len);
        (bytes, self.peers.feeds())
    }

    /// Whether this node is writing a snapshot.
    pub(crate) fn writes_snapshot(&self) -> bool {
        self.snapshots.writes()
    }

    /// Takes a snapshot now, after which the log is cut.
    pub(crate) async fn snapshot(&self) -> Result<(), String> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|error| error.to_string())
    }

    /// Cuts the log up to and with this index, which a snapshot covers; later, where a follower is being sent what goes.
    pub(crate) async fn purge(&self, upto: u64) -> Result<(), String> {
        self.raft
            .trigger()
            .purge_log(upto)
            .await
            .map_err(|error| error.to_string())
    }

    /// Stops Raft's tasks.
    pub(crate) async fn shutdown(&self) {
        self.snapshots.hurry().up();
        // A task that panicked has stopped as well.
        let _ = self.raft.shutdown().await;
    }
}

/// Follows a replica's state.
pub(crate) struct StateWatch(
    openraft::type_config::alias::WatchReceiverOf<Types, openraft::RaftMetrics<Types>>,
);

impl StateWatch {
    /// The state now.
    pub(crate) fn now(&self) -> State {
        state_of(&self.0.borrow_watched())
    }

    /// Waits for a change. `false`: Raft has stopped.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Follows who leads and who the members are: nothing that moves with every entry, so whoever waits here is not woken by each.
#[derive(Clone)]
pub(crate) struct LeaderWatch(
    openraft::type_config::alias::WatchReceiverOf<Types, openraft::metrics::RaftServerMetrics<Types>>,
);

impl LeaderWatch {
    /// What this node does, the term of its vote, and the leader if one is known.
    pub(crate) fn now(&self) -> (Role, u64, Option<u64>) {
        let metrics = self.0.borrow_watched();
        (
            role_of(metrics.state),
            metrics.vote.leader_id.term,
            metrics.current_leader,
        )
    }

    /// Where a member is reached.
    pub(crate) fn address(&self, member: u64) -> Option<String> {
        let metrics = self.0.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.get_node(&member).map(|node| node.raft_addr.clone())
    }

    /// Whether this is a member, as far as the log here goes: also one whose entry is not committed yet.
    pub(super) fn has(&self, member: u64) -> bool {
        let metrics = self.0.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.get_node(&member).is_some()
    }

    /// Waits for a change. `false`: Raft has stopped.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// The index of a read that this node was told when it led, if it leads by this vote still: it is not below the first entry of the leader that told it. Between
/// the two another may have led, whose entries it would miss, and a majority's word is for the later leadership.
fn index_under(vote: Vote, read: LogId) -> Result<u64, String> {
    if read.leader_id == vote.leader_id {
        return Ok(read.index);
    }
    Err("another led meanwhile: ask again".to_owned())
}

fn role_of(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn state_of(metrics: &openraft::RaftMetrics<Types>) -> State {
    let index = |id: &Option<LogId>| id.map_or(0, |id| id.index);
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let matched = metrics
        .replication
        .iter()
        .flatten()
        .map(|(id, log)| (*id, index(log)))
        .collect();
    State {
        role: role_of(metrics.state),
        leader: metrics.current_leader,
        term: metrics.current_term,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(&metrics.cluster_committed),
        snapshot_index: index(&metrics.snapshot),
        members: membership
            .nodes()
            .map(|(id, node)| (*id, (node.clone(), voters.contains(id))))
            .collect(),
        membership: *metrics.membership_config.log_id(),
        is_joint: membership.get_joint_config().len() > 1,
        matched,
        fault: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::impls::leader_id_adv::LeaderId;

    #[test]
    fn a_read_index_counts_under_the_leadership_it_is_of() {
        let read = |term| LogId {
            leader_id: LeaderId { term, node_id: 7 },
            index: 11,
        };
        let vote = Vote::new_committed(5, 7);
        assert_eq!(index_under(vote, read(5)), Ok(11));
        assert!(
            index_under(vote, read(3)).is_err(),
            "it lost its leadership and has it again"
        );
    }
}
