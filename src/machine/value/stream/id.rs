//! The id of a stream's entry: a time and a number within it.

use crate::machine::reply::CommandError;
use crate::machine::snapshot::Source;
use std::fmt;
use std::io;

/// `ms-seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Milliseconds since 1970, where the id was given by the log's clock.
    pub ms: u64,
    /// Which entry of that millisecond.
    pub seq: u64,
}

/// The longest text that is read as an id.
const TEXT_MAX: usize = 127;

impl Id {
    /// `0-0`: before every entry.
    pub const MIN: Self = Self { ms: 0, seq: 0 };

    /// The last id there can be.
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The next one; none after the last.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => self.ms.checked_add(1).map(|ms| Self { ms, seq: 0 }),
        }
    }

    /// The one before; none before `0-0`.
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => self.ms.checked_sub(1).map(|ms| Self { ms, seq: u64::MAX }),
        }
    }

    /// Reads `ms-seq`, or `ms` alone with this number.
    ///
    /// # Errors
    /// Redis' text for what is no id.
    pub fn parse(text: &[u8], missing_seq: u64) -> Result<Self, CommandError> {
        let (ms, seq) = split(text).ok_or(INVALID)?;
        let id = number(ms).zip(seq.map_or(Some(missing_seq), number));
        id.map(|(ms, seq)| Self { ms, seq }).ok_or(INVALID)
    }

    /// [`Id::parse`], and `-` and `+` for the least and the greatest.
    ///
    /// # Errors
    /// As [`Id::parse`].
    pub fn parse_edge(text: &[u8], missing_seq: u64) -> Result<Self, CommandError> {
        match text {
            b"-" => Ok(Self::MIN),
            b"+" => Ok(Self::MAX),
            text => Self::parse(text, missing_seq),
        }
    }

    /// [`Id::parse_edge`] for where a range begins; after a `(` it begins behind that id.
    ///
    /// # Errors
    /// As [`Id::parse`], or there is nothing behind.
    pub fn parse_start(text: &[u8]) -> Result<Self, CommandError> {
        match text {
            [b'(', id @ ..] if !id.is_empty() => Self::parse(id, 0)?
                .next()
                .ok_or(CommandError::text("ERR invalid start ID for the interval")),
            text => Self::parse_edge(text, 0),
        }
    }

    /// [`Id::parse_edge`] for where a range ends; after a `(` it ends before that id.
    ///
    /// # Errors
    /// As [`Id::parse`], or there is nothing before.
    pub fn parse_end(text: &[u8]) -> Result<Self, CommandError> {
        match text {
            [b'(', id @ ..] if !id.is_empty() => Self::parse(id, u64::MAX)?
                .previous()
                .ok_or(CommandError::text("ERR invalid end ID for the interval")),
            text => Self::parse_edge(text, u64::MAX),
        }
    }

    pub(super) fn write(self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.ms.to_le_bytes())?;
        out.write_all(&self.seq.to_le_bytes())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        Ok(Self {
            ms: from.u64()?,
            seq: from.u64()?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What a new entry is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// `*`: by the clock.
    Now,
    /// `ms-*`: the next of this millisecond.
    At(u64),
    /// This.
    Is(Id),
}

impl NewId {
    /// Reads `*`, `ms-*`, `ms-seq` or `ms`.
    ///
    /// # Errors
    /// As [`Id::parse`].
    pub fn parse(text: &[u8]) -> Result<Self, CommandError> {
        match (text, split(text)) {
            (b"*", _) => Ok(Self::Now),
            (_, Some((ms, Some(b"*")))) => number(ms).map(Self::At).ok_or(INVALID),
            _ => Id::parse(text, 0).map(Self::Is),
        }
    }
}

const INVALID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");

/// What stands before the first `-`, and behind it.
fn split(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if text.len() > TEXT_MAX {
        return None;
    }
    Some(match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
        None => (text, None),
    })
}

/// An unsigned number, read as leniently as Redis reads it: spaces, a sign and zeros may lead; what is negative wraps around, unless it is
/// written as every integer is.
fn number(text: &[u8]) -> Option<u64> {
    if crate::machine::args::integer(text).is_some_and(|number| number < 0) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|digit: char| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_each_other() {
        let id = |ms, seq| Id { ms, seq };
        assert_eq!(id(1, 2).next(), Some(id(1, 3)));
        assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
        assert_eq!(Id::MAX.next(), None);
        assert_eq!(id(2, 0).previous(), Some(id(1, u64::MAX)));
        assert_eq!(Id::MIN.previous(), None);
    }

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        for (text, id) in [
            ("1-2", Some((1, 2))),
            ("1", Some((1, 9))),
            ("007-+3", Some((7, 3))),
            (
                "18446744073709551615-18446744073709551615",
                Some((u64::MAX, u64::MAX)),
            ),
            ("18446744073709551616-0", None),
            ("1--5", None),
            ("1-*", None),
            ("-", None),
            ("1-", None),
            ("-1", None),
            ("", None),
            ("a-1", None),
        ] {
            let read = Id::parse(text.as_bytes(), 9).ok();
            assert_eq!(read, id.map(|(ms, seq)| Id { ms, seq }), "{text}");
        }
        assert_eq!(NewId::parse(b"5-*"), Ok(NewId::At(5)));
        assert_eq!(NewId::parse(b"*"), Ok(NewId::Now));
        assert!(NewId::parse(b"*-5").is_err());
    }
}
