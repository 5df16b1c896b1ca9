//! `actix_session::storage::SessionStore` (feature `actix-session`): the sessions of actix-web, on every instance.
//!
//! One session state is one session of the cache's own type ([`crate::session`]), one item per name. Its values are what `Session::insert` made
//! of them, JSON, so Redis clients can read and change single items (`SESSION.GET`). The lifetime that the middleware names is its idle
//! timeout; the session ends by the log, on all instances at once, and nothing has to sweep.
//!
//! # What the contract of `SessionStore` comes to here
//!
//! | call | what it does | when it cannot |
//! |---|---|---|
//! | `load` | as fresh as chosen ([`Store::with_freshness`]); `None` for one that has ended, and for a key that no store made | `Other` if nobody can say for sure that there is none; `Deserialization` if an item is no text |
//! | `save` | creates a session under a key of 128 random bits | `Other` |
//! | `update` | changes the items that the request has changed, and renews its life; of the same item the last writer wins ([`crate::session::whole`]) | `Other` if the session has ended: the request is answered with 500 ([`Store::starting_anew`] has it otherwise) |
//! | `update_ttl` | renews its life; no error if it has ended, or if that could not be written: the page was only looked at, and the next use tries again | `Err` for a life that is none |
//! | `delete` | ends it; one that has ended already is no error | `Err` |
//!
//! # Coming from Redis
//!
//! [`Store::reading_redis`] finds what `RedisSessionStore` kept, once it was brought into this database (`MIGRATE`, `RESTORE`, `SET` at the Redis
//! endpoint), and turns each session into one of these when it is first asked for.

use crate::cache;
use crate::error::{Error, Result};
use crate::node::Freshness;
use crate::session::whole::{Items, Whole};
use crate::session::{NewSession, Session, SessionError, SessionId, Sessions, Text};
use ::actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use time::Duration;

type State = HashMap<String, String>;

/// Where another program keeps the session with this key.
type Place = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A session store on this instance's node. Clones are handles to the same sessions.
///
/// ```
/// # async fn example() -> plenary::Result<()> {
/// # let plenary = plenary::Plenary::builder().start().await?;
/// use plenary::edge::actix_session::Store;
///
/// let store = Store::new(plenary.sessions());
/// // HttpServer::new(move || App::new().wrap(SessionMiddleware::new(store.clone(), key.clone())))
/// # drop(store); Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    whole: Whole,
    starts_anew: bool,
    redis: Option<Place>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("whole", &self.whole)
            .field("starts_anew", &self.starts_anew)
            .field("reads_redis", &self.redis.is_some())
            .finish()
    }
}

impl Store {
    /// A store whose loads read what this instance has applied. They may miss a save that another instance acknowledged milliseconds ago, never
    /// the session itself.
    pub fn new(sessions: Sessions) -> Self {
        Self {
            whole: Whole::new(sessions),
            starts_anew: false,
            redis: None,
        }
    }

