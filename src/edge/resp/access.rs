//! Who may come in at all: protected mode. What whoever came in may do is said in [`super::permit`].

use std::net::IpAddr;

/// What a peer from elsewhere is told when there is no access key. Redis' prefix and first words.
pub(super) const DENIED: &str = "DENIED Redis is running in protected mode: this Plenary endpoint has no access key, so it serves \
    clients on the loopback interface only. To serve others, start every node with --access-key-file (or PLENARY_ACCESS_KEY) and \
    let clients AUTH with that key.";

/// Whether a peer is served at all. `open`: whoever gives no password is let in.
pub(super) fn serves(peer: IpAddr, open: bool) -> bool {
    !open || peer.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_key_only_loopback_is_served() {
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
            assert_eq!(serves(peer, true), without, "{peer}");
            assert!(serves(peer, false), "{peer}");
        }
    }
}
