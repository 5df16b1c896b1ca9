//! Who is told what applying an entry came to, as the state store sees it. node/propose.rs and node/hearing.rs are that.

use crate::machine::Machine;
use crate::machine::event::Event;
use crate::machine::reply::Reply;

/// Told of what is applied, from the apply task: whoever implements it must be quick and never wait.
pub(crate) trait Answers: std::fmt::Debug + Send + Sync + 'static {
    /// The entry at this index was applied. If it was a group of this start: its number and the replies of its commands, in order.
    fn applied(&self, index: u64, own: Option<(u64, Vec<Reply>)>, events: Vec<Event>);

    /// Groups up to this number were applied without their replies being seen here: a snapshot brought them.
    fn lost(&self, number: u64);

    /// A group came before the one before it: both must be sent again.
    fn early(&self);

    /// A snapshot has replaced the machine by this one.
    fn replaced(&self, machine: &Machine);
}
