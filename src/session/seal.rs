//! Sealing the values of sessions (feature `encryption`): a ring of keys, and the bytes that stand in the log, in snapshots and before Redis
//! clients in place of a value. Knows nothing of sessions beyond the names that a value is bound to.
//!
//! # The bytes
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 0xf5 is the one described here. No UTF-8 text contains that byte, so text and JSON are never taken for sealed |
//! | 4 | id of the key, little-endian |
//! | 24 | nonce, random |
//! | as many as the value | ciphertext, XChaCha20-Poly1305 |
//! | 16 | tag |
//!
//! What is authenticated beside them is the format, the id of the key, the context with its length before it (4 bytes, little-endian), and the
//! item's name. The context of an item is the place of its session, that of the place is the key under which the session stands (`stored.rs`).
//!
//! # Why this cipher
//!
//! Every node seals by itself, so nobody could count nonces: they are random. With the 96 bits of AES-GCM a key is good for 2^32 values, which a
//! busy site writes in weeks; with the 192 bits here two nonces of one key never meet. AES-GCM-SIV forgives a repeated nonce but has the same 96
//! bits, and is slow and not of constant time where the processor has no AES.
//!
//! # What it does not do
//!
//! Names of items, their number, the owner, times and the length of each value are not hidden. Who may write to the cache can put an older sealed value of the
//! same item of the same session back, remove items and end sessions; what they cannot do is read values, make some up, or give one user's to another.

use super::Sessions;
use super::stored::{Opened, Seal, SealError};
use crate::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The most keys of a ring: each rotation adds one, and those that sealed nothing any more can go.
pub const KEYS_MAX: usize = 64;

/// Bytes that a sealed value has beyond the value. The limits of items and sessions count the sealed bytes.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + NONCE_BYTES + TAG_BYTES;

const FORMAT: u8 = 0xf5;
const HEAD_BYTES: usize = 1 + 4;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// The keys of an application: the current one seals, all of them open. All its processes have the same ring.
///
/// A key is changed in three steps, without anybody being logged out: give every process a ring with the new key among the older ones; then
/// one with the new key as the current one; and when no session of before is left, one without the old key. A session whose values an older
/// key sealed gets them sealed anew by its next save.
///
/// `Debug` shows ids only. Keys are overwritten in memory when the ring is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
/// use plenary::session::{KeyRing, NewSession};
///
/// // From a file or a variable that only the application can read: id and 32 random bytes in hexadecimal or base64, the current key first.
/// let ring: KeyRing = "2:wPYYPcLD+/nPtaXGYxoLxDC8aFdQbUHSBVwVPHsrvQI= \
///                      1:8f2a1b0c9d8e7f60514233241506f7e8d9cabbac9d8e7f605142332415060708".parse()?;
/// let sessions = plenary.sessions().sealed_with(ring);
/// let session = sessions.create(NewSession::new().item("basket", "three books")).await?;
///
/// // Whoever has no key sees bytes; the application sees what it stored.
/// let stored = plenary.cache().execute([&b"SESSION.GET"[..], &sessions.key_of(session.id()), b"basket"].map(bytes::Bytes::copy_from_slice)).await?;
/// assert!(!format!("{stored:?}").contains("three books"));
/// let loaded = sessions.load(session.id()).await?.expect("just created");
/// assert!(loaded.get("basket").is_some_and(|basket| basket == "three books"));
/// # plenary.stop().await?; Ok(()) }
/// ```
#[derive(Clone)]
pub struct KeyRing {
    /// Never empty; the first is the current one.
    keys: Vec<Key>,
    admits_plain: bool,
}

/// One key. The cipher holds its bytes, and overwrites them when it is dropped.
#[derive(Clone)]
struct Key {
    id: u32,
    cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(id: u32, mut bytes: [u8; KEY_BYTES]) -> Self {
        let cipher = XChaCha20Poly1305::new((&bytes).into());
        bytes.zeroize();
        Self { id, cipher }
    }
}

impl KeyRing {
    /// A ring of one key: 32 bytes from a source of randomness, not a password.
    pub fn new(id: u32, key: [u8; KEY_BYTES]) -> Self {
        Self {
            keys: vec![Key::new(id, key)],
            admits_plain: false,
        }
    }

