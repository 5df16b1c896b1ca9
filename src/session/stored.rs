//! How the values of sessions stand in the cache: as they are, or sealed by whoever [`Sessions`] was given for that (`seal.rs`).
//!
//! Everything between the application's values and the stored ones is here; what sealing is, is not. A sealed session has a *place*: random
//! bytes that it keeps for life. Each value is sealed for the place and the item's name, and the place, in an item of its own, for the key
//! under which the session stands. So a value opens in no other item and no other session, nor a whole session under another key; and a session
//! is renamed by sealing one small item anew, in the same step of the log, whatever others save meanwhile.

use super::loaded::Held;
use super::{
    Session, SessionError, SessionEvent, SessionId, Sessions, What, count, count_of, told_apart, word,
};
use crate::error::{Error, Result};
use crate::machine::entry::Millis;
use crate::machine::reply::Reply;
use crate::machine::value::Text;
use crate::machine::value::session::Items;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The item that holds the place of a session.
const PLACE: &str = "plenary.place";

/// Bytes of a place.
const PLACE_BYTES: usize = 16;

/// Attempts to give a place to a session that has none. Whoever is faster gives it one, so a second is enough.
const PLACE_ATTEMPTS: usize = 4;

/// Seals values for where they stand: a context (a place, or the key of a session) and the name of an item.
pub(super) trait Seal: fmt::Debug + Send + Sync {
    /// The bytes to be stored.
    fn seal(&self, context: &[u8], item: &[u8], value: &[u8]) -> Result<Vec<u8>>;

    /// The value that was sealed for here.
    fn open(&self, context: &[u8], item: &[u8], stored: &[u8]) -> Result<Opened, SealError>;
}

/// A value, and whether it is to be sealed anew when its session is next saved.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) value: Vec<u8>,
    pub(super) anew: bool,
}

/// Why a stored value could not be opened. Nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It was sealed with a key that is not in the ring: one that was taken away too early, or came to another instance first.
    #[error("it is sealed with key {id}, which is not in the ring")]
    UnknownKey {
        /// The key's id.
        id: u32,
    },
    /// It was changed, cut, or brought here from another item or session.
    #[error("it was changed, or sealed for another place or with another key")]
    Tampered,
    /// Nobody sealed it: a Redis client put it there, or it is from before encryption.
    #[error("it is not sealed")]
    NotSealed,
}

/// What a session knows of its seals.
#[derive(Clone, Default)]
pub(super) struct Seals {
    pub(super) place: Option<Place>,
    /// Items that the next save is to seal anew.
    old: BTreeSet<Bytes>,
    /// Whether that is a reason to save.
    wanted: bool,
}

/// What the values of one session are sealed for, beside their names.
#[derive(Clone, Copy)]
pub(super) struct Place {
    bytes: [u8; PLACE_BYTES],
    /// Whether it is not stored yet, or not as it should be.
    anew: bool,
}

impl Place {
    fn random() -> Result<Self> {
        let mut bytes = [0; PLACE_BYTES];
        getrandom::fill(&mut bytes).map_err(|source| Error::Io {
            doing: "drawing the place of a session".to_owned(),
            source: std::io::Error::other(source),
        })?;
        Ok(Self { bytes, anew: true })
    }
}

