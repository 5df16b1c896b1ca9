//! Lists: elements in the order they were pushed.

use super::LIST_ELEMENT_BYTES;
use crate::machine::snapshot::{Source, write_bytes, write_length};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;

/// Room for this many elements is never given back.
const ROOM_KEPT: usize = 64;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where the first element is.
    Left,
    /// Where the last element is.
    Right,
}

/// A list. Both ends and any position are reached in constant time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    elements: VecDeque<Bytes>,
    /// Sum of the lengths of all elements.
    bytes: usize,
}

impl List {
    /// See [`Value::dismantle`](super::Value::dismantle).
    pub(super) fn dismantle(&mut self, most: usize) -> bool {
        self.elements.truncate(self.elements.len().saturating_sub(most));
        !self.elements.is_empty()
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none; such a list is never stored.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Bytes of all elements, and what each takes beside them.
    pub fn bytes(&self) -> usize {
        self.bytes + self.len() * LIST_ELEMENT_BYTES
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// All elements, first to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Bytes> + ExactSizeIterator {
        self.elements.iter()
    }

    /// The elements at these positions, which must be there.
    pub fn slice(&self, positions: Range<usize>) -> impl DoubleEndedIterator<Item = &Bytes> {
        self.elements.range(positions)
    }

    /// The element at a position, 0 to `len() - 1`.
    pub fn at(&self, position: usize) -> Option<&Bytes> {
        self.elements.get(position)
    }

    /// The element at an end.
    pub fn end(&self, end: End) -> Option<&Bytes> {
        match end {
            End::Left => self.elements.front(),
            End::Right => self.elements.back(),
        }
    }

    /// The position that an index of Redis means: a negative one counts from the end.
    pub fn position(&self, index: i64) -> Option<usize> {
        let distance = usize::try_from(index.unsigned_abs()).ok()?;
        let position = if index < 0 {
            self.len().checked_sub(distance)?
        } else {
            distance
        };
        (position < self.len()).then_some(position)
    }

    /// The positions that two indexes of Redis mean, both inclusive; none where they mean nothing.
    pub fn positions(&self, start: i64, stop: i64) -> Range<usize> {
        let len = i64::try_from(self.len()).unwrap_or(i64::MAX);
        let from_left = |index: i64| if index < 0 { len + index } else { index };
        let bounded = |index: i64| usize::try_from(index.clamp(0, len)).unwrap_or(0);
        let (start, end) = (
            bounded(from_left(start)),
            bounded(from_left(stop).saturating_add(1)),
        );
        start..end.max(start)
    }

    /// Appends an element, copying it.
    pub fn push_back(&mut self, element: &[u8]) {
        self.push(End::Right, Bytes::copy_from_slice(element));
    }

    /// Adds an element at an end, keeping the memory given.
    pub fn push(&mut self, end: End, element: Bytes) {
        self.bytes += element.len();
        match end {
            End::Left => self.elements.push_front(element),
            End::Right => self.elements.push_back(element),
        }
    }

    /// Takes up to `count` elements from an end, the outermost first.
    pub fn pop(&mut self, end: End, count: usize) -> Vec<Bytes> {
        let count = count.min(self.len());
        let taken: Vec<Bytes> = match end {
            End::Left => self.elements.drain(..count).collect(),
            End::Right => self.elements.drain(self.len() - count..).rev().collect(),
        };
        self.bytes -= taken.iter().map(Bytes::len).sum::<usize>();
        self.give_back();
        taken
    }

    /// Puts another element at a position, copying it. Whether there is that position; if not, nothing has changed.
    pub fn set(&mut self, position: usize, element: &[u8]) -> bool {
        let Some(place) = self.elements.get_mut(position) else {
            return false;
        };
        self.bytes = self.bytes - place.len() + element.len();
        *place = Bytes::copy_from_slice(element);
        true
    }

    /// Adds an element in front of the one at a position (at most `len()`), copying it. Linear.
    pub fn insert(&mut self, position: usize, element: &[u8]) {
        self.bytes += element.len();
        self.elements.insert(position, Bytes::copy_from_slice(element));
    }

    /// Removes the first `most` elements that equal this one, counted from an end; how many were there. Linear.
    pub fn remove(&mut self, element: &[u8], most: usize, from: End) -> usize {
        let there = self.iter().filter(|other| *other == element).count();
        // From the right, those that come first from the left stay.
        let removed = there.min(most);
        let mut kept_first = if from == End::Right { there - removed } else { 0 };
        let mut left = removed;
        self.elements.retain(|other| {
            if left == 0 || other != element {
                return true;
            }
            if kept_first > 0 {
                kept_first -= 1;
                return true;
            }
            left -= 1;
            false
        });
        self.bytes -= removed * element.len();
        self.give_back();
        removed
    }

    /// Keeps the elements at these positions alone.
    pub fn keep(&mut self, positions: Range<usize>) {
        let (start, end) = (positions.start.min(self.len()), positions.end.min(self.len()));
        let behind: usize = self.elements.drain(end..).map(|element| element.len()).sum();
        let before: usize = self
            .elements
            .drain(..start.min(end))
            .map(|element| element.len())
            .sum();
        self.bytes -= behind + before;
        self.give_back();
    }

    /// A list that was long must not hold on to its room. Once in so many removals: constant time for each of them.
    fn give_back(&mut self) {
        if self.elements.capacity() > ROOM_KEPT && self.len() < self.elements.capacity() / 4 {
            self.elements.shrink_to((self.len() * 2).max(ROOM_KEPT));
        }
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, self.len())?;
        self.iter().try_for_each(|element| write_bytes(out, element))
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut list = Self::default();
        for _ in 0..from.u32()? {
            list.push(End::Right, from.bytes()?);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(elements: &str) -> List {
        let mut list = List::default();
        elements
            .split_whitespace()
            .for_each(|element| list.push_back(element.as_bytes()));
        list
    }

    fn text(list: &List) -> String {
        let bytes: usize = list
            .iter()
            .map(|element| element.len() + LIST_ELEMENT_BYTES)
            .sum();
        assert_eq!(list.bytes(), bytes, "what is counted is what is there");
        let words: Vec<_> = list
            .iter()
            .map(|element| String::from_utf8_lossy(element))
            .collect();
        words.join(" ")
    }

    #[test]
    fn equal_elements_are_removed_from_either_end() {
        for (most, from, removed, left) in [
            (1, End::Left, 1, "b aa aa c"),
            (1, End::Right, 1, "aa b aa c"),
            (2, End::Right, 2, "aa b c"),
            (9, End::Left, 3, "b c"),
            (0, End::Left, 0, "aa b aa aa c"),
        ] {
            let mut list = list("aa b aa aa c");
            assert_eq!(list.remove(b"aa", most, from), removed);
            assert_eq!(text(&list), left);
        }
    }

    #[test]
    fn indexes_mean_positions() {
        let list = list("a b c");
        for (start, stop, positions) in [
            (0, -1, 0..3),
            (1, 1, 1..2),
            (-100, 100, 0..3),
            (2, 1, 2..2),
            (3, 9, 3..3),
            (i64::MIN, i64::MAX, 0..3),
            (0, i64::MIN, 0..0),
            (0, -4, 0..0),
        ] {
            assert_eq!(list.positions(start, stop), positions, "{start} {stop}");
        }
        for (index, position) in [
            (0, Some(0)),
            (-1, Some(2)),
            (-3, Some(0)),
            (3, None),
            (-4, None),
            (i64::MIN, None),
        ] {
            assert_eq!(list.position(index), position, "{index}");
        }
    }

    #[test]
    fn a_list_that_was_long_gives_its_room_back() {
        let mut list = List::default();
        (0..10_000).for_each(|_| list.push(End::Left, Bytes::from_static(b"x")));
        while list.len() > 1 {
            assert_eq!(list.pop(End::Right, 1).len(), 1);
        }
        assert!(
            list.elements.capacity() <= 4 * ROOM_KEPT,
            "{}",
            list.elements.capacity()
        );
        assert_eq!(text(&list), "x");
    }

    #[test]
    fn only_what_is_kept_is_counted() {
        for (kept, left) in [
            (0..5, "a bb ccc dddd e"),
            (1..3, "bb ccc"),
            (5..5, ""),
            (2..2, ""),
        ] {
            let mut list = list("a bb ccc dddd e");
            list.keep(kept);
            assert_eq!(text(&list), left);
        }
    }
}
