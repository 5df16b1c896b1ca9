//! Scripts: Lua, run on the leader on a thread of its own; what they come to is replicated, they themselves are not.

#[cfg_attr(
    not(test),
    allow(dead_code, reason = "`EVAL` and `FCALL` are not connected to it yet")
)]
pub(crate) mod engine;
