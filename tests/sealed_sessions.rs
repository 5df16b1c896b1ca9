//! Sessions whose values are sealed, on a running node: what the cache holds, what the application sees, and what happens to values that were
//! changed, moved, or sealed with another key.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use futures::StreamExt;
use plenary::session::{
    KeyRing, Locking, Merge, NewSession, Position, SealError, Session, SessionError, SessionId, Sessions,
    Text,
};
use plenary::{Plenary, Reply};
use std::path::Path;
use std::time::Duration;

const SECRET: &str = "three books about bees";

struct Fixture {
    plenary: Plenary,
    folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let plenary = Plenary::builder().data(folder.path()).start().await.unwrap();
    Fixture { plenary, folder }
}

fn ring(id: u32) -> KeyRing {
    KeyRing::new(id, key(id))
}

fn key(id: u32) -> [u8; 32] {
    [u8::try_from(id).unwrap(); 32]
}

impl Fixture {
    fn sealed(&self, ring: KeyRing) -> Sessions {
        self.plenary.sessions().sealed_with(ring)
    }

    /// As a Redis client sends it.
    async fn raw(&self, argv: &[&[u8]]) -> Reply {
        let argv = argv.iter().map(|argument| Bytes::copy_from_slice(argument));
        self.plenary.cache().execute(argv).await.unwrap()
    }

