//! The keys of a shard with their slots, in order, in chunks that copies share: after a snapshot the first change of a key copies the chunk that it stands in,
//! while the log waits, and not a thousand keys that happen to be of the same shard.

use super::Slot;
use super::name::Name;
use std::ops::Index;
use std::sync::Arc;

/// Entries of a chunk. Of fewer, a copy of the shard has more to count, and a look-up more memory to go through; of more, a change more to copy.
const CHUNK: usize = 32;

/// So many entries stand at the end before the first half of them becomes a chunk: so where keys come and go by turns none is made and taken apart each time.
const TAIL_MOST: usize = 2 * CHUNK;

pub(super) type Entry = (Name, Slot);

/// A list of entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    /// Each of [`CHUNK`] entries.
    chunks: Vec<Arc<[Entry]>>,
    /// Those after the last chunk, which copies do not share.
    tail: Vec<Entry>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.chunks.len() * CHUNK + self.tail.len()
    }

    pub(super) fn get(&self, position: usize) -> Option<&Entry> {
        match self.chunks.get(position / CHUNK) {
            Some(chunk) => chunk.get(position % CHUNK),
            None => self.tail.get(position - self.chunks.len() * CHUNK),
        }
    }

    /// # Panics
    /// If there is none.
    pub(super) fn get_mut(&mut self, position: usize) -> &mut Entry {
        let chunks = self.chunks.len();
        match self.chunks.get_mut(position / CHUNK) {
            Some(chunk) => &mut own(chunk)[position % CHUNK],
            None => &mut self.tail[position - chunks * CHUNK],
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let chunks = self.chunks.iter().flat_map(|chunk| chunk.iter());
        chunks.chain(&self.tail)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if self.tail.len() == TAIL_MOST {
            self.chunks.push(self.tail.drain(..CHUNK).collect());
        }
        if self.tail.len() == self.tail.capacity() {
            // Never more than it has at most: what is not used is memory of every key.
            let more = self.tail.len().clamp(1, TAIL_MOST - self.tail.len());
            self.tail.reserve_exact(more);
        }
        self.tail.push(entry);
    }

    /// Takes the entry at a position away, and gives that to the last one.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn swap_remove(&mut self, position: usize) -> Entry {
        let last = self.pop().expect("it is not empty");
        if position == self.len() {
            return last;
        }
        std::mem::replace(self.get_mut(position), last)
    }

    fn pop(&mut self) -> Option<Entry> {
        if self.tail.is_empty() {
            let chunk = self.chunks.pop()?;
            glance(&chunk);
            self.tail.extend_from_slice(&chunk);
        }
        self.tail.pop()
    }
}

/// A chunk that no copy shares any more.
fn own(chunk: &mut Arc<[Entry]>) -> &mut [Entry] {
    if Arc::strong_count(chunk) > 1 {
        glance(chunk);
    }
    Arc::make_mut(chunk)
}

/// Before a copy: each value counts one reference more, at a place of its own in memory, and a processor does not begin the next count before it has done the last. So
/// all these places are looked at first, which it does for many at a time.
fn glance(chunk: &[Entry]) {
    let seen = chunk.iter().fold(0_u8, |seen, (name, slot)| {
        seen ^ name.first().copied().unwrap_or_default() ^ slot.value.glance()
    });
    std::hint::black_box(seen);
}

impl Index<usize> for Entries {
    type Output = Entry;

    /// # Panics
    /// If there is none.
    fn index(&self, position: usize) -> &Entry {
        self.get(position).expect("a position in the list")
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
        let many = 4 * CHUNK as u64 + 1;
        let mut entries = Entries::default();
        (0..many).for_each(|version| entries.push(entry(version)));
        assert_eq!((entries.chunks.len(), entries.tail.len()), (3, CHUNK + 1));
        let copy = entries.clone();
        entries.get_mut(CHUNK).1.version = 1_000;
        let shared = entries.chunks.iter().zip(&copy.chunks);
        let shared: Vec<_> = shared.map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(shared, [true, false, true]);
        // The last takes the place of the first.
        assert_eq!(entries.swap_remove(0).1.version, 0);
        assert_eq!((entries.len(), entries[0].1.version), (4 * CHUNK, many - 1));
        assert_eq!(entries.swap_remove(4 * CHUNK - 1).1.version, many - 2);
        assert!(entries.get(4 * CHUNK - 1).is_none());
        assert!(versions(&copy).into_iter().eq(0..many));
    }

    #[test]
    fn it_is_a_list_wherever_its_chunks_end() {
        let (mut entries, mut list) = (Entries::default(), Vec::new());
        let mut steps = [
            (0..3 * CHUNK, true),
            (0..2 * CHUNK + 1, false),
            (0..CHUNK, true),
            (0..2 * CHUNK - 1, false),
        ]
        .into_iter()
        .flat_map(|(steps, push)| steps.map(move |step| (step as u64, push)));
        assert!(steps.all(|(step, push)| {
            if push {
                entries.push(entry(step));
                list.push(step);
            } else {
                let position = step as usize % list.len();
                assert_eq!(
                    entries.swap_remove(position).1.version,
                    list.swap_remove(position)
                );
            }
            let back: Vec<_> = entries.iter().rev().map(|(_, slot)| slot.version).collect();
            versions(&entries) == list
                && back.iter().rev().eq(&list)
                && (0..=list.len())
                    .all(|at| entries.get(at).map(|(_, slot)| slot.version) == list.get(at).copied())
        }));
        assert_eq!(entries.len(), 0);
        assert!(entries.tail.capacity() <= TAIL_MOST);
    }
}
