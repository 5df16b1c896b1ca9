//! Hashes: fields and their values.

use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexMap;
use std::io;

/// A hash: fields in the order they were set while it is small, as Redis' listpack keeps them.
///
/// Large ones (over `hash-max-listpack-entries` fields, or given a field or value over `hash-max-listpack-value` bytes; for good once it was so) give
/// up the order on removal to remove in constant time. Either way the order is a function of the log alone.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: IndexMap<Bytes, Bytes>,
    /// Sum of the lengths of all fields and values.
    bytes: usize,
    large: bool,
    /// The longest field or value set since the last [`Hash::settle`]: what decides then whether it is large. Not state.
    longest: usize,
}

impl PartialEq for Hash {
    /// Equal with the same fields in the same order: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large && self.bytes == other.bytes && self.fields.iter().eq(other.fields.iter())
    }
}

impl Hash {
    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none; such a hash is never stored.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether Redis would hold it as a hash table instead of a listpack.
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&Bytes> {
        self.fields.get(field)
    }

    /// All fields and values, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> + ExactSizeIterator {
        self.fields.iter()
    }

    /// The field at a position, 0 to `len() - 1`.
    pub fn at(&self, position: usize) -> Option<(&Bytes, &Bytes)> {
        self.fields.get_index(position)
    }

    /// Sets a field, copying both. Whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let copy = Bytes::copy_from_slice(value);
        match self.fields.get_mut(field) {
            Some(slot) => {
                self.bytes = self.bytes - slot.len() + value.len();
                self.longest = self.longest.max(value.len());
                *slot = copy;
                false
            }
            None => self.set_shared(Bytes::copy_from_slice(field), copy),
        }
    }

    /// Adds a field that is not there, keeping the memory given. False, and nothing has changed, if it is there.
    fn set_shared(&mut self, field: Bytes, value: Bytes) -> bool {
        let (field_len, value_len) = (field.len(), value.len());
        let indexmap::map::Entry::Vacant(place) = self.fields.entry(field) else {
            return false;
        };
        place.insert(value);
        self.bytes += field_len + value_len;
        self.longest = self.longest.max(field_len).max(value_len);
        true
    }

    /// Removes a field. Its value, if it was there.
    pub fn remove(&mut self, field: &[u8]) -> Option<Bytes> {
        let value = if self.large {
            self.fields.swap_remove(field)
        } else {
            self.fields.shift_remove(field)
        }?;
        self.bytes -= field.len() + value.len();
        Some(value)
    }

    /// Bytes of all fields and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "listpack" }
    }

    pub(super) fn is_settled(&self, settings: &Settings) -> bool {
        self.longest == 0 && (self.large || self.fields.len() <= settings.hash_max_listpack_entries)
    }

    pub(super) fn settle(&mut self, settings: &Settings) {
        self.large |= self.longest > settings.hash_max_listpack_value
            || self.fields.len() > settings.hash_max_listpack_entries;
        self.longest = 0;
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&[u8::from(self.large)])?;
        write_length(out, self.len())?;
        for (name, value) in self.iter() {
            write_bytes(out, name)?;
            write_bytes(out, value)?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (large, count) = (from.flag()?, from.u32()?);
        let mut hash = Self::default();
        for _ in 0..count {
            if !hash.set_shared(from.bytes()?, from.bytes()?) {
                return Err(invalid("a field that was there before".to_owned()));
            }
        }
        (hash.large, hash.longest) = (large, 0);
        Ok(hash)
    }
}
