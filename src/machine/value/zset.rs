//! Sorted sets: different members in the order of their scores.

use super::ZSET_MEMBER_BYTES;
use super::order::{Element, Order};
use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use indexmap::IndexMap;
use std::io;
use std::ops::Range;

/// A sorted set: members by rank, and scores by member. A score is never NaN.
///
/// Redis holds small ones as a listpack: what is seen of it is the name of the encoding, that it forgets the sign of a zero, that
/// `ZSCAN` answers it whole, and how that prints whole numbers. Whether it is one is therefore decided at each addition, as in Redis.
#[derive(Clone, Debug, Default)]
pub struct Zset {
    scores: IndexMap<Bytes, f64>,
    order: Order,
    /// Sum of the lengths of all members, and 8 for each score.
    bytes: usize,
    /// Whether Redis would hold it as a skip list instead of a listpack.
    large: bool,
}

impl PartialEq for Zset {
    /// Equal with the same members and scores, signs of zeros included, in the same order of walks: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        let bits = |(member, score): (&Bytes, &f64)| (member.clone(), score.to_bits());
        self.large == other.large && self.scores.iter().map(bits).eq(other.scores.iter().map(bits))
    }
}

impl Zset {
    /// See [`Value::dismantle`](super::Value::dismantle).
    pub(super) fn dismantle(&mut self, most: usize) -> bool {
        self.scores.truncate(self.scores.len().saturating_sub(most));
        self.order.dismantle() || !self.scores.is_empty()
    }

    /// An empty one that will have `len` members.
    pub fn for_members(len: usize, settings: &Settings) -> Self {
        Self {
            large: len > settings.zset_max_listpack_entries,
            ..Self::default()
        }
    }

    /// Of members with their scores, all known before: small if it fits.
    pub fn of(mut scores: IndexMap<Bytes, f64>, settings: &Settings) -> Self {
        let longest = scores.keys().map(Bytes::len).max().unwrap_or(0);
        let large =
            scores.len() > settings.zset_max_listpack_entries || longest > settings.zset_max_listpack_value;
        if !large {
            scores.values_mut().for_each(|score| *score += 0.0);
        }
        Self::restored(scores, large)
    }

    /// The same, never small: to be answered, with every sign of a zero.
    pub fn of_large(scores: IndexMap<Bytes, f64>) -> Self {
        Self::restored(scores, true)
    }

    fn restored(scores: IndexMap<Bytes, f64>, large: bool) -> Self {
        let elements = scores.iter().map(|(member, score)| (*score, member.clone()));
        Self {
            order: Order::of(elements.collect()),
            bytes: scores.keys().map(|member| member.len() + 8).sum(),
            scores,
            large,
        }
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there are none; such a sorted set is never stored.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Bytes of all members and scores, and what each takes beside them.
    pub fn bytes(&self) -> usize {
        self.bytes + self.len() * ZSET_MEMBER_BYTES
    }

    /// Whether Redis would hold it as a skip list instead of a listpack.
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// How Redis would hold it.
    pub fn encoding(&self) -> &'static str {
        if self.large { "skiplist" } else { "listpack" }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// How many members come before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        self.score(member).map(|score| self.order.rank_of(score, member))
    }

    /// How many members come first, up to the first that `before` is not true of.
    pub fn rank_where(&self, before: impl Fn(f64, &Bytes) -> bool) -> usize {
        self.order.rank(before)
    }

    /// The members of these ranks, which must exist, with their scores.
    pub fn range(
        &self,
        ranks: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, f64)> + ExactSizeIterator {
        self.order.range(ranks).map(|(score, member)| (member, *score))
    }

    /// All members with their scores, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Bytes, f64)> + ExactSizeIterator {
        self.range(0..self.len())
    }

    /// The member of a rank, with its score.
    pub fn at(&self, rank: usize) -> Option<(&Bytes, f64)> {
        (rank < self.len()).then(|| self.range(rank..rank + 1).next())?
    }

    /// The member at a position of a walk: that of its rank in a small one; in a large one a place from which only the removal of another moves
    /// the last.
    pub fn place(&self, position: usize) -> Option<(&Bytes, f64)> {
        if self.large {
            let (member, score) = self.scores.get_index(position)?;
            Some((member, *score))
        } else {
            self.at(position)
        }
    }

    /// Gives a member a score, copying a new one. The score it had; one that equals it stays, whatever the signs of zeros.
    pub fn insert(&mut self, member: &[u8], score: f64, settings: &Settings) -> Option<f64> {
        if let Some(old) = self.score(member) {
            if old != score {
                let score = self.kept(score);
                let shared = self.order.remove(old, member).expect("a member has its place");
                self.order.insert(score, shared);
                *self.scores.get_mut(member).expect("seen just above") = score;
            }
            return Some(old);
        }
        self.large |= self.len() >= settings.zset_max_listpack_entries
            || member.len() > settings.zset_max_listpack_value;
        let (member, score) = (Bytes::copy_from_slice(member), self.kept(score));
        self.bytes += member.len() + 8;
        self.order.insert(score, member.clone());
        self.scores.insert(member, score);
        None
    }

    /// A listpack has whole numbers as integers, and so no zero with a sign.
    fn kept(&self, score: f64) -> f64 {
        if self.large { score } else { score + 0.0 }
    }

    /// Removes a member. Its score, if it was there.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.swap_remove(member)?;
        self.order.remove(score, member);
        self.bytes -= member.len() + 8;
        Some(score)
    }

    /// Removes the members of these ranks, which must exist; they and their scores, in order.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> Vec<(Bytes, f64)> {
        let removed = self.order.remove_range(ranks);
        for (_, member) in &removed {
            self.scores.swap_remove(member);
            self.bytes -= member.len() + 8;
        }
        let turned = |(score, member): Element| (member, score);
        removed.into_iter().map(turned).collect()
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
        let mut scores = IndexMap::new();
        for _ in 0..count {
            let (member, score) = (from.bytes()?, f64::from_bits(from.u64()?));
            if score.is_nan() || scores.insert(member, score).is_some() {
                return Err(invalid(
                    "a member that was there before, or has no score".to_owned(),
                ));
            }
        }
        Ok(Self::restored(scores, large))
    }
}
