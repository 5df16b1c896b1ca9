//! One copy of the web application: axum, tower-sessions, and a Plenary node in the same process.
//!
//! `POST /login user=NAME`, `POST /count` with an `Idempotency-Key`, `GET /`, `POST /logout`, `GET /status`;
//! `GET /key` says under which key the session stands, for who looks with a Redis client.

use axum::Router;
use axum::extract::{Form, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use plenary::edge::tower_sessions::{Store, with_token};
use plenary::session::SessionError;
use plenary::{Plenary, RespConfig, Token};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;
use tower_sessions::{Expiry, Session, SessionManagerLayer};

/// Attempts to count one request when others of the same user change the session at the same time.
const COUNT_ATTEMPTS: usize = 64;

/// The cookie that carries how far its user has seen.
const SEEN: &str = "seen";

/// Where one copy stands.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) data: PathBuf,
    pub(crate) http: String,
    pub(crate) peer: String,
    pub(crate) resp: String,
    pub(crate) join: Vec<String>,
}

/// What `GET /status` says of a copy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CopyStatus {
    pub(crate) ready: bool,
    pub(crate) leader: bool,
}

#[derive(Clone)]
struct App {
    plenary: Plenary,
    store: Store,
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

/// Serves until standard input ends: when the parent is gone, so is the copy.
pub(crate) async fn serve(copy: Copy) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Plenary::builder()
        .data(copy.data)
        .listen(copy.peer)
        .expect(copy.join.len())
        .join(copy.join)
        .resp(RespConfig::new(copy.resp));
    if let Ok(secret) = std::env::var("PLENARY_SECRET") {
        builder = builder.secret(secret);
    }
    let plenary = builder.start().await?;
    let store = Store::new(plenary.sessions());
    let sessions = SessionManagerLayer::new(store.clone())
        .with_secure(false) // plain HTTP on loopback
        .with_expiry(Expiry::OnInactivity(time::Duration::hours(1)));
    let app = Router::new()
        .route("/", get(page))
        .route("/login", post(login))
        .route("/count", post(count))
        .route("/logout", post(logout))
        .route("/key", get(key))
        .layer(sessions)
        .layer(middleware::from_fn(read_your_writes))
        .route("/status", get(status))
        .with_state(App {
            plenary: plenary.clone(),
            store,
        });
    let listener = tokio::net::TcpListener::bind(&copy.http).await?;
    let parent_gone = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        _ = parent_gone => {}
        fault = plenary.node().stopped() => return Err(format!("the node stopped: {fault:?}").into()),
    }
    Ok(plenary.stop().await?)
}

/// The user's token comes in a cookie and goes in a cookie, so every copy shows what this user did on another a moment ago.
async fn read_your_writes(request: Request, next: Next) -> Response {
    let cookies = request
        .headers()
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies
        .flat_map(|cookie| cookie.split("; "))
        .filter_map(|pair| pair.split_once('='));
    let token = pairs
        .find(|(name, _)| *name == SEEN)
        .and_then(|(_, value)| value.parse().ok());
    let (mut response, seen) = with_token(Token(token.unwrap_or(0)), next.run(request)).await;
    let cookie = format!("{SEEN}={}; Path=/; HttpOnly; SameSite=Strict", seen.0);
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A login by the book: a fresh id, then who it is.
async fn login(session: Session, Form(login): Form<Login>) -> Result<(), StatusCode> {
    session.cycle_id().await.map_err(unavailable)?;
    session.insert("count", 0).await.map_err(unavailable)?;
    session.insert("user", login.user).await.map_err(unavailable)
}

/// Who is logged in, and the count: `ada 17`.
async fn page(session: Session) -> Result<String, StatusCode> {
    let user = session
        .get::<String>("user")
        .await
        .map_err(unavailable)?
        .ok_or(StatusCode::UNAUTHORIZED)?;
    let count = session
        .get::<u64>("count")
        .await
        .map_err(unavailable)?
        .unwrap_or(0);
    Ok(format!("{user} {count}"))
}

/// Counts each `Idempotency-Key` once. The session remembers the last key it counted, and the save is refused if the session was changed
/// since it was read: a retry is recognised, and a first attempt that comes late cannot undo what came after it.
async fn count(State(app): State<App>, session: Session, headers: HeaderMap) -> Result<String, StatusCode> {
    let key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok()?.parse::<u64>().ok());
    let (key, id) = (
        key.ok_or(StatusCode::BAD_REQUEST)?,
        session.id().ok_or(StatusCode::UNAUTHORIZED)?,
    );
    for _ in 0..COUNT_ATTEMPTS {
        let found = app.store.load_versioned(&id).await.map_err(unavailable)?;
        let (mut record, version) = found.ok_or(StatusCode::UNAUTHORIZED)?;
        let number = |name: &str| record.data.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (counted, last) = (number("count"), number("last"));
        if key <= last {
            return Ok(counted.to_string());
        }
        record.data.insert("count".to_owned(), json!(counted + 1));
        record.data.insert("last".to_owned(), json!(key));
        match app.store.compare_and_save(&record, version).await {
            Ok(_) => return Ok((counted + 1).to_string()),
            Err(SessionError::Stale { .. }) => {}
            Err(SessionError::Gone) => return Err(StatusCode::UNAUTHORIZED),
            Err(other) => return Err(unavailable(other)),
        }
    }
    Err(StatusCode::CONFLICT)
}

async fn logout(session: Session) -> Result<(), StatusCode> {
    session.flush().await.map_err(unavailable)
}

/// A hash of the id: the id itself, which opens the session, is stored nowhere.
async fn key(State(app): State<App>, session: Session) -> Result<Vec<u8>, StatusCode> {
    let id = session.id().ok_or(StatusCode::UNAUTHORIZED)?;
    let id = id.to_string().parse().map_err(unavailable)?;
    Ok(app.plenary.sessions().key_of(&id).to_vec())
}

async fn status(State(app): State<App>) -> Result<String, StatusCode> {
    let status = app.plenary.node().status();
    let leader = status.leader_id == Some(status.node_id);
    serde_json::to_string(&CopyStatus {
        ready: status.ready,
        leader,
    })
    .map_err(unavailable)
}

/// The node could not answer now (no leader yet, unknown outcome …): the request may be sent again with the same key.
fn unavailable(_: impl std::fmt::Display) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}
