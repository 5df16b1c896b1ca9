//! A node: entries next to each other, which share the names of their fields. What approximate trimming takes away is whole nodes.
//!
//! Where a node ends is decided as Redis decides it, by the bytes that its listpack would have, so that `~` trims what Redis would trim.
//! A removed entry still counts there: Redis only marks it.

use super::id::Id;
use crate::machine::listpack::{self, integer_size, text_size};
use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::io;

/// Bytes that an entry costs beside its fields and values.
const ENTRY_BYTES: usize = 56;

/// Bytes that a node costs beside its entries and names.
const NODE_BYTES: usize = 160;

/// What Redis takes for the most bytes of a listpack where the settings say none.
const LISTPACK_MAX: usize = 1 << 30;

/// The entries of a node, and what its listpack would be.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The id of the first entry it had: what ids count from in its listpack.
    first: Id,
    /// The id of the last entry it was given.
    last: Id,
    /// The names of the first entry's fields, for all that have the same.
    names: Vec<Bytes>,
    entries: Vec<Packed>,
    /// How many entries were removed.
    removed: usize,
    /// What the listpack would have in bytes, without its two counts.
    listpack: usize,
    /// Bytes of it all.
    bytes: usize,
}

/// One entry as it is kept: its values, or fields and values, each behind its length.
#[derive(Clone, Debug, PartialEq)]
struct Packed {
    id: Id,
    /// Whether its fields are the node's.
    shares_names: bool,
    content: Bytes,
}

/// One entry as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its id.
    pub id: Id,
    names: &'a [Bytes],
    packed: &'a Packed,
}

impl Entry<'_> {
    /// Whether its fields are those of its node: a listpack has its values only.
    pub(in crate::machine) fn shares_names(&self) -> bool {
        self.packed.shares_names
    }

    /// Its values where it shares the names of its node, otherwise its fields and values by turns.
    pub(in crate::machine) fn items(&self) -> impl Iterator<Item = Bytes> {
        items(&self.packed.content)
    }

    /// Its fields and values by turns; they share its memory.
    pub fn fields(&self) -> Vec<Bytes> {
        let values = items(&self.packed.content);
        if self.packed.shares_names {
            let names = self.names.iter().cloned();
            names
                .zip(values)
                .flat_map(|(name, value)| [name, value])
                .collect()
        } else {
            values.collect()
        }
    }
}

impl Node {
    /// A node with its first entry.
    pub(super) fn new(id: Id, fields: &[Bytes]) -> Self {
        let names: Vec<Bytes> = fields.iter().step_by(2).map(|name| copy(name)).collect();
        let mut node = Self {
            first: id,
            last: id,
            // Frame, count of names, names, end of the master entry.
            listpack: listpack::FRAME
                + integer_size(signed(names.len()))
                + names.iter().map(|name| text_size(name)).sum::<usize>()
                + integer_size(0),
            bytes: NODE_BYTES + names.iter().map(Bytes::len).sum::<usize>(),
            names,
            entries: Vec::new(),
            removed: 0,
        };
        node.push(id, fields);
        node
    }

    /// A node that had its first entry under this id, as it comes from elsewhere; its entries are pushed, and then it is [`Node::completed`].
    pub(in crate::machine) fn restored(first: Id, names: Vec<Bytes>) -> Self {
        Self {
            first,
            last: first,
            bytes: NODE_BYTES + names.iter().map(Bytes::len).sum::<usize>(),
            names,
            entries: Vec::new(),
            removed: 0,
            listpack: 0,
        }
    }

    /// With what a listpack of so many bytes says beside its entries: how many were removed, and the id of the last one, there or not.
    pub(in crate::machine) fn completed(self, last: Id, removed: usize, listpack: usize) -> Self {
        let counts = integer_size(signed(self.entries.len())) + integer_size(signed(removed));
        Self {
            last,
            removed,
            listpack: listpack.saturating_sub(counts),
            ..self
        }
    }

    /// The id of the first entry it had.
    pub(in crate::machine) fn first(&self) -> Id {
        self.first
    }

    /// The names of its first entry's fields.
    pub(in crate::machine) fn names(&self) -> &[Bytes] {
        &self.names
    }

    /// How many entries were removed.
    pub(in crate::machine) fn removed(&self) -> usize {
        self.removed
    }

    /// What its listpack would have in bytes, without its counts of entries and of removed ones.
    pub(in crate::machine) fn listpack_bytes(&self) -> usize {
        self.listpack
    }

