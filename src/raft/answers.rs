//! Who waits for this node's own groups, as the state store sees it. node/propose.rs is that.

use crate::machine::reply::Reply;

/// Told of each of this start's own groups, from the apply task: whoever implements it must be quick and never wait.
pub(crate) trait Answers: std::fmt::Debug + Send + Sync + 'static {
    /// The group of this number was applied at this index of the log; the replies of its commands, in order.
    fn applied(&self, number: u64, index: u64, replies: Vec<Reply>);

    /// Groups up to this number were applied without their replies being seen here: a snapshot brought them.
    fn lost(&self, number: u64);

    /// A group came before the one before it: both must be sent again.
    fn early(&self);
}
