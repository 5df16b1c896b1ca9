//! Bringing together what requests changed that ran side by side: item by item. Requests that changed different items all win; for the same item the
//! application has chosen what happens. Values are never merged into each other, unless by its function.

use super::{Session, SessionError, Sessions, word};
use crate::machine::value::Text;
use crate::node::Freshness;
use bytes::Bytes;

/// How often a save that merges by a function is tried again because others saved the same items meanwhile.
pub const MERGE_ATTEMPTS: usize = 16;

/// How a save says that it merges.
pub(super) const MERGE: &str = "MERGE";

/// What happens to an item that another request has changed since the session was loaded.
#[derive(Clone, Copy)]
pub enum Merge<'a> {
    /// Nothing is saved: [`SessionError::Conflict`].
    Refuse,
    /// This save wins.
    Last,
    /// The function says what the item is to be; none: it is to be removed.
    With(&'a (dyn Fn(Clash<'_>) -> Option<Bytes> + Sync)),
}

/// An item that two requests have changed: what it was when this one loaded it, what this one made of it, and what the other did.
#[derive(Clone, Copy, Debug)]
pub struct Clash<'a> {
    /// The item's name.
    pub name: Text<'a>,
    /// What both began with.
    pub base: Option<Text<'a>>,
    /// What this request made of it.
    pub mine: Option<Text<'a>>,
    /// What is there now.
    pub theirs: Option<Text<'a>>,
}

impl Sessions {
    /// Saves what was changed, whatever else was changed meanwhile. `session` is what came of it then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// use plenary::session::{Merge, NewSession};
    ///
    /// let sessions = plenary.sessions();
    /// let id = sessions.create(NewSession::new()).await?.id().clone();
    /// let (mut here, mut there) = (sessions.load(&id).await?.unwrap(), sessions.load(&id).await?.unwrap());
    /// here.set("theme", "dark");
    /// there.set("language", "en");
    /// sessions.save_merged(&mut here, Merge::Refuse).await?;
    /// sessions.save_merged(&mut there, Merge::Refuse).await?;
    /// assert!(there.get("theme").is_some() && there.get("language").is_some());
    /// # plenary.stop().await?; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where an item was changed by another and `merge` refuses that, or after [`MERGE_ATTEMPTS`]; otherwise those of
    /// [`Sessions::save`].
    pub async fn save_merged(&self, session: &mut Session, merge: Merge<'_>) -> Result<(), SessionError> {
        let how = if matches!(merge, Merge::Last) {
            "LAST"
        } else {
            "REFUSE"
        };
        let says = [word(MERGE), word(how)];
        self.place_before_merge(session).await?;
        for _ in 1..MERGE_ATTEMPTS {
            match (self.save_saying(session, &says, false).await, merge) {
                (Err(SessionError::Conflict { .. }), Merge::With(settle)) => {
                    let theirs = self.as_of_now(session).await?;
                    session.settle(theirs, settle);
                }
                (Ok(()), _) => break,
                (Err(error), _) => return Err(error),
            }
        }
        self.save_saying(session, &says, false).await?;
        // Saved through this node, so what it has is what came of it, or what came after.
        let local = self.cache.with_freshness(Freshness::Local);
        *session = self.look(&local, &session.id).await?.ok_or(SessionError::Gone)?;
        self.seal_anew_after_merge(session).await;
        Ok(())
    }

    async fn as_of_now(&self, session: &Session) -> Result<Session, SessionError> {
        let now = self.cache.with_freshness(Freshness::Linearizable);
        self.look(&now, &session.id).await?.ok_or(SessionError::Gone)
    }
}

impl Session {
    /// Takes over what is there now, with the changes of this one on top; the function decides where both have changed an item.
    fn settle(&mut self, theirs: Session, settle: &(dyn Fn(Clash<'_>) -> Option<Bytes> + Sync)) {
        let mut settled = theirs.clone();
        for (name, mine) in &self.changes {
            let (base, there) = (self.held.get(name), theirs.get(name));
            let value = if base == there {
                mine.clone()
            } else {
                settle(Clash {
                    name: name.into(),
                    base,
                    mine: mine.as_ref().map(Text::from),
                    theirs: there,
                })
            };
            match value {
                Some(value) => settled.set(name, value),
                None => drop(settled.remove(name)),
            }
        }
        if self.settings.idle_timeout {
            settled.idle_timeout_ms = self.idle_timeout_ms;
        }
        if self.settings.absolute_deadline {
            settled.absolute_deadline = self.absolute_deadline;
        }
        if self.settings.owner {
            settled.owner = self.owner.clone();
        }
        settled.settings = self.settings;
        *self = settled;
    }
}
