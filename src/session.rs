//! Web sessions as Rust sees them: created, loaded, saved by what changed, renewed and ended.
//!
//! What a session is and what its operations mean is a data type of the machine (`machine/commands/session*.rs`, `SESSION.*`); here is
//! the handle.
//!
//! | file | what is there |
//! |---|---|
//! | `new.rs` | how a session begins |
//! | `loaded.rs` | a session that was loaded, and the bookkeeping of changes |
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
mod loaded;
mod lock;
mod merge;
mod new;
mod owner;
mod renew;
#[cfg(feature = "encryption")]
mod seal;
mod stored;
mod takeover;
mod trouble;
pub mod whole;

pub use crate::machine::session_events::{Reason, SessionEvent, What};
pub use crate::machine::value::Text;
pub use events::{Position, Subscription};
pub use id::{ID_BYTES_MAX, SessionId};
pub use loaded::Session;
pub use lock::{LEASE, LockMode, LockedSession, Locking, WAIT};
pub use merge::{Clash, MERGE_ATTEMPTS, Merge};
pub use new::NewSession;
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
use crate::machine::value::session::Renewal;
use crate::node::{Freshness, Node, Token};
use bytes::Bytes;
use id::IdKey;
use merge::MERGE;
use renew::Renewals;
use std::sync::Arc;
use std::time::Duration;
use stored::Seal;

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
        Bytes::copy_from_slice(&self.ids.key_of(id))
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
    /// is refused as [`SessionError::Retired`]. Once the session has ended nothing is left to be read, whatever is left of the grace.
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
        let key = self.ids.key_of(id);
        let used_at = cache.used_at();
        let read = |view: View<'_>| {
            let Some(slot) = view.slot(&key) else {
                return Ok(None);
            };
            let session = slot.value.as_shared_session()?;
            if !view.goes_on(session) {
                return Ok(None);
            }
            Ok(Some(Session::read(
                id.clone(),
                session,
                slot.deadline(),
                view,
                used_at,
            )))
        };
        let found = cache.look(&[&key], read).await?;
        found.map(|session| self.opened(&key, session)).transpose()
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
