//! The cache as Rust sees it: keys, values and their lives, typed if you like. One of the two public handles; the other is
//! [`crate::session`].
//!
//! A handle adds to the node what a caller wants to forget about: the database, how fresh reads are, and the token of what this handle
//! has seen. It decides nothing about commands: those are rows of `machine/commands`, and [`Cache::execute`] runs any of them.
//!
//! | file | what it holds |
//! |---|---|
//! | `entry.rs` | values with a life, a time for which they are fresh, and tags |
//! | `load.rs` | [`Cache::get_or_load`]: one load at a time in the whole cluster |
//! | `swap.rs` | compare and set |
//! | `lock.rs` | locks with fencing |
//! | `topic.rs` | topics |

mod entry;
mod load;
mod lock;
mod swap;
mod topic;

use crate::error::{Error, Result};
use crate::machine::cached;
use crate::machine::entry::{Command, Millis};
use crate::machine::internal::Watch;
use crate::machine::keyspace::{DATABASES, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Run};
use crate::node::{Freshness, Node, Token};
use crate::remote::{Door, Sight};
use bytes::Bytes;
pub use entry::EntryOptions;
use load::Loads;
pub use lock::Lock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
pub use swap::{Expected, Version};
pub use topic::{Heard, Subscription, Topic};

/// A handle to one database of the cache. Clones are cheap, and share the token of what was seen.
///
/// Every write is answered after a majority has it and this node has applied it, so the same handle always reads what it wrote.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
/// use std::time::Duration;
///
/// let cache = plenary.cache();
/// cache.set_for("greeting", "hello", Duration::from_secs(60)).await?;
/// assert_eq!(cache.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
/// assert_eq!(cache.increment("visits", 2).await?, 2);
/// assert!(!cache.set_if_absent("greeting", "again").await?);
/// # plenary.stop().await }
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    door: Door,
    db: u8,
    freshness: Freshness,
    /// The greatest token this handle and its clones have seen.
    seen: Arc<AtomicU64>,
    /// Loads under way on this node.
    loads: Arc<Loads>,
}

/// How long a key still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// There is no such key.
    Absent,
    /// It has no deadline.
    Unlimited,
    /// It ends after this long, by the log's clock as this node estimates it.
    Left(Duration),
}

impl Cache {
    /// A handle to database 0 of a node, reading what the node has applied. Make one for each node and clone it: clones know of each other's loads.
    pub fn new(node: Node) -> Self {
        Self::behind(Door::Node(node))
    }

    /// A handle to database 0 of the cluster behind a door.
    pub(crate) fn behind(door: Door) -> Self {
        Self {
            door,
            db: 0,
            freshness: Freshness::Local,
            seen: Arc::default(),
            loads: Arc::default(),
        }
    }

    /// The same handle on another database.
    ///
    /// # Errors
    /// [`Error::Refused`] above 15.
    pub fn database(&self, db: u8) -> Result<Self> {
        if usize::from(db) < DATABASES {
            Ok(Self { db, ..self.clone() })
        } else {
            Err(CommandError::text("ERR DB index is out of range").into())
        }
    }

