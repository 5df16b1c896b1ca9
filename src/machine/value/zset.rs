//! Sorted sets: different members in the order of their scores.

use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexMap;
use std::io;

/// A sorted set.
#[derive(Clone, Debug, Default)]
pub struct Zset {
    scores: IndexMap<Bytes, f64>,
    /// Sum of the lengths of all members, and 8 for each score.
    bytes: usize,
    /// Whether Redis would hold it as a skip list instead of a listpack.
    large: bool,
    /// The longest member added since the last [`Zset::settle`]. Not state.
    longest: usize,
}

impl PartialEq for Zset {
    fn eq(&self, other: &Self) -> bool {
        self.large == other.large && self.scores.iter().eq(other.scores.iter())
    }
}

impl Zset {
    /// How many members.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there are none; such a sorted set is never stored.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Bytes of all members and scores.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        if self.large { "skiplist" } else { "listpack" }
    }

    pub(super) fn is_settled(&self, settings: &Settings) -> bool {
        self.longest == 0 && (self.large || self.len() <= settings.zset_max_listpack_entries)
    }

    pub(super) fn settle(&mut self, settings: &Settings) {
        self.large |= self.longest > settings.zset_max_listpack_value
            || self.len() > settings.zset_max_listpack_entries;
        self.longest = 0;
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&[u8::from(self.large)])?;
        write_length(out, self.len())?;
        for (member, score) in &self.scores {
            write_bytes(out, member)?;
            out.write_all(&score.to_bits().to_le_bytes())?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (large, count) = (from.flag()?, from.u32()?);
        let mut zset = Self {
            large,
            ..Self::default()
        };
        for _ in 0..count {
            let (member, score) = (from.bytes()?, f64::from_bits(from.u64()?));
            zset.bytes += member.len() + 8;
            if score.is_nan() || zset.scores.insert(member, score).is_some() {
                return Err(invalid(
                    "a member that was there before, or has no score".to_owned(),
                ));
            }
        }
        Ok(zset)
    }
}
