//! The site in actix-web, with any session store of actix-session: Plenary's, and the one in Redis that a site may come from.

use crate::{Ask, SECRET, gate};
use actix_session::config::{PersistentSession, TtlExtensionPolicy};
use actix_session::storage::SessionStore;
use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::error::{ErrorNotFound, ErrorUnauthorized};
use actix_web::web::{self, Query};
use actix_web::{App, HttpServer, Result};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

pub async fn serve<S: SessionStore + Clone + Send + 'static>(store: S, life: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let life = life.try_into().expect("a life of hours at most");
    let app = move || {
        let lifecycle = PersistentSession::default()
            .session_ttl(life)
            .session_ttl_extension_policy(TtlExtensionPolicy::OnEveryRequest);
        let sessions = SessionMiddleware::builder(store.clone(), Key::from(SECRET))
            .session_lifecycle(lifecycle)
            .build();
        App::new()
            .wrap(sessions)
            .route("/login", web::post().to(login))
            .route("/whoami", web::get().to(whoami))
            .route("/set", web::post().to(set))
            .route("/remove", web::post().to(remove))
            .route("/get", web::get().to(get))
            .route("/slow", web::post().to(slow))
            .route("/logout", web::post().to(logout))
            .route("/waiting", web::get().to(async || gate::waiting()))
            .route("/go", web::post().to(go))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .listen(listener)
        .expect("it is bound");
    tokio::spawn(server.run());
    address
}

async fn login(session: Session, ask: Query<Ask>) -> Result<&'static str> {
    session.renew();
    session.insert("user", &ask.user)?;
    Ok("")
}

async fn whoami(session: Session) -> Result<String> {
    session.get("user")?.ok_or_else(|| ErrorUnauthorized("nobody"))
}

async fn set(session: Session, ask: Query<Ask>) -> Result<&'static str> {
    session.insert(&ask.name, ask.item())?;
    Ok("")
}

async fn remove(session: Session, ask: Query<Ask>) -> &'static str {
    session.remove(&ask.name);
    ""
}

async fn get(session: Session, ask: Query<Ask>) -> Result<String> {
    session
        .get(&ask.name)?
        .ok_or_else(|| ErrorNotFound("no such item"))
}

async fn slow(session: Session, ask: Query<Ask>) -> Result<&'static str> {
    session.insert(&ask.name, ask.item())?;
    gate::wait().await;
    Ok("")
}

async fn logout(session: Session) -> &'static str {
    session.purge();
    ""
}

async fn go() -> &'static str {
    gate::go();
    ""
}
