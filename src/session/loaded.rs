//! A session in the hands of a request: what was loaded, and what was changed since.
//!
//! A load copies nothing of what a session holds: it shares the session with the cache, and what the request changes stands beside it. Whoever
//! applies a change to a session that is shared copies it first.

use super::stored::Seals;
use super::{SessionId, count, number, word};
use crate::cache;
use crate::error::Result;
use crate::machine::entry::Millis;
use crate::machine::keyspace::View;
use crate::machine::value::session::Renewal;
use crate::machine::value::{self, Text};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A session as it was loaded, and what was changed since. It is written by [`Sessions::save`](crate::Sessions::save) only; dropping it loses the changes.
#[derive(Clone)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) version: u64,
    pub(super) created_at: Millis,
    pub(super) idle_timeout_ms: u64,
    pub(super) slack_ms: u64,
    pub(super) absolute_deadline: Millis,
    pub(super) deadline: Option<Millis>,
    pub(super) owner: Bytes,
    /// What it held when it was loaded, or after the last save.
    pub(super) held: Held,
    /// What a save must say: each name once, with its new value, or none where it was removed.
    pub(super) changes: BTreeMap<Bytes, Option<Bytes>>,
    /// Whether this use of it is to be written down.
    pub(super) renewal: Renewal,
    /// Whether this node could not say that it is as fresh as was asked.
    pub(super) stale: bool,
    pub(super) retired: bool,
    /// Which of the settings a save must say.
    pub(super) settings: Settings,
    pub(super) seals: Seals,
}

/// Items as they were before they were changed.
#[derive(Clone)]
pub(super) enum Held {
    /// Those of a session as it stands in the cache, but for those whose deadlines had passed then: up to this one.
    Shared(Arc<value::Session>, Millis),
    /// This handle's own: they were sealed, or saved by it.
    Own(BTreeMap<Bytes, Bytes>),
}

