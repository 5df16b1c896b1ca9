//! Why a request got no answer, whether it may have been applied, and what to do.
//!
//! There are two kinds of no. A command that the cluster refuses (`WRONGTYPE` …) is an answer: a
//! [`CommandError`](crate::machine::reply::CommandError), the same on every node. What stands here is this node's own trouble.

use std::path::PathBuf;
use std::time::Duration;

/// This node could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No leader was found in time. The write was **not applied**.
    #[error("no leader for {} ms: {why}. Retry; if it stays, check `join` and the peer port of the members", waited.as_millis())]
    NoLeader {
        /// How long was waited.
        waited: Duration,
        /// What is known of the members.
        why: String,
    },
    /// The queue for writes is full. The write was **not applied**.
    #[error("overloaded: {queued} {unit} wait to be written (limit {limit}). Retry later")]
    Overloaded {
        /// How much waits.
        queued: usize,
        /// Of what: `commands` or `bytes`.
        unit: &'static str,
        /// The bound, from `Config::limits`.
        limit: usize,
    },
    /// The write was sent, but its end is **unknown**: it may be applied, now or later.
    #[error("unknown outcome after {} ms: {why}. The write may have been applied; read before you retry", waited.as_millis())]
    Unknown {
        /// How long was waited.
        waited: Duration,
        /// What happened.
        why: String,
    },
    /// A read could not be made as fresh as asked for in time.
    #[error("not fresh enough after {} ms: {why}. Read `Local` for what this node has", waited.as_millis())]
    NotFresh {
        /// How long was waited.
        waited: Duration,
        /// What is missing.
        why: String,
    },
    /// A command or group is larger than a group may be, or what is asked of a member over the network, or its answer to a read, than a message. **Not applied**.
    #[error("too large: {size} bytes (limit {limit})")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// The node has stopped, or is stopping. A write was **not applied**.
    #[error("this node has stopped: {why}")]
    Stopped {
        /// By request, or the fault that stopped it.
        why: String,
    },
    /// The cluster does not let this process in: it has no or another secret. **Nothing was done**.
    #[error("not let in: {0}")]
    Stranger(String),
    /// This needs a node in this process: it is not done over the network. **Nothing was done**.
    #[error("{0} needs a node in this process: a remote handle does not do that")]
    NodeNeeded(&'static str),
    /// Settings that cannot work, all of them at once.
    #[error("these settings cannot work:\n  {}", .0.join("\n  "))]
    Config(Vec<String>),
    /// Another process has this data folder.
    #[error("{} is in use by another process: give each node a folder of its own", .0.display())]
    FolderInUse(PathBuf),
    /// The data folder cannot be used: damaged, of another cluster or of a later version.
    #[error("data folder {}: {why}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}. Is another process there?")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A change of members was refused.
    #[error("members: {0}")]
    Members(String),
    /// The disk or the system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else had what was waited for (a lock, the load of a value) all the time. **Nothing was done**.
    #[error("{what} is taken: nobody gave it back within {} ms. Retry later, or wait longer", waited.as_millis())]
    Taken {
        /// The lock, or the key that is being loaded.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// What loads a value failed.
    #[error("the value could not be loaded: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A value could not be turned into its type, or back.
    #[error("value: {0}")]
    Value(String),
    /// The command was refused; here so that the typed handles can answer one error type.
    #[error(transparent)]
    Refused(#[from] crate::machine::reply::CommandError),
}

impl Error {
    /// Whether the write this answers may have been applied.
    pub fn may_be_applied(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
