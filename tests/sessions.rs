//! Sessions on three nodes: locks that are handed over in order, changes that are brought together, owners, events, and what happens when nodes go.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::{
    PATIENCE, Reach, addresses, assert_same_state, caches, eventually, however_reached, impatient, stop,
    three, three_with,
};
use futures::StreamExt;
use plenary::Sessions;
use plenary::machine::entry::Command;
use plenary::machine::reply::Reply;
use plenary::node::Node;
use plenary::session::{
    AtMost, Clash, Locking, Merge, NewSession, Position, Reason, SessionError, SessionEvent, SessionId, Text,
    Trouble, What,
};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A handle through each node.
async fn sessions(nodes: &[Node], reach: Reach) -> Vec<Sessions> {
    caches(nodes, reach)
        .await
        .into_iter()
        .map(Sessions::new)
        .collect()
}

async fn create(sessions: &Sessions, new: NewSession) -> SessionId {
    sessions.create(new).await.unwrap().id().clone()
}

fn text(session: &plenary::Session, name: &str) -> String {
    String::from_utf8(session.get(name).map(|value| value.to_vec()).unwrap_or_default()).unwrap()
}

however_reached!(
    a_hundred_requests_with_the_session_to_themselves_lose_no_update,
    waiters_are_served_in_the_order_in_which_they_came_and_a_writer_is_not_overtaken,
    requests_that_change_different_items_all_win,
    the_same_item_is_settled_as_the_application_chose,
    a_lock_that_nobody_gives_up_ends_at_its_deadline_and_its_holder_cannot_write,
    who_has_gone_while_waiting_blocks_nobody,
    every_node_tells_the_same_of_sessions_and_each_end_once,
    what_a_session_held_is_told_if_asked_for_and_a_function_hears_it,
    a_user_signs_out_everywhere_and_has_as_many_sessions_as_allowed,
    requests_under_way_survive_a_login_and_see_nothing_of_what_comes,
    a_session_that_is_used_lives_and_its_uses_are_hardly_ever_written_down,
    only_a_hash_of_the_id_is_stored_and_it_is_keyed,
);

