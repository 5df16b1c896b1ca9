//! The bytes of a segment: its head, and the frames that hold batches. Knows of no file.
//!
//! ```text
//! segment = head | frame | frame | … | whatever was there before
//! head    = `PLNSEGM` and version u8 (1) | number u64 | salt u64 | first sequence number u64 | crc32 of all before u32
//! frame   = length of batch u32 | sequence number u64 | check of these two u32 | check of these two and the batch u32 | batch
//! check   = crc32 of number of the segment u64 | its salt u64 | what is checked
//! ```
//!
//! Fixed-width little-endian; a test pins them.
//!
//! A frame counts only where its checks and its sequence number are what must come next. A check begins with the segment's number and
//! salt, so what an earlier life of a recycled segment left never counts. The salt is random, so nobody who writes to the cache can make
//! bytes that would count if they were found where a frame could begin. The head has a check of its own, so that a length is believed
//! before the batch is read.

use bytes::{Buf, BufMut};
use crc32fast::Hasher;
use std::fmt;

const MAGIC: &[u8; 7] = b"PLNSEGM";

/// The layout written today. A reader refuses what it does not know.
const VERSION: u8 = 1;

/// Bytes before the first frame.
pub(super) const HEAD_BYTES: u64 = 8 + 8 + 8 + 8 + 4;

/// Bytes of a frame before its batch.
pub(super) const FRAME_BYTES: u64 = 4 + 8 + 4 + 4;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// One more than the segment before. Never used twice.
    pub(super) number: u64,
    /// Drawn for this life of the segment.
    pub(super) salt: u64,
    /// The sequence number of its first batch: all before it are in the segments before.
    pub(super) first: u64,
}

/// Why bytes are not the head of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What is wrong with them.
    Damaged(String),
    /// They are whole, and of a later version.
    Later(u8),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "is damaged: {why}"),
            Self::Later(version) => {
                write!(
                    f,
                    "has format {version}, this program reads {VERSION}: run a newer one"
                )
            }
        }
    }
}

impl Head {
    /// As bytes.
    pub(super) fn encode(self) -> [u8; HEAD_BYTES as usize] {
        let mut bytes = [0; HEAD_BYTES as usize];
        let mut out = &mut bytes[..];
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u64_le(self.number);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.first);
        let checksum = crc32fast::hash(&bytes[..HEAD_BYTES as usize - 4]);
        bytes[HEAD_BYTES as usize - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES as usize]) -> Result<Self, Fault> {
        let mut rest = &bytes[MAGIC.len()..];
        let version = rest.get_u8();
        let head = Self {
            number: rest.get_u64_le(),
            salt: rest.get_u64_le(),
            first: rest.get_u64_le(),
        };
        if crc32fast::hash(&bytes[..HEAD_BYTES as usize - 4]) != rest.get_u32_le() {
            return Err(Fault::Damaged("the checksum of its head does not fit".to_owned()));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Fault::Damaged("it is no segment".to_owned()));
        }
        if version != VERSION {
            return Err(Fault::Later(version));
        }
        Ok(head)
    }

    /// What checks of its frames begin with.
    pub(super) fn seal(self) -> Seal {
        let mut hasher = Hasher::new();
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&self.salt.to_le_bytes());
        Seal(hasher)
    }
}

/// What makes the checks of one segment's frames differ from all others'.
#[derive(Clone, Debug)]
pub(super) struct Seal(Hasher);

/// The head of a frame of this segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of the batch after it, at least one.
    pub(super) length: u32,
    /// Of the batch.
    pub(super) sequence: u64,
    check: u32,
}

impl Seal {
    /// The head of the frame that holds this batch.
    pub(super) fn frame(&self, sequence: u64, length: u32, batch: &[u8]) -> [u8; FRAME_BYTES as usize] {
        let mut bytes = [0; FRAME_BYTES as usize];
        let mut out = &mut bytes[..];
        let mut hasher = self.head(sequence, length);
        out.put_u32_le(length);
        out.put_u64_le(sequence);
        out.put_u32_le(hasher.clone().finalize());
        hasher.update(batch);
        out.put_u32_le(hasher.finalize());
        bytes
    }

    /// The head of a frame of this segment, if these bytes are one.
    pub(super) fn read(&self, bytes: &[u8; FRAME_BYTES as usize]) -> Option<Frame> {
        let mut rest = &bytes[..];
        let (length, sequence) = (rest.get_u32_le(), rest.get_u64_le());
        let of_head = rest.get_u32_le();
        let frame = Frame {
            length,
            sequence,
            check: rest.get_u32_le(),
        };
        (length > 0 && self.head(sequence, length).finalize() == of_head).then_some(frame)
    }

    /// Whether this is the batch that the frame was written for.
    pub(super) fn fits(&self, frame: Frame, batch: &[u8]) -> bool {
        let mut hasher = self.head(frame.sequence, frame.length);
        hasher.update(batch);
        hasher.finalize() == frame.check
    }

    fn head(&self, sequence: u64, length: u32) -> Hasher {
        let mut hasher = self.0.clone();
        hasher.update(&length.to_le_bytes());
        hasher.update(&sequence.to_le_bytes());
        hasher
    }
}

/// The sequence number that these bytes would have as the head of a frame: a look that is cheaper than [`Seal::read`].
pub(super) fn sequence_at(bytes: &[u8; FRAME_BYTES as usize]) -> u64 {
    (&bytes[4..]).get_u64_le()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        number: 3,
        salt: 0x1122_3344_5566_7788,
        first: 9,
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_version_1_stay() {
        assert_eq!(
            hex(&HEAD.encode()),
            "504c4e5345474d01030000000000000088776655443322110900000000000000f41f36ca"
        );
        assert_eq!(
            hex(&HEAD.seal().frame(9, 5, b"batch")),
            "050000000900000000000000397698f492babe99"
        );
    }

    #[test]
    fn every_flip_of_a_head_is_noticed() {
        let bytes = HEAD.encode();
        assert_eq!(Head::decode(&bytes), Ok(HEAD));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes;
                bytes[at] ^= 1 << bit;
                assert!(Head::decode(&bytes).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut bytes = HEAD.encode();
        bytes[MAGIC.len()] = 9;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        let refused = Head::decode(&bytes).unwrap_err();
        assert_eq!(refused, Fault::Later(9));
        assert_eq!(
            refused.to_string(),
            "has format 9, this program reads 1: run a newer one"
        );
    }

    #[test]
    fn a_frame_counts_in_its_own_segment_and_life_only() {
        let (bytes, seal) = (HEAD.seal().frame(9, 5, b"batch"), HEAD.seal());
        let frame = seal.read(&bytes).unwrap();
        assert_eq!((frame.length, frame.sequence, sequence_at(&bytes)), (5, 9, 9));
        assert!(seal.fits(frame, b"batch"));
        assert!(!seal.fits(frame, b"botch"));
        for other in [Head { number: 4, ..HEAD }, Head { salt: 1, ..HEAD }] {
            assert_eq!(other.seal().read(&bytes), None, "{other:?}");
            assert!(!other.seal().fits(frame, b"batch"), "{other:?}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes;
                bytes[at] ^= 1 << bit;
                let counts = seal.read(&bytes).is_some_and(|frame| seal.fits(frame, b"batch"));
                assert!(!counts, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(HEAD.seal().read(&[0; FRAME_BYTES as usize]), None);
    }
}
