//! Hashes: fields, their values, and when a field ends if it does.

use super::packed::Packed;
use super::{HASH_FIELD_BYTES, counted};
use crate::machine::entry::Millis;
use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Bytes that the deadline of a field counts: a place in two trees.
const DEADLINE_BYTES: usize = 112;

/// Up to so many fields, and so many bytes of all fields and values, a hash stands in one run of memory: there walking along it, and copying it for a
/// change, cost no more than a table does.
const PACKED_FIELDS: usize = 128;
const PACKED_BYTES: usize = 8 << 10;

/// A hash: fields in the order they were set while it is small, as Redis' listpack keeps them.
///
/// Large ones (over `hash-max-listpack-entries` fields, or given a field or value over `hash-max-listpack-value` bytes; for good once it was so) give
/// up the order on removal to remove in constant time. Either way the order is a function of the log alone.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: Fields,
    /// Sum of the lengths of all fields and values, and [`DEADLINE_BYTES`] for each deadline.
    bytes: usize,
    large: bool,
    /// Whether a field ever had a deadline, which Redis shows while it is small.
    extended: bool,
    /// When fields end; none where none ever had a deadline.
    ends: Option<Box<Ends>>,
    /// The longest field or value set since the last [`Hash::settle`]: what decides then whether it is large. Not state.
    longest: usize,
}

/// How the fields stand in memory. Not state: it shows in nothing but room and time.
#[derive(Clone, Debug)]
enum Fields {
    /// Few and short ones.
    Packed(Packed),
    /// All others; a hash that was one of these stays so.
    Table(Box<IndexMap<Bytes, Bytes>>),
}

/// When fields end.
#[derive(Clone, Debug, Default)]
struct Ends {
    of_field: BTreeMap<Bytes, Millis>,
    /// The same in the order of time.
    in_time: BTreeSet<(Millis, Bytes)>,
}

impl Default for Fields {
    fn default() -> Self {
        Self::Packed(Packed::default())
    }
}

impl Fields {
    fn len(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.len(),
            Self::Table(table) => table.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (packed, table) = match self {
            Self::Packed(packed) => (Some(packed.iter()), None),
            Self::Table(table) => (None, Some(table.iter())),
        };
        let table = table.into_iter().flatten();
        packed
            .into_iter()
            .flatten()
            .chain(table.map(|(field, value)| (&field[..], &value[..])))
    }

    /// A field and its value, to be kept.
    fn shared(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let (packed, table) = match self {
            Self::Packed(packed) => (Some(packed.shared()), None),
            Self::Table(table) => (None, Some(table.iter())),
        };
        let table = table.into_iter().flatten();
        packed
            .into_iter()
            .flatten()
            .chain(table.map(|(field, value)| (field.clone(), value.clone())))
    }

    fn at(&self, position: usize) -> Option<(Bytes, Bytes)> {
        match self {
            Self::Packed(packed) => {
                let (field, value) = packed.iter().nth(position)?;
                Some((packed.share(field), packed.share(value)))
            }
            Self::Table(table) => {
                let (field, value) = table.get_index(position)?;
                Some((field.clone(), value.clone()))
            }
        }
    }

    fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Packed(packed) => packed.find(field).map(|place| packed.value(&place)),
            Self::Table(table) => table.get(field).map(|value| &value[..]),
        }
    }

    fn value(&self, field: &[u8]) -> Option<Bytes> {
        match self {
            Self::Packed(packed) => packed.find(field).map(|place| packed.share(packed.value(&place))),
            Self::Table(table) => table.get(field).cloned(),
        }
    }

    /// Sets a field, copying both. The length of the value it had.
    fn set(&mut self, field: &[u8], value: &[u8]) -> Option<usize> {
        if let Self::Packed(packed) = self {
            let place = packed.find(field);
            let more = if place.is_some() { 0 } else { field.len() };
            let fits = packed.bytes() + more + value.len() <= PACKED_BYTES;
            if fits && (place.is_some() || packed.len() < PACKED_FIELDS) {
                let old = place.as_ref().map(|place| packed.value(place).len());
                match place {
                    Some(place) => packed.set(&place, value),
                    None => packed.push(field, value),
                }
                return old;
            }
        }
        let (table, value) = (self.table(), counted(value));
        match table.get_mut(field) {
            Some(old) => Some(std::mem::replace(old, value).len()),
            None => {
                table.insert(Bytes::copy_from_slice(field), value);
                None
            }
        }
    }

    /// It as a table.
    fn table(&mut self) -> &mut IndexMap<Bytes, Bytes> {
        if let Self::Packed(packed) = self {
            let copy = |(field, value)| (Bytes::copy_from_slice(field), counted(value));
            *self = Self::Table(Box::new(packed.iter().map(copy).collect()));
        }
        match self {
            Self::Table(table) => table,
            Self::Packed(_) => unreachable!("it is a table by now"),
        }
    }

    /// Removes a field; the others keep their order, or else the last one takes its place. The length of its value, if it was there.
    fn remove(&mut self, field: &[u8], in_order: bool) -> Option<usize> {
        match self {
            Self::Packed(packed) => {
                let place = packed.find(field)?;
                let length = packed.value(&place).len();
                if in_order {
                    packed.remove(&place);
                } else {
                    packed.swap_remove(&place);
                }
                Some(length)
            }
            Self::Table(table) if in_order => table.shift_remove(field).map(|value| value.len()),
            Self::Table(table) => table.swap_remove(field).map(|value| value.len()),
        }
    }
}

