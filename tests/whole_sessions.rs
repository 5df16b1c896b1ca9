//! Sessions that a framework hands over whole: what a save changes, and what it leaves as it is. Each request is a task of its own, as
//! frameworks have it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::PATIENCE;
use plenary::session::whole::{Items, Whole};
use plenary::session::{NewSession, SessionError, SessionId};
use plenary::{Cache, Plenary, Sessions};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

const HOUR: Duration = Duration::from_secs(3600);

struct Fixture {
    plenary: Plenary,
    store: Whole,
    id: SessionId,
    _folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let plenary = Plenary::builder().data(folder.path()).start().await.unwrap();
    plenary.node().ready(PATIENCE).await.unwrap();
    let store = Whole::new(plenary.sessions());
    Fixture {
        plenary,
        store,
        id: "id".parse().unwrap(),
        _folder: folder,
    }
}

fn items(pairs: &[(&'static str, &'static str)]) -> Items {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

async fn load(store: &Whole, id: &SessionId) -> Option<Items> {
    let found = store.load(id).await.unwrap()?;
    let items = found.items();
    Some(
        items
            .map(|(name, value)| (name.to_bytes(), value.to_bytes()))
            .collect(),
    )
}

/// A request that loads and then saves, each when it is told to.
struct Request {
    save: mpsc::Sender<(Items, oneshot::Sender<Result<(), SessionError>>)>,
}

impl Request {
    /// It has loaded.
    async fn begin(store: &Whole, id: &SessionId) -> Self {
        let (save, mut to_save) = mpsc::channel::<(Items, oneshot::Sender<_>)>(1);
        let (store, id) = (store.clone(), id.clone());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            tell.send(load(&store, &id).await).unwrap();
            while let Some((items, answer)) = to_save.recv().await {
                let _ = answer.send(store.put(&id, &items, HOUR).await);
            }
        });
        told.await.unwrap();
        Self { save }
    }

    async fn save(&self, pairs: &[(&'static str, &'static str)]) -> Result<(), SessionError> {
        let (answer, answered) = oneshot::channel();
        self.save.send((items(pairs), answer)).await.unwrap();
        answered.await.unwrap()
    }
}

/// A login whose logout takes away what it set; a shopping cart that is emptied again.
#[tokio::test]
async fn a_request_may_give_a_session_what_it_had_before() {
    let Fixture {
        plenary, store, id, ..
    } = fixture().await;
    let elsewhere = Whole::new(plenary.sessions());
    for returned in [&[][..], &[("cart", "[]")][..]] {
        let other = &[("cart", "[\"book\"]"), ("user", "ada")];
        for to in [returned, other, returned, other, returned] {
            Request::begin(&store, &id).await.save(to).await.unwrap();
            assert_eq!(load(&elsewhere, &id).await, Some(items(to)));
        }
    }
}

#[tokio::test]
async fn one_request_may_save_often_and_return_to_what_it_loaded() {
    let Fixture {
        plenary, store, id, ..
    } = fixture().await;
    let elsewhere = Whole::new(plenary.sessions());
    let request = Request::begin(&store, &id).await;
    for theme in ["dark", "light", "dark", "light"] {
        request.save(&[("theme", theme)]).await.unwrap();
        assert_eq!(load(&elsewhere, &id).await, Some(items(&[("theme", theme)])));
    }
}

#[tokio::test]
async fn a_request_changes_what_it_has_changed_since_it_loaded_and_nothing_else() {
    let Fixture { store, id, .. } = fixture().await;
    let first = Request::begin(&store, &id).await;
    first.save(&[("a", "1"), ("b", "1")]).await.unwrap();
    let (slow, page) = (
        Request::begin(&store, &id).await,
        Request::begin(&store, &id).await,
    );
    // Far more than a browser has under way at once.
    for n in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] {
        let quick = Request::begin(&store, &id).await;
        quick.save(&[("a", "1"), ("b", "1"), ("n", n)]).await.unwrap();
    }
    page.save(&[("a", "1"), ("b", "1")]).await.unwrap();
    slow.save(&[("b", "2"), ("c", "1")]).await.unwrap();
    let all = items(&[("b", "2"), ("c", "1"), ("n", "12")]);
    assert_eq!(load(&store, &id).await, Some(all));
}

/// What came from a Redis, or from tower-sessions, has no idle timeout.
#[tokio::test]
async fn an_end_that_the_application_has_set_stays_and_one_in_place_of_a_life_goes() {
    let Fixture {
        plenary, store, id, ..
    } = fixture().await;
    let in_a_minute = SystemTime::now() + Duration::from_secs(60);
    let at = in_a_minute.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (sessions, at) = (plenary.sessions(), at.as_millis() as u64);
    let deadline = async || sessions.peek(&id).await.unwrap().unwrap().deadline();
    let saves = async || store.put(&id, &items(&[("a", "1")]), HOUR).await;
    let views = async || sessions.live_on(&id, 2 * HOUR).await;
    let of_its_own = NewSession::new().absolute_deadline(at);
    let from_elsewhere = of_its_own.clone().idle_timeout(Duration::ZERO);
    for (new, stays) in [(&of_its_own, true), (&from_elsewhere, false)] {
        for view_first in [false, true] {
            assert!(sessions.create_as(&id, new).await.unwrap());
            assert_eq!(deadline().await, Some(at));
            if view_first {
                views().await.unwrap();
            }
            saves().await.unwrap();
            views().await.unwrap();
            assert_eq!(deadline().await == Some(at), stays);
            assert!(deadline().await.is_some());
            sessions.end(&id).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_only_looked_at_is_answered_also_while_nobody_can_write() {
    const LIFE: Duration = Duration::from_secs(40);
    let data = tempfile::tempdir().unwrap();
    let nodes = common::three_with(data.path(), &common::addresses(3), common::impatient).await;
    let store = Whole::new(Sessions::new(Cache::new(nodes[0].clone())));
    let (id, ada) = ("id".parse().unwrap(), items(&[("user", "ada")]));
    store.put(&id, &ada, LIFE).await.unwrap();
    common::stop(&nodes[1..]).await;
    // Three quarters of its slack: a use is to be written down before it is answered.
    tokio::time::sleep(LIFE / 20 * 3 / 4).await;
    assert_eq!(load(&store, &id).await, Some(ada.clone()));
    store.put(&id, &ada, LIFE).await.unwrap();
    store.sessions().live_on(&id, LIFE).await.unwrap();
    let changed = store.put(&id, &items(&[("user", "eve")]), LIFE).await;
    assert!(matches!(changed, Err(SessionError::Failed(_))), "{changed:?}");
    common::stop(&nodes[..1]).await;
}
