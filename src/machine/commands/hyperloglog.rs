//! HyperLogLogs: about how many different things were seen, in at most 12 KiB.
//!
//! Follows Redis 7.0, down to the bytes that `GET` shows: a header of 16 bytes (`HYLL`, the encoding, three zeros, and the count last made,
//! whose highest bit says that it is stale), then [`REGISTERS`] registers. Dense: 6 bits for each, the lowest first. Sparse: runs of equal
//! registers, in the order of the registers,
//!
//! ```text
//! 00llllll            l + 1 registers that are zero
//! 01llllll llllllll   l + 1 registers that are zero
//! 1vvvvvll            l + 1 registers that are v + 1
//! ```
//!
//! which becomes dense when a register is to be more than 32 or when it would grow beyond `hll-sparse-max-bytes`. How it is cut into runs
//! follows from the order in which things were added, as in Redis.

use crate::machine::args::Args;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Chance, Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::{Encoding, Str, Value};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    write("PFADD", "key [element [element ...]]", pfadd)
        .since("2.8.9")
        .flags("denyoom fast")
        .summary("Notes that things were seen; whether the estimate may have changed."),
    // Differs: with one key Redis also writes the count that it made into the key.
    read("PFCOUNT", "key [key ...]", pfcount)
        .since("2.8.9")
        .summary("About how many different things were seen, by one or by any of several."),
    write("PFDEBUG", "subcommand key", pfdebug)
        .since("2.8.9")
        .flags("denyoom admin")
        .categories("admin dangerous")
        .summary("Shows how a HyperLogLog is held: GETREG, DECODE, ENCODING, TODENSE."),
    write("PFMERGE", "destination [key [key ...]]", pfmerge)
        .since("2.8.9")
        .flags("denyoom")
        .summary("Makes one that has seen what any of several have."),
    read("PFSELFTEST", "", pfselftest)
        .since("2.8.9")
        .flags("admin")
        .categories("admin dangerous")
        .summary("Tries registers and the error of the estimate."),
];

/// Bits of a hash that say which register it is for.
const INDEX_BITS: u32 = 14;

/// How many registers there are.
const REGISTERS: usize = 1 << INDEX_BITS;

/// The most that a register can come to: the zeros before the first one of a hash, and that one.
const RANK_MAX: usize = 64 - INDEX_BITS as usize + 1;

const HEADER: usize = 16;

const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;

/// Where the header says how the registers are held, and the two ways.
const ENCODING_AT: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;

/// Where the header holds the last count, and the byte of it whose highest bit says that it is stale.
const COUNT_AT: usize = 8;
const STALE_AT: usize = 15;
const STALE: u8 = 0x80;

/// The most that a register can be, and the most registers of one run, in the sparse encoding.
const SPARSE_RANK_MAX: u8 = 32;
const SPARSE_EQUAL_MAX: usize = 4;
const SPARSE_ZEROS_MAX: usize = 64;

const CORRUPTED: CommandError = CommandError::text("INVALIDOBJ Corrupted HLL object detected");

/// The bytes of a HyperLogLog that has seen nothing.
fn empty() -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(b"HYLL");
    bytes[ENCODING_AT] = SPARSE;
    push_zeros(&mut bytes, REGISTERS);
    bytes
}

/// The HyperLogLog under a key.
fn found<'a>(view: &View<'a>, key: &[u8]) -> Result<Option<&'a Bytes>, CommandError> {
    let Some(bytes) = view.string(key)?.map(Str::bytes) else {
        return Ok(None);
    };
    let valid = bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && match bytes[ENCODING_AT] {
            DENSE => bytes.len() == DENSE_BYTES,
            encoding => encoding == SPARSE,
        };
    if valid {
        Ok(Some(bytes))
    } else {
        Err(CommandError::text(
            "WRONGTYPE Key is not a valid HyperLogLog string value.",
        ))
    }
}

fn is_dense(bytes: &[u8]) -> bool {
    bytes[ENCODING_AT] == DENSE
}

