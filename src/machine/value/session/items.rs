//! The items of a session: in the order of their names, each with the version of the session that set it, and the names that were removed of late,
//! so that two requests which read the same version can both be right.

use crate::machine::entry::Millis;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;

/// Removals that are remembered. A save that merges and is based on a version before the oldest of them is told of a conflict where it names an
/// item that is not there: it may have been removed since.
const REMOVALS_MAX: usize = 64;

/// Names and values up to so many bytes are gathered in one run of memory, where together they are no more than [`RUN_BYTES_MAX`]: an allocation of its own
/// for each would cost more than most of them hold.
const GATHERED_BYTES_MAX: usize = 1 << 10;
const RUN_BYTES_MAX: usize = 8 << 10;

/// Bytes that version and deadline of an item count.
const NUMBERS_BYTES: usize = 2 * 8;

/// One item.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The version of the session that set it.
    pub version: u64,
    /// When it ends; none: with the session.
    pub deadline: Option<Millis>,
}

impl Item {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len() + NUMBERS_BYTES
    }

    fn lives(&self, now: Millis) -> bool {
        self.deadline.is_none_or(|deadline| deadline > now)
    }
}

/// All items of a session. Few, so they stand in one run of memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    items: Vec<Item>,
    /// What the items count together.
    bytes: usize,
    /// How many of them end by themselves.
    ending: usize,
    /// The last removals: the version, and the name.
    removals: VecDeque<(u64, Bytes)>,
    /// The version of the last removal that is not remembered any more.
    forgotten: u64,
}

impl Items {
    /// How many there are, those among them that have ended.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What they count together.
    pub fn bytes(&self) -> usize {
        let removals = self.removals.iter().map(|(_, name)| name.len() + NUMBERS_BYTES);
        self.bytes + removals.sum::<usize>()
    }

