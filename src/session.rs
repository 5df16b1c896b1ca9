//! Web sessions as Rust sees them: created, loaded, saved by what changed, renewed and ended.
//!
//! What a session is and what its operations mean is a data type of the machine (`machine/commands/session.rs`, `SESSION.*`); here are
//! the handle, the ids and the bookkeeping of changes. Locks, merging, events and the index by owner are not here yet.

#[cfg(feature = "encryption")]
mod seal;
mod stored;

#[cfg(feature = "encryption")]
pub use seal::{KEY_BYTES, KEYS_MAX, KeyRing, OVERHEAD_BYTES};
pub use stored::SealError;

use crate::cache::{self, Cache};
use crate::error::{Error, Result};
use crate::machine::entry::Millis;
use crate::machine::keyspace::View;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::value;
use crate::node::{Freshness, Node, Token};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use stored::Seals;

/// The idle timeout of a session that asks for no other: 20 minutes, as ASP.NET has it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// The longest id that is read from outside, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Fresh ids drawn for one session before giving up. With 128 random bits a second is never needed; a bound is a bound.
const ID_ATTEMPTS: usize = 4;

/// A handle to the sessions of one database. Clones are cheap.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
/// use plenary::session::{NewSession, SessionError};
///
/// let sessions = plenary.sessions();
/// let id = sessions.create(NewSession::new().owner("ada").item("theme", "dark")).await?.id().clone();
///
/// let mut here = sessions.load(&id).await?.expect("just created");
/// let mut there = sessions.load(&id).await?.expect("just created");
/// here.set_as("cart", &["book"])?;
/// sessions.save(&mut here).await?;
///
/// there.set("theme", "light"); // read before the cart was saved: it must not undo it
/// assert!(matches!(sessions.save(&mut there).await, Err(SessionError::Stale { .. })));
/// # plenary.stop().await?; Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Sessions {
    cache: Cache,
    /// Seals the values of items; none: they are stored as they are.
    seal: Option<Arc<dyn stored::Seal>>,
}

/// Why a session was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It has ended, or never was. Nothing was written; a session is never brought back by a save.
    #[error("the session has ended, or never was")]
    Gone,
    /// It was changed since it was loaded. Nothing was written; load it, change it again and save that.
    #[error("the session was changed meanwhile: it is at version {version}")]
    Stale {
        /// The version it has now.
        version: u64,
    },
    /// Another session has the new id. Nothing was written.
    #[error("there is a session with the new id")]
    Taken,
    /// The value of an item could not be opened: [`Sessions::sealed_with`]. Nothing was written.
    #[error("item {item:?}: {why}")]
    Unopened {
        /// The item's name.
        item: String,
        /// What is wrong with it.
        #[source]
        why: SealError,
    },
    /// The node could not, or the command was refused; [`Error::may_be_applied`] tells whether the write may have been applied.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// How a session begins.
#[derive(Clone, Debug)]
pub struct NewSession {
    idle_timeout: Duration,
    absolute_deadline: Option<Millis>,
    owner: Bytes,
    items: BTreeMap<Bytes, Bytes>,
}

impl Default for NewSession {
    fn default() -> Self {
        Self::new()
    }
}

impl NewSession {
    /// Nobody's, without items, ending after [`IDLE_TIMEOUT`] without use.
    pub fn new() -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT,
            absolute_deadline: None,
            owner: Bytes::new(),
            items: BTreeMap::new(),
        }
    }

    /// It ends when it was not used for this long (rounded up to a millisecond); zero: never for that reason.
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// It ends then at the latest, in milliseconds since the Unix epoch by the log's clock ([`Node::now`]).
    pub fn absolute_deadline(self, at: Millis) -> Self {
        Self {
            absolute_deadline: Some(at),
            ..self
        }
    }

    /// The user it belongs to.
    pub fn owner(self, owner: impl AsRef<[u8]>) -> Self {
        Self {
            owner: Bytes::copy_from_slice(owner.as_ref()),
            ..self
        }
    }

    /// One item it begins with.
    pub fn item(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.items.insert(
            Bytes::copy_from_slice(name.as_ref()),
            Bytes::copy_from_slice(value.as_ref()),
        );
        self
    }
}

impl Sessions {
    /// The sessions in the cache's database; reads are as fresh as the cache's.
    pub fn new(cache: Cache) -> Self {
        Self { cache, seal: None }
    }

