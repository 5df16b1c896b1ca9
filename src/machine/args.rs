//! A cursor over a command's arguments: parse first, then change.

use super::entry::Millis;
use super::float::Float;
use super::reply::CommandError;
use bytes::Bytes;

/// The arguments of one command that were not read yet.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    argv: &'a [Bytes],
    next: usize,
}

impl<'a> Args<'a> {
    /// The arguments after the command's name (and, for a container, its subcommand: `skip` words in all).
    pub fn new(argv: &'a [Bytes], skip: usize) -> Self {
        Self { argv, next: skip }
    }

    /// The whole argv, name first.
    pub fn argv(&self) -> &'a [Bytes] {
        self.argv
    }

    /// How many arguments were not read yet.
    pub fn remaining(&self) -> usize {
        self.argv.len().saturating_sub(self.next)
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next argument.
    ///
    /// # Errors
    /// `Syntax` when there is none. Arity was checked by the table, so this is an option that lacks its value.
    pub fn bytes(&mut self) -> Result<&'a Bytes, CommandError> {
        let argument = self.argv.get(self.next).ok_or(CommandError::Syntax)?;
        self.next += 1;
        Ok(argument)
    }

    /// The next argument, as a key.
    pub fn key(&mut self) -> Result<&'a Bytes, CommandError> {
        self.bytes()
    }

    /// The next argument without reading it.
    pub fn peek(&self) -> Option<&'a Bytes> {
        self.argv.get(self.next)
    }

    /// Reads the next argument if it is this word, in any case.
    pub fn keyword(&mut self, word: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|argument| argument.eq_ignore_ascii_case(word.as_bytes()));
        self.next += usize::from(found);
        found
    }

    /// The next argument as a signed 64-bit integer, strictly as Redis reads it: no spaces, no `+`, no leading zeros.
    ///
    /// # Errors
    /// `NotAnInteger`.
    pub fn integer(&mut self) -> Result<i64, CommandError> {
        integer(self.bytes()?).ok_or(CommandError::NotAnInteger)
    }

    /// The next argument as an integer from `least` on.
    ///
    /// # Errors
    /// This refusal, whatever else it is.
    pub fn integer_from(&mut self, least: i64, refusal: &'static str) -> Result<i64, CommandError> {
        let number = integer(self.bytes()?).filter(|number| *number >= least);
        number.ok_or(CommandError::text(refusal))
    }

    /// The next argument as the cursor of a scan, as leniently as Redis reads it: a sign and leading zeros may be, nothing is 0.
    ///
    /// # Errors
    /// `ERR invalid cursor`.
    pub fn cursor(&mut self) -> Result<u64, CommandError> {
        cursor(self.bytes()?).ok_or(CommandError::text("ERR invalid cursor"))
    }

    /// The next argument as how long a command waits, in seconds: when it gives up, counted from `now`; none: never.
    ///
    /// # Errors
    /// As Redis refuses it: no number, or a negative one. What is too great for it is negative to it.
    pub fn deadline(&mut self, now: Millis) -> Result<Option<Millis>, CommandError> {
        let seconds = Float::parse(self.bytes()?)
            .ok_or(CommandError::text("ERR timeout is not a float or out of range"))?;
        let millis = seconds
            .to_millis()
            .and_then(|millis| Millis::try_from(millis).ok());
        let millis = millis.ok_or(CommandError::text("ERR timeout is negative"))?;
        Ok((millis > 0).then(|| now.saturating_add(millis)))
    }

    /// The next `count` arguments.
    ///
    /// # Errors
    /// `Syntax`, and nothing was read, when there are fewer.
    pub fn many(&mut self, count: usize) -> Result<&'a [Bytes], CommandError> {
        let end = self.next.checked_add(count).ok_or(CommandError::Syntax)?;
        let many = self.argv.get(self.next..end).ok_or(CommandError::Syntax)?;
        self.next = end;
        Ok(many)
    }

    /// The arguments that were not read yet; reads them all.
    pub fn rest(&mut self) -> &'a [Bytes] {
        let rest = self.argv.get(self.next..).unwrap_or_default();
        self.next = self.argv.len();
        rest
    }

    /// Everything must have been read.
    ///
    /// # Errors
    /// `Syntax` when something is left.
    pub fn end(&self) -> Result<(), CommandError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(CommandError::Syntax)
        }
    }
}

/// Empty lists of arguments, kept to be filled again: a command that comes often needs no new one each time.
#[derive(Debug)]
pub struct Lists {
    empty: Vec<Vec<Bytes>>,
    most: usize,
}

impl Lists {
    /// Places of a list that is kept; one that grew beyond is given back.
    const PLACES: usize = 16;

    /// Keeps so many lists at most.
    pub const fn new(most: usize) -> Self {
        Self {
            empty: Vec::new(),
            most,
        }
    }

    /// An empty list.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.empty.pop().unwrap_or_default()
    }

    /// Keeps a list, not what is in it.
    pub fn keep(&mut self, mut argv: Vec<Bytes>) {
        argv.clear();
        if argv.capacity() <= Self::PLACES && self.empty.len() < self.most {
            self.empty.push(argv);
        }
    }
}

/// A count that is not negative; what no memory could hold so many of is all the same.
pub fn at_most_usize(count: i64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A word as Redis' errors quote it: what stands before a NUL.
pub fn quoted(word: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = word.iter().position(|byte| *byte == 0).unwrap_or(word.len());
    String::from_utf8_lossy(&word[..end])
}

/// Bytes as a signed 64-bit integer, strictly as Redis' `string2ll`.
pub fn integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        // As many digits as fit into 64 bits whatever they are.
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    if negative {
        0_i64.checked_sub_unsigned(number)
    } else {
        i64::try_from(number).ok()
    }
}

/// Bytes as an unsigned number, as `strtoul` reads them: one that is negative wraps around.
fn cursor(bytes: &[u8]) -> Option<u64> {
    let (negative, digits) = match bytes {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::{cursor, integer};

    #[test]
    fn cursors_are_read_as_leniently_as_redis_reads_them() {
        for (text, value) in [
            ("0", 0),
            ("", 0),
            ("007", 7),
            ("+7", 7),
            ("-1", u64::MAX),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(cursor(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["-", "+", "+-1", " 1", "1 ", "1x", "18446744073709551616"] {
            assert_eq!(cursor(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn integers_are_read_as_strictly_as_redis_reads_them() {
        for (text, value) in [
            ("0", 0),
            ("-1", -1),
            ("-10", -10),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "+1",
            "01",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "9999999999999999999",
            "18446744073709551617",
            "0x1",
            "1:",
            "1/",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }
}
