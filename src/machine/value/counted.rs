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
    // Sizes that, with the count and the length, fill what an allocator gives in steps of 16 bytes.
    match content.len() {
        0 => Bytes::new(),
        1..=15 => beside::<15>(content),
        16..=31 => beside::<31>(content),
        32..=47 => beside::<47>(content),
        48..=63 => beside::<63>(content),
        64..=79 => beside::<79>(content),
        80..=95 => beside::<95>(content),
        96..=111 => beside::<111>(content),
        112..=127 => beside::<127>(content),
        128..=143 => beside::<143>(content),
        144..=175 => beside::<175>(content),
        176..=207 => beside::<207>(content),
        208..=LONGEST => beside::<LONGEST>(content),
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
