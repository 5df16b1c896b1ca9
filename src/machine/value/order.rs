//! Members in the order of their scores, found by rank: what a sorted set keeps beside its scores by member.
//!
//! Sorted chunks of bounded length, and the length of each in a row of its own: a search is two binary searches, a rank one pass over that
//! row (a million members: some 5,000 numbers next to each other), and a change moves at most a chunk. A copy shares the chunks.

use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Members a chunk has at most: few enough that moving half of them costs less than finding the place (256 × 40 bytes).
const CHUNK_MAX: usize = 256;

/// A chunk that a removal leaves with fewer joins its neighbour, if both fit.
const CHUNK_MIN: usize = CHUNK_MAX / 4;

/// Members a chunk has when all are known at once: room for as many more as a split would leave.
const CHUNK_BUILT: usize = CHUNK_MAX / 4 * 3;

/// A score, never NaN, and a member.
pub(super) type Element = (f64, Bytes);

/// Elements by score, those of one score by member. Zero with and without a sign are one score.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    /// None is empty.
    chunks: Vec<Arc<Vec<Element>>>,
    /// The length of each chunk.
    lengths: Vec<u32>,
}

impl Order {
    /// Takes the last chunk away from what is only to be freed still. Whether there are more.
    pub(super) fn dismantle(&mut self) -> bool {
        self.chunks.pop();
        !self.chunks.is_empty()
    }

    /// Of elements in any order.
    pub(super) fn of(mut elements: Vec<Element>) -> Self {
        elements.sort_unstable_by(|one, other| compare(one, other.0, &other.1));
        let mut order = Self::default();
        for chunk in elements.chunks(CHUNK_BUILT) {
            order.insert_chunk(order.chunks.len(), chunk.to_vec());
        }
        order
    }

    /// Adds an element that is not there.
    pub(super) fn insert(&mut self, score: f64, member: Bytes) {
        let Some(last) = self.chunks.len().checked_sub(1) else {
            return self.insert_chunk(0, vec![(score, member)]);
        };
        let index = self.chunk_of(score, &member).min(last);
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        let at = chunk.partition_point(|element| compare(element, score, &member).is_lt());
        chunk.insert(at, (score, member));
        self.lengths[index] += 1;
        if chunk.len() > CHUNK_MAX {
            // Whoever only adds at the end leaves full chunks behind.
            let at_end = index == last && at == CHUNK_MAX;
            let rest = chunk.split_off(if at_end { at } else { CHUNK_MAX / 2 });
            self.lengths[index] = length(chunk);
            self.insert_chunk(index + 1, rest);
        }
    }

    /// Takes out an element, if it is there; its member.
    pub(super) fn remove(&mut self, score: f64, member: &[u8]) -> Option<Bytes> {
        let index = self.chunk_of(score, member);
        let chunk = self.chunks.get(index)?;
        let at = chunk
            .binary_search_by(|element| compare(element, score, member))
            .ok()?;
        let (_, member) = Arc::make_mut(&mut self.chunks[index]).remove(at);
        self.shrunk(index);
        Some(member)
    }

    /// Takes out the elements of these ranks, in order.
    pub(super) fn remove_range(&mut self, ranks: Range<usize>) -> Vec<Element> {
        let (mut index, mut at) = self.locate(ranks.start);
        let (first, mut left) = (index, ranks.len());
        let mut removed = Vec::with_capacity(left);
        while left > 0 {
            let chunk = Arc::make_mut(&mut self.chunks[index]);
            let end = chunk.len().min(at + left);
            left -= end - at;
            removed.extend(chunk.drain(at..end));
            self.lengths[index] = length(chunk);
            (index, at) = (index + 1, 0);
        }
        // Of the chunks touched, only the first and the last can have kept something.
        let emptied = |index: &usize| self.lengths[*index] == 0;
        let touched = first..index;
        let from = touched.clone().find(emptied).unwrap_or(index);
        let count = (from..index).take_while(emptied).count();
        self.chunks.drain(from..from + count);
        self.lengths.drain(from..from + count);
        for index in [from, from.wrapping_sub(1)] {
            if index < self.chunks.len() {
                self.shrunk(index);
            }
        }
        removed
    }

