//! What the endpoint counts for `INFO`. Plain counters: nothing is decided by them, so relaxed order is enough.

use super::local::noted;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kinds of errors that are counted one by one; a further kind is counted in the total only. Redis: 128.
const ERROR_KINDS: usize = 128;

/// The counters, since the start or `CONFIG RESETSTAT`.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Connections accepted.
    pub(super) connections: Counter,
    /// Connections turned away: too many clients, or protected mode.
    pub(super) rejected: Counter,
    /// Clients cut off because they did not read their replies.
    pub(super) output_limit: Counter,
    /// Clients closed because they sent nothing for too long.
    pub(super) idle: Counter,
    /// Commands run, refused ones among them.
    pub(super) commands: Counter,
    /// Times something was read from a client.
    pub(super) reads: Counter,
    /// Times something was written to a client.
    pub(super) writes: Counter,
    /// Bytes read.
    pub(super) input_bytes: Counter,
    /// Bytes written.
    pub(super) output_bytes: Counter,
    /// Replies that were errors.
    pub(super) errors: Counter,
    /// The hits and misses of the keyspace that had been at the last reset.
    pub(super) lookups_before: (Counter, Counter),
    /// The evicted keys that had been then.
    pub(super) evicted_before: Counter,
    /// The objects freed beside the log that had been then.
    pub(super) freed_before: Counter,
    /// Commands in the second before the last tick, and bytes read and written. Survive a reset.
    pub(super) commands_per_second: Counter,
    pub(super) input_per_second: Counter,
    pub(super) output_per_second: Counter,
    /// Commands that had changed something at the last `SAVE`. Survives a reset.
    pub(super) saved_changes: Counter,
    /// Errors by their first word. Held for one look-up, never across an await.
    kinds: Mutex<BTreeMap<String, u64>>,
}

/// One number that goes up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl Stats {
    /// Counts an error that was so often the reply, by its first word.
    pub(super) fn error(&self, text: &str, times: u64) {
        self.errors.add(usize::try_from(times).unwrap_or(usize::MAX));
        // A script chooses the word.
        let kind = noted(text.split(' ').next().unwrap_or_default());
        let mut kinds = self.kinds.lock();
        if let Some(count) = kinds.get_mut(kind) {
            *count += times;
        } else if kinds.len() < ERROR_KINDS {
            kinds.insert(kind.to_owned(), times);
        }
    }

    /// Errors by their first word.
    pub(super) fn kinds(&self) -> BTreeMap<String, u64> {
        self.kinds.lock().clone()
    }

    /// `CONFIG RESETSTAT`, when the keyspace has counted so many hits and misses, evicted so many keys, and had so many objects freed.
    pub(super) fn reset(&self, lookups: (u64, u64), evicted: u64, freed: u64) {
        self.evicted_before.set(evicted);
        self.freed_before.set(freed);
        self.lookups_before.0.set(lookups.0);
        self.lookups_before.1.set(lookups.1);
        let counters = [
            &self.connections,
            &self.rejected,
            &self.output_limit,
            &self.idle,
            &self.commands,
            &self.reads,
            &self.writes,
            &self.input_bytes,
            &self.output_bytes,
            &self.errors,
        ];
        for counter in counters {
            counter.set(0);
        }
        self.kinds.lock().clear();
    }
}

/// The greatest value that was seen.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicU64);

impl Peak {
    /// The greatest so far, this one included.
    pub(super) fn of(&self, value: u64) -> u64 {
        self.0.fetch_max(value, Relaxed).max(value)
    }
}
