//! Sessions: what the web's own data type keeps. `commands/session*.rs` have its operations.

mod items;
mod lock;

pub use items::{Item, Items};
pub use lock::{Holder, Lock, Mode};

use super::Hash;
use crate::machine::entry::Millis;
use crate::machine::snapshot::{Source, write_bytes};
use bytes::Bytes;
use std::io;

/// The part of the idle timeout by which a session may end late, if it asks for no other slack: a twentieth, 5 %.
const SLACK_PART: u64 = 20;

/// The least of it, in milliseconds.
const SLACK_MS_MIN: u64 = 1_000;

/// When a use of a session is to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It need not be: the last one that was covers it.
    No,
    /// In time, together with others: half of the slack is used up.
    Soon,
    /// Before the use is answered.
    Now,
}

/// A web session: named items, a version, how long it lives, whose it is, and who has it locked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Its items by name.
    pub items: Items,
    /// Grows by one with every change of the items; a save names the version it read.
    pub version: u64,
    /// It ends when it was not used for this long, in milliseconds; 0: never.
    pub idle_timeout_ms: u64,
    /// By how much it may end later than that, in milliseconds: a use is written down only when its end would otherwise come too early, so one in
    /// so many milliseconds at most.
    pub slack_ms: u64,
    /// It ends at this time at the latest, by the log's clock; 0: never.
    pub absolute_deadline: Millis,
    /// When it was created, by the log's clock.
    pub created_at: Millis,
    /// The user it belongs to; empty: nobody yet.
    pub owner: Bytes,
    /// Who has it locked.
    pub lock: Lock,
    /// The key under which the session goes on; empty: this one. What stays under an old id is a copy that can only be read.
    pub successor: Box<[u8]>,
}

impl Session {
    /// Bytes that the numbers of a session take.
    const NUMBERS_BYTES: usize = 5 * 8;

    /// The slack of a session that asks for none: 5 % of its idle timeout, one second at least.
    pub fn default_slack_ms(idle_timeout_ms: u64) -> u64 {
        (idle_timeout_ms / SLACK_PART).max(SLACK_MS_MIN)
    }

    /// Bytes of content.
    pub fn bytes(&self) -> usize {
        let texts = self.owner.len() + self.successor.len();
        self.items.bytes() + self.lock.bytes() + texts + Self::NUMBERS_BYTES
    }

    /// Whether it is what stays under an old id.
    pub fn is_retired(&self) -> bool {
        !self.successor.is_empty()
    }

    /// When it ends if it is used now and never again; none: never. Its slack later than it has to.
    pub fn deadline_after_use(&self, now: Millis) -> Option<Millis> {
        self.ends_after(now, self.slack_ms)
    }

    /// Whether a use of it now is to be written down. Where it is [`Renewal::Now`], the session might otherwise end before it was idle for its timeout: the
    /// last quarter of the slack is left for clocks, as with other keys ([`crate::machine::keyspace::End::renewal`]).
    pub fn renewal(&self, deadline: Option<Millis>, now: Millis) -> Renewal {
        let ends_before = |slack_ms| {
            self.ends_after(now, slack_ms).unwrap_or(Millis::MAX) > deadline.unwrap_or(Millis::MAX)
        };
        if self.is_retired() {
            Renewal::No
        } else if ends_before(self.slack_ms / 4) {
            Renewal::Now
        } else if ends_before(self.slack_ms / 2) {
            Renewal::Soon
        } else {
            Renewal::No
        }
    }

    fn ends_after(&self, now: Millis, slack_ms: u64) -> Option<Millis> {
        let idle = self.idle_timeout_ms.saturating_add(slack_ms);
        let idle = (self.idle_timeout_ms > 0).then(|| now.saturating_add(idle));
        let absolute = (self.absolute_deadline > 0).then_some(self.absolute_deadline);
        idle.into_iter().chain(absolute).min()
    }

    /// When the first part of it ends by itself: an item, or somebody's hold of the lock.
    pub fn first_deadline(&self) -> Option<Millis> {
        let ends = [self.items.first_deadline(), self.lock.first_deadline()];
        ends.into_iter().flatten().min()
    }

    /// Takes away the items and the holders of the lock whose deadlines have passed.
    pub fn remove_ended(&mut self, passed: Millis) {
        self.items.remove_ended(passed);
        self.lock.remove_ended(passed);
    }

    pub(in crate::machine) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for number in [
            self.version,
            self.idle_timeout_ms,
            self.slack_ms,
            self.absolute_deadline,
            self.created_at,
        ] {
            out.write_all(&number.to_le_bytes())?;
        }
        write_bytes(out, &self.owner)?;
        write_bytes(out, &self.successor)?;
        self.items.write(out)?;
        self.lock.write(out)
    }

    pub(in crate::machine) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let version = from.counter("session version")?;
        let [idle_timeout_ms, slack_ms, absolute_deadline, created_at] =
            [from.u64()?, from.u64()?, from.u64()?, from.u64()?];
        Ok(Self {
            version,
            idle_timeout_ms,
            slack_ms,
            absolute_deadline,
            created_at,
            owner: from.bytes()?,
            successor: from.bytes()?[..].into(),
            items: Items::read(from, version)?,
            lock: Lock::read(from)?,
        })
    }

    /// What snapshots of formats 1 and 2 hold: no slack, no lock, and items without versions.
    pub(super) fn read_old(from: &mut dyn Source) -> io::Result<Self> {
        let (version, idle_timeout_ms) = (from.counter("session version")?, from.u64()?);
        let (absolute_deadline, created_at) = (from.u64()?, from.u64()?);
        let (owner, old) = (from.bytes()?, Hash::read(from)?);
        let mut items = Items::default();
        for (name, value) in old.iter() {
            items.set(name, value, version);
        }
        items.pack();
        Ok(Self {
            items,
            version,
            idle_timeout_ms,
            slack_ms: Self::default_slack_ms(idle_timeout_ms),
            absolute_deadline,
            created_at,
            owner,
            ..Self::default()
        })
    }
}
