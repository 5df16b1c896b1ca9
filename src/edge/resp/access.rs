//! Who may come in: the access key, and protected mode.

use crate::config::Secret;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// The one user there is; Redis' name for who gives no name.
const USER: &[u8] = b"default";

/// What a peer from elsewhere is told when there is no access key. Redis' prefix and first words.
pub(super) const DENIED: &str = "DENIED Redis is running in protected mode: this Plenary endpoint has no access key, so it serves \
    clients on the loopback interface only. To serve others, start every node with --access-key-file (or PLENARY_ACCESS_KEY) and \
    let clients AUTH with that key.";

/// Whether a peer is served at all.
pub(super) fn serves(peer: IpAddr, key: Option<&Secret>) -> bool {
    key.is_some() || peer.to_canonical().is_loopback()
}

/// Whether these are the right user and key. Without a key everything is right for the one user, as in Redis.
pub(super) fn admits(user: &[u8], given: &[u8], key: Option<&Secret>) -> bool {
    // Both checks are made, and digests are compared: the time tells neither which was wrong nor how long the key is.
    let right_key = key.is_none_or(|key| {
        let (given, key) = (Sha256::digest(given), Sha256::digest(key.expose().as_bytes()));
        given.as_slice().ct_eq(key.as_slice()).into()
    });
    right_key & (user == USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_key_only_loopback_is_served() {
        let key = Secret::new("key");
        for (peer, without) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("::ffff:10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(serves(peer, None), without, "{peer}");
            assert!(serves(peer, Some(&key)), "{peer}");
        }
    }

    #[test]
    fn only_the_whole_key_and_the_right_user_are_admitted() {
        let key = Secret::new("key");
        assert!(admits(b"default", b"key", Some(&key)));
        for (user, given) in [
            ("default", "ke"),
            ("default", "keyy"),
            ("default", ""),
            ("x", "key"),
            ("", "key"),
        ] {
            assert!(
                !admits(user.as_bytes(), given.as_bytes(), Some(&key)),
                "{user} {given}"
            );
        }
        assert!(admits(b"default", b"anything", None));
        assert!(!admits(b"x", b"anything", None));
    }
}