/// `MurmurHash64A` with the seed that Redis has for it.
fn hash(element: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mixed = |word: u64| {
        let word = word.wrapping_mul(FACTOR);
        (word ^ (word >> 47)).wrapping_mul(FACTOR)
    };
    let (words, rest) = element.as_chunks::<8>();
    let mut hash = 0xadc8_3b19 ^ (element.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        hash = (hash ^ mixed(u64::from_le_bytes(*word))).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let last = rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(FACTOR);
    hash ^ (hash >> 47)
}

/// The register that an element is for, and the least that it must be then.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = hash(element);
    let index = usize::try_from(hash % REGISTERS as u64).expect("below REGISTERS");
    // A one behind the last bit, so that there always is one.
    let rest = hash >> INDEX_BITS | 1 << (64 - INDEX_BITS);
    (
        index,
        u8::try_from(rest.trailing_zeros() + 1).expect("at most RANK_MAX"),
    )
}

fn dense_register(bytes: &[u8], index: usize) -> u8 {
    let (at, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let next = bytes.get(at + 1).copied().unwrap_or(0);
    let [register, _] = (u16::from_le_bytes([bytes[at], next]) >> shift & 63).to_le_bytes();
    register
}

fn set_dense_register(bytes: &mut [u8], index: usize, value: u8) {
    let (at, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let [mask, next_mask] = (63u16 << shift).to_le_bytes();
    let [part, next_part] = (u16::from(value & 63) << shift).to_le_bytes();
    bytes[at] = bytes[at] & !mask | part;
    if let Some(next) = bytes.get_mut(at + 1) {
        *next = *next & !next_mask | next_part;
    }
}

/// A run of equal registers in the sparse encoding.
#[derive(Clone, Copy, PartialEq)]
struct Run {
    value: u8,
    length: usize,
    /// Bytes it takes.
    bytes: usize,
}

/// The run that begins at `at`, which is inside.
fn run_at(bytes: &[u8], at: usize) -> Run {
    let byte = bytes[at];
    let low = usize::from(byte & 0x3f);
    match byte >> 6 {
        0 => Run {
            value: 0,
            length: low + 1,
            bytes: 1,
        },
        1 => {
            let next = usize::from(bytes.get(at + 1).copied().unwrap_or(0));
            Run {
                value: 0,
                length: (low << 8 | next) + 1,
                bytes: 2,
            }
        }
        _ => Run {
            value: (byte >> 2 & 0x1f) + 1,
            length: (low & 3) + 1,
            bytes: 1,
        },
    }
}

/// All runs of a sparse one.
fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let run = (at < bytes.len()).then(|| run_at(bytes, at))?;
        at += run.bytes;
        Some(run)
    })
}

fn push_zeros(out: &mut Vec<u8>, length: usize) {
    let [low, high, ..] = (length - 1).to_le_bytes();
    if length > SPARSE_ZEROS_MAX {
        out.extend([0x40 | high, low]);
    } else {
        out.push(low);
    }
}

/// A run of a value between 1 and [`SPARSE_RANK_MAX`], and of 1 to [`SPARSE_EQUAL_MAX`] registers.
fn equal(value: u8, length: usize) -> u8 {
    let [length, ..] = (length - 1).to_le_bytes();
    0x80 | (value - 1) << 2 | length
}

/// Every register.
///
/// # Errors
/// A sparse one whose runs are of more or fewer registers than there are.
fn registers(bytes: &[u8]) -> Result<Vec<u8>, CommandError> {
    if is_dense(bytes) {
        return Ok((0..REGISTERS).map(|index| dense_register(bytes, index)).collect());
    }
    let mut registers = Vec::with_capacity(REGISTERS);
    for run in runs(bytes) {
        if registers.len() + run.length > REGISTERS {
            return Err(CORRUPTED);
        }
        registers.resize(registers.len() + run.length, run.value);
    }
    if registers.len() == REGISTERS {
        Ok(registers)
    } else {
        Err(CORRUPTED)
    }
}

/// The same in the dense encoding.
fn to_dense(bytes: &[u8]) -> Result<Vec<u8>, CommandError> {
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER].copy_from_slice(&bytes[..HEADER]);
    dense[ENCODING_AT] = DENSE;
    for (index, value) in registers(bytes)?
        .into_iter()
        .enumerate()
        .filter(|(_, value)| *value > 0)
    {
        set_dense_register(&mut dense, index, value);
    }
    Ok(dense)
}

