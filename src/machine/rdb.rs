//! Values in the encoding of Redis' RDB files, as `DUMP` gives them and `RESTORE` takes them: a type, the value, the version of the encoding
//! and a checksum.
//!
//! We write the plain encodings, which every Redis reads (for a hash whose fields have deadlines that is Redis 7.4), and read those that Redis
//! writes too: packed lists of several ages and compressed strings. What comes is not trusted: nothing is taken on the word of a length, and
//! whatever is wrong is refused.

mod packed;
mod stream;

use super::args;
use super::entry::Millis;
use super::float;
use super::listpack;
use super::reply::CommandError;
use super::settings::Settings;
use super::value::{Hash, Kind, List, Set, Stream, Value, Zset};
use bytes::Bytes;
use indexmap::IndexMap;
use std::sync::LazyLock;

/// The version that Redis 7.0 writes, and the first in which fields of hashes have deadlines, that of Redis 7.4: the last that is read.
const VERSION: u16 = 10;
const VERSION_FIELD_DEADLINES: u16 = 12;

/// Version and checksum.
const FOOTER: usize = 2 + 8;

/// What the compressed strings of a payload may come to together, in bytes: as much as the longest string there is.
const UNPACKED_MAX: usize = 512 << 20;

/// Types of values.
mod kind {
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    pub(super) const ZSET_TEXT: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const ZSET: u8 = 5;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const ZSET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const STREAM_LISTPACKS: u8 = 15;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const ZSET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const STREAM_LISTPACKS_2: u8 = 19;
    pub(super) const SET_LISTPACK: u8 = 20;
    pub(super) const STREAM_LISTPACKS_3: u8 = 21;
    pub(super) const HASH_DEADLINES: u8 = 24;
    pub(super) const HASH_LISTPACK_DEADLINES: u8 = 25;
}

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its version is not known, or its checksum does not fit.
    Footer,
    /// It is no value.
    Content,
}

/// A value as `DUMP` gives it, without the fields whose deadlines have `passed`; none for what Redis does not have.
pub fn dump(value: &Value, passed: Millis) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut version = VERSION;
    match value {
        Value::String(string) => {
            out.push(kind::STRING);
            write_string(&mut out, string.bytes());
        }
        Value::List(list) => {
            out.push(kind::LIST);
            write_length(&mut out, list.len() as u64);
            list.iter().for_each(|element| write_string(&mut out, element));
        }
        Value::Set(set) => {
            out.push(kind::SET);
            write_length(&mut out, set.len() as u64);
            set.iter().for_each(|member| write_string(&mut out, member));
        }
        Value::Zset(zset) => {
            out.push(kind::ZSET);
            write_length(&mut out, zset.len() as u64);
            // The greatest first, as Redis has it.
            for (member, score) in zset.iter().rev() {
                write_string(&mut out, member);
                out.extend(score.to_bits().to_le_bytes());
            }
        }
        Value::Hash(hash) if hash.first_deadline().is_some() => {
            version = VERSION_FIELD_DEADLINES;
            write_hash_with_deadlines(&mut out, hash, passed);
        }
        Value::Hash(hash) => {
            out.push(kind::HASH);
            write_length(&mut out, hash.len() as u64);
            for part in hash.iter().flat_map(|(field, value)| [field, value]) {
                write_string(&mut out, part);
            }
        }
        Value::Stream(value) => {
            out.push(kind::STREAM_LISTPACKS_2);
            stream::write(&mut out, value)?;
        }
        Value::Session(_) => return None,
    }
    Some(sealed(out, version))
}

/// What is said of a value that [`dump`] has no payload for.
pub fn no_payload(value: &Value) -> CommandError {
    CommandError::Other(format!("ERR a {} cannot be dumped", value.type_name()).into())
}

/// With version and checksum behind it.
fn sealed(mut content: Vec<u8>, version: u16) -> Vec<u8> {
    content.extend(version.to_le_bytes());
    content.extend(crc64(&content).to_le_bytes());
    content
}

/// What stands before the text of a library of functions.
const LIBRARY: u8 = 245;

/// Texts of libraries as `FUNCTION DUMP` gives them.
pub(super) fn dump_libraries<'a>(codes: impl Iterator<Item = &'a Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    for code in codes {
        out.push(LIBRARY);
        write_string(&mut out, code);
    }
    sealed(out, VERSION)
}

