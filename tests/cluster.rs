//! Nodes in one process: forming, writing, reading, leaders that go, members that come.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::{
    PATIENCE, argv, assert_same_state, eventually, leader_and_others, leads, one, read, run, stop, three,
};
use plenary::config::Config;
use plenary::machine::entry::Command;
use plenary::machine::reply::Reply;
use plenary::node::{Freshness, Node};

async fn hset(node: &Node, key: &str, field: &str, value: &str) -> Reply {
    run(node, &["HSET", key, field, value]).await
}

#[tokio::test]
async fn a_cluster_of_one_serves_at_once_and_keeps_what_it_stored() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let node = one(data.path()).await;
        assert_eq!(
            hset(&node, "k", "f", "v").await,
            Reply::Integer(i64::from(round == 0))
        );
        assert_eq!(read(&node, &["HGET", "k", "f"]), Reply::bulk("v"));
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_one_cluster_and_each_takes_writes() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let clusters: Vec<_> = nodes.iter().map(|node| node.status().cluster_id).collect();
    assert!(
        clusters[0].is_some() && clusters.iter().all(|id| *id == clusters[0]),
        "{clusters:?}"
    );
    for (node, field) in nodes.iter().zip(["a", "b", "c"]) {
        assert_eq!(hset(node, "k", field, "1").await, Reply::Integer(1));
        assert_eq!(
            read(node, &["HGET", "k", field]),
            Reply::bulk("1"),
            "its own write is seen"
        );
    }
    for node in &nodes {
        let seen = node
            .read(Freshness::Linearizable, 0, &argv(&["HLEN", "k"]))
            .await
            .unwrap();
        assert_eq!(seen, Reply::Integer(3));
    }
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

/// The first to write again does not have the next group for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_that_are_answered_together_share_the_next_group() {
    const CALLERS: u64 = 32;
    const ROUNDS: u64 = 20;
    let data = tempfile::tempdir().unwrap();
    let node = one(data.path()).await;
    let before = node.status();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    run(&node, &["INCR", "n"]).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let after = node.status();
    let commands = after.proposed_commands - before.proposed_commands;
    let groups = after.proposed_groups - before.proposed_groups;
    assert_eq!(commands, CALLERS * ROUNDS);
    // Two a round without it: one of the first caller, one of the rest.
    assert!(groups < ROUNDS * 7 / 4, "{groups} groups of {commands} commands");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_carries_a_write_to_another_node() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    for round in 0..50u32 {
        let value = Bytes::from(round.to_string());
        let command = Command {
            db: 0,
            argv: vec!["HSET".into(), "k".into(), "f".into(), value.clone()],
        };
        let written = nodes[round as usize % 3].write(vec![command]).await.unwrap();
        let other = &nodes[(round as usize + 1) % 3];
        let seen = other
            .read(Freshness::AtLeast(written.token), 0, &argv(&["HGET", "k", "f"]))
            .await
            .unwrap();
        assert_eq!(seen, Reply::Bulk(value));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_and_no_writer_sees_an_error() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (leader, others) = leader_and_others(&nodes);
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = others
        .iter()
        .cloned()
        .map(|node| {
            let done = done.clone();
            tokio::spawn(async move {
                let mut written = 0i64;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    node.write(vec![Command::new(0, ["HINCRBY", "k", "n", "1"])])
                        .await
                        .unwrap();
                    written += 1;
                }
                written
            })
        })
        .collect();
    leader.stop().await.unwrap();
    eventually("another leads", async || others.iter().any(leads)).await;
    hset(&others[0], "after", "f", "v").await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    let counted = others[0]
        .read(Freshness::Linearizable, 0, &argv(&["HGET", "k", "n"]))
        .await
        .unwrap();
    assert_eq!(
        counted,
        Reply::bulk(written.to_string()),
        "each acknowledged increment counts once"
    );
    assert_same_state(&others).await;
}