/// Raises a register to `value`, unless it is as great already. Whether it was raised. `sparse_max`: see the head of this file.
fn raise(bytes: &mut Vec<u8>, index: usize, value: u8, sparse_max: usize) -> Result<bool, CommandError> {
    if !is_dense(bytes) {
        match raise_sparse(bytes, index, value, sparse_max)? {
            Some(raised) => return Ok(raised),
            None => *bytes = to_dense(bytes)?,
        }
    }
    let raised = dense_register(bytes, index) < value;
    if raised {
        set_dense_register(bytes, index, value);
    }
    Ok(raised)
}

/// [`raise`] in the sparse encoding; none, and nothing has changed, where it must become dense for it.
fn raise_sparse(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max: usize,
) -> Result<Option<bool>, CommandError> {
    if value > SPARSE_RANK_MAX {
        return Ok(None);
    }
    let (mut before, mut at, mut first) = (HEADER, HEADER, 0);
    let run = loop {
        if at >= bytes.len() {
            return Err(CORRUPTED);
        }
        let run = run_at(bytes, at);
        if index < first + run.length {
            break run;
        }
        (before, at, first) = (at, at + run.bytes, first + run.length);
    };
    if run.value >= value {
        return Ok(Some(false));
    }
    // The run is cut in what comes before the register, the register, and what comes after.
    let mut cut = Vec::with_capacity(5);
    let push_rest = |cut: &mut Vec<u8>, length: usize| match (length, run.value) {
        (0, _) => {}
        (_, 0) => push_zeros(cut, length),
        (_, value) => cut.push(equal(value, length)),
    };
    push_rest(&mut cut, index - first);
    cut.push(equal(value, 1));
    push_rest(&mut cut, first + run.length - index - 1);
    if cut.len() > run.bytes && bytes.len() + cut.len() - run.bytes > sparse_max {
        return Ok(None);
    }
    let end = bytes.len().min(at + run.bytes);
    bytes.splice(at..end, cut);
    join_equal(bytes, before);
    Ok(Some(true))
}

/// Joins neighbours of equal value, as far as they fit in one run: five steps from `at` on, which is what a change can have touched.
fn join_equal(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        if at >= bytes.len() {
            return;
        }
        let run = run_at(bytes, at);
        let next = (at + 1 < bytes.len() && run.value > 0).then(|| run_at(bytes, at + 1));
        match next {
            Some(next) if next.value == run.value && next.length + run.length <= SPARSE_EQUAL_MAX => {
                bytes[at + 1] = equal(run.value, next.length + run.length);
                bytes.remove(at);
            }
            _ => at += run.bytes,
        }
    }
}

/// About how many different things make registers like these. Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog
/// sketches", arXiv:1702.01284.
fn estimate(registers: &[u8]) -> i64 {
    let mut times = [0u32; 64];
    registers.iter().for_each(|value| times[usize::from(*value)] += 1);
    let all = REGISTERS as f64;
    let mut sum = all * tau((all - f64::from(times[RANK_MAX])) / all);
    for count in times[1..RANK_MAX].iter().rev() {
        sum = (sum + f64::from(*count)) * 0.5;
    }
    sum += all * sigma(f64::from(times[0]) / all);
    // 0.5 / ln 2, to the digits that Redis has.
    let estimate = (0.721_347_520_444_481_7 * all * all / sum).round();
    // Registers that no hash makes; Redis comes to the same where a number has no place in 64 bits.
    if estimate.is_finite() {
        estimate as i64
    } else {
        i64::MIN
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut factor, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut factor, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        factor *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * factor;
        if sum == before {
            return sum / 3.0;
        }
    }
}

/// Puts new bytes in the place of a HyperLogLog, or of nothing; the deadline stays.
fn put(keys: &mut Keyspace<'_>, key: &[u8], mut bytes: Vec<u8>) {
    bytes[STALE_AT] |= STALE;
    let string = Str::restored(bytes.into(), Encoding::Raw).expect("any bytes can be raw");
    keys.put_keeping_deadline(key, Value::String(string));
}