/// The texts of a payload that `FUNCTION DUMP` gave, here or at a Redis.
///
/// # Errors
/// As Redis says them.
pub(super) fn restore_libraries(payload: &[u8]) -> Result<Vec<Bytes>, &'static str> {
    let content = checked(payload).ok_or("ERR DUMP payload version or checksum are wrong")?;
    let mut reader = Reader::new(content);
    let mut codes = Vec::new();
    while let Some(kind) = reader.u8() {
        if kind != LIBRARY {
            return Err("ERR given type is not a function");
        }
        codes.push(reader.string().ok_or("ERR Failed loading library data")?);
    }
    Ok(codes)
}

/// The first deadline, and with each field its own: counted from that one, plus 1; 0 where it has none.
fn write_hash_with_deadlines(out: &mut Vec<u8>, hash: &Hash, passed: Millis) {
    let living = hash.after(passed);
    let first = living
        .iter()
        .filter_map(|(field, _)| hash.deadline(field))
        .min()
        .unwrap_or(passed);
    out.push(kind::HASH_DEADLINES);
    out.extend(first.to_le_bytes());
    write_length(out, living.iter().count() as u64);
    for (field, value) in living.iter() {
        write_length(
            out,
            hash.deadline(field)
                .map_or(0, |at| (at - first).saturating_add(1)),
        );
        write_string(out, field);
        write_string(out, value);
    }
}

/// The value of a payload that `DUMP` gave, here or at a Redis.
pub(super) fn restore(payload: &[u8], settings: &Settings) -> Result<Value, Fault> {
    let content = checked(payload).ok_or(Fault::Footer)?;
    let mut reader = Reader::new(content);
    let value = reader
        .u8()
        .and_then(|kind| read_value(kind, &mut reader, settings));
    // A value with nothing in it cannot be.
    value.filter(|value| !value.is_gone()).ok_or(Fault::Content)
}

/// What stands before version and checksum, if both are right.
fn checked(payload: &[u8]) -> Option<&[u8]> {
    let (content, footer) = payload.split_at_checked(payload.len().checked_sub(FOOTER)?)?;
    let (version, sum) = footer.split_first_chunk::<2>()?;
    let sum: &[u8; 8] = sum.try_into().ok()?;
    let fits = crc64(&payload[..payload.len() - 8]) == u64::from_le_bytes(*sum);
    (u16::from_le_bytes(*version) <= VERSION_FIELD_DEADLINES && fits).then_some(content)
}

/// CRC-64 as Jones has it, reflected: what Redis takes.
fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
    static TABLE: LazyLock<Vec<u64>> = LazyLock::new(|| {
        let step = |crc: u64| {
            if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            }
        };
        (0..256)
            .map(|byte| (0..8).fold(byte, |crc, _| step(crc)))
            .collect()
    });
    bytes.iter().fold(0, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ crc >> 8
    })
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    let bytes = length.to_be_bytes();
    match length {
        0..64 => out.push(bytes[7]),
        64..0x4000 => out.extend([0x40 | bytes[6], bytes[7]]),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend(&bytes[4..]);
        }
        _ => {
            out.push(0x81);
            out.extend(bytes);
        }
    }
}

/// A string; as an integer where it is one of at most 32 bits.
fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let number = args::integer(bytes).and_then(|number| i32::try_from(number).ok());
    let Some(number) = number else {
        write_length(out, bytes.len() as u64);
        return out.extend(bytes);
    };
    if let Ok(number) = i8::try_from(number) {
        out.push(0xc0);
        out.extend(number.to_le_bytes());
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xc1);
        out.extend(number.to_le_bytes());
    } else {
        out.push(0xc2);
        out.extend(number.to_le_bytes());
    }
}

/// Reads from the front; none where something is missing or cannot be.
struct Reader<'a> {
    rest: &'a [u8],
    /// How much compressed strings may still come to.
    unpacked_left: usize,
}

/// What stands where a length is expected.
enum Length {
    Plain(u64),
    /// A string that is held otherwise follows.
    Special(u8),
}

