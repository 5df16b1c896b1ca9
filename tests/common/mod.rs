//! What the tests share that start nodes: free ports, nodes, commands, and waiting for a condition. `endpoint.rs`: what a Redis client sees.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unreachable_pub, reason = "shared by several programs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "tls")]
pub mod tls;

#[cfg(feature = "resp")]
pub mod endpoint;

use bytes::Bytes;
use plenary::config::Config;
use plenary::machine::entry::Command;
use plenary::machine::reply::Reply;
use plenary::node::Node;
use plenary::{Cache, Plenary};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a condition may take in a test, on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A free port of loopback. It is below the range from which the system takes ports for outgoing connections, so nobody takes it by chance
/// before it is used. Until this process ends it has that port for datagrams too, which nobody here sends: so other test programs, which may run at the same
/// time, pass it over also while the node that is to have it is not started yet, or was killed.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    // Test programs run side by side: each begins at another place.
    let begin = 10_000 + (std::process::id() as u16 % 200) * 100;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if let Ok(taken) = UdpSocket::bind(("127.0.0.1", port))
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            TAKEN.lock().unwrap().push(taken);
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

/// A node by itself that serves.
pub async fn one(data: &Path) -> Node {
    one_with(data, |_| {}).await
}

/// The same with other settings.
pub async fn one_with(data: &Path, change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config::new(data);
    change(&mut config);
    let node = Node::start(config).await.expect("a node starts in its folder");
    node.ready(PATIENCE).await.expect("a node by itself serves");
    node
}

/// Three nodes that serve.
pub async fn three(data: &Path) -> Vec<Node> {
    three_with(data, &addresses(3), |_| {}).await
}

/// Three nodes that serve their peers at these addresses, with other settings.
pub async fn three_with(data: &Path, addresses: &[String], change: impl Fn(&mut Config)) -> Vec<Node> {
    let mut nodes = Vec::new();
    for which in 0..3 {
        let mut config = config(data, addresses, which);
        change(&mut config);
        let node = Node::start(config).await;
        nodes.push(node.expect("a node starts in a fresh folder"));
    }
    for node in &nodes {
        node.ready(PATIENCE).await.expect("three nodes form a cluster");
    }
    nodes
}

/// Says after a second already that nobody leads or that a majority does not answer.
pub fn impatient(config: &mut Config) {
    config.timing.write_deadline = Duration::from_secs(1);
}

/// How handles reach a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Through nodes of this process.
    Nodes,
    /// Over the network, as from a process that embeds none: each through the one member.
    Remote,
}

/// A handle through each node.
pub async fn caches(nodes: &[Node], reach: Reach) -> Vec<Cache> {
    let mut caches = Vec::new();
    for node in nodes {
        caches.push(match reach {
            Reach::Nodes => Cache::new(node.clone()),
            Reach::Remote => {
                let remote = Plenary::connect([node.raft_addr()]).open().await;
                remote.expect("a member lets it in").cache()
            }
        });
    }
    caches
}

/// Tests that must hold for handles however they reach the cluster.
#[allow(unused_macros, reason = "each test file uses a part")]
macro_rules! however_reached {
    ($($name:ident),* $(,)?) => {
        mod through_nodes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::common::Reach::Nodes).await })*
        }
        mod remote {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::common::Reach::Remote).await })*
        }
    };
}
#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use however_reached;

/// Stops nodes one after the other.
pub async fn stop(nodes: &[Node]) {
    for node in nodes {
        node.stop().await.expect("a node stops");
    }
}

/// Whether a node leads, as far as it knows.
pub fn leads(node: &Node) -> bool {
    node.status().leader_id == Some(node.id())
}

/// The one that leads, and the others.
pub fn leader_and_others(nodes: &[Node]) -> (Node, Vec<Node>) {
    let leader = nodes.iter().find(|node| leads(node)).expect("one leads");
    let others = nodes.iter().filter(|node| node.id() != leader.id());
    (leader.clone(), others.cloned().collect())
}

/// Runs a command in database 0, as one group.
pub async fn run(node: &Node, words: &[&str]) -> Reply {
    let command = Command::new(0, words.iter().map(|word| (*word).to_owned()));
    let written = node.write(vec![command]).await.unwrap();
    written.replies.into_iter().next().unwrap()
}

/// What a node has of database 0 by itself.
pub fn read(node: &Node, words: &[&str]) -> Reply {
    node.read_local(0, &argv(words))
}

/// Words as a command has them.
pub fn argv(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::from((*word).to_owned())).collect()
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
