//! Bytes whose count of references stands beside them: made with one allocation, shared without any.
//!
//! `Bytes` that come from a slice get their count when they are shared for the first time: an allocation of 32 bytes in the middle of a read, and from
//! then on a place in memory that each read has to fetch beside the content.

use bytes::Bytes;

/// The longest content that has its count beside it. Longer content has one too, in an allocation of its own: its length hides what that costs, and
/// it can be changed in place.
const LONGEST: usize = 255;

/// A copy of `content` that allocates nothing when it is shared.
pub(crate) fn counted(content: &[u8]) -> Bytes {
    // With the count and the length these are sizes in steps of 8 bytes: whatever steps an allocator gives, and whatever it keeps beside, no more than 7
    // bytes are lost here.
    match content.len() {
        0 => Bytes::new(),
        1..=7 => beside::<7>(content),
        8..=15 => beside::<15>(content),
        16..=23 => beside::<23>(content),
        24..=31 => beside::<31>(content),
        32..=39 => beside::<39>(content),
        40..=47 => beside::<47>(content),
        48..=55 => beside::<55>(content),
        56..=63 => beside::<63>(content),
        64..=71 => beside::<71>(content),
        72..=79 => beside::<79>(content),
        80..=87 => beside::<87>(content),
        88..=95 => beside::<95>(content),
        96..=103 => beside::<103>(content),
        104..=111 => beside::<111>(content),
        112..=119 => beside::<119>(content),
        120..=127 => beside::<127>(content),
        128..=135 => beside::<135>(content),
        136..=143 => beside::<143>(content),
        144..=151 => beside::<151>(content),
        152..=159 => beside::<159>(content),
        160..=167 => beside::<167>(content),
        168..=175 => beside::<175>(content),
        176..=183 => beside::<183>(content),
        184..=191 => beside::<191>(content),
        192..=199 => beside::<199>(content),
        200..=207 => beside::<207>(content),
        208..=215 => beside::<215>(content),
        216..=223 => beside::<223>(content),
        224..=231 => beside::<231>(content),
        232..=239 => beside::<239>(content),
        240..=247 => beside::<247>(content),
        248..=LONGEST => beside::<LONGEST>(content),
        length => {
            // With room to spare, it is given its count at once.
            let mut copy = Vec::with_capacity(length + 1);
            copy.extend_from_slice(content);
            copy.into()
        }
    }
}

/// What an allocation holds after its count.
struct Content<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> AsRef<[u8]> for Content<N> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

fn beside<const N: usize>(content: &[u8]) -> Bytes {
    let mut bytes = [0; N];
    bytes[..content.len()].copy_from_slice(content);
    Bytes::from_owner(Content {
        length: u8::try_from(content.len()).expect("LONGEST at most"),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_copy_whatever_its_length() {
        for length in 0..600 {
            let content: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let copy = counted(&content);
            assert_eq!(
                (copy.len(), &copy[..], copy.clone()),
                (length, &content[..], copy.clone())
            );
        }
    }
}