    /// The same ring with one more key that opens and does not seal.
    ///
    /// # Errors
    /// [`Error::Value`] if a key has this id already, or the ring has [`KEYS_MAX`].
    pub fn with_older(mut self, id: u32, key: [u8; KEY_BYTES]) -> Result<Self> {
        self.add(Key::new(id, key))?;
        Ok(self)
    }

    /// The same ring for the time in which encryption is introduced: it takes a value that nobody sealed for what it is, and the next save
    /// seals it. Whoever may write to the cache can then put values of their own there, so leave this out as soon as the last session
    /// of before has ended.
    pub fn admitting_plain(mut self) -> Self {
        self.admits_plain = true;
        self
    }

    /// The ids of its keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|key| key.id)
    }

    fn add(&mut self, key: Key) -> Result<()> {
        if self.ids().any(|id| id == key.id) {
            return Err(Error::Value(format!(
                "a key ring has two keys with the id {}",
                key.id
            )));
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(Error::Value(format!("a key ring has {KEYS_MAX} keys at most")));
        }
        self.keys.push(key);
        Ok(())
    }

    fn seal_with(
        &self,
        nonce: [u8; NONCE_BYTES],
        context: &[u8],
        item: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>> {
        let Key { id, cipher } = &self.keys[0];
        let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + value.len());
        sealed.push(FORMAT);
        sealed.extend(id.to_le_bytes());
        let authenticated = authenticated(&sealed, context, item);
        let payload = Payload {
            msg: value,
            aad: &authenticated,
        };
        let ciphertext = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Value("too long to be sealed".to_owned()))?;
        sealed.extend(nonce);
        sealed.extend(ciphertext);
        Ok(sealed)
    }
}

impl Sessions {
    /// The same handle, with the values of items sealed by this ring before they leave the process, and opened when they are loaded. Give it to
    /// every handle of the application: one without it sees sealed bytes, and what it stores is refused by the others.
    ///
    /// Names, owner and times stay readable; Redis clients can end, renew, rename and list sessions, but not read them. Rename with
    /// [`Sessions::rename`] only: a value that is moved by others opens no more.
    pub fn sealed_with(&self, ring: KeyRing) -> Self {
        Self {
            seal: Some(Arc::new(ring)),
            ..self.clone()
        }
    }
}

impl Seal for KeyRing {
    fn seal(&self, context: &[u8], item: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|source| Error::Io {
            doing: "drawing a nonce".to_owned(),
            source: std::io::Error::other(source),
        })?;
        self.seal_with(nonce, context, item, value)
    }

    fn open(&self, context: &[u8], item: &[u8], stored: &[u8]) -> Result<Opened, SealError> {
        if stored.first() != Some(&FORMAT) {
            return if self.admits_plain {
                Ok(Opened {
                    value: stored.to_vec(),
                    anew: true,
                })
            } else {
                Err(SealError::NotSealed)
            };
        }
        let (head, rest) = stored
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(SealError::Tampered)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(SealError::Tampered)?;
        let [_, id @ ..] = *head;
        let id = u32::from_le_bytes(id);
        let (place, key) = (0..)
            .zip(&self.keys)
            .find(|(_, key)| key.id == id)
            .ok_or(SealError::UnknownKey { id })?;
        let payload = Payload {
            msg: ciphertext,
            aad: &authenticated(head, context, item),
        };
        let value = key.cipher.decrypt(&XNonce::from(*nonce), payload);
        Ok(Opened {
            value: value.map_err(|_| SealError::Tampered)?,
            anew: place > 0,
        })
    }
}

/// What is authenticated and not stored again. No two pairs of names make the same bytes.
fn authenticated(head: &[u8], context: &[u8], item: &[u8]) -> Vec<u8> {
    // A key or name beyond 4 GiB cannot be stored at all.
    let length = u32::try_from(context.len()).unwrap_or(u32::MAX).to_le_bytes();
    [head, &length, context, item].concat()
}

impl FromStr for KeyRing {
    type Err = Error;

