//! Plenary: sessions that every instance attends.

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod edge;
pub mod error;
pub mod machine;
pub mod node;
mod raft;
