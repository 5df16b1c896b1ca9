//! What the frameworks' own tests ask of a store, asked of ours: through the framework with HTTP requests where they do so, through its trait
//! where they do that. Ported from actix-session 0.11, poem 3.1, rocket_flex_session 0.2, salvo-session 1.1 and tower-sessions 0.15; axum_session
//! has none. And what the traits allow beside that: creating one id many times at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plenary::Plenary;
use plenary::config::Timing;
use plenary_frameworks::client::{Answer, Browser, Cookies, PATIENCE};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// How many at once.
const MANY: usize = 16;

struct Node {
    plenary: Plenary,
    _folder: tempfile::TempDir,
}

async fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let plenary = Plenary::builder().data(folder.path()).start().await.unwrap();
    plenary.node().ready(PATIENCE).await.unwrap();
    Node {
        plenary,
        _folder: folder,
    }
}

/// Three nodes, of which the first says after a second already that it cannot write.
async fn three() -> (Vec<Plenary>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    // All at once, so that they differ.
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let peers = listeners.map(|listener| listener.local_addr().unwrap().to_string());
    let mut nodes = Vec::new();
    for (number, listen) in peers.iter().enumerate() {
        let timing = Timing {
            write_deadline: Duration::from_secs(1),
            ..Timing::default()
        };
        let node = Plenary::builder()
            .data(folder.path().join(number.to_string()))
            .listen(listen)
            .join(&peers)
            .timing(timing);
        nodes.push(node.start().await.unwrap());
    }
    for node in &nodes {
        node.node().ready(PATIENCE).await.unwrap();
    }
    (nodes, folder)
}

/// Leaves the first alone, so that nobody can write any more.
async fn leave(nodes: &[Plenary]) {
    for node in &nodes[1..] {
        node.node().stop().await.unwrap();
    }
}

