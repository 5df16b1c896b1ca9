//! Bitmaps: strings seen as bits, the highest bit of the first byte first.
//!
//! Follows Redis 7.0. Where nothing was set there are zeros, as far as a string can go: [`STRING_MAX`] bytes.

use super::string::STRING_MAX;
use crate::machine::args::{self, Args};
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::{Encoding, Str, Value};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) const COMMANDS: &[Spec] = &[
    read("BITCOUNT", "key [start end [BYTE | BIT]]", bitcount)
        .since("2.6.0")
        .summary("How many bits are set, in all of a string or in a range of it."),
    write("BITFIELD", "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | INCRBY encoding offset increment> ...]", bitfield)
        .since("3.2.0")
        .flags("denyoom")
        .summary("Reads, sets and adds to integers of any width at any bit of a string."),
    read("BITFIELD_RO", "key [GET encoding offset ...]", bitfield_ro)
        .since("6.0.0")
        .flags("fast")
        .summary("Reads integers of any width at any bit of a string."),
    write("BITOP", "operation destination key [key ...]", bitop)
        .since("2.6.0")
        .flags("denyoom")
        .summary("Stores what AND, OR, XOR or NOT make of strings; the length of the result."),
    read("BITPOS", "key bit [start [end [BYTE | BIT]]]", bitpos)
        .since("2.8.7")
        .summary("Where the first bit is that is set, or is not."),
    read("GETBIT", "key offset", getbit)
        .since("2.2.0")
        .flags("fast")
        .summary("A bit; 0 beyond the end."),
    write("SETBIT", "key offset value", setbit)
        .since("2.2.0")
        .flags("denyoom")
        .summary("Sets or clears a bit and gives what it was; the string grows as far as needed."),
];

/// A bit that a string can have. Redis' `getBitOffsetFromArgument`, without its `#`.
fn bit_offset(text: &[u8]) -> Result<usize, CommandError> {
    field_offset(text, 1)
}

/// A bit that a string can have, times `scale`.
fn field_offset(text: &[u8], scale: u8) -> Result<usize, CommandError> {
    args::integer(text)
        .and_then(|offset| usize::try_from(offset).ok()?.checked_mul(usize::from(scale)))
        .filter(|offset| offset >> 3 < STRING_MAX)
        .ok_or(CommandError::text(
            "ERR bit offset is not an integer or out of range",
        ))
}

fn bit_of(bytes: &[u8], offset: usize) -> bool {
    bytes
        .get(offset >> 3)
        .is_some_and(|byte| byte << (offset & 7) & 0x80 != 0)
}

fn getbit(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, offset) = (args.key()?, bit_offset(args.bytes()?)?);
    let string = view.string(key)?;
    Ok(Reply::flag(
        string.is_some_and(|string| bit_of(string.bytes(), offset)),
    ))
}

fn setbit(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, offset) = (args.key()?, bit_offset(args.bytes()?)?);
    let on = match &args.bytes()?[..] {
        b"0" => false,
        b"1" => true,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    let (old, length) = match keys.view().string(key)? {
        Some(string) => (bit_of(string.bytes(), offset), string.bytes().len()),
        None => (false, 0),
    };
    // Redis tells nobody of a bit that is there and is so already.
    let differs = old != on || length <= offset >> 3;
    if differs || !is_raw(keys, key) {
        change(keys, key, (offset >> 3) + 1, |bytes| {
            bytes[offset >> 3] = with_bit(bytes[offset >> 3], offset, on);
        });
    }
    if differs {
        keys.notify(Classes::STRING, "setbit", key);
    }
    Ok(Reply::flag(old))
}

/// Whether a string is `raw` already; any other becomes so by a command that may change its bits, also by one that does not.
fn is_raw(keys: &Keyspace<'_>, key: &[u8]) -> bool {
    let view = keys.view();
    let string = view.string(key).ok().flatten();
    string.is_some_and(|string| string.encoding() == Encoding::Raw)
}

