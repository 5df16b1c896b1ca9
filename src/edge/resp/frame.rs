//! What clients send, as arguments: arrays of bulk strings, and inline commands. Pure and incremental: bytes in, commands out.
//!
//! Replies are written by [`encode`](super::encode) and read by [`decode`](super::decode); sockets and limits on replies are
//! not here. The texts of the errors, and which bytes are errors, are those of Redis 7.0.15.
//!
//! A command that is not yet whole is taken up where it was left: each byte is looked at once, whatever pieces it comes in.
//! Nothing is reserved for a length that was only announced, so a client cannot make us allocate what it did not send.

use crate::machine::args::{Lists, integer};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use std::ops::Range;

/// Bytes of an inline command, and of a line that announces a length. Redis: `PROTO_INLINE_MAX_SIZE`.
pub const LINE_MAX_BYTES: usize = 64 << 10;

/// Arguments of one command before `AUTH`.
pub const STRANGER_MAX_ARGUMENTS: usize = 10;

/// Bytes of one argument before `AUTH`.
pub const STRANGER_MAX_BULK_BYTES: usize = 16 << 10;

/// One command may take this many times the bytes of its largest argument (Redis: `client-query-buffer-limit`, 1 GB).
const COMMAND_PER_BULK: usize = 4;

/// Places for arguments that a parser keeps from one command to the next.
const KEPT_ARGUMENTS: usize = 1024;

/// Lists of arguments that a parser keeps for the next commands: what a pipeline needs.
const KEPT_LISTS: usize = 32;

/// Bounds of what one command may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arguments of one command.
    pub arguments: usize,
    /// Bytes of one argument.
    pub bulk_bytes: usize,
    /// Bytes of a whole command with its lengths.
    pub command_bytes: usize,
}

impl Limits {
    /// Bounds of arguments, and of a command as they suggest it.
    pub const fn new(arguments: usize, bulk_bytes: usize) -> Self {
        let (command_bytes, least) = (bulk_bytes.saturating_mul(COMMAND_PER_BULK), 2 * LINE_MAX_BYTES);
        Self {
            arguments,
            bulk_bytes,
            command_bytes: if command_bytes > least {
                command_bytes
            } else {
                least
            },
        }
    }
}

