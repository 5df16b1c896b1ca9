//! Lua 5.1's patterns, metered: a pattern such as `.-.-.-b` takes time that grows with a power of its subject's length, and Lua's own
//! matcher is one C function that nothing can interrupt. What matches, and the text of each error, is Lua's.

use super::meter::{Meter, Stopped};

/// Captures of one pattern. Lua's own bound.
pub(super) const CAPTURES: usize = 32;

/// How deep one item of a pattern may be matched inside another: each quantifier and each bracket of a capture is a level. Lua's own
/// matcher knows no bound and ends with the stack.
const DEPTH: usize = 2_000;

/// Why a pattern could not be matched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The pattern is faulty, in Lua's words.
    Pattern(&'static str),
    /// The run is to end.
    Stopped,
}

impl From<Stopped> for Fault {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

type Found<T> = Result<T, Fault>;

/// How far a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Unfinished,
    Position,
    Bytes(usize),
}

/// What a capture gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture<'subject> {
    /// `()`: a position, from 1 on.
    Position(usize),
    /// The text between the brackets.
    Text(&'subject [u8]),
}

/// One pattern held against one subject.
pub(super) struct Matcher<'a> {
    subject: &'a [u8],
    /// Up to its first NUL, which ends it for Lua 5.1.
    pattern: &'a [u8],
    meter: &'a Meter,
    captures: [(usize, Length); CAPTURES],
    level: usize,
    depth: usize,
}

impl<'a> Matcher<'a> {
    /// Whether the pattern is anchored, and the matcher of what follows the anchor.
    pub(super) fn anchored(subject: &'a [u8], pattern: &'a [u8], meter: &'a Meter) -> (bool, Self) {
        match pattern.strip_prefix(b"^") {
            Some(rest) => (true, Self::new(subject, rest, meter)),
            None => (false, Self::new(subject, pattern, meter)),
        }
    }

    pub(super) fn new(subject: &'a [u8], pattern: &'a [u8], meter: &'a Meter) -> Self {
        let end = pattern
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(pattern.len());
        let captures = [(0, Length::Unfinished); CAPTURES];
        Self {
            subject,
            pattern: &pattern[..end],
            meter,
            captures,
            level: 0,
            depth: 0,
        }
    }

    /// Where a match that begins at `start` ends.
    pub(super) fn at(&mut self, start: usize) -> Found<Option<usize>> {
        self.level = 0;
        self.depth = 0;
        self.rest(start, 0)
    }