    async fn stored(&self, id: &SessionId, item: &str) -> Bytes {
        let key = self.plenary.sessions().key_of(id);
        match self.raw(&[b"SESSION.GET", &key, item.as_bytes()]).await {
            Reply::Array(mut values) => match values.pop() {
                Some(Reply::Bulk(value)) => value,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    async fn store(&self, id: &SessionId, item: &str, value: &[u8]) {
        let key = self.plenary.sessions().key_of(id);
        self.raw(&[b"SESSION.SAVE", &key, b"*", b"SET", b"1", item.as_bytes(), value])
            .await;
    }
}

async fn basket(sessions: &Sessions) -> Session {
    let new = NewSession::new()
        .owner("ada")
        .item("basket", SECRET)
        .item("theme", "dark");
    sessions.create(new).await.unwrap()
}

async fn load(sessions: &Sessions, id: &SessionId) -> Session {
    sessions.load(id).await.unwrap().expect("it is there")
}

fn text(session: &Session, item: &str) -> String {
    String::from_utf8(session.get(item).expect("it is there").to_vec()).unwrap()
}

async fn refusal(sessions: &Sessions, id: &SessionId) -> (String, SealError) {
    match sessions.load(id).await {
        Err(SessionError::Unopened { item, why }) => (item, why),
        other => panic!("{other:?}"),
    }
}

fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn only_sealed_bytes_leave_the_application() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let mut session = basket(&sessions).await;
    session.set("note", "born in may");
    sessions.save(&mut session).await.unwrap();
    let loaded = load(&sessions, session.id()).await;
    assert_eq!(text(&loaded, "basket"), SECRET);
    assert_eq!(text(&loaded, "note"), "born in may");
    assert_eq!(loaded.owner(), "ada");
    for (item, value) in [("basket", SECRET), ("theme", "dark"), ("note", "born in may")] {
        let stored = here.stored(session.id(), item).await;
        assert!(stored.starts_with(&[0xf5, 1, 0, 0, 0]), "{stored:?}");
        assert!(
            !stored
                .windows(value.len())
                .any(|window| window == value.as_bytes())
        );
    }

    here.plenary.node().snapshot().await.unwrap();
    here.plenary.stop().await.unwrap();
    assert!(
        holds(here.folder.path(), "theme"),
        "names are not sealed, and show that the log was read"
    );
    assert!(!holds(here.folder.path(), SECRET));
    assert!(!holds(here.folder.path(), "born in may"));
}

#[tokio::test]
async fn the_same_value_again_is_no_change() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let id = basket(&sessions).await.id().clone();
    let before = here.stored(&id, "basket").await;
    let mut session = load(&sessions, &id).await;
    session.set("basket", SECRET);
    assert!(!session.is_changed());
    sessions.save(&mut session).await.unwrap();
    assert_eq!(session.version(), 1);
    session.set("theme", "light");
    sessions.save(&mut session).await.unwrap();
    assert_eq!(session.version(), 2);
    // What was not changed was not sent either.
    assert_eq!(here.stored(&id, "basket").await, before);
}

#[tokio::test]
async fn a_key_is_changed_without_anybody_being_logged_out() {
    let here = fixture().await;
    let first = here.sealed(ring(1));
    let id = basket(&first).await.id().clone();
    let idle = basket(&first).await.id().clone();

    // Every instance knows both; then the new one seals.
    let both = here.sealed(ring(1).with_older(2, key(2)).unwrap());
    assert_eq!(text(&load(&both, &id).await, "basket"), SECRET);
    let both = here.sealed(ring(2).with_older(1, key(1)).unwrap());
    let mut session = load(&both, &id).await;
    assert!(!session.is_changed(), "a page that only reads writes nothing");
    session.set("theme", "light");
    both.save(&mut session).await.unwrap();
    for item in ["basket", "theme"] {
        assert!(here.stored(&id, item).await.starts_with(&[0xf5, 2, 0, 0, 0]));
    }
    // Once: the next save has nothing to seal anew.
    let basket = here.stored(&id, "basket").await;
    session.set("theme", "dark");
    both.save(&mut session).await.unwrap();
    assert_eq!(here.stored(&id, "basket").await, basket);

    let last = here.sealed(ring(2));
    assert_eq!(text(&load(&last, &id).await, "basket"), SECRET);
    // One that nobody saved meanwhile is not lost: the ring with the old key has it still, and can seal it anew.
    assert_eq!(refusal(&last, &idle).await.1, SealError::UnknownKey { id: 1 });
    let mut session = load(&both, &idle).await;
    session.remove("theme");
    assert!(session.seal_anew());
    both.save(&mut session).await.unwrap();
    assert!(!session.seal_anew());
    let session = load(&last, &idle).await;
    assert_eq!(text(&session, "basket"), SECRET);
    assert_eq!(session.get("theme"), None);
}

#[tokio::test]
async fn what_was_changed_or_made_up_in_the_cache_is_refused() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let id = basket(&sessions).await.id().clone();
    let mut sealed = here.stored(&id, "basket").await.to_vec();
    *sealed.last_mut().unwrap() ^= 1;
    here.store(&id, "basket", &sealed).await;
    assert_eq!(
        refusal(&sessions, &id).await,
        ("basket".to_owned(), SealError::Tampered)
    );
    *sealed.last_mut().unwrap() ^= 1;
    here.store(&id, "basket", &sealed).await;
    assert_eq!(text(&load(&sessions, &id).await, "basket"), SECRET);
    here.store(&id, "admin", b"true").await;
    assert_eq!(
        refusal(&sessions, &id).await,
        ("admin".to_owned(), SealError::NotSealed)
    );
    // A handle without the ring stores such values too, and sees sealed ones as they are.
    let plain = here.plenary.sessions();
    let mut session = load(&plain, &id).await;
    assert_eq!(session.get("basket").unwrap(), &sealed);
    session.remove("admin");
    plain.save(&mut session).await.unwrap();
    assert_eq!(text(&load(&sessions, &id).await, "theme"), "dark");
}

#[tokio::test]
async fn a_value_opens_in_no_other_item_and_no_other_session() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let (ada, bob) = (basket(&sessions).await, basket(&sessions).await);
    let hers = here.stored(ada.id(), "basket").await;
    here.store(bob.id(), "basket", &hers).await;
    assert_eq!(
        refusal(&sessions, bob.id()).await,
        ("basket".to_owned(), SealError::Tampered)
    );
    here.store(ada.id(), "theme", &hers).await;
    assert_eq!(
        refusal(&sessions, ada.id()).await,
        ("theme".to_owned(), SealError::Tampered)
    );

    // A whole session that is moved to another id.
    let (carl, stolen) = (
        basket(&sessions).await,
        "0123456789abcdef".parse::<SessionId>().unwrap(),
    );
    let (from, to) = (sessions.key_of(carl.id()), sessions.key_of(&stolen));
    assert_eq!(
        here.raw(&[b"SESSION.RENAME", &from, &to]).await,
        Reply::Integer(1)
    );
    assert_eq!(refusal(&sessions, &stolen).await.1, SealError::Tampered);
    // One that keeps its key and is given all that another has.
    let dora = basket(&sessions).await;
    for item in ["plenary.place", "basket", "theme"] {
        let hers = here.stored(dora.id(), item).await;
        here.store(bob.id(), item, &hers).await;
    }
    assert_eq!(refusal(&sessions, bob.id()).await.1, SealError::Tampered);
}