    /// Reads keys as `id:key`, between them spaces, line ends or commas, the current one first. A key is 64 hexadecimal digits, or base64 of
    /// either alphabet, padded or not.
    fn from_str(text: &str) -> Result<Self> {
        let mut ring = Self {
            keys: Vec::new(),
            admits_plain: false,
        };
        for entry in text
            .split([' ', '\t', '\r', '\n', ','])
            .filter(|entry| !entry.is_empty())
        {
            // What is wrong is not shown: it may be most of a key.
            let number = ring.keys.len() + 1;
            let (id, key) = entry
                .split_once(':')
                .and_then(|(id, key)| Some((id.parse().ok()?, key_from(key)?)))
                .ok_or_else(|| {
                    Error::Value(format!(
                        "key {number} of the ring is not `id:key` with a number and {KEY_BYTES} bytes in hexadecimal or base64"
                    ))
                })?;
            ring.add(Key::new(id, *key))?;
        }
        if ring.keys.is_empty() {
            return Err(Error::Value("a key ring without keys".to_owned()));
        }
        Ok(ring)
    }
}

fn key_from(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if text.len() == 2 * KEY_BYTES {
        let (pairs, _) = text.as_bytes().as_chunks::<2>();
        for (byte, [high, low]) in key.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        }
        return Some(key);
    }
    let decoded = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|alphabet| alphabet.decode(text).ok())
        .map(Zeroizing::new)?;
    if decoded.len() != KEY_BYTES {
        return None;
    }
    key.copy_from_slice(&decoded);
    Some(key)
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u32> = self.ids().collect();
        f.debug_struct("KeyRing")
            .field("ids", &ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &[u8] = b"session:5f2a";

    fn bytes(first: u8) -> [u8; KEY_BYTES] {
        std::array::from_fn(|i| first + u8::try_from(i).unwrap())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn value(opened: Opened) -> Vec<u8> {
        assert!(!opened.anew);
        opened.value
    }

    /// Made once by libsodium (`crypto_aead_xchacha20poly1305_ietf_encrypt`), so that it also says that the cipher is the one it is said to be.
    const GOLDEN: &str = "f501020304404142434445464748494a4b4c4d4e4f5051525354555657a0517715b5c01b79e09ff43ddfadf391aaf8532cd4d5083970acce";

    #[test]
    fn sealed_bytes_are_the_same_for_ever() {
        let ring = KeyRing::new(0x0403_0201, bytes(0));
        let nonce = std::array::from_fn(|i| 0x40 + u8::try_from(i).unwrap());
        let sealed = ring.seal_with(nonce, PLACE, b"basket", b"three books").unwrap();
        assert_eq!(hex(&sealed), GOLDEN);
        assert_eq!(sealed.len(), OVERHEAD_BYTES + b"three books".len());
        assert_eq!(
            value(ring.open(PLACE, b"basket", &sealed).unwrap()),
            b"three books"
        );
    }

    #[test]
    fn the_same_value_is_sealed_differently_each_time() {
        let ring = KeyRing::new(1, bytes(0));
        let [one, other] = [(); 2].map(|()| ring.seal(PLACE, b"a", b"").unwrap());
        assert_ne!(one, other);
        assert_eq!(value(ring.open(PLACE, b"a", &one).unwrap()), b"");
        assert_eq!(value(ring.open(PLACE, b"a", &other).unwrap()), b"");
    }

    #[test]
    fn a_changed_byte_anywhere_or_a_cut_is_noticed() {
        let ring = KeyRing::new(1, bytes(0));
        let sealed = ring.seal(PLACE, b"basket", b"three books").unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            let expected = match place {
                0 => SealError::NotSealed,
                1 => SealError::UnknownKey { id: 0 },
                2..5 => SealError::UnknownKey {
                    id: 1 + (1 << (8 * (place - 1))),
                },
                _ => SealError::Tampered,
            };
            assert_eq!(
                ring.open(PLACE, b"basket", &changed).unwrap_err(),
                expected,
                "byte {place}"
            );
        }
        assert_eq!(
            ring.open(PLACE, b"basket", b"").unwrap_err(),
            SealError::NotSealed
        );
        for length in 1..sealed.len() {
            let cut = ring.open(PLACE, b"basket", &sealed[..length]);
            assert_eq!(cut.unwrap_err(), SealError::Tampered, "{length} bytes");
        }
    }

    #[test]
    fn a_value_opens_only_in_its_place() {
        let ring = KeyRing::new(1, bytes(0));
        let sealed = ring.seal(b"session:ab", b"cd", b"x").unwrap();
        for (session, item) in [
            (&b"session:ab"[..], &b"ce"[..]),
            (b"session:ac", b"cd"),
            (b"session:abc", b"d"),
            (b"session:a", b"bcd"),
        ] {
            let moved = ring.open(session, item, &sealed);
            assert_eq!(moved.unwrap_err(), SealError::Tampered);
        }
    }

    #[test]
    fn an_older_key_opens_and_says_so_and_one_that_is_gone_is_named() {
        let old = KeyRing::new(1, bytes(0));
        let sealed = old.seal(PLACE, b"a", b"x").unwrap();
        let both = KeyRing::new(2, bytes(100)).with_older(1, bytes(0)).unwrap();
        let opened = both.open(PLACE, b"a", &sealed).unwrap();
        assert_eq!((&opened.value[..], opened.anew), (&b"x"[..], true));
        let anew = both.seal(PLACE, b"a", b"x").unwrap();
        assert_eq!(value(both.open(PLACE, b"a", &anew).unwrap()), b"x");
        let new = KeyRing::new(2, bytes(100));
        assert_eq!(
            new.open(PLACE, b"a", &sealed).unwrap_err(),
            SealError::UnknownKey { id: 1 }
        );
        // The same id with other bytes is another key.
        let wrong = KeyRing::new(1, bytes(100));
        assert_eq!(wrong.open(PLACE, b"a", &sealed).unwrap_err(), SealError::Tampered);
    }

    #[test]
    fn a_value_that_nobody_sealed_is_taken_only_when_asked_to() {
        let ring = KeyRing::new(1, bytes(0));
        assert_eq!(
            ring.open(PLACE, b"a", b"\"plain\"").unwrap_err(),
            SealError::NotSealed
        );
        let opened = ring
            .clone()
            .admitting_plain()
            .open(PLACE, b"a", b"\"plain\"")
            .unwrap();
        assert_eq!((&opened.value[..], opened.anew), (&b"\"plain\""[..], true));
        let sealed = ring.seal(PLACE, b"a", b"x").unwrap();
        let elsewhere = ring.admitting_plain().open(PLACE, b"b", &sealed);
        assert_eq!(elsewhere.unwrap_err(), SealError::Tampered);
    }

    #[test]
    fn a_ring_is_read_from_text_in_every_form_and_never_shown() {
        let sealed = KeyRing::new(7, bytes(200)).seal(PLACE, b"a", b"x").unwrap();
        let key = bytes(200);
        for text in [
            format!("7:{}", hex(&key)),
            format!("7:{}", hex(&key).to_uppercase()),
            format!("7:{}", STANDARD.encode(key)),
            format!(" 7:{}\n", STANDARD_NO_PAD.encode(key)),
            format!("7:{},1:{}", URL_SAFE.encode(key), hex(&bytes(0))),
            format!(
                "7:{}\r\n1:{}\r\n",
                URL_SAFE_NO_PAD.encode(key),
                STANDARD.encode(bytes(0))
            ),
        ] {
            let ring: KeyRing = text.parse().unwrap();
            assert_eq!(value(ring.open(PLACE, b"a", &sealed).unwrap()), b"x", "{text}");
            let shown = format!("{ring:?}");
            assert!(
                shown.starts_with("KeyRing { ids: [7") && shown.len() < 40,
                "{shown}"
            );
        }
    }

    #[test]
    fn a_ring_that_is_wrong_is_refused_without_a_word_of_it() {
        let key = hex(&bytes(0));
        for text in [
            String::new(),
            " , ".to_owned(),
            key.clone(),
            format!("x:{key}"),
            format!("-1:{key}"),
            format!("4294967296:{key}"),
            format!("1:{}", &key[2..]),
            format!("1:{key}00"),
            format!("1:{}zz", &key[2..]),
            "1:hunter2".to_owned(),
            format!("1:{key} 1:{key}"),
            (0..=KEYS_MAX).map(|id| format!("{id}:{key} ")).collect(),
        ] {
            let refused = text.parse::<KeyRing>().unwrap_err().to_string();
            assert!(
                !refused.contains("0405") && !refused.contains("hunter2"),
                "{refused}"
            );
        }
        assert!(KeyRing::new(1, bytes(0)).with_older(1, bytes(1)).is_err());
    }
}
