//! Listpacks: the one run of bytes in which Redis holds small values and the nodes of streams. How many bytes an item takes, reading what comes
//! from elsewhere, and writing.
//!
//! Total length u32, count of items u16, the items, an end. Behind each item stands its own length, for walks backwards. What comes is not
//! trusted: nothing is taken on the word of a length, and whatever is wrong is none.

use super::args;
use bytes::Bytes;

/// Bytes in front of the items and behind them.
pub(super) const FRAME: usize = 4 + 2 + 1;

/// What ends each of them.
const END: u8 = 0xff;

/// Bytes of an integer, with its length behind it.
pub(super) fn integer_size(number: i64) -> usize {
    match number {
        0..=127 => 2,
        -4096..=4095 => 3,
        -32_768..=32_767 => 4,
        -8_388_608..=8_388_607 => 5,
        -2_147_483_648..=2_147_483_647 => 6,
        _ => 10,
    }
}

/// Bytes of a text, with its length behind it: as a number where it is one.
pub(super) fn text_size(text: &[u8]) -> usize {
    args::integer(text).map_or_else(|| string_size(text.len()), integer_size)
}

/// Bytes of a text of this length that is no number, with its length behind it.
pub(super) fn string_size(length: usize) -> usize {
    let size = length
        + match length {
            0..=63 => 1,
            64..=4095 => 2,
            _ => 5,
        };
    size + length_size(size)
}

/// Bytes of the length that stands behind an item of so many bytes.
fn length_size(size: usize) -> usize {
    match size {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// A little-endian integer with sign of up to eight bytes.
pub(super) fn signed(bytes: &[u8]) -> i64 {
    let mut wide = [0; 8];
    let start = 8 - bytes.len();
    wide[start..].copy_from_slice(bytes);
    i64::from_le_bytes(wide) >> (8 * start)
}

/// Every item as text.
pub(super) fn items(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let (mut reader, mut items) = (Reader::new(bytes)?, Vec::new());
    while !reader.is_over() {
        items.push(reader.text()?);
    }
    Some(items)
}

/// Reads item by item.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// From the first item on; none where the total length is another one.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let (total, rest) = bytes.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<2>()?;
        let is_whole = usize::try_from(u32::from_le_bytes(*total)) == Ok(bytes.len());
        is_whole.then_some(Self { rest })
    }

    /// Whether no item is left and nothing stands behind the end.
    pub(super) fn is_over(&self) -> bool {
        self.rest == [END]
    }

    /// The next item, which must be an integer.
    pub(super) fn integer(&mut self) -> Option<i64> {
        args::integer(&self.text()?)
    }

    /// The next item as text.
    pub(super) fn text(&mut self) -> Option<Bytes> {
        let before = self.rest.len();
        let item = self.item()?;
        self.take(length_size(before - self.rest.len()))?;
        Some(item)
    }

    fn item(&mut self) -> Option<Bytes> {
        let first = self.byte()?;
        let number = |number: i64| Some(Bytes::from(number.to_string()));
        let length = match first {
            0..0x80 => return number(first.into()),
            0x80..0xc0 => usize::from(first & 0x3f),
            0xc0..0xe0 => {
                let value = i64::from(u16::from_be_bytes([first & 0x1f, self.byte()?]));
                return number(if value >= 1 << 12 {
                    value - (1 << 13)
                } else {
                    value
                });
            }
            0xe0..0xf0 => u16::from_be_bytes([first & 0x0f, self.byte()?]).into(),
            0xf0 => {
                let (length, rest) = self.rest.split_first_chunk::<4>()?;
                self.rest = rest;
                usize::try_from(u32::from_le_bytes(*length)).ok()?
            }
            0xf1 => return number(signed(self.take(2)?)),
            0xf2 => return number(signed(self.take(3)?)),
            0xf3 => return number(signed(self.take(4)?)),
            0xf4 => return number(signed(self.take(8)?)),
            _ => return None,
        };
        Some(Bytes::copy_from_slice(self.take(length)?))
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }
}

/// Items one behind the other, to be framed.
#[derive(Default)]
pub(super) struct Writer {
    items: Vec<u8>,
    count: usize,
}

impl Writer {
    /// Bytes of the items so far.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// An integer, as small as it can be.
    pub(super) fn integer(&mut self, number: i64) {
        self.wide_integer(number, integer_size(number) - 1);
    }

