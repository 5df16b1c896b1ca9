//! How full memory is, as of the last entry applied: for those who ask often, without the lock of the machine, and for those who wait for
//! a change.

use crate::machine::keyspace::Store;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// Bytes in use beyond the least since memory was full, from which on writes are held back, as a part of `maxmemory`.
const SLACK: u64 = 32;

/// But at least so many, and at most so many: what a few groups of small writes come to, and what a machine has to spare.
const SLACK_LEAST: u64 = 64 << 10;
const SLACK_MOST: u64 = 16 << 20;

/// How full memory is. Written by the apply task alone.
#[derive(Debug, Default)]
pub(crate) struct Fullness {
    /// More is in use than `maxmemory`, and keys may go.
    must_evict: AtomicBool,
    /// More is in use than `maxmemory`, and none may.
    out_of_memory: AtomicBool,
    used: AtomicU64,
    /// Use up to which nobody is held back. It falls with what is in use while keys must go, so that use may grow no further where the limit
    /// was lowered far below it, and writers need not wait until all the way is gone.
    ceiling: AtomicU64,
    /// Keys must go: for the evictor.
    filled: Notify,
    /// Less is in use, or no key may go any more: for those who wait for that.
    eased: Notify,
}

impl Fullness {
    /// Notes how it is now.
    pub(super) fn note(&self, store: &Store) {
        let most = store.settings().maxmemory;
        let (full, out) = if most == 0 {
            (false, false)
        } else {
            (store.is_full(), store.is_out_of_memory())
        };
        let (evict, before) = (full && !out, self.must_evict.load(Ordering::Relaxed));
        self.out_of_memory.store(out, Ordering::Release);
        if evict {
            let (used, slack) = (store.used() as u64, (most / SLACK).clamp(SLACK_LEAST, SLACK_MOST));
            let ceiling = used.max(most).saturating_add(slack);
            let ceiling = if before {
                ceiling.min(self.ceiling.load(Ordering::Relaxed))
            } else {
                ceiling
            };
            self.ceiling.store(ceiling, Ordering::Relaxed);
            self.used.store(used, Ordering::Relaxed);
        }
        self.must_evict.store(evict, Ordering::Release);
        if evict {
            self.filled.notify_one();
        }
        if before {
            self.eased.notify_waiters();
        }
    }

    /// Whether keys must go.
    pub(crate) fn must_evict(&self) -> bool {
        self.must_evict.load(Ordering::Acquire)
    }

    /// Whether what needs more memory is refused.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.out_of_memory.load(Ordering::Acquire)
    }

    /// Whether so much more is in use that writes are to wait for evictions.
    pub(crate) fn holds_back(&self) -> bool {
        self.must_evict() && self.used.load(Ordering::Relaxed) > self.ceiling.load(Ordering::Relaxed)
    }

    /// Resolves when keys must go; at once if that was so since it was last asked.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until writes are not held back.
    pub(crate) async fn eased(&self) {
        self.wait_while(Self::holds_back).await;
    }

    /// Waits until no key must go.
    pub(crate) async fn rested(&self) {
        self.wait_while(Self::must_evict).await;
    }

    async fn wait_while(&self, is_so: fn(&Self) -> bool) {
        loop {
            let eased = self.eased.notified();
            if !is_so(self) {
                return;
            }
            eased.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::entry::{Command, Entry, Origin};
    use crate::machine::internal;

    fn apply(machine: &mut Machine, command: Command) {
        let entry = Entry {
            format: Entry::FORMAT,
            at: 1,
            seed: 1,
            origin: Origin::default(),
            commands: vec![command],
        };
        machine.apply(&entry);
    }

    fn set(machine: &mut Machine, name: &str, value: String) {
        apply(machine, internal::set(&[(name.to_owned(), value)]));
    }

    fn bytes(key: &str, length: usize) -> Command {
        Command::new(0, ["SET".to_owned(), key.to_owned(), "x".repeat(length)])
    }

    #[test]
    fn writes_are_held_back_only_where_use_grows_beyond_what_it_was() {
        let (mut machine, fullness) = (Machine::default(), Fullness::default());
        for key in ["a", "b", "c"] {
            apply(&mut machine, bytes(key, 1 << 20));
        }
        fullness.note(machine.store());
        assert!(!fullness.must_evict() && !fullness.holds_back());
        // Far below what is in use: there is a long way to go, and nobody waits for all of it.
        set(&mut machine, "maxmemory", (1 << 20).to_string());
        fullness.note(machine.store());
        assert!(fullness.is_out_of_memory() && !fullness.must_evict());
        set(&mut machine, "maxmemory-policy", "allkeys-random".to_owned());
        fullness.note(machine.store());
        assert!(fullness.must_evict() && !fullness.is_out_of_memory() && !fullness.holds_back());
        apply(&mut machine, bytes("d", 1 << 20));
        fullness.note(machine.store());
        assert!(fullness.holds_back(), "it grows");
        apply(&mut machine, Command::new(0, ["DEL", "d"]));
        fullness.note(machine.store());
        assert!(fullness.must_evict() && !fullness.holds_back());
        apply(&mut machine, Command::new(0, ["DEL", "a", "b"]));
        apply(&mut machine, bytes("c", 1 << 19));
        fullness.note(machine.store());
        assert!(!fullness.must_evict());
    }
}
