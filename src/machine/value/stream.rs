//! Streams: entries in the order of their ids, and the groups that read them.

use crate::machine::snapshot::Source;
use std::io;

/// A stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    bytes: usize,
}

impl Stream {
    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&(self.bytes as u64).to_le_bytes())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        from.u64()?;
        Ok(Self::default())
    }
}