fn pfadd(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, elements) = (args.key()?, args.rest());
    let sparse_max = keys.settings().hll_sparse_max_bytes;
    let places = elements.iter().map(|element| place(element));
    let view = keys.view();
    match found(&view, key)? {
        Some(bytes) if is_dense(bytes) => {
            let raised: Vec<(usize, u8)> = places
                .filter(|(index, value)| dense_register(bytes, *index) < *value)
                .collect();
            if raised.is_empty() {
                return Ok(Reply::Integer(0));
            }
            raise_in_place(keys, key, &raised);
        }
        there => {
            let (mut bytes, mut raised) = (there.map_or_else(empty, |bytes| bytes.to_vec()), there.is_none());
            for (index, value) in places {
                raised |= raise(&mut bytes, index, value, sparse_max)?;
            }
            if !raised {
                return Ok(Reply::Integer(0));
            }
            put(keys, key, bytes);
        }
    }
    keys.notify(Classes::STRING, "pfadd", key);
    Ok(Reply::Integer(1))
}

/// Raises registers of a dense one without a copy of it.
fn raise_in_place(keys: &mut Keyspace<'_>, key: &[u8], raised: &[(usize, u8)]) {
    keys.change(key, |value| {
        if let Value::String(string) = value {
            string.change(|bytes| {
                for (index, value) in raised {
                    let higher = dense_register(bytes, *index).max(*value);
                    set_dense_register(bytes, *index, higher);
                }
                bytes[STALE_AT] |= STALE;
            });
        }
    });
}

fn pfcount(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let keys = args.rest();
    if let [key] = keys {
        let Some(bytes) = found(view, key)? else {
            return Ok(Reply::Integer(0));
        };
        if bytes[STALE_AT] & STALE == 0 {
            let count = bytes[COUNT_AT..HEADER].try_into().expect("8 bytes of the header");
            return Ok(Reply::Integer(i64::from_le_bytes(count)));
        }
        return Ok(Reply::Integer(estimate(&registers(bytes)?)));
    }
    Ok(Reply::Integer(estimate(&union(view, keys)?.0)))
}

/// The greatest of each register over several keys, and whether one of them is dense.
fn union(view: &View<'_>, keys: &[Bytes]) -> Result<(Vec<u8>, bool), CommandError> {
    let (mut greatest, mut dense) = (vec![0; REGISTERS], false);
    for key in keys {
        if let Some(bytes) = found(view, key)? {
            dense |= is_dense(bytes);
            let others = registers(bytes)?;
            greatest
                .iter_mut()
                .zip(others)
                .for_each(|(one, other)| *one = other.max(*one));
        }
    }
    Ok((greatest, dense))
}

fn pfmerge(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let all = args.rest();
    let view = keys.view();
    let (greatest, dense) = union(&view, all)?;
    let destination = &all[0];
    let mut bytes = found(&view, destination)?.map_or_else(empty, |bytes| bytes.to_vec());
    if dense && !is_dense(&bytes) {
        bytes = to_dense(&bytes)?;
    }
    let sparse_max = keys.settings().hll_sparse_max_bytes;
    for (index, value) in greatest.into_iter().enumerate().filter(|(_, value)| *value > 0) {
        raise(&mut bytes, index, value, sparse_max)?;
    }
    put(keys, destination, bytes);
    keys.notify(Classes::STRING, "pfadd", destination);
    Ok(Reply::OK)
}

fn pfdebug(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (subcommand, key) = (args.bytes()?, args.key()?);
    let is = |word: &str| subcommand.eq_ignore_ascii_case(word.as_bytes());
    let view = keys.view();
    let bytes = found(&view, key)?.ok_or(CommandError::text("ERR The specified key does not exist"))?;
    let dense = is_dense(bytes);
    if is("ENCODING") {
        Ok(Reply::Simple(if dense { "dense" } else { "sparse" }.into()))
    } else if is("DECODE") {
        if dense {
            Err(CommandError::text("ERR HLL encoding is not sparse"))
        } else {
            Ok(Reply::bulk(decoded(bytes)))
        }
    } else if is("TODENSE") || is("GETREG") {
        let answer = if is("GETREG") {
            let registers = registers(bytes)?.into_iter();
            Reply::Array(registers.map(|value| Reply::Integer(value.into())).collect())
        } else {
            Reply::flag(!dense)
        };
        if !dense {
            let bytes = to_dense(bytes)?;
            let string = Str::restored(bytes.into(), Encoding::Raw).expect("any bytes can be raw");
            keys.put_keeping_deadline(key, Value::String(string));
        }
        Ok(answer)
    } else {
        let text = format!(
            "ERR Unknown PFDEBUG subcommand '{}'",
            String::from_utf8_lossy(subcommand)
        );
        Err(CommandError::Other(text.into()))
    }
}

