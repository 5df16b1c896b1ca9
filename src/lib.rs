//! Plenary: sessions that every instance attends.

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod edge;
pub mod error;
pub mod machine;
pub mod node;
mod raft;

/// What `benches/` needs of the inside. Changes without notice.
#[doc(hidden)]
pub mod testing {
    pub use crate::raft::probe::LogProbe;
}