impl Held {
    pub(super) fn get(&self, name: &[u8]) -> Option<Text<'_>> {
        match self {
            Self::Shared(session, passed) => session.items.get(name, *passed).map(|item| item.value),
            Self::Own(items) => items.get(name).map(Text::from),
        }
    }

    /// In the order of their names.
    fn iter(&self) -> impl Iterator<Item = (Text<'_>, Text<'_>)> {
        let (shared, own) = match self {
            Self::Shared(session, passed) => (Some(session.items.living(*passed)), None),
            Self::Own(items) => (None, Some(items)),
        };
        let shared = shared.into_iter().flatten().map(|item| (item.name, item.value));
        let own = own.into_iter().flatten();
        shared.chain(own.map(|(name, value)| (name.into(), value.into())))
    }
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
            .field("items", &self.items().count());
        shown
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// What is stored, as this view shows it, in the hands of one who uses it at this time, if that is later than the view's.
    pub(super) fn read(
        id: SessionId,
        session: &Arc<value::Session>,
        deadline: Option<Millis>,
        view: View<'_>,
        used_at: Millis,
    ) -> Self {
        Self {
            renewal: session.renewal(deadline, used_at.max(view.now())),
            stale: false,
            retired: session.is_retired(),
            id,
            version: session.version,
            created_at: session.created_at,
            idle_timeout_ms: session.idle_timeout_ms,
            slack_ms: session.slack_ms,
            absolute_deadline: session.absolute_deadline,
            deadline,
            owner: session.owner.clone(),
            held: Held::Shared(session.clone(), view.passed()),
            changes: BTreeMap::new(),
            settings: Settings::default(),
            seals: Seals::default(),
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

    /// How long it lives from this time on unless it is used, as of the load; none: without end. The slack is left out, by which it may end later: whoever
    /// gives what is left back as a new life would add it each time.
    pub fn left(&self, now: Millis) -> Option<Duration> {
        let deadline = self.deadline?;
        let end = if deadline == self.absolute_deadline {
            deadline
        } else {
            deadline.saturating_sub(self.slack_ms)
        };
        Some(Duration::from_millis(end.saturating_sub(now)))
    }

    /// Whether the cluster could not be asked, and this is what this node had: [`Trouble::ServeLocal`](super::Trouble::ServeLocal).
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether it goes on under another id, and this is what it was: [`Sessions::rename_with_grace`](crate::Sessions::rename_with_grace). It can only be read.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// The user it belongs to; empty: nobody.
    pub fn owner(&self) -> &Bytes {
        &self.owner
    }

    /// Its items in the order of their names, unsaved changes among them.
    pub fn items(&self) -> impl Iterator<Item = (Text<'_>, Text<'_>)> {
        let (mut held, mut changes) = (self.held.iter().peekable(), self.changes.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let Some((changed, _)) = changes.peek() else {
                    return held.next();
                };
                if let Some(unchanged) = held.next_if(|(name, _)| name[..] < changed[..]) {
                    return Some(unchanged);
                }
                held.next_if(|(name, _)| name == changed);
                if let Some((name, Some(value))) = changes.next() {
                    return Some((name.into(), value.into()));
                }
            }
        })
    }

    /// One item.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<Text<'_>> {
        let name = name.as_ref();
        match self.changes.get(name) {
            Some(changed) => changed.as_ref().map(Text::from),
            None => self.held.get(name),
        }
    }

    /// One item, read as JSON.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value).
    pub fn get_as<T: DeserializeOwned>(&self, name: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get(name).map(|json| cache::from_json(&json)).transpose()
    }

    /// Sets an item. The same value again is no change.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        if self.get(name).is_some_and(|old| old == *value) {
            return;
        }
        self.change(name, Some(Bytes::copy_from_slice(value)));
    }

    fn change(&mut self, name: &[u8], to: Option<Bytes>) {
        self.changes.insert(Bytes::copy_from_slice(name), to);
    }

    /// Sets an item as JSON.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value).
    pub fn set_as<T: Serialize>(&mut self, name: impl AsRef<[u8]>, value: &T) -> Result<()> {
        self.set(name, cache::to_json(value)?);
        Ok(())
    }

    /// Removes an item. Its value, if it was there.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> Option<Bytes> {
        let name = name.as_ref();
        let value = self.get(name)?.to_bytes();
        self.change(name, None);
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
        if !self.changes.is_empty() {
            let items = self
                .items()
                .map(|(name, value)| (name.to_bytes(), value.to_bytes()));
            self.held = Held::Own(items.collect());
            self.changes.clear();
        }
        self.seals.saved();
        self.settings = Settings::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::entry::{Command, Entry, Origin};

    const KEY: &[u8] = b"session:1";

    fn apply(machine: &mut Machine, at: Millis, command: &str) {
        let argv = command.split(' ').map(str::as_bytes);
        machine.apply(&Entry {
            format: Entry::FORMAT,
            at,
            seed: 1,
            origin: Origin::default(),
            commands: vec![Command::new(0, argv.map(Bytes::copy_from_slice))],
        });
    }

    /// One that holds `b`, `d`, which ends at 50, and `f`.
    fn machine() -> Machine {
        let mut machine = Machine::default();
        let create = "SESSION.CREATE session:1 0 ITEMS 3 b 1 d 2 f 3 EXPIRE 1 d 49";
        apply(&mut machine, 1, create);
        machine
    }

    fn load(machine: &Machine, now: Millis) -> Session {
        let view = machine.view(now, 0);
        let slot = view.slot(KEY).expect("a session");
        let session = slot.value.as_shared_session().expect("a session");
        let id = "1".parse().expect("an id");
        Session::read(id, session, slot.deadline(), view, now)
    }

    fn items(session: &Session) -> String {
        let items = session.items().map(|(name, value)| {
            assert_eq!(session.get(name), Some(value));
            format!("{}={} ", name.escape_ascii(), value.escape_ascii())
        });
        items.collect()
    }

    #[test]
    fn what_was_changed_stands_over_what_was_loaded() {
        let mut session = load(&machine(), 49);
        assert_eq!(items(&session), "b=1 d=2 f=3 ");
        assert_eq!(session.remove("d").as_deref(), Some(&b"2"[..]));
        assert_eq!(session.remove("d"), None);
        for (name, value) in [("a", "4"), ("b", "5"), ("c", "6"), ("g", "7")] {
            session.set(name, value);
        }
        assert_eq!(items(&session), "a=4 b=5 c=6 f=3 g=7 ");
        assert_eq!(session.get("d"), None);
        session.remove("g");
        session.set("d", "8");
        assert_eq!(items(&session), "a=4 b=5 c=6 d=8 f=3 ");
        session.saved();
        assert!(!session.is_changed());
        assert_eq!(items(&session), "a=4 b=5 c=6 d=8 f=3 ");
        session.set("b", "5");
        assert!(!session.is_changed(), "it was saved with that value");
    }

    #[test]
    fn what_is_left_of_a_life_is_without_the_slack_but_for_an_absolute_deadline() {
        let mut machine = Machine::default();
        let left = |machine: &Machine, now| load(machine, now).left(now);
        let create = "SESSION.CREATE session:1 100000";
        apply(&mut machine, 1_000, create);
        assert_eq!(left(&machine, 1_000), Some(Duration::from_secs(100)));
        assert_eq!(left(&machine, 41_000), Some(Duration::from_secs(60)));
        assert_eq!(
            left(&machine, 103_000),
            Some(Duration::ZERO),
            "its slack is not over"
        );
        apply(&mut machine, 103_000, "SESSION.SAVE session:1 * UNTIL 153000");
        assert_eq!(left(&machine, 103_000), Some(Duration::from_secs(50)));
        apply(&mut machine, 103_000, "SESSION.SAVE session:1 * IDLE 0 UNTIL 0");
        assert_eq!(left(&machine, 103_000), None);
    }

    #[test]
    fn what_had_ended_is_not_there_and_what_ends_later_stays() {
        let machine = machine();
        let (before, mut after) = (load(&machine, 50), load(&machine, 51));
        assert_eq!(
            (items(&before), items(&after)),
            ("b=1 d=2 f=3 ".into(), "b=1 f=3 ".into())
        );
        assert_eq!(after.remove("d"), None);
        assert!(!after.is_changed());
        after.set("d", "2");
        assert!(after.is_changed(), "it would not be there otherwise");
    }

    #[test]
    fn a_load_shares_the_session_and_a_change_leaves_it_as_it_was() {
        let (mut machine, mut unread) = (machine(), machine());
        let (one, other) = (load(&machine, 2), load(&machine, 2));
        let (Held::Shared(mine, _), Held::Shared(theirs, _)) = (&one.held, &other.held) else {
            panic!("a load copied the session");
        };
        assert!(Arc::ptr_eq(mine, theirs));
        for machine in [&mut machine, &mut unread] {
            apply(machine, 3, "SESSION.SAVE session:1 * DEL 1 f SET 1 b longer");
        }
        assert_eq!(items(&one), "b=1 d=2 f=3 ");
        assert_eq!(items(&load(&machine, 3)), "b=longer d=2 ");
        let known = |machine: &Machine| {
            let view = machine.view(3, 0);
            (view.bytes_of(KEY), view.digest_of(KEY))
        };
        assert_eq!(
            known(&machine),
            known(&unread),
            "somebody reading is no difference"
        );
    }
}