    /// Those that have not ended, in the order of their names.
    pub fn living(&self, now: Millis) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.lives(now))
    }

    /// One that has not ended.
    pub fn get(&self, name: &[u8], now: Millis) -> Option<&Item> {
        let at = self.find(name).ok()?;
        Some(&self.items[at]).filter(|item| item.lives(now))
    }

    /// Whether an item was set or removed after this version of the session.
    pub fn changed_since(&self, name: &[u8], version: u64) -> bool {
        match self.find(name) {
            Ok(at) => self.items[at].version > version,
            Err(_) if version < self.forgotten => true,
            Err(_) => self
                .removals
                .iter()
                .any(|(removed, other)| *removed > version && other == name),
        }
    }

    /// Sets an item, copying both, in this version of the session. It ends with the session.
    pub fn set(&mut self, name: &[u8], value: &[u8], version: u64) {
        let value = Bytes::copy_from_slice(value);
        match self.find(name) {
            Ok(at) => {
                let item = &mut self.items[at];
                self.bytes = self.bytes - item.value.len() + value.len();
                self.ending -= usize::from(item.deadline.is_some());
                (item.value, item.version, item.deadline) = (value, version, None);
            }
            Err(at) => {
                self.removals.retain(|(_, removed)| removed != name);
                let name = Bytes::copy_from_slice(name);
                self.push(
                    at,
                    Item {
                        name,
                        value,
                        version,
                        deadline: None,
                    },
                );
            }
        }
    }

    fn push(&mut self, at: usize, item: Item) {
        self.bytes += item.bytes();
        self.ending += usize::from(item.deadline.is_some());
        self.items.insert(at, item);
    }

    /// Lets an item end then; none: with the session. Whether it is there.
    pub fn set_deadline(&mut self, name: &[u8], deadline: Option<Millis>, version: u64) -> bool {
        let Ok(at) = self.find(name) else { return false };
        let item = &mut self.items[at];
        self.ending -= usize::from(item.deadline.is_some());
        self.ending += usize::from(deadline.is_some());
        (item.deadline, item.version) = (deadline, version);
        true
    }

    /// Removes an item in this version of the session.
    pub fn remove(&mut self, name: &[u8], version: u64) {
        let Ok(at) = self.find(name) else { return };
        let item = self.take(at);
        self.removals.push_back((version, item.name));
        if self.removals.len() > REMOVALS_MAX
            && let Some((version, _)) = self.removals.pop_front()
        {
            self.forgotten = version;
        }
    }

    fn take(&mut self, at: usize) -> Item {
        let item = self.items.remove(at);
        self.bytes -= item.bytes();
        self.ending -= usize::from(item.deadline.is_some());
        item
    }

    /// Removes all of them in this version of the session.
    pub fn clear(&mut self, version: u64) {
        while let Some(item) = self.items.last() {
            let name = item.name.clone();
            self.remove(&name, version);
        }
    }

    /// When the first of them ends.
    pub fn first_deadline(&self) -> Option<Millis> {
        if self.ending == 0 {
            return None;
        }
        self.items.iter().filter_map(|item| item.deadline).min()
    }

    /// Removes those that have ended. Everybody knew when they would: it is no change that a save could be in conflict with.
    pub fn remove_ended(&mut self, now: Millis) {
        for at in (0..self.items.len()).rev() {
            if !self.items[at].lives(now) {
                self.take(at);
            }
        }
    }

    /// After changes: gathers what is small in one run of memory, and gives back the room that no item takes.
    pub(in crate::machine) fn gather(&mut self) {
        let small = |text: &Bytes| text.len() <= GATHERED_BYTES_MAX;
        let texts = self.items.iter().flat_map(|item| [&item.name, &item.value]);
        let bytes = texts.filter(|text| small(text)).map(Bytes::len).sum();
        self.items.shrink_to_fit();
        if bytes > RUN_BYTES_MAX {
            return;
        }
        let mut run = Vec::with_capacity(bytes);
        let texts = self.items.iter().flat_map(|item| [&item.name, &item.value]);
        texts
            .filter(|text| small(text))
            .for_each(|text| run.extend_from_slice(text));
        let mut run = Bytes::from(run);
        let texts = self
            .items
            .iter_mut()
            .flat_map(|item| [&mut item.name, &mut item.value]);
        for text in texts.filter(|text| small(text)) {
            *text = run.split_to(text.len());
        }
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.items.binary_search_by(|item| item.name[..].cmp(name))
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, self.items.len())?;
        for item in &self.items {
            write_bytes(out, &item.name)?;
            write_bytes(out, &item.value)?;
            out.write_all(&item.version.to_le_bytes())?;
            out.write_all(&item.deadline.unwrap_or(0).to_le_bytes())?;
        }
        out.write_all(&self.forgotten.to_le_bytes())?;
        write_length(out, self.removals.len())?;
        for (version, name) in &self.removals {
            out.write_all(&version.to_le_bytes())?;
            write_bytes(out, name)?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source, version: u64) -> io::Result<Self> {
        let mut items = Self::default();
        for _ in 0..from.u32()? {
            let (name, value) = (from.bytes()?, from.bytes()?);
            let (set_in, deadline) = (from.u64()?, from.u64()?);
            if set_in > version || items.items.last().is_some_and(|last| last.name >= name) {
                return Err(invalid("items of a session that cannot be".to_owned()));
            }
            let deadline = (deadline > 0).then_some(deadline);
            items.push(
                items.items.len(),
                Item {
                    name,
                    value,
                    version: set_in,
                    deadline,
                },
            );
        }
        items.forgotten = from.u64()?;
        for _ in 0..from.u32()? {
            let (removed_in, name) = (from.u64()?, from.bytes()?);
            if removed_in > version || items.find(&name).is_ok() || items.removals.len() == REMOVALS_MAX {
                return Err(invalid("removals from a session that cannot be".to_owned()));
            }
            items.removals.push_back((removed_in, name));
        }
        items.gather();
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_known_until_it_is_forgotten_and_then_feared() {
        let mut items = Items::default();
        for version in 1..=100u64 {
            let name = format!("item {version}");
            items.set(name.as_bytes(), b"v", version);
            items.remove(name.as_bytes(), version + 1);
        }
        assert!(items.changed_since(b"item 100", 100));
        assert!(!items.changed_since(b"item 100", 101));
        assert!(!items.changed_since(b"never there", 101));
        assert!(!items.changed_since(b"never there", 40));
        assert!(
            items.changed_since(b"never there", 30),
            "it might have been removed since"
        );
        items.set(b"item 100", b"again", 102);
        assert!(!items.changed_since(b"item 100", 102));
        assert!(items.changed_since(b"item 100", 101));
    }

    #[test]
    fn gathering_changes_nothing_but_where_items_are() {
        let mut items = Items::default();
        for (name, length) in [
            ("a", 0),
            ("b", 1),
            ("c", GATHERED_BYTES_MAX),
            ("d", GATHERED_BYTES_MAX + 1),
        ] {
            items.set(name.as_bytes(), &vec![b'v'; length], 1);
        }
        let before = items.clone();
        items.gather();
        assert_eq!(items, before);
        let at = |items: &Items, name: &[u8]| items.get(name, 0).unwrap().value.as_ptr();
        assert_eq!(
            at(&items, b"d"),
            at(&before, b"d"),
            "it is too large to be copied"
        );
        assert_eq!(
            at(&items, b"b").wrapping_add(1 + 1),
            at(&items, b"c"),
            "behind it, and its own name"
        );
        items.set(b"b", b"longer", 2);
        items.gather();
        assert_eq!(items.get(b"b", 0).unwrap().value, "longer");
        assert_eq!(items.get(b"c", 0).unwrap().value.len(), GATHERED_BYTES_MAX);
        for number in 0..9 {
            items.set(
                format!("more {number}").as_bytes(),
                &[b'v'; GATHERED_BYTES_MAX],
                3,
            );
        }
        let before = at(&items, b"b");
        items.gather();
        assert_eq!(at(&items, b"b"), before, "too much to be copied at each change");
    }

    #[test]
    fn an_item_that_has_ended_is_not_there_and_then_gone() {
        let mut items = Items::default();
        items.set(b"code", b"1234", 1);
        items.set(b"name", b"ann", 1);
        assert!(items.set_deadline(b"code", Some(50), 2));
        assert_eq!(items.first_deadline(), Some(50));
        assert!(items.get(b"code", 49).is_some());
        assert!(items.get(b"code", 50).is_none());
        items.remove_ended(50);
        assert_eq!((items.len(), items.first_deadline()), (1, None));
        let mut other = Items::default();
        other.set(b"name", b"ann", 1);
        assert_eq!(items.bytes(), other.bytes());
    }
}
