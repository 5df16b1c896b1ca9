//! Links between nodes that are cut, in a network of their own: who still answers, and what. Histories under such cuts are in
//! `linearizable.rs`.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use plenary::cli::client::{Client, Error, text};
use process::{Cluster, Process, connect, wait_until};
use std::time::Duration;

/// Longer than a node waits for a leader or a majority.
const REPLY: Duration = Duration::from_secs(20);

/// A client whose reads are as of now, cluster-wide.
fn reader(node: &Process) -> Client {
    let mut client = connect(&node.redis, REPLY).unwrap();
    client.call(&["PLENARY", "FRESH", "linearizable"]).unwrap();
    client
}

/// What a read says; a refusal is none.
fn read(client: &mut Client) -> Option<String> {
    match client.call(&["GET", "k"]) {
        Ok(value) => Some(text(&value)),
        Err(Error::Refused { refusal, .. }) if refusal.starts_with("TRYAGAIN") => None,
        Err(other) => panic!("{other}"),
    }
}

/// The hole that openraft leaves to us. A member gives the leader its word to vote for nobody else for a while, and forgets that when it is
/// started again. If it then voted at once, there would be a second leader, with writes that the first does not know, while the first still
/// answers on its lease.
#[test]
fn a_member_that_was_started_again_keeps_the_word_it_gave() {
    // A lease of four and a half seconds: what happens below fits into it on a busy machine.
    let settings = [
        "--lease-reads",
        "true",
        "--election-max-ms",
        "6000",
        "--log",
        "info,openraft::engine=info",
    ];
    let Some(mut cluster) = Cluster::in_network(3, &settings) else {
        return;
    };
    cluster.start_all();
    let leader = cluster.leader();
    let (rival, voter) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.nodes[leader].call(&["SET", "k", "old"]).unwrap();
    cluster.level();

    // Cut off from the leader alone, the rival asks to be elected, and the voter refuses: it gave the leader its word.
    cluster.network().cut(leader, rival);
    cluster.network().cut(rival, leader);
    cluster.nodes[voter].says("reject pre-vote-request: leader lease has not yet expired");

    // The voter gives the leader its word once more; then nobody answers the leader any more, which reads on its lease.
    let mut reads = reader(&cluster.nodes[leader]);
    assert_eq!(read(&mut reads).as_deref(), Some("old"));
    cluster.nodes[voter].kill();
    cluster.network().isolate(leader);
    assert_eq!(read(&mut reads).as_deref(), Some("old"));
    cluster.nodes[voter].start();
    wait_until("the others elect a leader", || {
        let set = cluster.nodes[rival].call(&["SET", "k", "new"]);
        set.map(drop).map_err(|error| error.to_string())
    });
    assert_eq!(read(&mut reads), None, "the leader of before answers a read");

    cluster.network().heal();
    cluster.nodes[voter].ready();
    wait_until("the leader of before knows", || match read(&mut reads) {
        Some(value) if value == "new" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.level();
    cluster.assert_same_state();
}
