//! `tower_sessions::SessionStore` (feature `tower-sessions`): the sessions of axum and its kin, on every instance.
//!
//! One record is one session of the cache's own type ([`crate::session`]), one item per name in `Record::data`, its value as JSON, so
//! Redis clients can read and change single items (`SESSION.GET session:<id> name`). `Record::expiry_date` is its absolute
//! deadline, to the millisecond; the session ends by the log, on all instances at once, and nothing has to sweep.
//!
//! # What the contract of `SessionStore` comes to here
//!
//! | call | what it does | when it cannot |
//! |---|---|---|
//! | `create` | puts the session unless there is one; draws a new id then | `Backend` |
//! | `save` | replaces all items and the deadline: the last writer wins, because a record carries no version | `Backend` if the session has ended: it is never brought back (`tower-sessions` answers the request with 500) |
//! | `load` | as fresh as chosen, below; `None` for one that has ended | `Backend` if nobody can say for sure that there is none, so that no cookie is taken away by mistake |
//! | `delete` | ends it; one that has ended already is no error | `Backend` |
//!
//! # Which state a load sees
//!
//! A write is answered once a majority has it and *this* instance has applied it. Another instance may apply it milliseconds later, and the
//! user's next request may be faster than that. What such a request can see:
//!
//! | choice | network per load | may see an older state? |
//! |---|---|---|
//! | [`Store::new`]: `Local` | none; one round for an id unknown here | of a session that exists, yes, for the milliseconds another instance lags. Never "no such session" for one that was created or renamed (a login) |
//! | [`with_token`] around each request | none; one round if this instance lags behind the token | not of what this user did |
//! | [`Store::with_freshness`] `Linearizable` | one round, shared by all who ask at once | no |
//!
//! A fresh load alone does not make *concurrent* requests of one user safe: two that load, change and save still undo each
//! other, on one instance or several, as with every other store of this trait. [`Store::load_versioned`] and
//! [`Store::compare_and_save`] do: the second save is refused.
//!
//! [`Store::reading_redis`] finds what `tower-sessions-redis-store` kept.

use crate::cache;
use crate::error::Error;
use crate::node::{Freshness, Token};
use crate::session::{NewSession, Session, SessionError, SessionId, Sessions};
use async_trait::async_trait;
use std::cell::Cell;
use std::time::Duration;
use time::OffsetDateTime;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store;

/// Ids drawn for one session before giving up. With 128 random bits a second is never needed; a bound is a bound.
const ID_ATTEMPTS: usize = 4;

/// `Record::expiry_date` of a session without a deadline (made by a Redis client): the last second of the year 9999.
const NEVER: i64 = 253_402_300_799;

tokio::task_local! {
    /// How far the request being handled has seen; set by [`with_token`].
    static SEEN: Cell<Token>;
}

/// A session store on this instance's node. Clones are handles to the same sessions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
/// use plenary::edge::tower_sessions::Store;
/// use tower_sessions::SessionManagerLayer;
///
/// let layer = SessionManagerLayer::new(Store::new(plenary.sessions()));
/// let app: axum::Router = axum::Router::new().layer(layer);
/// # drop(app); plenary.stop().await }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    sessions: Sessions,
    /// Whether sessions of a `tower_sessions_redis_store::RedisStore` are looked for as well.
    reads_redis: bool,
}

/// Handles a request so that its loads see at least what `token` has seen; the second result goes back to the user.
///
/// The token travels as a decimal number in a cookie of its own: wrap the session layer in a middleware that reads it, calls this and sets it
/// (`cluster-examples/web-sessions` does in ten lines). A made-up token costs the cluster one round, never a wait.
pub async fn with_token<F: Future>(token: Token, request: F) -> (F::Output, Token) {
    SEEN.scope(Cell::new(token), async {
        let output = request.await;
        (output, seen())
    })
    .await
}

/// The token of the request being handled; 0 outside of one.
fn seen() -> Token {
    SEEN.try_with(Cell::get).unwrap_or_default()
}

