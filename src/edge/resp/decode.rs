//! Replies read back: the client's side of the protocol, for `plenary status`, tests and benches.
//!
//! Small on purpose: a reply that is not whole is read again from its start when more has come, so this is not for a hot path.
//! Push messages are read as arrays, big numbers as simple strings; attributes and streamed replies are refused.

use crate::machine::args::integer;
use crate::machine::reply::{CommandError, Reply};
use bytes::{Buf, Bytes, BytesMut};
use std::borrow::Cow;
use std::fmt;

/// Replies inside replies.
pub const MAX_NESTING: usize = 32;

/// Items of one array, and bytes of one bulk: beyond it the other side is not a server we know.
pub const MAX_LENGTH: usize = 512 << 20;

/// Why bytes are not a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A reply does not begin with this byte.
    Kind(u8),
    /// A length or number is none, or beyond [`MAX_LENGTH`].
    Number,
    /// More than [`MAX_NESTING`] replies inside each other.
    Nesting,
    /// Text, a boolean or the end of a bulk is not what it must be.
    Malformed,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(
                f,
                "not a reply of Redis: it begins with byte {kind}. Is something else on that port?"
            ),
            Self::Number => f.write_str("a reply with a length or number that cannot be"),
            Self::Nesting => write!(f, "a reply with more than {MAX_NESTING} levels"),
            Self::Malformed => f.write_str("a malformed reply"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes one whole reply off the front of `input`; none when more bytes are needed.
///
/// # Errors
/// [`DecodeError`]; the connection is of no use after it.
pub fn decode(input: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
    let mut cursor = Cursor { input, at: 0 };
    match cursor.reply(0) {
        Ok(reply) => {
            let length = cursor.at;
            input.advance(length);
            Ok(Some(reply))
        }
        Err(Stop::Unfinished) => Ok(None),
        Err(Stop::Error(error)) => Err(error),
    }
}

/// A command as a client sends it.
pub fn request<A: AsRef<[u8]>>(argv: impl IntoIterator<Item = A>) -> Vec<u8> {
    let (mut count, mut body) = (0, Vec::new());
    for argument in argv {
        let argument = argument.as_ref();
        count += 1;
        body.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        body.extend_from_slice(argument);
        body.extend_from_slice(b"\r\n");
    }
    let mut request = format!("*{count}\r\n").into_bytes();
    request.append(&mut body);
    request
}

enum Stop {
    Unfinished,
    Error(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Error(error)
    }
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn reply(&mut self, depth: usize) -> Result<Reply, Stop> {
        if depth > MAX_NESTING {
            return Err(DecodeError::Nesting.into());
        }
        let (kind, rest) = self.line()?.split_first().ok_or(DecodeError::Malformed)?;
        Ok(match kind {
            b'+' => Reply::Simple(Cow::Owned(text(rest)?)),
            b'(' => Reply::BigNumber(Bytes::copy_from_slice(rest)),
            b'-' => Reply::Error(CommandError::Other(Cow::Owned(text(rest)?))),
            b':' => Reply::Integer(integer(rest).ok_or(DecodeError::Number)?),
            b',' => Reply::Double(text(rest)?.parse().map_err(|_| DecodeError::Number)?),
            b'#' => Reply::Boolean(boolean(rest)?),
            b'_' => Reply::Nil,
            b'$' => length(rest)?.map_or(Ok(Reply::Nil), |length| self.bulk(length).map(Reply::Bulk))?,
            b'!' => {
                let bytes = self.bulk(length(rest)?.ok_or(DecodeError::Number)?)?;
                Reply::Error(CommandError::Other(Cow::Owned(text(&bytes)?)))
            }
            b'=' => {
                let bytes = self.bulk(length(rest)?.ok_or(DecodeError::Number)?)?;
                Reply::Verbatim(if bytes.len() < 4 {
                    return Err(DecodeError::Malformed.into());
                } else {
                    bytes.slice(4..)
                })
            }
            b'*' | b'>' => match length(rest)? {
                Some(count) => Reply::Array(self.items(count, depth)?),
                None => Reply::NilArray,
            },
            b'~' => Reply::Set(self.items(length(rest)?.ok_or(DecodeError::Number)?, depth)?),
            b'%' => {
                let mut pairs = Vec::new();
                for _ in 0..length(rest)?.ok_or(DecodeError::Number)? {
                    pairs.push((self.reply(depth + 1)?, self.reply(depth + 1)?));
                }
                Reply::Map(pairs)
            }
            other => return Err(DecodeError::Kind(*other).into()),
        })
    }

    /// Nothing is reserved for an announced count: each item takes three bytes that must have come.
    fn items(&mut self, count: usize, depth: usize) -> Result<Vec<Reply>, Stop> {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.reply(depth + 1)?);
        }
        Ok(items)
    }

    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.input[self.at..];
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .ok_or(Stop::Unfinished)?;
        self.at += end + 2;
        Ok(&rest[..end])
    }

    fn bulk(&mut self, length: usize) -> Result<Bytes, Stop> {
        let end = self.at + length;
        let bytes = self.input.get(self.at..end + 2).ok_or(Stop::Unfinished)?;
        self.at = end + 2;
        let bytes = bytes.strip_suffix(b"\r\n").ok_or(DecodeError::Malformed)?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Malformed)
}

/// A length; none for -1, which says that nothing is there.
fn length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    match integer(bytes).ok_or(DecodeError::Number)? {
        -1 => Ok(None),
        length => usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_LENGTH)
            .map(Some)
            .ok_or(DecodeError::Number),
    }
}

fn boolean(bytes: &[u8]) -> Result<bool, DecodeError> {
    match bytes {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(DecodeError::Malformed),
    }
}