/// Asks from a thread that may wait.
async fn ask(browser: &mut Browser, at: SocketAddr, method: &'static str, path: &str) -> Answer {
    let (mut asking, path) = (browser.clone(), path.to_owned());
    let (asked, answer) = tokio::task::spawn_blocking(move || {
        let answer = asking.ask(at, method, &path);
        (asking, answer)
    })
    .await
    .unwrap();
    *browser = asked;
    answer
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

mod in_actix_session {
    use super::*;
    use actix_session::config::{CookieContentSecurity, PersistentSession, TtlExtensionPolicy};
    use actix_session::storage::{LoadError, SessionKey, SessionStore};
    use actix_session::{Session, SessionExt, SessionMiddleware};
    use actix_web::cookie::{Key, time};
    use actix_web::web::{Query, get, post, resource, scope};
    use actix_web::{App, HttpResponse, HttpServer, Result, guard};
    use plenary::edge::actix_session::Store;
    use plenary_frameworks::{Ask, SECRET};
    use std::collections::HashMap;

    fn key(text: &str) -> SessionKey {
        text.to_owned().try_into().unwrap()
    }

    #[tokio::test]
    async fn loading_a_missing_session_returns_none() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        assert!(store.load(&key(&"a".repeat(64))).await.unwrap().is_none());
        assert!(store.load(&key("no key: ../%")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn loading_an_invalid_session_state_returns_deserialization_error() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions()).reading_redis(str::to_owned);
        let name = "b".repeat(64);
        node.plenary
            .cache()
            .set(&name, "random-thing-which-is-not-json")
            .await
            .unwrap();
        let loaded = store.load(&key(&name)).await;
        assert!(matches!(loaded, Err(LoadError::Deserialization(_))));
        assert!(
            node.plenary.cache().exists(&name).await.unwrap(),
            "it is somebody else's"
        );
    }

    #[tokio::test]
    async fn updating_of_an_expired_state_is_handled_gracefully_or_refused() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let (gone, ttl) = ("c".repeat(64), time::Duration::seconds(1));
        assert!(store.update(key(&gone), HashMap::new(), &ttl).await.is_err());
        store.update_ttl(&key(&gone), &ttl).await.unwrap();
        store.delete(&key(&gone)).await.unwrap();
        let anew = store
            .starting_anew()
            .update(key(&gone), HashMap::new(), &ttl)
            .await
            .unwrap();
        assert_ne!(anew.as_ref(), gone);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_page_is_no_error_where_its_session_cannot_be_renewed() {
        let (nodes, _folder) = three().await;
        let store = Store::new(nodes[0].sessions());
        let state = HashMap::from([("user".to_owned(), "\"ada\"".to_owned())]);
        let key = store.save(state, &time::Duration::minutes(1)).await.unwrap();
        leave(&nodes).await;
        assert!(store.load(&key).await.unwrap().is_some());
        store.update_ttl(&key, &time::Duration::hours(1)).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_too_large_for_a_session_stays_where_it_was() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions()).reading_redis(str::to_owned);
        let name = "d".repeat(64);
        let state = HashMap::from([("large".to_owned(), "x".repeat(2 << 20))]);
        let json = serde_json::to_string(&state).unwrap();
        node.plenary.cache().set(&name, &json).await.unwrap();
        assert!(store.load(&key(&name)).await.is_err());
        assert_eq!(node.plenary.cache().get(&name).await.unwrap().unwrap(), json);
    }

    #[tokio::test]
    async fn a_session_from_redis_keeps_its_life_and_is_changed_or_ended_before_it_is_loaded() {
        let node = node().await;
        let (cache, sessions) = (node.plenary.cache(), node.plenary.sessions());
        let store = Store::new(sessions.clone()).reading_redis(|key| format!("site:{key}"));
        let json = r#"{"user":"\"ada\"","n":"1"}"#;
        let names: Vec<_> = ["e", "f", "g"].map(|letter| letter.repeat(64)).into();
        for name in &names {
            let life = Duration::from_secs(600);
            cache.set_for(format!("site:{name}"), json, life).await.unwrap();
        }
        let before = node.plenary.node().now();
        let loaded = store.load(&key(&names[0])).await.unwrap().unwrap();
        assert_eq!(loaded["user"], "\"ada\"");
        let deadline = |id: String| {
            let sessions = sessions.clone();
            async move {
                sessions
                    .load(&id.parse().unwrap())
                    .await
                    .unwrap()
                    .unwrap()
                    .deadline()
                    .unwrap()
            }
        };
        let left = deadline(names[0].clone()).await - before;
        assert!((590_000..=600_000).contains(&left), "{left}");
        let (hour, mut state) = (time::Duration::hours(1), loaded);
        state.insert("n".to_owned(), "2".to_owned());
        store.update(key(&names[1]), state.clone(), &hour).await.unwrap();
        assert_eq!(store.load(&key(&names[1])).await.unwrap().unwrap(), state);
        let left = deadline(names[1].clone()).await - before;
        assert!(left >= 3_600_000, "{left}");
        store.delete(&key(&names[2])).await.unwrap();
        assert!(store.load(&key(&names[2])).await.unwrap().is_none());
        for name in &names {
            assert!(!cache.exists(format!("site:{name}")).await.unwrap());
        }
    }

    async fn serve(store: Store, policy: CookieContentSecurity, ttl: TtlExtensionPolicy) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = HttpServer::new(move || {
            let lifecycle = PersistentSession::default()
                .session_ttl(time::Duration::days(7))
                .session_ttl_extension_policy(ttl.clone());
            let sessions = SessionMiddleware::builder(store.clone(), Key::from(SECRET))
                .cookie_name("test-session".into())
                .cookie_content_security(policy)
                .session_lifecycle(lifecycle)
                .build();
            let known =
                guard::fn_guard(|context| context.get_session().get::<String>("user_id").unwrap().is_some());
            App::new()
                .wrap(sessions)
                .service(resource("/").route(get().to(index)))
                .service(resource("/do_something").route(post().to(do_something)))
                .service(resource("/login").route(post().to(login)))
                .service(resource("/logout").route(post().to(logout)))
                .service(
                    scope("/protected")
                        .guard(known)
                        .service(resource("/count").route(get().to(index))),
                )
        });
        let server = server.workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        at
    }

    fn state(session: &Session) -> Result<String> {
        let user: Option<String> = session.get("user_id")?;
        let counter: i32 = session.get("counter")?.unwrap_or(0);
        Ok(format!("{} {counter}", user.unwrap_or_default()))
    }

    async fn index(session: Session) -> Result<String> {
        state(&session)
    }

    async fn do_something(session: Session) -> Result<String> {
        let counter: i32 = session.get("counter")?.unwrap_or(0);
        session.insert("counter", counter + 1)?;
        state(&session)
    }

    async fn login(session: Session, ask: Query<Ask>) -> Result<String> {
        session.insert("user_id", &ask.user)?;
        session.renew();
        state(&session)
    }

    async fn logout(session: Session) -> Result<HttpResponse> {
        if session.get::<String>("user_id")?.is_some() {
            session.purge();
        }
        Ok(HttpResponse::Ok().finish())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_acceptance_suite() {
        let node = node().await;
        for policy in [CookieContentSecurity::Signed, CookieContentSecurity::Private] {
            let store = Store::new(node.plenary.sessions());
            let at = serve(store, policy, TtlExtensionPolicy::OnStateChanges).await;
            let mut browser = Browser::default();
            assert_eq!(ask(&mut browser, at, "GET", "/protected/count").await.status, 404);
            let answer = ask(&mut browser, at, "GET", "/").await;
            assert_eq!((answer.body.as_str(), answer.set.len()), (" 0", 0));
            let answer = ask(&mut browser, at, "POST", "/do_something").await;
            assert_eq!(answer.body, " 1");
            assert!(answer.raw[0].contains("max-age=604800"), "{:?}", answer.raw);
            let answer = ask(&mut browser, at, "GET", "/").await;
            assert_eq!((answer.body.as_str(), answer.set.len()), (" 1", 0));
            let answer = ask(&mut browser, at, "POST", "/do_something").await;
            assert_eq!(answer.body, " 2");
            assert!(answer.raw[0].contains("max-age=604800"), "{:?}", answer.raw);
            let before = browser.clone();
            assert_eq!(
                ask(&mut browser, at, "POST", "/login?user=ferris").await.body,
                "ferris 2"
            );
            assert_ne!(before.cookies, browser.cookies);
            assert_eq!(ask(&mut browser, at, "GET", "/").await.body, "ferris 2");
            assert_eq!(
                ask(&mut browser, at, "POST", "/do_something").await.body,
                "ferris 3"
            );
            assert_eq!(
                ask(&mut browser, at, "GET", "/protected/count").await.body,
                "ferris 3"
            );
            let answer = ask(&mut before.clone(), at, "GET", "/").await;
            assert_eq!((answer.body.as_str(), answer.set.len()), (" 0", 0));
            let mut ended = browser.clone();
            let answer = ask(&mut browser, at, "POST", "/logout").await;
            assert!(
                answer.set[0].2 && answer.raw[0].contains("path=/"),
                "{:?}",
                answer.raw
            );
            let answer = ask(&mut ended, at, "GET", "/").await;
            assert_eq!((answer.body.as_str(), answer.set.len()), (" 0", 0));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn expiration_is_always_refreshed_if_configured_to_refresh_on_every_request() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let at = serve(
            store,
            CookieContentSecurity::Private,
            TtlExtensionPolicy::OnEveryRequest,
        )
        .await;
        let mut browser = Browser::default();
        for path in ["/do_something", "/do_something"] {
            ask(&mut browser, at, "POST", path).await;
            let answer = ask(&mut browser, at, "GET", "/").await;
            assert!(answer.raw[0].contains("max-age=604800"), "{:?}", answer.raw);
        }
    }
}

mod in_poem {
    use super::*;
    use plenary::edge::poem::{IDLE_TIMEOUT, Store};
    use poem::listener::TcpAcceptor;
    use poem::session::{CookieConfig, ServerSession, Session, SessionStorage};
    use poem::web::Path;
    use poem::{EndpointExt, Route, Server, handler};
    use serde_json::Value;
    use std::collections::BTreeMap;
    use tokio::sync::oneshot;

    #[handler]
    fn index(Path(action): Path<i32>, session: &Session) {
        let is = |a, b, c| {
            let found = ["a", "b", "c"].map(|name| session.get::<i32>(name));
            assert_eq!(found, [a, b, c]);
        };
        match action {
            1 => {
                session.set("a", 10);
                session.set("b", 20);
            }
            2 => {
                is(Some(10), Some(20), None);
                session.set("c", 30);
            }
            3 => {
                is(Some(10), Some(20), Some(30));
                session.remove("b");
            }
            4 => {
                is(Some(10), None, Some(30));
                session.clear();
            }
            5 => {
                assert!(session.is_empty());
                session.purge();
            }
            6 => session.renew(),
            7 => is(Some(10), Some(20), Some(30)),
            _ => {}
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_session_of_its_own_tests() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let app = Route::new()
            .at("/:action", index)
            .with(ServerSession::new(CookieConfig::default(), store));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(app));
        let mut browser = Browser::default();
        assert_eq!(ask(&mut browser, at, "GET", "/0").await.status, 200);
        assert_eq!(browser.cookies, Cookies::new());
        for action in [1, 2, 7, 6, 3, 4, 5] {
            let answer = ask(&mut browser, at, "GET", &format!("/{action}")).await;
            assert_eq!(answer.status, 200, "{action}: {answer:?}");
        }
        assert_eq!(browser.cookies, Cookies::new());
    }

    #[tokio::test]
    async fn timeout() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let values = BTreeMap::from([("value".to_owned(), Value::from("1"))]);
        let (lives, began) = ([("a", 1_000), ("b", 500), ("c", 1_500)], Instant::now());
        for (id, life) in lives {
            let life = Some(Duration::from_millis(life));
            store.update_session(id, &values, life).await.unwrap();
        }
        for (id, life) in [lives[1], lives[0], lives[2]] {
            until("it has ended", async || {
                store.load_session(id).await.unwrap().is_none()
            })
            .await;
            assert!(
                began.elapsed() >= Duration::from_millis(life),
                "{id}: {:?}",
                began.elapsed()
            );
        }
    }

    #[tokio::test]
    async fn a_session_whose_cookie_has_no_age_ends_after_a_day_without_a_change() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        store.update_session("id", &BTreeMap::new(), None).await.unwrap();
        let id = "id".parse().unwrap();
        let session = store.sessions().peek(&id).await.unwrap().unwrap();
        assert_eq!(session.idle_timeout(), IDLE_TIMEOUT);
    }

    #[tokio::test]
    async fn one_id_created_many_times_at_once_is_one_session() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let created = (0..MANY).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let values = BTreeMap::from([("number".to_owned(), Value::from(number))]);
                store.update_session("the-same", &values, None).await
            })
        });
        for created in created.collect::<Vec<_>>() {
            created.await.unwrap().unwrap();
        }
        let found = store.load_session("the-same").await.unwrap().unwrap();
        assert!(found["number"].as_u64().unwrap() < MANY as u64);
        assert_eq!(store.sessions().count(|_| true).await.unwrap(), 1);
    }

    /// Two instances, as far as stores go: what one has loaded the other does not know.
    #[tokio::test]
    async fn a_request_changes_what_it_has_changed_and_undoes_nothing_else() {
        let node = node().await;
        let (here, there) = (
            Store::new(node.plenary.sessions()),
            Store::new(node.plenary.sessions()),
        );
        let values = |names: &[&str]| -> BTreeMap<String, Value> {
            names
                .iter()
                .map(|name| ((*name).to_owned(), Value::from(*name)))
                .collect()
        };
        here.update_session("id", &values(&["a", "b"]), None)
            .await
            .unwrap();
        // Each loads now, and saves when it is told to.
        let request = async |store: &Store, save: &[&str]| {
            let (store, entries) = (store.clone(), values(save));
            let (loaded, has_loaded) = oneshot::channel();
            let (go, gone) = oneshot::channel();
            let request = tokio::spawn(async move {
                loaded.send(store.load_session("id").await.unwrap()).unwrap();
                gone.await.unwrap();
                store.update_session("id", &entries, None).await.unwrap();
            });
            assert_eq!(has_loaded.await.unwrap(), Some(values(&["a", "b"])));
            async move || {
                go.send(()).unwrap();
                request.await.unwrap();
            }
        };
        let look = request(&here, &["a", "b"]).await;
        let change = request(&here, &["b", "d"]).await;
        let other = request(&there, &["a", "b", "c"]).await;
        other().await;
        // A page that was only looked at.
        look().await;
        let found = here.load_session("id").await.unwrap();
        assert_eq!(found, Some(values(&["a", "b", "c"])));
        // It removes `a` and sets `d`.
        change().await;
        let found = there.load_session("id").await.unwrap();
        assert_eq!(found, Some(values(&["b", "c", "d"])));
    }

    #[tokio::test]
    async fn a_save_of_what_was_loaded_and_has_ended_is_told_and_changes_nothing() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let values = BTreeMap::from([("user".to_owned(), Value::from("ada"))]);
        store.update_session("id", &values, None).await.unwrap();
        assert_eq!(store.load_session("id").await.unwrap(), Some(values.clone()));
        store.remove_session("id").await.unwrap();
        // Another request with the dead cookie, before the late one saves.
        assert_eq!(store.load_session("id").await.unwrap(), None);
        assert!(store.update_session("id", &values, None).await.is_err());
        assert_eq!(store.load_session("id").await.unwrap(), None);
    }
}

