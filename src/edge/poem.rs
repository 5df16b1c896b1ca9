//! `poem::session::SessionStorage` (feature `poem`): the sessions of poem's `ServerSession`, on every instance.
//!
//! One poem session is one session of the cache's own type ([`crate::session`]), one item per entry, its value as JSON, so Redis clients can
//! read and change single items (`SESSION.GET`). The time to live of the cookie is its idle timeout, counted from the last change, and [`IDLE_TIMEOUT`]
//! where the cookie has none and ends with the browser; it ends by the log, on all instances at once, and nothing has to sweep.
//!
//! | call | what it does | when it cannot |
//! |---|---|---|
//! | `load_session` | as fresh as chosen ([`Store::with_freshness`]); `None` for one that has ended, and for an id that nobody made | 500 if nobody can say for sure that there is none, so that no cookie is taken away by mistake |
//! | `update_session` | creates a session that was not loaded here; else changes the entries that the request has changed, and renews its life; of the same one the last writer wins ([`crate::session::whole`]) | 500 if it was loaded here and has ended since: it is never brought back |
//! | `remove_session` | ends it; one that has ended already is no error | 500 |

use crate::cache;
use crate::error::{Error, Result};
use crate::node::Freshness;
use crate::session::whole::{Items, Whole};
use crate::session::{Session, SessionError, SessionId, Sessions};
use ::poem::error::InternalServerError;
use ::poem::session::SessionStorage;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

type Entries = BTreeMap<String, Value>;

/// How long a session lives without a change whose cookie has no `max_age`: a day, as in actix-session and Salvo. The browser may be closed at any time, and
/// nobody would end it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A session store on this instance's node. Clones are handles to the same sessions.
///
/// ```
/// # async fn example() -> plenary::Result<()> {
/// # let plenary = plenary::Plenary::builder().start().await?;
/// use plenary::edge::poem::Store;
/// use poem::session::{CookieConfig, ServerSession};
/// use poem::{EndpointExt, Route};
/// use std::time::Duration;
///
/// let cookie = CookieConfig::new().max_age(Duration::from_secs(3600));
/// let app = Route::new().with(ServerSession::new(cookie, Store::new(plenary.sessions())));
/// # drop(app); Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    whole: Whole,
}

impl Store {
    /// A store whose loads read what this instance has applied. They may miss a save that another instance acknowledged milliseconds ago, never
    /// the session itself.
    pub fn new(sessions: Sessions) -> Self {
        Self {
            whole: Whole::new(sessions),
        }
    }

    /// The same store with loads this fresh.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            whole: self.whole.with_freshness(freshness),
        }
    }

    /// The sessions behind it.
    pub fn sessions(&self) -> &Sessions {
        self.whole.sessions()
    }

    async fn put(&self, id: &str, entries: &Entries, life: Option<Duration>) -> Result<(), SessionError> {
        let items = items_of(entries)?;
        self.whole
            .put(&id.parse()?, &items, life.unwrap_or(IDLE_TIMEOUT))
            .await
    }
}

impl SessionStorage for Store {
    async fn load_session(&self, session_id: &str) -> ::poem::Result<Option<Entries>> {
        let Ok(id) = session_id.parse::<SessionId>() else {
            return Ok(None);
        };
        let found = self.whole.load(&id).await.map_err(InternalServerError)?;
        found
            .map(|session| entries_of(&session))
            .transpose()
            .map_err(InternalServerError)
    }

    async fn update_session(
        &self,
        session_id: &str,
        entries: &Entries,
        expires: Option<Duration>,
    ) -> ::poem::Result<()> {
        self.put(session_id, entries, expires)
            .await
            .map_err(InternalServerError)
    }

    async fn remove_session(&self, session_id: &str) -> ::poem::Result<()> {
        match session_id.parse() {
            Ok(id) => self.whole.end(&id).await.map_err(InternalServerError),
            Err(_) => Ok(()),
        }
    }
}

fn items_of(entries: &Entries) -> Result<Items> {
    let items = entries
        .iter()
        .map(|(name, value)| Ok((Bytes::from(name.clone()), Bytes::from(cache::to_json(value)?))));
    items.collect()
}

fn entries_of(session: &Session) -> Result<Entries> {
    let entries = session.items().map(|(name, json)| {
        let name = std::str::from_utf8(&name).map_err(|_| {
            Error::Value("an item's name is not UTF-8: it was set by another program".to_owned())
        })?;
        Ok((name.to_owned(), cache::from_json(&json)?))
    });
    entries.collect()
}
