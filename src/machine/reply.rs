//! What a command answers, in no wire format: RESP2, RESP3 and Rust each read it their own way.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::borrow::Cow;
use std::fmt;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short text that is not data, as `OK`.
    Simple(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing there.
    Nil,
    /// Nothing there, where an array was asked for (RESP2 tells the two apart).
    NilArray,
    /// A list of answers.
    Array(Vec<Reply>),
    /// Pairs; a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// A list of pairs in order, doubles allowed: an array of arrays of two in RESP3, a flat array in RESP2.
    Pairs(Vec<(Reply, Reply)>),
    /// What keys hold, each key once or more: a map in RESP3, an array of arrays of two in RESP2.
    Streams(Vec<(Reply, Reply)>),
    /// A list without order or doubles; an array in RESP2.
    Set(Vec<Reply>),
    /// A floating-point number, printed by [`double_text`]; a bulk in RESP2.
    Double(f64),
    /// A floating-point number, printed by [`coordinate_text`]; a bulk in RESP2.
    Coordinate(f64),
    /// Yes or no; 1 or 0 in RESP2.
    Boolean(bool),
    /// Text for a person (`INFO`): a verbatim string `txt` in RESP3, a bulk in RESP2.
    Verbatim(Bytes),
    /// A whole number of any size, by its digits; a bulk in RESP2.
    BigNumber(Bytes),
    /// A refusal, the same on every node.
    Error(CommandError),
    /// None yet: the command waits in the log under this number, and [`super::event::Event::Answered`] brings its answer. From a read
    /// outside the log: it is to wait, which is for the log.
    Waiting(u64),
}

impl Reply {
    /// Bytes that the answers of one entry may take together, and one more: as many as the longest string. Who asks for more at once asks too much of every node.
    pub const BYTES_MAX: usize = 512 << 20;

    /// Whether it holds no bytes and no other answer.
    pub fn is_small(&self) -> bool {
        match self {
            Self::Bulk(_) | Self::Verbatim(_) | Self::BigNumber(_) => false,
            Self::Array(_) | Self::Set(_) | Self::Map(_) | Self::Pairs(_) | Self::Streams(_) => false,
            Self::Simple(_) | Self::Integer(_) | Self::Nil | Self::NilArray | Self::Double(_) => true,
            Self::Coordinate(_) | Self::Boolean(_) | Self::Error(_) | Self::Waiting(_) => true,
        }
    }

    /// Bytes that it takes, as if it shared none.
    pub fn bytes(&self) -> usize {
        let within = match self {
            Self::Bulk(bytes) | Self::Verbatim(bytes) | Self::BigNumber(bytes) => bytes.len(),
            Self::Array(items) | Self::Set(items) => items.iter().map(Self::bytes).sum(),
            Self::Map(pairs) | Self::Pairs(pairs) | Self::Streams(pairs) => pairs
                .iter()
                .map(|(left, right)| left.bytes() + right.bytes())
                .sum(),
            _ => 0,
        };
        size_of::<Self>() + within
    }

    /// How deep answers may lie in each other in [`Reply::from_bytes`]: no script answers deeper, for its answer could not be read from the log.
    pub const DEPTH_MAX: usize = 257;