    /// How many elements come first, up to the first that `before` is not true of.
    pub(super) fn rank(&self, before: impl Fn(f64, &Bytes) -> bool) -> usize {
        let all_before = |chunk: &Arc<Vec<Element>>| {
            let (score, member) = chunk.last().expect("no chunk is empty");
            before(*score, member)
        };
        let index = self.chunks.partition_point(all_before);
        let within = self.chunks.get(index).map_or(0, |chunk| {
            chunk.partition_point(|(score, member)| before(*score, member))
        });
        self.lengths[..index]
            .iter()
            .map(|length| *length as usize)
            .sum::<usize>()
            + within
    }

    /// How many elements come before this one.
    pub(super) fn rank_of(&self, score: f64, member: &[u8]) -> usize {
        self.rank(|other, its| compare_parts(other, its, score, member).is_lt())
    }

    /// The elements of these ranks, which must exist.
    pub(super) fn range(&self, ranks: Range<usize>) -> Elements<'_> {
        Elements {
            chunks: &self.chunks,
            next: self.locate(ranks.start),
            end: self.locate(ranks.end),
            left: ranks.len(),
        }
    }

    /// The chunk and the place in it of a rank; the end of a chunk for the beginning of the next.
    fn locate(&self, rank: usize) -> (usize, usize) {
        let mut at = rank;
        for (index, length) in self.lengths.iter().enumerate() {
            let length = *length as usize;
            if at <= length {
                return (index, at);
            }
            at -= length;
        }
        (self.chunks.len(), 0)
    }

    /// The first chunk that ends with this element or one behind it.
    fn chunk_of(&self, score: f64, member: &[u8]) -> usize {
        let ends_before = |chunk: &Arc<Vec<Element>>| {
            let last = chunk.last().expect("no chunk is empty");
            compare(last, score, member).is_lt()
        };
        self.chunks.partition_point(ends_before)
    }

    fn insert_chunk(&mut self, index: usize, chunk: Vec<Element>) {
        self.lengths.insert(index, length(&chunk));
        self.chunks.insert(index, Arc::new(chunk));
    }

    /// After a removal: counts a chunk anew; drops it if it is empty, or joins it with a neighbour if it is small.
    fn shrunk(&mut self, index: usize) {
        let len = self.chunks[index].len();
        self.lengths[index] = length(&self.chunks[index]);
        if len == 0 {
            self.chunks.remove(index);
            self.lengths.remove(index);
        } else if len < CHUNK_MIN && !self.join(index) && index > 0 {
            self.join(index - 1);
        }
    }

    /// Joins a chunk with the one behind it, if there is one and both fit in one.
    fn join(&mut self, index: usize) -> bool {
        let fit = |behind: &u32| self.lengths[index] + behind <= CHUNK_BUILT as u32;
        if !self.lengths.get(index + 1).is_some_and(fit) {
            return false;
        }
        let behind = self.chunks.remove(index + 1);
        self.lengths.remove(index + 1);
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        chunk.extend(Arc::unwrap_or_clone(behind));
        self.lengths[index] = length(chunk);
        true
    }
}

fn length(chunk: &[Element]) -> u32 {
    u32::try_from(chunk.len()).expect("no chunk is longer than CHUNK_MAX")
}

fn compare((score, member): &Element, other: f64, its: &[u8]) -> Ordering {
    compare_parts(*score, member, other, its)
}

fn compare_parts(score: f64, member: &[u8], other: f64, its: &[u8]) -> Ordering {
    let by_score = score.partial_cmp(&other).expect("no score is NaN");
    by_score.then_with(|| member.cmp(its))
}

/// Elements one after the other, from either end.
#[derive(Clone, Debug)]
pub(super) struct Elements<'a> {
    chunks: &'a [Arc<Vec<Element>>],
    /// Chunk and place of the next one.
    next: (usize, usize),
    /// Chunk and place behind the last one.
    end: (usize, usize),
    left: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a Element;

    fn next(&mut self) -> Option<&'a Element> {
        self.left = self.left.checked_sub(1)?;
        while self.next.1 == self.chunks[self.next.0].len() {
            self.next = (self.next.0 + 1, 0);
        }
        let element = &self.chunks[self.next.0][self.next.1];
        self.next.1 += 1;
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Elements<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        while self.end.1 == 0 {
            self.end = (self.end.0 - 1, self.chunks[self.end.0 - 1].len());
        }
        self.end.1 -= 1;
        Some(&self.chunks[self.end.0][self.end.1])
    }
}

