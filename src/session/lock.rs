//! Locks on sessions, for the classic model: a request has the session to itself while it works, and those that come meanwhile stand in a queue.

use super::{Session, SessionError, SessionId, Sessions, count_of, number, word};
use crate::cache;
use crate::error::Error;
use crate::machine::reply::Reply;
pub use crate::machine::value::session::Mode as LockMode;
use bytes::Bytes;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// How long a lock is held at most, unless it is asked for or extended: what a request may take, as ASP.NET's `executionTimeout` has it.
pub const LEASE: Duration = Duration::from_secs(110);

/// How long a lock is waited for, unless it is asked for.
pub const WAIT: Duration = Duration::from_secs(30);

/// What is asked of [`Sessions::lock`].
#[derive(Clone, Debug)]
pub struct Locking {
    mode: LockMode,
    holder: Bytes,
    lease: Duration,
    wait: Duration,
}

impl Locking {
    /// To write: nobody else has the session meanwhile.
    pub fn exclusive() -> Self {
        Self {
            mode: LockMode::Exclusive,
            holder: Bytes::new(),
            lease: LEASE,
            wait: WAIT,
        }
    }

    /// To read what nobody changes meanwhile; others may read it as well.
    pub fn shared() -> Self {
        Self {
            mode: LockMode::Shared,
            ..Self::exclusive()
        }
    }

    /// Who has it, for people who look: a host, a request. 256 bytes at most.
    pub fn holder(self, holder: impl AsRef<[u8]>) -> Self {
        let holder = Bytes::copy_from_slice(holder.as_ref());
        Self { holder, ..self }
    }