/// Changes the bytes of a string in place, which is made, or filled up with zeros, to have at least `length` of them.
fn change(keys: &mut Keyspace<'_>, key: &[u8], length: usize, change: impl FnOnce(&mut [u8])) {
    if keys.view().slot(key).is_none() {
        keys.put(key, Value::string(b""));
    }
    keys.change(key, |value| {
        if let Value::String(string) = value {
            string.change(|bytes| {
                bytes.resize(length.max(bytes.len()), 0);
                change(bytes);
            });
        }
    });
}

/// How the ends of a range are counted.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Byte,
    Bit,
}

fn unit(word: &[u8]) -> Result<Unit, CommandError> {
    if word.eq_ignore_ascii_case(b"BIT") {
        Ok(Unit::Bit)
    } else if word.eq_ignore_ascii_case(b"BYTE") {
        Ok(Unit::Byte)
    } else {
        Err(CommandError::Syntax)
    }
}

/// The bits from `start` to `end`, both included and negative ones counted from the end, as positions of bits; none where that is empty.
fn range(bytes: &[u8], start: i64, end: i64, unit: Unit) -> Option<(usize, usize)> {
    let bits = if unit == Unit::Bit { 1 } else { 8 };
    let length = i64::try_from(bytes.len() * 8 / bits).expect("at most 8 * STRING_MAX");
    let position = |at: i64| {
        if at < 0 {
            at.saturating_add(length).max(0)
        } else {
            at
        }
    };
    let (start, end) = (position(start), position(end).min(length - 1));
    if start > end {
        return None;
    }
    let index = |at: i64| usize::try_from(at).expect("between 0 and the length: just cut") * bits;
    Some((index(start), index(end) + bits - 1))
}

/// The byte at `at` with the bits outside of `first..=last` as `filled`.
fn masked(bytes: &[u8], at: usize, (first, last): (usize, usize), filled: bool) -> u8 {
    let mut inside = 0xff;
    if at == first >> 3 {
        inside &= 0xff >> (first & 7);
    }
    if at == last >> 3 {
        inside &= 0xff << (7 - (last & 7));
    }
    if filled {
        bytes[at] | !inside
    } else {
        bytes[at] & inside
    }
}

fn bitcount(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // Redis reads nothing more where there is no key.
    let Some(string) = view.string(args.key()?)? else {
        return Ok(Reply::Integer(0));
    };
    let bytes = string.bytes();
    let (start, end) = match args.remaining() {
        0 => (0, -1),
        2 | 3 => (args.integer()?, args.integer()?),
        _ => return Err(CommandError::Syntax),
    };
    // Backwards is empty, also where both ends would be cut to the first byte.
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::Integer(0));
    }
    let unit = if args.is_empty() {
        Unit::Byte
    } else {
        unit(args.bytes()?)?
    };
    let Some((first, last)) = range(bytes, start, end, unit) else {
        return Ok(Reply::Integer(0));
    };
    let (from, to) = (first >> 3, last >> 3);
    let ones = |byte: u8| u64::from(byte.count_ones());
    let count = if from == to {
        ones(masked(bytes, from, (first, last), false))
    } else {
        let ends = [from, to].map(|at| ones(masked(bytes, at, (first, last), false)));
        ends[0] + ends[1] + ones_in(&bytes[from + 1..to])
    };
    Ok(Reply::Integer(
        i64::try_from(count).expect("at most 8 * STRING_MAX"),
    ))
}