mod in_axum_session {
    use super::*;
    use axum_session::{DatabaseError, DatabasePool};
    use plenary::edge::axum_session::Store;
    use std::time::SystemTime;

    fn in_an_hour() -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() + 3600
    }

    #[tokio::test]
    async fn its_contract() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        store.initiate("sessions").await.unwrap();
        assert_eq!(store.load("id", "sessions").await.unwrap(), None);
        assert!(!store.exists("id", "sessions").await.unwrap());
        for (id, table) in [("id", "sessions"), ("id2", "sessions"), ("id3", "others")] {
            store.store(id, "sealed text", in_an_hour(), table).await.unwrap();
        }
        assert_eq!(
            store.load("id", "sessions").await.unwrap().as_deref(),
            Some("sealed text")
        );
        assert_eq!(store.count("sessions").await.unwrap(), 2);
        assert!(store.delete_by_expiry("sessions").await.unwrap().is_empty());
        store.delete_one_by_id("id2", "sessions").await.unwrap();
        assert!(!store.exists("id2", "sessions").await.unwrap());
        store.delete_all("sessions").await.unwrap();
        assert_eq!(store.count("sessions").await.unwrap(), 0);
        assert_eq!(store.count("others").await.unwrap(), 1);
        let ids = store.get_ids("sessions").await;
        assert!(matches!(ids, Err(DatabaseError::GenericNotSupportedError(_))));
    }

    #[tokio::test]
    async fn the_same_session_in_another_order_is_no_change() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let texts = [
            r#"{"data":{"a":"1","b":"2"},"longterm":false}"#,
            r#"{"longterm":false,"data":{"b":"2","a":"1"}}"#,
        ];
        for text in texts {
            store.store("id", text, in_an_hour(), "sessions").await.unwrap();
        }
        let session = store
            .sessions()
            .load(&"id".parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(session.version(), 1);
    }

    /// Another instance's request, late: it must not write into the session that the dead cookie's id began since.
    #[tokio::test]
    async fn a_late_save_does_not_reach_a_session_that_was_given_the_same_id() {
        let node = node().await;
        let (here, there) = (
            Store::new(node.plenary.sessions()),
            Store::new(node.plenary.sessions()),
        );
        here.store("id", "ada's", in_an_hour(), "sessions").await.unwrap();
        assert!(here.load("id", "sessions").await.unwrap().is_some());
        there.delete_one_by_id("id", "sessions").await.unwrap();
        assert!(there.load("id", "sessions").await.unwrap().is_none());
        there
            .store("id", "nobody's", in_an_hour(), "sessions")
            .await
            .unwrap();
        here.store("id", "ada's, late", in_an_hour(), "sessions")
            .await
            .unwrap();
        assert_eq!(
            there.load("id", "sessions").await.unwrap().as_deref(),
            Some("nobody's")
        );
    }
}

