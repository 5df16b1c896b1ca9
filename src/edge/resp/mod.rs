//! The Redis endpoint: any client of Redis speaks to the node in this process.
//!
//! Every node answers as a standalone master (`role:master`, never `MOVED`): reads come from its own memory, writes go through
//! the log, wherever its leader is. In reading order: [`frame`] (bytes to commands), [`connection`] (order, waiting, limits),
//! `again` (what clients send again), `multi` (transactions), `blocking` (waiting), `local` and its neighbours (commands that concern a connection or this node), `hub`,
//! `tracking`, `monitor` and `outbox` (what is told to clients without being asked for), [`encode`] (replies to bytes), `listener`
//! (who may come in). What the cache's own commands mean is in `machine/`, not here.
//!
//! # When this node could not answer
//!
//! A command that the cluster refuses answers as in Redis. This node's own trouble ([`Error`]) has these prefixes, chosen by what
//! clients do with them: a retry by the client must be safe, so a write that may have been applied has a prefix that none retries.
//!
//! | error | prefix | applied? | what clients do |
//! |---|---|---|---|
//! | `NoLeader` | `LOADING` | no | redis-py reconnects and retries; go-redis, redis-rs and Lettuce wait and retry |
//! | `Stopped` | `LOADING` | no | the same, and the connection is closed soon after |
//! | `Overloaded` | `TRYAGAIN` | no | go-redis and redis-rs wait and retry; others raise it |
//! | `NotFresh` | `TRYAGAIN` | a read | the same |
//! | `Unknown` | `UNKNOWN` | **maybe** | all raise it; read before you retry |
//! | the same, of the text of an `EVAL` that is made known first | `TRYAGAIN` | no | as `Overloaded` |
//! | none: a command waited (`BLPOP` …), and this node went on from a snapshot in which it waits no more | `UNKNOWN` | **maybe** | as `Unknown` |
//! | `TooLarge` and the rest | `ERR` | no | all raise it |
//!
//! Clients send a whole pipeline again: redis-py where any reply in it is `LOADING`, go-redis where the first is that or `TRYAGAIN`. So of what came together
//! (`again`): behind a write, done or unknown, `ERR` stands in the place of these words, as it does within the reply of `EXEC`; and behind such a word no
//! write is run, but told the same. Reads of what this node has are answered all the same. What came together is what was there when a read of the socket was
//! worked off, and what follows it without a gap: as long as the last command is there in part. A stream without a gap is one pipeline to its end. A pipeline
//! that the network cuts exactly between two commands counts as two: then a client may send again what was written in the first, as it may where its
//! connection breaks.
//!
//! `CLUSTERDOWN` was not chosen for `NoLeader`: only clients in cluster mode know what to do with it.
//!
//! # Memory
//!
//! One connection holds at most: one unfinished command, one submission of writes ([`connection::MAX_SUBMISSION_COMMANDS`]), and
//! `max_output_bytes` of replies (less where `client-output-buffer-limit normal` says so): a reply that does not fit, or those of one transaction, are not written
//! to their end, and cut the client off. Before they are written they stand in memory with what they share with the keys, a value once however often it was asked for. When replies wait, nothing is read for a while; a client that goes on sending
//! without reading is cut off at the limit. What is pushed to it waits in its outbox, bounded by `client-output-buffer-limit pubsub`; what
//! it has queued since `MULTI` is bounded by `multi::MAX_QUEUED_BYTES`.

mod access;
mod acl;
mod acl_log;
mod again;
mod blocking;
mod calls;
mod catalogue;
mod client;
mod clients;
mod compat;
mod config;
pub mod connection;
pub mod decode;
pub(crate) mod descriptors;
pub mod encode;
pub mod frame;
mod hub;
mod info;
mod keys;
mod latency;
mod listener;
mod local;
mod members;
mod migrate;
mod monitor;
mod multi;
mod observe;
mod outbox;
mod parameters;
mod permit;
mod pubsub;
mod script;
mod server;
mod slowlog;
mod stats;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod tracking;

use crate::config::RespConfig;
use crate::error::Error;
use crate::machine::reply::CommandError;
use crate::node::Node;
#[cfg(test)]
use crate::raft::net::simulated;
use blocking::Pause;
use clients::Clients;
use hub::Hub;
use listener::Door;
use monitor::Monitors;
use outbox::OutputLimits;
use parking_lot::Mutex;
use stats::Stats;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use crate::config::REDIS_VERSION;

