//! What stands for a session in a cookie, and what of it is stored: a keyed hash, so that who reads a dump, a snapshot or an event opens no session.

use crate::error::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// The longest id that is read from outside, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// What the keys of all sessions begin with.
pub(super) const PREFIX: &str = "session:";

/// Bytes of the hash that are stored: 128 bits.
const HASH_BYTES: usize = 16;

/// Bytes of the key under which a session stands.
const KEY_BYTES: usize = PREFIX.len() + 2 * HASH_BYTES;

/// What the hash is keyed with where the application gives no key: it tells ours from other hashes, and keeps no secret.
const DEFAULT_KEY: &[u8] = b"plenary session id";

/// What stands for a session in a cookie: who has it, has the session. `Debug` shows its first four characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// A fresh one: 128 bits from the operating system, as 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bits = [0; HASH_BYTES];
        getrandom::fill(&mut bits).map_err(|source| Error::Io {
            doing: "drawing a session id".to_owned(),
            source: std::io::Error::other(source),
        })?;
        Ok(Self(hex(bits).map(char::from).iter().collect()))
    }

    /// The text, for the cookie.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// Reads an id as a cookie brings it: 1 to [`ID_BYTES_MAX`] letters, digits, `-` and `_`.
    fn from_str(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > ID_BYTES_MAX || !text.bytes().all(allowed) {
            let what = format!("a session id has 1 to {ID_BYTES_MAX} letters, digits, `-` and `_`");
            return Err(Error::Value(what));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.0.len() >= 16 { &self.0[..4] } else { "" };
        write!(f, "SessionId({shown}…)")
    }
}

/// What ids are hashed with.
#[derive(Clone)]
pub(super) struct IdKey(Hmac<Sha256>);

impl IdKey {
    /// A key of any length.
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The key under which the session of this id stands: `session:`, and half of HMAC-SHA-256 as 32 hexadecimal digits.
    pub(super) fn key_of(&self, id: &SessionId) -> [u8; KEY_BYTES] {
        // What HMAC makes of the key alone was computed when that was given.
        let mut hash = self.0.clone();
        hash.update(id.0.as_bytes());
        let hash = hash.finalize().into_bytes();
        let half = std::array::from_fn(|at| hash[at]);
        let mut key = [0; KEY_BYTES];
        let (prefix, digits) = key.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        digits.copy_from_slice(&hex(half));
        key
    }
}

impl Default for IdKey {
    fn default() -> Self {
        Self::new(DEFAULT_KEY)
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey")
    }
}

/// 128 bits in hexadecimal digits. For each load of a session: a formatter would take longer than the hash does.
fn hex(bits: [u8; HASH_BYTES]) -> [u8; 2 * HASH_BYTES] {
    std::array::from_fn(|at| {
        let byte = bits[at / 2];
        let half = if at % 2 == 0 { byte >> 4 } else { byte & 0xf };
        b"0123456789abcdef"[usize::from(half)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_a_keyed_hash_of_the_id() {
        let id: SessionId = "abc".parse().expect("an id");
        // printf abc | openssl dgst -sha256 -hmac 'plenary session id'; the same with 'another'
        let stored = |key: IdKey| key.key_of(&id);
        assert_eq!(
            stored(IdKey::default()),
            *b"session:36a9fde4ba7ea07b92bc3751ee975951"
        );
        assert_eq!(
            stored(IdKey::new(b"another")),
            *b"session:2af1a2bb0afa2a810cc1d3337d90c6bd"
        );
    }
}