mod in_salvo {
    use super::*;
    use plenary::edge::salvo::Store;
    use plenary_frameworks::SECRET;
    use salvo::conn::tcp::TcpAcceptor;
    use salvo::prelude::*;
    use salvo::session::{Session, SessionDepotExt, SessionHandler, SessionStore};

    #[handler]
    async fn login(req: &mut Request, depot: &mut Depot, res: &mut Response) {
        let mut session = Session::new();
        session
            .insert("username", req.query::<String>("username").unwrap())
            .unwrap();
        depot.set_session(session);
        res.render(Redirect::other("/"));
    }

    #[handler]
    async fn logout(depot: &mut Depot, res: &mut Response) {
        if let Some(session) = depot.session_mut() {
            session.remove("username");
        }
        res.render(Redirect::other("/"));
    }

    #[handler]
    async fn home(depot: &mut Depot, res: &mut Response) {
        let user = depot
            .session()
            .and_then(|session| session.get::<String>("username"));
        res.render(user.unwrap_or_else(|| "home".to_owned()));
    }

    #[handler]
    async fn destroy(depot: &mut Depot) {
        depot.session_mut().unwrap().destroy();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn login_home_logout_destroy() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let sessions = SessionHandler::builder(store.clone(), SECRET).build().unwrap();
        let router = Router::new()
            .hoop(sessions)
            .get(home)
            .push(Router::with_path("login").post(login))
            .push(Router::with_path("logout").get(logout))
            .push(Router::with_path("destroy").get(destroy));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(Server::new(TcpAcceptor::try_from(listener).unwrap()).serve(router));
        let mut browser = Browser::default();
        assert_eq!(
            ask(&mut browser, at, "POST", "/login?username=salvo")
                .await
                .status,
            303
        );
        assert_eq!(ask(&mut browser, at, "GET", "/").await.body, "salvo");
        assert_eq!(ask(&mut Browser::default(), at, "GET", "/").await.body, "home");
        assert_eq!(ask(&mut browser, at, "GET", "/logout").await.status, 303);
        assert_eq!(ask(&mut browser, at, "GET", "/").await.body, "home");
        let mut ended = browser.clone();
        assert_eq!(ask(&mut browser, at, "GET", "/destroy").await.status, 200);
        assert_eq!(browser.cookies, Cookies::new());
        assert_eq!(ask(&mut ended, at, "GET", "/").await.body, "home");
        store.clear_store().await.unwrap();
        assert_eq!(store.sessions().count(|_| true).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_session_ends_when_it_was_to_however_often_it_is_saved() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let (mut session, life) = (Session::new(), Duration::from_secs(100));
        session.expire_in(life);
        let cookie = store.store_session(session).await.unwrap().unwrap();
        for number in 0..50 {
            let mut session = store.load_session(cookie.clone()).await.unwrap().unwrap();
            let left = session.expires_in().unwrap();
            assert!(left <= life, "{left:?} after {number} saves");
            session.insert("number", number).unwrap();
            store.store_session(session).await.unwrap();
        }
    }

    #[tokio::test]
    async fn its_contract() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let mut session = Session::new();
        session.expire_in(Duration::from_secs(60));
        session.insert("key", "value").unwrap();
        let cloned = session.clone();
        let cookie = store.store_session(session).await.unwrap().unwrap();
        let mut loaded = store.load_session(cookie.clone()).await.unwrap().unwrap();
        assert_eq!(loaded.id(), cloned.id());
        assert_eq!(loaded.get::<String>("key").as_deref(), Some("value"));
        assert!(!loaded.is_expired() && !loaded.data_changed());
        assert!(loaded.expires_in().unwrap() > Duration::from_secs(50));
        loaded.insert("key", "other").unwrap();
        assert_eq!(store.store_session(loaded).await.unwrap(), None);
        let loaded = store.load_session(cookie.clone()).await.unwrap().unwrap();
        assert_eq!(loaded.get::<String>("key").as_deref(), Some("other"));
        store.destroy_session(loaded.clone()).await.unwrap();
        assert!(store.load_session(cookie).await.unwrap().is_none());
        assert!(
            store
                .load_session("no base64!".to_owned())
                .await
                .unwrap()
                .is_none()
        );
    }
}

