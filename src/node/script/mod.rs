//! Scripts: Lua, run on the leader on a thread of its own; what they come to is replicated, they themselves are not.

pub(crate) mod engine;
