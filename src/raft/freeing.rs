//! Frees beside the log what an entry took away: a set of a million members, a whole database. Redis: lazy freeing.

use super::ground::beside;
use super::rests::{Hurry, Rests};
use crate::machine::keyspace::Freed;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Entries whose leavings may wait to be freed. Beyond it an entry frees its own, and the log waits: memory is not taken faster than it is
/// given back.
const WAITING_MOST: usize = 64;

/// What is being freed, and what was.
#[derive(Debug, Default)]
pub(crate) struct Freeing {
    hurry: Hurry,
    waiting: AtomicUsize,
    pending: AtomicU64,
    done: AtomicU64,
}

impl Freeing {
    /// One that frees without rests once there is a hurry.
    pub(super) fn new(hurry: Hurry) -> Self {
        Self {
            hurry,
            ..Self::default()
        }
    }

    /// Frees these on a thread that nobody waits for, bit by bit: a million keys given back at once would take the processors from who writes.
    pub(super) fn free(self: &Arc<Self>, mut freed: Vec<Freed>) {
        if freed.is_empty() {
            return;
        }
        let objects = freed.iter().map(Freed::objects).sum();
        self.pending.fetch_add(objects, Ordering::Relaxed);
        let this = self.clone();
        let gently = self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MOST;
        let work = move || {
            let mut rests = Rests::new(&this.hurry);
            for freed in &mut freed {
                while gently && freed.free_some() {
                    rests.rest();
                }
            }
            drop(freed);
            this.pending.fetch_sub(objects, Ordering::Relaxed);
            this.done.fetch_add(objects, Ordering::Relaxed);
            this.waiting.fetch_sub(1, Ordering::Relaxed);
        };
        if gently {
            beside(work);
        } else {
            work();
        }
    }

    /// Objects that wait to be freed, and that were freed since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.pending), load(&self.done))
    }
}