    /// The same handle with reads this fresh.
    ///
    /// With `Local`, the default, a load may miss a save that another instance acknowledged milliseconds ago (use
    /// [`Sessions::at_least`] with the user's token, or `Linearizable`); it never misses the session itself, because an absent one is looked for
    /// again as of now.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            cache: self.cache.with_freshness(freshness),
            seal: self.seal.clone(),
        }
    }

    /// A handle that reads at least what this token has seen: [`Cache::at_least`].
    pub fn at_least(&self, token: Token) -> Self {
        Self {
            cache: self.cache.at_least(token),
            seal: self.seal.clone(),
        }
    }

    /// How far this handle has seen: [`Cache::token`].
    pub fn token(&self) -> Token {
        self.cache.token()
    }

    /// The node behind it.
    pub fn node(&self) -> &Node {
        self.cache.node()
    }

    /// The key under which a session stands in the cache, for `SESSION.*` by Redis clients. The only place that knows it.
    pub fn key_of(&self, id: &SessionId) -> Bytes {
        Bytes::from(format!("session:{}", id.as_str()))
    }

    /// Creates a session under a fresh random id.
    ///
    /// # Errors
    /// [`SessionError::Failed`]. After [`Error::Unknown`] a session that nobody knows the id of may remain until it ends idle.
    pub async fn create(&self, new: NewSession) -> Result<Session, SessionError> {
        for _ in 0..ID_ATTEMPTS {
            let id = SessionId::random()?;
            if self.create_as(&id, &new).await?
                && let Some(session) = self.load(&id).await?
            {
                return Ok(session);
            }
        }
        Err(SessionError::Taken)
    }

    /// Creates a session under this id, unless there is one. Whether it was created.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn create_as(&self, id: &SessionId, new: &NewSession) -> Result<bool, SessionError> {
        let key = self.key_of(id);
        let mut argv = vec![word("SESSION.CREATE"), key.clone(), millis(new.idle_timeout)];
        if let Some(at) = new.absolute_deadline {
            argv.extend([word("UNTIL"), number(at)]);
        }
        if !new.owner.is_empty() {
            argv.extend([word("OWNER"), new.owner.clone()]);
        }
        let items = self.stored(&key, &mut None, &new.items)?;
        if !items.is_empty() {
            argv.extend([word("ITEMS"), count(items.len() / 2)]);
            argv.extend(items);
        }
        match self.write(argv).await? {
            Reply::Nil => Ok(false),
            _ => Ok(true),
        }
    }

    /// A session as this handle's freshness has it; none if it has ended or never was.
    ///
    /// One that is absent here is looked for again as of now, so a login made on another instance a moment ago is found. That costs a
    /// round to a majority for each unknown id.
    ///
    /// # Errors
    /// [`SessionError::Failed`]: [`Error::NotFresh`] also when nobody could say for sure that it is absent.
    pub async fn load(&self, id: &SessionId) -> Result<Option<Session>, SessionError> {
        if let Some(found) = self.look(&self.cache, id).await? {
            return Ok(Some(found));
        }
        self.look(&self.cache.with_freshness(Freshness::Linearizable), id)
            .await
    }

    /// Saves what was changed since the session was loaded, and nothing else; without changes nothing is written.
    ///
    /// # Errors
    /// [`SessionError::Stale`] if it was saved meanwhile, [`SessionError::Gone`] if it has ended, and then nothing was written.
    /// After [`Error::Unknown`] the save may have been applied: saving again then answers `Stale`.
    pub async fn save(&self, session: &mut Session) -> Result<(), SessionError> {
        let (key, version) = (self.key_of(&session.id), number(session.version));
        let Some(mut argv) = session.changes_as_argv(key.clone(), version) else {
            return Ok(());
        };
        let mut place = session.seals.place;
        let items = self.stored(&key, &mut place, session.to_set())?;
        session.seals.place = place;
        if !items.is_empty() {
            argv.extend([word("SET"), count(items.len() / 2)]);
            argv.extend(items);
        }
        session.version = version_of(&self.write(argv).await?)?;
        session.saved();
        Ok(())
    }

    /// Renews a session's life: it ends its idle timeout from now, at its absolute deadline at the latest. Whether it was there.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn touch(&self, id: &SessionId) -> Result<bool, SessionError> {
        Ok(self.write(vec![word("SESSION.TOUCH"), self.key_of(id)]).await? == Reply::Integer(1))
    }

    /// Ends a session. Whether it was there; to end one twice is no error.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn end(&self, id: &SessionId) -> Result<bool, SessionError> {
        Ok(self.write(vec![word("SESSION.END"), self.key_of(id)]).await? == Reply::Integer(1))
    }

    /// Gives a session a fresh random id, and takes the old one from it, in one step: do so when somebody logs in, against session
    /// fixation. Changes that were not saved stay with `session`.
    ///
    /// # Errors
    /// [`SessionError::Gone`] if it has ended.
    pub async fn rename(&self, session: &mut Session) -> Result<(), SessionError> {
        let id = SessionId::random()?;
        let argv = vec![word("SESSION.RENAME"), self.key_of(&session.id), self.key_of(&id)];
        if self.seal.is_some() {
            return self.rename_sealed(session, id, argv).await;
        }
        if self.write(argv).await? == Reply::Integer(0) {
            return Err(SessionError::Taken);
        }
        session.id = id;
        Ok(())
    }

    /// Replaces all items and the absolute deadline of a session; `version` none: whatever its version is. For adapters whose
    /// framework hands over the whole session. The new version.
    ///
    /// # Errors
    /// As [`Sessions::save`].
    pub async fn replace(
        &self,
        id: &SessionId,
        version: Option<u64>,
        new: &NewSession,
    ) -> Result<u64, SessionError> {
        let mut version = version;
        let mut place = self.place_of(id, version.as_mut()).await?;
        let (key, version) = (self.key_of(id), version.map_or_else(|| word("*"), number));
        let mut argv = vec![word("SESSION.SAVE"), key.clone(), version];
        if let Some(at) = new.absolute_deadline {
            argv.extend([word("UNTIL"), number(at)]);
        }
        argv.push(word("REPLACE"));
        let items = self.stored(&key, &mut place, &new.items)?;
        if !items.is_empty() {
            argv.extend([word("SET"), count(items.len() / 2)]);
            argv.extend(items);
        }
        version_of(&self.write(argv).await?)
    }

    /// Moves the time at which a session ends at the latest (0: never for that reason). The version after it.
    ///
    /// # Errors
    /// [`SessionError::Gone`] if it has ended.
    pub async fn set_absolute_deadline(&self, id: &SessionId, at: Millis) -> Result<u64, SessionError> {
        let argv = vec![
            word("SESSION.SAVE"),
            self.key_of(id),
            word("*"),
            word("UNTIL"),
            number(at),
        ];
        version_of(&self.write(argv).await?)
    }

    async fn look(&self, cache: &Cache, id: &SessionId) -> Result<Option<Session>, SessionError> {
        let key = self.key_of(id);
        let read = |view: View<'_>| {
            let Some(slot) = view.slot(&key) else {
                return Ok(None);
            };
            Ok(Some(Session::read(
                id.clone(),
                slot.value.as_session()?,
                slot.deadline,
            )))
        };
        let found = cache.view(read).await?;
        found.map(|session| self.opened(&key, session)).transpose()
    }

    async fn write(&self, argv: Vec<Bytes>) -> Result<Reply, SessionError> {
        self.cache.write(argv).await.map_err(told_apart)
    }
}

