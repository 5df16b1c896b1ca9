//! `get_or_load`: what is not in the cache is loaded once in the whole cluster, by whoever asks first; the others are given what that one brings.
//!
//! Within a node callers wait for the load that is under way there (`Loads`). Between nodes the lease in the log decides: `CACHE.LEASE` waits in the log,
//! so that the value, or the end of a load that failed, wakes the first who waits, and nobody polls. A load runs on a task of its own and goes on when
//! its caller goes; when its node vanishes, the lease's deadline lets the next begin.
//!
//! Callers who waited do not take over the value itself but look again. So they cannot be given what was invalidated after they came: they find
//! that it is gone, and one of them loads anew.

use super::{Cache, EntryOptions, from_json, millis, to_json, unexpected};
use crate::error::{Error, Result};
use crate::machine::cached;
use crate::machine::reply::Reply;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Loads under way on one node, at most.
const LOADS_MAX: usize = 64 << 10;

/// The longest wait: as good as for ever.
const WAIT_MOST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How much longer than it was to wait at most is waited for the log to say so: an election, a write.
const LOG_LATE: Duration = Duration::from_secs(10);

/// What an application's load fails with.
type LoadError = Box<dyn std::error::Error + Send + Sync>;

/// An application's load, once it is begun.
type Loaded = Pin<Box<dyn Future<Output = Result<Bytes, LoadError>> + Send>>;

/// An application's load.
type Load = Box<dyn FnOnce() -> Loaded + Send>;

/// A database and a key of it.
type Place = (u8, Bytes);

/// The loads under way on this node.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// For each key who loads it; closed when that has ended. Held to look, put in or take out.
    under_way: Mutex<HashMap<Place, watch::Receiver<()>>>,
}

/// One load of this node, as long as it is under way.
struct Flight {
    loads: Arc<Loads>,
    place: Place,
    /// Closed after the place is free again, which wakes everybody who waits.
    _ended: watch::Sender<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.loads.under_way.lock().remove(&self.place);
    }
}

/// Whose turn it is to load.
enum Turn {
    Ours(Flight),
    Others(watch::Receiver<()>),
}

impl Loads {
    /// The load of a key that is under way.
    fn under_way(&self, place: &Place) -> Option<watch::Receiver<()>> {
        self.under_way.lock().get(place).cloned()
    }

    fn turn(self: &Arc<Self>, place: Place) -> Result<Turn> {
        let mut under_way = self.under_way.lock();
        if let Some(other) = under_way.get(&place) {
            return Ok(Turn::Others(other.clone()));
        }
        if under_way.len() >= LOADS_MAX {
            return Err(Error::Overloaded {
                queued: LOADS_MAX,
                unit: "loads",
                limit: LOADS_MAX,
            });
        }
        let (ended, other) = watch::channel(());
        under_way.insert(place.clone(), other);
        Ok(Turn::Ours(Flight {
            loads: self.clone(),
            place,
            _ended: ended,
        }))
    }
}

/// What this node has of an entry.
enum Found {
    Fresh(Bytes),
    /// And whether somebody is making a new one.
    Stale(Bytes, bool),
    Nothing,
}

/// What `CACHE.LEASE` answers.
pub(super) enum Leased {
    /// The value, which is fresh or is being made anew by somebody else.
    There(Bytes),
    /// Whoever has this token makes the next value; whether there is a stale one.
    Ours { token: u64, stale: bool },
    /// Somebody else had the lease all the time.
    Taken,
}

