//! The site in Salvo.

use crate::{Ask, SECRET, gate};
use ::salvo::conn::tcp::TcpAcceptor;
use ::salvo::prelude::*;
use ::salvo::session::{SessionDepotExt, SessionHandler};
use plenary::Sessions;
use plenary::edge::salvo::Store;
use std::net::SocketAddr;
use std::time::Duration;

pub async fn serve(sessions: Sessions, life: Duration) -> SocketAddr {
    let sessions = SessionHandler::builder(Store::new(sessions), SECRET)
        .session_ttl(Some(life))
        .build()
        .expect("the secret is long enough");
    let site = Router::new()
        .hoop(sessions)
        .push(Router::with_path("login").post(login))
        .push(Router::with_path("whoami").get(whoami))
        .push(Router::with_path("set").post(set))
        .push(Router::with_path("remove").post(remove))
        .push(Router::with_path("get").get(get))
        .push(Router::with_path("slow").post(slow))
        .push(Router::with_path("logout").post(logout));
    let router = Router::new()
        .push(site)
        .push(Router::with_path("waiting").get(waiting))
        .push(Router::with_path("go").post(go));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let acceptor = TcpAcceptor::try_from(listener).expect("it is bound");
    tokio::spawn(Server::new(acceptor).serve(router));
    address
}

fn ask(req: &mut Request) -> Ask {
    req.parse_queries().unwrap_or_default()
}

#[handler]
async fn login(req: &mut Request, depot: &mut Depot) {
    let session = depot.session_mut().expect("the handler puts one there");
    session.regenerate();
    session.insert("user", ask(req).user).expect("a text is JSON");
}

#[handler]
async fn whoami(depot: &mut Depot, res: &mut Response) {
    match depot.session().and_then(|session| session.get::<String>("user")) {
        Some(user) => res.render(user),
        None => {
            res.status_code(StatusCode::UNAUTHORIZED);
        }
    }
}

#[handler]
async fn set(req: &mut Request, depot: &mut Depot) {
    let ask = ask(req);
    let session = depot.session_mut().expect("the handler puts one there");
    session.insert(&ask.name, ask.item()).expect("a text is JSON");
}

#[handler]
async fn remove(req: &mut Request, depot: &mut Depot) {
    let session = depot.session_mut().expect("the handler puts one there");
    session.remove(&ask(req).name);
}

#[handler]
async fn get(req: &mut Request, depot: &mut Depot, res: &mut Response) {
    let name = ask(req).name;
    match depot.session().and_then(|session| session.get::<String>(&name)) {
        Some(item) => res.render(item),
        None => {
            res.status_code(StatusCode::NOT_FOUND);
        }
    }
}

#[handler]
async fn slow(req: &mut Request, depot: &mut Depot) {
    let ask = ask(req);
    let session = depot.session_mut().expect("the handler puts one there");
    session.insert(&ask.name, ask.item()).expect("a text is JSON");
    gate::wait().await;
}

#[handler]
async fn logout(depot: &mut Depot) {
    depot.session_mut().expect("the handler puts one there").destroy();
}

#[handler]
async fn waiting(res: &mut Response) {
    res.render(gate::waiting());
}

#[handler]
async fn go() {
    gate::go();
}
