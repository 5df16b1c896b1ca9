//! Taking over a session that another program left in the cache as a string: what a framework's store kept in a Redis, brought here as it was.
//!
//! In one step the session is created and the string removed, or neither: of several instances that take one over at once a single one does, and
//! nothing is left that could bring it back when it has ended. Knows no layout: who asks says what the bytes mean.

use super::{NewSession, SessionError, SessionId, Sessions, word};
use crate::error::{Error, Result};
use crate::machine::admit_items;
use crate::machine::entry::Millis;
use crate::machine::value::Value;
use crate::node::Freshness;
use bytes::Bytes;
use std::time::Duration;

/// How often a string is looked at again because it changed meanwhile: an application that still writes it does so once for a request.
const ATTEMPTS: usize = 16;

impl Sessions {
    /// Creates a session from the string under `key`, which `read` understands, and removes the string. Whether there was one, and no session
    /// with this id yet.
    ///
    /// The string's deadline becomes the session's absolute one; it has no idle timeout until a save says one.
    ///
    /// # Errors
    /// [`SessionError::Failed`]: also what `read` answers, and if a session may not be so large; then the string stays.
    pub async fn take_over(
        &self,
        id: &SessionId,
        key: &[u8],
        read: impl Fn(&[u8]) -> Result<NewSession>,
    ) -> Result<bool, SessionError> {
        let own = self.key_of(id);
        for _ in 0..ATTEMPTS {
            let Some(foreign) = self.foreign(key, Some(&own)).await? else {
                return Ok(false);
            };
            let mut new = read(&foreign.string)?.idle_timeout(Duration::ZERO);
            new.absolute_deadline = foreign.deadline.or(new.absolute_deadline);
            // What is refused would not keep the string from being removed: a transaction goes on.
            let items = self.stored(&own, &mut None, &new.items)?;
            let (pairs, _) = items.as_chunks();
            admit_items(pairs.iter().map(|[name, value]| (name, value))).map_err(Error::from)?;
            let then = (&own, self.creation(id, &new)?);
            if self.instead_of(key, foreign.version, Some(then)).await? {
                return Ok(true);
            }
        }
        Err(changing())
    }

    /// Removes the string under `key` if `read` understands it, so that it cannot be taken over any more. What else is there stays: it is
    /// somebody else's.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn drop_foreign(
        &self,
        key: &[u8],
        read: impl Fn(&[u8]) -> Result<NewSession>,
    ) -> Result<(), SessionError> {
        for _ in 0..ATTEMPTS {
            let found = self.foreign(key, None).await?;
            let Some(foreign) = found.filter(|foreign| read(&foreign.string).is_ok()) else {
                return Ok(());
            };
            if self.instead_of(key, foreign.version, None).await? {
                return Ok(());
            }
        }
        Err(changing())
    }

    /// The string under `key` as of now, unless there is something under `own`.
    async fn foreign(&self, key: &[u8], own: Option<&Bytes>) -> Result<Option<Foreign>, SessionError> {
        let now = self.cache.with_freshness(Freshness::Linearizable);
        let keys: Vec<&[u8]> = std::iter::once(key).chain(own.map(|own| &own[..])).collect();
        let found = now.look(&keys, |view| {
            if own.is_some_and(|own| view.slot(own).is_some()) {
                return Ok(None);
            }
            Ok(view.slot(key).and_then(|slot| match &slot.value {
                Value::String(string) => Some(Foreign {
                    string: string.bytes().clone(),
                    deadline: slot.deadline(),
                    version: slot.version,
                }),
                _ => None,
            }))
        });
        Ok(found.await?)
    }

    /// Removes the string that was seen at this version, and runs what comes in its place where nothing stands yet. Whether it was still so.
    async fn instead_of(
        &self,
        key: &[u8],
        version: u64,
        then: Option<(&Bytes, Vec<Bytes>)>,
    ) -> Result<bool, SessionError> {
        let key = Bytes::copy_from_slice(key);
        let mut watched = vec![(key.clone(), version)];
        let mut commands = vec![vec![word("DEL"), key]];
        if let Some((own, argv)) = then {
            watched.push((own.clone(), 0));
            commands.push(argv);
        }
        Ok(self.cache.transact(watched, commands).await?.is_some())
    }
}

/// A string of another program, as it was seen.
struct Foreign {
    string: Bytes,
    deadline: Option<Millis>,
    version: u64,
}

fn changing() -> SessionError {
    let why = format!("a session of another program was changed {ATTEMPTS} times while it was taken over");
    Error::Value(why).into()
}