    /// An integer in so many bytes, less its length behind it: one of 1, 2, 3, 4, 5 and 9, and enough for it.
    pub(super) fn wide_integer(&mut self, number: i64, bytes: usize) {
        let [a, b, c, d, ..] = number.to_le_bytes();
        match bytes {
            1 => self.items.push(a),
            2 => self.items.extend([0xc0 | b & 0x1f, a]),
            3 => self.items.extend([0xf1, a, b]),
            4 => self.items.extend([0xf2, a, b, c]),
            5 => self.items.extend([0xf3, a, b, c, d]),
            _ => {
                self.items.push(0xf4);
                self.items.extend(number.to_le_bytes());
            }
        }
        self.end_item(bytes);
    }

    /// A text: as a number where it is one.
    pub(super) fn text(&mut self, text: &[u8]) {
        if let Some(number) = args::integer(text) {
            return self.integer(number);
        }
        let start = self.items.len();
        let length = u32::try_from(text.len()).expect("no argument has 4 GiB");
        let [a, b, ..] = length.to_le_bytes();
        match length {
            0..=63 => self.items.push(0x80 | a),
            64..=4095 => self.items.extend([0xe0 | b, a]),
            _ => {
                self.items.push(0xf0);
                self.items.extend(length.to_le_bytes());
            }
        }
        self.items.extend(text);
        self.end_item(self.items.len() - start);
    }

    /// The length of an item behind it: seven bits a byte, the greatest first, all but the first marked.
    fn end_item(&mut self, size: usize) {
        let bytes = length_size(size);
        for at in (0..bytes).rev() {
            let [low, ..] = (size >> (7 * at)).to_le_bytes();
            let mark = if at + 1 == bytes { 0 } else { 0x80 };
            self.items.push(low & 0x7f | mark);
        }
        self.count += 1;
    }

    /// The items of another behind these.
    pub(super) fn append(&mut self, other: &Self) {
        self.items.extend(&other.items);
        self.count += other.count;
    }

    /// The whole of it; none where it is too long for its total length.
    pub(super) fn framed(self) -> Option<Vec<u8>> {
        let total = u32::try_from(self.items.len() + FRAME).ok()?;
        // A count too great for its place is said to be unknown.
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        Some(
            [
                &total.to_le_bytes()[..],
                &count.to_le_bytes(),
                &self.items,
                &[END],
            ]
            .concat(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way to hold an integer at its bounds, and each length at which another number of bytes says it.
    #[test]
    fn what_is_written_is_read_and_has_the_size_it_should() {
        let bounds = [127i64, 4095, 32_767, 8_388_607, 2_147_483_647, i64::MAX];
        let mut texts: Vec<Bytes> = bounds
            .iter()
            .flat_map(|bound| [*bound, bound.wrapping_add(1), -bound, -bound - 1])
            .map(|number| Bytes::from(number.to_string()))
            .collect();
        let lengths = [
            0usize, 63, 64, 125, 126, 4_095, 4_096, 16_377, 16_378, 2_097_145, 2_097_146,
        ];
        texts.extend(lengths.map(|length| Bytes::from(vec![b'x'; length])));
        texts.extend(["007", "-0", "+1", "9223372036854775808"].map(Bytes::from));
        let mut writer = Writer::default();
        for text in &texts {
            let before = writer.len();
            writer.text(text);
            assert_eq!(writer.len() - before, text_size(text), "{} bytes", text.len());
        }
        let bytes = writer.framed().unwrap();
        assert_eq!(items(&bytes).unwrap(), texts);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut writer = Writer::default();
        writer.text(b"text");
        let bytes = writer.framed().unwrap();
        assert_eq!(bytes, *b"\x0d\0\0\0\x01\0\x84text\x05\xff");
        for lie in [
            &b"\x0c\0\0\0\x01\0\x84text\x05\xff"[..],
            b"\x0d\0\0\0\x01\0\x85text\x05\xff",
            b"\x0d\0\0\0\x01\0\xf5text\x05\xff",
            b"\x0d\0\0\0\x01\0\xf0\xff\xff\xff\xfft\x05\xff",
            b"\x0c\0\0\0\x01\0\x84text\x05",
            b"\x07\0\0\0\0\0",
            b"",
        ] {
            assert_eq!(items(lie), None, "{lie:?}");
        }
    }
}
