//! The keys of a shard with their slots, in order, in chunks that copies share: after a snapshot the first change of a key copies the chunk that it stands in,
//! while the log waits, and not a thousand keys that happen to be of the same shard.

use super::Slot;
use super::name::Name;
use std::ops::Index;
use std::sync::Arc;

/// Entries of a chunk; all chunks but the last have so many. Fewer would be copied faster, and take more places to look at before an entry is found.
const CHUNK: usize = 64;

pub(super) type Entry = (Name, Slot);

/// A list of entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

#[derive(Debug, Default)]
struct Chunk(Vec<Entry>);

impl Clone for Chunk {
    /// Each value counts one reference more, at a place of its own in memory, and a processor does not begin the next count before it has done the last: so all
    /// these places are looked at first, which it does for many at a time.
    fn clone(&self) -> Self {
        let seen = self.0.iter().fold(0_u8, |seen, (name, slot)| {
            seen ^ name.first().copied().unwrap_or_default() ^ slot.value.glance()
        });
        std::hint::black_box(seen);
        Self(self.0.clone())
    }
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, position: usize) -> Option<&Entry> {
        self.chunks.get(position / CHUNK)?.0.get(position % CHUNK)
    }

    /// # Panics
    /// If there is none.
    pub(super) fn get_mut(&mut self, position: usize) -> &mut Entry {
        &mut Arc::make_mut(&mut self.chunks[position / CHUNK]).0[position % CHUNK]
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| &chunk.0)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::default());
        }
        let last = self.chunks.last_mut().expect("one was added where none had room");
        let Chunk(last) = Arc::make_mut(last);
        if last.len() == last.capacity() {
            // Never more than a chunk has: what is not used is memory of every key.
            last.reserve_exact(last.len().clamp(1, CHUNK - last.len()));
        }
        last.push(entry);
        self.len += 1;
    }

    /// Takes the entry at a position away, and gives that to the last one.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn swap_remove(&mut self, position: usize) -> Entry {
        let last = self.chunks.last_mut().expect("it is not empty");
        let Chunk(entries) = Arc::make_mut(last);
        let entry = entries.pop().expect("no chunk is empty");
        if entries.is_empty() {
            self.chunks.pop();
        }
        self.len -= 1;
        if position == self.len {
            return entry;
        }
        std::mem::replace(self.get_mut(position), entry)
    }
}

impl Index<usize> for Entries {
    type Output = Entry;

    /// # Panics
    /// If there is none.
    fn index(&self, position: usize) -> &Entry {
        &self.chunks[position / CHUNK].0[position % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{End, Value};
    use super::*;
    use crate::machine::recency::Recency;

    fn entry(version: u64) -> Entry {
        let slot = Slot {
            value: Value::string(b""),
            end: End::NEVER,
            version,
            recency: Recency::new(0),
        };
        (Name::new(b"key"), slot)
    }

    fn versions(entries: &Entries) -> Vec<u64> {
        entries.iter().map(|(_, slot)| slot.version).collect()
    }

    #[test]
    fn a_copy_stays_as_it_was_and_a_change_copies_the_chunk_it_is_in() {
        let many = 3 * CHUNK as u64 + 1;
        let mut entries = Entries::default();
        (0..many).for_each(|version| entries.push(entry(version)));
        let copy = entries.clone();
        entries.get_mut(CHUNK).1.version = 1_000;
        let shared = entries.chunks.iter().zip(&copy.chunks);
        let shared: Vec<_> = shared.map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(shared, [true, false, true, true]);
        // The last, alone in its chunk, takes the place of the first.
        assert_eq!(entries.swap_remove(0).1.version, 0);
        assert_eq!((entries.len(), entries.chunks.len()), (3 * CHUNK, 3));
        assert_eq!(entries[0].1.version, many - 1);
        assert_eq!(entries.swap_remove(3 * CHUNK - 1).1.version, many - 2);
        assert!(entries.get(3 * CHUNK - 1).is_none());
        assert!(versions(&copy).into_iter().eq(0..many));
    }
}