impl<'a> Reader<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self {
            rest,
            unpacked_left: UNPACKED_MAX,
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn length_or_special(&mut self) -> Option<Length> {
        let first = self.u8()?;
        let low = first & 0x3f;
        Some(match (first >> 6, first) {
            (0, _) => Length::Plain(low.into()),
            (1, _) => Length::Plain(u16::from_be_bytes([low, self.u8()?]).into()),
            (_, 0x80) => Length::Plain(u32::from_be_bytes(self.array()?).into()),
            (_, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, _) => Length::Special(low),
            _ => return None,
        })
    }

    fn length(&mut self) -> Option<u64> {
        match self.length_or_special()? {
            Length::Plain(length) => Some(length),
            Length::Special(_) => None,
        }
    }

    fn string(&mut self) -> Option<Bytes> {
        let number = |number: i32| Some(Bytes::from(number.to_string()));
        match self.length_or_special()? {
            Length::Plain(length) => Some(Bytes::copy_from_slice(self.take(usize::try_from(length).ok()?)?)),
            Length::Special(0) => number(i8::from_le_bytes(self.array()?).into()),
            Length::Special(1) => number(i16::from_le_bytes(self.array()?).into()),
            Length::Special(2) => number(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => {
                let (packed, length) = (self.length()?, self.length()?);
                let packed = self.take(usize::try_from(packed).ok()?)?;
                let length = usize::try_from(length).ok()?;
                self.unpacked_left = self.unpacked_left.checked_sub(length)?;
                decompressed(packed, length).map(Bytes::from)
            }
            Length::Special(_) => None,
        }
    }

    /// A count, and so many times what `one` reads. Each takes at least a byte, so that a count that lies ends soon.
    fn each<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        for _ in 0..self.length()? {
            all.push(one(self)?);
        }
        Some(all)
    }
}

