//! What the cluster tests share: free ports, nodes, and waiting for a condition.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unreachable_pub, reason = "shared by several programs")]

#[cfg(feature = "tls")]
pub mod tls;

use plenary::config::Config;
use plenary::node::Node;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a condition may take in a test, on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A free port of loopback. It is below the range from which the system takes ports for outgoing connections, so nobody takes it by chance
/// before it is used.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs run side by side: each begins at another place.
    let begin = 10_000 + (std::process::id() as u16 % 200) * 100;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Peer addresses for this many nodes.
pub fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect()
}

/// The settings of one of several nodes.
pub fn config(data: &Path, addresses: &[String], which: usize) -> Config {
    let mut config = Config::new(data.join(format!("n{which}")));
    config.listen = addresses[which].clone();
    config.join = addresses.to_vec();
    config.expect = Some(addresses.len());
    config
}

/// Three nodes that serve.
pub async fn three(data: &Path) -> Vec<Node> {
    let addresses = addresses(3);
    let mut nodes = Vec::new();
    for which in 0..3 {
        let node = Node::start(config(data, &addresses, which)).await;
        nodes.push(node.expect("a node starts in a fresh folder"));
    }
    for node in &nodes {
        node.ready(PATIENCE).await.expect("three nodes form a cluster");
    }
    nodes
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All nodes at one index with one digest.
pub async fn assert_same_state(nodes: &[Node]) {
    eventually("all nodes hold the same", async || {
        let mut digests = Vec::new();
        for node in nodes {
            digests.push(node.digest().await);
        }
        for pair in digests.windows(2) {
            if pair[0].0 == pair[1].0 {
                assert_eq!(pair[0].1, pair[1].1, "digests differ at index {}", pair[0].0);
            }
        }
        digests.iter().all(|digest| digest.0 == digests[0].0)
    })
    .await;
}
