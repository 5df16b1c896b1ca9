//! All sessions of a user: for a page that lists them, to sign out everywhere, to allow only so many.

use super::{Session, SessionError, Sessions, count_of, number, word};
use crate::machine::entry::Millis;
use crate::machine::reply::Reply;
use crate::remote::Sight;
use bytes::Bytes;
use std::fmt;

/// How many sessions a user may have, and what happens when there would be one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtMost {
    /// The oldest of them end, as [`Reason::Replaced`](super::Reason::Replaced).
    OldestOut(u64),
    /// The new one is refused as [`SessionError::TooMany`].
    Refuse(u64),
}

impl AtMost {
    /// As `SESSION.CREATE` is told of it.
    pub(super) fn argv(self) -> [Bytes; 3] {
        let (count, what) = match self {
            Self::OldestOut(count) => (count, "OLDEST-OUT"),
            Self::Refuse(count) => (count, "REFUSE"),
        };
        [word("MAX"), number(count), word(what)]
    }
}

/// One of the sessions of a user, seen without its id, which is stored nowhere.
#[derive(Clone)]
pub struct OwnedSession {
    key: Bytes,
    created_at: Millis,
    deadline: Option<Millis>,
    items: Vec<(Bytes, Bytes)>,
}

impl fmt::Debug for OwnedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedSession")
            .field("key", &self.key)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

impl OwnedSession {
    /// The key under which it stands: [`Sessions::key_of`] its id, so that one can tell which is the session at hand.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// When it was created, in milliseconds since the Unix epoch by the log's clock.
    pub fn created_at(&self) -> Millis {
        self.created_at
    }

    /// When it ends unless it is used; none: never.
    pub fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// One item, as it is stored.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&Bytes> {
        let name = name.as_ref();
        self.items
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    }
}

impl Sessions {
    /// The sessions of a user, oldest first.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn owned(&self, owner: impl AsRef<[u8]>) -> Result<Vec<OwnedSession>, SessionError> {
        let owner = Bytes::copy_from_slice(owner.as_ref());
        let owned = self.cache.view(Sight::Owned(&owner), |view| {
            let owned = view.sessions_of(&owner).filter_map(|key| {
                let (session, slot) = (view.session(key).ok()??, view.slot(key)?);
                let items = session.items.living(view.passed());
                Some(OwnedSession {
                    key: key.clone(),
                    created_at: session.created_at,
                    deadline: slot.deadline(),
                    items: items
                        .map(|item| (item.name.to_bytes(), item.value.to_bytes()))
                        .collect(),
                })
            });
            Ok(owned.collect())
        });
        Ok(owned.await?)
    }

    /// Ends a session of a user that was found by [`Sessions::owned`]. Whether it was there.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn end_one(&self, session: &OwnedSession) -> Result<bool, SessionError> {
        Ok(self.write(vec![word("SESSION.END"), session.key.clone()]).await? == Reply::Integer(1))
    }

    /// Ends the sessions of a user, save perhaps the one at hand: sign out everywhere. How many.
    ///
    /// # Errors
    /// [`SessionError::Failed`]; some may have ended then.
    pub async fn end_owned(
        &self,
        owner: impl AsRef<[u8]>,
        except: Option<&Session>,
    ) -> Result<u64, SessionError> {
        let mut argv = vec![word("SESSION.ENDOWNED"), Bytes::copy_from_slice(owner.as_ref())];
        if let Some(except) = except {
            argv.extend([word("EXCEPT"), self.key_of(&except.id)]);
        }
        let mut ended = 0;
        loop {
            // A command ends so many at most.
            match count_of(&self.write(argv.clone()).await?)? {
                0 => return Ok(ended),
                more => ended += more,
            }
        }
    }
}