/// Why bytes are not a command. After it the connection is closed, since nobody knows where the next command begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The count of arguments is no number, or beyond the limit.
    MultibulkLength,
    /// A length is no number, negative, or beyond the limit.
    BulkLength,
    /// A stranger announced more than [`STRANGER_MAX_ARGUMENTS`].
    StrangerMultibulk,
    /// A stranger announced more than [`STRANGER_MAX_BULK_BYTES`].
    StrangerBulk,
    /// An argument does not begin with `$`.
    ExpectedDollar(u8),
    /// A quote was not closed, or something follows it directly.
    UnbalancedQuotes,
    /// An inline command beyond [`LINE_MAX_BYTES`].
    InlineTooBig,
    /// A count of arguments beyond [`LINE_MAX_BYTES`].
    CountTooBig,
    /// A length beyond [`LINE_MAX_BYTES`].
    LengthTooBig,
    /// All arguments together are beyond the limit. (Redis closes without a word.)
    CommandTooBig,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            Self::MultibulkLength => f.write_str("invalid multibulk length"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::StrangerMultibulk => f.write_str("unauthenticated multibulk length"),
            Self::StrangerBulk => f.write_str("unauthenticated bulk length"),
            Self::ExpectedDollar(got) => write!(f, "expected '$', got '{}'", char::from(*got)),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::InlineTooBig => f.write_str("too big inline request"),
            Self::CountTooBig => f.write_str("too big mbulk count string"),
            Self::LengthTooBig => f.write_str("too big bulk count string"),
            Self::CommandTooBig => f.write_str("too big request"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Takes commands from the front of a buffer, and remembers how far into an unfinished one it came.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    /// Where the next unread byte of the unfinished command stands, counted from the front of the buffer.
    at: usize,
    /// Up to where the line that starts at `at` was searched for its end.
    searched: usize,
    /// Arguments of the unfinished command that are still to come; 0 between commands.
    missing: usize,
    /// The announced length of the argument that comes next.
    length: Option<usize>,
    /// Where the arguments that came stand in the buffer.
    arguments: Vec<Range<usize>>,
    lists: Lists,
}

impl Parser {
    /// A parser between two commands.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            at: 0,
            searched: 0,
            missing: 0,
            length: None,
            arguments: Vec::new(),
            lists: Lists::new(KEPT_LISTS),
        }
    }

    /// Takes back the list of a command that is done, for the next one.
    pub fn reuse(&mut self, argv: Vec<Bytes>) {
        self.lists.keep(argv);
    }

    /// Takes other bounds, for what comes from here on.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The next whole command in `input`, never empty; none when more bytes are needed. Its arguments share the memory of
    /// `input`. `known` says whether the client has authenticated (or need not): strangers have narrow limits.
    ///
    /// # Errors
    /// [`ProtocolError`]; the parser is of no use after it.
    pub fn next(&mut self, input: &mut BytesMut, known: bool) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        while self.missing == 0 {
            match input.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(count) = self.count(input, known)? else {
                        return Ok(None);
                    };
                    self.missing = count;
                    if count == 0 {
                        self.cut(input);
                    }
                }
                Some(_) => match self.inline(input)? {
                    None => return Ok(None),
                    Some(argv) if argv.is_empty() => {}
                    argv => return Ok(argv),
                },
            }
        }
        while self.missing > 0 {
            if !self.argument(input, known)? {
                return Ok(None);
            }
        }
        let mut command = self.cut(input);
        let mut argv = self.lists.take();
        let last = self
            .arguments
            .pop()
            .expect("one at least: no count of zero gets here");
        argv.reserve_exact(self.arguments.len() + 1);
        argv.extend(self.arguments.drain(..).map(|range| command.slice(range)));
        self.arguments.shrink_to(KEPT_ARGUMENTS);
        // The last one takes over what holds them all.
        command.truncate(last.end);
        command.advance(last.start);
        argv.push(command);
        Ok(Some(argv))
    }

    /// How many arguments follow; none when the line is not whole. Zero and below count as zero, as in Redis.
    fn count(&mut self, input: &BytesMut, known: bool) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.line(input, b'\r', ProtocolError::CountTooBig)? else {
            return Ok(None);
        };
        let count = integer(&input[line.start + 1..line.end]).ok_or(ProtocolError::MultibulkLength)?;
        let count = usize::try_from(count.max(0)).map_err(|_| ProtocolError::MultibulkLength)?;
        if count > STRANGER_MAX_ARGUMENTS && !known {
            return Err(ProtocolError::StrangerMultibulk);
        }
        if count > self.limits.arguments {
            return Err(ProtocolError::MultibulkLength);
        }
        Ok(Some(count))
    }

    /// Reads one argument; false when it is not whole.
    fn argument(&mut self, input: &BytesMut, known: bool) -> Result<bool, ProtocolError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(line) = self.line(input, b'\r', ProtocolError::LengthTooBig)? else {
                    return Ok(false);
                };
                let length = self.bulk_length(&input[line], known)?;
                *self.length.insert(length)
            }
        };
        let end = self.at + length;
        if end > self.limits.command_bytes {
            return Err(ProtocolError::CommandTooBig);
        }
        if input.len() < end + 2 {
            return Ok(false);
        }
        // Redis passes over the two bytes after an argument without looking at them, and so do we.
        self.arguments.push(self.at..end);
        (self.at, self.searched) = (end + 2, end + 2);
        self.length = None;
        self.missing -= 1;
        Ok(true)
    }

    fn bulk_length(&self, line: &[u8], known: bool) -> Result<usize, ProtocolError> {
        let digits = match line {
            [b'$', digits @ ..] => digits,
            // An empty line: what stands there is its CR.
            line => {
                return Err(ProtocolError::ExpectedDollar(
                    line.first().copied().unwrap_or(b'\r'),
                ));
            }
        };
        let length = integer(digits)
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(ProtocolError::BulkLength)?;
        if length > STRANGER_MAX_BULK_BYTES && !known {
            return Err(ProtocolError::StrangerBulk);
        }
        if length > self.limits.bulk_bytes {
            return Err(ProtocolError::BulkLength);
        }
        Ok(length)
    }

    /// The line that starts at `self.at`, without its end, and steps over it; none when its end has not come. `end` is the byte
    /// that ends it: a CR and whatever follows it, or a LF.
    fn line(
        &mut self,
        input: &[u8],
        end: u8,
        too_big: ProtocolError,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let found = input[self.searched..]
            .iter()
            .position(|byte| *byte == end)
            .map(|offset| self.searched + offset);
        if found.unwrap_or(input.len()) - self.at > LINE_MAX_BYTES {
            return Err(too_big);
        }
        let width = if end == b'\r' { 2 } else { 1 };
        match found {
            Some(stop) if input.len() >= stop + width => {
                let line = self.at..stop;
                (self.at, self.searched) = (stop + width, stop + width);
                Ok(Some(line))
            }
            found => {
                self.searched = found.unwrap_or(input.len());
                Ok(None)
            }
        }
    }

    fn inline(&mut self, input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let Some(line) = self.line(input, b'\n', ProtocolError::InlineTooBig)? else {
            return Ok(None);
        };
        let text = &input[line];
        let argv =
            split_quoted(text.strip_suffix(b"\r").unwrap_or(text)).ok_or(ProtocolError::UnbalancedQuotes)?;
        input.advance(self.at);
        (self.at, self.searched) = (0, 0);
        Ok(Some(argv))
    }

    /// Takes what was read off the front, and stands between two commands again.
    fn cut(&mut self, input: &mut BytesMut) -> Bytes {
        let command = input.split_to(self.at).freeze();
        (self.at, self.searched) = (0, 0);
        command
    }
}

/// Splits a line into words as `redis-cli` and Redis do: `"…"` with `\n \r \t \b \a \xHH`, `'…'` with `\'`. None when a quote is
/// not closed or something other than a space follows it. A NUL ends the line.
pub fn split_quoted(line: &[u8]) -> Option<Vec<Bytes>> {
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let (mut words, mut at) = (Vec::new(), 0);
    loop {
        at += line[at..].iter().take_while(|byte| is_space(**byte)).count();
        if at == line.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some(&byte) = line.get(at).filter(|byte| !is_space(**byte)) {
            at += 1;
            match byte {
                b'"' => at += double_quoted(&line[at..], &mut word)?,
                b'\'' => at += single_quoted(&line[at..], &mut word)?,
                _ => word.push(byte),
            }
            if matches!(byte, b'"' | b'\'') && line.get(at).is_some_and(|next| !is_space(*next)) {
                return None;
            }
        }
        words.push(Bytes::from(word));
    }
}

/// What C's `isspace` calls a space.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Reads to the closing `"`; how many bytes that took.
fn double_quoted(text: &[u8], word: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        match &text[at..] {
            [] => return None,
            [b'"', ..] => return Some(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex(*high) << 4 | hex(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                at += 2;
            }
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

/// Reads to the closing `'`; how many bytes that took.
fn single_quoted(text: &[u8], word: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        match &text[at..] {
            [] => return None,
            [b'\'', ..] => return Some(at + 1),
            [b'\\', b'\'', ..] => {
                word.push(b'\'');
                at += 2;
            }
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}