/// A running endpoint. Dropping it stops it without waiting for the connections.
#[derive(Debug)]
pub struct Resp {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    /// The accept loop, until [`Resp::stop`] took it. Held to take it, never across an await.
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// What all connections of an endpoint share.
#[derive(Debug)]
struct Shared {
    node: Node,
    config: RespConfig,
    /// `CONFIG SET timeout`, in milliseconds; 0: never.
    idle_timeout_ms: AtomicU64,
    /// `CONFIG SET maxclients`.
    max_clients: AtomicUsize,
    /// `CONFIG SET busy-reply-scope all`: whether everybody is answered `BUSY` while a script runs for too long, or only other scripts.
    busy_for_all: AtomicBool,
    /// `CONFIG SET proto-max-bulk-len`, in bytes.
    max_bulk_bytes: AtomicUsize,
    /// `CONFIG SET client-query-buffer-limit`, in bytes.
    max_command_bytes: AtomicUsize,
    /// `CONFIG SET client-output-buffer-limit`, of who is not subscribed to anything.
    reply_limits: OutputLimits,
    address: SocketAddr,
    clients: Clients,
    /// Who is told what; shared with the node, which tells it.
    hub: Arc<Hub>,
    monitors: Monitors,
    pause: Pause,
    /// How many clients wait, for a key or for the end of a pause.
    blocked: AtomicUsize,
    stats: Stats,
    started: Instant,
    /// Who comes in.
    access: permit::Gate,
    acl_log: acl_log::AclLog,
    calls: calls::Calls,
    slowlog: slowlog::Slowlog,
    latency: latency::Latency,
    compat: compat::Compat,
    kept: parameters::Kept,
    migrations: migrate::Places,
    /// The most bytes that all keys took.
    peak: stats::Peak,
    /// The certificate for the port with TLS.
    #[cfg(feature = "tls")]
    tls: Option<tls::Tls>,
    /// That port, after port 0 was resolved; 0: none.
    tls_port: u16,
}

/// The ports of an endpoint, taken.
#[derive(Debug)]
pub struct Listeners {
    plain: Option<Door>,
    secure: Option<Door>,
}

#[cfg(test)]
impl From<simulated::Listener> for Listeners {
    fn from(listener: simulated::Listener) -> Self {
        Self {
            plain: Some(Door::Simulated(listener)),
            secure: None,
        }
    }
}

impl Shared {
    /// What one command may be.
    fn limits(&self) -> frame::Limits {
        frame::Limits {
            arguments: self.config.max_arguments,
            bulk_bytes: self.max_bulk_bytes.load(Ordering::Relaxed),
            command_bytes: self.max_command_bytes.load(Ordering::Relaxed),
        }
    }

    /// The settings of TLS in force.
    fn tls_config(&self) -> Option<crate::config::TlsConfig> {
        #[cfg(feature = "tls")]
        return self.tls.as_ref().map(tls::Tls::config);
        #[cfg(not(feature = "tls"))]
        None
    }

    /// Takes up other settings of TLS; those before stay in force where these cannot be read.
    fn set_tls(&self, config: crate::config::TlsConfig) -> Result<(), String> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.set(config);
        }
        Err(format!("{} is not listened on", config.listen))
    }
}

impl Resp {
    /// Takes the endpoint's ports, and notes in the settings which ones port 0 came to. Apart from [`Resp::start`], so that a node can tell the
    /// others where its clients are served before it starts.
    ///
    /// # Errors
    /// [`Error::Listen`] when an address cannot be listened on; [`Error::Config`] for TLS in a program that was built without it.
    pub async fn bind(config: &mut RespConfig) -> Result<Listeners, Error> {
        if cfg!(not(feature = "tls")) && config.tls.is_some() {
            return Err(Error::Config(vec![
                "tls_listen: this program was built without the feature `tls`".to_owned(),
            ]));
        }
        let plain = match config.listen.is_empty() {
            true => None,
            false => Some(listen(&mut config.listen).await?),
        };
        let secure = match &mut config.tls {
            None => None,
            Some(tls) => Some(listen(&mut tls.listen).await?),
        };
        Ok(Listeners { plain, secure })
    }

