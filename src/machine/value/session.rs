//! Sessions: what the web's own data type keeps. `commands/session.rs` has its operations.

use super::Hash;
use crate::machine::entry::Millis;
use crate::machine::snapshot::{Source, write_bytes};
use bytes::Bytes;
use std::io;

/// A web session: named items, a version, and how long it lives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Its items by name.
    pub items: Hash,
    /// Grows by one with every change of the items; a save names the version it read.
    pub version: u64,
    /// It ends when it was not used for this long, in milliseconds; 0: never.
    pub idle_timeout_ms: u64,
    /// It ends at this time at the latest, by the log's clock; 0: never.
    pub absolute_deadline: Millis,
    /// When it was created, by the log's clock.
    pub created_at: Millis,
    /// The user it belongs to; empty: nobody yet.
    pub owner: Bytes,
}

impl Session {
    /// Bytes that the numbers of a session take.
    const NUMBERS_BYTES: usize = 4 * 8;

    /// Bytes of content.
    pub fn bytes(&self) -> usize {
        self.items.bytes() + self.owner.len() + Self::NUMBERS_BYTES
    }

    /// When it ends if it is used now and never again; none: never.
    pub fn deadline_after_use(&self, now: Millis) -> Option<Millis> {
        let idle = (self.idle_timeout_ms > 0).then(|| now.saturating_add(self.idle_timeout_ms));
        let absolute = (self.absolute_deadline > 0).then_some(self.absolute_deadline);
        idle.into_iter().chain(absolute).min()
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for number in [
            self.version,
            self.idle_timeout_ms,
            self.absolute_deadline,
            self.created_at,
        ] {
            out.write_all(&number.to_le_bytes())?;
        }
        write_bytes(out, &self.owner)?;
        self.items.write(out)
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (version, idle_timeout_ms) = (from.counter("session version")?, from.u64()?);
        let (absolute_deadline, created_at) = (from.u64()?, from.u64()?);
        let (owner, items) = (from.bytes()?, Hash::read(from)?);
        Ok(Self {
            items,
            version,
            idle_timeout_ms,
            absolute_deadline,
            created_at,
            owner,
        })
    }
}
