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

#[test]
fn who_has_answered_nothing_has_not_caught_up_however_young_the_log_is() {
    assert!(!has_caught_up(0, 4, 4), "it never answered");
    assert!(!has_caught_up(3, 4, 9), "it does not know that it is a member");
    assert!(has_caught_up(4, 4, 9) && has_caught_up(100, 4, 600));
    assert!(!has_caught_up(100, 4, 700), "it is behind");
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

/// It reaches the member, but nobody reaches it: with a vote it would take the majority away for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_reached_where_it_says_costs_nobody_the_majority() {
    let data = tempfile::tempdir().unwrap();
    let first = alone(&data.path().join("first")).await;
    // Nobody listens there any more.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = nowhere.local_addr().unwrap().to_string();
    let other = start(&data.path().join("other"), &[&first], Some(nowhere)).await;
    assert!(other.ready(Duration::from_secs(1)).await.is_err());
    write(&first, "k").await.unwrap();
    assert_eq!(voters(&first), BTreeSet::from([first.id()]));
    other.stop().await.unwrap();
    first.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gives_the_address_of_a_member_for_its_own_does_not_take_its_place() {
    let data = tempfile::tempdir().unwrap();
    let first = alone(&data.path().join("first")).await;
    let second = start(&data.path().join("second"), &[&first], None).await;
    let both = BTreeSet::from([first.id(), second.id()]);
    eventually("both vote", || voters(&first) == both).await;
    let taken = Some(second.raft_addr().to_owned());
    let third = start(&data.path().join("third"), &[&first], taken).await;
    assert!(third.ready(Duration::from_secs(1)).await.is_err());
    write(&first, "k").await.unwrap();
    assert_eq!(voters(&first), both);
    for node in [&third, &second, &first] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_out_does_not_let_itself_in_again() {
    let data = tempfile::tempdir().unwrap();
    let first = alone(&data.path().join("first")).await;
    let second = start(&data.path().join("second"), &[&first], None).await;
    let both = BTreeSet::from([first.id(), second.id()]);
    eventually("both vote", || voters(&first) == both).await;
    second.ready(PATIENCE).await.unwrap();
    // That this start has begun is in the log.
    let knows = || {
        let machine = first.inner.state.machine().read();
        machine.once().records().any(|(node, ..)| node == second.id())
    };
    eventually("the log knows it", knows).await;
    first.remove_member(second.id()).await.unwrap();
    // As one that does not hear that it is out asks each second.
    let again = MemberChange::Join(second.id(), second.inner.me.clone());
    let again = first.inner.members.change(again).await;
    assert!(
        again.as_ref().is_err_and(|why| why.contains("was taken out")),
        "{again:?}"
    );
    assert_eq!(voters(&first), BTreeSet::from([first.id()]));
    // One with an empty folder is another.
    second.stop().await.unwrap();
    let third = start(&data.path().join("third"), &[&first], None).await;
    eventually("it votes", || voters(&first).contains(&third.id())).await;
    third.stop().await.unwrap();
    first.stop().await.unwrap();
}
