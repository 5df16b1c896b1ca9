//! LAYER 5: other people's protocols. Each edge programs against [`Node`](crate::node::Node) or the public handles alone and can be deleted
//! without touching a line below it; edges do not know each other.

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "resp")]
pub mod resp;
#[cfg(feature = "tower-sessions")]
pub mod tower_sessions;
