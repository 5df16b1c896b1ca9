//! The site in poem.

use crate::{Ask, gate};
use ::poem::http::StatusCode;
use ::poem::listener::TcpAcceptor;
use ::poem::session::{CookieConfig, ServerSession, Session};
use ::poem::web::Query;
use ::poem::{EndpointExt, Route, Server, get as on_get, handler, post};
use plenary::Sessions;
use plenary::edge::poem::Store;
use std::net::SocketAddr;
use std::time::Duration;

pub async fn serve(sessions: Sessions, life: Duration) -> SocketAddr {
    let config = CookieConfig::new().max_age(life).secure(false);
    let app = Route::new()
        .at("/login", post(login))
        .at("/whoami", on_get(whoami))
        .at("/set", post(set))
        .at("/remove", post(remove))
        .at("/get", on_get(get))
        .at("/slow", post(slow))
        .at("/logout", post(logout))
        .at("/waiting", on_get(waiting))
        .at("/go", post(go))
        .with(ServerSession::new(config, Store::new(sessions)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let acceptor = TcpAcceptor::from_tokio(listener).expect("it is bound");
    tokio::spawn(Server::new_with_acceptor(acceptor).run(app));
    address
}

#[handler]
fn login(session: &Session, ask: Query<Ask>) {
    session.renew();
    session.set("user", &ask.user);
}

#[handler]
fn whoami(session: &Session) -> Result<String, StatusCode> {
    session.get("user").ok_or(StatusCode::UNAUTHORIZED)
}

#[handler]
fn set(session: &Session, ask: Query<Ask>) {
    session.set(&ask.name, ask.item());
}

#[handler]
fn remove(session: &Session, ask: Query<Ask>) {
    session.remove(&ask.name);
}

#[handler]
fn get(session: &Session, ask: Query<Ask>) -> Result<String, StatusCode> {
    session.get(&ask.name).ok_or(StatusCode::NOT_FOUND)
}

#[handler]
async fn slow(session: &Session, ask: Query<Ask>) {
    session.set(&ask.name, ask.item());
    gate::wait().await;
}

#[handler]
fn logout(session: &Session) {
    session.purge();
}

#[handler]
fn waiting() -> String {
    gate::waiting()
}

#[handler]
fn go() {
    gate::go();
}