#[tokio::test]
async fn a_session_is_renamed_with_its_values() {
    let here = fixture().await;
    let sessions = here.sealed(ring(2).with_older(1, key(1)).unwrap());
    // Sealed with the older key, so that renaming has both to do.
    let mut session = load(&sessions, basket(&here.sealed(ring(1))).await.id()).await;
    let (old, mut behind) = (session.id().clone(), session.clone());
    session.set("user", "ada");
    sessions.rename(&mut session).await.unwrap();
    assert_ne!(session.id(), &old);
    assert!(sessions.load(&old).await.unwrap().is_none());
    let loaded = load(&sessions, session.id()).await;
    assert_eq!(
        (text(&loaded, "basket"), text(&loaded, "theme")),
        (SECRET.to_owned(), "dark".to_owned())
    );
    assert_eq!(loaded.version(), session.version());
    assert_eq!(
        loaded.get("user"),
        None,
        "what was not saved stays with the handle"
    );
    sessions.save(&mut session).await.unwrap();
    assert_eq!(text(&load(&sessions, session.id()).await, "user"), "ada");
    for item in ["basket", "theme", "user"] {
        assert!(
            here.stored(session.id(), item)
                .await
                .starts_with(&[0xf5, 2, 0, 0, 0])
        );
    }

    // Who was behind before stays behind: a rename hides nobody's changes.
    assert!(matches!(
        sessions.rename(&mut behind).await,
        Err(SessionError::Gone)
    ));
    let mut behind = load(&sessions, session.id()).await;
    session.set("theme", "light");
    sessions.save(&mut session).await.unwrap();
    sessions.rename(&mut behind).await.unwrap();
    behind.set("theme", "blue");
    assert!(matches!(
        sessions.save(&mut behind).await,
        Err(SessionError::Stale { .. })
    ));
    assert_eq!(text(&load(&sessions, behind.id()).await, "theme"), "light");

    let empty = sessions.create(NewSession::new()).await.unwrap();
    let mut renamed = empty.clone();
    sessions.rename(&mut renamed).await.unwrap();
    assert_eq!(load(&sessions, renamed.id()).await.version(), renamed.version());
}

#[tokio::test]
async fn the_place_of_a_session_is_no_item_of_the_application() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let mut session = basket(&sessions).await;
    let names: Vec<_> = session.items().map(|(name, _)| name).collect();
    assert_eq!(names, ["basket", "theme"]);
    let new = NewSession::new().item("plenary.place", "mine");
    assert!(
        sessions
            .create(new)
            .await
            .unwrap_err()
            .to_string()
            .contains("plenary.place")
    );
    session.set("plenary.place", "mine");
    assert!(
        sessions
            .save(&mut session)
            .await
            .unwrap_err()
            .to_string()
            .contains("plenary.place")
    );
    assert_eq!(text(&load(&sessions, session.id()).await, "basket"), SECRET);
}

/// Whatever way the two interleave: every save that was acknowledged is under the new id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_loses_no_save_that_comes_at_the_same_time() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    for _ in 0..20 {
        let mut session = sessions
            .create(NewSession::new().item("count", "0"))
            .await
            .unwrap();
        let id = session.id().clone();
        let counting = tokio::spawn({
            let sessions = sessions.clone();
            async move {
                let mut counted = 0;
                while let Some(mut session) = sessions.load(&id).await.unwrap() {
                    session.set("count", (counted + 1).to_string());
                    match sessions.save(&mut session).await {
                        Ok(()) => counted += 1,
                        Err(SessionError::Gone) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                counted
            }
        });
        sessions.rename(&mut session).await.unwrap();
        let counted: u64 = counting.await.unwrap();
        assert_eq!(
            text(&load(&sessions, session.id()).await, "count"),
            counted.to_string()
        );
    }
}