/// How many bits are set, eight bytes at a time.
fn ones_in(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 = words
        .iter()
        .map(|word| u64::from(u64::from_le_bytes(*word).count_ones()))
        .sum();
    words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

fn bitpos(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, bit) = (args.key()?, args.integer()?);
    let wanted = match bit {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    // Nothing is zeros without end; Redis reads nothing more.
    let Some(string) = view.string(key)? else {
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let bytes = string.bytes();
    if args.remaining() > 3 {
        return Err(CommandError::Syntax);
    }
    let start = if args.is_empty() { 0 } else { args.integer()? };
    let (end, rest) = (args.bytes().ok(), args.bytes().ok());
    let unit = rest.map_or(Ok(Unit::Byte), |word| unit(word))?;
    let bounded = end.is_some();
    let end = end
        .map_or(Some(-1), |end| args::integer(end))
        .ok_or(CommandError::NotAnInteger)?;
    let Some((first, last)) = range(bytes, start, end, unit) else {
        return Ok(Reply::Integer(-1));
    };
    let without = if wanted { 0 } else { 0xff };
    let found = (first >> 3..=last >> 3)
        .map(|at| (at, masked(bytes, at, (first, last), !wanted)))
        .find(|(_, byte)| *byte != without)
        .map(|(at, byte)| at * 8 + (byte ^ without).leading_zeros() as usize);
    Ok(match found {
        Some(position) => Reply::count(position),
        // Zeros go on behind the end, unless the caller drew the line.
        None if !wanted && !bounded => Reply::count(bytes.len() * 8),
        None => Reply::Integer(-1),
    })
}

fn bitop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (name, destination, sources) = (args.bytes()?, args.key()?, args.rest());
    type Operation = fn(u8, u8) -> u8;
    let operations: [(&str, Operation); 4] = [
        ("AND", |one, other| one & other),
        ("OR", |one, other| one | other),
        ("XOR", |one, other| one ^ other),
        ("NOT", |one, _| !one),
    ];
    let (name, operation) = operations
        .into_iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
        .ok_or(CommandError::Syntax)?;
    if name == "NOT" && sources.len() != 1 {
        return Err(CommandError::text(
            "ERR BITOP NOT must be called with a single source key.",
        ));
    }
    let mut strings = Vec::with_capacity(sources.len());
    for key in sources {
        let string = keys.view().string(key)?.map(|string| string.bytes().clone());
        strings.push(string.unwrap_or_default());
    }
    let length = strings.iter().map(Bytes::len).max().unwrap_or(0);
    if length > 0 {
        let result = combined(&strings, length, (name == "NOT").then_some(0), operation);
        let string = Str::restored(result.into(), Encoding::Raw).expect("any bytes can be raw");
        keys.put(destination, Value::String(string));
        keys.notify(Classes::STRING, "set", destination);
    } else if keys.remove(destination).is_some() {
        keys.notify(Classes::GENERIC, "del", destination);
    }
    Ok(Reply::count(length))
}

/// The first string with every other one (for an operation on one string: with `alone`) by an operation, all filled up with zeros to `length`.
fn combined(strings: &[Bytes], length: usize, alone: Option<u8>, operation: fn(u8, u8) -> u8) -> Vec<u8> {
    let mut result = vec![0; length];
    result[..strings[0].len()].copy_from_slice(&strings[0]);
    if let Some(other) = alone {
        result.iter_mut().for_each(|byte| *byte = operation(*byte, other));
    }
    for string in &strings[1..] {
        let (covered, beyond) = result.split_at_mut(string.len());
        covered
            .iter_mut()
            .zip(string)
            .for_each(|(byte, other)| *byte = operation(*byte, *other));
        beyond.iter_mut().for_each(|byte| *byte = operation(*byte, 0));
    }
    result
}

/// What `SET` and `INCRBY` do with a number that does not fit.
#[derive(Clone, Copy, PartialEq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer's width and sign: `u8`, `i16` …
#[derive(Clone, Copy)]
struct Width {
    signed: bool,
    /// 1 to 64; to 63 without sign.
    bits: u8,
}

impl Width {
    fn parse(text: &[u8]) -> Result<Self, CommandError> {
        let (signed, most) = match text.first() {
            Some(b'i') => (true, 64),
            Some(b'u') => (false, 63),
            _ => (false, 0),
        };
        text.get(1..)
            .and_then(args::integer)
            .filter(|bits| (1..=most).contains(bits))
            .map(|bits| Self { signed, bits: u8::try_from(bits).expect("at most 64") })
            .ok_or(CommandError::text(
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
            ))
    }

    /// The number that these bits are.
    fn number(self, bits: u64) -> i64 {
        let unused = 64 - u32::from(self.bits);
        if self.signed {
            (bits << unused).cast_signed() >> unused
        } else {
            bits.cast_signed()
        }
    }

    /// The least and the greatest number.
    fn bounds(self) -> (i128, i128) {
        if self.signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// What is stored for a number; none if it does not fit and the command shall fail.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i64> {
        let (least, greatest) = self.bounds();
        let kept = if (least..=greatest).contains(&number) {
            number
        } else {
            match overflow {
                Overflow::Wrap => {
                    let range = 1i128 << self.bits;
                    let wrapped = number.rem_euclid(range);
                    if wrapped > greatest {
                        wrapped - range
                    } else {
                        wrapped
                    }
                }
                Overflow::Saturate => number.clamp(least, greatest),
                Overflow::Fail => return None,
            }
        };
        Some(i64::try_from(kept).expect("within the bounds of at most 64 bits"))
    }
}

enum Act {
    Get,
    Set(i64),
    Increase(i64),
}

/// One operation of `BITFIELD`.
struct Operation {
    act: Act,
    width: Width,
    offset: usize,
    overflow: Overflow,
}

impl Operation {
    /// All operations of a call, in order.
    fn parse_all(args: &mut Args<'_>) -> Result<Vec<Operation>, CommandError> {
        let (mut operations, mut overflow) = (Vec::new(), Overflow::Wrap);
        while !args.is_empty() {
            let arguments = args.remaining() - 1;
            if arguments >= 2 && args.keyword("GET") {
                operations.push(Self::parse(args, overflow, |_| Ok(Act::Get))?);
            } else if arguments >= 3 && args.keyword("SET") {
                operations.push(Self::parse(args, overflow, |args| args.integer().map(Act::Set))?);
            } else if arguments >= 3 && args.keyword("INCRBY") {
                operations.push(Self::parse(args, overflow, |args| {
                    args.integer().map(Act::Increase)
                })?);
            } else if arguments >= 1 && args.keyword("OVERFLOW") {
                overflow = if args.keyword("WRAP") {
                    Overflow::Wrap
                } else if args.keyword("SAT") {
                    Overflow::Saturate
                } else if args.keyword("FAIL") {
                    Overflow::Fail
                } else {
                    return Err(CommandError::text("ERR Invalid OVERFLOW type specified"));
                };
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(operations)
    }

    fn parse<'a>(
        args: &mut Args<'a>,
        overflow: Overflow,
        act: impl FnOnce(&mut Args<'a>) -> Result<Act, CommandError>,
    ) -> Result<Operation, CommandError> {
        let width = Width::parse(args.bytes()?)?;
        let offset = match &args.bytes()?[..] {
            [b'#', index @ ..] => field_offset(index, width.bits)?,
            offset => bit_offset(offset)?,
        };
        Ok(Operation {
            act: act(args)?,
            width,
            offset,
            overflow,
        })
    }

    /// The byte behind its last one.
    fn end(&self) -> usize {
        ((self.offset + usize::from(self.width.bits) - 1) >> 3) + 1
    }

    fn reads(&self) -> bool {
        matches!(self.act, Act::Get)
    }

    fn read(&self, bytes: &[u8]) -> Reply {
        let byte = |at| bytes.get(at).copied().unwrap_or(0);
        Reply::Integer(self.width.number(read_bits(byte, self.offset, self.width.bits)))
    }

    /// Does it; the answer, and whether the number that stands there is another one now.
    fn run(&self, draft: &mut Draft<'_>) -> (Reply, bool) {
        let old = self
            .width
            .number(read_bits(|at| draft.byte(at), self.offset, self.width.bits));
        let wanted = match self.act {
            Act::Get => return (Reply::Integer(old), false),
            Act::Increase(by) => i128::from(old) + i128::from(by),
            // A negative number set without a sign is a very great one.
            Act::Set(number) if !self.width.signed => i128::from(number.cast_unsigned()),
            Act::Set(number) => i128::from(number),
        };
        let Some(new) = self.width.fit(wanted, self.overflow) else {
            return (Reply::Nil, false);
        };
        draft.write(self.offset, self.width.bits, new.cast_unsigned());
        let answer = if matches!(self.act, Act::Set(_)) { old } else { new };
        (Reply::Integer(answer), old != new)
    }
}

/// The `count` (at most 64) bits from `offset` on.
fn read_bits(byte: impl Fn(usize) -> u8, offset: usize, count: u8) -> u64 {
    let bit = |at: usize| byte(at >> 3) >> (7 - (at & 7)) & 1;
    (offset..offset + usize::from(count)).fold(0, |bits, at| bits << 1 | u64::from(bit(at)))
}

/// A byte with the bit at `offset` of the whole string, which is one of this byte's, set or cleared.
fn with_bit(byte: u8, offset: usize, on: bool) -> u8 {
    let mask = 0x80 >> (offset & 7);
    if on { byte | mask } else { byte & !mask }
}

/// A string with changes that were not made yet: whether there are any is known only when all operations were tried.
struct Draft<'a> {
    bytes: &'a [u8],
    changed: BTreeMap<usize, u8>,
}

impl Draft<'_> {
    fn byte(&self, at: usize) -> u8 {
        let old = || self.bytes.get(at).copied().unwrap_or(0);
        self.changed.get(&at).copied().unwrap_or_else(old)
    }

    /// Writes the lowest `count` (at most 64) bits of `bits` from `offset` on.
    fn write(&mut self, offset: usize, count: u8, bits: u64) {
        for index in 0..usize::from(count) {
            let (at, on) = (offset + index, bits >> (usize::from(count) - 1 - index) & 1 == 1);
            let byte = with_bit(self.byte(at >> 3), at, on);
            self.changed.insert(at >> 3, byte);
        }
    }
}

fn bitfield(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, operations) = (args.key()?, Operation::parse_all(args)?);
    let writes = operations.iter().filter(|operation| !operation.reads());
    let Some(end) = writes.map(Operation::end).max() else {
        return read_all(&keys.view(), key, &operations);
    };
    let there = keys.view().string(key)?.map(|string| string.bytes().clone());
    let there = there.unwrap_or_default();
    let grows = there.len() < end;
    let (mut draft, mut written, mut differs) = (
        Draft {
            bytes: &there,
            changed: BTreeMap::new(),
        },
        false,
        false,
    );
    let mut answers = Vec::with_capacity(operations.len());
    for operation in &operations {
        let (answer, another) = operation.run(&mut draft);
        written |= !operation.reads() && answer != Reply::Nil;
        differs |= another;
        answers.push(answer);
    }
    let changed = draft.changed;
    drop(there);
    if grows || differs || !is_raw(keys, key) {
        change(keys, key, end, |bytes| {
            changed.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        });
    }
    // As in Redis, a string that only grew, for numbers that did not fit, is told to nobody.
    if differs || (grows && written) {
        keys.notify(Classes::STRING, "setbit", key);
    }
    Ok(Reply::Array(answers))
}

fn bitfield_ro(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, operations) = (args.key()?, Operation::parse_all(args)?);
    if !operations.iter().all(Operation::reads) {
        return Err(CommandError::text(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    read_all(view, key, &operations)
}

fn read_all(view: &View<'_>, key: &[u8], operations: &[Operation]) -> Result<Reply, CommandError> {
    let string = view.string(key)?;
    let bytes: &[u8] = string.map_or(&[], |string| string.bytes());
    Ok(Reply::Array(
        operations.iter().map(|operation| operation.read(bytes)).collect(),
    ))
}