    /// The same handle with reads this fresh. `Local`, the default, costs no network; whatever is chosen, the handle never reads older
    /// state than its [`Cache::token`].
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            freshness,
            ..self.clone()
        }
    }

    /// A handle that reads at least what this token has seen, with a token of its own: for one request of one user, whose token
    /// came with the request and goes with the answer. So a user reads their own writes on every instance.
    ///
    /// A token from outside is a promise nobody checked: one that no log has reached yet makes reads wait until they end as
    /// [`Error::NotFresh`]. Sign it, or bound the wait.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// let here = plenary.cache();
    /// here.set("theme", "dark").await?;
    /// let travels = here.token().0.to_string(); // in a cookie or a header
    ///
    /// let there = plenary.cache().at_least(plenary::Token(travels.parse().unwrap()));
    /// assert_eq!(there.get("theme").await?.as_deref(), Some(&b"dark"[..]));
    /// # plenary.stop().await }
    /// ```
    pub fn at_least(&self, token: Token) -> Self {
        Self {
            seen: Arc::new(AtomicU64::new(token.0)),
            ..self.clone()
        }
    }

    /// How far this handle's writes and reads have seen. It never falls.
    pub fn token(&self) -> Token {
        Token(self.seen.load(Ordering::Acquire))
    }

    /// The database, 0 to 15.
    pub(crate) fn db(&self) -> u8 {
        self.db
    }

    /// The node behind it; none where that is in another process.
    pub fn node(&self) -> Option<&Node> {
        self.door.node()
    }

    /// The way to the cluster.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// The value under a key: a string, or an entry of [`Cache::set_with`] or [`Cache::get_or_load`], also when it is stale. The bytes are those
    /// that the node holds, not a copy. Redis: `CACHE.GET`.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is something else; [`Error::NotFresh`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = key.as_ref();
        self.look(&[key], |view| value(view, key)).await
    }

    /// What `read` makes of the value under a key, none where there is none; it is given the bytes that the node holds. Applying waits
    /// meanwhile: be quick.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// cache.set("numbers", [3, 1, 2]).await?;
    /// let greatest = cache.get_with("numbers", |bytes| bytes.iter().max().copied()).await?;
    /// assert_eq!(greatest, Some(Some(3)));
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// Those of [`Cache::get`].
    pub async fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let key = key.as_ref();
        self.look(&[key], |view| Ok(value(view, key)?.map(|bytes| read(&bytes))))
            .await
    }

    /// The values under several keys, all as of one moment; a key that holds something else counts as absent. Redis: `MGET`, which knows no
    /// entries.
    ///
    /// # Errors
    /// [`Error::NotFresh`].
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let one = |view: View<'_>, key: &[u8]| value(view, key).ok().flatten();
        self.look(&keys, |view| Ok(keys.iter().map(|key| one(view, key)).collect()))
            .await
    }

    /// Puts a value; whatever the key held and its deadline are gone, a load under way included. Redis: `SET`.
    ///
    /// # Errors
    /// Those of [`Node::write`].
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.run(&[b"SET", key.as_ref(), value.as_ref()]).await.map(drop)
    }

    /// Puts a value that lives this long (rounded up to a millisecond). Redis: `SET … PX`.
    ///
    /// # Errors
    /// [`Error::Refused`] for a life of zero; those of [`Node::write`].
    pub async fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        life: Duration,
    ) -> Result<()> {
        self.run(&[b"SET", key.as_ref(), value.as_ref(), b"PX", &millis(life)])
            .await
            .map(drop)
    }

    /// Puts a value unless the key is there. Whether it was put. Redis: `SET … NX`.
    ///
    /// # Errors
    /// Those of [`Node::write`].
    pub async fn set_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.run(&[b"SET", key.as_ref(), value.as_ref(), b"NX"]).await? != Reply::Nil)
    }

    /// Removes a key, whatever it holds. Whether it was there. Redis: `DEL`.
    ///
    /// # Errors
    /// Those of [`Node::write`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(integer(self.run(&[b"DEL", key.as_ref()]).await?)? == 1)
    }

    /// Whether a key is there, and is no entry without a value. Redis: `EXISTS`, to which an entry that is being loaded is there.
    ///
    /// # Errors
    /// [`Error::NotFresh`].
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let there = |view: View<'_>| match cached::find(&view, key) {
            Ok(entry) => entry.is_some_and(|entry| entry.value.is_some()),
            // Of another type.
            Err(_) => true,
        };
        self.look(&[key], |view| Ok(there(view))).await
    }

    /// Lets a key live this long from now (rounded up to a millisecond; zero ends it). Whether it was there. Redis: `PEXPIRE`.
    ///
    /// With `expire-slack-percent` one that asks for the life that the key has is answered without a write most times, and the key ends late by its
    /// slack at most.
    ///
    /// # Errors
    /// Those of [`Node::write`].
    pub async fn expire(&self, key: impl AsRef<[u8]>, life: Duration) -> Result<bool> {
        let argv = self.command(&[b"PEXPIRE", key.as_ref(), &millis(life)]).argv;
        let reply = match self.door.renew(self.asked(), self.db, &argv).await {
            Some((reply, token)) => {
                self.saw(token);
                reply
            }
            None => self.write(argv).await?,
        };
        Ok(integer(reply)? == 1)
    }

    /// How long a key still lives. Redis: `PTTL`.
    ///
    /// # Errors
    /// [`Error::NotFresh`].
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Ttl> {
        let key = key.as_ref();
        let left = |view: View<'_>| match view.slot(key).map(|slot| slot.end.shown(view.now())) {
            None => Ttl::Absent,
            Some(None) => Ttl::Unlimited,
            Some(Some(deadline)) => Ttl::Left(Duration::from_millis(deadline.saturating_sub(view.now()))),
        };
        self.look(&[key], |view| Ok(left(view))).await
    }

    /// Adds to the integer under a key (absent counts as 0) and gives the sum. The deadline stays. Redis: `INCRBY`.
    ///
    /// After [`Error::Unknown`] the addition may have happened: it is not repeated for you.
    ///
    /// # Errors
    /// [`Error::Refused`] if the key holds no integer or the sum leaves 64 bits; those of [`Node::write`].
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        integer(
            self.run(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()])
                .await?,
        )
    }

    /// The same for a count that begins anew: a key that has no deadline is given this life, one that has keeps it. For limits of so many
    /// requests per minute. Redis: `INCRBY` and `PEXPIRE … NX` in one transaction.
    ///
    /// # Errors
    /// Those of [`Cache::increment`].
    pub async fn increment_for(&self, key: impl AsRef<[u8]>, by: i64, life: Duration) -> Result<i64> {
        let by = by.to_string();
        let commands = vec![
            self.command(&[b"INCRBY", key.as_ref(), by.as_bytes()]),
            self.command(&[b"PEXPIRE", key.as_ref(), &millis(life), b"NX"]),
        ];
        let (replies, token) = self.door.transact(Vec::new(), commands).await?;
        self.saw(token);
        let sum = swap::first_of(replies)?;
        integer(sum.unwrap_or(Reply::NilArray))
    }

    /// The value under a key, read as JSON.
    ///
    /// # Errors
    /// [`Error::Value`] if it is not JSON of this type; those of [`Cache::get`].
    pub async fn get_as<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get_with(key, |json| from_json(json)).await?.transpose()
    }

    /// Puts a value as JSON, which other languages read as well.
    ///
    /// # Errors
    /// [`Error::Value`] if it cannot be JSON; those of [`Cache::set`].
    pub async fn set_as<T: Serialize>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()> {
        self.set(key, to_json(value)?).await
    }

    /// [`Cache::set_as`] with a life.
    ///
    /// # Errors
    /// [`Error::Value`] if it cannot be JSON; those of [`Cache::set_for`].
    pub async fn set_as_for<T: Serialize>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        life: Duration,
    ) -> Result<()> {
        self.set_for(key, to_json(value)?, life).await
    }

    /// Runs any command of the table as a Redis client would say it: name and arguments.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// let added = cache.execute(["HSET", "user:1", "name", "Ada", "visits", "3"]).await?;
    /// assert_eq!(added, plenary::Reply::Integer(2));
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] for every reply that is an error, and for commands that concern a connection or a node (`PING`, `CLIENT`,
    /// `INFO` …): those live at the Redis endpoint. Those of [`Node::write`] and [`Node::read`].
    pub async fn execute<A: Into<Bytes>>(&self, argv: impl IntoIterator<Item = A>) -> Result<Reply> {
        let argv: Vec<Bytes> = argv.into_iter().map(Into::into).collect();
        let spec = table::lookup(&argv)?;
        match spec.run {
            Run::Write(_) => self.write(argv).await,
            Run::Read(_) => self.read(&argv).await,
            Run::Local => Err(CommandError::Other(
                format!(
                    "ERR {} concerns a connection or a node: say it to the Redis endpoint",
                    spec.name
                )
                .into(),
            )
            .into()),
        }
    }

    /// The write door: one command, answered when it is applied here.
    pub(crate) async fn write(&self, argv: Vec<Bytes>) -> Result<Reply> {
        let (reply, token) = self.door.write(Command { db: self.db, argv }).await?;
        self.saw(token);
        match reply {
            Reply::Error(refused) => Err(refused.into()),
            reply => Ok(reply),
        }
    }

    /// The write door for several commands that are applied together, if every watched key still has its version (0: it is absent). Their
    /// replies; none if something watched has changed, and then nothing was applied.
    pub(crate) async fn transact(
        &self,
        watched: impl IntoIterator<Item = (Bytes, u64)>,
        commands: Vec<Vec<Bytes>>,
    ) -> Result<Option<Vec<Reply>>> {
        let db = self.db;
        let watch = |(key, version)| Watch { db, key, version };
        let watches = watched.into_iter().map(watch).collect();
        let commands = commands.into_iter().map(|argv| Command { db, argv }).collect();
        let (replies, token) = self.door.transact(watches, commands).await?;
        self.saw(token);
        match replies.into_iter().next() {
            Some(Reply::Array(replies)) => Ok(Some(replies)),
            Some(Reply::Error(refused)) => Err(refused.into()),
            _ => Ok(None),
        }
    }

    /// Reads these keys directly, as fresh as this handle asks.
    pub(crate) async fn look<R>(
        &self,
        keys: &[&[u8]],
        read: impl FnOnce(View<'_>) -> Result<R>,
    ) -> Result<R> {
        self.view(Sight::Keys(keys), read).await
    }

    /// Reads what is in sight of this database directly, as fresh as this handle asks.
    pub(crate) async fn view<R>(
        &self,
        sight: Sight<'_>,
        read: impl FnOnce(View<'_>) -> Result<R>,
    ) -> Result<R> {
        let (result, token) = self.door.look(self.asked(), self.db, sight, read).await?;
        self.saw(token);
        Ok(result)
    }

    /// When a life is used that is used now.
    pub(crate) fn used_at(&self) -> Millis {
        self.door.used_at()
    }

    async fn read(&self, argv: &[Bytes]) -> Result<Reply> {
        let (reply, token) = self.door.read(self.asked(), self.db, argv).await?;
        if matches!(reply, Reply::Waiting(_)) {
            // It found nothing and is to wait: only the log can make it do so.
            return self.write(argv.to_vec()).await;
        }
        self.saw(token);
        if let Reply::Error(refused) = reply {
            Err(refused.into())
        } else {
            Ok(reply)
        }
    }

    async fn run(&self, argv: &[&[u8]]) -> Result<Reply> {
        self.write(self.command(argv).argv).await
    }

    fn command(&self, argv: &[&[u8]]) -> Command {
        Command::new(
            self.db,
            argv.iter().map(|argument| Bytes::copy_from_slice(argument)),
        )
    }

    /// How fresh the next read must be: as chosen, and never behind what was seen.
    fn asked(&self) -> Freshness {
        match (self.freshness, self.token()) {
            (Freshness::Linearizable, _) => Freshness::Linearizable,
            (Freshness::Local, Token(0)) => Freshness::Local,
            (Freshness::Local, seen) => Freshness::AtLeast(seen),
            (Freshness::AtLeast(token), seen) => Freshness::AtLeast(token.max(seen)),
        }
    }

    fn saw(&self, token: Token) {
        // Mostly it is nothing new: then clones of this handle need not wait for each other's cores.
        if self.seen.load(Ordering::Acquire) < token.0 {
            self.seen.fetch_max(token.0, Ordering::AcqRel);
        }
    }
}

/// The value under a key, be it a string or an entry.
fn value(view: View<'_>, key: &[u8]) -> Result<Option<Bytes>> {
    Ok(cached::find(&view, key)?.and_then(|entry| entry.value))
}

/// Reads JSON.
pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| Error::Value(format!("not JSON of the type asked for: {error}")))
}