    pub(super) fn subject(&self) -> &'a [u8] {
        self.subject
    }

    /// How many captures there are.
    pub(super) fn captures(&self) -> usize {
        self.level
    }

    /// A capture of the last match; the first one is the whole match where the pattern has none.
    pub(super) fn capture(&self, index: usize, start: usize, end: usize) -> Found<Capture<'a>> {
        if index >= self.level {
            return match index {
                0 => Ok(Capture::Text(&self.subject[start..end])),
                _ => Err(Fault::Pattern("invalid capture index")),
            };
        }
        match self.captures[index] {
            (_, Length::Unfinished) => Err(Fault::Pattern("unfinished capture")),
            (at, Length::Position) => Ok(Capture::Position(at + 1)),
            (at, Length::Bytes(length)) => Ok(Capture::Text(&self.subject[at..at + length])),
        }
    }

    /// The pattern's byte at `at`; NUL past its end.
    fn item(&self, at: usize) -> u8 {
        self.pattern.get(at).copied().unwrap_or(0)
    }

    /// Matches the pattern from `item` on at `at`, one level deeper.
    fn rest(&mut self, at: usize, item: usize) -> Found<Option<usize>> {
        if self.depth >= DEPTH {
            return Err(Fault::Pattern("pattern too complex"));
        }
        self.depth += 1;
        let end = self.items(at, item);
        self.depth -= 1;
        end
    }

    fn items(&mut self, mut at: usize, mut item: usize) -> Found<Option<usize>> {
        loop {
            self.meter.step()?;
            match self.item(item) {
                0 => return Ok(Some(at)),
                b'(' if self.item(item + 1) == b')' => return self.open(at, item + 2, Length::Position),
                b'(' => return self.open(at, item + 1, Length::Unfinished),
                b')' => return self.close(at, item + 1),
                b'$' if self.item(item + 1) == 0 => return Ok((at == self.subject.len()).then_some(at)),
                b'%' if self.item(item + 1) == b'b' => {
                    let Some(end) = self.balanced(at, item + 2)? else {
                        return Ok(None);
                    };
                    (at, item) = (end, item + 4);
                }
                b'%' if self.item(item + 1) == b'f' => {
                    let Some(next) = self.frontier(at, item + 2)? else {
                        return Ok(None);
                    };
                    item = next;
                }
                b'%' if self.item(item + 1).is_ascii_digit() => {
                    let Some(end) = self.again(at, self.item(item + 1))? else {
                        return Ok(None);
                    };
                    (at, item) = (end, item + 2);
                }
                _ => {
                    let end = self.class_end(item)?;
                    let fits = self.fits(at, item, end);
                    match self.item(end) {
                        b'?' => {
                            if fits && let Some(end) = self.rest(at + 1, end + 1)? {
                                return Ok(Some(end));
                            }
                            item = end + 1;
                        }
                        b'*' => return self.most(at, item, end),
                        b'+' if fits => return self.most(at + 1, item, end),
                        b'-' => return self.fewest(at, item, end),
                        _ if !fits || self.item(end) == b'+' => return Ok(None),
                        _ => (at, item) = (at + 1, end),
                    }
                }
            }
        }
    }

    /// As often as possible, then less often.
    fn most(&mut self, at: usize, item: usize, end: usize) -> Found<Option<usize>> {
        let mut count = 0;
        while self.fits(at + count, item, end) {
            self.meter.step()?;
            count += 1;
        }
        loop {
            if let Some(end) = self.rest(at + count, end + 1)? {
                return Ok(Some(end));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    /// As seldom as possible, then more often.
    fn fewest(&mut self, mut at: usize, item: usize, end: usize) -> Found<Option<usize>> {
        loop {
            if let Some(end) = self.rest(at, end + 1)? {
                return Ok(Some(end));
            }
            if !self.fits(at, item, end) {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn open(&mut self, at: usize, item: usize, length: Length) -> Found<Option<usize>> {
        if self.level >= CAPTURES {
            return Err(Fault::Pattern("too many captures"));
        }
        self.captures[self.level] = (at, length);
        self.level += 1;
        let end = self.rest(at, item)?;
        if end.is_none() {
            self.level -= 1;
        }
        Ok(end)
    }

    fn close(&mut self, at: usize, item: usize) -> Found<Option<usize>> {
        let open = (0..self.level)
            .rev()
            .find(|index| self.captures[*index].1 == Length::Unfinished);
        let Some(index) = open else {
            return Err(Fault::Pattern("invalid pattern capture"));
        };
        self.captures[index].1 = Length::Bytes(at - self.captures[index].0);
        let end = self.rest(at, item)?;
        if end.is_none() {
            self.captures[index].1 = Length::Unfinished;
        }
        Ok(end)
    }

    /// `%1`: what a capture holds, once more.
    fn again(&mut self, at: usize, digit: u8) -> Found<Option<usize>> {
        let index = usize::from(digit)
            .checked_sub(usize::from(b'1'))
            .filter(|index| *index < self.level);
        let captured = match index.map(|index| self.captures[index]) {
            None | Some((_, Length::Unfinished)) => return Err(Fault::Pattern("invalid capture index")),
            // A position has no length that anything could have.
            Some((_, Length::Position)) => return Ok(None),
            Some((start, Length::Bytes(length))) => &self.subject[start..start + length],
        };
        self.meter.steps(captured.len() / 16)?;
        Ok(self.subject[at..]
            .starts_with(captured)
            .then_some(at + captured.len()))
    }

    /// `%bxy`: from an x to the y that balances it.
    fn balanced(&mut self, at: usize, item: usize) -> Found<Option<usize>> {
        let (open, close) = (self.item(item), self.item(item + 1));
        if open == 0 || close == 0 {
            return Err(Fault::Pattern("unbalanced pattern"));
        }
        if self.subject.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1_usize;
        for (index, byte) in self.subject.iter().enumerate().skip(at + 1) {
            self.meter.step()?;
            if *byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(index + 1));
                }
            } else if *byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: between a byte that is not in the set and one that is; the subject's ends count as NUL.
    fn frontier(&mut self, at: usize, item: usize) -> Found<Option<usize>> {
        if self.item(item) != b'[' {
            return Err(Fault::Pattern("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(item)?;
        let before = at.checked_sub(1).map_or(0, |before| self.subject[before]);
        let here = self.subject.get(at).copied().unwrap_or(0);
        let crosses = !self.in_set(before, item, end - 1) && self.in_set(here, item, end - 1);
        Ok(crosses.then_some(end))
    }

    /// Where the single character that begins at `item` ends.
    fn class_end(&self, item: usize) -> Found<usize> {
        match self.item(item) {
            b'%' if self.item(item + 1) == 0 => Err(Fault::Pattern("malformed pattern (ends with '%')")),
            b'%' => Ok(item + 2),
            b'[' => {
                let mut at = item + 1;
                if self.item(at) == b'^' {
                    at += 1;
                }
                // A bracket right at the beginning stands for itself.
                loop {
                    match self.item(at) {
                        0 => return Err(Fault::Pattern("malformed pattern (missing ']')")),
                        b'%' if self.item(at + 1) != 0 => at += 2,
                        _ => at += 1,
                    }
                    if self.item(at) == b']' {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(item + 1),
        }
    }

    fn fits(&self, at: usize, item: usize, end: usize) -> bool {
        let Some(&byte) = self.subject.get(at) else {
            return false;
        };
        match self.item(item) {
            b'.' => true,
            b'%' => in_class(byte, self.item(item + 1)),
            b'[' => self.in_set(byte, item, end - 1),
            other => other == byte,
        }
    }

    /// Whether the set from the `[` at `item` to the `]` at `last` has this byte.
    fn in_set(&self, byte: u8, item: usize, last: usize) -> bool {
        let (mut at, has) = if self.item(item + 1) == b'^' {
            (item + 2, false)
        } else {
            (item + 1, true)
        };
        while at < last {
            if self.item(at) == b'%' {
                at += 1;
                if in_class(byte, self.item(at)) {
                    return has;
                }
            } else if self.item(at + 1) == b'-' && at + 2 < last {
                if (self.item(at)..=self.item(at + 2)).contains(&byte) {
                    return has;
                }
                at += 2;
            } else if self.item(at) == byte {
                return has;
            }
            at += 1;
        }
        !has
    }
}

/// `%a`, `%d` …; the upper-case letter means the rest.
fn in_class(byte: u8, class: u8) -> bool {
    let has = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | 9..=13),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    has == class.is_ascii_lowercase()
}

/// Where `wanted` begins in `text`.
pub(super) fn plain(text: &[u8], wanted: &[u8], meter: &Meter) -> Result<Option<usize>, Stopped> {
    let Some((first, others)) = wanted.split_first() else {
        return Ok(Some(0));
    };
    let mut from = 0;
    while let Some(rest) = text.get(from..text.len().saturating_sub(others.len())) {
        let Some(found) = rest.iter().position(|byte| byte == first) else {
            return Ok(None);
        };
        let start = from + found;
        let same = text[start + 1..]
            .iter()
            .zip(others)
            .take_while(|(left, right)| left == right)
            .count();
        if same == others.len() {
            return Ok(Some(start));
        }
        meter.steps((found + same) / 16 + 1)?;
        from = start + 1;
    }
    Ok(None)
}

/// Whether the text has a character that means something in a pattern, up to its first NUL.
pub(super) fn is_special(pattern: &[u8]) -> bool {
    pattern
        .iter()
        .take_while(|byte| **byte != 0)
        .any(|byte| b"^$*+?.([%-".contains(byte))
}