    /// The same store with loads this fresh.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            whole: self.whole.with_freshness(freshness),
            ..self.clone()
        }
    }

    /// The same store, with a new session for an update to one that has ended, as `RedisSessionStore` has it.
    ///
    /// Of a request that outlives a logout this brings the state back, under another key that goes to whoever sent that request.
    pub fn starting_anew(self) -> Self {
        Self {
            starts_anew: true,
            ..self
        }
    }

    /// The same store, which also finds the sessions of a `RedisSessionStore` that stand in this database; `cache_keygen` is what that store was
    /// built with, `str::to_owned` if with nothing.
    ///
    /// Each is turned into one of this store's when it is first loaded or changed, in one step and with the life that it had left; from then on a
    /// `RedisSessionStore` does not find it. An id that nobody knows costs two more rounds.
    pub fn reading_redis(self, cache_keygen: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self {
            redis: Some(Arc::new(cache_keygen)),
            ..self
        }
    }

    /// The sessions behind it.
    pub fn sessions(&self) -> &Sessions {
        self.whole.sessions()
    }

    async fn find(&self, key: &SessionKey) -> Result<Option<Session>, SessionError> {
        let Some(id) = id_of(key) else { return Ok(None) };
        let found = self.whole.load(&id).await?;
        if found.is_some() || !self.fetch(key, &id).await? {
            return Ok(found);
        }
        self.whole.load(&id).await
    }

    /// Brings a session over from Redis' layout. Whether it is worth another look.
    async fn fetch(&self, key: &SessionKey, id: &SessionId) -> Result<bool, SessionError> {
        let Some(place) = &self.redis else {
            return Ok(false);
        };
        self.sessions()
            .take_over(id, place(key.as_ref()).as_bytes(), read)
            .await?;
        // Also where it was not: another instance may have brought it.
        Ok(true)
    }

    async fn put(&self, key: &SessionKey, state: &State, ttl: &Duration) -> Result<(), SessionError> {
        let (id, life) = (id_of(key).ok_or(SessionError::Gone)?, life_of(ttl)?);
        let items: Items = items(state).collect();
        match self.whole.change(&id, &items, life).await {
            Err(SessionError::Gone) if self.fetch(key, &id).await? => {
                self.whole.change(&id, &items, life).await
            }
            put => put,
        }
    }

    async fn create(&self, state: &State, ttl: &Duration) -> Result<SessionKey, SessionError> {
        let new = new_session(state).idle_timeout(life_of(ttl)?);
        let session = self.sessions().create(new).await?;
        let key = SessionKey::try_from(session.id().as_str().to_owned());
        key.map_err(|error| Error::Value(error.to_string()).into())
    }

    async fn renew(&self, key: &SessionKey, ttl: &Duration) -> Result<(), SessionError> {
        let (id, life) = (id_of(key).ok_or(SessionError::Gone)?, life_of(ttl)?);
        match self.sessions().live_on(&id, life).await {
            Err(SessionError::Gone) if self.fetch(key, &id).await? => {
                self.sessions().live_on(&id, life).await
            }
            renewed => renewed,
        }
    }

    async fn end(&self, key: &SessionKey) -> Result<(), SessionError> {
        let Some(id) = id_of(key) else { return Ok(()) };
        if let Some(place) = &self.redis {
            // First: once it is gone there, nothing can bring it here again.
            self.sessions()
                .drop_foreign(place(key.as_ref()).as_bytes(), read)
                .await?;
        }
        self.whole.end(&id).await
    }
}

impl SessionStore for Store {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        let unreadable = |error: SessionError| match error {
            SessionError::Failed(Error::Value(_)) => LoadError::Deserialization(error.into()),
            other => LoadError::Other(other.into()),
        };
        let found = self.find(key).await.map_err(unreadable)?;
        found
            .map(|session| state_of(&session))
            .transpose()
            .map_err(|error| LoadError::Deserialization(error.into()))
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        self.create(&state, ttl)
            .await
            .map_err(|error| SaveError::Other(error.into()))
    }

    async fn update(&self, key: SessionKey, state: State, ttl: &Duration) -> Result<SessionKey, UpdateError> {
        let other = |error: SessionError| UpdateError::Other(error.into());
        match self.put(&key, &state, ttl).await {
            Ok(()) => Ok(key),
            Err(SessionError::Gone) if self.starts_anew => self.create(&state, ttl).await.map_err(other),
            Err(error) => Err(other(error)),
        }
    }

    async fn update_ttl(&self, key: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        match self.renew(key, ttl).await {
            Ok(()) | Err(SessionError::Gone) => Ok(()),
            Err(other @ SessionError::Failed(Error::Value(_))) => Err(other.into()),
            // The page is there; for an error the user would get 500 instead.
            Err(error) => {
                tracing::debug!(%error, "a session was not renewed");
                Ok(())
            }
        }
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        Ok(self.end(key).await?)
    }
}

/// None for a key that neither this store nor the one in Redis has made.
fn id_of(key: &SessionKey) -> Option<SessionId> {
    key.as_ref().parse().ok()
}

fn life_of(ttl: &Duration) -> Result<std::time::Duration, SessionError> {
    let life = std::time::Duration::try_from(*ttl).ok();
    let life = life.filter(|life| !life.is_zero());
    life.ok_or_else(|| Error::Value(format!("a session cannot live for {ttl}")).into())
}

fn items(state: &State) -> impl Iterator<Item = (Bytes, Bytes)> {
    let copied = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    state
        .iter()
        .map(move |(name, value)| (copied(name), copied(value)))
}

/// What `RedisSessionStore` keeps: the state as JSON.
fn read(json: &[u8]) -> Result<NewSession> {
    Ok(new_session(&cache::from_json(json)?))
}

fn new_session(state: &State) -> NewSession {
    let new = NewSession::new();
    items(state).fold(new, |new, (name, value)| new.item(name, value))
}

fn state_of(session: &Session) -> Result<State> {
    let text = |bytes: Text<'_>| {
        let text = std::str::from_utf8(&bytes).map(str::to_owned);
        text.map_err(|_| Error::Value("an item is not UTF-8: it was set by another program".to_owned()))
    };
    let items = session
        .items()
        .map(|(name, value)| Ok((text(name)?, text(value)?)));
    items.collect()
}