impl ExactSizeIterator for Elements<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::keyspace::Chance;

    fn model(order: &Order) -> Vec<Element> {
        let len = order.lengths.iter().map(|length| *length as usize).sum();
        order.range(0..len).cloned().collect()
    }

    fn check(order: &Order, expected: &[Element]) {
        assert_eq!(model(order), expected);
        let mut backwards: Vec<Element> = order.range(0..expected.len()).rev().cloned().collect();
        backwards.reverse();
        assert_eq!(backwards, expected);
        let lengths: Vec<u32> = order.chunks.iter().map(|chunk| length(chunk)).collect();
        assert_eq!(order.lengths, lengths);
        assert!(
            lengths
                .iter()
                .all(|length| (1..=CHUNK_MAX as u32).contains(length))
        );
    }

    /// An order, changed in every way and compared with a plain sorted list.
    #[test]
    fn an_order_is_a_sorted_list() {
        for seed in 0..20 {
            let mut chance = Chance::new(seed);
            let (mut order, mut list) = (Order::default(), Vec::<Element>::new());
            for step in 0..6_000 {
                let score = chance.below(40) as f64 - 20.0;
                let member = Bytes::from(chance.below(1_000).to_string());
                let place = list.binary_search_by(|element| compare(element, score, &member));
                let grows = step % 3_000 < 2_000;
                match (place, chance.below(if grows { 10 } else { 3 })) {
                    (Ok(at), 0) => {
                        list.remove(at);
                        assert_eq!(order.remove(score, &member).as_ref(), Some(&member));
                    }
                    (Ok(at), _) => assert_eq!(order.rank_of(score, &member), at),
                    (Err(at), 2..) => {
                        list.insert(at, (score, member.clone()));
                        order.insert(score, member);
                    }
                    (Err(at), 1) if !grows && !list.is_empty() => {
                        let from = at.min(list.len() - 1);
                        let to = (from + chance.below(9)).min(list.len());
                        let removed: Vec<Element> = list.drain(from..to).collect();
                        assert_eq!(order.remove_range(from..to), removed);
                    }
                    (Err(at), _) => {
                        assert_eq!(order.remove(score, &member), None);
                        assert_eq!(order.rank_of(score, &member), at);
                    }
                }
                if step % 500 == 0 {
                    check(&order, &list);
                }
            }
            check(&order, &list);
            check(&Order::of(list.iter().rev().cloned().collect()), &list);
            let (from, to) = (list.len() / 5, list.len() / 5 * 4);
            let removed: Vec<Element> = list.drain(from..to).collect();
            assert_eq!(order.remove_range(from..to), removed);
            check(&order, &list);
            assert_eq!(order.remove_range(0..list.len()), list);
            assert!(order.chunks.is_empty() && order.lengths.is_empty());
        }
    }

    #[test]
    fn what_is_added_at_the_end_fills_chunks_and_what_is_removed_joins_them() {
        let mut order = Order::default();
        for n in 0..10_000 {
            order.insert(f64::from(n), Bytes::new());
        }
        assert_eq!(order.chunks.len(), 10_000usize.div_ceil(CHUNK_MAX));
        for n in (0..10_000).filter(|n| n % 100 != 0) {
            assert!(order.remove(f64::from(n), b"").is_some());
        }
        assert!(order.chunks.len() <= 3, "{:?}", order.lengths);
    }

    #[test]
    fn a_copy_shares_what_is_not_changed() {
        let mut order = Order::of((0..1_000).map(|n| (f64::from(n), Bytes::new())).collect());
        let copy = order.clone();
        order.remove(500.0, b"");
        let shared = |(one, other): &(&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, other);
        let pairs = order.chunks.iter().zip(&copy.chunks);
        assert_eq!(pairs.filter(shared).count(), copy.chunks.len() - 1);
        assert_eq!(copy.range(500..501).next().map(|(score, _)| *score), Some(500.0));
    }
}