#[tokio::test]
async fn encryption_is_introduced_while_users_are_logged_in() {
    let here = fixture().await;
    let plain = here.plenary.sessions();
    let id = basket(&plain).await.id().clone();
    assert_eq!(
        refusal(&here.sealed(ring(1)), &id).await,
        ("basket".to_owned(), SealError::NotSealed)
    );

    let sessions = here.sealed(ring(1).admitting_plain());
    let mut session = load(&sessions, &id).await;
    assert_eq!(text(&session, "basket"), SECRET);
    session.set("theme", "light");
    sessions.save(&mut session).await.unwrap();
    assert_eq!(text(&load(&here.sealed(ring(1)), &id).await, "basket"), SECRET);

    // A login seals what it moves.
    let mut session = load(&sessions, basket(&plain).await.id()).await;
    sessions.rename(&mut session).await.unwrap();
    assert_eq!(
        text(&load(&here.sealed(ring(1)), session.id()).await, "basket"),
        SECRET
    );

    // Sealed, this one is larger than an item may be: it stays what and where it is.
    let large = "x".repeat(1 << 20);
    let new = NewSession::new().item("large", &large).item("small", "y");
    let mut session = load(&sessions, plain.create(new).await.unwrap().id()).await;
    let id = session.id().clone();
    let refused = sessions.rename(&mut session).await.unwrap_err();
    assert!(refused.to_string().contains("an item is over"), "{refused}");
    assert_eq!(session.id(), &id);
    assert_eq!(text(&load(&sessions, &id).await, "large"), large);

    // One that a Redis client began, with nothing in it, and one that is replaced.
    let id = "fedcba9876543210".parse::<SessionId>().unwrap();
    here.raw(&[b"SESSION.CREATE", &sessions.key_of(&id), b"0"]).await;
    let strict = here.sealed(ring(1));
    let mut session = load(&strict, &id).await;
    strict.rename(&mut session).await.unwrap();
    session.set("basket", SECRET);
    strict.save(&mut session).await.unwrap();
    assert_eq!(text(&load(&strict, session.id()).await, "basket"), SECRET);
    let id = basket(&plain).await.id().clone();
    let new = NewSession::new().item("basket", "nothing");
    let version = sessions.replace(&id, Some(1), &new).await.unwrap();
    let session = load(&strict, &id).await;
    assert_eq!(
        (text(&session, "basket"), session.version()),
        ("nothing".to_owned(), version)
    );
}

#[tokio::test]
async fn a_session_that_is_replaced_whole_is_sealed_too() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let id = basket(&sessions).await.id().clone();
    let new = NewSession::new().item("basket", "nothing");
    assert_eq!(sessions.replace(&id, Some(1), &new).await.unwrap(), 2);
    assert!(here.stored(&id, "basket").await.starts_with(&[0xf5]));
    let session = load(&sessions, &id).await;
    assert_eq!(
        (text(&session, "basket"), session.get("theme")),
        ("nothing".to_owned(), None)
    );
}

#[tokio::test]
async fn requests_that_merge_what_they_changed_all_win_and_keys_change_meanwhile() {
    let here = fixture().await;
    let first = here.sealed(ring(1));
    let both = here.sealed(ring(2).with_older(1, key(1)).unwrap());
    // One with a place that the older key sealed, and one that has none yet.
    let empty = "fedcba9876543210".parse::<SessionId>().unwrap();
    here.raw(&[b"SESSION.CREATE", &first.key_of(&empty), b"0"]).await;
    for id in [basket(&first).await.id(), &empty] {
        let (mut one, mut other) = (load(&both, id).await, load(&both, id).await);
        one.set("one", "1");
        other.set("other", "2");
        both.save_merged(&mut one, Merge::Refuse).await.unwrap();
        both.save_merged(&mut other, Merge::Refuse).await.unwrap();
        let (mut one, mut other) = (load(&both, id).await, load(&both, id).await);
        one.set("one", "10");
        other.set("one", "20");
        both.save_merged(&mut one, Merge::Last).await.unwrap();
        assert!(matches!(
            both.save_merged(&mut other.clone(), Merge::Refuse).await,
            Err(SessionError::Conflict { .. })
        ));
        let settle = |clash: plenary::session::Clash<'_>| {
            assert_eq!(clash.base.map(Text::as_slice), Some(&b"1"[..]));
            assert_eq!(clash.theirs.map(Text::as_slice), Some(&b"10"[..]));
            clash.mine.map(Text::to_bytes)
        };
        both.save_merged(&mut other, Merge::With(&settle)).await.unwrap();
        // All is sealed with the new key by then.
        let session = load(&here.sealed(ring(2)), id).await;
        assert_eq!(
            (text(&session, "one"), text(&session, "other")),
            ("20".to_owned(), "2".to_owned())
        );
    }
}

