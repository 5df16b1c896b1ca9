//! Compare and set: a write that happens only if the key is still what the writer saw. By the versions that the machine gives each key.

use super::{Cache, millis, unexpected, value};
use crate::error::{Error, Result};
use crate::machine::entry::Command;
use crate::machine::internal::Watch;
use crate::machine::reply::Reply;
use crate::node::Freshness;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How often [`Cache::update`] begins anew because others were quicker, at most.
const UPDATES_MAX: usize = 100;

/// Which state of a key was seen: never the same for two of them. Travels as a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub u64);

/// What a key must be for a value to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// Without a value.
    Absent,
    /// Unchanged since it was read.
    Version(Version),
    /// Of this value, whoever put it.
    Value(&'a [u8]),
}

impl Cache {
    /// The value under a key, and the version to compare with when it is put back.
    ///
    /// # Errors
    /// Those of [`Cache::get`].
    pub async fn get_versioned(&self, key: impl AsRef<[u8]>) -> Result<Option<(Bytes, Version)>> {
        let (found, version) = self.look_at(key.as_ref()).await?;
        Ok(found.map(|found| (found, version)))
    }

    /// Puts a value, with or without a life, if the key is as expected. Whether it was put. Redis: `WATCH`, `MULTI`, `SET`, `EXEC`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// use plenary::cache::Expected;
    ///
    /// assert!(cache.compare_and_set("owner", Expected::Absent, "ann", None).await?);
    /// let (owner, version) = cache.get_versioned("owner").await?.unwrap();
    /// assert_eq!(owner, "ann");
    /// assert!(cache.compare_and_set("owner", Expected::Value(b"ann"), "bob", None).await?);
    /// assert!(!cache.compare_and_set("owner", Expected::Version(version), "eve", None).await?);
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// Those of [`Cache::get`] and [`Node::write`](crate::node::Node::write). After [`Error::Unknown`] it may have been put.
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected<'_>,
        value: impl AsRef<[u8]>,
        life: Option<Duration>,
    ) -> Result<bool> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let began = Instant::now();
        // What this node has refutes nothing, as it may be behind: the second look is as of now.
        let mut reader = self.clone();
        for _ in 0..UPDATES_MAX {
            let (found, version) = reader.look_at(key).await?;
            let at = match expected {
                Expected::Absent => found.is_none().then_some(version),
                Expected::Value(expected) => found.is_some_and(|found| found == expected).then_some(version),
                // Of a version the log itself can tell; but one whose tag was invalidated has no value any more.
                Expected::Version(seen) => (found.is_some() || version != seen).then_some(seen),
            };
            match at {
                Some(at) if self.set_at(key, at, value, life).await? => return Ok(true),
                Some(_) if matches!(expected, Expected::Version(_)) => return Ok(false),
                Some(_) => {}
                None if reader.freshness == Freshness::Linearizable => return Ok(false),
                None => reader = self.with_freshness(Freshness::Linearizable),
            }
        }
        Err(taken(key, began))
    }

    /// Puts what `change` makes of the value there is (none: there is none), with or without a life; begins anew where another was quicker, so it
    /// may be called several times. The value put.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// let add = |word: &str| {
    ///     let word = word.to_owned();
    ///     move |list: Option<&[u8]>| [list.unwrap_or_default(), word.as_bytes(), b" "].concat()
    /// };
    /// cache.update("words", None, add("one")).await?;
    /// assert_eq!(cache.update("words", None, add("two")).await?, "one two ");
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// [`Error::Taken`] where others were quicker a hundred times; those of [`Cache::compare_and_set`].
    pub async fn update(
        &self,
        key: impl AsRef<[u8]>,
        life: Option<Duration>,
        mut change: impl FnMut(Option<&[u8]>) -> Vec<u8>,
    ) -> Result<Bytes> {
        let key = key.as_ref();
        let began = Instant::now();
        for _ in 0..UPDATES_MAX {
            let (found, version) = self.look_at(key).await?;
            let next = change(found.as_deref());
            if self.set_at(key, version, &next, life).await? {
                return Ok(next.into());
            }
        }
        Err(taken(key, began))
    }

    async fn look_at(&self, key: &[u8]) -> Result<(Option<Bytes>, Version)> {
        self.look(&[key], |view| Ok((value(view, key)?, Version(view.version(key)))))
            .await
    }

    /// Puts a value if the key has this version. Where it has not, this handle has seen that.
    async fn set_at(
        &self,
        key: &[u8],
        version: Version,
        value: &[u8],
        life: Option<Duration>,
    ) -> Result<bool> {
        let mut argv: Vec<&[u8]> = vec![b"SET", key, value];
        let life = life.map(millis);
        if let Some(life) = &life {
            argv.extend([&b"PX"[..], life]);
        }
        Ok(self
            .run_at(key, version, self.command(&argv).argv)
            .await?
            .is_some())
    }

    /// Runs a command if a key has this version. Its reply; none, and nothing was done, where it has not.
    pub(super) async fn run_at(
        &self,
        key: &[u8],
        version: Version,
        argv: Vec<Bytes>,
    ) -> Result<Option<Reply>> {
        let watch = Watch {
            db: self.db,
            key: Bytes::copy_from_slice(key),
            version: version.0,
        };
        let command = Command { db: self.db, argv };
        let (replies, token) = self.door.transact(vec![watch], vec![command]).await?;
        self.saw(token);
        first_of(replies)
    }
}

/// The first reply of a transaction; none where it was not applied.
pub(super) fn first_of(replies: Vec<Reply>) -> Result<Option<Reply>> {
    match replies.into_iter().next() {
        Some(Reply::NilArray) => Ok(None),
        Some(Reply::Array(replies)) => match replies.into_iter().next() {
            Some(Reply::Error(refused)) => Err(refused.into()),
            Some(reply) => Ok(Some(reply)),
            None => Err(unexpected(&Reply::Nil)),
        },
        Some(Reply::Error(refused)) => Err(refused.into()),
        reply => Err(unexpected(&reply.unwrap_or(Reply::Nil))),
    }
}

fn taken(key: &[u8], began: Instant) -> Error {
    Error::Taken {
        what: String::from_utf8_lossy(key).into_owned(),
        waited: began.elapsed(),
    }
}
