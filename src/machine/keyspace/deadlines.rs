//! When keys end, in the order of time: of each key its deadline, its database and its hash. Its name stands in its shard only, where the hash finds it.
//!
//! They stand in runs of up to [`RUN`], found by a tree of what each begins with: 16 bytes for each where keys end in the order in which they were given
//! their ends, and some 24 where they do not. A tree with a place for each takes 48.

use super::DATABASES;
use crate::machine::entry::Millis;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The most endings of a run: moving half of them for a new one costs about as much as going down a tree.
const RUN: usize = 256;

/// A run of fewer is joined with the next one, if both leave room.
const SPARSE: usize = RUN / 4;
const JOINED: usize = RUN * 3 / 4;

/// A deadline, the database of the key that has it, and the key's hash.
pub(super) type Ending = (Millis, u8, u64);

/// The same in its database.
type Inside = (Millis, u64);

/// What no ending is before.
const BEGIN: Inside = (0, 0);

/// Each database apart, so that emptying one, or exchanging two, walks over no key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    of: [OfDatabase; DATABASES],
    /// The first of all: each command asks for it.
    first: Option<Ending>,
}

/// Of one database: deadlines and hashes in order.
#[derive(Debug, Default)]
pub(super) struct OfDatabase {
    /// By a bound: no ending of a run is before its own, or at or after that of the next. All but the first hold something.
    runs: BTreeMap<Inside, Vec<Inside>>,
    /// How many more keys than one have an ending: two keys of one hash, which hardly ever is.
    more: BTreeMap<Inside, u32>,
}

impl Deadlines {
    /// The first that passes.
    pub(super) fn first(&self) -> Option<Ending> {
        self.first
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ending> {
        let mut all: Vec<_> = (0..)
            .zip(&self.of)
            .map(|(db, of)| of.iter().map(move |(at, hash)| (at, db, hash)).peekable())
            .collect();
        std::iter::from_fn(move || {
            let heads = (0_usize..).zip(&mut all);
            let (_, of) = heads.filter_map(|(at, of)| Some((*of.peek()?, at))).min()?;
            all[of].next()
        })
    }

    pub(super) fn add(&mut self, ending: Ending) {
        let (at, db, hash) = ending;
        self.of[usize::from(db)].add((at, hash));
        self.first = Some(self.first.map_or(ending, |first| first.min(ending)));
    }

    pub(super) fn remove(&mut self, ending: Ending) {
        let (at, db, hash) = ending;
        self.of[usize::from(db)].remove((at, hash));
        if self.first == Some(ending) {
            self.find_first();
        }
    }

    /// Takes away those of a database.
    pub(super) fn take(&mut self, db: u8) -> OfDatabase {
        let taken = std::mem::take(&mut self.of[usize::from(db)]);
        self.find_first();
        taken
    }

    /// Exchanges those of two databases.
    pub(super) fn swap(&mut self, left: u8, right: u8) {
        self.of.swap(usize::from(left), usize::from(right));
        self.find_first();
    }

    fn find_first(&mut self) {
        let firsts = (0..).zip(&self.of).filter_map(|(db, of)| {
            let (at, hash) = of.iter().next()?;
            Some((at, db, hash))
        });
        self.first = firsts.min();
    }
}

impl OfDatabase {
    fn iter(&self) -> impl Iterator<Item = Inside> {
        self.runs.values().flatten().copied()
    }

    fn add(&mut self, ending: Inside) {
        let last = self.runs.range_mut(..=ending).next_back();
        let Some((_, run)) = last else {
            // The first run is for all that come before the second's bound.
            self.runs.insert(BEGIN, vec![ending]);
            return;
        };
        let Err(at) = run.binary_search(&ending) else {
            *self.more.entry(ending).or_insert(0) += 1;
            return;
        };
        if run.len() < RUN {
            run.insert(at, ending);
            return;
        }
        // What comes behind all others finds the runs before it full, and leaves them so. Of what is parted the first half hardly ever grows again: keys of one
        // entry of the log end at the same time, in the order of their hashes, and later ones later.
        let mut next = if at == RUN {
            Vec::new()
        } else {
            run.split_off(RUN / 2)
        };
        run.shrink_to_fit();
        match at.checked_sub(run.len()) {
            Some(at) => next.insert(at, ending),
            None => run.insert(at, ending),
        }
        self.runs.insert(next[0], next);
    }

