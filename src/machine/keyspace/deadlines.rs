//! When keys end, in the order of time: of each key its deadline, its database and its hash. Its name stands in its shard only, where the hash finds it.

use crate::machine::entry::Millis;
use std::collections::BTreeMap;

/// A deadline, the database of the key that has it, and the key's hash.
pub(super) type Ending = (Millis, u8, u64);

/// Deadlines in order, and how many keys have each: one, unless two keys have one hash.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines(BTreeMap<Ending, u32>);

impl Deadlines {
    /// The first that passes.
    pub(super) fn first(&self) -> Option<Ending> {
        self.0.first_key_value().map(|(ending, _)| *ending)
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ending> {
        self.0.keys().copied()
    }

    pub(super) fn add(&mut self, ending: Ending) {
        *self.0.entry(ending).or_insert(0) += 1;
    }

    pub(super) fn remove(&mut self, ending: Ending) {
        if let Some(keys) = self.0.get_mut(&ending) {
            *keys -= 1;
            if *keys == 0 {
                self.0.remove(&ending);
            }
        }
    }

    /// Forgets those of a database.
    pub(super) fn forget(&mut self, db: u8) {
        self.0.retain(|(_, of, _), _| *of != db);
    }

    /// Gives each to the database that `moved` says.
    pub(super) fn move_all(&mut self, moved: impl Fn(u8) -> u8) {
        let old = std::mem::take(&mut self.0).into_iter();
        self.0 = old
            .map(|((at, db, hash), keys)| ((at, moved(db), hash), keys))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_hash_end_one_after_the_other() {
        let mut deadlines = Deadlines::default();
        deadlines.add((5, 0, 7));
        deadlines.add((5, 0, 7));
        deadlines.add((4, 1, 9));
        assert_eq!(deadlines.first(), Some((4, 1, 9)));
        deadlines.forget(1);
        deadlines.remove((5, 0, 7));
        assert_eq!(deadlines.first(), Some((5, 0, 7)));
        deadlines.move_all(|db| db + 1);
        assert_eq!(deadlines.iter().collect::<Vec<_>>(), [(5, 1, 7)]);
        deadlines.remove((5, 1, 7));
        assert_eq!(deadlines, Deadlines::default());
    }
}
