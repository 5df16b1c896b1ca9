//! Locks: one holder at a time in the whole cluster, each with a token that only grows. A lock is a lease (`CACHE.LEASE`) on a key that never has a value.

use super::load::Leased;
use super::swap::Version;
use super::{Cache, millis};
use crate::error::{Error, Result};
use crate::machine::cached;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinError;

/// What the key of a lock begins with, so that a lock and a value can have the same name.
const LOCK_PREFIX: &[u8] = b"lock:";

/// How often [`Lock::execute`] looks anew because the lock was prolonged meanwhile, at most.
const LOOKS_MAX: usize = 10;

/// A lock that was given to its holder. It is over when it is released, or its time is: a holder that was too slow finds that out by
/// [`Lock::token`], which what it writes to can compare, or by writing through [`Lock::execute`].
///
/// Dropping it has it released in the background, without waiting: call [`Lock::release`] to know that it is. When its process ends, it is over at its
/// deadline.
#[derive(Debug)]
pub struct Lock {
    cache: Cache,
    key: Bytes,
    token: u64,
    /// Where it is released if it is dropped.
    runtime: Handle,
    released: bool,
}

impl Cache {
    /// Takes a lock for this long at most (see [`Lock::extend`]). Waits for it in the log: who asked first has it first, on whatever node, the moment it
    /// is given back or its holder's time is over.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// use std::time::Duration;
    ///
    /// let lock = cache.lock("invoices", Duration::from_secs(10), Duration::from_secs(5)).await?;
    /// assert!(cache.try_lock("invoices", Duration::from_secs(10)).await?.is_none());
    /// // Whoever stores for us can refuse a token below one it has seen: `lock.token()`. Plenary itself does:
    /// let number = lock.execute(["INCR", "last-invoice"]).await?;
    /// assert_eq!(number, Some(plenary::Reply::Integer(1))); // none, and nothing was done, had it been over
    /// lock.release().await?;
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// [`Error::Taken`] if it was not given within `wait`; [`Error::Refused`] where a value stands under `lock:` and its name; those of
    /// [`Node::write`](crate::node::Node::write): after [`Error::Unknown`] it may be taken until its time is over.
    pub async fn lock(&self, name: impl AsRef<[u8]>, time: Duration, wait: Duration) -> Result<Lock> {
        let name = name.as_ref();
        let lock = self.acquire(name, time, wait).await?;
        lock.ok_or_else(|| Error::Taken {
            what: format!("the lock {}", String::from_utf8_lossy(name)),
            waited: wait,
        })
    }

    /// Takes a lock if nobody has it.
    ///
    /// # Errors
    /// Those of [`Cache::lock`], save that it is taken.
    pub async fn try_lock(&self, name: impl AsRef<[u8]>, time: Duration) -> Result<Option<Lock>> {
        self.acquire(name.as_ref(), time, Duration::ZERO).await
    }

    /// On a task of its own: a caller that goes while it waits may have been given the lock in the log, and then it is dropped, which releases it.
    async fn acquire(&self, name: &[u8], time: Duration, wait: Duration) -> Result<Option<Lock>> {
        const VALUE: CommandError = CommandError::text("ERR a value stands under the key of the lock");
        let (cache, key) = (self.clone(), Bytes::from([LOCK_PREFIX, name].concat()));
        let task = tokio::spawn(async move {
            match cache.lease_with(&key, time, wait, Vec::new()).await? {
                Leased::Ours { token, .. } => Ok(Some(Lock {
                    cache,
                    key,
                    token,
                    runtime: Handle::current(),
                    released: false,
                })),
                Leased::Taken => Ok(None),
                Leased::There(_) => Err(VALUE.into()),
            }
        });
        let ended = |_: JoinError| Error::Stopped {
            why: "its runtime ends".to_owned(),
        };
        task.await.map_err(ended)?
    }
}

impl Lock {
    /// Greater than the token of every earlier holder of any lock. What the holder writes to can remember the greatest it has seen and refuse smaller
    /// ones: then a holder that was too slow cannot undo what a later one did.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether it still lasts, as far as this node knows.
    ///
    /// # Errors
    /// Those of [`Cache::get`].
    pub async fn is_held(&self) -> Result<bool> {
        Ok(self.held_at().await?.is_some())
    }

    /// Lets it last for this long from now. False if it is over.
    ///
    /// # Errors
    /// Those of [`Node::write`](crate::node::Node::write).
    pub async fn extend(&self, time: Duration) -> Result<bool> {
        let (token, time) = (self.token.to_string(), millis(time));
        let argv = [b"CACHE.EXTEND", &self.key[..], token.as_bytes(), &time];
        Ok(self.cache.run(&argv).await? == Reply::Integer(1))
    }

    /// Runs a command, as [`Cache::execute`] does, only if the lock still lasts: both are one step of the log. Its reply; none, and nothing was done,
    /// if it is over. Not for commands that wait.
    ///
    /// # Errors
    /// Those of [`Cache::execute`].
    pub async fn execute<A: Into<Bytes>>(&self, argv: impl IntoIterator<Item = A>) -> Result<Option<Reply>> {
        let argv: Vec<Bytes> = argv.into_iter().map(Into::into).collect();
        for _ in 0..LOOKS_MAX {
            let Some(version) = self.held_at().await? else {
                return Ok(None);
            };
            let reply = self.cache.run_at(&self.key, version, argv.clone()).await?;
            if reply.is_some() {
                return Ok(reply);
            }
            // Over, or prolonged by another task: this handle has seen which.
        }
        Err(Error::Taken {
            what: String::from_utf8_lossy(&self.key).into_owned(),
            waited: Duration::ZERO,
        })
    }

    /// Gives it back: whoever waits first has it at once. False if it was over before.
    ///
    /// # Errors
    /// Those of [`Node::write`](crate::node::Node::write); it is over at its deadline then.
    pub async fn release(mut self) -> Result<bool> {
        // Also where this fails, or is not waited for: another attempt in the background would not know more.
        let given_back = self.cache.give_back(&self.key, self.token, None).await;
        self.released = given_back.is_ok();
        given_back
    }

    /// The version of its key while it lasts.
    async fn held_at(&self) -> Result<Option<Version>> {
        self.cache
            .look(&[&self.key], |view| {
                let lease = cached::find(&view, &self.key)?.and_then(|entry| entry.lease);
                let held = lease == Some(self.token);
                Ok(held.then(|| Version(view.version(&self.key))))
            })
            .await
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let (cache, key, token) = (self.cache.clone(), self.key.clone(), self.token);
        self.runtime.spawn(async move {
            if let Err(error) = cache.give_back(&key, token, None).await {
                tracing::debug!(%error, "a lock was not given back: it is over at its deadline");
            }
        });
    }
}