impl Store {
    /// A store whose loads read what this instance has applied; [the module](self) says what that admits.
    pub fn new(sessions: Sessions) -> Self {
        Self {
            sessions,
            reads_redis: false,
        }
    }

    /// The same store with loads this fresh.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            sessions: self.sessions.with_freshness(freshness),
            ..self.clone()
        }
    }

    /// The same store, which also finds the sessions of a `tower_sessions_redis_store::RedisStore` that stand in this database, once they were
    /// brought here (`MIGRATE`, `RESTORE`, `SET` at the Redis endpoint).
    ///
    /// Each is turned into one of this store's when it is first loaded or changed, in one step and with the life that it had left; from then on a
    /// `RedisStore` does not find it. An id that nobody knows costs two more rounds.
    pub fn reading_redis(self) -> Self {
        Self {
            reads_redis: true,
            ..self
        }
    }

    /// The sessions behind it.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A record and its version, for [`Store::compare_and_save`].
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn load_versioned(&self, id: &Id) -> Result<Option<(Record, u64)>, SessionError> {
        let sessions = self.for_this_request();
        let mut found = sessions.load(&id_of(id)?).await?;
        if found.is_none() && self.fetch(&sessions, id).await? {
            found = sessions.load(&id_of(id)?).await?;
        }
        note(&sessions);
        found
            .map(|session| Ok((record_of(*id, &session)?, session.version())))
            .transpose()
    }

    /// Saves a record if its session is still at this version. The new version.
    ///
    /// # Errors
    /// [`SessionError::Stale`] if it was saved meanwhile, [`SessionError::Gone`] if it has ended; nothing was written then.
    pub async fn compare_and_save(&self, record: &Record, version: u64) -> Result<u64, SessionError> {
        self.replace(record, Some(version)).await
    }

    /// Moves the end of a session without sending its items. Whether it was there.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn touch(&self, id: &Id, expiry_date: OffsetDateTime) -> Result<bool, SessionError> {
        let sessions = self.for_this_request();
        let (key, at) = (id_of(id)?, millis_of(expiry_date));
        let mut moved = sessions.set_absolute_deadline(&key, at).await;
        if matches!(moved, Err(SessionError::Gone)) && self.fetch(&sessions, id).await? {
            moved = sessions.set_absolute_deadline(&key, at).await;
        }
        note(&sessions);
        match moved {
            Ok(_) => Ok(true),
            Err(SessionError::Gone) => Ok(false),
            Err(other) => Err(other),
        }
    }

    async fn replace(&self, record: &Record, version: Option<u64>) -> Result<u64, SessionError> {
        let sessions = self.for_this_request();
        let (id, new) = (id_of(&record.id)?, new_session(record)?);
        let mut replaced = sessions.replace(&id, version, &new).await;
        if matches!(replaced, Err(SessionError::Gone)) && self.fetch(&sessions, &record.id).await? {
            replaced = sessions.replace(&id, version, &new).await;
        }
        note(&sessions);
        replaced
    }

    /// Brings a session over from Redis' layout. Whether it is worth another look.
    async fn fetch(&self, sessions: &Sessions, id: &Id) -> Result<bool, SessionError> {
        if self.reads_redis {
            let place = id.to_string();
            sessions
                .take_over(&id_of(id)?, place.as_bytes(), |bytes| read(*id, bytes))
                .await?;
        }
        // Also where it was not there: another instance may have brought it.
        Ok(self.reads_redis)
    }

    /// The handle for this request: it must not read behind the request's token.
    ///
    /// A token that this node has not reached yet is not waited for: it came from outside. Reading as of now covers every genuine one.
    fn for_this_request(&self) -> Sessions {
        let token = seen();
        if token == Token::default() {
            return self.sessions.clone();
        }
        if self.sessions.reached() >= token {
            self.sessions.at_least(token)
        } else {
            let fresh = self.sessions.at_least(Token::default());
            fresh.with_freshness(Freshness::Linearizable)
        }
    }
}

