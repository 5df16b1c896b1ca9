//! `rocket_flex_session::storage::SessionStorage` (feature `rocket`): sessions of Rocket, on every instance. Rocket has none of its own; this is the
//! store of the crate that gives it sessions, which is kept up, keeps ids in encrypted cookies and takes other people's stores.
//!
//! One session is one of the cache's own type ([`crate::session`]): what the application keeps is written as JSON, one item per field (a
//! struct, a map) or, if it is no object, one item with an empty name. So Redis clients can read and change single fields (`SESSION.GET`).
//! Its time to live is its idle timeout; it ends by the log, on all instances at once, and nothing has to sweep. Of one that is not rolling
//! rocket_flex_session gives back at a save what was left of its life at the load: so it ends when it was to.
//!
//! | call | what it does | when it cannot |
//! |---|---|---|
//! | `load` | as fresh as chosen ([`Store::with_freshness`]), and renews the life of a session that is rolling, if that can be written; `NotFound` for one that has ended, and for an id that nobody made | `Backend`; `Parsing` |
//! | `save` | creates a session that was not loaded here; else changes the fields that the request has changed, and renews its life; of the same one the last writer wins ([`crate::session::whole`]) | `Backend` if it was loaded here and has ended since: it is never brought back |
//! | `delete` | ends it; one that has ended already is no error | `Backend` |
//!
//! The fairing saves when the answer is made already, so it can only log what could not be saved. Its index by user
//! (`SessionStorageIndexed`) is not here.

use crate::cache;
use crate::error::{Error, Result};
use crate::node::Freshness;
use crate::session::whole::{Items, Whole, whole_seconds};
use crate::session::{Session, SessionError, SessionId, Sessions};
use ::rocket::async_trait;
use ::rocket::http::CookieJar;
use bytes::Bytes;
use rocket_flex_session::error::{SessionError as Refusal, SessionResult};
use rocket_flex_session::storage::SessionStorage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;

/// The name of the one item of what is no object.
const ALL: Bytes = Bytes::new();

/// A session store on this instance's node. Clones are handles to the same sessions.
///
/// ```
/// # async fn example() -> plenary::Result<()> {
/// # let plenary = plenary::Plenary::builder().start().await?;
/// use plenary::edge::rocket::Store;
/// use rocket_flex_session::RocketFlexSession;
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Login { user: String }
///
/// let sessions = RocketFlexSession::<Login>::builder().storage(Store::new(plenary.sessions())).build();
/// let app = rocket::build().attach(sessions);
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

    async fn find(&self, id: &str, ttl: Option<u32>) -> SessionResult<Session> {
        let id = id.parse::<SessionId>().map_err(|_| Refusal::NotFound)?;
        let found = self.whole.load(&id).await.map_err(refusal)?;
        let found = found.ok_or(Refusal::NotFound)?;
        let Some(ttl) = ttl else { return Ok(found) };
        match self.sessions().live_on(&id, seconds(ttl)).await {
            Err(SessionError::Gone) => return Err(Refusal::NotFound),
            // What it is now was read; for an error the user would get another session, and be logged out.
            Err(error) => tracing::debug!(%error, "a session was not renewed"),
            Ok(()) => {}
        }
        Ok(found)
    }
}

#[async_trait]
impl<T> SessionStorage<T> for Store
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    async fn load(&self, id: &str, ttl: Option<u32>, _cookie_jar: &CookieJar) -> SessionResult<(T, u32)> {
        let session = self.find(id, ttl).await?;
        let data = data_of(&session).map_err(|error| Refusal::Parsing(error.into()))?;
        let left = session.left(self.sessions().now());
        let left = left.and_then(|left| u32::try_from(whole_seconds(left).as_secs()).ok());
        Ok((data, ttl.or(left).unwrap_or(u32::MAX)))
    }

    async fn save(&self, id: &str, data: T, ttl: u32) -> SessionResult<()> {
        let items = items_of(&data).map_err(|error| Refusal::Serialization(error.into()))?;
        let id = id
            .parse()
            .map_err(|error: Error| Refusal::Backend(error.into()))?;
        self.whole.put(&id, &items, seconds(ttl)).await.map_err(refusal)
    }

    async fn delete(&self, id: &str, _data: T) -> SessionResult<()> {
        match id.parse() {
            Ok(id) => self.whole.end(&id).await.map_err(refusal),
            Err(_) => Ok(()),
        }
    }
}

/// A life of none is the shortest there is, not one without end.
fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into()).max(Duration::from_millis(1))
}

fn refusal(error: SessionError) -> Refusal {
    match error {
        SessionError::Gone => Refusal::NotFound,
        other => Refusal::Backend(other.into()),
    }
}

fn items_of(data: &impl Serialize) -> Result<Items> {
    let value = serde_json::to_value(data)
        .map_err(|error| Error::Value(format!("the session cannot be JSON: {error}")))?;
    match value {
        // A field without a name would be taken for the whole.
        Value::Object(fields) if !fields.contains_key("") => fields
            .into_iter()
            .map(|(name, value)| Ok((Bytes::from(name), Bytes::from(cache::to_json(&value)?))))
            .collect(),
        other => Ok(Items::from([(ALL, Bytes::from(cache::to_json(&other)?))])),
    }
}

fn data_of<T: DeserializeOwned>(session: &Session) -> Result<T> {
    if let Some(json) = session.get(ALL) {
        return cache::from_json(&json);
    }
    let fields = session.items().map(|(name, json)| {
        let name = std::str::from_utf8(&name).map_err(|_| {
            Error::Value("an item's name is not UTF-8: it was set by another program".to_owned())
        })?;
        Ok((name.to_owned(), cache::from_json(&json)?))
    });
    let fields = Value::Object(fields.collect::<Result<Map<_, _>>>()?);
    serde_json::from_value(fields)
        .map_err(|error| Error::Value(format!("not a session of the type asked for: {error}")))
}
