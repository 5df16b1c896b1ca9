//! The Rust server: axum and redis-rs. `polyglot HOST:PORT`; what it answers, and how the session is kept, stands in `../README.md`.
//!
//! Prints the port that it listens on, and ends when its standard input does.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hmac::{Hmac, KeyInit, Mac};
use redis::aio::ConnectionManager;
use redis::{RedisError, Value, cmd};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use std::collections::HashMap;
use std::io::Read;

/// Milliseconds without use after which a session ends.
const IDLE_MS: u64 = 20 * 60 * 1000;

/// Times that a change is tried when others change the session meanwhile.
const ATTEMPTS: usize = 32;

#[derive(Clone)]
struct App {
    redis: ConnectionManager,
    id_key: Vec<u8>,
}

/// A session as it was loaded.
struct Session {
    key: String,
    version: u64,
    items: HashMap<String, Vec<u8>>,
}

impl Session {
    fn user(&self) -> Option<String> {
        serde_json::from_slice(self.items.get("user")?).ok()
    }

    fn basket(&self) -> Vec<String> {
        let json = self.items.get("basket");
        json.and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or_default()
    }
}

impl App {
    /// Where the session with this id stands. Only a keyed hash of the id is stored: who reads the cache cannot log in.
    fn key_of(&self, id: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.id_key).expect("a key of any length");
        mac.update(id.as_bytes());
        format!("session:{}", hex(&mac.finalize().into_bytes()[..16]))
    }

    /// The session of a request; none if nobody is logged in, or not any more.
    ///
    /// Another server may have changed it through another node a moment ago: it is read as of now, in the round trip of the read itself.
    async fn load(&self, headers: &HeaderMap) -> Result<Option<Session>, Failed> {
        let Some(id) = session_id(headers) else {
            return Ok(None);
        };
        let key = self.key_of(&id);
        let mut both = redis::pipe();
        both.cmd("PLENARY").arg("FRESH").arg("linearizable").ignore();
        both.cmd("SESSION.LOAD").arg(&key);
        let (loaded,): (Option<HashMap<String, Value>>,) = both.query_async(&mut self.redis.clone()).await?;
        let Some(mut loaded) = loaded else {
            return Ok(None);
        };
        let mut part = |name| loaded.remove(name).unwrap_or(Value::Nil);
        let (version, items) = (
            redis::from_redis_value(part("version")),
            redis::from_redis_value(part("items")),
        );
        Ok(Some(Session {
            key,
            version: version.map_err(RedisError::from)?,
            items: items.map_err(RedisError::from)?,
        }))
    }
}

/// What could not be done; the request may be sent again.
struct Failed(RedisError);

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("rust: {}", self.0);
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

#[derive(Deserialize)]
struct Add {
    item: String,
}

async fn page(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failed> {
    Ok(match app.load(&headers).await? {
        Some(session) => {
            let (user, basket) = (session.user(), session.basket());
            Json(json!({"server": "rust", "user": user, "basket": basket})).into_response()
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    })
}

/// A login gets a fresh id, against session fixation; what was in the basket stays.
async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> Result<Response, Failed> {
    let mut bits = [0; 16];
    if let Err(error) = getrandom::fill(&mut bits) {
        eprintln!("rust: {error}");
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    }
    let id = hex(&bits);
    let (key, user) = (app.key_of(&id), json!(login.user).to_string());
    let mut redis = app.redis.clone();
    if let Some(session) = app.load(&headers).await? {
        let mut both = redis::pipe();
        both.atomic();
        both.cmd("SESSION.RENAME").arg(session.key).arg(&key).ignore();
        both.cmd("SESSION.SAVE")
            .arg(&key)
            .arg("*")
            .arg("OWNER")
            .arg(&login.user);
        both.arg("SET").arg(1).arg("user").arg(user).ignore();
        both.query_async::<()>(&mut redis).await?;
    } else {
        let mut create = cmd("SESSION.CREATE");
        create.arg(&key).arg(IDLE_MS).arg("OWNER").arg(&login.user);
        create
            .arg("ITEMS")
            .arg(2)
            .arg("user")
            .arg(user)
            .arg("basket")
            .arg("[]");
        create.query_async::<()>(&mut redis).await?;
    }
    let cookie = format!("sid={id}; Path=/; HttpOnly; SameSite=Lax");
    Ok(([(header::SET_COOKIE, cookie)], "welcome\n").into_response())
}

/// A change is saved only on the version that was read: two servers that change the basket at once both get what they put in.
async fn add(State(app): State<App>, headers: HeaderMap, Form(add): Form<Add>) -> Result<Response, Failed> {
    for _ in 0..ATTEMPTS {
        let Some(session) = app.load(&headers).await? else {
            return Ok(StatusCode::UNAUTHORIZED.into_response());
        };
        let mut basket = session.basket();
        basket.push(add.item.clone());
        let mut save = cmd("SESSION.SAVE");
        save.arg(&session.key).arg(session.version);
        save.arg("SET")
            .arg(1)
            .arg("basket")
            .arg(json!(basket).to_string());
        match save.query_async::<()>(&mut app.redis.clone()).await {
            Ok(()) => return Ok("it is in\n".into_response()),
            Err(error) if error.code() == Some("STALESESSION") => {}
            Err(error) if error.code() == Some("NOSESSION") => {
                return Ok(StatusCode::UNAUTHORIZED.into_response());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(StatusCode::CONFLICT.into_response())
}

async fn logout(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failed> {
    if let Some(id) = session_id(&headers) {
        cmd("SESSION.END")
            .arg(app.key_of(&id))
            .query_async::<()>(&mut app.redis.clone())
            .await?;
    }
    Ok(([(header::SET_COOKIE, "sid=; Path=/; Max-Age=0")], "good bye\n").into_response())
}

/// The id in the cookie, if it is one: 32 hexadecimal digits.
fn session_id(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies
        .flat_map(|cookie| cookie.split("; "))
        .filter_map(|pair| pair.split_once('='));
    let (_, id) = pairs.find(|(name, _)| *name == "sid")?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("polyglot HOST:PORT")?;
    let client = redis::Client::open(format!("redis://{address}"))?;
    let app = App {
        redis: client.get_connection_manager().await?,
        id_key: std::env::var("SESSION_ID_KEY")?.into_bytes(),
    };
    let router = Router::new()
        .route("/", get(page))
        .route("/login", post(login))
        .route("/basket", post(add))
        .route("/logout", post(logout))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let parent_gone = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = parent_gone => {}
    }
    Ok(())
}