/// Notes in the request's token what this handle has seen.
fn note(sessions: &Sessions) {
    // Outside of a request there is nothing to note it in.
    let _ = SEEN.try_with(|seen| seen.set(seen.get().max(sessions.token())));
}

#[async_trait]
impl SessionStore for Store {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let new = new_session(record).map_err(|error| encode(error.into()))?;
        let sessions = self.for_this_request();
        for _ in 0..ID_ATTEMPTS {
            let created = sessions
                .create_as(&id_of(&record.id).map_err(backend)?, &new)
                .await
                .map_err(backend)?;
            note(&sessions);
            if created {
                return Ok(());
            }
            record.id = Id::default();
        }
        Err(backend(SessionError::Taken))
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.replace(record, None).await.map(drop).map_err(encode)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        Ok(self
            .load_versioned(id)
            .await
            .map_err(decode)?
            .map(|(record, _)| record))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let sessions = self.for_this_request();
        if self.reads_redis {
            // First: once it is gone there, nothing can bring it here again.
            let place = id.to_string();
            sessions
                .drop_foreign(place.as_bytes(), |bytes| read(*id, bytes))
                .await
                .map_err(backend)?;
        }
        let ended = sessions.end(&id_of(id).map_err(backend)?).await;
        note(&sessions);
        ended.map(drop).map_err(backend)
    }
}

/// The same text that `tower-sessions` puts in the cookie: 22 characters.
fn id_of(id: &Id) -> Result<SessionId, SessionError> {
    Ok(id.to_string().parse()?)
}

/// What `RedisStore` keeps under the id: the record as MessagePack.
fn read(id: Id, bytes: &[u8]) -> Result<NewSession, Error> {
    let record: Record = rmp_serde::from_slice(bytes)
        .map_err(|error| Error::Value(format!("not a record of tower-sessions: {error}")))?;
    if record.id != id {
        return Err(Error::Value("the record of another session".to_owned()));
    }
    new_session(&record)
}

fn new_session(record: &Record) -> Result<NewSession, Error> {
    let mut new = NewSession::new()
        .idle_timeout(Duration::ZERO)
        .absolute_deadline(millis_of(record.expiry_date));
    for (name, value) in &record.data {
        new = new.item(name, cache::to_json(value)?);
    }
    Ok(new)
}

fn record_of(id: Id, session: &Session) -> Result<Record, Error> {
    let data = session.items().map(|(name, json)| {
        let name = std::str::from_utf8(&name).map_err(|_| {
            Error::Value("an item's name is not UTF-8: it was set by another program".to_owned())
        })?;
        Ok((name.to_owned(), cache::from_json(&json)?))
    });
    let at = session.deadline().map_or(i128::from(NEVER) * 1_000, i128::from);
    let expiry_date = OffsetDateTime::from_unix_timestamp_nanos(at * 1_000_000)
        .or_else(|_| OffsetDateTime::from_unix_timestamp(NEVER))
        .map_err(|error| Error::Value(format!("the session's deadline: {error}")))?;
    Ok(Record {
        id,
        data: data.collect::<Result<_, Error>>()?,
        expiry_date,
    })
}

/// Milliseconds since the Unix epoch; at least 1, because 0 means no deadline.
fn millis_of(date: OffsetDateTime) -> u64 {
    u64::try_from(date.unix_timestamp_nanos() / 1_000_000)
        .unwrap_or(0)
        .max(1)
}

fn backend(error: SessionError) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

fn encode(error: SessionError) -> session_store::Error {
    match error {
        SessionError::Failed(Error::Value(why)) => session_store::Error::Encode(why),
        other => backend(other),
    }
}

fn decode(error: SessionError) -> session_store::Error {
    match error {
        SessionError::Failed(Error::Value(why)) => session_store::Error::Decode(why),
        other => backend(other),
    }
}
