//! Strings: one run of bytes, and how Redis would hold it.

use super::counted;
use crate::machine::snapshot::{Source, invalid, write_bytes};
use bytes::{Bytes, BytesMut};
use std::io;

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

    /// Copies `bytes`, so that a value never pins the buffer it came in, and sharing it allocates nothing.
    pub fn new(bytes: &[u8]) -> Self {
        let encoding = if crate::machine::args::integer(bytes).is_some() {
            Encoding::Int
        } else if bytes.len() <= Self::EMBSTR_MAX {
            Encoding::Embstr
        } else {
            Encoding::Raw
        };
        Self {
            bytes: counted(bytes),
            encoding,
        }
    }

    /// A string that Redis keeps as text even if it reads as an integer: what `INCRBYFLOAT` leaves.
    pub(in crate::machine) fn as_text(bytes: Bytes) -> Self {
        let encoding = if bytes.len() <= Self::EMBSTR_MAX {
            Encoding::Embstr
        } else {
            Encoding::Raw
        };
        Self { bytes, encoding }
    }

    /// A string as a snapshot has it. `None` if such bytes never have this encoding.
    pub(in crate::machine) fn restored(bytes: Bytes, encoding: Encoding) -> Option<Self> {
        let possible = match encoding {
            Encoding::Int => crate::machine::args::integer(&bytes).is_some(),
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

    /// Changes the content in place (`APPEND`, `SETRANGE`, `SETBIT`): from then on it is `raw`. Copies only if
    /// shared, or at the first change of a short one.
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

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let encoding = match self.encoding {
            Encoding::Int => 1,
            Encoding::Embstr => 2,
            Encoding::Raw => 3,
        };
        out.write_all(&[encoding])?;
        write_bytes(out, &self.bytes)
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let encoding = match from.u8()? {
            1 => Encoding::Int,
            2 => Encoding::Embstr,
            3 => Encoding::Raw,
            other => return Err(invalid(format!("a string of encoding {other}"))),
        };
        Self::restored(from.value()?, encoding)
            .ok_or_else(|| invalid(format!("a string that cannot be of encoding {encoding:?}")))
    }
}
