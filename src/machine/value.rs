//! What a key can hold. Changed only through [`super::keyspace`]; each value knows its size in bytes without counting.

use super::reply::CommandError;
use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use std::sync::Arc;

/// One value. A clone counts references: reads and snapshots share, the writer copies before its first change.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One run of bytes.
    String(Str),
    /// Fields and their values.
    Hash(Arc<Hash>),
    /// A web session.
    Session(Arc<Session>),
}

impl Value {
    /// A string that copies `bytes`, encoded as Redis would.
    pub fn string(bytes: &[u8]) -> Self {
        Self::String(Str::new(bytes))
    }

    /// The type's name as `TYPE` says it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Hash(_) => "hash",
            Self::Session(_) => "session",
        }
    }

    /// Bytes of content (without the map's own overhead). Constant time.
    pub fn bytes(&self) -> usize {
        match self {
            Self::String(string) => string.bytes.len(),
            Self::Hash(hash) => hash.bytes,
            Self::Session(session) => session.bytes(),
        }
    }

    /// The string here.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn as_string(&self) -> Result<&Str, CommandError> {
        if let Self::String(string) = self {
            Ok(string)
        } else {
            Err(CommandError::WrongType)
        }
    }

    /// The hash here.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn as_hash(&self) -> Result<&Hash, CommandError> {
        if let Self::Hash(hash) = self {
            Ok(hash)
        } else {
            Err(CommandError::WrongType)
        }
    }

    /// The session here.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn as_session(&self) -> Result<&Session, CommandError> {
        if let Self::Session(session) = self {
            Ok(session)
        } else {
            Err(CommandError::WrongType)
        }
    }
}

/// How Redis would hold a string; seen through `OBJECT ENCODING` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A 64-bit integer in its shortest decimal form.
    Int,
    /// At most 44 bytes, never changed in place.
    Embstr,
    /// Anything else.
    Raw,
}

/// A string and how Redis would hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Str {
    bytes: Bytes,
    encoding: Encoding,
}

impl Str {
    /// The longest string Redis keeps as `embstr`.
    const EMBSTR_MAX: usize = 44;

    /// Copies `bytes`, so that a value never pins the buffer it came in.
    pub fn new(bytes: &[u8]) -> Self {
        let encoding = if super::args::integer(bytes).is_some() {
            Encoding::Int
        } else if bytes.len() <= Self::EMBSTR_MAX {
            Encoding::Embstr
        } else {
            Encoding::Raw
        };
        Self {
            bytes: Bytes::copy_from_slice(bytes),
            encoding,
        }
    }

    /// A string that Redis keeps as text even if it reads as an integer: what `INCRBYFLOAT` leaves.
    pub(super) fn as_text(bytes: Bytes) -> Self {
        let encoding = if bytes.len() <= Self::EMBSTR_MAX {
            Encoding::Embstr
        } else {
            Encoding::Raw
        };
        Self { bytes, encoding }
    }

    /// A string as a snapshot has it. `None` if such bytes never have this encoding.
    pub(super) fn restored(bytes: Bytes, encoding: Encoding) -> Option<Self> {
        let possible = match encoding {
            Encoding::Int => super::args::integer(&bytes).is_some(),
            Encoding::Embstr => bytes.len() <= Self::EMBSTR_MAX,
            Encoding::Raw => true,
        };
        possible.then_some(Self { bytes, encoding })
    }

    /// The content, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Changes the content in place (`APPEND`, `SETRANGE`, `SETBIT`): from then on it is `raw`. Copies only if shared.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut BytesMut) -> R) -> R {
        let shared = std::mem::take(&mut self.bytes);
        let mut bytes = shared
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let result = change(&mut bytes);
        self.bytes = bytes.freeze();
        self.encoding = Encoding::Raw;
        result
    }
}

/// A hash: fields in the order they were set while it is small, as Redis' listpack keeps them.
///
/// Large ones (over [`Hash::LISTPACK_ENTRIES`] fields or a field or value over [`Hash::LISTPACK_BYTES`] bytes, for good once it was so) give up
/// the order on removal to remove in constant time. Either way the order is a function of the log alone.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: IndexMap<Bytes, Bytes>,
    /// Sum of the lengths of all fields and values.
    bytes: usize,
    large: bool,
}

impl PartialEq for Hash {
    /// Equal with the same fields in the same order: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large && self.bytes == other.bytes && self.fields.iter().eq(other.fields.iter())
    }
}

impl Hash {
    /// Redis' `hash-max-listpack-entries`.
    pub const LISTPACK_ENTRIES: usize = 512;
    /// Redis' `hash-max-listpack-value`.
    pub const LISTPACK_BYTES: usize = 64;

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
                self.large |= value.len() > Self::LISTPACK_BYTES;
                *slot = copy;
                false
            }
            None => self.set_shared(Bytes::copy_from_slice(field), copy),
        }
    }

    /// Adds a field that is not there, keeping the memory given. False, and nothing has changed, if it is there.
    pub(super) fn set_shared(&mut self, field: Bytes, value: Bytes) -> bool {
        let (field_len, value_len) = (field.len(), value.len());
        let indexmap::map::Entry::Vacant(place) = self.fields.entry(field) else {
            return false;
        };
        place.insert(value);
        self.bytes += field_len + value_len;
        self.large |= field_len > Self::LISTPACK_BYTES
            || value_len > Self::LISTPACK_BYTES
            || self.fields.len() > Self::LISTPACK_ENTRIES;
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

    /// Marks it large, as a snapshot noted.
    pub(super) fn set_large(&mut self, large: bool) {
        self.large = large;
    }
}

/// A web session: named items, a version, and how long it lives. `commands/session.rs` has its operations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Its items by name.
    pub items: Hash,
    /// Grows by one with every change of the items; a save names the version it read.
    pub version: u64,
    /// It ends when it was not used for this long, in milliseconds; 0: never.
    pub idle_timeout_ms: u64,
    /// It ends at this time at the latest, by the log's clock; 0: never.
    pub absolute_deadline: super::entry::Millis,
    /// When it was created, by the log's clock.
    pub created_at: super::entry::Millis,
    /// The user it belongs to; empty: nobody yet.
    pub owner: Bytes,
}

impl Session {
    /// Bytes that the numbers of a session take.
    const NUMBERS_BYTES: usize = 4 * 8;

    /// Bytes of content.
    pub fn bytes(&self) -> usize {
        self.items.bytes + self.owner.len() + Self::NUMBERS_BYTES
    }

    /// When it ends if it is used now and never again; none: never.
    pub fn deadline_after_use(&self, now: super::entry::Millis) -> Option<super::entry::Millis> {
        let idle = (self.idle_timeout_ms > 0).then(|| now.saturating_add(self.idle_timeout_ms));
        let absolute = (self.absolute_deadline > 0).then_some(self.absolute_deadline);
        idle.into_iter().chain(absolute).min()
    }
}
