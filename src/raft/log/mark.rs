//! How far the log was acknowledged, in a small file beside a journal; and numbers as such files keep them.
//!
//! A journal that ends early cannot tell by itself whether its end was never durable or is damaged. The mark says it: a log that ends
//! before its mark has lost something. It is written after each batch and never flushed, which costs a microsecond: after the death of
//! the process it is there, and after power loss an older one serves nearly as well.
//!
//! ```text
//! file = what it is, 7 letters, and version u8 (1) | number u64 | crc32 of all before u32
//! ```

use crate::raft::files::{Disk, File, Open};
use bytes::Buf;
use std::io::{self, Read};
use std::path::Path;

/// What a mark begins with.
const MAGIC: &[u8; 8] = b"PLNMARK\x01";

/// Bytes of a file that holds one number.
const BYTES: usize = 8 + 8 + 4;

/// The greatest sequence number that was acknowledged.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Mark {
    /// Opens the mark, or creates it with 0, durably. Its handle and what it says.
    ///
    /// # Errors
    /// What [`decode`] answers, and the disk.
    pub(super) fn open(disk: &Disk, path: &Path) -> io::Result<(Self, u64)> {
        let mut file = disk.open(path, Open::OrCreate)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mark = Self { file };
        // Made, and then never flushed: power loss may leave its length and none of its content.
        if bytes.iter().all(|byte| *byte == 0) {
            mark.write(0)?;
            mark.file.sync_all()?;
            disk.sync_folder(path.parent().expect("a file in the data folder has a parent"))?;
            return Ok((mark, 0));
        }
        Ok((mark, decode(MAGIC, &bytes)?))
    }

    /// Notes a sequence number. Not flushed, see above.
    pub(super) fn write(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(MAGIC, sequence), 0)
    }
}

/// A number as a file.
pub(super) fn encode(magic: &[u8; 8], number: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(magic);
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The number in a file.
///
/// # Errors
/// `InvalidData` when it is damaged or another kind of file, `Unsupported` when it is of a later version.
pub(super) fn decode(magic: &[u8; 8], bytes: &[u8]) -> io::Result<u64> {
    let number = bytes.get(8..16).map_or(0, |mut bytes| bytes.get_u64_le());
    if bytes == encode(magic, number) {
        return Ok(number);
    }
    let mut head = *magic;
    head[7] = bytes.get(7).copied().unwrap_or_default();
    // Whole, but for its version.
    Err(if head != *magic && bytes == encode(&head, number) {
        let why = format!(
            "it has format {}, this program reads {}: run a newer one",
            head[7], magic[7]
        );
        io::Error::new(io::ErrorKind::Unsupported, why)
    } else {
        io::Error::new(io::ErrorKind::InvalidData, "its content is damaged")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_mark_stay() {
        assert_eq!(
            encode(MAGIC, 0x0102_0304_0506_0708),
            *b"PLNMARK\x01\x08\x07\x06\x05\x04\x03\x02\x01\x2e\x47\xb4\xe1"
        );
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let later = encode(b"PLNMARK\x02", 9);
        let said = decode(MAGIC, &later).unwrap_err().to_string();
        assert_eq!(said, "it has format 2, this program reads 1: run a newer one");
        let another = encode(b"PLNFLOR\x02", 9);
        assert_eq!(
            decode(MAGIC, &another).unwrap_err().to_string(),
            "its content is damaged"
        );
    }

    #[test]
    fn every_flip_and_cut_is_noticed() {
        let bytes = encode(MAGIC, 9);
        assert_eq!(decode(MAGIC, &bytes).unwrap(), 9);
        assert!(decode(b"PLNFLOR\x01", &bytes).is_err());
        for at in 0..bytes.len() {
            assert!(decode(MAGIC, &bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = bytes;
                bytes[at] ^= 1 << bit;
                assert!(decode(MAGIC, &bytes).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}
