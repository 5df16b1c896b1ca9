//! The site in Rocket, with the sessions of rocket_flex_session.

use crate::{Ask, SECRET, gate};
use ::rocket::fairing::AdHoc;
use ::rocket::http::Status;
use ::rocket::{Config, get as on_get, post, routes};
use plenary::Sessions;
use plenary::edge::rocket::Store;
use rocket_flex_session::RocketFlexSession;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::oneshot;

type Items = HashMap<String, String>;
type Session<'r> = rocket_flex_session::Session<'r, Items>;

pub async fn serve(sessions: Sessions, life: Duration) -> SocketAddr {
    let fairing = RocketFlexSession::<Items>::builder()
        .storage(Store::new(sessions))
        .with_options(|options| {
            let life = u32::try_from(life.as_secs()).expect("a life of hours at most");
            (options.max_age, options.rolling, options.secure) = (life, true, false);
        })
        .build();
    let config = Config {
        address: [127, 0, 0, 1].into(),
        port: 0,
        workers: 1,
        secret_key: ::rocket::config::SecretKey::from(SECRET),
        log_level: ::rocket::config::LogLevel::Off,
        ..Config::release_default()
    };
    let (tell, told) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let site = routes![login, whoami, set, remove, get, slow, logout, waiting, go];
    let server = ::rocket::custom(config)
        .mount("/", site)
        .attach(fairing)
        .attach(AdHoc::on_liftoff("where it listens", move |rocket| {
            let config = rocket.config();
            let address = SocketAddr::new(config.address, config.port);
            if let Some(tell) = tell.lock().expect("nobody panics").take() {
                let _ = tell.send(address);
            }
            Box::pin(async {})
        }));
    tokio::spawn(server.launch());
    told.await.expect("Rocket starts")
}

fn with(session: &mut Session<'_>, name: &str, item: String) {
    session.tap_mut(|items| {
        items.get_or_insert_default().insert(name.to_owned(), item);
    });
}

#[post("/login?<user>")]
fn login(mut session: Session<'_>, user: String) {
    let mut items = session.get().unwrap_or_default();
    items.insert("user".to_owned(), user);
    session.delete();
    session.set(items);
}

#[on_get("/whoami")]
fn whoami(session: Session<'_>) -> Result<String, Status> {
    let user = session.get().and_then(|items| items.get("user").cloned());
    user.ok_or(Status::Unauthorized)
}

#[post("/set?<name>&<value>&<bytes>")]
fn set(mut session: Session<'_>, name: String, value: Option<String>, bytes: Option<usize>) {
    let ask = Ask {
        value: value.unwrap_or_default(),
        bytes: bytes.unwrap_or_default(),
        ..Ask::default()
    };
    with(&mut session, &name, ask.item());
}

#[post("/remove?<name>")]
fn remove(mut session: Session<'_>, name: String) {
    session.tap_mut(|items| {
        items.get_or_insert_default().remove(&name);
    });
}

#[on_get("/get?<name>")]
fn get(session: Session<'_>, name: String) -> Result<String, Status> {
    let item = session.get().and_then(|items| items.get(&name).cloned());
    item.ok_or(Status::NotFound)
}

#[post("/slow?<name>&<value>")]
async fn slow(mut session: Session<'_>, name: String, value: String) {
    with(&mut session, &name, value);
    gate::wait().await;
}

#[post("/logout")]
fn logout(mut session: Session<'_>) {
    session.delete();
}

#[on_get("/waiting")]
fn waiting() -> String {
    gate::waiting()
}

#[post("/go")]
fn go() {
    gate::go();
}