mod in_rocket {
    use super::*;
    use plenary::edge::rocket::Store;
    use rocket::local::asynchronous::Client;
    use rocket_flex_session::error::SessionError;
    use rocket_flex_session::storage::SessionStorage;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
    struct Data {
        user_id: String,
        tags: Vec<String>,
    }

    fn data() -> Data {
        Data {
            user_id: "123".to_owned(),
            tags: vec!["a".to_owned()],
        }
    }

    #[tokio::test]
    async fn its_contract() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let client = Client::debug(rocket::build()).await.unwrap();
        let jar = client.cookies();
        let load = async |id: &str, ttl| SessionStorage::<Data>::load(&store, id, ttl, &jar).await;
        assert!(matches!(load("none", None).await, Err(SessionError::NotFound)));
        assert!(matches!(
            load("../no id", None).await,
            Err(SessionError::NotFound)
        ));
        store.save("id", data(), 100).await.unwrap();
        let (loaded, left) = load("id", None).await.unwrap();
        assert_eq!(loaded, data());
        assert!((95..=100).contains(&left), "{left}");
        // A rolling session is given its life anew.
        assert_eq!(load("id", Some(500)).await.unwrap().1, 500);
        let (_, left) = load("id", None).await.unwrap();
        assert!((495..=500).contains(&left), "{left}");
        let session = store
            .sessions()
            .load(&"id".parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(session.get("user_id").unwrap(), "\"123\"");
        store.delete("id", data()).await.unwrap();
        // Another request with the dead cookie, before one saves that has loaded it.
        assert!(matches!(load("id", None).await, Err(SessionError::NotFound)));
        assert!(matches!(
            store.save("id", data(), 100).await,
            Err(SessionError::NotFound)
        ));
        assert!(matches!(load("id", None).await, Err(SessionError::NotFound)));
    }

