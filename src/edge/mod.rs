//! LAYER 5: other people's protocols. Each edge programs against [`Node`](crate::node::Node) alone and can be deleted without
//! touching a line below it; edges do not know each other.

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "resp")]
pub mod resp;
