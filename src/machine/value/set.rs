//! Sets: different members.

use super::SET_MEMBER_BYTES;
use crate::machine::args;
use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexSet;
use std::io;

/// A set: integers in ascending order while it is small, as Redis' intset keeps them.
///
/// Large ones (over `set-max-intset-entries` members, or given one that is no integer; for good once it was so) give up the order to
/// change in constant time. Either way the order is a function of the log alone.
#[derive(Clone, Debug, Default)]
pub struct Set {
    members: IndexSet<Bytes>,
    /// Sum of the lengths of all members.
    bytes: usize,
    /// Whether Redis would hold it as a hash table instead of an intset.
    large: bool,
    /// Whether members were added since the last [`Set::settle`]. Not state.
    grown: bool,
    /// Whether integers may be out of order, which [`Set::settle`] puts in order. Not state.
    unsorted: bool,
}

impl PartialEq for Set {
    /// Equal with the same members in the same order: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large && self.members.iter().eq(other.members.iter())
    }
}

impl Set {
    /// See [`Value::dismantle`](super::Value::dismantle).
    pub(super) fn dismantle(&mut self, most: usize) -> bool {
        self.members.truncate(self.members.len().saturating_sub(most));
        !self.members.is_empty()
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none; such a set is never stored.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Bytes of all members, and what each takes beside them.
    pub fn bytes(&self) -> usize {
        self.bytes + self.len() * SET_MEMBER_BYTES
    }

    /// Whether Redis would hold it as a hash table instead of an intset.
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "intset" }
    }

    /// All members, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Bytes> + ExactSizeIterator {
        self.members.iter()
    }

    /// The member at a position, 0 to `len() - 1`.
    pub fn at(&self, position: usize) -> Option<&Bytes> {
        self.members.get_index(position)
    }

    /// Whether this is a member.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    /// Adds a member, copying it. Whether it is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        !self.contains(member) && self.insert_shared(Bytes::copy_from_slice(member))
    }

    /// Adds a member, keeping the memory given. Whether it is new.
    pub fn insert_shared(&mut self, member: Bytes) -> bool {
        let len = member.len();
        let number = if self.large { None } else { args::integer(&member) };
        let last = self
            .members
            .last()
            .and_then(|last| number.and(args::integer(last)));
        if !self.members.insert(member) {
            return false;
        }
        self.large |= number.is_none();
        self.unsorted |= number < last;
        self.bytes += len;
        self.grown = true;
        true
    }

    /// Removes a member. Whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let removed = if self.large {
            self.members.swap_remove(member)
        } else {
            self.members.shift_remove(member)
        };
        self.bytes -= if removed { member.len() } else { 0 };
        removed
    }

    pub(super) fn is_settled(&self, _: &Settings) -> bool {
        !self.grown
    }

    /// After members were added: takes on the order and encoding that Redis would change to. A set that is not stored is settled with this, too.
    pub fn settle(&mut self, settings: &Settings) {
        self.large |= self.grown && self.len() > settings.set_max_intset_entries;
        if self.unsorted && !self.large {
            self.members.sort_by_cached_key(|member| args::integer(member));
        }
        (self.grown, self.unsorted) = (false, false);
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&[u8::from(self.large)])?;
        write_length(out, self.len())?;
        self.iter().try_for_each(|member| write_bytes(out, member))
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (large, count) = (from.flag()?, from.u32()?);
        let mut set = Self {
            large,
            ..Self::default()
        };
        let mut last = None;
        for _ in 0..count {
            let member = from.bytes()?;
            let number = if large { None } else { args::integer(&member) };
            if !large && number <= last {
                return Err(invalid("a small set that is not of integers in order".to_owned()));
            }
            last = number;
            if !set.insert_shared(member) {
                return Err(invalid("a member that was there before".to_owned()));
            }
        }
        set.grown = false;
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &str) -> Set {
        let mut set = Set::default();
        for member in members.split_whitespace() {
            set.insert(member.as_bytes());
        }
        set
    }

    fn text(set: &Set) -> String {
        let bytes: usize = set.iter().map(|member| member.len() + SET_MEMBER_BYTES).sum();
        assert_eq!(set.bytes(), bytes, "what is counted is what is there");
        let words: Vec<_> = set.iter().map(|member| String::from_utf8_lossy(member)).collect();
        words.join(" ")
    }

    #[test]
    fn integers_stand_in_order_while_there_are_few_and_nothing_else() {
        let settings = Settings {
            set_max_intset_entries: 4,
            ..Settings::default()
        };
        for (members, then, encoding) in [
            ("3 -7 10 2", "-7 2 3 10", "intset"),
            ("3 -7 10 2 1", "3 -7 10 2 1", "hashtable"),
            ("3 -7 01", "3 -7 01", "hashtable"),
            ("", "", "intset"),
        ] {
            let mut set = set(members);
            set.settle(&settings);
            assert_eq!((text(&set).as_str(), set.encoding()), (then, encoding));
        }
    }

    #[test]
    fn small_sets_keep_their_order_when_members_go() {
        let mut set = set("5 4 3 2 1");
        set.settle(&Settings::default());
        assert!(set.remove(b"2") && !set.remove(b"2") && !set.remove(b"x"));
        assert_eq!(text(&set), "1 3 4 5");
    }

    #[test]
    fn a_set_that_is_full_stays_small_until_it_grows() {
        let mut set = set("1 2 3");
        let mut settings = Settings::default();
        set.settle(&settings);
        settings.set_max_intset_entries = 2;
        set.remove(b"9");
        set.settle(&settings);
        assert_eq!(set.encoding(), "intset");
        set.insert(b"4");
        set.settle(&settings);
        assert_eq!(set.encoding(), "hashtable");
    }
}
