//! Exactly once: which groups were applied already.
//!
//! A node resends a group after a lost answer or a leader change, so the log may hold it twice, or hold group 4 while 3 was
//! lost. Groups of one start are applied in order and once; a start that was followed by another is over.

use super::entry::Origin;
use crate::mutant::Mutant;
use std::collections::BTreeMap;

/// The last start of each node, and the last group applied of it. One small record per node that ever was a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Once {
    last: BTreeMap<u64, (u64, u64)>,
}

/// What is to happen with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the next one: apply it.
    Next,
    /// It was applied before, or its node has started anew since: pass over it.
    Past,
    /// A group before it is missing: pass over it; its node sends both again.
    Early,
}

impl Once {
    /// Whether this group's turn has come; notes it if so.
    pub fn admit(&mut self, origin: Origin) -> Turn {
        if origin.number == 0 {
            return Turn::Next;
        }
        let (start, number) = self.last.get(&origin.node).copied().unwrap_or_default();
        let applied = match origin.start.cmp(&start) {
            std::cmp::Ordering::Less => return Turn::Past,
            std::cmp::Ordering::Equal => number,
            std::cmp::Ordering::Greater => 0,
        };
        if origin.number <= applied {
            return if Mutant::ApplyTwice.is_planted() {
                Turn::Next
            } else {
                Turn::Past
            };
        }
        if origin.number != applied + 1 {
            return Turn::Early;
        }
        self.last.insert(origin.node, (origin.start, origin.number));
        Turn::Next
    }

    /// The last group applied of this start of this node; 0 if none was.
    pub fn last(&self, node: u64, start: u64) -> u64 {
        self.last
            .get(&node)
            .filter(|(of, _)| *of == start)
            .map_or(0, |(_, number)| *number)
    }

    /// Every record as `(node, start, number)`, in the order of nodes.
    pub fn records(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.last
            .iter()
            .map(|(node, (start, number))| (*node, *start, *number))
    }

    /// The table from its records.
    pub fn from_records(records: impl IntoIterator<Item = (u64, u64, u64)>) -> Self {
        Self {
            last: records
                .into_iter()
                .map(|(node, start, number)| (node, (start, number)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(start: u64, number: u64) -> Origin {
        Origin {
            node: 1,
            start,
            number,
        }
    }

    #[test]
    fn a_group_is_applied_once_and_in_order() {
        let mut once = Once::default();
        assert_eq!(once.admit(origin(1, 1)), Turn::Next);
        assert_eq!(once.admit(origin(1, 1)), Turn::Past, "sent twice");
        assert_eq!(once.admit(origin(1, 3)), Turn::Early, "2 is missing");
        assert_eq!(once.admit(origin(1, 2)), Turn::Next);
        assert_eq!(once.admit(origin(1, 3)), Turn::Next);
    }

    #[test]
    fn groups_of_an_earlier_start_are_over() {
        let mut once = Once::default();
        assert_eq!(once.admit(origin(1, 1)), Turn::Next);
        assert_eq!(
            once.admit(origin(2, 2)),
            Turn::Early,
            "a start begins with its first group"
        );
        assert_eq!(once.admit(origin(2, 1)), Turn::Next);
        assert_eq!(
            once.admit(origin(1, 2)),
            Turn::Past,
            "its callers are gone with their process"
        );
    }
}