    fn remove(&mut self, ending: Inside) {
        if let Some(more) = self.more.get_mut(&ending) {
            *more -= 1;
            if *more == 0 {
                self.more.remove(&ending);
            }
            return;
        }
        let Some((bound, run)) = self.runs.range_mut(..=ending).next_back() else {
            return;
        };
        let Ok(at) = run.binary_search(&ending) else {
            return;
        };
        run.remove(at);
        let (bound, length) = (*bound, run.len());
        if length < SPARSE {
            self.join(bound, length);
        }
    }

    /// Joins the run of this bound, which is sparse, with the next one, if both leave room.
    fn join(&mut self, bound: Inside, length: usize) {
        let after = (Bound::Excluded(bound), Bound::Unbounded);
        let next = self.runs.range(after).next();
        let room = next.filter(|(_, next)| length + next.len() <= JOINED);
        if let Some(joined) = room.map(|(bound, _)| *bound) {
            let joined = self.runs.remove(&joined).unwrap_or_default();
            let run = self.runs.entry(bound).or_default();
            run.extend(joined);
        } else if length == 0 && bound != BEGIN {
            self.runs.remove(&bound);
        }
    }
}

impl PartialEq for OfDatabase {
    /// Equal with the same endings, whatever runs they stand in.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter()) && self.more == other.more
    }
}

impl Eq for OfDatabase {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_of_one_hash_end_one_after_the_other() {
        let mut deadlines = Deadlines::default();
        deadlines.add((5, 0, 7));
        deadlines.add((5, 0, 7));
        deadlines.add((4, 1, 9));
        assert_eq!(deadlines.first(), Some((4, 1, 9)));
        assert_eq!(deadlines.take(1).iter().count(), 1);
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

    #[test]
    fn what_ends_in_the_order_in_which_it_came_leaves_no_run_half_empty() {
        let mut deadlines = Deadlines::default();
        (0..4 * RUN as u64).for_each(|at| deadlines.add((at, 0, at)));
        assert_eq!(deadlines.of[0].runs.len(), 4);
        assert!(deadlines.of[0].runs.values().all(|run| run.capacity() == RUN));
        for at in 0..4 * RUN as u64 {
            assert_eq!(deadlines.first(), Some((at, 0, at)));
            deadlines.remove((at, 0, at));
        }
        assert_eq!(deadlines.first(), None);
        assert!(deadlines.of[0].runs.len() <= 1);
    }

    #[test]
    fn keys_of_one_entry_that_end_at_the_same_time_leave_little_room_unused() {
        let mut deadlines = Deadlines::default();
        for (at, key) in (0..100u64).flat_map(|at| (0..300u64).map(move |key| (at, key))) {
            deadlines.add((at, 0, key.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        let room: usize = deadlines.of[0].runs.values().map(Vec::capacity).sum();
        assert!(room < 100 * 300 * 3 / 2, "{room}");
    }

    fn ending() -> impl Strategy<Value = Ending> {
        let few = (0..8u64, 0..2u8, 0..4u64);
        let many = (prop_oneof![0..2_000u64, Just(Millis::MAX)], 0..2u8, any::<u64>());
        prop_oneof![few, many]
    }

    fn subtract(tree: &mut BTreeMap<Ending, u32>, ending: Ending) -> bool {
        let Some(keys) = tree.get_mut(&ending) else {
            return false;
        };
        *keys -= 1;
        if *keys == 0 {
            tree.remove(&ending);
        }
        true
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// A tree that counts the keys of each ending, changed in the same way, has the same in it.
        #[test]
        fn they_are_a_tree_of_counts(steps in prop::collection::vec((ending(), any::<u8>()), 0..3_000)) {
            let (mut deadlines, mut tree) = (Deadlines::default(), BTreeMap::<Ending, u32>::new());
            for (ending, step) in steps {
                // Growing at first and shrinking later, so that runs are split and joined.
                let removed = if step < 50 { tree.keys().next().copied() } else { None };
                let removed = removed.or((step < 110).then_some(ending));
                match removed {
                    Some(ending) => {
                        deadlines.remove(ending);
                        subtract(&mut tree, ending);
                    }
                    None => {
                        deadlines.add(ending);
                        *tree.entry(ending).or_insert(0) += 1;
                    }
                }
                prop_assert_eq!(deadlines.first(), tree.keys().next().copied());
            }
            prop_assert!(deadlines.iter().eq(tree.keys().copied()));
            while let Some(ending) = deadlines.first() {
                deadlines.remove(ending);
                prop_assert!(subtract(&mut tree, ending));
            }
            prop_assert!(tree.is_empty());
        }
    }
}