/// Writes JSON.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Value(format!("cannot be JSON: {error}")))
}

/// A duration in whole milliseconds, rounded up so that a short life is not none.
pub(crate) fn millis(duration: Duration) -> Vec<u8> {
    duration.as_nanos().div_ceil(1_000_000).to_string().into_bytes()
}

fn integer(reply: Reply) -> Result<i64> {
    if let Reply::Integer(integer) = reply {
        Ok(integer)
    } else {
        Err(unexpected(&reply))
    }
}

/// A row answered in a form its handle does not know: the two were built apart.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    Error::Value(format!(
        "an unexpected {} as reply: please report this",
        kind(reply)
    ))
}

/// What a reply is, without what it says: it may be somebody's data.
fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Simple(_) => "status",
        Reply::Integer(_) => "integer",
        Reply::Bulk(_) | Reply::Verbatim(_) | Reply::BigNumber(_) => "bulk",
        Reply::Nil | Reply::NilArray => "nil",
        Reply::Array(_) | Reply::Set(_) => "array",
        Reply::Map(_) | Reply::Pairs(_) | Reply::Streams(_) => "map",
        Reply::Double(_) | Reply::Coordinate(_) => "double",
        Reply::Boolean(_) => "boolean",
        Reply::Error(_) => "error",
        Reply::Waiting(_) => "waiting",
    }
}
