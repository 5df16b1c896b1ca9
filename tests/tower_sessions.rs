//! The session store under its contract, and under the real middleware with real HTTP requests at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use plenary::edge::tower_sessions::{Store, with_token};
use plenary::session::SessionError;
use plenary::{Freshness, Plenary, Token};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::Error as StoreError;
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};

/// How long a condition may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    plenary: Plenary,
    store: Store,
    _folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let plenary = Plenary::builder().data(folder.path()).start().await.unwrap();
    let store = Store::new(plenary.sessions());
    Fixture {
        plenary,
        store,
        _folder: folder,
    }
}

fn record(life: Duration) -> Record {
    let data = HashMap::from([
        ("user".to_owned(), json!("ada")),
        ("cart".to_owned(), json!({"books": [1, 2.5, null]})),
    ]);
    Record {
        id: Id::default(),
        data,
        expiry_date: OffsetDateTime::now_utc() + life,
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_was_created_is_loaded_with_every_kind_of_value() {
    let Fixture { store, .. } = fixture().await;
    let mut created = record(HOUR);
    created
        .data
        .insert("naïve \u{0} name".to_owned(), json!("\u{1f36a}"));
    store.create(&mut created).await.unwrap();
    let loaded = store.load(&created.id).await.unwrap().unwrap();
    assert_eq!(loaded.data, created.data);
    assert_eq!(loaded.id, created.id);
    let lost = created.expiry_date - loaded.expiry_date;
    assert!(
        lost >= time::Duration::ZERO && lost < time::Duration::milliseconds(1),
        "{lost}"
    );
}

#[tokio::test]
async fn create_takes_another_id_rather_than_overwrite() {
    let Fixture { store, .. } = fixture().await;
    let mut first = record(HOUR);
    store.create(&mut first).await.unwrap();
    let mut second = Record {
        data: HashMap::from([("user".to_owned(), json!("mallory"))]),
        ..first.clone()
    };
    store.create(&mut second).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(
        store.load(&first.id).await.unwrap().unwrap().data["user"],
        json!("ada")
    );
    assert_eq!(
        store.load(&second.id).await.unwrap().unwrap().data["user"],
        json!("mallory")
    );
}

#[tokio::test]
async fn a_save_replaces_all_items_and_the_deadline() {
    let Fixture { store, .. } = fixture().await;
    let mut saved = record(HOUR);
    store.create(&mut saved).await.unwrap();
    saved.data = HashMap::from([("theme".to_owned(), json!("dark"))]);
    saved.expiry_date += HOUR;
    store.save(&saved).await.unwrap();
    let loaded = store.load(&saved.id).await.unwrap().unwrap();
    assert_eq!(loaded.data, saved.data);
    assert!((saved.expiry_date - loaded.expiry_date) < time::Duration::milliseconds(1));
    saved.data.clear();
    store.save(&saved).await.unwrap();
    assert!(store.load(&saved.id).await.unwrap().unwrap().data.is_empty());
}

#[tokio::test]
async fn a_save_to_a_session_that_ended_is_told_and_does_not_bring_it_back() {
    let Fixture { store, .. } = fixture().await;
    let mut ended = record(HOUR);
    store.create(&mut ended).await.unwrap();
    store.delete(&ended.id).await.unwrap();
    store
        .delete(&ended.id)
        .await
        .expect("to end a session twice is no error");
    assert!(matches!(store.save(&ended).await, Err(StoreError::Backend(_))));
    assert!(store.load(&ended.id).await.unwrap().is_none());
    assert!(
        !store
            .touch(&ended.id, OffsetDateTime::now_utc() + HOUR)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_session_past_its_expiry_date_is_absent_and_a_save_to_it_is_told() {
    let Fixture { store, .. } = fixture().await;
    let mut short = record(Duration::from_secs(3));
    store.create(&mut short).await.unwrap();
    assert!(store.load(&short.id).await.unwrap().is_some());
    tokio::time::timeout(PATIENCE, async {
        while store.load(&short.id).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(
        OffsetDateTime::now_utc() >= short.expiry_date - Duration::from_millis(1),
        "it ended early"
    );
    assert!(matches!(store.save(&short).await, Err(StoreError::Backend(_))));
}

#[tokio::test]
async fn touch_moves_the_deadline_alone() {
    let Fixture { store, .. } = fixture().await;
    let mut touched = record(HOUR);
    store.create(&mut touched).await.unwrap();
    assert!(
        store
            .touch(&touched.id, touched.expiry_date + HOUR)
            .await
            .unwrap()
    );
    let loaded = store.load(&touched.id).await.unwrap().unwrap();
    assert_eq!(loaded.data, touched.data);
    assert!(loaded.expiry_date > touched.expiry_date + HOUR - Duration::from_millis(1));
}

#[tokio::test]
async fn compare_and_save_refuses_what_was_read_before_another_save() {
    let Fixture { store, .. } = fixture().await;
    let mut created = record(HOUR);
    store.create(&mut created).await.unwrap();
    let (mut here, version) = store.load_versioned(&created.id).await.unwrap().unwrap();
    let mut there = here.clone();
    here.data.insert("count".to_owned(), json!(1));
    let next = store.compare_and_save(&here, version).await.unwrap();
    assert!(next > version);
    there.data.insert("count".to_owned(), json!(7));
    match store.compare_and_save(&there, version).await {
        Err(SessionError::Stale { version }) => assert_eq!(version, next),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        store.load(&created.id).await.unwrap().unwrap().data["count"],
        json!(1)
    );
}

#[tokio::test]
async fn a_token_grows_with_what_a_request_did_and_a_made_up_one_costs_no_wait() {
    let Fixture { store, .. } = fixture().await;
    let mut created = record(HOUR);
    let (result, token) = with_token(Token::default(), store.create(&mut created)).await;
    result.unwrap();
    assert!(token > Token::default());
    let made_up = with_token(Token(u64::MAX), store.load(&created.id));
    let (loaded, _) = tokio::time::timeout(Duration::from_secs(4), made_up)
        .await
        .expect("no wait");
    assert!(loaded.unwrap().is_some());
    let linearizable = store.with_freshness(Freshness::Linearizable);
    assert!(linearizable.load(&created.id).await.unwrap().is_some());
}

#[tokio::test]
async fn an_item_that_another_program_set_to_no_json_is_an_error_and_not_an_empty_session() {
    let Fixture { store, plenary, .. } = fixture().await;
    let mut created = record(HOUR);
    store.create(&mut created).await.unwrap();
    let key = plenary
        .sessions()
        .key_of(&created.id.to_string().parse().unwrap());
    let key = std::str::from_utf8(&key).unwrap();
    plenary
        .cache()
        .execute(["SESSION.SAVE", key, "*", "SET", "1", "user", "{"].map(str::to_owned))
        .await
        .unwrap();
    assert!(matches!(
        store.load(&created.id).await,
        Err(StoreError::Decode(_))
    ));
}

// --- under the middleware ---------------------------------------------------------------------------------------

#[derive(Clone)]
struct App {
    store: Store,
    /// A `/slow` request says here that it has loaded its session …
    loaded: Arc<Notify>,
    /// … and waits here before it goes on.
    go_on: Arc<Notify>,
}

async fn login(session: Session) -> Result<(), StatusCode> {
    session.cycle_id().await.map_err(failed)?;
    session.insert("user", "ada").await.map_err(failed)
}

async fn whoami(session: Session) -> Result<String, StatusCode> {
    session
        .get::<String>("user")
        .await
        .map_err(failed)?
        .ok_or(StatusCode::UNAUTHORIZED)
}

async fn visit(session: Session) -> Result<(), StatusCode> {
    session.insert("seen", true).await.map_err(failed)
}

async fn slow(State(app): State<App>, session: Session) -> Result<(), StatusCode> {
    session.insert("slow", true).await.map_err(failed)?;
    app.loaded.notify_one();
    app.go_on.notified().await;
    Ok(())
}

async fn logout(session: Session) -> Result<(), StatusCode> {
    session.flush().await.map_err(failed)
}

/// Counts by compare-and-save: correct however many requests of one user run at once.
async fn count(State(app): State<App>, session: Session) -> Result<String, StatusCode> {
    let id = session.id().ok_or(StatusCode::UNAUTHORIZED)?;
    loop {
        let found = app.store.load_versioned(&id).await.map_err(failed)?;
        let (mut record, version) = found.ok_or(StatusCode::UNAUTHORIZED)?;
        let count = record
            .data
            .get("count")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0)
            + 1;
        record.data.insert("count".to_owned(), json!(count));
        match app.store.compare_and_save(&record, version).await {
            Ok(_) => return Ok(count.to_string()),
            Err(SessionError::Stale { .. }) => {}
            Err(other) => return Err(failed(other)),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The token travels in a header here.
async fn token(request: Request, next: Next) -> Response {
    let seen = request
        .headers()
        .get("plenary-token")
        .and_then(|text| text.to_str().ok()?.parse().ok());
    let (mut response, seen) = with_token(Token(seen.unwrap_or(0)), next.run(request)).await;
    response.headers_mut().insert("plenary-token", seen.0.into());
    response
}

struct Site {
    app: App,
    address: String,
    client: Client<HttpConnector, Body>,
    _fixture: Fixture,
}

async fn site() -> Site {
    let fixture = fixture().await;
    let app = App {
        store: fixture.store.clone(),
        loaded: Arc::default(),
        go_on: Arc::default(),
    };
    let expiry = Expiry::OnInactivity(time::Duration::hours(1));
    let router = Router::new()
        .route("/login", post(login))
        .route("/whoami", get(whoami))
        .route("/visit", post(visit))
        .route("/slow", post(slow))
        .route("/logout", post(logout))
        .route("/count", post(count))
        .layer(SessionManagerLayer::new(fixture.store.clone()).with_expiry(expiry))
        .layer(middleware::from_fn(token))
        .with_state(app.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Site {
        app,
        address,
        client: Client::builder(TokioExecutor::new()).build_http(),
        _fixture: fixture,
    }
}

struct Answer {
    status: StatusCode,
    cookie: Option<String>,
    token: u64,
    body: String,
}

impl Site {
    async fn ask(&self, method: &str, path: &str, cookie: Option<&str>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let response = self
            .client
            .request(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let first = |text: &str| text.split(';').next().unwrap().to_owned();
        let body = axum::body::to_bytes(Body::new(body), 1 << 20).await.unwrap();
        Answer {
            status: head.status,
            cookie: head
                .headers
                .get(header::SET_COOKIE)
                .map(|set| first(set.to_str().unwrap())),
            token: head.headers["plenary-token"].to_str().unwrap().parse().unwrap(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn login(&self) -> String {
        let answer = self.ask("POST", "/login", None).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.token > 0);
        answer.cookie.expect("a login sets the cookie")
    }
}

#[tokio::test]
async fn a_login_gets_a_new_id_and_the_old_one_is_dead() {
    let site = site().await;
    let first = site.login().await;
    let again = site.ask("POST", "/login", Some(&first)).await.cookie.unwrap();
    assert_ne!(first, again);
    assert_eq!(site.ask("GET", "/whoami", Some(&again)).await.body, "ada");
    assert_eq!(
        site.ask("GET", "/whoami", Some(&first)).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        site.ask("POST", "/logout", Some(&again)).await.status,
        StatusCode::OK
    );
    assert_eq!(
        site.ask("GET", "/whoami", Some(&again)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_request_that_outlives_its_session_is_answered_with_an_error_and_does_not_bring_it_back() {
    let site = site().await;
    let cookie = site.login().await;
    let slow = site.ask("POST", "/slow", Some(&cookie));
    let logout = async {
        site.app.loaded.notified().await;
        assert_eq!(
            site.ask("POST", "/logout", Some(&cookie)).await.status,
            StatusCode::OK
        );
        site.app.go_on.notify_one();
    };
    let (slow, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(slow, logout) })
        .await
        .unwrap();
    assert_eq!(slow.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        site.ask("GET", "/whoami", Some(&cookie)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_same_time_lose_no_count_by_compare_and_save_and_never_the_login() {
    const REQUESTS: usize = 64;
    let site = Arc::new(site().await);
    let cookie = site.login().await;
    let (one, two) = (site.clone(), site.clone());
    let ask = |site: Arc<Site>, path: &'static str, cookie: String| async move {
        site.ask("POST", path, Some(&cookie)).await
    };
    let counts = (0..REQUESTS).map(|_| tokio::spawn(ask(one.clone(), "/count", cookie.clone())));
    let mut seen: Vec<usize> = Vec::new();
    for request in counts.collect::<Vec<_>>() {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        seen.push(answer.body.parse().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=REQUESTS).collect::<Vec<_>>());
    let visits = (0..REQUESTS).map(|_| tokio::spawn(ask(two.clone(), "/visit", cookie.clone())));
    for request in visits.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(site.ask("GET", "/whoami", Some(&cookie)).await.body, "ada");
}