/// A session as it was loaded, and what was changed since. It is written by [`Sessions::save`] only; dropping it loses the changes.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    version: u64,
    created_at: Millis,
    idle_timeout_ms: u64,
    absolute_deadline: Millis,
    deadline: Option<Millis>,
    owner: Bytes,
    items: BTreeMap<Bytes, Bytes>,
    /// What a save must say: each name once, with its new value, or none where it was removed.
    changes: BTreeMap<Bytes, Option<Bytes>>,
    /// Which of the settings a save must say.
    settings: Settings,
    seals: Seals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    idle_timeout: bool,
    absolute_deadline: bool,
    owner: bool,
}

impl fmt::Debug for Session {
    /// Shows nothing that a log should not have: neither the id nor any value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Session");
        shown
            .field("id", &self.id)
            .field("version", &self.version)
            .field("items", &self.items.len());
        shown
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    fn read(id: SessionId, session: &value::Session, deadline: Option<Millis>) -> Self {
        Self {
            id,
            version: session.version,
            created_at: session.created_at,
            idle_timeout_ms: session.idle_timeout_ms,
            absolute_deadline: session.absolute_deadline,
            deadline,
            owner: session.owner.clone(),
            items: session
                .items
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            changes: BTreeMap::new(),
            settings: Settings::default(),
            seals: Seals::default(),
        }
    }

    /// Its id: what a cookie carries.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The version that was loaded, or came of the last save.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it was created, in milliseconds since the Unix epoch by the log's clock.
    pub fn created_at(&self) -> Millis {
        self.created_at
    }

    /// It ends when it was not used for this long; zero: never for that reason.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// When it was to end, as of the load, by the log's clock; none: never.
    pub fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// The user it belongs to; empty: nobody.
    pub fn owner(&self) -> &Bytes {
        &self.owner
    }

    /// Its items in the order of their names, unsaved changes among them.
    pub fn items(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.items.iter()
    }

