//! The site in axum with axum_session.

use crate::{Ask, SECRET, gate};
use ::axum_session::{Key, SessionLayer, SessionStore};
use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::{get as on_get, post};
use plenary::Sessions;
use plenary::edge::axum_session::{Store, config};
use std::net::SocketAddr;
use std::time::Duration;

type Session = ::axum_session::Session<Store>;

pub async fn serve(sessions: Sessions, life: Duration) -> SocketAddr {
    let config = config()
        .with_key(Key::from(SECRET))
        .with_lifetime(life.try_into().expect("a life of hours at most"));
    let sessions = SessionStore::new(Some(Store::new(sessions)), config)
        .await
        .expect("nothing is asked for yet");
    let app = Router::new()
        .route("/login", post(login))
        .route("/whoami", on_get(whoami))
        .route("/set", post(set))
        .route("/remove", post(remove))
        .route("/get", on_get(get))
        .route("/slow", post(slow))
        .route("/logout", post(logout))
        .layer(SessionLayer::new(sessions))
        .route("/waiting", on_get(async || gate::waiting()))
        .route("/go", post(async || gate::go()));
    crate::tower::serve_axum(app).await
}

async fn login(session: Session, ask: Query<Ask>) {
    session.renew();
    session.set("user", &ask.user);
}

async fn whoami(session: Session) -> Result<String, StatusCode> {
    session.get("user").ok_or(StatusCode::UNAUTHORIZED)
}

async fn set(session: Session, ask: Query<Ask>) {
    session.set(&ask.name, ask.item());
}

async fn remove(session: Session, ask: Query<Ask>) {
    session.remove(&ask.name);
}

async fn get(session: Session, ask: Query<Ask>) -> Result<String, StatusCode> {
    session.get(&ask.name).ok_or(StatusCode::NOT_FOUND)
}

async fn slow(session: Session, ask: Query<Ask>) {
    session.set(&ask.name, ask.item());
    gate::wait().await;
}

async fn logout(session: Session) {
    session.destroy();
}
