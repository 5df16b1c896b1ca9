//! Lists: elements in the order they were pushed.

use crate::machine::snapshot::{Source, write_bytes, write_length};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;

/// A list. Both ends and any position are reached in constant time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    elements: VecDeque<Bytes>,
    /// Sum of the lengths of all elements.
    bytes: usize,
}

impl List {
    /// How many elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none; such a list is never stored.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// All elements, first to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Bytes> + ExactSizeIterator {
        self.elements.iter()
    }

    /// Appends an element, copying it.
    pub fn push_back(&mut self, element: &[u8]) {
        self.bytes += element.len();
        self.elements.push_back(Bytes::copy_from_slice(element));
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, self.len())?;
        self.iter().try_for_each(|element| write_bytes(out, element))
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut list = Self::default();
        for _ in 0..from.u32()? {
            let element = from.bytes()?;
            list.bytes += element.len();
            list.elements.push_back(element);
        }
        Ok(list)
    }
}