    /// All its entries.
    pub(in crate::machine) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        self.range(Id::MIN, Id::MAX)
    }

    /// Whether Redis would put an entry of these fields here, too.
    pub(super) fn has_room(&self, fields: &[Bytes], settings: &Settings) -> bool {
        let most_bytes = match settings.stream_node_max_bytes {
            0 => LISTPACK_MAX,
            most => most.min(LISTPACK_MAX),
        };
        let most_entries = match settings.stream_node_max_entries {
            0 => usize::MAX,
            most => most,
        };
        let listpack =
            self.listpack + integer_size(signed(self.entries.len())) + integer_size(signed(self.removed));
        let added: usize = fields.iter().map(Bytes::len).sum();
        listpack + added < most_bytes && self.entries.len() + self.removed < most_entries
    }

    /// Adds an entry behind the others.
    pub(in crate::machine) fn push(&mut self, id: Id, fields: &[Bytes]) {
        let shares_names = fields.iter().step_by(2).eq(self.names.iter());
        let kept = || {
            fields
                .iter()
                .skip(usize::from(shares_names))
                .step_by(if shares_names { 2 } else { 1 })
        };
        let mut content = Vec::with_capacity(kept().map(|item| item.len() + 4).sum());
        for item in kept() {
            let length = u32::try_from(item.len()).expect("no argument has 4 GiB");
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(item);
        }
        let pairs = fields.len() / 2;
        let (count, parts) = if shares_names {
            (0, pairs + 3)
        } else {
            (integer_size(signed(pairs)), 2 * pairs + 4)
        };
        // Flags, the id, perhaps a count, the items, and how many parts that were.
        self.listpack += integer_size(0)
            + integer_size(id.ms.wrapping_sub(self.first.ms).cast_signed())
            + integer_size(id.seq.wrapping_sub(self.first.seq).cast_signed())
            + count
            + kept().map(|item| text_size(item)).sum::<usize>()
            + integer_size(signed(parts));
        self.bytes += ENTRY_BYTES + content.len();
        self.last = id;
        self.entries.push(Packed {
            id,
            shares_names,
            content: content.into(),
        });
    }

    /// How many entries.
    pub(in crate::machine) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of it all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The id of the last entry it was given, there or not.
    pub(in crate::machine) fn last_given(&self) -> Id {
        self.last
    }

    /// How many entries are before this id.
    pub(super) fn before(&self, id: Id) -> usize {
        self.entries.partition_point(|entry| entry.id < id)
    }

    /// Removes an entry. Whether it was there.
    pub(super) fn remove(&mut self, id: Id) -> bool {
        let Ok(at) = self.entries.binary_search_by_key(&id, |entry| entry.id) else {
            return false;
        };
        let entry = self.entries.remove(at);
        self.bytes -= ENTRY_BYTES + entry.content.len();
        self.removed += 1;
        true
    }

    /// Removes the first entries.
    pub(super) fn remove_first(&mut self, count: usize) {
        let gone: usize = self
            .entries
            .drain(..count)
            .map(|entry| ENTRY_BYTES + entry.content.len())
            .sum();
        self.bytes -= gone;
        self.removed += count;
    }

    /// The entries from one id to another, both included.
    pub(super) fn range(&self, from: Id, to: Id) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        let end = self.entries.partition_point(|entry| entry.id <= to);
        let start = self.before(from).min(end);
        self.entries[start..end].iter().map(|packed| Entry {
            id: packed.id,
            names: &self.names,
            packed,
        })
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.first.write(out)?;
        self.last.write(out)?;
        for number in [self.removed, self.listpack] {
            out.write_all(&(number as u64).to_le_bytes())?;
        }
        write_length(out, self.names.len())?;
        self.names.iter().try_for_each(|name| write_bytes(out, name))?;
        write_length(out, self.entries.len())?;
        self.entries.iter().try_for_each(|entry| {
            entry.id.write(out)?;
            out.write_all(&[u8::from(entry.shares_names)])?;
            write_bytes(out, &entry.content)
        })
    }

    /// What [`Node::write`] wrote.
    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (first, last) = (Id::read(from)?, Id::read(from)?);
        let mut number = |what| {
            let number = from.counter(what)?;
            usize::try_from(number).map_err(|_| invalid(format!("{what} {number} cannot be")))
        };
        let (removed, listpack) = (number("removed entries")?, number("bytes of a node")?);
        let mut node = Self {
            first,
            last,
            removed,
            listpack,
            names: Vec::new(),
            entries: Vec::new(),
            bytes: NODE_BYTES,
        };
        for _ in 0..from.u32()? {
            let name = from.bytes()?;
            node.bytes += name.len();
            node.names.push(name);
        }
        for _ in 0..from.u32()? {
            let entry = Packed {
                id: Id::read(from)?,
                shares_names: from.flag()?,
                content: from.bytes()?,
            };
            // Two of one id came with `RESTORE` up to format 3 of the log's entries.
            let in_order =
                node.entries.last().is_none_or(|before| before.id <= entry.id) && first <= entry.id;
            let count = items(&entry.content).count();
            let whole =
                items(&entry.content).map(|item| item.len() + 4).sum::<usize>() == entry.content.len();
            let right = if entry.shares_names {
                count == node.names.len()
            } else {
                count.is_multiple_of(2)
            };
            if !in_order || !whole || !right {
                return Err(invalid("a stream's entry that cannot be".to_owned()));
            }
            node.bytes += ENTRY_BYTES + entry.content.len();
            node.entries.push(entry);
        }
        Ok(node)
    }
}

/// The items of an entry's content, one by one.
fn items(content: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = content.get(at..at + 4)?.try_into().expect("four bytes");
        let (from, to) = (at + 4, at + 4 + u32::from_le_bytes(length) as usize);
        at = to;
        (to <= content.len()).then(|| content.slice(from..to))
    })
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("nothing here holds 2^63 things")
}