    /// One item.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Bytes> {
        self.items.get(name.as_ref())
    }

    /// One item, read as JSON.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn get_as<T: DeserializeOwned>(&self, name: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get(name).map(|json| cache::from_json(json)).transpose()
    }

    /// Sets an item. The same value again is no change.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        if self.items.get(name).is_some_and(|old| old == value) {
            return;
        }
        let (name, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        self.items.insert(name.clone(), value.clone());
        self.changes.insert(name, Some(value));
    }

    /// Sets an item as JSON.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn set_as<T: Serialize>(&mut self, name: impl AsRef<[u8]>, value: &T) -> Result<()> {
        self.set(name, cache::to_json(value)?);
        Ok(())
    }

    /// Removes an item. Its value, if it was there.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> Option<Bytes> {
        let (name, value) = self.items.remove_entry(name.as_ref())?;
        self.changes.insert(name, None);
        Some(value)
    }

    /// Gives it to a user.
    pub fn set_owner(&mut self, owner: impl AsRef<[u8]>) {
        self.owner = Bytes::copy_from_slice(owner.as_ref());
        self.settings.owner = true;
    }

    /// It ends when it was not used for this long (rounded up to a millisecond) from the save on; zero: never for that reason.
    pub fn set_idle_timeout(&mut self, idle_timeout: Duration) {
        self.idle_timeout_ms = u64::try_from(idle_timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.settings.idle_timeout = true;
    }

    /// It ends then at the latest, in milliseconds since the Unix epoch by the log's clock; 0: never for that reason.
    pub fn set_absolute_deadline(&mut self, at: Millis) {
        self.absolute_deadline = at;
        self.settings.absolute_deadline = true;
    }

    /// Whether a save would write something.
    pub fn is_changed(&self) -> bool {
        let Settings {
            idle_timeout,
            absolute_deadline,
            owner,
        } = self.settings;
        !self.changes.is_empty() || idle_timeout || absolute_deadline || owner || self.seals.are_wanted()
    }

    /// What a save says before the items it sets.
    fn changes_as_argv(&self, key: Bytes, version: Bytes) -> Option<Vec<Bytes>> {
        if !self.is_changed() {
            return None;
        }
        let mut argv = vec![word("SESSION.SAVE"), key, version];
        if self.settings.idle_timeout {
            argv.extend([word("IDLE"), number(self.idle_timeout_ms)]);
        }
        if self.settings.absolute_deadline {
            argv.extend([word("UNTIL"), number(self.absolute_deadline)]);
        }
        if self.settings.owner {
            argv.extend([word("OWNER"), self.owner.clone()]);
        }
        let removed = self.changes.values().filter(|value| value.is_none()).count();
        if removed > 0 {
            argv.extend([word("DEL"), count(removed)]);
            argv.extend(
                self.changes
                    .iter()
                    .filter(|(_, value)| value.is_none())
                    .map(|(name, _)| name.clone()),
            );
        }
        Some(argv)
    }

    fn saved(&mut self) {
        self.changes.clear();
        self.seals.saved();
        self.settings = Settings::default();
    }
}

/// What stands for a session in a cookie: who has it, has the session. `Debug` shows its first four characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// A fresh one: 128 bits from the operating system, as 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|source| Error::Io {
            doing: "drawing a session id".to_owned(),
            source: std::io::Error::other(source),
        })?;
        Ok(Self(bits.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The text, for the cookie.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// Reads an id as a cookie brings it: 1 to [`ID_BYTES_MAX`] letters, digits, `-` and `_`.
    fn from_str(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > ID_BYTES_MAX || !text.bytes().all(allowed) {
            let what = format!("a session id has 1 to {ID_BYTES_MAX} letters, digits, `-` and `_`");
            return Err(Error::Value(what));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.0.len() >= 16 { &self.0[..4] } else { "" };
        write!(f, "SessionId({shown}…)")
    }
}

/// The two refusals that a caller handles, by the prefix that every client sees.
fn told_apart(error: Error) -> SessionError {
    let Error::Refused(CommandError::Other(text)) = &error else {
        return error.into();
    };
    match text.split(' ').next() {
        Some("NOSESSION") => SessionError::Gone,
        Some("STALESESSION") => match text.rsplit(' ').next().and_then(|version| version.parse().ok()) {
            Some(version) => SessionError::Stale { version },
            None => error.into(),
        },
        _ => error.into(),
    }
}

fn version_of(reply: &Reply) -> Result<u64, SessionError> {
    match reply {
        Reply::Integer(version) => Ok(u64::try_from(*version).unwrap_or_default()),
        other => Err(cache::unexpected(other).into()),
    }
}

fn word(word: &'static str) -> Bytes {
    Bytes::from_static(word.as_bytes())
}

fn number(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn count(count: usize) -> Bytes {
    Bytes::from(count.to_string())
}

fn millis(duration: Duration) -> Bytes {
    Bytes::from(cache::millis(duration))
}
