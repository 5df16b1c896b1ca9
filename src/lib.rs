//! Plenary: sessions that every instance attends.
//!
//! An embedded, in-process, Raft-replicated session cache. Each instance of an application links a node; an acknowledged write stands on a
//! majority of them, and every instance answers reads from its own memory. A Redis endpoint in the same process serves everything
//! that is not Rust.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use plenary::{Plenary, session::NewSession};
//!
//! let plenary = Plenary::builder().data(folder.path()).start().await?; // .listen(…).join([…]) makes it one of several
//! let cache = plenary.cache();
//! cache.set("greeting", "hello").await?;
//! assert_eq!(cache.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//!
//! let sessions = plenary.sessions();
//! let mut session = sessions.create(NewSession::new().owner("ada")).await?;
//! session.set("theme", "dark");
//! sessions.save(&mut session).await?; // fails, instead of undoing it, if another instance saved first
//! plenary.stop().await?;
//! # Ok(()) }
//! ```
//!
//! # The map, in reading order
//!
//! | module | what it is |
//! |---|---|
//! | [`machine`] | what the cache means: pure and deterministic; the command table |
//! | `raft` | how the machine is replicated: log, votes, snapshots, the wire between nodes |
//! | [`node`] | a member of a cluster: the one door for writes, the one door for reads |
//! | `remote` | a client of members in other processes, and the door that makes handles the same for both |
//! | [`cache`], [`session`] | the public handles |
//! | `edge` | other people's protocols: Redis, HTTP, session stores of web frameworks |
//! | [`Plenary`] | a node with its edges, in one handle |
//! | [`connect`] | a cluster from a process that embeds no node |
//! | [`config`], [`error`] | every setting; every way to fail, and what to do then |

pub mod cache;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod connect;
pub mod edge;
pub mod error;
pub mod machine;
mod mutant;
pub mod node;
mod plenary;
mod raft;
mod remote;
pub mod session;
#[cfg(test)]
#[cfg(feature = "resp")]
mod simulation;

pub use cache::{Cache, EntryOptions, Ttl};
pub use config::{Config, Durability, LogKind, RespConfig};
pub use connect::{Connector, Remote};
pub use error::{Error, Result};
pub use machine::reply::{CommandError, Reply};
pub use node::{Freshness, Node, Token};
pub use plenary::{Builder, Plenary};
pub use session::{Session, SessionError, Sessions};

/// What `benches/` and `fuzz/` need of the inside. Changes without notice.
#[doc(hidden)]
pub mod testing {
    #[cfg(feature = "cli")]
    pub use crate::cli::SettingsProbe;
    #[cfg(feature = "lua")]
    pub use crate::node::script::probe::{CallProbe, ScriptProbe};
    pub use crate::raft::probe::{LogProbe, MessageProbe, RecordProbe, SnapshotProbe};
}

/// README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
