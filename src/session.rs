//! Web sessions as Rust sees them: created, loaded, saved by what changed, renewed and ended.
//!
//! What a session is and what its operations mean is a data type of the machine (`machine/commands/session*.rs`, `SESSION.*`); here are
//! the handle, the ids and the bookkeeping of changes.
//!
//! | file | what is there |
//! |---|---|
//! | `id.rs` | ids, and what of them is stored |
//! | `lock.rs` | the classic model: one request at a time has a session |
//! | `merge.rs` | the modern one: requests run side by side, and what they changed is brought together |
//! | `renew.rs` | keeping sessions alive without a write for each use |
//! | `owner.rs` | all sessions of a user |
//! | `events.rs` | what happened to sessions |
//! | `trouble.rs` | what happens while the cluster cannot answer |
//! | `whole.rs` | for frameworks that hand over whole sessions |
//! | `takeover.rs` | sessions that another program left as strings |
//! | `stored.rs`, `seal.rs` | how values stand in the cache: as they are, or sealed with a key |

mod events;
mod id;
mod lock;
mod merge;
mod owner;
mod renew;
#[cfg(feature = "encryption")]
mod seal;
mod stored;
mod takeover;
mod trouble;
pub mod whole;

pub use crate::machine::session_events::{Reason, SessionEvent, What};
pub use events::{Position, Subscription};
pub use id::{ID_BYTES_MAX, SessionId};
pub use lock::{LEASE, LockMode, LockedSession, Locking, WAIT};
pub use merge::{Clash, MERGE_ATTEMPTS, Merge};
pub use owner::{AtMost, OwnedSession};
#[cfg(feature = "encryption")]
pub use seal::{KEY_BYTES, KEYS_MAX, KeyRing, OVERHEAD_BYTES};
pub use stored::SealError;
pub use trouble::Trouble;

use crate::cache::{self, Cache};
use crate::error::{Error, Result};
use crate::machine::entry::Millis;
use crate::machine::keyspace::View;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::value;
use crate::machine::value::session::Renewal;
use crate::node::{Freshness, Node, Token};
use bytes::Bytes;
use id::IdKey;
use merge::MERGE;
use renew::Renewals;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use stored::{Seal, Seals};

