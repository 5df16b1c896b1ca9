//! Handles of a process that embeds no node: who is let in, what is tried again on another member and what is not, and what goes on when members go. That they
//! do what those of a node do is shown in `sessions.rs` and `cache.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[cfg(all(feature = "cli", unix))]
mod process;

use bytes::Bytes;
use common::{PATIENCE, addresses, assert_same_state, config, eventually, free_port, one_with, stop, three};
use futures::StreamExt;
use plenary::cache::Heard;
use plenary::session::{Locking, NewSession, Position, SessionError, What};
use plenary::{Cache, Error, Freshness, Node, Plenary, Remote, Sessions};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A client of all these nodes, which asks the first one first.
async fn connect<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Remote {
    let members = nodes.into_iter().map(|node| node.raft_addr().to_owned());
    Plenary::connect(members).open().await.unwrap()
}

#[tokio::test]
async fn only_who_has_the_secret_is_let_in() {
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |config| {
        config.secret = Some(plenary::config::Secret::new("of the cluster"));
    })
    .await;
    let connect = || Plenary::connect([node.raft_addr()]);
    for stranger in [connect(), connect().secret("of another"), connect().secret("")] {
        let refused = stranger.open().await;
        assert!(matches!(refused, Err(Error::Stranger(_))), "{refused:?}");
    }
    let remote = connect().secret("of the cluster").open().await.unwrap();
    remote.cache().set("k", "v").await.unwrap();
    assert_eq!(remote.cache().get("k").await.unwrap().unwrap(), "v");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn where_nobody_serves_that_is_said_within_the_deadline() {
    let deadline = Duration::from_millis(300);
    let absent = format!("127.0.0.1:{}", free_port());
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // It starts, and waits for members that are not there.
    let data = tempfile::tempdir().unwrap();
    let forming = Node::start(config(data.path(), &addresses(3), 0)).await.unwrap();
    let members = [
        absent,
        silent.local_addr().unwrap().to_string(),
        forming.raft_addr().to_owned(),
    ];
    for members in [&members[..1], &members[1..2], &members[2..]] {
        let began = Instant::now();
        let connector = Plenary::connect(members.to_vec()).deadline(deadline);
        let refused = connector.open().await;
        assert!(matches!(refused, Err(Error::NoLeader { .. })), "{refused:?}");
        assert!(began.elapsed() < PATIENCE);
    }
    let none = Plenary::connect(Vec::<String>::new()).open().await;
    assert!(matches!(none, Err(Error::Config(_))), "{none:?}");
    forming.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_reads_its_own_writes_on_whatever_member() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let mut remotes = Vec::new();
    for node in &nodes {
        remotes.push(connect([node]).await);
    }
    for round in 0..60 {
        let [here, there] = [round % 3, (round + 1) % 3].map(|which| remotes[which].cache());
        here.set("k", round.to_string()).await.unwrap();
        // What a request carries from one instance to another.
        let there = there.at_least(here.token());
        assert_eq!(there.get("k").await.unwrap().unwrap(), round.to_string());
        assert!(there.token() >= here.token());
        let now = remotes[(round + 2) % 3]
            .cache()
            .with_freshness(Freshness::Linearizable);
        assert_eq!(now.get("k").await.unwrap().unwrap(), round.to_string());
    }
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stops_is_left_and_what_was_written_through_it_is_read_through_the_next() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let remote = connect(&nodes).await;
    let (cache, sessions) = (remote.cache(), remote.sessions());
    let mut session = sessions.create(NewSession::new()).await.unwrap();
    assert_eq!(cache.increment("count", 1).await.unwrap(), 1);
    assert_eq!(remote.member(), nodes[0].raft_addr());
    nodes[0].stop().await.unwrap();
    session.set("a", "1");
    sessions.save(&mut session).await.unwrap();
    assert_eq!(cache.increment("count", 1).await.unwrap(), 2);
    assert_ne!(remote.member(), nodes[0].raft_addr());
    let loaded = sessions.load(session.id()).await.unwrap().unwrap();
    assert_eq!(loaded.get("a").unwrap(), "1");
    remote.close();
    let refused = cache.get("count").await;
    assert!(matches!(refused, Err(Error::Stopped { .. })), "{refused:?}");
    assert_same_state(&nodes[1..]).await;
    stop(&nodes[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_with_its_lease_and_not_with_the_member_that_gave_it() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let remote = connect(&nodes).await;
    let on_node = Sessions::new(Cache::new(nodes[0].clone()));
    let other = Sessions::new(Cache::new(nodes[1].clone()));
    let bound = on_node.create(NewSession::new()).await.unwrap().id().clone();
    let held = on_node.lock(&bound, Locking::exclusive()).await.unwrap();
    let id = remote
        .sessions()
        .create(NewSession::new())
        .await
        .unwrap()
        .id()
        .clone();
    let mut session = remote.sessions().lock(&id, Locking::exclusive()).await.unwrap();
    // Nobody is left to give it up.
    std::mem::forget(held);
    nodes[0].stop().await.unwrap();
    // The others know that it is gone: what is bound to it is free.
    let freed = other.lock(&bound, Locking::exclusive().wait(PATIENCE)).await;
    freed.unwrap().unlock().await.unwrap();
    let refused = other.lock(&id, Locking::exclusive().wait(Duration::ZERO)).await;
    assert!(matches!(refused, Err(SessionError::Locked)), "{refused:?}");
    session.set("a", "1");
    session.save_and_unlock().await.unwrap();
    let next = other.lock(&id, Locking::exclusive()).await.unwrap();
    assert_eq!(next.get("a").unwrap(), "1");
    next.unlock().await.unwrap();
    stop(&nodes[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_where_a_member_was_lost() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (remote, writes) = (connect(&nodes).await, connect(&nodes[1..]).await.sessions());
    let mut events = pin!(remote.sessions().events(Position::default()));
    let mut created = Vec::new();
    for round in 0..6 {
        if round == 3 {
            nodes[0].stop().await.unwrap();
        }
        created.push(writes.create(NewSession::new()).await.unwrap().id().clone());
        let event = events.next().await.unwrap().unwrap();
        assert_eq!(
            (&event.what, &event.key),
            (&What::Created, &writes.key_of(&created[round]))
        );
    }
    assert_eq!(writes.position().await.unwrap(), Position(6));
    stop(&nodes[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_on_and_is_told_of_a_gap_where_its_member_was_lost() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (remote, writes) = (connect(&nodes).await, connect(&nodes[1..]).await.cache());
    let mut heard = remote.cache().topic("news").subscribe();
    heard.ready().await.unwrap();
    let news = writes.topic("news");
    for number in 0..3 {
        news.publish(number.to_string()).await.unwrap();
        assert_eq!(
            heard.next().await,
            Some(Heard::Message(number.to_string().into()))
        );
    }
    nodes[0].stop().await.unwrap();
    assert_eq!(heard.next().await, Some(Heard::Missed(None)));
    news.publish("on").await.unwrap();
    assert_eq!(heard.next().await, Some(Heard::Message("on".into())));
    remote.close();
    assert_eq!(heard.next().await, None);
    stop(&nodes[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_wait_keep_no_others_from_being_answered() {
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |_| {}).await;
    let remote = connect([&node]).await;
    let long = Duration::from_secs(3_600);
    let first = remote.cache().lock("door", long, long).await.unwrap();
    let waiting = (0..250).map(|_| {
        let cache = remote.cache();
        tokio::spawn(async move { cache.lock("door", long, long).await?.release().await })
    });
    let waiting: Vec<_> = waiting.collect();
    eventually("as many wait as may at once", async || {
        node.view(0, |view| view.store().waiting().len()) == 200
    })
    .await;
    remote.cache().set("k", "v").await.unwrap();
    assert_eq!(remote.cache().get("k").await.unwrap().unwrap(), "v");
    first.release().await.unwrap();
    for waits in waiting {
        assert!(waits.await.unwrap().unwrap());
    }
    node.stop().await.unwrap();
}

#[tokio::test]
async fn what_only_a_node_can_do_is_refused_and_so_are_the_commands_of_nodes() {
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |_| {}).await;
    let remote = connect([&node]).await;
    assert!(remote.sessions().node().is_none() && remote.cache().node().is_none());
    let refused = remote.sessions().count(|_| true).await;
    assert!(
        matches!(refused, Err(SessionError::Failed(Error::NodeNeeded(_)))),
        "{refused:?}"
    );
    let refused = remote.cache().execute([".gone", "1", "1"]).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    // The same refusal as on a node, not only the same text.
    let cache = remote.cache();
    cache.execute(["RPUSH", "list", "a"]).await.unwrap();
    for refused in [
        cache.get("list").await.map(drop),
        cache.increment("list", 1).await.map(drop),
    ] {
        let wrong = plenary::CommandError::WrongType;
        assert!(
            matches!(&refused, Err(Error::Refused(why)) if *why == wrong),
            "{refused:?}"
        );
    }
    assert!(cache.exists("list").await.unwrap());
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_write_whose_answer_is_too_large_is_not_written_again() {
    const PART: usize = 14 << 20;
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |_| {}).await;
    let cache = connect([&node]).await.cache();
    let part = Bytes::from(vec![b'x'; PART]);
    for _ in 0..5 {
        let append = [Bytes::from("APPEND"), Bytes::from("k"), part.clone()];
        cache.execute(append).await.unwrap();
    }
    let refused = cache.execute(["GET", "k"]).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { size, .. }) if size > 5 * PART),
        "{:?}",
        refused.err()
    );
    let unknown = cache.execute(["GETDEL", "k"]).await.unwrap_err();
    assert!(unknown.may_be_applied(), "{unknown}");
    assert!(unknown.to_string().contains("it was applied"), "{unknown}");
    assert!(!cache.exists("k").await.unwrap());
    // What no member would read is not sent.
    let whole = Bytes::from(part.repeat(5));
    for refused in [cache.set("k", &whole).await, cache.get(&whole).await.map(drop)] {
        assert!(
            matches!(refused, Err(Error::TooLarge { limit, .. }) if limit == 64 << 20),
            "{:?}",
            refused.err()
        );
    }
    node.stop().await.unwrap();
}

/// Writers count, each under a key of its own, while the members they talk to are killed, or stopped.
#[cfg(all(feature = "cli", unix))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_counted_twice_when_members_are_killed() {
    const WRITERS: usize = 8;
    let mut cluster = process::Cluster::three(&[]);
    let peers: Vec<String> = cluster.nodes.iter().map(|node| node.peers.clone()).collect();
    let remote = Plenary::connect(peers.clone()).open().await.unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicU64::new(0));
    let writers = (0..WRITERS).map(|writer| {
        let (cache, done, over) = (remote.cache(), done.clone(), over.clone());
        tokio::spawn(async move {
            let (key, mut acknowledged, mut unknown) = (format!("count {writer}"), 0, 0);
            while over.load(Ordering::Relaxed) == 0 {
                match cache.increment(&key, 1).await {
                    Ok(count) => {
                        acknowledged += 1;
                        assert!(
                            (acknowledged..=acknowledged + unknown).contains(&count),
                            "{count}"
                        );
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if error.may_be_applied() => unknown += 1,
                    Err(error) => panic!("it is tried on another member: {error}"),
                }
            }
            (key, acknowledged, unknown)
        })
    });
    let writers: Vec<_> = writers.collect();
    let goes_on = async || {
        let before = done.load(Ordering::Relaxed);
        eventually("writes go on", async || {
            done.load(Ordering::Relaxed) > before + 100
        })
        .await;
    };
    for round in 0..4 {
        goes_on().await;
        let asked = peers.iter().position(|peer| peer == remote.member()).unwrap();
        if round % 2 == 0 {
            cluster.nodes[asked].kill();
        } else {
            assert!(cluster.nodes[asked].stop().success());
        }
        goes_on().await;
        cluster.nodes[asked].start();
        cluster.nodes[asked].ready();
    }
    goes_on().await;
    over.store(1, Ordering::Relaxed);
    let now = remote.cache().with_freshness(Freshness::Linearizable);
    let mut all = 0;
    for writer in writers {
        let (key, acknowledged, unknown) = writer.await.unwrap();
        let count = now.increment(&key, 0).await.unwrap();
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&count),
            "{key} is {count}: {acknowledged} acknowledged, {unknown} unknown"
        );
        all += unknown;
    }
    println!("{} acknowledged, {all} unknown", done.load(Ordering::Relaxed));
    // What a writer had under way when its member was killed. One that stops answers first.
    assert!(all <= 2 * WRITERS as i64, "{all}");
    cluster.assert_same_state();
}
