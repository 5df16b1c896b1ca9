//! `saysion::SessionStore` (feature `salvo`): the sessions of Salvo's `SessionHandler`, on every instance. Needs Rust 1.92, as `saysion` does.
//!
//! One session is one of the cache's own type ([`crate::session`]), one item per name, its value the JSON that `Session::insert` made, so
//! Redis clients can read and change single items (`SESSION.GET`). How far its expiry is away when it is stored, in whole seconds, is its
//! idle timeout; it ends by the log, on all instances at once, and nothing has to sweep.
//!
//! | call | what it does | when it cannot |
//! |---|---|---|
//! | `load_session` | as fresh as chosen ([`Store::with_freshness`]); `None` for one that has ended, and for a cookie that nobody made | an error, see below |
//! | `store_session` | creates a session that was not loaded here; else changes the items that the request has changed, and renews its life; of the same one the last writer wins ([`crate::session::whole`]) | an error if it was loaded here and has ended since: it is never brought back |
//! | `destroy_session` | ends it; one that has ended already is no error | an error |
//! | `clear_store` | ends all sessions in this database, whoever made them | an error; some may have ended |
//!
//! Leave Salvo's `StoreErrorPolicy` at `FailClosed`, or users are told of success where nothing was saved.
//! `Session::regenerate` leaves the old session where it is: Salvo does not tell which it was.

use crate::error::{Error, Result};
use crate::node::Freshness;
use crate::session::whole::{Items, Whole, whole_seconds};
use crate::session::{SessionId, Sessions, Text};
use async_trait::async_trait;
use bytes::Bytes;
use saysion::{Session, SessionStore};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The shortest life that a session is said to have left.
const SHORTEST: Duration = Duration::from_secs(1);

/// A session store on this instance's node. Clones are handles to the same sessions.
///
/// ```
/// # async fn example() -> plenary::Result<()> {
/// # let plenary = plenary::Plenary::builder().start().await?;
/// use plenary::edge::salvo::Store;
///
/// let store = Store::new(plenary.sessions());
/// // salvo::session::SessionHandler::builder(store, secret).build()
/// # drop(store); Ok(()) }
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
}

#[async_trait]
impl SessionStore for Store {
    async fn load_session(&self, cookie_value: String) -> saysion::Result<Option<Session>> {
        let Ok(id) = Session::id_from_cookie_value(&cookie_value) else {
            return Ok(None);
        };
        let Some(found) = self.whole.load(&key_of(&id)?).await? else {
            return Ok(None);
        };
        let text = |bytes: Text<'_>| {
            let text = std::str::from_utf8(&bytes).map(str::to_owned);
            text.map_err(|_| Error::Value("an item is not UTF-8: it was set by another program".to_owned()))
        };
        let data = found
            .items()
            .map(|(name, value)| Ok((text(name)?, Value::String(text(value)?))));
        let data = data.collect::<Result<Map<_, _>>>()?;
        // It has no constructor for an id, but it can be read.
        let mut session: Session = serde_json::from_value(json!({ "id": id, "expiry": null, "data": data }))?;
        if let Some(left) = found.left(self.sessions().now()) {
            // One that lives by its slack alone is there still.
            session.expire_in(left.max(SHORTEST));
        }
        Ok(Some(session))
    }

    async fn store_session(&self, session: Session) -> saysion::Result<Option<String>> {
        let id = key_of(session.id())?;
        let life = match (session.expiry(), session.expires_in()) {
            (None, _) => Duration::ZERO,
            (Some(_), Some(left)) => whole_seconds(left),
            (Some(_), None) => {
                self.whole.end(&id).await?;
                return Ok(None);
            }
        };
        self.whole.put(&id, &items_of(&session)?, life).await?;
        session.reset_data_changed();
        Ok(session.into_cookie_value())
    }

    async fn destroy_session(&self, session: Session) -> saysion::Result {
        Ok(self.whole.end(&key_of(session.id())?).await?)
    }

    async fn clear_store(&self) -> saysion::Result {
        self.sessions().end_all(|_| true).await?;
        Ok(())
    }
}

/// The id, base64, in the letters that an id has here.
fn key_of(id: &str) -> Result<SessionId> {
    let letters = id.trim_end_matches('=').replace('+', "-").replace('/', "_");
    letters.parse()
}

/// It cannot be asked for its names, but it can be written.
fn items_of(session: &Session) -> Result<Items> {
    let written = serde_json::to_value(session)
        .map_err(|error| Error::Value(format!("the session cannot be written: {error}")))?;
    let data = written.get("data").and_then(Value::as_object);
    let items = data.into_iter().flatten().map(|(name, value)| {
        let value = value
            .as_str()
            .ok_or_else(|| Error::Value("an item of the session is no text".to_owned()))?;
        Ok((
            Bytes::from(name.clone()),
            Bytes::copy_from_slice(value.as_bytes()),
        ))
    });
    items.collect()
}