impl Seals {
    /// The place as a save stores it; one that merges leaves it as it is stored.
    pub(super) fn place_to_save(&self, merges: bool) -> Option<Place> {
        self.place.map(|place| Place {
            anew: place.anew && !merges,
            ..place
        })
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// All is stored as it should be.
    pub(super) fn saved(&mut self) {
        self.old.clear();
        self.wanted = false;
        if let Some(place) = &mut self.place {
            place.anew = false;
        }
    }
}

impl Sessions {
    /// Names and values of items as they are to stand under this key, and before them the place, where it is to be stored too.
    pub(super) fn stored<'a, T: Into<Text<'a>>>(
        &self,
        key: &[u8],
        place: &mut Option<Place>,
        items: impl IntoIterator<Item = (T, T)>,
    ) -> Result<Vec<Bytes>> {
        let items = items.into_iter();
        let items = items.map(|(name, value)| (name.into(), value.into()));
        let Some(seal) = &self.seal else {
            let texts = items.flat_map(|(name, value)| [name, value]);
            return Ok(texts.map(Text::to_bytes).collect());
        };
        let place = match *place {
            Some(place) => place,
            None => *place.insert(Place::random()?),
        };
        let mut stored = Vec::new();
        if place.anew {
            stored.extend([
                word(PLACE),
                seal.seal(key, PLACE.as_bytes(), &place.bytes)?.into(),
            ]);
        }
        for (name, value) in items {
            if name == *PLACE {
                return Err(Error::Value(format!(
                    "an item cannot be named {PLACE}: sealed sessions have one of their own"
                )));
            }
            stored.extend([name.to_bytes(), seal.seal(&place.bytes, &name, &value)?.into()]);
        }
        Ok(stored)
    }

    /// A session as it stood under this key, with its values as the application knows them.
    pub(super) fn opened(&self, key: &[u8], mut session: Session) -> Result<Session, SessionError> {
        if let (Some(seal), Held::Shared(stored, passed)) = (&self.seal, &session.held) {
            let (items, seals) = open(&**seal, key, &stored.items, *passed)?;
            (session.held, session.seals) = (Held::Own(items), seals);
        }
        Ok(session)
    }

    /// What an ended session held, with its values as the application knows them; none where the event does not say. Events carry what is
    /// stored: sealed values, where values are sealed.
    ///
    /// # Errors
    /// [`SessionError::Unopened`].
    pub fn content_of(&self, event: &SessionEvent) -> Result<Option<BTreeMap<Bytes, Bytes>>, SessionError> {
        let What::Ended(_, Some(content)) = &event.what else {
            return Ok(None);
        };
        if let Some(seal) = &self.seal {
            let (items, _) = open(&**seal, &event.key, &content.items, event.at)?;
            return Ok(Some(items));
        }
        let items = content.items.living(event.at);
        Ok(Some(
            items
                .map(|item| (item.name.to_bytes(), item.value.to_bytes()))
                .collect(),
        ))
    }

    /// The place of a session, to be stored anew; none where nothing is sealed. A session that has none is given one by a save that says this as
    /// well: `version`, if it was that of the session, follows.
    pub(super) async fn place_of(
        &self,
        id: &SessionId,
        version: Option<&mut u64>,
        says: &[Bytes],
    ) -> Result<Option<Place>, SessionError> {
        if self.seal.is_none() {
            return Ok(None);
        }
        let mut last = 0;
        for _ in 0..PLACE_ATTEMPTS {
            let mut found = self.peek(id).await?.ok_or(SessionError::Gone)?;
            last = found.version;
            if found.seals.place.is_none() {
                match self.save_saying(&mut found, says, true).await {
                    Err(SessionError::Stale { .. }) => continue,
                    saved => saved?,
                }
                if let Some(version) = version.filter(|version| **version == last) {
                    *version = found.version;
                }
            }
            return Ok(found.seals.place.map(|place| Place { anew: true, ..place }));
        }
        Err(SessionError::Stale { version: last })
    }