impl PartialEq for Hash {
    /// Equal with the same fields in the same order: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large
            && self.extended == other.extended
            && self.bytes == other.bytes
            && self.deadlines().eq(other.deadlines())
            && self.fields.iter().eq(other.fields.iter())
    }
}

impl Hash {
    /// See [`Value::dismantle`](super::Value::dismantle). Those with deadlines are few, and go with the rest.
    pub(super) fn dismantle(&mut self, most: usize) -> bool {
        let Fields::Table(table) = &mut self.fields else {
            return false;
        };
        table.truncate(table.len().saturating_sub(most));
        !table.is_empty()
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none; such a hash is never stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether Redis would hold it as a hash table instead of a listpack.
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// The value of a field, to look at.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field)
    }

    /// All fields and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter()
    }

    /// Sets a field, copying both; it has no deadline then. Whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.set_deadline(field, None);
        self.set_value(field, value)
    }

    /// Sets a field, copying both; its deadline stays. Whether it is new.
    pub fn set_value(&mut self, field: &[u8], value: &[u8]) -> bool {
        let old = self.fields.set(field, value);
        self.bytes = self.bytes - old.unwrap_or(0) + value.len();
        self.longest = self.longest.max(value.len());
        if old.is_none() {
            self.bytes += field.len();
            self.longest = self.longest.max(field.len());
        }
        old.is_none()
    }

    /// Removes a field. Whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.set_deadline(field, None);
        let Some(length) = self.fields.remove(field, !self.large) else {
            return false;
        };
        self.bytes -= field.len() + length;
        true
    }

    /// When a field ends.
    pub fn deadline(&self, field: &[u8]) -> Option<Millis> {
        self.ends.as_ref()?.of_field.get(field).copied()
    }

    /// The fields that end, by name, and when they do.
    fn deadlines(&self) -> impl Iterator<Item = (&Bytes, &Millis)> {
        self.ends.iter().flat_map(|ends| &ends.of_field)
    }

    /// When the first field ends.
    pub fn first_deadline(&self) -> Option<Millis> {
        self.ends.as_ref()?.in_time.first().map(|(at, _)| *at)
    }

    /// Says when a field ends, if it is there.
    pub fn set_deadline(&mut self, field: &[u8], deadline: Option<Millis>) {
        if let Some(ends) = &mut self.ends
            && let Some((name, at)) = ends.of_field.remove_entry(field)
        {
            ends.in_time.remove(&(at, name));
            self.bytes -= DEADLINE_BYTES;
        }
        if let Some(at) = deadline
            && self.fields.get(field).is_some()
        {
            let ends = self.ends.get_or_insert_default();
            let name = Bytes::copy_from_slice(field);
            ends.of_field.insert(name.clone(), at);
            ends.in_time.insert((at, name));
            self.bytes += DEADLINE_BYTES;
            self.extended = true;
        }
    }

    /// Removes up to `most` fields whose deadlines have `passed`, in the order in which they did. How many went.
    pub(in crate::machine) fn remove_ended(&mut self, passed: Millis, most: usize) -> usize {
        for gone in 0..most {
            let first = self.ends.as_ref().and_then(|ends| ends.in_time.first());
            let Some((_, field)) = first.filter(|(at, _)| *at <= passed) else {
                return gone;
            };
            let field = field.clone();
            self.remove(&field);
        }
        most
    }

    /// What a reader sees once these deadlines have `passed`.
    pub(in crate::machine) fn after(&self, passed: Millis) -> Living<'_> {
        Living { hash: self, passed }
    }

    /// Bytes of all fields and values, and what each field takes beside them.
    pub fn bytes(&self) -> usize {
        self.bytes + self.len() * HASH_FIELD_BYTES
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
        self.longest == 0 && (self.large || self.len() <= settings.hash_max_listpack_entries)
    }

    pub(super) fn settle(&mut self, settings: &Settings) {
        self.large |= self.longest > settings.hash_max_listpack_value
            || self.len() > settings.hash_max_listpack_entries;
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
            write_length(out, self.deadlines().count())?;
            for (name, at) in self.deadlines() {
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
        let mut hash = Self::read_fields(from, count as usize)?;
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

/// Room for the fields of a small hash that is read; more is taken where it is needed.
const READ_BYTES: usize = 1 << 10;

impl Hash {
    /// Reads fields, those of a small hash straight into its run.
    fn read_fields(from: &mut dyn Source, count: usize) -> io::Result<Self> {
        let twin = || invalid("a field that was there before".to_owned());
        let mut hash = Self::default();
        if count > PACKED_FIELDS {
            for _ in 0..count {
                if !hash.set_value(&from.bytes()?, &from.bytes()?) {
                    return Err(twin());
                }
            }
            return Ok(hash);
        }
        let mut run = Vec::with_capacity(READ_BYTES);
        for _ in 0..2 * count {
            hash.bytes += from.text_into(&mut run)?.len();
        }
        let packed = Packed::of(&run, count).ok_or_else(twin)?;
        hash.fields = Fields::Packed(packed);
        if run.len() > PACKED_BYTES {
            hash.fields.table();
        }
        Ok(hash)
    }
}

/// A hash as it is at one time: without the fields that have ended but were not removed yet.
#[derive(Clone, Copy, Debug)]
pub struct Living<'a> {
    hash: &'a Hash,
    passed: Millis,
}

impl<'a> Living<'a> {
    fn lives(&self, field: &[u8]) -> bool {
        self.hash.deadline(field).is_none_or(|at| at > self.passed)
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

    /// The value of a field, to look at.
    pub fn get(&self, field: &[u8]) -> Option<&'a [u8]> {
        self.hash.get(field).filter(|_| self.lives(field))
    }

    /// The value of a field, to be kept.
    pub fn value(&self, field: &[u8]) -> Option<Bytes> {
        let living = Some(&self.hash.fields).filter(|_| self.lives(field));
        living.and_then(|fields| fields.value(field))
    }

    /// When a field ends.
    pub fn deadline(&self, field: &[u8]) -> Option<Millis> {
        self.hash.deadline(field)
    }

    /// All fields and values, in order, to look at.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let living = *self;
        self.hash.iter().filter(move |(field, _)| living.lives(field))
    }

    /// All fields and values, in order, to be kept.
    pub fn shared(&self) -> impl Iterator<Item = (Bytes, Bytes)> + use<'a> {
        let living = *self;
        let fields = self.hash.fields.shared();
        fields.filter(move |(field, _)| living.lives(field))
    }

    /// The field at a position, 0 to `len() - 1`; none if it has ended.
    pub fn at(&self, position: usize) -> Option<(Bytes, Bytes)> {
        let field = self.hash.fields.at(position);
        field.filter(|(field, _)| self.lives(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Change {
        Set(u8, usize),
        Remove(u8),
        Ends(u8, Option<Millis>),
        Settle,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (any::<u8>(), 0..100usize).prop_map(|(field, length)| Change::Set(field, length)),
            any::<u8>().prop_map(Change::Remove),
            (any::<u8>(), prop::option::of(1..9u64)).prop_map(|(field, at)| Change::Ends(field, at)),
            Just(Change::Settle),
        ]
    }

    proptest! {
        /// A node that was restored from a snapshot may have another form in memory than those that were not: it must not show.
        #[test]
        fn its_form_shows_in_nothing(changes in prop::collection::vec(change(), 0..300), fields in 1..=u8::MAX) {
            let settings = Settings::default();
            let (mut one, mut other) = (Hash::default(), Hash::default());
            other.fields.table();
            for change in changes {
                for hash in [&mut one, &mut other] {
                    match change {
                        Change::Set(field, length) => _ = hash.set(&[field % fields], &vec![field; length]),
                        Change::Remove(field) => _ = hash.remove(&[field % fields]),
                        Change::Ends(field, at) => hash.set_deadline(&[field % fields], at),
                        Change::Settle => hash.settle(&settings),
                    }
                }
                prop_assert_eq!(&one, &other);
                prop_assert_eq!(one.len(), one.iter().count());
            }
            let passed = 4;
            prop_assert!(one.after(passed).shared().eq(other.after(passed).shared()));
            for field in 0..u8::MAX {
                let (one, other) = (one.after(passed), other.after(passed));
                prop_assert_eq!(one.get(&[field]), other.get(&[field]));
                prop_assert_eq!(one.value(&[field]), other.value(&[field]));
                prop_assert_eq!(one.at(field.into()), other.at(field.into()));
            }
        }
    }
}
