//! Who waits for a group of this node to be applied. Filled by node/propose.rs, answered by the state store.

use crate::machine::entry::Origin;
use crate::machine::reply::Reply;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// How it ended for one group.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// It was applied.
    Applied {
        /// Where it stands in the log: the token of its callers.
        index: u64,
        /// The replies of its commands, in order.
        replies: Vec<Reply>,
    },
    /// It was applied, but its replies are not known here: a snapshot brought it. The callers' outcome is unknown.
    Lost,
    /// The node stops; the group may be applied by the others.
    Stopped(String),
}

/// The groups of this start of this node that somebody waits for. Shared by proposer and state store.
#[derive(Debug)]
pub(crate) struct Answers {
    node: u64,
    start: u64,
    /// Held to insert or remove, never over an await. Its length is bounded by the groups in flight.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    groups: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// The last number applied.
    applied: u64,
    stopped: Option<String>,
}

impl Answers {
    /// For this node and start, as in the origin of its groups.
    pub(crate) fn new(node: u64, start: u64) -> Self {
        Self { node, start, waiting: Mutex::default() }
    }

    /// Waits for the group of this number. Before it is sent: whoever registers for a number that was applied already is told
    /// [`Answer::Lost`] at once.
    pub(crate) fn register(&self, number: u64, waiter: oneshot::Sender<Answer>) {
        let mut waiting = self.waiting.lock();
        // Whoever went away needs no answer, here and below.
        if let Some(why) = &waiting.stopped {
            let _ = waiter.send(Answer::Stopped(why.clone()));
        } else if number <= waiting.applied {
            let _ = waiter.send(Answer::Lost);
        } else {
            waiting.groups.insert(number, waiter);
        }
    }

    /// Nobody waits for this group any more. Whether somebody did.
    pub(crate) fn take(&self, number: u64) -> bool {
        self.waiting.lock().groups.remove(&number).is_some()
    }

    /// Tells everybody that the node stops, now and later.
    pub(crate) fn fail_all(&self, why: &str) {
        let groups = {
            let mut waiting = self.waiting.lock();
            waiting.stopped = Some(why.to_owned());
            std::mem::take(&mut waiting.groups)
        };
        for waiter in groups.into_values() {
            let _ = waiter.send(Answer::Stopped(why.to_owned()));
        }
    }

    /// The last number of this start that was applied here.
    pub(crate) fn applied(&self) -> u64 {
        self.waiting.lock().applied
    }

    /// A group was applied at this index.
    pub(super) fn applied_at(&self, origin: Origin, index: u64, replies: Vec<Reply>) {
        if !self.is_own(origin) {
            return;
        }
        let waiter = {
            let mut waiting = self.waiting.lock();
            waiting.applied = waiting.applied.max(origin.number);
            waiting.groups.remove(&origin.number)
        };
        if let Some(waiter) = waiter {
            let _ = waiter.send(Answer::Applied { index, replies });
        }
    }

    /// A group came again that was applied before. Its caller was answered then, unless a snapshot skipped it.
    pub(super) fn past(&self, origin: Origin) {
        if self.is_own(origin) {
            self.lost_up_to(origin.number);
        }
    }

    /// Groups up to this number were applied without their replies being seen here.
    pub(super) fn lost_up_to(&self, number: u64) {
        let lost = {
            let mut waiting = self.waiting.lock();
            waiting.applied = waiting.applied.max(number);
            let later = waiting.groups.split_off(&number.saturating_add(1));
            std::mem::replace(&mut waiting.groups, later)
        };
        for waiter in lost.into_values() {
            let _ = waiter.send(Answer::Lost);
        }
    }

    /// Which node and start these are.
    pub(super) fn of(&self) -> (u64, u64) {
        (self.node, self.start)
    }

    fn is_own(&self, origin: Origin) -> bool {
        (origin.node, origin.start) == (self.node, self.start) && origin.number > 0
    }
}
