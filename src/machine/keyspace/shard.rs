//! One shard of a database: its keys in an order that follows from the log, found by their hash.
//!
//! A map of the standard library is not enough, for the order of keys can be seen: they stand in the order in which they came, and the last one takes the
//! place of one that goes. Beside them stands a table of places, which a look-up enters by the hash. A place has half of the hash with it, so what is
//! compared is nearly always the right key, and a get fetches two places from memory before it has the slot: one of the table, and the key's. (Where chunks of keys
//! are, the processor's caches know.)

use super::Slot;
use super::entries::Entries;
use super::name::Name;

/// Keys and their slots, and where they are.
#[derive(Clone, Debug, Default)]
pub(in crate::machine) struct Shard {
    /// A power of two of them, or none. A key stands at the first free place from the one its hash names.
    table: Vec<Place>,
    entries: Entries,
}

/// A place in the table: a key's position, counted from 1, and the lower half of its hash; 0: nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place(u64);

impl Place {
    const FREE: Self = Self(0);

    fn new(hash: u64, position: usize) -> Self {
        let number = u32::try_from(position + 1).expect("memory holds fewer keys of one shard");
        Self(hash << 32 | u64::from(number))
    }

    fn position(self) -> Option<usize> {
        ((self.0 & 0xffff_ffff) as usize).checked_sub(1)
    }

    /// The lower half of the hash.
    fn mark(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys and slots, in their order.
    pub(in crate::machine) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &Slot)> {
        self.entries.iter().map(|(name, slot)| (&**name, slot))
    }

    /// The key at a position of the order.
    pub(super) fn at(&self, position: usize) -> Option<(&[u8], &Slot)> {
        self.entries.get(position).map(|(name, slot)| (&**name, slot))
    }

    pub(super) fn contains(&self, hash: u64, key: &[u8]) -> bool {
        self.find(hash, key).is_some()
    }

    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&Slot> {
        let (_, position) = self.find(hash, key)?;
        Some(&self.entries[position].1)
    }

    pub(super) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Slot> {
        let (_, position) = self.find(hash, key)?;
        Some(&mut self.entries.get_mut(position).1)
    }

    /// The keys whose hash has this lower half.
    pub(super) fn alike(&self, hash: u64) -> impl Iterator<Item = (&[u8], &Slot)> {
        let places = self.probe(hash).map(|at| self.table[at]);
        let taken = places.map_while(|place| Some((place, place.position()?)));
        let alike = taken.filter(move |(place, _)| place.mark() == hash as u32);
        alike.filter_map(|(_, position)| self.at(position))
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], slot: Slot) {
        // A quarter stays free, so that a look-up soon finds that there is none.
        if (self.len() + 1) * 4 > self.table.len() * 3 {
            self.widen();
        }
        place(&mut self.table, Place::new(hash, self.entries.len()));
        self.entries.push((Name::new(key), slot));
    }

    /// Takes a key away, and gives its position to the last one, whose hash `hash_of` says.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8], hash_of: impl Fn(&[u8]) -> u64) -> Option<Slot> {
        let (at, position) = self.find(hash, key)?;
        self.free(at);
        let last = self.entries.len() - 1;
        if position < last {
            let hash = hash_of(&self.entries[last].0);
            let moved = self
                .probe(hash)
                .find(|at| self.table[*at].position() == Some(last));
            self.table[moved.expect("every key has its place")] = Place::new(hash, position);
        }
        Some(self.entries.swap_remove(position).1)
    }

    /// A key's place in the table, and its position.
    fn find(&self, hash: u64, key: &[u8]) -> Option<(usize, usize)> {
        for at in self.probe(hash) {
            let position = self.table[at].position()?;
            if self.table[at].mark() == hash as u32 && *self.entries[position].0 == *key {
                return Some((at, position));
            }
        }
        None
    }

    /// The places at which a key of this hash can stand, the likeliest first.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        probe(hash, self.table.len())
    }

    /// Frees a place. What stands after it moves up, unless that would be before the place its hash names: so no search ends too early.
    fn free(&mut self, at: usize) {
        let mask = self.table.len() - 1;
        let (mut free, mut next) = (at, (at + 1) & mask);
        while self.table[next] != Place::FREE {
            let named = self.table[next].mark() as usize & mask;
            if next.wrapping_sub(named) & mask >= next.wrapping_sub(free) & mask {
                self.table[free] = self.table[next];
                free = next;
            }
            next = (next + 1) & mask;
        }
        self.table[free] = Place::FREE;
    }

    /// Twice as many places. The marks say where each goes.
    fn widen(&mut self) {
        let mut wider = vec![Place::FREE; (self.table.len() * 2).max(2)];
        for taken in self.table.iter().filter(|taken| **taken != Place::FREE) {
            place(&mut wider, *taken);
        }
        self.table = wider;
    }
}

fn probe(hash: u64, places: usize) -> impl Iterator<Item = usize> + use<> {
    let mask = places.wrapping_sub(1);
    (0..places).map(move |step| (hash as usize).wrapping_add(step) & mask)
}

/// Puts what is in no place yet into the first free one.
fn place(table: &mut [Place], new: Place) {
    let free = probe(u64::from(new.mark()), table.len()).find(|at| table[*at] == Place::FREE);
    table[free.expect("a quarter is free")] = new;
}

#[cfg(test)]
mod tests {
    use super::super::{End, Value};
    use super::*;
    use crate::machine::recency::Recency;
    use indexmap::IndexMap;
    use proptest::prelude::*;

    fn slot(version: u64) -> Slot {
        Slot {
            value: Value::string(b""),
            end: End::NEVER,
            version,
            recency: Recency::new(0),
        }
    }

    proptest! {
        /// The same keys in the same order as the map that keeps an order, whatever their hashes: all of them alike, few, or spread.
        #[test]
        fn it_holds_what_a_map_would_and_in_the_same_order(
            steps in proptest::collection::vec((0u64..200, any::<bool>()), 0..600),
            hashes in prop_oneof![Just(1u64), Just(5), Just(u64::MAX)],
        ) {
            let hash = |key: &[u8]| {
                let key = u64::from_le_bytes(key.try_into().unwrap());
                // The upper half of all these is the same, as in a shard.
                (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % hashes
            };
            let (mut shard, mut map) = (Shard::default(), IndexMap::new());
            for (version, (key, put)) in (0..).zip(steps) {
                let key = key.to_le_bytes();
                if !put {
                    let gone = shard.remove(hash(&key), &key, hash).map(|slot| slot.version);
                    prop_assert_eq!(gone, map.swap_remove(&key));
                } else if map.insert(key, version).is_some() {
                    shard.get_mut(hash(&key), &key).unwrap().version = version;
                } else {
                    shard.insert(hash(&key), &key, slot(version));
                }
                prop_assert!(shard.iter().map(|(key, slot)| (key, &slot.version)).eq(map.iter().map(|(key, version)| (&key[..], version))));
            }
            for key in 0u64..200 {
                let key = key.to_le_bytes();
                prop_assert_eq!(shard.get(hash(&key), &key).map(|slot| slot.version), map.get(&key).copied());
            }
        }
    }
}
