//! LAYER 3: a member of a cluster.

pub mod status;

use crate::config::Config;
use crate::error::Result;
use crate::machine::Machine;
use crate::machine::entry::{Command, Entry, Millis, Origin};
use crate::machine::keyspace::View;
use crate::machine::reply::Reply;
use bytes::Bytes;
use parking_lot::RwLock;
use status::Status;
use std::sync::Arc;

/// A running node. Clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<RwLock<Machine>>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// What this node has applied.
    #[default]
    Local,
    /// At least what this token has seen: read-your-writes and monotonic reads across nodes.
    AtLeast(Token),
    /// As of now, cluster-wide. Costs a round to a majority, shared by all who ask at the same time.
    Linearizable,
}

/// How far a write or read has seen: a log index. Travels as a decimal number, in a cookie or a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The replies, in the order of the commands.
    pub replies: Vec<Reply>,
    /// Where it stands in the log.
    pub token: Token,
}

impl Node {
    /// Starts a node.
    pub async fn start(config: Config) -> Result<Self> {
        config.validate()?;
        Ok(Self { inner: Arc::default() })
    }

    /// The one door for writes: the commands are applied in order and together, after a majority has them.
    pub async fn write(&self, commands: Vec<Command>) -> Result<Written> {
        let entry = Entry { at: self.now(), seed: 1, origin: Origin::default(), commands };
        match self.inner.write().apply(&entry) {
            crate::machine::Outcome::Applied(replies) => Ok(Written { replies, token: Token(1) }),
            _ => unreachable!(),
        }
    }

    /// A read-only command.
    pub async fn read(&self, freshness: Freshness, db: u8, argv: &[Bytes]) -> Result<Reply> {
        self.fresh(freshness).await?;
        Ok(self.read_local(db, argv))
    }

    /// Waits until this node is as fresh as asked; the token says how fresh it is then.
    pub async fn fresh(&self, _freshness: Freshness) -> Result<Token> {
        Ok(Token(1))
    }

    /// A read-only command on what this node has applied. Never waits.
    pub fn read_local(&self, db: u8, argv: &[Bytes]) -> Reply {
        self.inner.read().read(self.now(), db, argv)
    }

    /// Reads one database (0 to 15) directly, at one applied index. Applying waits meanwhile: be quick.
    pub fn view<R>(&self, db: u8, read: impl FnOnce(View<'_>) -> R) -> R {
        read(self.inner.read().view(self.now(), db))
    }

    /// Now, by the log's clock as this node estimates it.
    pub fn now(&self) -> Millis {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64
    }

    /// What this node knows without asking anybody.
    pub fn status(&self) -> Status {
        Status {
            node_id: 1, cluster_id: Some(1), role: status::Role::Leader, leader_id: Some(1), term: 1, last_log_index: 1,
            committed_index: 1, applied_index: 1, snapshot_index: 0, members: Vec::new(), ready: true, fault: None,
            durability: "fsync".into(), version: env!("CARGO_PKG_VERSION").into(), uptime_ms: 0, keys: 0, used_bytes: 0,
            expired_keys: 0, proposed_commands: 0, proposed_groups: 0,
        }
    }

    /// [`Node::status`] with every member asked for its own (each at most a second).
    pub async fn cluster_status(&self) -> Status {
        self.status()
    }

    /// The digest of this node's state and the index it holds for.
    pub async fn digest(&self) -> (u64, u128) {
        (1, self.inner.read().digest())
    }

    /// Adds the node that listens for peers at this address, as a learner.
    pub async fn add_member(&self, _raft_addr: &str) -> Result<u64> {
        Ok(1)
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote_member(&self, _id: u64) -> Result<()> {
        Ok(())
    }

    /// Takes a member out. Its id never comes back.
    pub async fn remove_member(&self, _id: u64) -> Result<()> {
        Ok(())
    }

    /// Where peers are listened for, after port 0 was resolved.
    pub fn raft_addr(&self) -> &str {
        "127.0.0.1:1"
    }

    /// Where Redis clients are listened for, after port 0 was resolved.
    pub fn resp_addr(&self) -> Option<&str> {
        None
    }

    /// Hands over leadership, finishes what is under way and stops.
    pub async fn stop(&self) -> Result<()> {
        Ok(())
    }

    /// Resolves when the node has stopped, with the fault if it stopped by itself.
    pub async fn stopped(&self) -> Option<String> {
        std::future::pending().await
    }
}
