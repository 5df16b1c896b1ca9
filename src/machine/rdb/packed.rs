//! The compact forms, beside listpacks, in which Redis holds or held, and so writes, small lists, sets, hashes and sorted sets. Read only.
//!
//! Each is one string: its own length, the items one behind the other, an end. None where anything of it cannot be.

use super::Reader;
use crate::machine::listpack::signed;
use bytes::Bytes;

/// What ends each of them.
const END: u8 = 0xff;

fn number(number: i64) -> Bytes {
    Bytes::from(number.to_string())
}

/// Items until the end, which must be the last byte.
fn until_end(
    mut reader: Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>) -> Option<Bytes>,
) -> Option<Vec<Bytes>> {
    let mut items = Vec::new();
    while *reader.rest.first()? != END {
        items.push(item(&mut reader)?);
    }
    (reader.rest.len() == 1).then_some(items)
}

/// Total length u32, where the last item begins u32, count u16, then items each behind the length of the one before.
pub(super) fn ziplist(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::new(bytes);
    let total = u32::from_le_bytes(reader.array()?);
    reader.array::<6>()?;
    if usize::try_from(total) != Ok(bytes.len()) {
        return None;
    }
    until_end(reader, |reader| {
        if reader.u8()? == 254 {
            reader.array::<4>()?;
        }
        ziplist_item(reader)
    })
}

fn ziplist_item(reader: &mut Reader<'_>) -> Option<Bytes> {
    let first = reader.u8()?;
    let string = |reader: &mut Reader<'_>, length: usize| Some(Bytes::copy_from_slice(reader.take(length)?));
    match first {
        0..0x40 => string(reader, first.into()),
        0x40..0x80 => {
            let length = u16::from_be_bytes([first & 0x3f, reader.u8()?]);
            string(reader, length.into())
        }
        0x80 => {
            let length = u32::from_be_bytes(reader.array()?);
            string(reader, usize::try_from(length).ok()?)
        }
        0xc0 => Some(number(signed(reader.take(2)?))),
        0xd0 => Some(number(signed(reader.take(4)?))),
        0xe0 => Some(number(signed(reader.take(8)?))),
        0xf0 => Some(number(signed(reader.take(3)?))),
        0xfe => Some(number(signed(reader.take(1)?))),
        0xf1..=0xfd => Some(number(i64::from(first & 0x0f) - 1)),
        _ => None,
    }
}

/// Bytes of each integer u32, count u32, then they in order, each once.
pub(super) fn intset(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::new(bytes);
    let width = usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?;
    let count = usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?;
    if !matches!(width, 2 | 4 | 8) || count.checked_mul(width)? != reader.rest.len() {
        return None;
    }
    let numbers: Vec<i64> = reader.rest.chunks_exact(width).map(signed).collect();
    let ascending = numbers.is_sorted_by(|one, next| one < next);
    ascending.then(|| numbers.into_iter().map(number).collect())
}

/// A count u8, then fields and values, each behind its length; a value has some bytes unused behind it.
pub(super) fn zipmap(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::new(bytes);
    reader.u8()?;
    let mut is_value = false;
    until_end(reader, |reader| {
        let length = match reader.u8()? {
            254 => usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?,
            length => usize::from(length),
        };
        let unused = if is_value { usize::from(reader.u8()?) } else { 0 };
        let item = Bytes::copy_from_slice(reader.take(length)?);
        reader.take(unused)?;
        is_value = !is_value;
        Some(item)
    })
}
