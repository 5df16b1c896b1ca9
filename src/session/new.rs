//! How a session begins.

use super::{AtMost, IDLE_TIMEOUT};
use crate::machine::entry::Millis;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a session begins.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub(super) idle_timeout: Duration,
    pub(super) slack: Option<Duration>,
    pub(super) absolute_deadline: Option<Millis>,
    pub(super) owner: Bytes,
    pub(super) at_most: Option<AtMost>,
    pub(super) items: BTreeMap<Bytes, Bytes>,
}

impl Default for NewSession {
    fn default() -> Self {
        Self::new()
    }
}

impl NewSession {
    /// Nobody's, without items, ending after [`IDLE_TIMEOUT`] without use.
    pub fn new() -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT,
            slack: None,
            absolute_deadline: None,
            owner: Bytes::new(),
            at_most: None,
            items: BTreeMap::new(),
        }
    }

    /// It ends when it was not used for this long (rounded up to a millisecond); zero: never for that reason.
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// By how much it may end later than its idle timeout says (rounded up to a millisecond): uses that come within half of it after one that was
    /// written down are not. 5 % of the idle timeout, one second at least, if nothing is said.
    pub fn slack(self, slack: Duration) -> Self {
        let slack = Some(slack);
        Self { slack, ..self }
    }

    /// It ends then at the latest, in milliseconds since the Unix epoch by the log's clock ([`Node::now`](crate::node::Node::now)).
    pub fn absolute_deadline(self, at: Millis) -> Self {
        Self {
            absolute_deadline: Some(at),
            ..self
        }
    }

    /// The user it belongs to.
    pub fn owner(self, owner: impl AsRef<[u8]>) -> Self {
        Self {
            owner: Bytes::copy_from_slice(owner.as_ref()),
            ..self
        }
    }

    /// How many sessions its owner may have, this one among them.
    pub fn owner_at_most(self, at_most: AtMost) -> Self {
        let at_most = Some(at_most);
        Self { at_most, ..self }
    }

    /// One item it begins with.
    pub fn item(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.items.insert(
            Bytes::copy_from_slice(name.as_ref()),
            Bytes::copy_from_slice(value.as_ref()),
        );
        self
    }
}
