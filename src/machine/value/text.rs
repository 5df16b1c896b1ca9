//! A text that stands in something that is shared: to look at without a cost, and to be kept without a copy.

use bytes::Bytes;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A name or a value inside what holds it. It reads as its bytes; [`Text::to_bytes`] keeps it beyond its holder, and the holder's memory with it.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    text: &'a [u8],
    holder: &'a Bytes,
}

impl<'a> Text<'a> {
    /// A part of what holds it.
    pub(super) fn new(text: &'a [u8], holder: &'a Bytes) -> Self {
        Self { text, holder }
    }

    /// Its bytes, for as long as what holds it is there.
    pub fn as_slice(self) -> &'a [u8] {
        self.text
    }

    /// It, to be kept: shares memory with what holds it, and copies nothing.
    pub fn to_bytes(self) -> Bytes {
        self.holder.slice_ref(self.text)
    }
}

impl<'a> From<&'a Bytes> for Text<'a> {
    fn from(whole: &'a Bytes) -> Self {
        Self::new(whole, whole)
    }
}

impl From<Text<'_>> for Bytes {
    fn from(text: Text<'_>) -> Self {
        text.to_bytes()
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.text
    }
}

impl AsRef<[u8]> for Text<'_> {
    fn as_ref(&self) -> &[u8] {
        self.text
    }
}

impl Borrow<[u8]> for Text<'_> {
    fn borrow(&self) -> &[u8] {
        self.text
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Text<'_> {
    fn eq(&self, other: &T) -> bool {
        self.text == other.as_ref()
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(other.text)
    }
}

impl Hash for Text<'_> {
    /// As its bytes.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}