/// One follower stops and a stranger listens in its place, who hangs up on everybody: counts how often the leader calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_not_called_without_a_pause() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (leader, others) = leader_and_others(&nodes);
    let dead = &others[0];
    dead.stop().await.unwrap();
    let stranger = tokio::net::TcpListener::bind(dead.raft_addr()).await.unwrap();
    hset(&leader, "k", "f", "v").await;
    let mut calls = 0;
    let count = async {
        loop {
            drop(stranger.accept().await.unwrap());
            calls += 1;
        }
    };
    let span = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(span, count).await.is_err());
    // Ten heartbeats, as many looks of the other follower, and entries at most every 20 ms; without a pause there would be thousands.
    assert!((1..200).contains(&calls), "{calls} calls in a second");
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_node_joins_gets_a_vote_and_can_be_taken_out() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    hset(&nodes[0], "k", "f", "before").await;
    let mut config = Config::new(data.path().join("n3"));
    config.join = nodes.iter().map(|node| node.raft_addr().to_owned()).collect();
    config.expect = Some(3);
    let fourth = Node::start(config).await.unwrap();
    fourth.ready(PATIENCE).await.unwrap();
    assert_eq!(fourth.status().cluster_id, nodes[0].status().cluster_id);
    let voters = |node: &Node| node.status().members.iter().filter(|member| member.voter).count();
    eventually("it votes", async || nodes.iter().all(|node| voters(node) == 4)).await;
    assert_eq!(
        fourth
            .read(Freshness::Linearizable, 0, &argv(&["HGET", "k", "f"]))
            .await
            .unwrap(),
        Reply::bulk("before")
    );
    assert_eq!(hset(&fourth, "k", "g", "1").await, Reply::Integer(1));
    nodes[1].remove_member(fourth.id()).await.unwrap();
    eventually("it is out", async || nodes.iter().all(|node| voters(node) == 3)).await;
    fourth.stop().await.unwrap();
    assert_eq!(hset(&nodes[2], "k", "h", "1").await, Reply::Integer(1));
    assert_same_state(&nodes).await;
}

/// What a node told, message by message.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl plenary::node::Listener for Told {
    fn event(&self, event: &plenary::machine::event::Event) {
        if let plenary::machine::event::Event::Message { channel, message, .. } = event {
            let text = format!("{} {}", channel.escape_ascii(), message.escape_ascii());
            self.0.lock().unwrap().push(text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_of_the_same_events_in_the_same_order_also_when_a_key_ends_by_itself() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let told: Vec<_> = nodes
        .iter()
        .map(|_| std::sync::Arc::new(Told::default()))
        .collect();
    for (node, told) in nodes.iter().zip(&told) {
        node.listen(told.clone());
    }
    let events = ("notify-keyspace-events".to_owned(), "AKEn".to_owned());
    nodes[1].set_settings(&[events]).await.unwrap();
    let commands: [&[&str]; 6] = [
        &["SET", "k", "v", "PX", "3000"],
        &["HSET", "h", "f", "v"],
        &["HDEL", "h", "f"],
        &["RENAME", "k", "l"],
        &["PUBLISH", "c", "m"],
        &["SET", "n", "1"],
    ];
    for (which, words) in commands.into_iter().enumerate() {
        let words = words.iter().map(|word| Bytes::from_static(word.as_bytes()));
        nodes[which % 3]
            .write(vec![Command::new(0, words)])
            .await
            .unwrap();
    }
    // Nobody touches the key again: its end is an event of the log.
    let ended = "__keyevent@0__:expired l".to_owned();
    for told in &told {
        eventually("the end of the key is told", async || {
            told.0.lock().unwrap().contains(&ended)
        })
        .await;
    }
    let texts: Vec<Vec<String>> = told.iter().map(|told| told.0.lock().unwrap().clone()).collect();
    let events = texts[0]
        .iter()
        .filter_map(|text| text.strip_prefix("__keyevent@0__:"));
    let without_end: Vec<&str> = events.filter(|event| *event != "expired l").collect();
    assert_eq!(
        without_end,
        [
            "new k",
            "set k",
            "expire k",
            "new h",
            "hset h",
            "hdel h",
            "del h",
            "new l",
            "rename_from k",
            "rename_to l",
            "new n",
            "set n"
        ]
    );
    assert!(texts[0].contains(&"c m".to_owned()));
    assert!(texts[0].contains(&"__keyspace@0__:h hdel".to_owned()));
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
    stop(&nodes).await;
}
