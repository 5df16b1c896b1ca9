//! `axum_session::DatabasePool` (feature `axum-session`): the sessions of the crate axum_session, on every instance.
//!
//! One record is one session of the cache's own type ([`crate::session`]) with two items: `session`, what axum_session hands over
//! (JSON, or what its `database_key` made of it), and one whose name begins with `table:`. How far the expiry is away when it is stored is its idle timeout; it ends
//! by the log, on all instances at once, and nothing has to sweep.
//!
//! # Several instances
//!
//! axum_session keeps what it has loaded in the memory of one instance, for an hour unless told otherwise, and asks the store for nothing meanwhile: on
//! another instance a user would meet an older session, or one that has ended. [`config`] turns that off; the node's own memory is as near.
//!
//! An unknown id in a cookie begins a session *with that id* there. Give [`config`] a key (`with_key`), so that cookies are encrypted and nobody can
//! make up an id for somebody else.
//!
//! | call | what it does | when it cannot |
//! |---|---|---|
//! | `store` | creates a session that was not loaded here; else replaces its text, if the request has changed it, and renews its life: the last writer wins whole, because the text is one item. One that was loaded here and has ended since, also if its id has begun another one, is never brought back: nothing is written, and no error is told, see below | an error, and 500 |
//! | `load`, `exists` | as fresh as chosen ([`Store::with_freshness`]); nothing for one that has ended | an error; axum_session takes it for an unknown id |
//! | `delete_one_by_id` | ends it; one that has ended already is no error | an error |
//! | `count`, `delete_all` | of that table, by a look at all sessions of the database | an error |
//! | `delete_by_expiry` | nothing: the log does it | |
//! | `get_ids` | always an error: ids are not kept. Its feature `key-store` needs them unless bloom filters are turned off | |
//!
//! After an error of `store` axum_session (0.22) keeps the session in the memory of that instance, and goes on from there until the process
//! ends. So it is told of no error that it can do without.

use crate::machine::value;
use crate::node::Freshness;
use crate::session::whole::{Items, Whole};
use crate::session::{SessionError, SessionId, Sessions, Text};
use ::axum_session::{DatabaseError, DatabasePool, SessionConfig};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

const SESSION: Bytes = Bytes::from_static(b"session");

/// A session store on this instance's node. Clones are handles to the same sessions.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let plenary = plenary::Plenary::builder().start().await?;
/// use axum_session::{Key, SessionLayer, SessionStore};
/// use plenary::edge::axum_session::{Store, config};
///
/// let store = Store::new(plenary.sessions());
/// let sessions = SessionStore::new(Some(store), config().with_key(Key::generate())).await?;
/// let app: axum::Router = axum::Router::new().layer(SessionLayer::new(sessions));
/// # drop(app); Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    whole: Whole,
}

/// The settings that several instances need, and axum_session's defaults: nothing is kept in the memory of one instance beyond a request.
pub fn config() -> SessionConfig {
    let none = Duration::ZERO.try_into().unwrap_or_default();
    SessionConfig::default().with_memory_lifetime(none)
}

impl Store {
    /// A store whose loads read what this instance has applied. They may miss a save that another instance acknowledged milliseconds ago, never
    /// the session itself.
    pub fn new(sessions: Sessions) -> Self {
        Self {
            whole: Whole::new(sessions).reusing_ids(),
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

    async fn find(&self, id: &str) -> Result<Option<Bytes>, SessionError> {
        let Ok(id) = id.parse::<SessionId>() else {
            return Ok(None);
        };
        let found = self.whole.load(&id).await?;
        Ok(found.and_then(|session| session.get(&SESSION).map(Text::to_bytes)))
    }

    async fn put(&self, id: &str, session: &str, life: Duration, table: &str) -> Result<(), SessionError> {
        let items = Items::from([(SESSION, in_order(session)), (name_of(table), Bytes::new())]);
        self.whole.put(&id.parse()?, &items, life).await
    }
}

#[async_trait]
impl DatabasePool for Store {
    async fn initiate(&self, _table_name: &str) -> Result<(), DatabaseError> {
        Ok(())
    }

    async fn count(&self, table_name: &str) -> Result<i64, DatabaseError> {
        let name = name_of(table_name);
        let count = self
            .sessions()
            .count(|session| is_of(session, &name))
            .await
            .map_err(not_found)?;
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    async fn store(
        &self,
        id: &str,
        session: &str,
        expires: i64,
        table_name: &str,
    ) -> Result<(), DatabaseError> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let expires = Duration::from_secs(u64::try_from(expires).unwrap_or_default());
        // Whole seconds, rounded up: what is left is a little less than what was meant.
        let left = Duration::from_secs(expires.saturating_sub(now).as_secs() + 1);
        match self.put(id, session, left, table_name).await {
            Err(SessionError::Gone) => {
                tracing::debug!("axum_session: a request outlived its session: nothing is saved");
                Ok(())
            }
            put => put.map_err(|error| DatabaseError::GenericInsertError(error.to_string())),
        }
    }

    async fn load(&self, id: &str, _table_name: &str) -> Result<Option<String>, DatabaseError> {
        let Some(text) = self.find(id).await.map_err(not_found)? else {
            return Ok(None);
        };
        let text = String::from_utf8(text.into())
            .map_err(|_| DatabaseError::GenericSelectError("the session is not UTF-8".to_owned()))?;
        Ok(Some(text))
    }

    async fn delete_one_by_id(&self, id: &str, _table_name: &str) -> Result<(), DatabaseError> {
        match id.parse() {
            Ok(id) => self.whole.end(&id).await.map_err(not_ended),
            Err(_) => Ok(()),
        }
    }

    async fn exists(&self, id: &str, _table_name: &str) -> Result<bool, DatabaseError> {
        Ok(self.find(id).await.map_err(not_found)?.is_some())
    }

    async fn delete_by_expiry(&self, _table_name: &str) -> Result<Vec<String>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn delete_all(&self, table_name: &str) -> Result<(), DatabaseError> {
        let name = name_of(table_name);
        self.sessions()
            .end_all(|session| is_of(session, &name))
            .await
            .map(drop)
            .map_err(not_ended)
    }

    async fn get_ids(&self, _table_name: &str) -> Result<Vec<String>, DatabaseError> {
        let why = "ids are not kept: turn bloom filters off (`with_bloom_filter(false)`)";
        Err(DatabaseError::GenericNotSupportedError(why.to_owned()))
    }

    fn auto_handles_expiry(&self) -> bool {
        true
    }
}

/// What axum_session writes of a session.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Data {
    data: BTreeMap<String, String>,
    longterm: bool,
}

/// The same session as the same bytes: axum_session hands over its items in another order each time, and each request hands it over. Another
/// text is kept as it is.
fn in_order(session: &str) -> Bytes {
    let data = serde_json::from_str::<Data>(session);
    let written = data.and_then(|data| serde_json::to_vec(&data));
    written.map_or_else(|_| Bytes::copy_from_slice(session.as_bytes()), Bytes::from)
}

/// The item that says whose table a session is in: a name, because values may be sealed.
fn name_of(table: &str) -> Bytes {
    Bytes::from(format!("table:{table}"))
}

fn is_of(session: &value::Session, name: &Bytes) -> bool {
    // It has no end of its own, so any time does.
    session.items.get(name, 0).is_some()
}

fn not_found(error: SessionError) -> DatabaseError {
    DatabaseError::GenericSelectError(error.to_string())
}

fn not_ended(error: SessionError) -> DatabaseError {
    DatabaseError::GenericDeleteError(error.to_string())
}
