//! The name of a key where its slot is: a short one without an allocation of its own, so that whoever compares it has it already.

use std::fmt;
use std::ops::Deref;

/// The longest name that is kept in place: together with its length and the kind it makes up three words.
const IN_PLACE: usize = 22;

/// A key's name.
#[derive(Clone)]
pub(super) struct Name(Kept);

#[derive(Clone)]
enum Kept {
    InPlace(u8, [u8; IN_PLACE]),
    Apart(Box<[u8]>),
}

impl Name {
    /// Copies it.
    pub(super) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; IN_PLACE];
        Self(match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(name);
                Kept::InPlace(length, bytes)
            }
            _ => Kept::Apart(name.into()),
        })
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Kept::Apart(name) => name,
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.escape_ascii().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_it_was_made_of_and_takes_three_words() {
        for length in 0..100 {
            let name: Vec<u8> = (0..length).collect();
            assert_eq!(&*Name::new(&name), &name[..]);
        }
        assert_eq!(size_of::<Name>(), 24);
    }
}