    #[tokio::test]
    async fn a_session_that_does_not_roll_ends_when_it_was_to_however_often_it_is_saved() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let client = Client::debug(rocket::build()).await.unwrap();
        let jar = client.cookies();
        store.save("id", data(), 100).await.unwrap();
        for number in 0..50 {
            let (mut data, left): (Data, u32) = store.load("id", None, &jar).await.unwrap();
            assert!(left <= 100, "{left} s after {number} saves");
            data.tags.push(number.to_string());
            store.save("id", data, left).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_session_that_rolls_is_there_also_where_it_cannot_be_renewed() {
        let (nodes, _folder) = three().await;
        let store = Store::new(nodes[0].sessions());
        let client = Client::debug(rocket::build()).await.unwrap();
        let jar = client.cookies();
        store.save("id", data(), 100).await.unwrap();
        leave(&nodes).await;
        let (loaded, _): (Data, u32) = store.load("id", Some(500), &jar).await.unwrap();
        assert_eq!(loaded, data());
    }

    #[tokio::test]
    async fn what_is_no_object_is_kept_as_well() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let client = Client::debug(rocket::build()).await.unwrap();
        let jar = client.cookies();
        store.save("text", "active".to_owned(), 100).await.unwrap();
        let (text, _): (String, u32) = store.load("text", None, &jar).await.unwrap();
        assert_eq!(text, "active");
        let odd = std::collections::BTreeMap::from([(String::new(), 1), ("a".to_owned(), 2)]);
        store.save("odd", odd.clone(), 100).await.unwrap();
        let (loaded, _): (std::collections::BTreeMap<String, i32>, u32) =
            store.load("odd", None, &jar).await.unwrap();
        assert_eq!(loaded, odd);
    }

