//! From sessions in a Redis to embedded ones, with users at it all the time: nobody is logged out, and nothing that was saved is lost.
//!
//! A site with the real store of its framework in a real redis-server; users who log in, save and look. What is in Redis is copied to Plenary's
//! endpoint while they go on; then requests are held for the moment in which the rest is copied and the site is another one: three instances with
//! Plenary's store, which serve the same cookies.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use actix_session::storage::RedisSessionStore;
use plenary::{Plenary, RespConfig};
use plenary_frameworks::client::{Browser, until};
use plenary_frameworks::{actix, tower};
use redis::Connection;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Users, and how many threads they share.
const USERS: usize = 24;
const THREADS: usize = 4;

/// Rounds of each user on the old site before it is left, and on the new one before the test ends.
const ROUNDS: usize = 3;

const HOUR: Duration = Duration::from_secs(3600);

/// How long nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

struct Redis {
    process: Child,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = free_address();
        let program = std::env::var("PLENARY_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let process = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &at.port().to_string()])
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                folder.path().to_str().unwrap(),
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("a redis-server: PLENARY_REDIS_SERVER says where");
        let redis = Self {
            process,
            at,
            _folder: folder,
        };
        until("Redis answers", || connection(at).is_some());
        redis
    }

    fn url(&self) -> String {
        format!("redis://{}", self.at)
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn connection(at: SocketAddr) -> Option<Connection> {
    redis::Client::open(format!("redis://{at}"))
        .ok()?
        .get_connection()
        .ok()
}

/// Three nodes of one cluster, each with a Redis endpoint.
async fn cluster(folder: &tempfile::TempDir) -> Vec<Plenary> {
    let peers: Vec<_> = (0..3).map(|_| free_address().to_string()).collect();
    let mut nodes = Vec::new();
    for (number, listen) in peers.iter().enumerate() {
        let node = Plenary::builder()
            .data(folder.path().join(number.to_string()))
            .listen(listen)
            .join(&peers)
            .resp(RespConfig::new("127.0.0.1:0"))
            .start();
        nodes.push(node.await.unwrap());
    }
    for node in &nodes {
        node.node().ready(PATIENCE).await.unwrap();
    }
    nodes
}

/// Where requests go; held for writing while nobody may ask.
struct Balancer {
    sites: RwLock<Vec<SocketAddr>>,
    /// Rounds on the site of now.
    rounds: AtomicUsize,
    stop: AtomicBool,
}

impl Balancer {
    fn ask(&self, browser: &mut Browser, turn: usize, method: &str, path: &str) -> String {
        let sites = self.sites.read().unwrap();
        let answer = browser.ask(sites[turn % sites.len()], method, path);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.body
    }

    /// One user at a time, round after round: saves a number, and looks whether it and the login are there.
    fn use_it(&self, users: &mut [(String, Browser)]) {
        let mut round = 0;
        while !self.stop.load(Ordering::SeqCst) {
            round += 1;
            for (name, browser) in &mut *users {
                // The same instance for a save and what follows it; another one for the next round.
                let turn = round;
                self.ask(browser, turn, "POST", &format!("/set?name=round&value={round}"));
                assert_eq!(
                    self.ask(browser, turn, "GET", "/get?name=round"),
                    round.to_string()
                );
                assert_eq!(self.ask(browser, turn, "GET", "/whoami"), *name);
                self.rounds.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// How what is in Redis comes to Plenary.
type Copy = fn(&mut Connection, SocketAddr);

/// `MIGRATE`: Redis sends it.
fn migrate(from: &mut Connection, to: SocketAddr) {
    for key in keys(from) {
        let done: String = redis::cmd("MIGRATE")
            .arg(to.ip().to_string())
            .arg(to.port())
            .arg((key, 0, 5_000, "COPY", "REPLACE"))
            .query(from)
            .unwrap();
        // It may have ended since its name was read.
        assert!(done == "OK" || done == "NOKEY", "{done}");
    }
}

/// `DUMP` and `RESTORE`: as a script of the operator has it.
fn dump_and_restore(from: &mut Connection, to: SocketAddr) {
    let mut to = connection(to).unwrap();
    for key in keys(from) {
        let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query(from).unwrap();
        let left: i64 = redis::cmd("PTTL").arg(&key).query(from).unwrap();
        let Some(dump) = dump else { continue };
        assert!(left > 0, "a session has a deadline");
        let done: String = redis::cmd("RESTORE")
            .arg((&key, left, dump, "REPLACE"))
            .query(&mut to)
            .unwrap();
        assert_eq!(done, "OK");
    }
}

fn keys(from: &mut Connection) -> BTreeSet<Vec<u8>> {
    redis::cmd("KEYS").arg("*").query(from).unwrap()
}

/// Lives of what the sessions are called in Redis, in milliseconds.
fn strings(at: SocketAddr) -> usize {
    let mut connection = connection(at).unwrap();
    let names = keys(&mut connection);
    let is_string = |name: &&Vec<u8>| {
        let kind: String = redis::cmd("TYPE").arg(name).query(&mut connection).unwrap();
        kind == "string"
    };
    names.iter().filter(is_string).count()
}

/// Users go on and on, and meanwhile their site changes.
fn switch(redis: &Redis, old: SocketAddr, nodes: &[Plenary], new: Vec<SocketAddr>, copy: Copy) {
    let mut users: Vec<_> = (0..USERS)
        .map(|number| {
            let (name, mut browser) = (format!("user{number}"), Browser::default());
            assert_eq!(
                browser.ask(old, "POST", &format!("/login?user={name}")).status,
                200
            );
            assert_eq!(
                browser
                    .ask(old, "POST", &format!("/set?name=cart&value=of-{name}"))
                    .status,
                200
            );
            (name, browser)
        })
        .collect();
    let balancer = Balancer {
        sites: RwLock::new(vec![old]),
        rounds: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    let here = nodes[0].resp_addr().unwrap();
    std::thread::scope(|scope| {
        for users in users.chunks_mut(USERS / THREADS) {
            scope.spawn(|| balancer.use_it(users));
        }
        let go_on = |what: &str| {
            balancer.rounds.store(0, Ordering::SeqCst);
            until(what, || balancer.rounds.load(Ordering::SeqCst) >= ROUNDS * USERS);
        };
        go_on("they use the old site");
        let mut from = connection(redis.at).unwrap();
        copy(&mut from, here);
        go_on("they still do");
        let mut sites = balancer.sites.write().unwrap();
        copy(&mut from, here);
        assert_eq!(strings(here), USERS, "all are here, as they were in Redis");
        *sites = new.clone();
        drop(sites);
        go_on("they use the new site");
        balancer.stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(
        strings(here),
        0,
        "what was turned into a session is no string any more"
    );
    for (name, browser) in &mut users {
        for at in &new {
            let cookies = browser.cookies.clone();
            until("what was in Redis is everywhere", || {
                let mut browser = Browser {
                    cookies: cookies.clone(),
                };
                browser.ask(*at, "GET", "/get?name=cart").body == format!("of-{name}")
                    && browser.whoami(*at).as_ref() == Some(name)
            });
        }
    }
}

/// A session that was copied and is first asked for by many at once, with the life that it had left; and one that is first ended.
fn first_asked_for(redis: &Redis, old: SocketAddr, nodes: &[Plenary], new: &[SocketAddr], copy: Copy) {
    let (mut ada, mut eve) = (Browser::default(), Browser::default());
    for (browser, name) in [(&mut ada, "ada"), (&mut eve, "eve")] {
        assert_eq!(
            browser.ask(old, "POST", &format!("/login?user={name}")).status,
            200
        );
    }
    copy(&mut connection(redis.at).unwrap(), nodes[0].resp_addr().unwrap());
    std::thread::scope(|scope| {
        for at in new.iter().cycle().take(12) {
            let mut browser = ada.clone();
            scope.spawn(move || assert_eq!(browser.whoami(*at).as_deref(), Some("ada")));
        }
    });
    let cookies = eve.cookies.clone();
    assert_eq!(eve.ask(new[0], "POST", "/logout").status, 200);
    for at in new {
        until("she is logged out", || {
            Browser {
                cookies: cookies.clone(),
            }
            .whoami(*at)
            .is_none()
        });
    }
}

async fn hold(redis: Redis, old: SocketAddr, nodes: Vec<Plenary>, new: Vec<SocketAddr>, copy: Copy) {
    tokio::task::spawn_blocking(move || {
        switch(&redis, old, &nodes, new.clone(), copy);
        first_asked_for(&redis, old, &nodes, &new, copy);
        nodes
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn actix_session() {
    let redis = Redis::start();
    let keygen = |key: &str| format!("site:{key}");
    let store = RedisSessionStore::builder(redis.url()).cache_keygen(keygen);
    let old = actix::serve(store.build().await.unwrap(), HOUR).await;
    let folder = tempfile::tempdir().unwrap();
    let (nodes, mut new) = (cluster(&folder).await, Vec::new());
    for node in &nodes {
        let store = plenary::edge::actix_session::Store::new(node.sessions()).reading_redis(keygen);
        new.push(actix::serve(store, HOUR).await);
    }
    hold(redis, old, nodes, new, dump_and_restore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tower_sessions() {
    let redis = Redis::start();
    let old = before::serve(redis.at, HOUR).await;
    let folder = tempfile::tempdir().unwrap();
    let (nodes, mut new) = (cluster(&folder).await, Vec::new());
    for node in &nodes {
        let store = plenary::edge::tower_sessions::Store::new(node.sessions()).reading_redis();
        new.push(tower::serve(store, HOUR).await);
    }
    hold(redis, old, nodes, new, migrate).await;
}

/// The site as it was: with the version of tower-sessions that its store in Redis is for.
mod before {
    use axum::Router;
    use axum::extract::Query;
    use axum::http::StatusCode;
    use axum::routing::{get as on_get, post};
    use fred::prelude::{Builder, ClientLike, Config};
    use plenary_frameworks::Ask;
    use std::net::SocketAddr;
    use std::time::Duration;
    use tower_sessions_014::{Expiry, Session, SessionManagerLayer};
    use tower_sessions_redis_store::RedisStore;

    pub(super) async fn serve(redis: SocketAddr, life: Duration) -> SocketAddr {
        let config = Config::from_url(&format!("redis://{redis}")).unwrap();
        let client = Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        let app = Router::new()
            .route("/login", post(login))
            .route("/whoami", on_get(whoami))
            .route("/set", post(set))
            .route("/get", on_get(get))
            .layer(
                SessionManagerLayer::new(RedisStore::new(client))
                    .with_expiry(Expiry::OnInactivity(life.try_into().unwrap())),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await });
        address
    }

    async fn login(session: Session, ask: Query<Ask>) {
        session.cycle_id().await.unwrap();
        session.insert("user", &ask.user).await.unwrap();
    }

    async fn whoami(session: Session) -> Result<String, StatusCode> {
        session.get("user").await.unwrap().ok_or(StatusCode::UNAUTHORIZED)
    }

    async fn set(session: Session, ask: Query<Ask>) {
        session.insert(&ask.name, ask.item()).await.unwrap();
    }

    async fn get(session: Session, ask: Query<Ask>) -> Result<String, StatusCode> {
        session.get(&ask.name).await.unwrap().ok_or(StatusCode::NOT_FOUND)
    }
}
