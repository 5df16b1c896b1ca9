//! What a key can hold: one file per type. Changed only through [`super::keyspace`]; each value knows its size in bytes without counting.

pub(crate) mod counted;
mod hash;
mod list;
mod order;
pub(super) mod packed;
pub mod session;
mod set;
pub mod stream;
mod string;
mod text;
mod zset;

pub(super) use counted::counted;
pub use hash::{Hash, Living};
pub use list::{End, List};
pub use session::Session;
pub use set::Set;
pub use stream::Stream;
pub use string::{Encoding, Str};
pub use text::Text;
pub use zset::Zset;

use super::entry::Millis;
use super::reply::CommandError;
use super::settings::Settings;
use super::snapshot::{Source, invalid};
use std::io;
use std::sync::Arc;

/// Bytes that each element of a value takes beside its content, as measured with a million short ones of each: its places in the value's own
/// tables, their room to grow, and what the allocator adds. As they decide what is refused for memory, every version of this program must
/// count alike.
const LIST_ELEMENT_BYTES: usize = 64;
const SET_MEMBER_BYTES: usize = 112;
const HASH_FIELD_BYTES: usize = 192;
const ZSET_MEMBER_BYTES: usize = 192;

/// One value. A clone counts references: reads and snapshots share, the writer copies before its first change.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One run of bytes.
    String(Str),
    /// Fields and their values.
    Hash(Arc<Hash>),
    /// A web session.
    Session(Arc<Session>),
    /// Elements in the order they were pushed.
    List(Arc<List>),
    /// Different members.
    Set(Arc<Set>),
    /// Different members in the order of their scores.
    Zset(Arc<Zset>),
    /// Entries in the order of their ids, and the groups that read them.
    Stream(Arc<Stream>),
}

/// A type that a key can hold: how a value is made of it, and how it is found in one.
pub trait Kind: Clone + Default {
    /// It, where the value is of this type.
    fn of(value: &Value) -> Option<&Self>;

    /// It, to be changed: copied first if it is shared.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;

    /// A value of it.
    fn into_value(self) -> Value;
}

macro_rules! kinds {
    ($($kind:ident),*) => {$(
        impl Kind for $kind {
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$kind(it) = value { Some(it) } else { None }
            }

            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$kind(it) = value { Some(Arc::make_mut(it)) } else { None }
            }

            fn into_value(self) -> Value {
                Value::$kind(Arc::new(self))
            }
        }
    )*};
}

kinds!(Hash, Session, List, Set, Zset, Stream);