impl Cache {
    /// The value under a key; if there is none, what `load` brings, which is put for all nodes. Of all who ask at the same time, on whatever node, one
    /// loads, and the others wait for its value.
    ///
    /// - A load that fails or panics is the error of its caller; the next who waits loads at once. A load that takes longer than
    ///   [`EntryOptions::lease`], or whose node vanishes, is not waited for any longer; what it still brings goes to its own caller only.
    /// - A stale value ([`EntryOptions::fresh_for`]) is given at once, and one load makes a new one in the background. See
    ///   [`EntryOptions::refresh_wait`] and [`EntryOptions::stale_on_error`] to wait for it.
    /// - What was loaded before one of its tags was invalidated is not put afterwards, and no caller who came after that is given it.
    /// - The load runs on a task of its own, and is put also when its caller has gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// use plenary::EntryOptions;
    /// use std::time::Duration;
    ///
    /// # async fn query(id: u32) -> std::io::Result<String> { Ok(format!("product {id}")) }
    /// let options = EntryOptions::new(Duration::from_secs(600)) // gone after ten minutes,
    ///     .fresh_for(Duration::from_secs(60))                   // refreshed in the background after one
    ///     .tag("products");                                     // or when somebody says so
    /// let product = cache.get_or_load("product:7", &options, || query(7)).await?;
    /// assert_eq!(product, "product 7");
    ///
    /// let again = cache.get_or_load("product:7", &options, || async { Err::<String, _>("not called") });
    /// assert_eq!(again.await?, "product 7");
    /// # plenary.stop().await }
    /// ```
    ///
    /// # Errors
    /// [`Error::Load`] if the load failed; [`Error::Taken`] after [`EntryOptions::wait`]; those of [`Cache::get`] and
    /// [`Node::write`](crate::node::Node::write), where [`EntryOptions::load_in_outage`] does not help. That a value could not be put is no error.
    pub async fn get_or_load<F, L, V, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: &EntryOptions,
        load: F,
    ) -> Result<Bytes>
    where
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Bytes>,
        E: Into<LoadError>,
    {
        options.check()?;
        let key = Bytes::copy_from_slice(key.as_ref());
        let began = Instant::now();
        let left = || options.wait.saturating_sub(began.elapsed());
        let (flight, stale) = loop {
            let found = self.find(&key).await?;
            if let Found::Fresh(value) = found {
                return Ok(value);
            }
            let place = (self.db, key.clone());
            let turn = match &found {
                Found::Stale(stale, true) => match self.loads.under_way(&place) {
                    Some(other) => Turn::Others(other),
                    // Made anew on another node, or by a Redis client: to ask the log would change nothing.
                    None => return Ok(stale.clone()),
                },
                _ => self.loads.turn(place)?,
            };
            let stale = found.value();
            let mut other = match turn {
                Turn::Ours(flight) => break (flight, stale),
                Turn::Others(other) => other,
            };
            // Nothing is ever sent: it is closed when the load has ended.
            let ended = async { other.changed().await.is_err() };
            let Some(stale) = stale else {
                if tokio::time::timeout(left(), ended).await.is_err() {
                    return Err(taken(&key, options.wait));
                }
                continue;
            };
            // Over or not: what there is then is given.
            let _ = tokio::time::timeout(options.refresh_wait, ended).await;
            return Ok(self.find(&key).await?.value().unwrap_or(stale));
        };
        let load = move || async move { load().await.map(Into::into).map_err(Into::into) }.boxed();
        let left = left();
        // Where there is something to give, an outage is no reason to load what cannot be put.
        let mut options = options.clone();
        options.load_in_outage &= stale.is_none();
        options.wait = left;
        let loading = self.begin(flight, options.clone(), Box::new(load));
        self.land(loading, stale, &options).await
    }

    /// [`Cache::get_or_load`] of a value as JSON.
    ///
    /// # Errors
    /// [`Error::Value`] if what is there is not JSON of this type; [`Error::Load`] also if what was loaded cannot be JSON; those of
    /// [`Cache::get_or_load`].
    pub async fn get_or_load_as<T, F, L, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: &EntryOptions,
        load: F,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<LoadError> + Send,
    {
        let load = move || async move { Ok::<_, LoadError>(to_json(&load().await.map_err(Into::into)?)?) };
        from_json(&self.get_or_load(key, options, load).await?)
    }

    async fn find(&self, key: &[u8]) -> Result<Found> {
        self.look(&[key], |view| {
            let Some(entry) = cached::find(&view, key)? else {
                return Ok(Found::Nothing);
            };
            Ok(match entry.value {
                Some(value) if entry.fresh => Found::Fresh(value),
                Some(value) => Found::Stale(value, entry.lease.is_some()),
                None => Found::Nothing,
            })
        })
        .await
    }

    fn begin(&self, flight: Flight, options: EntryOptions, load: Load) -> JoinHandle<Result<Bytes>> {
        let cache = self.clone();
        tokio::spawn(async move { cache.lease_and_load(flight, &options, load).await })
    }

    /// What comes of a load for the caller who began it. It goes on when this one does not wait for it any longer.
    async fn land(
        &self,
        loading: JoinHandle<Result<Bytes>>,
        stale: Option<Bytes>,
        options: &EntryOptions,
    ) -> Result<Bytes> {
        let Some(stale) = stale else {
            return loading.await.unwrap_or_else(|_| Err(stopped()));
        };
        if options.refresh_wait.is_zero() {
            return Ok(stale);
        }
        match tokio::time::timeout(options.refresh_wait, loading).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error @ Error::Load(_)))) if !options.stale_on_error => Err(error),
            // It takes too long, or was never begun.
            _ => Ok(stale),
        }
    }

    async fn lease_and_load(&self, flight: Flight, options: &EntryOptions, load: Load) -> Result<Bytes> {
        let key = &flight.place.1.clone();
        let (token, stale) = match self.lease(key, options).await {
            Ok(Leased::There(value)) => return Ok(value),
            Ok(Leased::Taken) => return Err(taken(key, options.wait)),
            Ok(Leased::Ours { token, stale }) => (Some(token), stale),
            Err(error) if options.load_in_outage && is_outage(&error) => {
                tracing::debug!(%error, "loading without a lease");
                (None, false)
            }
            Err(error) => return Err(error),
        };
        // Nothing of ours is in there: a panic leaves nothing half done.
        let mut loading = pin!(AssertUnwindSafe(async move { load().await }).catch_unwind());
        let mut flight = Some(flight);
        let loaded = match tokio::time::timeout(options.lease, &mut loading).await {
            Ok(loaded) => loaded,
            Err(_) => {
                // Its own caller still waits for it; others need not.
                flight.take();
                loading.await
            }
        };
        let loaded = loaded.unwrap_or_else(|_| Err("it panicked".into()));
        if let Some(token) = token {
            let settled = match &loaded {
                // Not put where the lease is over, or a tag was invalidated: then another may load already.
                Ok(value) => self
                    .put_entry(key, value.clone(), options, Some(token))
                    .await
                    .map(drop),
                Err(_) => self
                    .give_back(key, token, stale.then_some(options.retry_after))
                    .await
                    .map(drop),
            };
            if let Err(error) = settled {
                tracing::debug!(%error, "what came of a load is not in the log");
                // Refused for what it is: the next who waits is not to wait for the deadline.
                let _ = self.give_back(key, token, None).await;
            }
        }
        drop(flight);
        loaded.map_err(Error::Load)
    }

    async fn lease(&self, key: &[u8], options: &EntryOptions) -> Result<Leased> {
        let mut tags = Vec::new();
        options.push_tags(&mut tags);
        self.lease_with(key, options.lease, options.wait, tags).await
    }

    /// Takes a lease, or what it is for; waits in the log, first come first served, while somebody else has it and there is no value.
    pub(super) async fn lease_with(
        &self,
        key: &[u8],
        lease: Duration,
        wait: Duration,
        tags: Vec<Bytes>,
    ) -> Result<Leased> {
        let wait = wait.min(WAIT_MOST);
        let mut argv = vec![
            Bytes::from_static(b"CACHE.LEASE"),
            Bytes::copy_from_slice(key),
            millis(lease).into(),
        ];
        if !wait.is_zero() {
            argv.extend([Bytes::from_static(b"WAIT"), millis(wait).into()]);
        }
        argv.extend(tags);
        // The log tells when the time is over, unless nobody writes it any more.
        let reply = match tokio::time::timeout(wait + LOG_LATE, self.write(argv)).await {
            Ok(reply) => reply?,
            Err(_) => return Ok(Leased::Taken),
        };
        let parts = match &reply {
            Reply::NilArray => return Ok(Leased::Taken),
            Reply::Array(parts) => &parts[..],
            _ => return Err(unexpected(&reply)),
        };
        match parts {
            [value, _, Reply::Integer(token)] => Ok(Leased::Ours {
                token: token.cast_unsigned(),
                stale: *value != Reply::Nil,
            }),
            [Reply::Bulk(value), _, Reply::Nil] => Ok(Leased::There(value.clone())),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Gives a lease back; a stale value counts as fresh for `pause`. Whether it was still held.
    pub(super) async fn give_back(&self, key: &[u8], token: u64, pause: Option<Duration>) -> Result<bool> {
        let (token, pause) = (token.to_string(), pause.map(millis));
        let mut argv = vec![b"CACHE.RELEASE", key, token.as_bytes()];
        if let Some(pause) = &pause {
            argv.extend([&b"FRESH"[..], pause]);
        }
        Ok(self.run(&argv).await? == Reply::Integer(1))
    }
}

impl Found {
    /// The value, fresh or stale.
    fn value(self) -> Option<Bytes> {
        match self {
            Self::Fresh(value) | Self::Stale(value, _) => Some(value),
            Self::Nothing => None,
        }
    }
}

/// Whether it is the cluster's trouble, not the command's.
fn is_outage(error: &Error) -> bool {
    matches!(
        error,
        Error::NoLeader { .. } | Error::Overloaded { .. } | Error::Unknown { .. } | Error::NotFresh { .. }
    )
}

fn taken(key: &[u8], waited: Duration) -> Error {
    Error::Taken {
        what: format!("the load of {}", String::from_utf8_lossy(key)),
        waited,
    }
}

fn stopped() -> Error {
    Error::Stopped {
        why: "its runtime ends".to_owned(),
    }
}