/// The idle timeout of a session that asks for no other: 20 minutes, as ASP.NET has it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20 * 60);

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
    ids: IdKey,
    renewals: Renewals,
    trouble: Trouble,
    /// Seals the values of items; none: they are stored as they are.
    seal: Option<Arc<dyn Seal>>,
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
    /// An item that was to be saved was changed since the session was loaded. Nothing was written.
    #[error("an item was changed meanwhile: {what}")]
    Conflict {
        /// Which, and at which version the session is.
        what: String,
    },
    /// Somebody else has it locked, and the wait was in vain. Nothing was written.
    #[error("somebody else has the session locked")]
    Locked,
    /// The lock of this token has ended, or is for reading. Nothing was written.
    #[error("the lock has ended, or is for reading")]
    LockEnded,
    /// It goes on under another id: what can be read under this one is what it was before. Nothing was written.
    #[error("the session goes on under another id")]
    Retired,
    /// Its owner has as many sessions as allowed. Nothing was written.
    #[error("the user has as many sessions as allowed")]
    TooMany,
    /// Events after the position asked for are not kept any more.
    #[error("events up to {} are not kept any more: go on from there", position.0)]
    EventsLost {
        /// The first position from which all are there.
        position: Position,
    },
    /// The value of an item could not be opened: `Sessions::sealed_with`. Nothing was written.
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
    slack: Option<Duration>,
    absolute_deadline: Option<Millis>,
    owner: Bytes,
    at_most: Option<AtMost>,
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
            slack: None,
            absolute_deadline: None,
            owner: Bytes::new(),
            at_most: None,
            items: BTreeMap::new(),
        }
    }

    /// It ends when it was not used for this long (rounded up to a millisecond); zero: never for that reason.
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// By how much it may end later than its idle timeout says (rounded up to a millisecond): uses that come within half of it after one that was
    /// written down are not. 5 % of the idle timeout, one second at least, if nothing is said.
    pub fn slack(self, slack: Duration) -> Self {
        let slack = Some(slack);
        Self { slack, ..self }
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

    /// How many sessions its owner may have, this one among them.
    pub fn owner_at_most(self, at_most: AtMost) -> Self {
        let at_most = Some(at_most);
        Self { at_most, ..self }
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
        Self {
            cache,
            ids: IdKey::default(),
            renewals: Renewals::default(),
            trouble: Trouble::default(),
            seal: None,
        }
    }

    /// The same handle, whose sessions stand under hashes of their ids that are keyed with this. Every process that is to find the same sessions must
    /// have the same key; another key is another set of sessions.
    pub fn with_id_key(&self, key: impl AsRef<[u8]>) -> Self {
        Self {
            ids: IdKey::new(key.as_ref()),
            ..self.clone()
        }
    }

    /// The same handle, which does this while the cluster cannot answer.
    pub fn with_trouble(&self, trouble: Trouble) -> Self {
        Self {
            trouble,
            ..self.clone()
        }
    }

    /// The same handle with reads this fresh.
    ///
    /// With `Local`, the default, a load may miss a save that another instance acknowledged milliseconds ago (use
    /// [`Sessions::at_least`] with the user's token, or `Linearizable`); it never misses the session itself, because an absent one is looked for
    /// again as of now.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            cache: self.cache.with_freshness(freshness),
            ..self.clone()
        }
    }

    /// A handle that reads at least what this token has seen: [`Cache::at_least`].
    pub fn at_least(&self, token: Token) -> Self {
        Self {
            cache: self.cache.at_least(token),
            ..self.clone()
        }
    }

    /// How far this handle has seen: [`Cache::token`].
    pub fn token(&self) -> Token {
        self.cache.token()
    }

    /// The node behind it; none where that is in another process.
    pub fn node(&self) -> Option<&Node> {
        self.cache.node()
    }

    /// Now, by the log's clock as it is estimated here.
    pub fn now(&self) -> Millis {
        self.cache.door().now()
    }

    /// How far the log is known to be here.
    #[cfg_attr(
        not(feature = "tower-sessions"),
        allow(dead_code, reason = "tower-sessions uses it")
    )]
    pub(crate) fn reached(&self) -> Token {
        self.cache.door().reached()
    }

    /// The database they are in.
    pub(crate) fn database(&self) -> u8 {
        self.cache.db()
    }

    /// The key under which a session stands in the cache, for `SESSION.*` by Redis clients: `session:` and 32 hexadecimal digits, the first half of
    /// HMAC-SHA-256 over the id with the key of [`Sessions::with_id_key`] (without one, `plenary session id`). So the id, which opens the session, is
    /// stored nowhere.
    pub fn key_of(&self, id: &SessionId) -> Bytes {
        self.ids.key_of(id)
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
        match self.write(self.creation(id, new)?).await? {
            Reply::Nil => Ok(false),
            _ => Ok(true),
        }
    }

    /// A session as this handle's freshness has it; none if it has ended or never was.
    ///
    /// To load is to use: the session lives on for its idle timeout from now, which costs a write once in half its slack at most ([`NewSession::slack`]).
    /// [`Sessions::peek`] looks without using.
    ///
    /// One that is absent here is looked for again as of now, so a login made on another instance a moment ago is found. That costs a
    /// round to a majority for each unknown id.
    ///
    /// # Errors
    /// [`SessionError::Failed`]: [`Error::NotFresh`] also when nobody could say for sure that it is absent.
    pub async fn load(&self, id: &SessionId) -> Result<Option<Session>, SessionError> {
        let loaded = self.peek(id).await?;
        if let Some(session) = &loaded {
            // What it is now was read: that its life could not be renewed is no reason to withhold it.
            if let Err(error) = self.renew(id, session.renewal).await {
                tracing::debug!(%error, "a session was not renewed");
            }
        }
        Ok(loaded)
    }

    /// [`Sessions::load`] for somebody who looks on: the session's life is not renewed.
    ///
    /// # Errors
    /// As [`Sessions::load`].
    pub async fn peek(&self, id: &SessionId) -> Result<Option<Session>, SessionError> {
        let found = self.look_for(&self.cache, id).await?;
        if found.is_some() {
            return Ok(found);
        }
        let now = self.cache.with_freshness(Freshness::Linearizable);
        self.look_for(&now, id).await
    }

    /// Saves what was changed since the session was loaded, and nothing else; without changes nothing is written.
    ///
    /// # Errors
    /// [`SessionError::Stale`] if it was saved meanwhile, [`SessionError::Gone`] if it has ended, [`SessionError::Locked`] if somebody has it locked,
    /// and then nothing was written. After [`Error::Unknown`] the save may have been applied: saving again then answers `Stale`.
    pub async fn save(&self, session: &mut Session) -> Result<(), SessionError> {
        self.save_saying(session, &[], false).await
    }

    /// Saves what was changed, and says this as well; if `anyway` also where nothing was changed.
    async fn save_saying(
        &self,
        session: &mut Session,
        says: &[Bytes],
        anyway: bool,
    ) -> Result<(), SessionError> {
        if !anyway && !session.is_changed() {
            return Ok(());
        }
        let (key, version) = (self.key_of(&session.id), number(session.version));
        let mut argv = vec![word("SESSION.SAVE"), key.clone(), version];
        argv.extend_from_slice(says);
        session.say_changes(&mut argv);
        // What is only sealed anew must not be in conflict with what others have changed.
        let merges = says.contains(&word(MERGE));
        let mut place = session.seals.place_to_save(merges);
        let items = self.stored(&key, &mut place, session.to_set(merges))?;
        session.seals.place = place;
        if !items.is_empty() {
            argv.extend([word("SET"), count(items.len() / 2)]);
            argv.extend(items);
        }
        session.version = count_of(&self.write(argv).await?)?;
        session.saved();
        Ok(())
    }

    /// Renews a session's life: it ends its idle timeout from now, at its absolute deadline at the latest. Whether it was there.
    ///
    /// Uses are not written down one by one: [`NewSession::slack`] says how.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn touch(&self, id: &SessionId) -> Result<bool, SessionError> {
        match self.peek(id).await? {
            Some(session) => self.renew(id, session.renewal).await,
            None => Ok(false),
        }
    }

    async fn renew(&self, id: &SessionId, renewal: Renewal) -> Result<bool, SessionError> {
        match renewal {
            Renewal::No => Ok(true),
            Renewal::Soon => {
                self.renewals.soon(&self.cache, self.key_of(id));
                Ok(true)
            }
            Renewal::Now => Ok(renew::now(&self.cache, self.key_of(id)).await?),
        }
    }

    /// Ends a session, also by an id it had before, while that can still be read. Whether it was there; to end one twice is no error.
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
    /// [`SessionError::Gone`] if it has ended, [`SessionError::Locked`] if somebody has it locked.
    pub async fn rename(&self, session: &mut Session) -> Result<(), SessionError> {
        self.rename_saying(session, Duration::ZERO, &[]).await
    }

    /// [`Sessions::rename`], after which the old id can still be read for a while, so that requests of the same user that are under way are not logged
    /// out. What they read is what the session was at the renaming, so somebody who planted the old id sees nothing of what comes; what they save
    /// is refused as [`SessionError::Retired`].
    ///
    /// # Errors
    /// As [`Sessions::rename`].
    pub async fn rename_with_grace(
        &self,
        session: &mut Session,
        grace: Duration,
    ) -> Result<(), SessionError> {
        self.rename_saying(session, grace, &[]).await
    }

    async fn rename_saying(
        &self,
        session: &mut Session,
        grace: Duration,
        says: &[Bytes],
    ) -> Result<(), SessionError> {
        let id = SessionId::random()?;
        let mut argv = vec![word("SESSION.RENAME"), self.key_of(&session.id), self.key_of(&id)];
        argv.extend_from_slice(says);
        if !grace.is_zero() {
            argv.extend([word("GRACE"), millis(grace)]);
        }
        if self.seal.is_some() {
            return self.rename_sealed(session, id, argv, says).await;
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
        let mut place = self.place_of(id, version.as_mut(), &[]).await?;
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
        count_of(&self.write(argv).await?)
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
        count_of(&self.write(argv).await?)
    }

    /// What creates a session under this id.
    fn creation(&self, id: &SessionId, new: &NewSession) -> Result<Vec<Bytes>, SessionError> {
        let key = self.key_of(id);
        let mut argv = vec![word("SESSION.CREATE"), key.clone(), millis(new.idle_timeout)];
        if let Some(slack) = new.slack {
            argv.extend([word("SLACK"), millis(slack)]);
        }
        if let Some(at) = new.absolute_deadline {
            argv.extend([word("UNTIL"), number(at)]);
        }
        if !new.owner.is_empty() {
            argv.extend([word("OWNER"), new.owner.clone()]);
            argv.extend(new.at_most.into_iter().flat_map(AtMost::argv));
        }
        let items = self.stored(&key, &mut None, &new.items)?;
        if !items.is_empty() {
            argv.extend([word("ITEMS"), count(items.len() / 2)]);
            argv.extend(items);
        }
        Ok(argv)
    }

    async fn look(&self, cache: &Cache, id: &SessionId) -> Result<Option<Session>, SessionError> {
        let key = self.key_of(id);
        let read = |view: View<'_>| {
            let Some(slot) = view.slot(&key) else {
                return Ok(None);
            };
            let session = slot.value.as_session()?;
            Ok(Some(Session::read(
                id.clone(),
                session,
                slot.deadline,
                view.now(),
            )))
        };
        let found = cache.look(&[&key], read).await?;
        found.map(|session| self.opened(&key, session)).transpose()
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
    /// What each of these was when it was loaded.
    bases: BTreeMap<Bytes, Option<Bytes>>,
    /// Whether this use of it is to be written down.
    renewal: Renewal,
    /// Whether this node could not say that it is as fresh as was asked.
    stale: bool,
    retired: bool,
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
    fn read(id: SessionId, session: &value::Session, deadline: Option<Millis>, now: Millis) -> Self {
        Self {
            renewal: session.renewal(deadline, now),
            stale: false,
            retired: session.is_retired(),
            bases: BTreeMap::new(),
            id,
            version: session.version,
            created_at: session.created_at,
            idle_timeout_ms: session.idle_timeout_ms,
            absolute_deadline: session.absolute_deadline,
            deadline,
            owner: session.owner.clone(),
            items: session
                .items
                .living(now)
                .map(|item| (item.name.clone(), item.value.clone()))
                .collect(),
            changes: BTreeMap::new(),
            settings: Settings::default(),
            seals: Seals::of(&session.items, now),
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

    /// Whether the cluster could not be asked, and this is what this node had: [`Trouble::ServeLocal`].
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether it goes on under another id, and this is what it was: [`Sessions::rename_with_grace`]. It can only be read.
    pub fn is_retired(&self) -> bool {
        self.retired
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
        let old = self.items.insert(name.clone(), value.clone());
        self.change(name, old, Some(value));
    }

    fn change(&mut self, name: Bytes, from: Option<Bytes>, to: Option<Bytes>) {
        self.bases.entry(name.clone()).or_insert(from);
        self.changes.insert(name, to);
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
        self.change(name, Some(value.clone()), None);
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

    /// What a save says of them, but for the items that it sets.
    fn say_changes(&self, argv: &mut Vec<Bytes>) {
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
    }

    fn saved(&mut self) {
        self.changes.clear();
        self.bases.clear();
        self.seals.saved();
        self.settings = Settings::default();
    }
}

/// The refusals that a caller handles, by the word with which every client sees them.
fn told_apart(error: Error) -> SessionError {
    let Error::Refused(CommandError::Other(text)) = &error else {
        return error.into();
    };
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let last = text.rsplit(' ').next().and_then(|last| last.parse().ok());
    match (word, last) {
        ("NOSESSION", _) => SessionError::Gone,
        ("STALESESSION", Some(version)) => SessionError::Stale { version },
        ("CONFLICTSESSION", _) => SessionError::Conflict {
            what: rest.to_owned(),
        },
        ("LOCKEDSESSION", _) => SessionError::Locked,
        ("NOTLOCKED", _) => SessionError::LockEnded,
        ("RETIREDSESSION", _) => SessionError::Retired,
        ("LIMITSESSION", _) => SessionError::TooMany,
        _ => error.into(),
    }
}

/// A version, a token or a count.
fn count_of(reply: &Reply) -> Result<u64, SessionError> {
    match reply {
        Reply::Integer(number) => Ok(u64::try_from(*number).unwrap_or_default()),
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
