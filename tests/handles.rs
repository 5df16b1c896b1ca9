//! The public handles against a node of its own: what a program that links Plenary sees.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plenary::session::{NewSession, SessionError, SessionId};
use plenary::{CommandError, Error, Freshness, Plenary, Reply, Token, Ttl};
use std::time::Duration;

struct Fixture {
    plenary: Plenary,
    _folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    Fixture {
        plenary: Plenary::builder().data(folder.path()).start().await.unwrap(),
        _folder: folder,
    }
}

#[tokio::test]
async fn keys_values_and_lives() {
    let Fixture { plenary, .. } = fixture().await;
    let cache = plenary.cache();
    assert_eq!(cache.get("key").await.unwrap(), None);
    assert_eq!(cache.ttl("key").await.unwrap(), Ttl::Absent);
    cache.set("key", [0, 255, b'\r', b'\n']).await.unwrap();
    assert_eq!(
        cache.get("key").await.unwrap().unwrap(),
        [0, 255, b'\r', b'\n'][..]
    );
    assert_eq!(cache.ttl("key").await.unwrap(), Ttl::Unlimited);
    assert!(cache.expire("key", Duration::from_secs(100)).await.unwrap());
    let Ttl::Left(left) = cache.ttl("key").await.unwrap() else {
        panic!("it has a deadline")
    };
    assert!(
        left > Duration::from_secs(90) && left <= Duration::from_secs(100),
        "{left:?}"
    );
    assert!(!cache.set_if_absent("key", "no").await.unwrap());
    assert!(cache.set_if_absent("other", "yes").await.unwrap());
    let many = cache.get_many(&["other", "none", "key"]).await.unwrap();
    assert_eq!(
        many.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert!(cache.exists("key").await.unwrap());
    assert!(cache.delete("key").await.unwrap());
    assert!(!cache.delete("key").await.unwrap());
    assert!(!cache.expire("key", Duration::from_secs(1)).await.unwrap());
    assert!(!cache.exists("key").await.unwrap());
}

#[tokio::test]
async fn a_life_is_rounded_up_and_none_is_refused() {
    let Fixture { plenary, .. } = fixture().await;
    let cache = plenary.cache();
    cache
        .set_for("key", "value", Duration::from_nanos(1))
        .await
        .unwrap();
    let none = cache.set_for("key", "value", Duration::ZERO).await;
    assert!(
        matches!(none, Err(Error::Refused(CommandError::InvalidExpire(_)))),
        "{none:?}"
    );
}

#[tokio::test]
async fn typed_values_are_json() {
    let Fixture { plenary, .. } = fixture().await;
    let cache = plenary.cache();
    cache.set_as("pair", &(1, "two")).await.unwrap();
    assert_eq!(
        cache.get_as::<(u8, String)>("pair").await.unwrap(),
        Some((1, "two".to_owned()))
    );
    assert_eq!(cache.get("pair").await.unwrap().unwrap(), "[1,\"two\"]");
    assert!(matches!(cache.get_as::<u8>("pair").await, Err(Error::Value(_))));
    assert_eq!(cache.get_as::<u8>("none").await.unwrap(), None);
}

#[tokio::test]
async fn a_refusal_is_an_error_that_changed_nothing() {
    let Fixture { plenary, .. } = fixture().await;
    let cache = plenary.cache();
    cache.set("text", "no number").await.unwrap();
    let refused = cache.increment("text", 1).await;
    assert!(
        matches!(refused, Err(Error::Refused(CommandError::NotAnInteger))),
        "{refused:?}"
    );
    assert_eq!(cache.get("text").await.unwrap().unwrap(), "no number");
    assert_eq!(cache.increment("counter", 5).await.unwrap(), 5);
    assert_eq!(cache.increment("counter", -7).await.unwrap(), -2);
}

#[tokio::test]
async fn any_command_of_the_table_runs_and_one_of_a_connection_says_where_to() {
    let Fixture { plenary, .. } = fixture().await;
    let cache = plenary.cache();
    assert_eq!(cache.execute(["set", "key", "value"]).await.unwrap(), Reply::OK);
    assert_eq!(cache.execute(["get", "key"]).await.unwrap(), Reply::bulk("value"));
    let local = cache.execute(["PING"]).await.unwrap_err().to_string();
    assert!(local.contains("Redis endpoint"), "{local}");
    assert!(matches!(
        cache.execute(["NONSENSE"]).await,
        Err(Error::Refused(CommandError::Unknown { .. }))
    ));
    assert!(matches!(
        cache.execute(["GET"]).await,
        Err(Error::Refused(CommandError::Arity(_)))
    ));
    assert!(cache.execute(Vec::<String>::new()).await.is_err());
}

#[tokio::test]
async fn databases_are_apart() {
    let Fixture { plenary, .. } = fixture().await;
    let (zero, fifteen) = (plenary.cache(), plenary.cache().database(15).unwrap());
    zero.set("key", "zero").await.unwrap();
    assert_eq!(fifteen.get("key").await.unwrap(), None);
    assert!(zero.database(16).is_err());
}

#[tokio::test]
async fn tokens_never_fall_and_travel_between_handles() {
    let Fixture { plenary, .. } = fixture().await;
    let here = plenary.cache();
    here.set("key", "value").await.unwrap();
    let token = here.token();
    assert!(token > Token::default());
    let there = plenary.cache().at_least(token);
    assert_eq!(there.get("key").await.unwrap().unwrap(), "value");
    assert!(there.token() >= token);
    let now = here.with_freshness(Freshness::Linearizable);
    assert_eq!(now.get("key").await.unwrap().unwrap(), "value");
    assert!(now.token() >= token, "clones share what was seen");
}

#[tokio::test]
async fn a_session_saves_what_changed_and_nothing_else() {
    let Fixture { plenary, .. } = fixture().await;
    let sessions = plenary.sessions();
    let new = NewSession::new()
        .owner("ada")
        .item("a", "1")
        .item("b", "2")
        .item("c", "3");
    let mut session = sessions.create(new).await.unwrap();
    assert_eq!(
        (session.owner().as_ref(), session.idle_timeout()),
        (&b"ada"[..], plenary::session::IDLE_TIMEOUT)
    );
    assert!(!session.is_changed());
    session.set("a", "1");
    assert!(!session.is_changed(), "the same value is no change");
    session.set("b", "two");
    assert_eq!(session.remove("c").unwrap(), "3");
    assert!(session.remove("none").is_none());
    session.set_as("d", &[4]).unwrap();
    let before = session.version();
    sessions.save(&mut session).await.unwrap();
    assert!(session.version() > before && !session.is_changed());
    let loaded = sessions.load(session.id()).await.unwrap().unwrap();
    let items: Vec<_> = loaded
        .items()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect();
    assert_eq!(items, [(&b"a"[..], &b"1"[..]), (b"b", b"two"), (b"d", b"[4]")]);
    assert_eq!(loaded.version(), session.version());
    assert_eq!(loaded.get_as::<Vec<u8>>("d").unwrap(), Some(vec![4]));
}

#[tokio::test]
async fn a_stale_save_is_refused_with_the_newer_version_and_undoes_nothing() {
    let Fixture { plenary, .. } = fixture().await;
    let sessions = plenary.sessions();
    let mut here = sessions
        .create(NewSession::new().item("count", "1"))
        .await
        .unwrap();
    let mut there = sessions.load(here.id()).await.unwrap().unwrap();
    here.set("count", "2");
    sessions.save(&mut here).await.unwrap();
    there.set("count", "1000");
    match sessions.save(&mut there).await {
        Err(SessionError::Stale { version }) => assert_eq!(version, here.version()),
        other => panic!("{other:?}"),
    }
    assert!(there.is_changed(), "what was not saved is still there to save");
    assert_eq!(
        sessions
            .load(here.id())
            .await
            .unwrap()
            .unwrap()
            .get("count")
            .unwrap(),
        "2"
    );
}

#[tokio::test]
async fn an_ended_session_stays_ended() {
    let Fixture { plenary, .. } = fixture().await;
    let sessions = plenary.sessions();
    let mut session = sessions.create(NewSession::new()).await.unwrap();
    assert!(sessions.touch(session.id()).await.unwrap());
    assert!(sessions.end(session.id()).await.unwrap());
    assert!(!sessions.end(session.id()).await.unwrap());
    assert!(!sessions.touch(session.id()).await.unwrap());
    session.set("late", "yes");
    assert!(matches!(
        sessions.save(&mut session).await,
        Err(SessionError::Gone)
    ));
    assert!(matches!(
        sessions.rename(&mut session).await,
        Err(SessionError::Gone)
    ));
    assert!(sessions.load(session.id()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_renamed_session_leaves_nothing_under_its_old_id() {
    let Fixture { plenary, .. } = fixture().await;
    let sessions = plenary.sessions();
    let mut session = sessions
        .create(NewSession::new().item("theme", "dark"))
        .await
        .unwrap();
    let old = session.id().clone();
    session.set("theme", "light");
    sessions.rename(&mut session).await.unwrap();
    assert_ne!(&old, session.id());
    assert!(sessions.load(&old).await.unwrap().is_none());
    sessions.save(&mut session).await.unwrap();
    assert_eq!(
        sessions
            .load(session.id())
            .await
            .unwrap()
            .unwrap()
            .get("theme")
            .unwrap(),
        "light"
    );
}

#[tokio::test]
async fn a_session_cannot_be_created_over_another() {
    let Fixture { plenary, .. } = fixture().await;
    let sessions = plenary.sessions();
    let id: SessionId = "chosen-id".parse().unwrap();
    assert!(
        sessions
            .create_as(&id, &NewSession::new().item("a", "1"))
            .await
            .unwrap()
    );
    assert!(
        !sessions
            .create_as(&id, &NewSession::new().item("a", "2"))
            .await
            .unwrap()
    );
    assert_eq!(sessions.load(&id).await.unwrap().unwrap().get("a").unwrap(), "1");
    let raw = plenary
        .cache()
        .execute([bytes::Bytes::from("TYPE"), sessions.key_of(&id)])
        .await
        .unwrap();
    assert_eq!(raw, Reply::Simple("session".into()));
}

#[test]
fn ids_from_outside_are_checked_and_are_not_shown() {
    for bad in ["", "a b", "a\r\nb", "ä", "../x", &"x".repeat(129)] {
        assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
    }
    let id = SessionId::random().unwrap();
    assert_eq!(id.as_str().len(), 32);
    assert_ne!(id, SessionId::random().unwrap());
    assert!(!format!("{id:?}").contains(id.as_str()));
    assert!(!format!("{:?}", "short".parse::<SessionId>().unwrap()).contains("short"));
}