    /// The lock ends after this long, so that a holder who is gone blocks nobody for ever; with its node it ends within seconds,
    /// while that of a remote handle is bound to no member and ends by its lease alone. 1 ms to a day, [`LEASE`] if nothing is said.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// How long to wait in the queue; zero: not at all. [`WAIT`] if nothing is said.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}

/// A session that is locked, as it was when it was locked. Dropped, it gives the lock up in the background; [`LockedSession::unlock`] and
/// [`LockedSession::save_and_unlock`] say whether that was done.
pub struct LockedSession {
    sessions: Sessions,
    session: Session,
    token: u64,
    mode: LockMode,
    held: bool,
}

impl fmt::Debug for LockedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedSession")
            .field("session", &self.session)
            .field("token", &self.token)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Deref for LockedSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for LockedSession {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl LockedSession {
    /// Grows with every lock given on any session: hand it to what the lock is to protect, which then refuses a lower one than it has seen.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// With whom it is shared.
    pub fn mode(&self) -> LockMode {
        self.mode
    }

    /// Saves what was changed, and keeps the lock.
    ///
    /// # Errors
    /// [`SessionError::LockEnded`] if the lease is over, or the lock was for reading: nothing was written.
    pub async fn save(&mut self) -> Result<(), SessionError> {
        let says = [word("LOCK"), number(self.token)];
        self.sessions.save_saying(&mut self.session, &says, false).await
    }

    /// Saves what was changed and gives the lock up, in one round.
    ///
    /// # Errors
    /// As [`LockedSession::save`]; the lock is then given up as when it is dropped.
    pub async fn save_and_unlock(mut self) -> Result<Session, SessionError> {
        let says = [word("LOCK"), number(self.token), word("UNLOCK")];
        self.sessions.save_saying(&mut self.session, &says, true).await?;
        self.held = false;
        Ok(self.session.clone())
    }

    /// Gives the lock up; what was changed is not saved. Whether it was still held.
    ///
    /// # Errors
    /// [`SessionError::Failed`]; the lock then ends with its lease.
    pub async fn unlock(mut self) -> Result<bool, SessionError> {
        self.held = false;
        let key = self.sessions.key_of(self.session.id());
        self.sessions.unlock(&key, self.token).await
    }

    /// Holds it this long from now on. Whether it was still held.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn extend(&self, lease: Duration) -> Result<bool, SessionError> {
        let key = self.sessions.key_of(self.session.id());
        let lease = Bytes::from(cache::millis(lease));
        let argv = vec![word("SESSION.EXTEND"), key, number(self.token), lease];
        Ok(self.sessions.write(argv).await? == Reply::Integer(1))
    }

    /// Gives the session a fresh id, as [`Sessions::rename_with_grace`] does; the lock goes with it.
    ///
    /// # Errors
    /// As [`Sessions::rename`].
    pub async fn rename(&mut self, grace: Duration) -> Result<(), SessionError> {
        let says = [word("LOCK"), number(self.token)];
        self.sessions.rename_saying(&mut self.session, grace, &says).await
    }
}

impl Drop for LockedSession {
    fn drop(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (sessions, token) = (self.sessions.clone(), self.token);
        let key = self.sessions.key_of(self.session.id());
        runtime.spawn(async move {
            if let Err(error) = sessions.unlock(&key, token).await {
                tracing::debug!(%error, "a session's lock was not given up: it ends with its lease");
            }
        });
    }
}

impl Sessions {
    /// Locks a session and loads it as it is then. Whoever asks while another has it waits in a queue, in order, on whatever node, and is woken when
    /// the other gives it up: nobody polls.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// use plenary::session::{Locking, NewSession};
    ///
    /// let sessions = plenary.sessions();
    /// let id = sessions.create(NewSession::new()).await?.id().clone();
    /// let mut session = sessions.lock(&id, Locking::exclusive()).await?;
    /// session.set("basket", "book");
    /// session.save_and_unlock().await?;
    /// # plenary.stop().await?; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Locked`] if the wait was in vain, [`SessionError::Gone`] if it has ended, also meanwhile.
    pub async fn lock(&self, id: &SessionId, locking: Locking) -> Result<LockedSession, SessionError> {
        let mode = match locking.mode {
            LockMode::Exclusive => "EXCLUSIVE",
            LockMode::Shared => "SHARED",
        };
        let key = self.key_of(id);
        let mut argv = vec![word("SESSION.LOCK"), key.clone(), word(mode), locking.holder];
        argv.push(Bytes::from(cache::millis(locking.lease)));
        if !locking.wait.is_zero() {
            argv.extend([word("WAIT"), Bytes::from(cache::millis(locking.wait))]);
        }
        // A member that answers a remote handle is not who has the lock: its end tells nothing of the holder's.
        if self.node().is_some() {
            argv.push(word("BOUND"));
        }
        // In a task of its own: where the caller is gone before the lock comes, the lock comes all the same, and is given up at once.
        let (sessions, id, mode) = (self.clone(), id.clone(), locking.mode);
        let locked = tokio::spawn(async move { sessions.locked(argv, id, mode).await });
        locked.await.unwrap_or_else(|error| {
            let why = format!("waiting for a lock: {error}");
            Err(SessionError::Failed(Error::Stopped { why }))
        })
    }

    async fn locked(
        &self,
        argv: Vec<Bytes>,
        id: SessionId,
        mode: LockMode,
    ) -> Result<LockedSession, SessionError> {
        let reply = self.write(argv).await?;
        if reply == Reply::Nil {
            return Err(SessionError::Locked);
        }
        let token = count_of(&reply)?;
        // Applied here, so this node has the session as it was locked, or what came after.
        let found = self.look(&self.cache, &id).await;
        let session = match found.and_then(|found| found.ok_or(SessionError::Gone)) {
            Ok(session) => session,
            Err(error) => {
                // Nobody gets the lock, so nobody may have to wait for its end.
                if let Err(error) = self.unlock(&self.key_of(&id), token).await {
                    tracing::debug!(%error, "a session's lock was not given up: it ends with its lease");
                }
                return Err(error);
            }
        };
        Ok(LockedSession {
            sessions: self.clone(),
            session,
            token,
            mode,
            held: true,
        })
    }

    async fn unlock(&self, key: &Bytes, token: u64) -> Result<bool, SessionError> {
        let argv = vec![word("SESSION.UNLOCK"), key.clone(), number(token)];
        Ok(self.write(argv).await? == Reply::Integer(1))
    }
}
