//! When keys end, in the order of time: of each key its deadline, its database and its hash. Its name stands in its shard only, where the hash finds it.

use super::DATABASES;
use crate::machine::entry::Millis;
use std::collections::BTreeMap;

/// A deadline, the database of the key that has it, and the key's hash.
pub(super) type Ending = (Millis, u8, u64);

/// Of one database: deadlines and hashes in order, and how many keys have each: one, unless two keys have one hash.
pub(super) type OfDatabase = BTreeMap<(Millis, u64), u32>;

/// Each database apart, so that emptying one, or exchanging two, walks over no key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines([OfDatabase; DATABASES]);

impl Deadlines {
    /// The first that passes.
    pub(super) fn first(&self) -> Option<Ending> {
        let firsts = (0..).zip(&self.0).filter_map(|(db, of)| {
            let ((at, hash), _) = of.first_key_value()?;
            Some((*at, db, *hash))
        });
        firsts.min()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ending> {
        let mut all: Vec<_> = (0..)
            .zip(&self.0)
            .map(|(db, of)| of.keys().map(move |(at, hash)| (*at, db, *hash)).peekable())
            .collect();
        std::iter::from_fn(move || {
            let heads = (0_usize..).zip(&mut all);
            let (_, of) = heads.filter_map(|(at, of)| Some((*of.peek()?, at))).min()?;
            all[of].next()
        })
    }

    pub(super) fn add(&mut self, (at, db, hash): Ending) {
        *self.0[usize::from(db)].entry((at, hash)).or_insert(0) += 1;
    }

    pub(super) fn remove(&mut self, (at, db, hash): Ending) {
        let of = &mut self.0[usize::from(db)];
        if let Some(keys) = of.get_mut(&(at, hash)) {
            *keys -= 1;
            if *keys == 0 {
                of.remove(&(at, hash));
            }
        }
    }

    /// Takes away those of a database.
    pub(super) fn take(&mut self, db: u8) -> OfDatabase {
        std::mem::take(&mut self.0[usize::from(db)])
    }

    /// Exchanges those of two databases.
    pub(super) fn swap(&mut self, left: u8, right: u8) {
        self.0.swap(usize::from(left), usize::from(right));
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
        assert_eq!(deadlines.take(1).len(), 1);
        deadlines.remove((5, 0, 7));
        assert_eq!(deadlines.first(), Some((5, 0, 7)));
        deadlines.swap(0, 1);
        assert_eq!(deadlines.iter().collect::<Vec<_>>(), [(5, 1, 7)]);
        deadlines.remove((5, 1, 7));
        assert_eq!(deadlines, Deadlines::default());
    }

    #[test]
    fn those_of_all_databases_are_walked_in_the_order_of_time() {
        let mut deadlines = Deadlines::default();
        let all = [(1, 3, 9), (1, 4, 2), (2, 0, 5), (2, 0, 6), (2, 15, 1), (7, 3, 1)];
        all.iter().rev().for_each(|ending| deadlines.add(*ending));
        assert_eq!(deadlines.iter().collect::<Vec<_>>(), all);
        assert_eq!(deadlines.first(), Some(all[0]));
    }
}
