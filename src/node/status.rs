//! What a node knows of itself and of its peers: INFO, metrics, `/health` and `plenary status` print these structs.

use serde::{Deserialize, Serialize};

/// What a member does in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders the writes.
    Leader,
    /// Stores and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Stores; has no vote (yet).
    Learner,
    /// Belongs to no cluster yet.
    Forming,
    /// Has stopped.
    Stopped,
}

/// One node, as it sees itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its id, drawn at the first start of its data folder.
    pub node_id: u64,
    /// The cluster's id; none before there is one.
    pub cluster_id: Option<u64>,
    /// Its role.
    pub role: Role,
    /// The leader it knows.
    pub leader_id: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// The last log entry it has.
    pub last_log_index: u64,
    /// The last entry it knows to be committed.
    pub committed_index: u64,
    /// The last entry it applied.
    pub applied_index: u64,
    /// The last entry its newest snapshot covers.
    pub snapshot_index: u64,
    /// The members, itself among them.
    pub members: Vec<MemberStatus>,
    /// Whether it serves: it belongs to a cluster, knows a leader, has heard from a majority of the voters in the last seconds and has applied what was
    /// committed when it started.
    pub ready: bool,
    /// Why it does not take part, if it stopped by itself.
    pub fault: Option<String>,
    /// Members whose state differs from this node's at the same index of the log: never any, or somebody must look.
    #[serde(default)]
    pub differing_members: Vec<u64>,
    /// The level of the state: what came with a higher one is not there yet, for a member's program does not understand it. See [`crate::machine::entry`].
    #[serde(default)]
    pub level: u8,
    /// `fsync` or `os`.
    pub durability: String,
    /// Its version.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Keys in all databases.
    pub keys: u64,
    /// Bytes in use: of an empty state and of all keys, counted where they change. What `maxmemory` bounds.
    pub used_bytes: u64,
    /// Keys that ended by their deadline, ever.
    pub expired_keys: u64,
    /// Keys that were evicted for `maxmemory` since this node's start, or since it was sent a snapshot.
    #[serde(default)]
    pub evicted_keys: u64,
    /// Commands this node proposed since its start.
    pub proposed_commands: u64,
    /// Groups they went in.
    pub proposed_groups: u64,
}

/// One member, as a node knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// Where peers reach it.
    pub raft_addr: String,
    /// Where Redis clients reach it; empty if nowhere.
    pub resp_addr: String,
    /// Whether it votes.
    pub voter: bool,
    /// Its role; none if it did not answer.
    pub role: Option<Role>,
    /// The last entry it applied; none if it did not answer.
    pub applied_index: Option<u64>,
    /// Entries it is behind the most advanced member; none if it did not answer.
    pub lag: Option<u64>,
}

impl Role {
    /// The role of this lower-case name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let roles = [
            Self::Leader,
            Self::Follower,
            Self::Candidate,
            Self::Learner,
            Self::Forming,
            Self::Stopped,
        ];
        roles.into_iter().find(|role| role.name() == name)
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Forming => "forming",
            Self::Stopped => "stopped",
        }
    }
}
