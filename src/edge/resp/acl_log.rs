//! `ACL LOG`: who tried what they may not.

use super::local::{NOTED_BYTES, quoted};
use super::stats::Counter;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

/// Where it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    TopLevel,
    /// Inside of `MULTI`.
    Multi,
    /// By a script.
    Lua,
}

/// What was tried; the same again within [`GROUPED`] is counted in one.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) count: u64,
    pub(super) reason: Reason,
    pub(super) context: Context,
    /// The command, key or channel, and the user: at most [`NOTED_BYTES`] of each.
    pub(super) object: Bytes,
    pub(super) user: Bytes,
    pub(super) at: Instant,
    /// The last who tried, as in `CLIENT LIST`.
    pub(super) client: String,
}

/// The time in which the same is counted in one entry. Redis: 60 s.
const GROUPED: Duration = Duration::from_secs(60);

/// How many entries are looked through for the same.
const LOOKED_THROUGH: usize = 10;

/// Bytes of a client's line that are kept: who it is comes first.
const LINE_BYTES: usize = 1024;

/// What was refused.
#[derive(Debug)]
pub(super) struct AclLog {
    /// `acllog-max-len`.
    max_len: AtomicU64,
    /// The newest first. Held to put one in or to copy them.
    entries: Mutex<VecDeque<Entry>>,
    /// How often for each [`Reason`].
    denied: [Counter; 4],
}

impl Default for AclLog {
    fn default() -> Self {
        Self {
            max_len: AtomicU64::new(128),
            entries: Mutex::default(),
            denied: Default::default(),
        }
    }
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
        }
    }
}

impl Context {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TopLevel => "toplevel",
            Self::Multi => "multi",
            Self::Lua => "lua",
        }
    }
}

impl AclLog {
    pub(super) fn max_len(&self) -> u64 {
        self.max_len.load(Relaxed)
    }

    /// How often somebody was refused for this reason.
    pub(super) fn denied(&self, reason: Reason) -> u64 {
        self.denied[reason as usize].get()
    }

    pub(super) fn set_max_len(&self, most: u64) {
        self.max_len.store(most, Relaxed);
        self.entries
            .lock()
            .truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }

    pub(super) fn note(&self, reason: Reason, context: Context, object: &[u8], user: &[u8], client: String) {
        self.denied[reason as usize].add(1);
        let beginning = |bytes: &[u8], most| Bytes::copy_from_slice(&bytes[..bytes.len().min(most)]);
        let (object, user) = (beginning(object, NOTED_BYTES), beginning(user, NOTED_BYTES));
        let line = beginning(client.as_bytes(), LINE_BYTES);
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let same = entries.iter().take(LOOKED_THROUGH).position(|entry| {
            (entry.reason, entry.context) == (reason, context)
                && now.duration_since(entry.at) <= GROUPED
                && entry.object == object
                && entry.user == user
        });
        let before = same
            .and_then(|at| entries.remove(at))
            .map_or(0, |entry| entry.count);
        entries.push_front(Entry {
            count: before + 1,
            reason,
            context,
            object,
            user,
            at: now,
            client: quoted(&line).into_owned(),
        });
        entries.truncate(usize::try_from(self.max_len()).unwrap_or(usize::MAX));
    }

    /// The newest ones.
    pub(super) fn newest(&self, most: usize) -> Vec<Entry> {
        self.entries.lock().iter().take(most).cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_long_the_beginning_is_kept() {
        let (log, long) = (AclLog::default(), "x".repeat(1 << 20));
        let (reason, context) = (Reason::Key, Context::TopLevel);
        log.note(reason, context, long.as_bytes(), b"user", String::new());
        log.note(reason, context, long.as_bytes(), b"user", long.clone());
        let kept = log.newest(10);
        let bytes = [kept[0].object.len(), kept[0].client.len()];
        assert_eq!(
            (kept.len(), kept[0].count, bytes),
            (1, 2, [NOTED_BYTES, LINE_BYTES])
        );
    }

    #[test]
    fn the_same_is_counted_and_the_oldest_goes() {
        let log = AclLog::default();
        log.set_max_len(2);
        for key in ["a", "b", "a", "c"] {
            log.note(
                Reason::Key,
                Context::TopLevel,
                key.as_bytes(),
                b"user",
                String::new(),
            );
        }
        let shown: Vec<_> = log
            .newest(10)
            .into_iter()
            .map(|entry| (entry.object, entry.count))
            .collect();
        assert_eq!(shown, [(Bytes::from("c"), 1), (Bytes::from("a"), 2)]);
    }
}