/// The runs of a sparse one, for a person.
fn decoded(bytes: &[u8]) -> String {
    let shown = runs(bytes).map(|run| match (run.value, run.bytes) {
        (0, 1) => format!("z:{}", run.length),
        (0, _) => format!("Z:{}", run.length),
        (value, _) => format!("v:{value},{}", run.length),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Elements that the self-test adds: enough for every way of holding them, few enough to hold nobody up.
const TEST_ELEMENTS: u64 = 2_500;

/// Redis' test with fewer elements: both encodings come to the same estimate, which is close to the truth.
fn pfselftest(view: &View<'_>, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    let failed = |why: &str| Err(CommandError::Other(format!("ERR TESTFAILED {why}").into()));
    let mut chance = Chance::new(view.chance());
    let values: Vec<u8> = (0..REGISTERS)
        .map(|_| u8::try_from(chance.below(64)).expect("below 64"))
        .collect();
    let mut dense = to_dense(&empty())?;
    for (index, value) in values.iter().enumerate() {
        set_dense_register(&mut dense, index, *value);
    }
    if (0..REGISTERS).any(|index| dense_register(&dense, index) != values[index]) {
        return failed("A register is not what it was set to");
    }
    let (mut dense, mut sparse) = (to_dense(&empty())?, empty());
    let (seed, mut checkpoint) = (chance.draw(), 1);
    for number in 1..=TEST_ELEMENTS {
        let (index, value) = place(&(number ^ seed).to_le_bytes());
        raise(&mut dense, index, value, 0)?;
        raise(&mut sparse, index, value, 3_000)?;
        if number < checkpoint && number < TEST_ELEMENTS {
            continue;
        }
        let count = estimate(&registers(&dense)?);
        if count != estimate(&registers(&sparse)?) {
            return failed("dense/sparse disagree");
        }
        // Six times the standard error of so many registers.
        let most = (1.04 / (REGISTERS as f64).sqrt() * 6.0 * number as f64).ceil();
        if (count as f64 - number as f64).abs() > most {
            return failed("Too big error");
        }
        checkpoint *= 10;
    }
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_what_they_were_set_to() {
        let mut chance = Chance::new(7);
        let mut bytes = to_dense(&empty()).unwrap();
        let values: Vec<u8> = (0..REGISTERS).map(|_| chance.below(64) as u8).collect();
        for (index, value) in values.iter().enumerate() {
            set_dense_register(&mut bytes, index, *value);
        }
        assert_eq!(registers(&bytes).unwrap(), values);
        assert_eq!(bytes.len(), DENSE_BYTES);
    }

    #[test]
    fn both_encodings_hold_the_same_registers() {
        for seed in 0..20 {
            let mut chance = Chance::new(seed);
            let (mut dense, mut sparse) = (to_dense(&empty()).unwrap(), empty());
            for _ in 0..500 {
                // Few registers and values, so that runs meet.
                let (index, value) = (chance.below(40), 1 + chance.below(4) as u8);
                let raised = raise(&mut sparse, index, value, usize::MAX).unwrap();
                assert_eq!(raised, raise(&mut dense, index, value, 0).unwrap());
                assert_eq!(registers(&sparse).unwrap(), registers(&dense).unwrap());
            }
            assert!(!is_dense(&sparse));
        }
    }

    #[test]
    fn damaged_runs_are_refused_or_counted() {
        let mut good = empty();
        for number in 0..300u32 {
            let (index, value) = place(&number.to_le_bytes());
            raise(&mut good, index, value, 3_000).unwrap();
        }
        let mut chance = Chance::new(3);
        for _ in 0..3_000 {
            let mut bytes = good.clone();
            let at = HEADER + chance.below(bytes.len() - HEADER);
            bytes[at] = chance.below(256) as u8;
            bytes.truncate(bytes.len() - chance.below(3));
            let _ = registers(&bytes);
            let (index, value) = place(&chance.draw().to_le_bytes());
            let _ = raise(&mut bytes, index, value, 3_000);
        }
    }
}
