//! Keeping keys alive without a write for each use: who asks for the life that a key has already is answered from what is stored here, if that covers
//! it (`expire-slack-percent`). Once half of the slack is used up the use is written down, together with those of other keys.
//!
//! What is gathered here may be lost with the node: the answers hold without it, and the next use of a key makes good for it.

use super::Node;
use super::clock::Clock;
use crate::machine::entry::{Command, Millis};
use crate::machine::internal;
use crate::machine::keyspace::Due;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The part of a key's slack for which uses are gathered: an eighth, for a quarter is left from the time when one is to be written down until it would be
/// by itself.
const GATHER_PART: u64 = 8;

/// The longest time for which uses are gathered: so seldom is one entry written for all of them.
const GATHER_MAX: Duration = Duration::from_secs(5);

/// Uses that one command writes down.
const RENEWED_MAX: usize = 500;

/// The longest name of a key whose uses are gathered, in bytes. With a longer one a use is written by itself when the slack is used up.
const KEY_BYTES_MAX: usize = 256;

/// The most keys that wait to be renewed. A use beyond that is not noted; the next one of that key will be.
const GATHERED_MAX: usize = 100_000;

/// Uses of keys to be written down, gathered on this node.
#[derive(Debug)]
pub(super) struct Renewals {
    clock: Arc<Clock>,
    /// By database and key. Held to add one or to take all; never across an await.
    gathered: Mutex<BTreeMap<(u8, Bytes), Due>>,
    /// The first was added.
    begun: Notify,
}

impl Renewals {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            gathered: Mutex::default(),
            begun: Notify::new(),
        }
    }

    /// Now, for whoever is answered from what is stored here. Not the log's clock as this node estimates it: that is behind where the node has only just
    /// caught up, and the key would end early. A clock that is ahead costs writes and does no harm.
    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// A use is to be written down in time. Of several of one key the last counts.
    pub(super) fn soon(&self, due: Due) {
        let mut gathered = self.gathered.lock();
        let key = (due.db, due.key.clone());
        if due.key.len() > KEY_BYTES_MAX || gathered.len() >= GATHERED_MAX && !gathered.contains_key(&key) {
            return;
        }
        gathered.insert(key, due);
        if gathered.len() == 1 {
            self.begun.notify_one();
        }
    }

    /// How long to gather, from when the first was added.
    fn gathers_for(&self) -> Duration {
        let gathered = self.gathered.lock();
        let slack = gathered.values().map(|due| due.slack).min().unwrap_or(0);
        Duration::from_millis(slack / GATHER_PART).min(GATHER_MAX)
    }

    /// What was gathered, as commands.
    fn take(&self) -> Vec<Command> {
        let gathered: Vec<Due> = std::mem::take(&mut *self.gathered.lock()).into_values().collect();
        gathered.chunks(RENEWED_MAX).map(internal::renew).collect()
    }
}

/// Writes down what is gathered.
pub(super) async fn write_down(node: Node) {
    let renewals = &node.inner.renewals;
    let mut stopped = node.inner.stop_service.subscribe();
    let gathered = async || {
        renewals.begun.notified().await;
        tokio::time::sleep(renewals.gathers_for()).await;
    };
    loop {
        tokio::select! {
            () = gathered() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        for command in renewals.take() {
            if let Err(error) = node.write(vec![command]).await {
                tracing::debug!(%error, "uses of keys were not written down");
            }
        }
    }
}