/// What LZF has packed to `length` bytes.
fn decompressed(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let (mut out, mut reader) = (Vec::new(), Reader::new(packed));
    while let Some(control) = reader.u8() {
        if control < 32 {
            out.extend(reader.take(usize::from(control) + 1)?);
        } else {
            let mut run = usize::from(control >> 5);
            if run == 7 {
                run += usize::from(reader.u8()?);
            }
            let back = usize::from(u16::from_be_bytes([control & 0x1f, reader.u8()?])) + 1;
            // What is copied may reach into what was copied just now.
            let from = out.len().checked_sub(back)?;
            for at in from..from + run + 2 {
                out.push(out[at]);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

fn read_value(kind: u8, reader: &mut Reader<'_>, settings: &Settings) -> Option<Value> {
    match kind {
        kind::STRING => Some(Value::string(&reader.string()?)),
        kind::LIST => Some(list(reader.each(Reader::string)?)),
        kind::SET => set(reader.each(Reader::string)?),
        kind::HASH => hash(
            reader
                .each(|reader| Some([reader.string()?, reader.string()?]))?
                .into_flattened(),
        ),
        kind::ZSET => zset(
            reader.each(|reader| Some((reader.string()?, f64::from_le_bytes(reader.array()?))))?,
            settings,
        ),
        kind::ZSET_TEXT => zset(
            reader.each(|reader| Some((reader.string()?, score_text(reader)?)))?,
            settings,
        ),
        kind::HASH_ZIPMAP => hash(packed::zipmap(&reader.string()?)?),
        kind::HASH_ZIPLIST => hash(packed::ziplist(&reader.string()?)?),
        kind::HASH_LISTPACK => hash(listpack::items(&reader.string()?)?),
        kind::HASH_DEADLINES => hash_with_deadlines(reader),
        kind::HASH_LISTPACK_DEADLINES => {
            reader.array::<8>()?;
            hash_of_triples(listpack::items(&reader.string()?)?)
        }
        kind::LIST_ZIPLIST => Some(list(packed::ziplist(&reader.string()?)?)),
        kind::LIST_QUICKLIST => {
            let nodes = reader.each(|reader| packed::ziplist(&reader.string()?))?;
            Some(list(nodes.into_iter().flatten().collect()))
        }
        kind::LIST_QUICKLIST_2 => Some(list(reader.each(quicklist_node)?.into_iter().flatten().collect())),
        kind::SET_INTSET => set(packed::intset(&reader.string()?)?),
        kind::SET_LISTPACK => set(listpack::items(&reader.string()?)?),
        kind::STREAM_LISTPACKS | kind::STREAM_LISTPACKS_2 | kind::STREAM_LISTPACKS_3 => {
            stream::read(kind, reader, settings.level > 3).map(Stream::into_value)
        }
        kind::ZSET_ZIPLIST => zset(scored(packed::ziplist(&reader.string()?)?)?, settings),
        kind::ZSET_LISTPACK => zset(scored(listpack::items(&reader.string()?)?)?, settings),
        _ => None,
    }
}

fn list(elements: Vec<Bytes>) -> Value {
    let mut list = List::default();
    elements.iter().for_each(|element| list.push_back(element));
    list.into_value()
}

/// None where a member is there twice.
fn set(members: Vec<Bytes>) -> Option<Value> {
    let mut set = Set::default();
    let new = members.iter().all(|member| set.insert(member));
    new.then(|| set.into_value())
}

/// Of fields and values by turns; none where a field is there twice or lacks its value.
fn hash(parts: Vec<Bytes>) -> Option<Value> {
    let mut hash = Hash::default();
    let (pairs, rest) = parts.as_chunks::<2>();
    let new = pairs.iter().all(|[field, value]| hash.set(field, value));
    (new && rest.is_empty()).then(|| hash.into_value())
}

fn hash_with_deadlines(reader: &mut Reader<'_>) -> Option<Value> {
    let first = u64::from_le_bytes(reader.array()?);
    let fields = reader.each(|reader| Some((reader.length()?, reader.string()?, reader.string()?)))?;
    let mut hash = Hash::default();
    for (ttl, field, value) in fields {
        if !hash.set(&field, &value) {
            return None;
        }
        if ttl > 0 {
            hash.set_deadline(&field, Some(first.checked_add(ttl - 1)?));
        }
    }
    Some(hash.into_value())
}

/// Of fields, values and deadlines (0: none) by turns.
fn hash_of_triples(parts: Vec<Bytes>) -> Option<Value> {
    let mut hash = Hash::default();
    let (triples, rest) = parts.as_chunks::<3>();
    for [field, value, deadline] in triples {
        let deadline = u64::try_from(args::integer(deadline)?).ok()?;
        if !hash.set(field, value) {
            return None;
        }
        hash.set_deadline(field, (deadline > 0).then_some(deadline));
    }
    rest.is_empty().then(|| hash.into_value())
}

/// None where a member is there twice, or a score is not a number.
fn zset(members: Vec<(Bytes, f64)>, settings: &Settings) -> Option<Value> {
    let mut scores = IndexMap::new();
    for (member, score) in members {
        if score.is_nan() || scores.insert(member, score).is_some() {
            return None;
        }
    }
    Some(Zset::of(scores, settings).into_value())
}

/// Of members and scores by turns.
fn scored(parts: Vec<Bytes>) -> Option<Vec<(Bytes, f64)>> {
    let (pairs, rest) = parts.as_chunks::<2>();
    let scored = pairs
        .iter()
        .map(|[member, score]| Some((member.clone(), float::double(score)?)));
    scored.collect::<Option<Vec<_>>>().filter(|_| rest.is_empty())
}

/// A score as the oldest encoding has it.
fn score_text(reader: &mut Reader<'_>) -> Option<f64> {
    match reader.u8()? {
        255 => Some(f64::NEG_INFINITY),
        254 => Some(f64::INFINITY),
        253 => None,
        length => float::double(reader.take(length.into())?),
    }
}

/// The elements of a node: one that is great, or several in a listpack.
fn quicklist_node(reader: &mut Reader<'_>) -> Option<Vec<Bytes>> {
    match reader.length()? {
        1 => Some(vec![reader.string()?]),
        2 => listpack::items(&reader.string()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::keyspace::Chance;

    fn sealed(content: &[u8], version: u16) -> Vec<u8> {
        super::sealed(content.to_vec(), version)
    }

    fn values() -> Vec<Value> {
        let mut list = List::default();
        let mut set = Set::default();
        let mut hash = Hash::default();
        let mut ending = Hash::default();
        let mut scores = IndexMap::new();
        for number in [0i64, -1, 63, 64, 127, 128, -4096, 40_000, -2_000_000_000, 1 << 40] {
            let text = number.to_string();
            list.push_back(text.as_bytes());
            list.push_back(&vec![b'x'; usize::try_from(number.clamp(0, 40_000)).unwrap()]);
            set.insert(text.as_bytes());
            hash.set(text.as_bytes(), b"value");
            ending.set(text.as_bytes(), b"value");
            scores.insert(Bytes::from(text), number as f64 / 3.0);
        }
        ending.set_deadline(b"63", Some(5_000));
        ending.set_deadline(b"0", Some(7_000));
        scores.insert(Bytes::from_static(b"inf"), f64::INFINITY);
        // In the order in which they are dumped, which a restored one is walked in.
        scores.sort_by(|_, one, _, other| other.total_cmp(one));
        let settings = Settings::default();
        let mut chance = Chance::new(1);
        let mut values = vec![
            stream::tests::any_stream(&mut chance, 0).into_value(),
            stream::tests::any_stream(&mut chance, 250).into_value(),
            Value::string(b""),
            Value::string(b"-7"),
            Value::string(b"9223372036854775807"),
            Value::string(&[b'a'; 70_000]),
            list.into_value(),
            set.into_value(),
            hash.into_value(),
            ending.into_value(),
            Zset::of(scores, &settings).into_value(),
        ];
        values.iter_mut().for_each(|value| value.settle(&settings));
        values
    }

    #[test]
    fn what_is_dumped_is_restored() {
        for value in values() {
            let payload = dump(&value, 1_000).unwrap();
            let mut restored = restore(&payload, &Settings::default()).unwrap();
            restored.settle(&Settings::default());
            assert_eq!(restored, value);
        }
    }

    #[test]
    fn the_checksum_is_that_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn every_flip_and_every_cut_is_refused() {
        for value in values() {
            let payload = dump(&value, 1_000).unwrap();
            let step = payload.len() / 300 + 1;
            for at in (0..payload.len()).step_by(step) {
                assert_eq!(restore(&payload[..at], &Settings::default()), Err(Fault::Footer));
                let mut flipped = payload.clone();
                flipped[at] ^= 1 << (at % 8);
                assert_eq!(restore(&flipped, &Settings::default()), Err(Fault::Footer));
            }
        }
    }

    #[test]
    fn lies_under_a_right_checksum_are_refused_or_are_values() {
        let mut chance = Chance::new(2026);
        let contents = values().into_iter().map(|value| dump(&value, 1_000).unwrap());
        for content in contents.map(|payload| payload[..payload.len() - FOOTER].to_vec()) {
            for _ in 0..300 {
                let mut lie = content.clone();
                for _ in 0..=chance.below(3) {
                    let at = chance.below(lie.len().min(200));
                    lie[at] = chance.below(256) as u8;
                }
                lie.truncate(1 + chance.below(lie.len()));
                let _ = restore(&sealed(&lie, VERSION), &Settings::default());
            }
        }
        // Any bytes, of every kind.
        for step in 0..20_000usize {
            let mut lie = vec![(step % 30) as u8];
            lie.extend((0..chance.below(60)).map(|_| chance.below(256) as u8));
            let _ = restore(&sealed(&lie, VERSION), &Settings::default());
        }
    }

    /// A few bytes that say "the same again" come to many: there is an end to all of a payload together.
    #[test]
    fn compressed_strings_of_one_payload_are_bounded_together() {
        let (unpacked, mut packed) = (2 + 64 * 264, vec![0, b'x']);
        packed.extend([0xe0, 0xff, 0].repeat(64));
        packed.extend([0, b'x']);
        let mut one = vec![0xc3];
        write_length(&mut one, packed.len() as u64);
        write_length(&mut one, unpacked as u64);
        one.extend(&packed);
        let three = one.repeat(3);
        let mut reader = Reader {
            unpacked_left: 2 * unpacked + 1,
            ..Reader::new(&three)
        };
        let lengths = [(); 3].map(|()| reader.string().map(|string| string.len()));
        assert_eq!(lengths, [Some(unpacked), Some(unpacked), None]);
    }

    #[test]
    fn lengths_that_lie_take_no_memory() {
        for content in [
            &[kind::LIST, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            &[kind::STRING, 0x80, 0xff, 0xff, 0xff, 0xff],
            &[kind::STRING, 0xc3, 2, 0x80, 0xff, 0xff, 0xff, 0xff, 0, b'x'],
            &[kind::LIST, 0],
            &[kind::HASH, 0],
            &[kind::SET, 2, 1, b'a', 1, b'a'],
            &[
                kind::STREAM_LISTPACKS_2,
                0x81,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
            ],
            &[6, 0],
        ] {
            assert_eq!(
                restore(&sealed(content, VERSION), &Settings::default()),
                Err(Fault::Content)
            );
        }
        assert_eq!(
            restore(&sealed(&[kind::STRING, 0], 13), &Settings::default()),
            Err(Fault::Footer)
        );
    }
}
