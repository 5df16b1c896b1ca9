//! Changes of the members, with nodes on this machine.

use super::*;
use crate::config::Config;
use crate::machine::entry::Command;
use crate::node::Node;
use std::path::Path;
use std::time::Instant;

/// How long a condition may take, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node in a folder of its own that is to join these.
async fn start(data: &Path, join: &[&Node], advertise: Option<String>) -> Node {
    let mut config = Config::new(data);
    config.join = join.iter().map(|node| node.raft_addr().to_owned()).collect();
    config.advertise = advertise;
    Node::start(config)
        .await
        .expect("a node starts in a fresh folder")
}

/// A node by itself that serves.
async fn alone(data: &Path) -> Node {
    let node = start(data, &[], None).await;
    node.ready(PATIENCE).await.expect("a node by itself serves");
    node
}

async fn write(node: &Node, key: &str) -> Result<(), String> {
    let written = node.write([Command::new(
        0,
        ["SET".to_owned(), key.to_owned(), "1".to_owned()],
    )]);
    written.await.map(drop).map_err(|error| error.to_string())
}

/// The ids of those that vote, as far as this node knows.
fn voters(node: &Node) -> BTreeSet<u64> {
    let members = node.status().members.into_iter();
    members
        .filter(|member| member.voter)
        .map(|member| member.id)
        .collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Several times: both must have caught up when the leader looks.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_join_at_once_both_get_a_vote() {
    for _ in 0..4 {
        let data = tempfile::tempdir().unwrap();
        let first = alone(&data.path().join("first")).await;
        let (one, other) = (data.path().join("one"), data.path().join("other"));
        let join = [&first];
        let (one, other) = futures::join!(start(&one, &join, None), start(&other, &join, None));
        let all = BTreeSet::from([&first, &one, &other].map(Node::id));
        eventually("all three vote", || voters(&first) == all).await;
        write(&first, "k").await.unwrap();
        for node in [&other, &one, &first] {
            node.stop().await.unwrap();
        }
    }
}
