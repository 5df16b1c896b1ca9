//! Entries: values with a life, a time for which they are fresh, and tags. How they are kept: `machine/cached.rs`.

use super::{Cache, integer, millis, to_json};
use crate::error::Result;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use serde::Serialize;
use std::time::Duration;

/// What the key of a tag begins with, so that a tag and a value can have the same name.
const TAG_PREFIX: &[u8] = b"tag:";

/// How long a load may take by default before another may begin one.
const LEASE: Duration = Duration::from_secs(30);

/// How long a caller waits by default for what somebody else loads.
const WAIT: Duration = Duration::from_secs(30);

/// How long a stale value is fresh again by default after its refresh has failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How an entry lives, and how it is loaded. Durations are rounded up to a millisecond; one of zero is refused where it is used.
#[derive(Clone, Debug)]
pub struct EntryOptions {
    pub(super) life: Duration,
    pub(super) fresh_for: Option<Duration>,
    pub(super) tags: Vec<Bytes>,
    pub(super) lease: Duration,
    pub(super) wait: Duration,
    pub(super) refresh_wait: Duration,
    pub(super) stale_on_error: bool,
    pub(super) retry_after: Duration,
    pub(super) load_in_outage: bool,
}

impl EntryOptions {
    /// An entry that lives this long, and is fresh all the time.
    pub fn new(life: Duration) -> Self {
        Self {
            life,
            fresh_for: None,
            tags: Vec::new(),
            lease: LEASE,
            wait: WAIT,
            refresh_wait: Duration::ZERO,
            stale_on_error: false,
            retry_after: RETRY_AFTER,
            load_in_outage: false,
        }
    }

    /// After this long the value is stale: [`Cache::get_or_load`] still gives it, and has one new one loaded meanwhile. Less than the life.
    #[must_use]
    pub fn fresh_for(mut self, fresh_for: Duration) -> Self {
        self.fresh_for = Some(fresh_for);
        self
    }

    /// A tag, by which [`Cache::invalidate_tag`] ends the entry with all others that have it: at most 64, of at most 508 bytes each.
    #[must_use]
    pub fn tag(mut self, tag: impl AsRef<[u8]>) -> Self {
        self.tags.push(tag_key(tag.as_ref()));
        self
    }

    /// How long a load may take, by default 30 s. After that another may begin one, on any node, and what this one brings is not put any more.
    /// When a node vanishes while it loads, the others go on after this long.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long to wait for what somebody else loads, by default 30 s; then it is [`Error::Taken`](crate::error::Error::Taken).
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long to wait for the refresh of a stale value before the stale one is given; by default not at all.
    #[must_use]
    pub fn refresh_wait(mut self, wait: Duration) -> Self {
        self.refresh_wait = wait;
        self
    }

    /// Gives the stale value where a refresh that was waited for has failed, instead of the error.
    #[must_use]
    pub fn stale_on_error(mut self) -> Self {
        self.stale_on_error = true;
        self
    }

    /// How long a stale value is fresh again after its refresh has failed, by default 1 s: what is in trouble is not asked by every caller.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = pause;
        self
    }

    /// Loads also while the cluster cannot say who may (no leader, overload), one at a time on this node, and puts nothing: an outage of the
    /// cache is none of what it caches.
    #[must_use]
    pub fn load_in_outage(mut self) -> Self {
        self.load_in_outage = true;
        self
    }

    /// Refuses what the log would refuse only once a value is to be put.
    pub(super) fn check(&self) -> Result<()> {
        if self.life.is_zero() || self.fresh_for.is_some_and(|time| time.is_zero()) {
            return Err(CommandError::InvalidExpire("cache.set").into());
        }
        Ok(())
    }

    /// `TAGS` with its arguments, where there are tags.
    pub(super) fn push_tags(&self, argv: &mut Vec<Bytes>) {
        if !self.tags.is_empty() {
            argv.extend([Bytes::from_static(b"TAGS"), self.tags.len().to_string().into()]);
            argv.extend(self.tags.iter().cloned());
        }
    }
}

fn tag_key(tag: &[u8]) -> Bytes {
    [TAG_PREFIX, tag].concat().into()
}

impl Cache {
    /// Puts a value as an entry: with a life, perhaps stale before its end, perhaps with tags. Redis clients read it by `CACHE.GET`; to `GET` it is
    /// of another type.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// use plenary::EntryOptions;
    /// use std::time::Duration;
    ///
    /// let a_minute = EntryOptions::new(Duration::from_secs(60));
    /// cache.set_with("price:7", "12.50", &a_minute.clone().tag("product:7").tag("prices")).await?;
    /// cache.set_with("page:7", "<h1>Tea</h1>", &a_minute.tag("product:7")).await?;
    /// cache.invalidate_tag("product:7").await?; // one command, however many entries there are
    /// assert_eq!(cache.get("price:7").await?, None);
    /// assert_eq!(cache.get("page:7").await?, None);
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`](crate::error::Error::Refused) for options that make no sense; those of [`Node::write`](crate::node::Node::write).
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &EntryOptions,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), Bytes::copy_from_slice(value.as_ref()));
        self.put_entry(key, value, options, None).await.map(drop)
    }

    /// [`Cache::set_with`] of a value as JSON.
    ///
    /// # Errors
    /// [`Error::Value`](crate::error::Error::Value) if it cannot be JSON; those of [`Cache::set_with`].
    pub async fn set_as_with<T: Serialize>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: &EntryOptions,
    ) -> Result<()> {
        self.set_with(key, to_json(value)?, options).await
    }

    /// Ends all entries that have this tag. Once it has returned, no read anywhere that knows of it (on this node; elsewhere by [`Cache::token`], or
    /// linearizable) gives a value that was put, or whose load began, before. Redis: `CACHE.INVALIDATE tag:…`.
    ///
    /// # Errors
    /// Those of [`Node::write`](crate::node::Node::write).
    pub async fn invalidate_tag(&self, tag: impl AsRef<[u8]>) -> Result<()> {
        self.invalidate_tags(&[tag]).await
    }

    /// The same for several tags, all at one moment.
    ///
    /// # Errors
    /// Those of [`Cache::invalidate_tag`].
    pub async fn invalidate_tags<T: AsRef<[u8]>>(&self, tags: &[T]) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        let tags = tags.iter().map(|tag| tag_key(tag.as_ref()));
        let argv = std::iter::once(Bytes::from_static(b"CACHE.INVALIDATE")).chain(tags);
        integer(self.write(argv.collect()).await?).map(drop)
    }

    /// Puts an entry; with the token of a lease only while that lasts. Whether it was put.
    pub(super) async fn put_entry(
        &self,
        key: &[u8],
        value: Bytes,
        options: &EntryOptions,
        token: Option<u64>,
    ) -> Result<bool> {
        let mut argv = vec![
            Bytes::from_static(b"CACHE.SET"),
            Bytes::copy_from_slice(key),
            value,
            Bytes::from_static(b"PX"),
            millis(options.life).into(),
        ];
        if let Some(fresh_for) = options.fresh_for {
            argv.extend([Bytes::from_static(b"FRESH"), millis(fresh_for).into()]);
        }
        if let Some(token) = token {
            argv.extend([Bytes::from_static(b"LEASE"), token.to_string().into()]);
        }
        options.push_tags(&mut argv);
        Ok(self.write(argv).await? != Reply::Nil)
    }
}