    /// The answer as bytes, for the log: a byte for its kind, then a number or a length and content.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.put(&mut out);
        out.freeze()
    }

    fn put(&self, out: &mut BytesMut) {
        let mut bytes = |kind: u8, bytes: &[u8]| {
            out.put_u8(kind);
            out.put_u32_le(u32::try_from(bytes.len()).expect("answers are bounded far below 4 GiB"));
            out.put_slice(bytes);
        };
        match self {
            Self::Simple(text) => bytes(1, text.as_bytes()),
            Self::Bulk(bulk) => bytes(2, bulk),
            Self::Verbatim(text) => bytes(3, text),
            Self::Error(error) => bytes(4, error.to_string().as_bytes()),
            Self::Integer(number) => bytes(5, &number.to_le_bytes()),
            Self::Double(number) => bytes(6, &number.to_bits().to_le_bytes()),
            Self::Coordinate(number) => bytes(0, &number.to_bits().to_le_bytes()),
            Self::Boolean(yes) => bytes(7, &[u8::from(*yes)]),
            Self::Nil | Self::Waiting(_) => bytes(8, &[]),
            Self::NilArray => bytes(9, &[]),
            Self::Array(items) => Self::put_all(10, items, out),
            Self::Set(items) => Self::put_all(11, items, out),
            Self::Map(pairs) => Self::put_pairs(12, pairs, out),
            Self::Pairs(pairs) => Self::put_pairs(13, pairs, out),
            Self::Streams(pairs) => Self::put_pairs(14, pairs, out),
            Self::BigNumber(digits) => bytes(15, digits),
        }
    }

    fn put_all(kind: u8, items: &[Reply], out: &mut BytesMut) {
        out.put_u8(kind);
        out.put_u32_le(u32::try_from(items.len()).expect("answers are bounded far below 2^32 parts"));
        items.iter().for_each(|item| item.put(out));
    }

    fn put_pairs(kind: u8, pairs: &[(Reply, Reply)], out: &mut BytesMut) {
        out.put_u8(kind);
        out.put_u32_le(u32::try_from(pairs.len()).expect("answers are bounded far below 2^32 parts"));
        for (left, right) in pairs {
            left.put(out);
            right.put(out);
        }
    }

    /// What [`Reply::to_bytes`] wrote; none where the bytes are anything else.
    pub fn from_bytes(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        let reply = Self::take(&mut rest, 0)?;
        rest.is_empty().then_some(reply)
    }

    fn take(from: &mut Bytes, depth: usize) -> Option<Self> {
        if from.len() < 5 || depth > Self::DEPTH_MAX {
            return None;
        }
        let (kind, length) = (from.get_u8(), from.get_u32_le() as usize);
        if (10..15).contains(&kind) {
            // Every part takes at least five bytes: a count beyond that is a lie.
            if length > from.len() / 5 {
                return None;
            }
            return match kind {
                10 | 11 => {
                    let parts = (0..length).map(|_| Self::take(from, depth + 1));
                    let parts = parts.collect::<Option<_>>()?;
                    Some(if kind == 10 {
                        Self::Array(parts)
                    } else {
                        Self::Set(parts)
                    })
                }
                12..=14 => {
                    let mut pair = || Some((Self::take(from, depth + 1)?, Self::take(from, depth + 1)?));
                    let pairs = (0..length).map(|_| pair()).collect::<Option<_>>()?;
                    Some(match kind {
                        12 => Self::Map(pairs),
                        13 => Self::Pairs(pairs),
                        _ => Self::Streams(pairs),
                    })
                }
                _ => None,
            };
        }
        if from.len() < length {
            return None;
        }
        let content = from.split_to(length);
        let text = || String::from_utf8_lossy(&content).into_owned();
        let number = || <[u8; 8]>::try_from(&content[..]).ok().map(u64::from_le_bytes);
        Some(match kind {
            0 => Self::Coordinate(f64::from_bits(number()?)),
            1 => Self::Simple(Cow::Owned(text())),
            2 => Self::Bulk(content),
            3 => Self::Verbatim(content),
            4 => Self::Error(CommandError::from_text(text())),
            5 => Self::Integer(number()?.cast_signed()),
            6 => Self::Double(f64::from_bits(number()?)),
            7 => Self::Boolean(content == [1][..]),
            8 => Self::Nil,
            9 => Self::NilArray,
            15 => Self::BigNumber(content),
            _ => return None,
        })
    }

    /// An answer of each kind, by its name: what `DEBUG PROTOCOL` shows.
    pub fn sample(kind: &[u8]) -> Result<Self, CommandError> {
        const KINDS: CommandError = CommandError::text(
            "ERR Wrong protocol type name. Please use one of the following: \
             string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
        );
        let three = || (0..3).map(Self::Integer);
        Ok(match kind.to_ascii_lowercase().as_slice() {
            b"string" => Self::bulk("Hello World"),
            b"integer" => Self::Integer(12345),
            b"double" => Self::Double(3141.0 / 1000.0),
            b"bignum" => Self::BigNumber("1234567999999999999999999999999999999".into()),
            b"null" => Self::Nil,
            b"array" => Self::Array(three().collect()),
            b"set" => Self::Set(three().collect()),
            b"map" => Self::Map(three().zip([false, true, false].map(Self::Boolean)).collect()),
            // There are no attributes: what follows one.
            b"attrib" => Self::bulk("Some real reply following the attribute"),
            b"true" => Self::Boolean(true),
            b"false" => Self::Boolean(false),
            b"verbatim" => Self::Verbatim("This is a verbatim\nstring".into()),
            _ => return Err(KINDS),
        })
    }

    /// `OK`.
    pub const OK: Reply = Reply::Simple(Cow::Borrowed("OK"));

    /// A bulk that copies `bytes`.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// A bulk, or nil where there is none.
    pub fn bulk_or_nil(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Nil, Self::Bulk)
    }

    /// A count of things.
    pub fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).expect("nothing here holds 2^63 things"))
    }

    /// 1 for yes, 0 for no: what most commands of Redis answer.
    pub fn flag(yes: bool) -> Self {
        Self::Integer(i64::from(yes))
    }

    /// An array of bulks.
    pub fn bulks<B: AsRef<[u8]>>(items: impl IntoIterator<Item = B>) -> Self {
        Self::Array(items.into_iter().map(Self::bulk).collect())
    }
}

impl From<Result<Reply, CommandError>> for Reply {
    fn from(result: Result<Reply, CommandError>) -> Self {
        result.unwrap_or_else(Reply::Error)
    }
}

