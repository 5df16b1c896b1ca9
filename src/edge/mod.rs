//! LAYER 5: other people's protocols. Each edge can be deleted without touching a line below; edges do not know each other.

#[cfg(feature = "tower-sessions")]
pub mod tower_sessions;