    /// Serves the clients of listeners from [`Resp::bind`] until [`Resp::stop`].
    ///
    /// # Errors
    /// [`Error::Listen`] when the system does not tell a listener's address; [`Error::Config`] when a certificate cannot be read.
    pub fn start(listeners: Listeners, node: Node, config: RespConfig) -> Result<Self, Error> {
        let refused = |source| Error::Listen {
            address: config.listen.clone(),
            source,
        };
        let hub = Arc::<Hub>::default();
        node.listen(hub.clone());
        let address = |listener: &Option<Door>| listener.as_ref().map(Door::local_addr).transpose();
        let (plain, secure) = (
            address(&listeners.plain).map_err(refused)?,
            address(&listeners.secure).map_err(refused)?,
        );
        let address = plain
            .or(secure)
            .ok_or_else(|| Error::Config(vec!["resp: there is no port to serve".to_owned()]))?;
        let limits = frame::Limits::new(config.max_arguments, config.max_bulk_bytes);
        let max_clients = config.max_clients.min(descriptors::room());
        if max_clients < config.max_clients {
            tracing::warn!(
                asked = config.max_clients,
                max_clients,
                "fewer clients are served: the system lets this process open too few files (ulimit -n)"
            );
        }
        let shared = Shared {
            node,
            idle_timeout_ms: AtomicU64::new(
                u64::try_from(config.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            ),
            max_clients: AtomicUsize::new(max_clients),
            busy_for_all: AtomicBool::new(false),
            max_bulk_bytes: AtomicUsize::new(limits.bulk_bytes),
            max_command_bytes: AtomicUsize::new(limits.command_bytes),
            reply_limits: OutputLimits::none(),
            access: permit::Gate::new(config.access_key.as_ref().map(|key| key.expose())),
            acl_log: acl_log::AclLog::default(),
            calls: calls::Calls::default(),
            slowlog: slowlog::Slowlog::default(),
            latency: latency::Latency::default(),
            compat: compat::Compat::default(),
            kept: parameters::Kept::default(),
            migrations: migrate::Places::default(),
            peak: stats::Peak::default(),
            #[cfg(feature = "tls")]
            tls: config.tls.clone().map(tls::Tls::new).transpose()?,
            tls_port: secure.map_or(0, |address| address.port()),
            config,
            address,
            clients: Clients::default(),
            hub,
            monitors: Monitors::default(),
            pause: Pause::default(),
            blocked: AtomicUsize::new(0),
            stats: Stats::default(),
            started: Instant::now(),
        };
        let changes = shared.node.view(0, |view| view.store().writes());
        shared.stats.saved_changes.set(changes);
        let (stop, stopping) = watch::channel(false);
        let listener = tokio::spawn(listener::accept(listeners, Arc::new(shared), stopping));
        Ok(Self {
            address,
            stop,
            listener: Mutex::new(Some(listener)),
        })
    }

    /// Where clients are listened for, after port 0 was resolved; the port with TLS, where there is no other.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, lets each connection finish the command it runs, and closes them: those that do not finish within
    /// `listener::STOP_GRACE` as well.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let listener = self.listener.lock().take();
        if let Some(listener) = listener {
            // It cannot be aborted, and a panic in it was reported when it happened.
            let _ = listener.await;
        }
    }
}

/// Listens at an address, and notes which port it came to.
async fn listen(address: &mut String) -> Result<Door, Error> {
    let refused = |source| Error::Listen {
        address: address.clone(),
        source,
    };
    let listener = TcpListener::bind(address.as_str()).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    if let Some(host) = address.strip_suffix(":0") {
        *address = format!("{host}:{}", bound.port());
    }
    Ok(Door::System(listener))
}

/// What a client is told when this node could not answer: see the table in the head of this file.
fn trouble(error: Error) -> CommandError {
    let prefix = match error {
        Error::Refused(refusal) => return refusal,
        Error::NoLeader { .. } | Error::Stopped { .. } => "LOADING",
        Error::Overloaded { .. } | Error::NotFresh { .. } => "TRYAGAIN",
        Error::Unknown { .. } => "UNKNOWN",
        _ => "ERR",
    };
    CommandError::Other(Cow::Owned(format!("{prefix} {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn trouble_has_a_prefix_that_tells_whether_a_retry_is_safe() {
        let (waited, why) = (Duration::from_millis(5), || "because".to_owned());
        for (error, prefix) in [
            (
                Error::NoLeader { waited, why: why() },
                "LOADING no leader for 5 ms",
            ),
            (Error::Stopped { why: why() }, "LOADING this node has stopped"),
            (
                Error::Overloaded {
                    queued: 1,
                    unit: "commands",
                    limit: 1,
                },
                "TRYAGAIN overloaded",
            ),
            (
                Error::NotFresh { waited, why: why() },
                "TRYAGAIN not fresh enough",
            ),
            (Error::Unknown { waited, why: why() }, "UNKNOWN unknown outcome"),
            (Error::TooLarge { size: 2, limit: 1 }, "ERR too large"),
            (Error::Members(why()), "ERR members: because"),
            (Error::Refused(CommandError::WrongType), "WRONGTYPE Operation"),
        ] {
            // A client may send again what certainly was not applied; what may have been must not look like that.
            let (unsure, text) = (error.may_be_applied(), trouble(error).to_string());
            assert!(text.starts_with(prefix), "{text}");
            assert_eq!(unsure, text.starts_with("UNKNOWN"), "{text}");
        }
    }
}
