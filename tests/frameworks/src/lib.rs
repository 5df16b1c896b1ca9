//! The same small site in each framework that Plenary has a session store for, so that one suite can hold all of them to the same
//! (`tests/conformance.rs`).
//!
//! | request | what it does | answer |
//! |---|---|---|
//! | `POST /login?user=NAME` | gives the session a new id and a user | 200 |
//! | `GET /whoami` | | the user, or 401 |
//! | `POST /set?name=N&value=V` | sets an item; `bytes=COUNT` sets one of so many | 200 |
//! | `POST /remove?name=N` | removes an item | 200 |
//! | `GET /get?name=N` | | the item, or 404 |
//! | `POST /slow?name=N&value=V` | sets an item, then waits for `POST /go` before it answers | 200 |
//! | `POST /logout` | ends the session | 200 |
//!
//! What the store could not do is answered as the framework answers it.

pub mod actix;
pub mod axum_session;
pub mod client;
pub mod gate;
pub mod poem;
pub mod rocket;
pub mod salvo;
pub mod tower;

use plenary::Sessions;
use std::net::SocketAddr;
use std::time::Duration;

/// A framework with the store under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    Actix,
    AxumSession,
    Poem,
    Rocket,
    Salvo,
    Tower,
}

impl Framework {
    pub const ALL: [Self; 6] = [
        Self::Actix,
        Self::AxumSession,
        Self::Poem,
        Self::Rocket,
        Self::Salvo,
        Self::Tower,
    ];

    /// The feature of Plenary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Actix => "actix-session",
            Self::AxumSession => "axum-session",
            Self::Poem => "poem",
            Self::Rocket => "rocket",
            Self::Salvo => "salvo",
            Self::Tower => "tower-sessions",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|framework| framework.name() == name)
    }

    /// Serves the site until the process ends; where it listens.
    pub async fn serve(self, sessions: Sessions, life: Duration) -> SocketAddr {
        match self {
            Self::Actix => actix::serve(plenary::edge::actix_session::Store::new(sessions), life).await,
            Self::AxumSession => axum_session::serve(sessions, life).await,
            Self::Poem => poem::serve(sessions, life).await,
            Self::Rocket => rocket::serve(sessions, life).await,
            Self::Salvo => salvo::serve(sessions, life).await,
            Self::Tower => tower::serve(plenary::edge::tower_sessions::Store::new(sessions), life).await,
        }
    }
}

/// How long a session of the second site lives without use.
pub const SHORT: Duration = Duration::from_secs(3);

/// What signs and encrypts cookies: the same on all instances, as a site has it.
pub const SECRET: &[u8; 64] = b"the same on every instance, and known to nobody but these tests!";

/// The query of a request. One that has no such thing has an empty text.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Ask {
    pub user: String,
    pub name: String,
    pub value: String,
    pub bytes: usize,
}

impl Ask {
    /// What `POST /set` is to set.
    pub fn item(&self) -> String {
        if self.bytes > 0 {
            "x".repeat(self.bytes)
        } else {
            self.value.clone()
        }
    }
}
