//! Hashes: fields, their values, and when a field ends if it does.

use super::HASH_FIELD_BYTES;
use crate::machine::entry::Millis;
use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Bytes that the deadline of a field counts: a place in two trees.
const DEADLINE_BYTES: usize = 112;

/// A hash: fields in the order they were set while it is small, as Redis' listpack keeps them.
///
/// Large ones (over `hash-max-listpack-entries` fields, or given a field or value over `hash-max-listpack-value` bytes; for good once it was so) give
/// up the order on removal to remove in constant time. Either way the order is a function of the log alone.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: IndexMap<Bytes, Bytes>,
    /// Sum of the lengths of all fields and values, and [`DEADLINE_BYTES`] for each deadline.
    bytes: usize,
    large: bool,
    /// Whether a field ever had a deadline, which Redis shows while it is small.
    extended: bool,
    /// When fields end.
    deadlines: BTreeMap<Bytes, Millis>,
    /// The same in the order of time. Derived.
    ends: BTreeSet<(Millis, Bytes)>,
    /// The longest field or value set since the last [`Hash::settle`]: what decides then whether it is large. Not state.
    longest: usize,
}

impl PartialEq for Hash {
    /// Equal with the same fields in the same order: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large
            && self.extended == other.extended
            && self.bytes == other.bytes
            && self.deadlines == other.deadlines
            && self.fields.iter().eq(other.fields.iter())
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

    /// Sets a field, copying both; it has no deadline then. Whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.set_deadline(field, None);
        self.set_value(field, value)
    }

    /// Sets a field, copying both; its deadline stays. Whether it is new.
    pub fn set_value(&mut self, field: &[u8], value: &[u8]) -> bool {
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
        self.set_deadline(field, None);
        let value = if self.large {
            self.fields.swap_remove(field)
        } else {
            self.fields.shift_remove(field)
        }?;
        self.bytes -= field.len() + value.len();
        Some(value)
    }

    /// When a field ends.
    pub fn deadline(&self, field: &[u8]) -> Option<Millis> {
        self.deadlines.get(field).copied()
    }

    /// When the first field ends.
    pub fn first_deadline(&self) -> Option<Millis> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Says when a field ends, if it is there.
    pub fn set_deadline(&mut self, field: &[u8], deadline: Option<Millis>) {
        if let Some((name, at)) = self.deadlines.remove_entry(field) {
            self.ends.remove(&(at, name));
            self.bytes -= DEADLINE_BYTES;
        }
        if let (Some(at), Some((name, _))) = (deadline, self.fields.get_key_value(field)) {
            self.deadlines.insert(name.clone(), at);
            self.ends.insert((at, name.clone()));
            self.bytes += DEADLINE_BYTES;
            self.extended = true;
        }
    }

    /// Removes up to `most` fields that have ended at `now`, in the order in which they did. How many went.
    pub(in crate::machine) fn remove_ended(&mut self, now: Millis, most: usize) -> usize {
        for gone in 0..most {
            match self.ends.first() {
                Some((at, field)) if *at <= now => {
                    let field = field.clone();
                    self.remove(&field);
                }
                _ => return gone,
            }
        }
        most
    }

    /// What a reader sees at `now`.
    pub(in crate::machine) fn at_time(&self, now: Millis) -> Living<'_> {
        Living { hash: self, now }
    }

    /// Bytes of all fields and values, and what each field takes beside them.
    pub fn bytes(&self) -> usize {
        self.bytes + self.fields.len() * HASH_FIELD_BYTES
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        match (self.large, self.extended) {
            (true, _) => "hashtable",
            (false, true) => "listpackex",
            (false, false) => "listpack",
        }
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
        out.write_all(&[u8::from(self.large) | u8::from(self.extended) << 1])?;
        write_length(out, self.len())?;
        for (name, value) in self.iter() {
            write_bytes(out, name)?;
            write_bytes(out, value)?;
        }
        if self.extended {
            write_length(out, self.deadlines.len())?;
            for (name, at) in &self.deadlines {
                write_bytes(out, name)?;
                out.write_all(&at.to_le_bytes())?;
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (kind, count) = (from.u8()?, from.u32()?);
        if kind > 3 {
            return Err(invalid(format!(
                "a hash of kind {kind}, which a later version may know"
            )));
        }
        let (large, extended) = (kind & 1 == 1, kind & 2 == 2);
        let mut hash = Self::default();
        for _ in 0..count {
            if !hash.set_shared(from.bytes()?, from.bytes()?) {
                return Err(invalid("a field that was there before".to_owned()));
            }
        }
        for _ in 0..if extended { from.u32()? } else { 0 } {
            let (name, at) = (from.bytes()?, from.u64()?);
            if hash.get(&name).is_none() || hash.deadline(&name).is_some() {
                return Err(invalid(
                    "a deadline of a field that is not there, or has one".to_owned(),
                ));
            }
            hash.set_deadline(&name, Some(at));
        }
        (hash.large, hash.extended, hash.longest) = (large, extended, 0);
        Ok(hash)
    }
}

/// A hash as it is at one time: without the fields that have ended but were not removed yet.
#[derive(Clone, Copy, Debug)]
pub struct Living<'a> {
    hash: &'a Hash,
    now: Millis,
}

impl<'a> Living<'a> {
    fn lives(&self, field: &[u8]) -> bool {
        self.hash.deadlines.is_empty() || self.hash.deadline(field).is_none_or(|at| at > self.now)
    }

    /// How many fields, those that have ended but were not removed yet included, as in Redis.
    pub fn len(&self) -> usize {
        self.hash.len()
    }

    /// Whether there are none; such a hash is never stored.
    pub fn is_empty(&self) -> bool {
        self.hash.is_empty()
    }

    /// Whether Redis would hold it as a hash table instead of a listpack.
    pub fn is_large(&self) -> bool {
        self.hash.is_large()
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&'a Bytes> {
        self.hash.get(field).filter(|_| self.lives(field))
    }

    /// When a field ends.
    pub fn deadline(&self, field: &[u8]) -> Option<Millis> {
        self.hash.deadline(field)
    }

    /// All fields and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> + use<'a> {
        let living = *self;
        self.hash
            .fields
            .iter()
            .filter(move |(field, _)| living.lives(field))
    }

    /// The field at a position, 0 to `len() - 1`; none if it has ended.
    pub fn at(&self, position: usize) -> Option<(&'a Bytes, &'a Bytes)> {
        self.hash.at(position).filter(|(field, _)| self.lives(field))
    }
}