async fn a_hundred_requests_with_the_session_to_themselves_lose_no_update(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let id = create(&handles[0], NewSession::new().item("count", "0")).await;
    let requests = (0..100).map(|request| {
        let (sessions, id) = (handles[request % 3].clone(), id.clone());
        tokio::spawn(async move {
            let mut session = sessions
                .lock(&id, Locking::exclusive().holder("request"))
                .await
                .unwrap();
            let (token, count) = (session.token(), text(&session, "count").parse::<u64>().unwrap());
            session.set("count", (count + 1).to_string());
            session.set(format!("at {count:03}"), token.to_string());
            session.save_and_unlock().await.unwrap();
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    let now = handles[1].with_freshness(plenary::Freshness::Linearizable);
    let session = now.load(&id).await.unwrap().unwrap();
    assert_eq!(text(&session, "count"), "100");
    let tokens: Vec<u64> = (0..100)
        .map(|count| text(&session, &format!("at {count:03}")).parse().unwrap())
        .collect();
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

async fn waiters_are_served_in_the_order_in_which_they_came_and_a_writer_is_not_overtaken(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let id = create(&handles[0], NewSession::new()).await;
    let first = handles[0].lock(&id, Locking::shared()).await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    for (number, locking) in [Locking::exclusive(), Locking::shared(), Locking::exclusive()]
        .into_iter()
        .enumerate()
    {
        let (sessions, id, served) = (handles[(number + 1) % 3].clone(), id.clone(), served.clone());
        tokio::spawn(async move {
            let session = sessions.lock(&id, locking).await.unwrap();
            served.send(number).unwrap();
            session.unlock().await.unwrap();
        });
        // In this order, seen by the node that will serve them.
        eventually("it waits", async || {
            nodes[0].view(0, |view| view.store().waiting().len()) == number + 1
        })
        .await;
    }
    assert!(first.unlock().await.unwrap());
    for expected in 0..3 {
        assert_eq!(order.recv().await, Some(expected));
    }
    stop(&nodes).await;
}

async fn requests_that_change_different_items_all_win(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let id = create(&handles[0], NewSession::new()).await;
    let requests = (0..60).map(|request| {
        let (sessions, id) = (handles[request % 3].clone(), id.clone());
        tokio::spawn(async move {
            let mut session = sessions.load(&id).await.unwrap().unwrap();
            session.set(format!("item {request}"), "set");
            sessions.save_merged(&mut session, Merge::Refuse).await.unwrap();
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    let session = handles[2]
        .with_freshness(plenary::Freshness::Linearizable)
        .load(&id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(session.items().count(), 60);
    stop(&nodes).await;
}

async fn the_same_item_is_settled_as_the_application_chose(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let id = create(
        &handles[0],
        NewSession::new().item("count", "0").item("other", "x"),
    )
    .await;
    let (mut one, mut two) = (
        handles[0].load(&id).await.unwrap().unwrap(),
        handles[1].load(&id).await.unwrap().unwrap(),
    );
    one.set("count", "1");
    two.set("count", "2");
    two.remove("other");
    handles[0].save_merged(&mut one, Merge::Refuse).await.unwrap();
    let refused = handles[1].save_merged(&mut two, Merge::Refuse).await;
    assert!(
        matches!(refused, Err(SessionError::Conflict { .. })),
        "{refused:?}"
    );
    handles[1].save_merged(&mut two, Merge::Last).await.unwrap();
    assert_eq!(text(&two, "count"), "2");
    assert!(two.get("other").is_none());
    // A counter that everybody counts up at once: the function adds what each has added.
    let add = |clash: Clash<'_>| {
        let number = |value: Option<Text<'_>>| -> i64 {
            value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
        };
        let sum = number(clash.theirs) + number(clash.mine) - number(clash.base);
        Some(Bytes::from(sum.to_string()))
    };
    let adders = (0..30).map(|request| {
        let (sessions, id) = (handles[request % 3].clone(), id.clone());
        tokio::spawn(async move {
            loop {
                let mut session = sessions.load(&id).await.unwrap().unwrap();
                let count: i64 = text(&session, "count").parse().unwrap();
                session.set("count", (count + 1).to_string());
                match sessions.save_merged(&mut session, Merge::With(&add)).await {
                    Ok(()) => return,
                    // Bounded: all others were faster so many times.
                    Err(SessionError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.unwrap();
    }
    let session = handles[0]
        .with_freshness(plenary::Freshness::Linearizable)
        .load(&id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&session, "count"), "32");
    stop(&nodes).await;
}

async fn a_lock_that_nobody_gives_up_ends_at_its_deadline_and_its_holder_cannot_write(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let id = create(&handles[0], NewSession::new()).await;
    // Longer than it takes to find it locked, on a machine that does other things as well.
    let lease = Duration::from_secs(3);
    let mut slow = handles[0]
        .lock(&id, Locking::exclusive().lease(lease))
        .await
        .unwrap();
    let refused = handles[1]
        .lock(&id, Locking::exclusive().wait(Duration::from_millis(20)))
        .await;
    assert!(matches!(refused, Err(SessionError::Locked)), "{refused:?}");
    let waited = Instant::now();
    let mut next = handles[1].lock(&id, Locking::exclusive()).await.unwrap();
    assert!(waited.elapsed() < PATIENCE);
    assert!(next.token() > slow.token());
    slow.set("a", "too slow");
    let refused = slow.save().await;
    assert!(matches!(refused, Err(SessionError::LockEnded)), "{refused:?}");
    next.set("a", "in time");
    next.save().await.unwrap();
    // A lock that is dropped is given up.
    drop(next);
    let last = handles[2].lock(&id, Locking::exclusive()).await.unwrap();
    assert_eq!(text(&last, "a"), "in time");
    stop(&nodes).await;
}

async fn who_has_gone_while_waiting_blocks_nobody(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let id = create(&handles[0], NewSession::new()).await;
    let first = handles[0].lock(&id, Locking::exclusive()).await.unwrap();
    let (sessions, of) = (handles[1].clone(), id.clone());
    let gone = tokio::spawn(async move { sessions.lock(&of, Locking::exclusive()).await.map(drop) });
    eventually("it waits", async || {
        nodes[0].view(0, |view| view.store().waiting().len()) == 1
    })
    .await;
    gone.abort();
    first.unlock().await.unwrap();
    let next = handles[2].lock(&id, Locking::exclusive().wait(PATIENCE)).await;
    assert!(next.is_ok(), "{next:?}");
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_holds_no_lock_and_no_place_in_the_queue() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let leader = nodes
        .iter()
        .position(|node| node.status().leader_id == Some(node.id()));
    let lost = (leader.unwrap() + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|which| *which != lost).collect();
    let handles = sessions(&nodes, Reach::Nodes).await;
    let one = create(&handles[others[0]], NewSession::new()).await;
    let two = create(&handles[others[0]], NewSession::new()).await;
    let held = handles[lost].lock(&one, Locking::exclusive()).await.unwrap();
    let first = handles[others[0]].lock(&two, Locking::exclusive()).await.unwrap();
    let (sessions, of) = (handles[lost].clone(), two.clone());
    tokio::spawn(async move {
        let locked = sessions.lock(&of, Locking::exclusive().wait(PATIENCE)).await;
        // Nobody is left to give it up.
        std::mem::forget(locked);
    });
    eventually("it waits", async || {
        nodes[others[0]].view(0, |view| view.store().waiting().len()) == 1
    })
    .await;
    // Its process is gone: it gives nothing up.
    std::mem::forget(held);
    nodes[lost].stop().await.unwrap();
    let waited = Locking::exclusive().wait(PATIENCE);
    let next = handles[others[1]].lock(&one, waited.clone()).await.unwrap();
    next.unlock().await.unwrap();
    eventually("its place in the queue is free", async || {
        nodes[others[0]].view(0, |view| view.store().waiting().len()) == 0
    })
    .await;
    first.unlock().await.unwrap();
    let next = handles[others[1]].lock(&two, waited).await.unwrap();
    next.unlock().await.unwrap();
    for which in others {
        nodes[which].stop().await.unwrap();
    }
}

async fn every_node_tells_the_same_of_sessions_and_each_end_once(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let (idle, slack) = (Duration::from_secs(4), Duration::from_millis(50));
    let new = || NewSession::new().idle_timeout(idle).slack(slack).owner("ann");
    let began = nodes[0].now();
    let mut created = Vec::new();
    for which in 0..9 {
        created.push(create(&handles[which % 3], new()).await);
    }
    assert!(handles[0].end(&created[0]).await.unwrap());
    assert!(!handles[1].end(&created[0]).await.unwrap());
    let read = |sessions: &Sessions| {
        let events = sessions.events(Position::default());
        async move {
            let events: Vec<Arc<SessionEvent>> = pin!(events).take(18).map(Result::unwrap).collect().await;
            events
        }
    };
    let told = read(&handles[0]).await;
    for sessions in &handles[1..] {
        assert_eq!(read(sessions).await, told);
    }
    let ended: Vec<&Arc<SessionEvent>> = told
        .iter()
        .filter(|event| matches!(event.what, What::Ended(..)))
        .collect();
    assert_eq!(ended.len(), 9);
    for (number, id) in created.iter().enumerate() {
        let key = handles[0].key_of(id);
        let ends: Vec<_> = ended.iter().filter(|event| event.key == key).collect();
        let [end] = ends[..] else {
            panic!("one end of each: {ends:?}")
        };
        let reason = if number == 0 {
            Reason::Abandoned
        } else {
            Reason::Idle
        };
        assert_eq!(end.what, What::Ended(reason, None));
        assert!(
            number == 0 || end.at >= began + idle.as_millis() as u64,
            "not before it was idle for so long"
        );
    }
    // From a position on there is what came after it.
    let mut later = pin!(handles[2].events(Position(told[16].position)));
    assert_eq!(later.next().await.unwrap().unwrap(), told[17]);
    stop(&nodes).await;
}

async fn what_a_session_held_is_told_if_asked_for_and_a_function_hears_it(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let content = [("session-events".to_owned(), "content".to_owned())];
    nodes[0].set_settings(&content).await.unwrap();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let subscription = handles[1].on_event(handles[1].position().await.unwrap(), move |event| {
        let _ = heard.send(event.unwrap());
    });
    let id = create(&handles[0], NewSession::new().item("basket", "book")).await;
    handles[0].end(&id).await.unwrap();
    assert_eq!(hears.recv().await.unwrap().what, What::Created);
    let ended = hears.recv().await.unwrap();
    let What::Ended(Reason::Abandoned, Some(content)) = &ended.what else {
        panic!("{ended:?}")
    };
    assert_eq!(content.items.get(b"basket", 0).unwrap().value, "book");
    drop(subscription);
    stop(&nodes).await;
}

async fn a_user_signs_out_everywhere_and_has_as_many_sessions_as_allowed(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let new = || NewSession::new().owner("ann").item("from", "somewhere");
    let mine = handles[0].create(new()).await.unwrap();
    for which in 0..4 {
        create(&handles[which % 3], new()).await;
    }
    let other = create(&handles[0], NewSession::new().owner("bob")).await;
    let fresh = handles[1].with_freshness(plenary::Freshness::Linearizable);
    let owned = fresh.owned("ann").await.unwrap();
    assert_eq!(owned.len(), 5);
    assert_eq!(owned[0].key(), &handles[0].key_of(mine.id()));
    assert_eq!(owned[4].get("from").unwrap(), "somewhere");
    assert!(handles[1].end_one(&owned[4]).await.unwrap());
    assert_eq!(handles[2].end_owned("ann", Some(&mine)).await.unwrap(), 3);
    assert_eq!(fresh.owned("ann").await.unwrap().len(), 1);
    let refused = handles[1].create(new().owner_at_most(AtMost::Refuse(1))).await;
    assert!(matches!(refused, Err(SessionError::TooMany)), "{refused:?}");
    create(&handles[1], new().owner_at_most(AtMost::OldestOut(1))).await;
    assert!(fresh.load(mine.id()).await.unwrap().is_none());
    assert!(fresh.load(&other).await.unwrap().is_some());
    stop(&nodes).await;
}

async fn requests_under_way_survive_a_login_and_see_nothing_of_what_comes(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let mut session = handles[0]
        .create(NewSession::new().item("user", "nobody"))
        .await
        .unwrap();
    let old = session.id().clone();
    let mut under_way = handles[1].load(&old).await.unwrap().unwrap();
    handles[0]
        .rename_with_grace(&mut session, Duration::from_secs(60))
        .await
        .unwrap();
    session.set("user", "ann");
    handles[0].save(&mut session).await.unwrap();
    let fresh = handles[1].with_freshness(plenary::Freshness::Linearizable);
    let seen = fresh.load(&old).await.unwrap().unwrap();
    assert!(seen.is_retired());
    assert_eq!(text(&seen, "user"), "nobody");
    under_way.set("a", "1");
    let refused = handles[1].save(&mut under_way).await;
    assert!(matches!(refused, Err(SessionError::Retired)), "{refused:?}");
    assert_eq!(
        text(&fresh.load(session.id()).await.unwrap().unwrap(), "user"),
        "ann"
    );
    // Who signs out with the old id is signed out.
    assert!(handles[1].end(&old).await.unwrap());
    assert!(fresh.load(session.id()).await.unwrap().is_none());
    // And who signs out everywhere leaves nothing under an old id, either.
    let mut session = handles[0].create(NewSession::new().owner("ann")).await.unwrap();
    let old = session.id().clone();
    let grace = Duration::from_secs(60);
    handles[0].rename_with_grace(&mut session, grace).await.unwrap();
    assert!(fresh.load(&old).await.unwrap().is_some());
    handles[0].end_owned("ann", None).await.unwrap();
    assert!(fresh.load(&old).await.unwrap().is_none());
    stop(&nodes).await;
}

/// Entries of the log that uses of a session come to in a second, at most: each node may write one when half of the slack, a second, is used up.
const WRITTEN_A_SECOND: u64 = 8;

async fn a_session_that_is_used_lives_and_its_uses_are_hardly_ever_written_down(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let handles = sessions(&nodes, reach).await;
    let new = NewSession::new().idle_timeout(Duration::from_secs(3));
    let id = create(&handles[0], new).await;
    let (began, mut loads) = (Instant::now(), 0u64);
    let before = nodes[0].token().0;
    while began.elapsed() < Duration::from_secs(7) {
        let which = usize::try_from(loads % 3).unwrap();
        assert!(
            handles[which].load(&id).await.unwrap().is_some(),
            "it is used all the time"
        );
        loads += 1;
        // The pace of the uses, not a condition.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let entries = nodes[0].token().0 - before;
    // By time and not by loads, of which a machine that does other things as well makes few.
    let most = WRITTEN_A_SECOND * (began.elapsed().as_secs() + 1);
    assert!(entries < most, "{entries} entries for {loads} loads");
    eventually("it ends when it is used no more", async || {
        handles[0].peek(&id).await.unwrap().is_none()
    })
    .await;
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cluster_cannot_answer_a_handle_does_what_was_chosen() {
    let data = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = three_with(data.path(), &addresses, impatient).await;
    let handle = sessions(&nodes, Reach::Nodes).await.remove(2);
    let id = create(&handle, NewSession::new().item("a", "1")).await;
    let last = nodes.pop().unwrap();
    stop(&nodes).await;
    drop(nodes);
    let fresh = handle.with_freshness(plenary::Freshness::Linearizable);
    let refused = fresh.peek(&id).await;
    assert!(matches!(refused, Err(SessionError::Failed(_))), "{refused:?}");
    let here = fresh.with_trouble(Trouble::ServeLocal);
    let session = here.peek(&id).await.unwrap().unwrap();
    assert!(session.is_stale());
    assert_eq!(text(&session, "a"), "1");
    assert!(here.peek(&SessionId::random().unwrap()).await.unwrap().is_none());
    // Whoever tries again is answered once there is a majority.
    let patient = handle.with_trouble(Trouble::RetryFor(PATIENCE));
    let written = tokio::spawn(async move { patient.end(&id).await });
    let again = Node::start(common::config(data.path(), &addresses, 0))
        .await
        .unwrap();
    assert!(written.await.unwrap().unwrap());
    again.stop().await.unwrap();
    last.stop().await.unwrap();
}

async fn only_a_hash_of_the_id_is_stored_and_it_is_keyed(reach: Reach) {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let sessions = sessions(&nodes, reach).await.remove(0);
    let id = create(&sessions, NewSession::new().owner("ann")).await;
    sessions
        .lock(&id, Locking::exclusive())
        .await
        .unwrap()
        .unlock()
        .await
        .unwrap();
    let everything = nodes[0]
        .write(vec![
            Command::new(0, ["SESSION.OWNED", "ann"]),
            Command::new(0, ["KEYS", "*"]),
        ])
        .await
        .unwrap();
    let stored = Reply::Array(vec![Reply::Bulk(sessions.key_of(&id))]);
    assert_eq!(everything.replies, [stored.clone(), stored]);
    assert!(
        !sessions
            .key_of(&id)
            .windows(8)
            .any(|part| id.as_str().as_bytes().starts_with(part))
    );
    let others = sessions.with_id_key("another application");
    assert!(others.load(&id).await.unwrap().is_none());
    assert!(sessions.load(&id).await.unwrap().is_some());
    stop(&nodes).await;
}