    /// Renames a session whose values are sealed, as `rename` says it, and seals its place for the new key, in one step. `says`: by which lock.
    pub(super) async fn rename_sealed(
        &self,
        session: &mut Session,
        id: SessionId,
        rename: Vec<Bytes>,
        says: &[Bytes],
    ) -> Result<(), SessionError> {
        let to = self.key_of(&id);
        let version = Some(&mut session.version);
        let mut place = self.place_of(&session.id, version, says).await?;
        let mut save = vec![word("SESSION.SAVE"), to.clone(), word("*")];
        save.extend_from_slice(says);
        save.extend([word("SET"), count(1)]);
        save.extend(self.stored::<Text<'_>>(&to, &mut place, [])?);
        let commands = vec![rename, save];
        let transact = || self.cache.transact([(to.clone(), 0)], commands.clone());
        let Some(replies) = self.retried(transact).await? else {
            return Err(SessionError::Taken);
        };
        for reply in &replies {
            if let Reply::Error(refused) = reply {
                return Err(told_apart(refused.clone().into()));
            }
        }
        let version = count_of(replies.last().unwrap_or(&Reply::Nil))?;
        if session.version + 1 == version {
            session.version = version;
        }
        session.id = id;
        session.seals.place = place.map(|place| Place { anew: false, ..place });
        Ok(())
    }

    /// Sees to it that a session has a place before requests that run side by side give it one each.
    pub(super) async fn place_before_merge(&self, session: &mut Session) -> Result<(), SessionError> {
        if session.seals.place.is_none() {
            let version = Some(&mut session.version);
            session.seals.place = self.place_of(&session.id, version, &[]).await?;
        }
        Ok(())
    }

    /// Seals anew what the merging save left as it was, unless somebody is faster: then the next save does.
    pub(super) async fn seal_anew_after_merge(&self, session: &mut Session) {
        let mut sealed = session.clone();
        if sealed.seal_anew() {
            match self.save(&mut sealed).await {
                Ok(()) => *session = sealed,
                Err(error) => tracing::debug!(%error, "a session was not sealed anew"),
            }
        }
    }
}

impl Session {
    /// Lets the next save seal anew what an older key has sealed, also when nothing else was changed. Whether there is anything: not where
    /// values are not sealed, or all are sealed with the current key.
    pub fn seal_anew(&mut self) -> bool {
        self.seals.wanted = !self.seals.old.is_empty() || self.seals.place.is_some_and(|place| place.anew);
        self.seals.wanted
    }

    /// The items that a save must send: those that were set, and with them, unless it merges, those that are to be sealed anew.
    pub(super) fn to_set(&self, merges: bool) -> BTreeMap<Text<'_>, Text<'_>> {
        let old = self.seals.old.iter().filter(|_| !merges);
        let anew = old.filter_map(|name| Some((name.into(), self.get(name)?)));
        let set = self
            .changes
            .iter()
            .filter_map(|(name, value)| Some((name.into(), value.as_ref()?.into())));
        anew.chain(set).collect()
    }
}

/// The values that were sealed under this key and have not ended, and what is to be known of their seals.
fn open(
    seal: &dyn Seal,
    key: &[u8],
    stored: &Items,
    passed: Millis,
) -> Result<(BTreeMap<Bytes, Bytes>, Seals), SessionError> {
    let open = |context: &[u8], name: &[u8], stored: &[u8]| {
        seal.open(context, name, stored)
            .map_err(|why| unopened(name, why))
    };
    let (mut items, mut seals) = (BTreeMap::new(), Seals::default());
    if let Some(stored) = stored.get(PLACE.as_bytes(), passed) {
        let Opened { value, anew } = open(key, PLACE.as_bytes(), &stored.value)?;
        let bytes = <[u8; PLACE_BYTES]>::try_from(value);
        let bytes = bytes.map_err(|_| unopened(PLACE.as_bytes(), SealError::Tampered))?;
        seals.place = Some(Place { bytes, anew });
    }
    // Nothing was ever sealed for no place.
    let place = seals.place.map(|place| place.bytes);
    let place = place.as_ref().map_or(&[][..], |bytes| bytes);
    for item in stored.living(passed).filter(|item| item.name != *PLACE) {
        let opened = open(place, &item.name, &item.value)?;
        // One that ends by itself is left as it is: to seal it anew would let it live on.
        if opened.anew && item.deadline.is_none() {
            seals.old.insert(item.name.to_bytes());
        }
        items.insert(item.name.to_bytes(), opened.value.into());
    }
    Ok((items, seals))
}

fn unopened(item: &[u8], why: SealError) -> SessionError {
    SessionError::Unopened {
        item: String::from_utf8_lossy(item).into_owned(),
        why,
    }
}
