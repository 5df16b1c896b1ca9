//! The site in axum with tower-sessions.

use crate::{Ask, gate};
use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::{get as on_get, post};
use std::net::SocketAddr;
use std::time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};

pub async fn serve<S: SessionStore + Clone>(store: S, life: Duration) -> SocketAddr {
    let expiry = Expiry::OnInactivity(life.try_into().expect("a life of hours at most"));
    let app = Router::new()
        .route("/login", post(login))
        .route("/whoami", on_get(whoami))
        .route("/set", post(set))
        .route("/remove", post(remove))
        .route("/get", on_get(get))
        .route("/slow", post(slow))
        .route("/logout", post(logout))
        .route("/waiting", on_get(async || gate::waiting()))
        .route("/go", post(async || gate::go()))
        .layer(SessionManagerLayer::new(store).with_expiry(expiry));
    serve_axum(app).await
}

pub(crate) async fn serve_axum(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

fn failed(error: tower_sessions::session::Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn login(session: Session, ask: Query<Ask>) -> Result<(), StatusCode> {
    session.cycle_id().await.map_err(failed)?;
    session.insert("user", &ask.user).await.map_err(failed)
}

async fn whoami(session: Session) -> Result<String, StatusCode> {
    let user = session.get("user").await.map_err(failed)?;
    user.ok_or(StatusCode::UNAUTHORIZED)
}

async fn set(session: Session, ask: Query<Ask>) -> Result<(), StatusCode> {
    session.insert(&ask.name, ask.item()).await.map_err(failed)
}

async fn remove(session: Session, ask: Query<Ask>) -> Result<(), StatusCode> {
    let removed = session.remove::<String>(&ask.name).await;
    removed.map(drop).map_err(failed)
}

async fn get(session: Session, ask: Query<Ask>) -> Result<String, StatusCode> {
    let item = session.get(&ask.name).await.map_err(failed)?;
    item.ok_or(StatusCode::NOT_FOUND)
}

async fn slow(session: Session, ask: Query<Ask>) -> Result<(), StatusCode> {
    session.insert(&ask.name, ask.item()).await.map_err(failed)?;
    gate::wait().await;
    Ok(())
}

async fn logout(session: Session) -> Result<(), StatusCode> {
    session.flush().await.map_err(failed)
}