impl Value {
    /// Something of where its references are counted: it is in the processor's cache then.
    pub(in crate::machine) fn glance(&self) -> u8 {
        let count = match self {
            // Beside the content, where that is short.
            Self::String(string) => return string.bytes().first().copied().unwrap_or_default(),
            Self::Hash(hash) => Arc::strong_count(hash),
            Self::Session(session) => Arc::strong_count(session),
            Self::List(list) => Arc::strong_count(list),
            Self::Set(set) => Arc::strong_count(set),
            Self::Zset(zset) => Arc::strong_count(zset),
            Self::Stream(stream) => Arc::strong_count(stream),
        };
        count as u8
    }

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
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Zset(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    /// Whether it is a web session.
    pub fn is_session(&self) -> bool {
        matches!(self, Self::Session(_))
    }

    /// How Redis would hold it, as `OBJECT ENCODING` says it.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::String(string) => match string.encoding() {
                Encoding::Int => "int",
                Encoding::Embstr => "embstr",
                Encoding::Raw => "raw",
            },
            Self::Hash(hash) => hash.encoding(),
            Self::Session(_) => "session",
            Self::List(list) => list.encoding(),
            Self::Set(set) => set.encoding(),
            Self::Zset(zset) => zset.encoding(),
            Self::Stream(_) => "stream",
        }
    }

    /// Bytes of content (without the map's own overhead). Constant time.
    pub fn bytes(&self) -> usize {
        match self {
            Self::String(string) => string.bytes().len(),
            Self::Hash(hash) => hash.bytes(),
            Self::Session(session) => session.bytes(),
            Self::List(list) => list.bytes(),
            Self::Set(set) => set.bytes(),
            Self::Zset(zset) => zset.bytes(),
            Self::Stream(stream) => stream.bytes(),
        }
    }

    /// How many parts it has that are freed one by one, about. Constant time.
    pub fn parts(&self) -> usize {
        match self {
            Self::String(_) => 1,
            Self::Hash(hash) => hash.len(),
            Self::Session(session) => session.items.len(),
            Self::List(list) => list.len(),
            Self::Set(set) => set.len(),
            Self::Zset(zset) => zset.len(),
            Self::Stream(stream) => stream.log.len(),
        }
    }

    /// Takes up to so many parts away from what only this has and is only to be freed still. Whether there are more.
    pub(in crate::machine) fn dismantle(&mut self, most: usize) -> bool {
        match self {
            Self::Hash(hash) => Arc::get_mut(hash).is_some_and(|hash| hash.dismantle(most)),
            Self::List(list) => Arc::get_mut(list).is_some_and(|list| list.dismantle(most)),
            Self::Set(set) => Arc::get_mut(set).is_some_and(|set| set.dismantle(most)),
            Self::Zset(zset) => Arc::get_mut(zset).is_some_and(|zset| zset.dismantle(most)),
            Self::Stream(stream) => Arc::get_mut(stream).is_some_and(|stream| stream.log.dismantle()),
            // A string is one piece, and a session has few.
            Self::String(_) | Self::Session(_) => false,
        }
    }

    /// When the first part of it ends by itself: a field of a hash, an item of a session or somebody's hold of its lock.
    pub fn first_deadline(&self) -> Option<Millis> {
        match self {
            Self::Hash(hash) => hash.first_deadline(),
            Self::Session(session) => session.first_deadline(),
            _ => None,
        }
    }

    /// Whether it is of a type that is no more when nothing is in it, and nothing is.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::String(_) | Self::Session(_) | Self::Stream(_) => false,
            Self::Hash(hash) => hash.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Zset(zset) => zset.is_empty(),
        }
    }

    /// After a change: takes on the encoding that Redis would change to now. Constant time, unless it changes.
    pub(super) fn settle(&mut self, settings: &Settings) {
        match self {
            // A sorted set settles at each addition.
            Self::String(_) | Self::Session(_) | Self::List(_) | Self::Zset(_) | Self::Stream(_) => {}
            Self::Hash(hash) if hash.is_settled(settings) => {}
            Self::Hash(hash) => Arc::make_mut(hash).settle(settings),
            Self::Set(set) if set.is_settled(settings) => {}
            Self::Set(set) => Arc::make_mut(set).settle(settings),
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

    /// What is here, if it is of this type.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn as_kind<K: Kind>(&self) -> Result<&K, CommandError> {
        K::of(self).ok_or(CommandError::WrongType)
    }

    /// The session here.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn as_session(&self) -> Result<&Session, CommandError> {
        self.as_kind()
    }

    /// The session here, to be kept without copying it: who changes it later copies it first.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn as_shared_session(&self) -> Result<&Arc<Session>, CommandError> {
        if let Self::Session(session) = self {
            Ok(session)
        } else {
            Err(CommandError::WrongType)
        }
    }

    /// Its bytes in a snapshot: a byte for the type, then what the type's file says.
    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let kind: u8 = match self {
            Self::String(_) => 1,
            Self::Hash(_) => 2,
            Self::Session(_) => 8,
            Self::List(_) => 4,
            Self::Set(_) => 5,
            Self::Zset(_) => 6,
            Self::Stream(_) => 7,
        };
        out.write_all(&[kind])?;
        match self {
            Self::String(string) => string.write(out),
            Self::Hash(hash) => hash.write(out),
            Self::Session(session) => session.write(out),
            Self::List(list) => list.write(out),
            Self::Set(set) => set.write(out),
            Self::Zset(zset) => zset.write(out),
            Self::Stream(stream) => stream.write(out),
        }
    }

    /// What [`Value::write`] wrote.
    ///
    /// # Errors
    /// `InvalidData` where the bytes are of no value that could be.
    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let value = match from.u8()? {
            1 => Self::String(Str::read(from)?),
            2 => Hash::read(from)?.into_value(),
            3 => Session::read_old(from)?.into_value(),
            4 => List::read(from)?.into_value(),
            5 => Set::read(from)?.into_value(),
            6 => Zset::read(from)?.into_value(),
            7 => Stream::read(from)?.into_value(),
            8 => Session::read(from)?.into_value(),
            kind => {
                return Err(invalid(format!(
                    "a value of kind {kind}, which a later version may know"
                )));
            }
        };
        if value.is_gone() {
            return Err(invalid(format!("a {} with nothing in it", value.type_name())));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else `maxmemory` would mean nothing where elements are short.
    #[test]
    fn short_elements_count_what_holds_them_too() {
        const COUNT: usize = 1_000;
        let (mut hash, mut list, mut set, mut zset) =
            (Hash::default(), List::default(), Set::default(), Zset::default());
        for number in 0..COUNT {
            let text = number.to_string();
            hash.set(text.as_bytes(), b"");
            list.push_back(text.as_bytes());
            set.insert(text.as_bytes());
            zset.insert(text.as_bytes(), 0.0, &Settings::default());
        }
        // A text that is no part of another has an allocation of its own.
        let text = size_of::<bytes::Bytes>() + 32;
        assert!(list.bytes() >= COUNT * text);
        assert!(set.bytes() >= COUNT * (text + 2 * size_of::<usize>()));
        assert!(hash.bytes() >= COUNT * (2 * text + 2 * size_of::<usize>()));
        assert!(zset.bytes() >= COUNT * (2 * text + 2 * size_of::<f64>()));
    }
}
