//! LAYER 2: how the machine is replicated. The only place that names openraft, sled, tonic and prost.
//!
//! In reading order: `ground` (what a node stands on: the doors to disk, network and clocks), `files` (the disk), `net` (the network), `log/` (the Raft log on disk), `meta` (who this node is), `snapshot_store` (snapshot files),
//! `state_store` (applies entries, answers waiting callers), `fullness` (of memory, as applied), `freeing` (of what
//! entries took away), `wire` (protobuf to our types and back), `client` and
//! `server` (outbound and inbound calls; `connection` ends the latter), `remote` (calls of processes that embed no node), `replica` (all of it as one, for node/).

pub(crate) mod answers;
mod caller;
pub(crate) mod client;
mod connection;
pub(crate) mod fault;
pub(crate) mod files;
mod freeing;
pub(crate) mod fullness;
pub(crate) mod ground;
pub(crate) mod log;
pub(crate) mod meta;
pub(crate) mod net;
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
// Generated: proto/plenary.proto has the words.
// As it was generated: tests/proto.rs compares it byte for byte.
#[rustfmt::skip]
mod pb;
mod leadership;
pub(crate) mod probe;
pub(crate) mod remote;
pub(crate) mod replica;
mod rests;
pub(crate) mod server;
#[cfg(test)]
pub(crate) mod simulation;
pub(crate) mod snapshot_store;
pub(crate) mod state_store;
mod telling;
mod wire;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    /// The types our Raft is made of. One Raft entry is one group of commands; callers are answered by the state store, so
    /// Raft's own response is empty.
    pub(crate) Types:
        D = Group,
        R = (),
        NodeId = u64,
        Node = Member,
        AsyncRuntime = ground::Runtime,
);

/// Terms and indices that are read, from the disk or from others, stay below this: none comes to it by steps, and no later step of one overflows.
const COUNTER_MAX: u64 = 1 << 62;

/// One encoded, stamped group of commands (`machine::entry`). A clone counts a reference.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group(pub(crate) Bytes);

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} bytes)", self.0.len())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the members know of each other; part of the replicated membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where its peers reach it, `host:port`.
    pub(crate) raft_addr: String,
    /// Where Redis clients reach it, `host:port`; empty if it serves none.
    pub(crate) resp_addr: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raft_addr)
    }
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
