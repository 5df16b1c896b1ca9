//! Sets: different members.

use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexSet;
use std::io;

/// A set. Its order follows from the log alone.
#[derive(Clone, Debug, Default)]
pub struct Set {
    members: IndexSet<Bytes>,
    /// Sum of the lengths of all members.
    bytes: usize,
    /// Whether Redis would hold it as a hash table instead of an intset.
    large: bool,
}

impl PartialEq for Set {
    /// Equal with the same members in the same order: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large && self.members.iter().eq(other.members.iter())
    }
}

impl Set {
    /// How many members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none; such a set is never stored.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Bytes of all members.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "intset" }
    }

    /// All members, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Bytes> + ExactSizeIterator {
        self.members.iter()
    }

    /// Adds a member, copying it. Whether it is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        if self.members.contains(member) {
            return false;
        }
        self.large |= crate::machine::args::integer(member).is_none();
        self.bytes += member.len();
        self.members.insert(Bytes::copy_from_slice(member))
    }

    pub(super) fn is_settled(&self, settings: &Settings) -> bool {
        self.large || self.len() <= settings.set_max_intset_entries
    }

    pub(super) fn settle(&mut self, settings: &Settings) {
        self.large |= self.len() > settings.set_max_intset_entries;
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&[u8::from(self.large)])?;
        write_length(out, self.len())?;
        self.iter().try_for_each(|member| write_bytes(out, member))
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (large, count) = (from.flag()?, from.u32()?);
        let mut set = Self::default();
        for _ in 0..count {
            if !set.insert(&from.bytes()?) {
                return Err(invalid("a member that was there before".to_owned()));
            }
        }
        set.large = large;
        Ok(set)
    }
}
