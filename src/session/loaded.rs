//! A session in the hands of a request: what was loaded, and what was changed since.

use super::stored::Seals;
use super::{SessionId, count, number, word};
use crate::cache;
use crate::error::Result;
use crate::machine::entry::Millis;
use crate::machine::value;
use crate::machine::value::session::Renewal;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A session as it was loaded, and what was changed since. It is written by [`Sessions::save`] only; dropping it loses the changes.
#[derive(Clone)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) version: u64,
    pub(super) created_at: Millis,
    pub(super) idle_timeout_ms: u64,
    pub(super) absolute_deadline: Millis,
    pub(super) deadline: Option<Millis>,
    pub(super) owner: Bytes,
    pub(super) items: BTreeMap<Bytes, Bytes>,
    /// What a save must say: each name once, with its new value, or none where it was removed.
    pub(super) changes: BTreeMap<Bytes, Option<Bytes>>,
    /// What each of these was when it was loaded.
    pub(super) bases: BTreeMap<Bytes, Option<Bytes>>,
    /// Whether this use of it is to be written down.
    pub(super) renewal: Renewal,
    /// Whether this node could not say that it is as fresh as was asked.
    pub(super) stale: bool,
    pub(super) retired: bool,
    /// Which of the settings a save must say.
    pub(super) settings: Settings,
    pub(super) seals: Seals,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) idle_timeout: bool,
    pub(super) absolute_deadline: bool,
    pub(super) owner: bool,
}

impl fmt::Debug for Session {
    /// Shows nothing that a log should not have: neither the id nor any value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Session");
        shown
            .field("id", &self.id)
            .field("version", &self.version)
            .field("items", &self.items.len());
        shown
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn read(
        id: SessionId,
        session: &value::Session,
        deadline: Option<Millis>,
        now: Millis,
    ) -> Self {
        Self {
            renewal: session.renewal(deadline, now),
            stale: false,
            retired: session.is_retired(),
            bases: BTreeMap::new(),
            id,
            version: session.version,
            created_at: session.created_at,
            idle_timeout_ms: session.idle_timeout_ms,
            absolute_deadline: session.absolute_deadline,
            deadline,
            owner: session.owner.clone(),
            items: session
                .items
                .living(now)
                .map(|item| (item.name.clone(), item.value.clone()))
                .collect(),
            changes: BTreeMap::new(),
            settings: Settings::default(),
            seals: Seals::of(&session.items, now),
        }
    }

    /// Its id: what a cookie carries.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The version that was loaded, or came of the last save.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it was created, in milliseconds since the Unix epoch by the log's clock.
    pub fn created_at(&self) -> Millis {
        self.created_at
    }

    /// It ends when it was not used for this long; zero: never for that reason.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// When it was to end, as of the load, by the log's clock; none: never.
    pub fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// Whether the cluster could not be asked, and this is what this node had: [`Trouble::ServeLocal`].
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether it goes on under another id, and this is what it was: [`Sessions::rename_with_grace`]. It can only be read.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// The user it belongs to; empty: nobody.
    pub fn owner(&self) -> &Bytes {
        &self.owner
    }

    /// Its items in the order of their names, unsaved changes among them.
    pub fn items(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.items.iter()
    }

    /// One item.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Bytes> {
        self.items.get(name.as_ref())
    }

    /// One item, read as JSON.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn get_as<T: DeserializeOwned>(&self, name: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get(name).map(|json| cache::from_json(json)).transpose()
    }

    /// Sets an item. The same value again is no change.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        if self.items.get(name).is_some_and(|old| old == value) {
            return;
        }
        let (name, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        let old = self.items.insert(name.clone(), value.clone());
        self.change(name, old, Some(value));
    }

    fn change(&mut self, name: Bytes, from: Option<Bytes>, to: Option<Bytes>) {
        self.bases.entry(name.clone()).or_insert(from);
        self.changes.insert(name, to);
    }

    /// Sets an item as JSON.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn set_as<T: Serialize>(&mut self, name: impl AsRef<[u8]>, value: &T) -> Result<()> {
        self.set(name, cache::to_json(value)?);
        Ok(())
    }

    /// Removes an item. Its value, if it was there.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> Option<Bytes> {
        let (name, value) = self.items.remove_entry(name.as_ref())?;
        self.change(name, Some(value.clone()), None);
        Some(value)
    }

    /// Gives it to a user.
    pub fn set_owner(&mut self, owner: impl AsRef<[u8]>) {
        self.owner = Bytes::copy_from_slice(owner.as_ref());
        self.settings.owner = true;
    }

    /// It ends when it was not used for this long (rounded up to a millisecond) from the save on; zero: never for that reason.
    pub fn set_idle_timeout(&mut self, idle_timeout: Duration) {
        self.idle_timeout_ms = u64::try_from(idle_timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.settings.idle_timeout = true;
    }

    /// It ends then at the latest, in milliseconds since the Unix epoch by the log's clock; 0: never for that reason.
    pub fn set_absolute_deadline(&mut self, at: Millis) {
        self.absolute_deadline = at;
        self.settings.absolute_deadline = true;
    }

    /// Whether a save would write something.
    pub fn is_changed(&self) -> bool {
        let Settings {
            idle_timeout,
            absolute_deadline,
            owner,
        } = self.settings;
        !self.changes.is_empty() || idle_timeout || absolute_deadline || owner || self.seals.are_wanted()
    }

    /// What a save says of them, but for the items that it sets.
    pub(super) fn say_changes(&self, argv: &mut Vec<Bytes>) {
        if self.settings.idle_timeout {
            argv.extend([word("IDLE"), number(self.idle_timeout_ms)]);
        }
        if self.settings.absolute_deadline {
            argv.extend([word("UNTIL"), number(self.absolute_deadline)]);
        }
        if self.settings.owner {
            argv.extend([word("OWNER"), self.owner.clone()]);
        }
        let removed = self.changes.values().filter(|value| value.is_none()).count();
        if removed > 0 {
            argv.extend([word("DEL"), count(removed)]);
            argv.extend(
                self.changes
                    .iter()
                    .filter(|(_, value)| value.is_none())
                    .map(|(name, _)| name.clone()),
            );
        }
    }

    pub(super) fn saved(&mut self) {
        self.changes.clear();
        self.bases.clear();
        self.seals.saved();
        self.settings = Settings::default();
    }
}
