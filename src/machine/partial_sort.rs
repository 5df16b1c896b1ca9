//! Sorts as much of a slice as is asked for, and leaves what compares as equal in the order in which a Redis leaves it.
//!
//! Which of two places at the same distance is among the nearest ten, nobody promises; but clients see it, and tests compare it. The way is
//! that of Bentley and McIlroy ("Engineering a Sort Function", 1993): quicksort with a median of three or nine, what equals the pivot swapped to both ends and
//! back to the middle, insertion for six or fewer; parts without anything asked for are left as they are.

use std::cmp::Ordering;
use std::ops::Range;

/// Elements up to which insertion is enough.
const FEW: usize = 6;

/// Elements above which the pivot is a median of three medians.
const MANY: usize = 40;

/// Splits on the way to one element, for each time that their number could be halved. Beyond it somebody has chosen the elements against this very sort, and
/// another one does the rest: neither time nor stack grows with their malice.
const SPLITS: u32 = 4;

/// Sorts so that `wanted` holds what it would hold if all were sorted.
pub(super) fn partial_sort<T>(items: &mut [T], wanted: &Range<usize>, compare: &impl Fn(&T, &T) -> Ordering) {
    let splits = SPLITS * (items.len().max(1).ilog2() + 1);
    sort(items, wanted, splits, compare);
}

fn sort<T>(items: &mut [T], wanted: &Range<usize>, mut splits: u32, compare: &impl Fn(&T, &T) -> Ordering) {
    let mut part = 0..items.len();
    while part.len() > FEW {
        if splits == 0 {
            return items[part].sort_by(compare);
        }
        splits -= 1;
        let (less, greater) = partition(&mut items[part.clone()], compare);
        let less = part.start..part.start + less;
        let greater = part.end - greater..part.end;
        if less.len() > 1 && less.start < wanted.end && wanted.start < less.end {
            let within = wanted.start.saturating_sub(less.start)..wanted.end - less.start;
            sort(&mut items[less], &within, splits, compare);
        }
        if greater.len() <= 1 || greater.start >= wanted.end || wanted.start >= greater.end {
            return;
        }
        part = greater;
    }
    let few = &mut items[part];
    for end in 1..few.len() {
        let mut at = end;
        while at > 0 && compare(&few[at - 1], &few[at]) == Ordering::Greater {
            few.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// Brings what is less than a pivot to the front and what is greater to the back: how many are less, and how many are greater.
fn partition<T>(items: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) -> (usize, usize) {
    let len = items.len();
    items.swap(0, pivot(items, compare));
    // Equal from the front, less, not looked at, greater, equal at the back; the pivot is the first of all.
    let (mut equal, mut low) = (1, 1);
    let (mut high, mut back) = (len, len);
    loop {
        while low < high {
            match compare(&items[low], &items[0]) {
                Ordering::Greater => break,
                Ordering::Equal => {
                    items.swap(equal, low);
                    equal += 1;
                }
                Ordering::Less => {}
            }
            low += 1;
        }
        while low < high {
            match compare(&items[high - 1], &items[0]) {
                Ordering::Less => break,
                Ordering::Equal => {
                    items.swap(high - 1, back - 1);
                    back -= 1;
                }
                Ordering::Greater => {}
            }
            high -= 1;
        }
        if low >= high {
            break;
        }
        items.swap(low, high - 1);
        low += 1;
        high -= 1;
    }
    let (less, greater) = (low - equal, back - high);
    let moved = equal.min(less);
    swap_ranges(items, 0, low - moved, moved);
    let moved = greater.min(len - back);
    swap_ranges(items, low, len - moved, moved);
    (less, greater)
}

fn swap_ranges<T>(items: &mut [T], one: usize, other: usize, len: usize) {
    for at in 0..len {
        items.swap(one + at, other + at);
    }
}

fn pivot<T>(items: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let (len, middle) = (items.len(), items.len() / 2);
    if len == FEW + 1 {
        return middle;
    }
    let (first, last) = (0, len - 1);
    if len <= MANY {
        return median(items, first, middle, last, compare);
    }
    let step = len / 8;
    let first = median(items, first, first + step, first + 2 * step, compare);
    let middle = median(items, middle - step, middle, middle + step, compare);
    let last = median(items, last - 2 * step, last - step, last, compare);
    median(items, first, middle, last, compare)
}

fn median<T>(
    items: &[T],
    one: usize,
    two: usize,
    three: usize,
    compare: &impl Fn(&T, &T) -> Ordering,
) -> usize {
    let is_less = |one: usize, other: usize| compare(&items[one], &items[other]) == Ordering::Less;
    if is_less(one, two) {
        if is_less(two, three) {
            two
        } else if is_less(one, three) {
            three
        } else {
            one
        }
    } else if compare(&items[two], &items[three]) == Ordering::Greater {
        two
    } else if is_less(one, three) {
        one
    } else {
        three
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_wanted_is_where_it_would_be_if_all_were_sorted(
            items in proptest::collection::vec(0u8..20, 0..300),
            start in 0usize..300,
            len in 0usize..50,
        ) {
            let mut sorted = items.clone();
            sorted.sort_unstable();
            let wanted = start.min(items.len())..(start + len).min(items.len());
            let mut partly = items.clone();
            partial_sort(&mut partly, &wanted, &u8::cmp);
            prop_assert_eq!(&partly[wanted.clone()], &sorted[wanted]);
            partly.sort_unstable();
            prop_assert_eq!(partly, sorted);
        }
    }

    /// Whoever answers comparisons as it suits him can make each pivot the least but a few (McIlroy, "A Killer Adversary for Quicksort", 1999).
    #[test]
    fn a_killer_adversary_gains_nothing() {
        use std::cell::{Cell, RefCell};
        const LEN: usize = 20_000;
        let (solid, candidate, asked) = (Cell::new(0), Cell::new(0), Cell::new(0usize));
        let values = RefCell::new(vec![usize::MAX; LEN]);
        let compare = |one: &usize, other: &usize| {
            asked.set(asked.get() + 1);
            let mut values = values.borrow_mut();
            if values[*one] == usize::MAX && values[*other] == usize::MAX {
                let frozen = if *one == candidate.get() { *one } else { *other };
                values[frozen] = solid.replace(solid.get() + 1);
            }
            if values[*one] == usize::MAX {
                candidate.set(*one);
            } else if values[*other] == usize::MAX {
                candidate.set(*other);
            }
            values[*one].cmp(&values[*other])
        };
        let mut items: Vec<usize> = (0..LEN).collect();
        partial_sort(&mut items, &(0..LEN), &compare);
        assert!(asked.get() < LEN * 200, "{} comparisons", asked.get());
    }
}