#[tokio::test]
async fn a_locked_session_is_saved_and_renamed_by_its_holder_and_the_old_id_can_be_read_for_a_while() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    let plain = here.plenary.sessions();
    // The second has no place before it is locked.
    for old in [
        basket(&sessions).await.id().clone(),
        basket(&plain).await.id().clone(),
    ] {
        let sessions = here.sealed(ring(1).admitting_plain());
        let mut behind = load(&sessions, &old).await;
        let mut locked = sessions.lock(&old, Locking::exclusive()).await.unwrap();
        assert!(matches!(
            sessions.rename(&mut behind).await,
            Err(SessionError::Locked)
        ));
        locked.rename(Duration::from_secs(60)).await.unwrap();
        locked.set("user", "ada");
        let session = locked.save_and_unlock().await.unwrap();
        let loaded = load(&here.sealed(ring(1)), session.id()).await;
        assert_eq!(
            (text(&loaded, "basket"), text(&loaded, "user")),
            (SECRET.to_owned(), "ada".to_owned())
        );
        let retired = load(&sessions, &old).await;
        assert!(retired.is_retired());
        assert_eq!(
            (text(&retired, "basket"), retired.get("user")),
            (SECRET.to_owned(), None)
        );
        assert!(matches!(
            sessions.rename(&mut behind).await,
            Err(SessionError::Retired)
        ));
    }
}

#[tokio::test]
async fn what_an_ended_session_held_is_opened() {
    let here = fixture().await;
    let sessions = here.sealed(ring(1));
    here.plenary
        .node()
        .set_settings(&[("session-events".to_owned(), "content".to_owned())])
        .await
        .unwrap();
    let mut session = basket(&sessions).await;
    sessions.rename(&mut session).await.unwrap();
    sessions.end(session.id()).await.unwrap();
    let mut events = std::pin::pin!(sessions.events(Position::default()));
    let content = loop {
        let event = events.next().await.unwrap().unwrap();
        if let Some(content) = sessions.content_of(&event).unwrap() {
            let strange = here.sealed(ring(2)).content_of(&event);
            assert!(matches!(strange, Err(SessionError::Unopened { .. })));
            break content;
        }
    };
    let content: Vec<(&[u8], &[u8])> = content
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    assert_eq!(
        content,
        [(&b"basket"[..], SECRET.as_bytes()), (b"theme", b"dark")]
    );
}

#[tokio::test]
async fn an_item_that_ends_by_itself_is_not_made_to_live_on() {
    let here = fixture().await;
    let id = basket(&here.sealed(ring(1))).await.id().clone();
    let key_of = here.plenary.sessions().key_of(&id);
    here.raw(&[
        b"SESSION.SAVE",
        &key_of,
        b"*",
        b"EXPIRE",
        b"1",
        b"basket",
        b"3600000",
    ])
    .await;
    let both = here.sealed(ring(2).with_older(1, key(1)).unwrap());
    let mut session = load(&both, &id).await;
    session.set("note", "x");
    both.save(&mut session).await.unwrap();
    assert!(here.stored(&id, "theme").await.starts_with(&[0xf5, 2, 0, 0, 0]));
    assert!(here.stored(&id, "basket").await.starts_with(&[0xf5, 1, 0, 0, 0]));
    let loaded = format!("{:?}", here.raw(&[b"SESSION.LOAD", &key_of]).await);
    let (_, expires) = loaded.split_once("expires").unwrap();
    assert!(expires.contains("basket"), "{expires}");
}