    #[tokio::test]
    async fn expiry() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let client = Client::debug(rocket::build()).await.unwrap();
        let jar = client.cookies();
        let began = Instant::now();
        store.save("id", data(), 1).await.unwrap();
        until("it has ended", async || {
            SessionStorage::<Data>::load(&store, "id", None, &jar)
                .await
                .is_err()
        })
        .await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

mod in_tower_sessions {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use plenary::edge::tower_sessions::Store;
    use std::collections::{HashMap, HashSet};
    use time::OffsetDateTime;
    use tower_sessions::session::{Id, Record};
    use tower_sessions::{Session, SessionManagerLayer, SessionStore};

    async fn site(store: Store) -> SocketAddr {
        let app = Router::new()
            .route("/", get(async |_: Session| "Hello, world!"))
            .route(
                "/insert",
                get(async |session: Session| session.insert("foo", 42).await.unwrap()),
            )
            .route(
                "/get",
                get(async |session: Session| format!("{:?}", session.get::<usize>("foo").await.unwrap())),
            )
            .route(
                "/remove",
                get(async |session: Session| {
                    session.remove::<usize>("foo").await.unwrap();
                }),
            )
            .route(
                "/cycle_id",
                get(async |session: Session| session.cycle_id().await.unwrap()),
            )
            .route(
                "/flush",
                get(async |session: Session| session.flush().await.unwrap()),
            )
            .layer(SessionManagerLayer::new(store));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await });
        at
    }

    fn with_id(id: &str) -> Browser {
        Browser {
            cookies: Cookies::from([("id".to_owned(), id.to_owned())]),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_routes_of_its_own_tests() {
        let node = node().await;
        let at = site(Store::new(node.plenary.sessions())).await;
        let nobody = Browser::default();
        assert!(ask(&mut nobody.clone(), at, "GET", "/").await.set.is_empty());
        let bogus = "AAAAAAAAAAAAAAAAAAAAAA";
        let answer = ask(&mut with_id(bogus), at, "GET", "/insert").await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.set[0].1, bogus);
        let answer = ask(&mut with_id("malformed"), at, "GET", "/").await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.set[0].1, "malformed");
        let mut browser = nobody.clone();
        let answer = ask(&mut browser, at, "GET", "/insert").await;
        for part in ["id=", "httponly", "samesite=strict", "secure", "path=/"] {
            assert!(answer.raw[0].contains(part), "{part}: {:?}", answer.raw);
        }
        assert_eq!(ask(&mut browser, at, "GET", "/get").await.body, "Some(42)");
        assert_eq!(ask(&mut nobody.clone(), at, "GET", "/get").await.body, "None");
        let before = browser.cookies.clone();
        ask(&mut browser, at, "GET", "/cycle_id").await;
        assert_ne!(browser.cookies, before);
        assert_eq!(ask(&mut browser, at, "GET", "/get").await.body, "Some(42)");
        ask(&mut browser, at, "GET", "/remove").await;
        assert_eq!(ask(&mut browser, at, "GET", "/get").await.body, "None");
        ask(&mut browser, at, "GET", "/insert").await;
        let answer = ask(&mut browser, at, "GET", "/flush").await;
        assert!(answer.raw[0].contains("max-age=0") && answer.raw[0].contains("path=/"));
        assert_eq!(browser.cookies, Cookies::new());
    }

    #[tokio::test]
    async fn one_id_created_many_times_at_once_becomes_as_many_sessions() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions());
        let id = Id::default();
        let created = (0..MANY).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut record = Record {
                    id,
                    data: HashMap::from([("number".to_owned(), number.into())]),
                    expiry_date: OffsetDateTime::now_utc() + Duration::from_secs(60),
                };
                store.create(&mut record).await.unwrap();
                record
            })
        });
        let mut ids = HashSet::new();
        for created in created.collect::<Vec<_>>() {
            let record = created.await.unwrap();
            assert!(ids.insert(record.id));
            assert_eq!(store.load(&record.id).await.unwrap().unwrap().data, record.data);
        }
    }

    #[tokio::test]
    async fn a_name_that_somebody_else_uses_is_not_touched() {
        let node = node().await;
        let store = Store::new(node.plenary.sessions()).reading_redis();
        let (id, cache) = (Id::default(), node.plenary.cache());
        cache.set(id.to_string(), "somebody else's").await.unwrap();
        assert!(store.load(&id).await.is_err());
        store.delete(&id).await.unwrap();
        cache
            .execute(["RPUSH".to_owned(), Id(7).to_string(), "a".to_owned()])
            .await
            .unwrap();
        assert!(store.load(&Id(7)).await.unwrap().is_none());
        store.delete(&Id(7)).await.unwrap();
        assert_eq!(
            cache.get(id.to_string()).await.unwrap().unwrap(),
            "somebody else's"
        );
        assert!(cache.exists(Id(7).to_string()).await.unwrap());
    }
}