/// A double as Redis 7.0 prints it: C's `%.17g`, and `inf`, `-inf`, `nan`.
pub fn double_text(number: f64) -> String {
    const DIGITS: i32 = 17;
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} writes an e");
    let exponent: i32 = exponent.parse().expect("{:e} writes an integer after the e");
    if (-4..DIGITS).contains(&exponent) {
        let decimals = usize::try_from(DIGITS - 1 - exponent).expect("exponent is below 17: checked above");
        return without_trailing_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_trailing_zeros(mantissa), exponent.abs())
}

/// A number as Redis prints degrees: up to 17 digits after the point, no exponent, no zero with a sign.
pub fn coordinate_text(number: f64) -> String {
    let text = format!("{number:.17}");
    match without_trailing_zeros(&text) {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

/// Why a command was refused. Part of the reply, the same on every node; it has changed nothing.
///
/// `Display` is the text Redis 7.0 answers, prefix first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another type.
    WrongType,
    /// An argument is not a 64-bit integer.
    NotAnInteger,
    /// An argument is not a floating-point number.
    NotAFloat,
    /// The sum leaves the 64-bit range.
    IntegerOverflow,
    /// The arguments do not follow the command's syntax.
    Syntax,
    /// There is no such key.
    NoSuchKey,
    /// Too few or too many arguments for this command (lower-case name; `name|sub` for a subcommand).
    Arity(String),
    /// No such command: its name as the client said it, and the arguments that begin its call.
    Unknown {
        /// The name, at most 128 bytes.
        name: String,
        /// The first arguments quoted as Redis quotes them, at most 128 bytes.
        arguments: String,
    },
    /// No such subcommand of this (upper-case) command.
    UnknownSubcommand {
        /// What the client said.
        subcommand: String,
        /// The command, upper case, whose HELP lists them.
        command: String,
    },
    /// The time to live is not valid in this (lower-case) command.
    InvalidExpire(&'static str),
    /// Any other refusal, whole, prefix first: `ERR index out of range`.
    Other(Cow<'static, str>),
}

/// What is answered to a command that may need more memory, where `maxmemory` is used up and no key may go.
pub const OUT_OF_MEMORY: CommandError =
    CommandError::text("OOM command not allowed when used memory > 'maxmemory'.");

impl CommandError {
    /// A refusal with its text, prefix first.
    pub const fn text(text: &'static str) -> Self {
        Self::Other(Cow::Borrowed(text))
    }

    /// The refusal that has this text: what went over a wire or through the log is told apart as before.
    pub fn from_text(text: String) -> Self {
        let plain = [
            Self::WrongType,
            Self::NotAnInteger,
            Self::NotAFloat,
            Self::IntegerOverflow,
            Self::Syntax,
            Self::NoSuchKey,
        ];
        let known = plain.into_iter().find(|plain| plain.to_string() == text);
        known.unwrap_or(Self::Other(Cow::Owned(text)))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType => {
                f.write_str("WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            Self::NotAnInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::NotAFloat => f.write_str("ERR value is not a valid float"),
            Self::IntegerOverflow => f.write_str("ERR increment or decrement would overflow"),
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::NoSuchKey => f.write_str("ERR no such key"),
            Self::Arity(name) => write!(f, "ERR wrong number of arguments for '{name}' command"),
            Self::Unknown { name, arguments } => {
                write!(
                    f,
                    "ERR unknown command '{name}', with args beginning with: {arguments}"
                )
            }
            Self::UnknownSubcommand { subcommand, command } => {
                write!(f, "ERR unknown subcommand '{subcommand}'. Try {command} HELP.")
            }
            Self::InvalidExpire(command) => write!(f, "ERR invalid expire time in '{command}' command"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CommandError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_what_their_bytes_say() {
        let pair = || (Reply::bulk("k"), Reply::Double(f64::INFINITY));
        let all = Reply::Array(vec![
            Reply::OK,
            Reply::Integer(-7),
            Reply::bulk([0, 255]),
            Reply::Nil,
            Reply::NilArray,
            Reply::Set(vec![Reply::Boolean(true), Reply::Boolean(false)]),
            Reply::Map(vec![pair()]),
            Reply::Pairs(vec![pair(), pair()]),
            Reply::Coordinate(-0.5),
            Reply::Verbatim(Bytes::from_static(b"text")),
            Reply::Error(CommandError::text("ERR no")),
            Reply::Error(CommandError::WrongType),
            Reply::Array(Vec::new()),
        ]);
        let bytes = all.to_bytes();
        assert_eq!(Reply::from_bytes(&bytes), Some(all));
        for end in 0..bytes.len() {
            assert_eq!(Reply::from_bytes(&bytes.slice(..end)), None, "cut at {end}");
        }
    }
}
