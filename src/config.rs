//! Each setting with its unit, default and reason; one [`Config::validate`] that reports every fault at once.

use crate::error::Error;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The version of Redis that `INFO`, `HELLO` and scripts name: clients choose by it what they send.
pub const REDIS_VERSION: &str = "7.4.0";

/// Bytes of one entry of the log, at most: it goes to another member in one message, which may have 64 MiB (`raft/client.rs`), behind what is left of the
/// entries before it.
pub(crate) const ENTRY_BYTES: usize = 62 << 20;

/// The most that [`Limits::group_bytes`] may be: an entry has a head beside them.
const GROUP_BYTES_MAX: usize = 60 << 20;

/// The most that [`Limits::command_bytes`] may be: what scripts write shares an entry of the log until it is more than half of it, and the last may write as much
/// as one may.
const COMMAND_BYTES_MAX: usize = GROUP_BYTES_MAX / 3 * 2;

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
    /// What the log is kept in. A folder whose log is kept in the other one is converted at the start.
    pub log_store: LogKind,
    /// The Redis endpoint; none by default.
    pub resp: Option<RespConfig>,
    /// Where `/health`, `/ready` and `/metrics` are served, `host:port`; none by default.
    pub http: Option<String>,
    /// Raft's rhythm.
    pub timing: Timing,
    /// Whether this node, while it leads, answers linearizable reads on the lease that a majority gave it last, rather than asking a majority for
    /// each round of them. Only for machines whose clocks run alike within a quarter and that are never suspended, moved or restored while they
    /// run: a leader that slept through its lease may answer with what it was. Off by default.
    pub lease_reads: bool,
    /// Bounds of queues and groups.
    pub limits: Limits,
}

/// When a write counts as stored on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On stable storage: survives power loss of every node at once.
    #[default]
    Fsync,
    /// In the operating system's page cache: survives `kill -9` of every process and power loss of a minority of nodes, not power
    /// loss of a majority at once.
    Os,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        })
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => Err("expected `fsync` or `os`".to_owned()),
        }
    }
}

/// What a node keeps its log in. Identity and catalogue are in sled either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Files of our own: segments that are written one after the other and used again.
    #[default]
    Segments,
    /// The database that holds everything else too. Its files were not made for power loss: what is known to be lost then is prevented, at the price of more
    /// flushes, of a start that reads the log twice, and of space for it twice meanwhile.
    Sled,
}

impl fmt::Display for LogKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segments => "segments",
            Self::Sled => "sled",
        })
    }
}

impl FromStr for LogKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "segments" => Ok(Self::Segments),
            "sled" => Ok(Self::Sled),
            _ => Err("expected `segments` or `sled`".to_owned()),
        }
    }
}

/// A secret or key. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl<'de> Deserialize<'de> for Secret {
    /// An error says nothing of what stood there.
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text =
            String::deserialize(from).map_err(|_| serde::de::Error::custom("expected a text in quotes"))?;
        Ok(Self(text))
    }
}

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

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who may use `DEBUG`. Redis' `enable-debug-command`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DebugCommand {
    /// Nobody.
    #[default]
    No,
    /// Clients on the loopback interface.
    Local,
    /// Whoever may use it by the rules for users.
    Yes,
}

impl fmt::Display for DebugCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Local => "local",
            Self::Yes => "yes",
        })
    }
}

impl FromStr for DebugCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "no" => Ok(Self::No),
            "local" => Ok(Self::Local),
            "yes" => Ok(Self::Yes),
            _ => Err("expected `no`, `local` or `yes`".to_owned()),
        }
    }
}

/// How fresh the reads of a Redis client are, unless it says otherwise (`PLENARY FRESH`). It sees its own writes either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// As fresh as the node that is asked. Never wait.
    #[default]
    Local,
    /// As of now, cluster-wide. A round to a majority for each, shared by all who ask at the same time.
    Linearizable,
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Linearizable => "linearizable",
        })
    }
}

impl FromStr for Reads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "linearizable" => Ok(Self::Linearizable),
            _ => Err("expected `local` or `linearizable`".to_owned()),
        }
    }
}

/// TLS for Redis clients, on a port of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// `host:port`. Port 0 takes a free one.
    pub listen: String,
    /// PEM file with this node's certificate, and those between it and the root. Read again when it changes.
    pub cert_file: PathBuf,
    /// PEM file with its key. Read again when it changes.
    pub key_file: PathBuf,
    /// PEM file with the certificates that sign those of clients.
    pub ca_cert_file: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub clients: TlsClients,
}

/// Whether clients must show a certificate. Redis' `tls-auth-clients`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsClients {
    /// Nobody is asked for one.
    #[default]
    No,
    /// Who shows one must show a right one.
    Optional,
    /// Everybody must.
    Yes,
}

impl fmt::Display for TlsClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Optional => "optional",
            Self::Yes => "yes",
        })
    }
}

impl FromStr for TlsClients {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "no" => Ok(Self::No),
            "optional" => Ok(Self::Optional),
            "yes" => Ok(Self::Yes),
            _ => Err("expected `no`, `optional` or `yes`".to_owned()),
        }
    }
}

/// The Redis endpoint.
#[derive(Clone, Debug)]
pub struct RespConfig {
    /// `host:port` without TLS. Port 0 takes a free one; empty: none, which needs [`RespConfig::tls`].
    pub listen: String,
    /// The port with TLS.
    pub tls: Option<TlsConfig>,
    /// What clients give `AUTH` (user `default`). Without it only loopback is served, as Redis' protected mode does.
    pub access_key: Option<Secret>,
    /// Connections at once. Redis' `maxclients`.
    pub max_clients: usize,
    /// Bytes of one argument. Redis' `proto-max-bulk-len` is 512 MB; a replicated cache wants less.
    pub max_bulk_bytes: usize,
    /// Arguments of one command.
    pub max_arguments: usize,
    /// Bytes of replies that wait for a client to read them, before it is cut off. What one command or one transaction is answered must fit.
    pub max_output_bytes: usize,
    /// A connection that sent nothing for this long is closed; zero: never (Redis' `timeout 0`).
    pub idle_timeout: Duration,
    /// How fresh reads are, unless a client says otherwise.
    pub reads: Reads,
    /// Who may use `DEBUG`.
    pub debug_command: DebugCommand,
}

impl RespConfig {
    /// An endpoint at this address with default bounds.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            tls: None,
            access_key: None,
            max_clients: 10_000,
            max_bulk_bytes: 16 << 20,
            max_arguments: 1 << 20,
            max_output_bytes: 64 << 20,
            idle_timeout: Duration::ZERO,
            reads: Reads::default(),
            debug_command: DebugCommand::default(),
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
    /// Bytes of one group, unless a single command is larger; 62,914,560 at most, for members send a group in one message.
    pub group_bytes: usize,
    /// Groups of this node that are being replicated at once.
    pub groups_in_flight: usize,
    /// Commands that wait for a place in a group.
    pub queue_commands: usize,
    /// Bytes that wait for a place in a group.
    pub queue_bytes: usize,
    /// Bytes of one command, and of what one script writes and answers; in memory what it writes may take 8 times that. 41,943,040 at most: scripts that share
    /// a group may come to half as much again, and members send a group in one message.
    pub command_bytes: usize,
    /// Bytes of log after which a snapshot is taken and the log cut; a quarter of the last snapshot, if that is more.
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
    /// The settings and addresses of its ports: the plain one, the one with TLS.
    fn listeners(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let plain = Some(("resp", self.listen.as_str())).filter(|(_, listen)| !listen.is_empty());
        let secure = self.tls.as_ref().map(|tls| ("tls_listen", tls.listen.as_str()));
        plain.into_iter().chain(secure)
    }

    /// Where clients reach the endpoint of a node whose peers reach it at `advertise`; empty while the port is not known.
    pub(crate) fn advertised(&self, advertise: &str) -> String {
        let listen = self.listeners().next().map_or("", |(_, listen)| listen);
        let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "0"));
        match (host, port) {
            (_, "0") => String::new(),
            ("0.0.0.0" | "[::]" | "", port) => {
                format!(
                    "{}:{port}",
                    advertise.rsplit_once(':').map_or(advertise, |(host, _)| host)
                )
            }
            _ => listen.to_owned(),
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
            log_store: LogKind::default(),
            resp: None,
            http: None,
            timing: Timing::default(),
            lease_reads: false,
            limits: Limits::default(),
        }
    }

    /// Where peers reach this node: `advertise`, or where it listens.
    pub fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }

    /// How many addresses `join` names, this node's own among them, each once.
    pub fn named_members(&self) -> usize {
        let mut named: BTreeSet<String> = self
            .join
            .iter()
            .map(|address| address.to_ascii_lowercase())
            .collect();
        named.insert(self.advertised().to_ascii_lowercase());
        named.len()
    }

    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// [`Error::Config`] with every fault, each with the setting, its value, the bound and what to do.
    pub fn validate(&self) -> Result<(), Error> {
        let mut faults = Faults(Vec::new());
        if self.data.as_os_str().is_empty() {
            faults.add("data is not set: name the folder in which this node keeps its state");
        }
        self.check_addresses(&mut faults);
        self.check_forming(&mut faults);
        self.check_admission(&mut faults);
        self.timing.check(&mut faults);
        self.limits.check(&mut faults);
        if let Some(resp) = &self.resp {
            resp.check(&mut faults);
        }
        if faults.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Config(faults.0))
        }
    }

    fn check_addresses(&self, faults: &mut Faults) {
        let of_resp = self.resp.iter().flat_map(RespConfig::listeners);
        let mut listeners = vec![
            ("listen", Some(self.listen.as_str())),
            ("http", self.http.as_deref()),
        ];
        listeners.splice(1..1, of_resp.map(|(setting, listen)| (setting, Some(listen))));
        for (setting, address) in listeners.iter().copied() {
            if let Some(address) = address {
                faults.address(setting, address, Use::Listen);
            }
        }
        for (i, (one, here)) in listeners.iter().enumerate() {
            for (other, there) in &listeners[i + 1..] {
                if here.is_some() && here == there && here.and_then(port_of) != Some(0) {
                    let address = here.unwrap_or_default();
                    faults.add(format!(
                        "{one} and {other} are both {address}: give each a port of its own"
                    ));
                }
            }
        }
        match &self.advertise {
            Some(address) => faults.address("advertise", address, Use::Reach),
            None if host_of(&self.listen).is_some_and(is_unspecified) => faults.add(format!(
                "listen = {} is every address of this machine, which peers cannot connect to: set advertise to the \
                 host:port where they reach it",
                self.listen
            )),
            None => {}
        }
        for address in &self.join {
            faults.address("join", address, Use::Reach);
        }
    }

    /// Two halves of a fresh cluster must never both form one: whoever forms it must be a majority of all who are named.
    fn check_forming(&self, faults: &mut Faults) {
        let (Some(expect), named) = (self.expect, self.named_members()) else {
            return;
        };
        let majority = named / 2 + 1;
        if expect < majority {
            faults.add(format!(
                "expect = {expect} is less than a majority of the {named} addresses in join with this node's own: two \
                 parts could each form a cluster. Set it to {majority} to {named}, or leave it out for {named}"
            ));
        } else if expect > named {
            faults.add(format!(
                "expect = {expect} is more than the {named} addresses in join with this node's own: it would wait for \
                 ever. Name all peers in join, or set expect to {majority} to {named}"
            ));
        }
    }

    /// Nobody else gets in: without a secret or key, only this machine.
    fn check_admission(&self, faults: &mut Faults) {
        match &self.secret {
            Some(secret) if secret.expose().is_empty() => {
                faults.add("secret is empty: put the same random text on every node, 16 bytes or more");
            }
            Some(_) => {}
            None => {
                for (setting, address) in [
                    ("listen", Some(&self.listen)),
                    ("advertise", self.advertise.as_ref()),
                ] {
                    if let Some(address) =
                        address.filter(|address| well_formed(address) && !is_loopback(address))
                    {
                        faults.add(format!(
                            "{setting} = {address} without a secret. Without a secret it serves peers on loopback only: \
                             set the same secret on every node, or listen on 127.0.0.1"
                        ));
                    }
                }
            }
        }
        let Some(resp) = &self.resp else { return };
        match &resp.access_key {
            Some(key) if key.expose().is_empty() => {
                faults.add("access_key is empty: give clients a key, or leave it out to serve loopback only");
            }
            None => {
                for (setting, listen) in resp.listeners() {
                    if well_formed(listen) && !is_loopback(listen) {
                        faults.add(format!(
                            "{setting} = {listen} without an access key. Without an access key it serves Redis clients on loopback \
                             only: set access_key, or listen on 127.0.0.1"
                        ));
                    }
                }
            }
            Some(_) => {}
        }
    }
}

/// The longest of our timings: what is longer was meant in another unit.
const TIMING_MAX: Duration = Duration::from_secs(600);

impl Timing {
    /// How old a majority's word may be on which a leader reads. A member that gave it votes for nobody else within `election_max` of its own
    /// clock: a quarter of that is left for clocks that run apart.
    pub(crate) fn lease(&self) -> Duration {
        self.election_max * 3 / 4
    }

    fn check(&self, faults: &mut Faults) {
        let all = [
            ("heartbeat_ms", self.heartbeat),
            ("election_min_ms", self.election_min),
            ("election_max_ms", self.election_max),
            ("write_deadline_ms", self.write_deadline),
        ];
        for (setting, value) in all {
            if value < Duration::from_millis(1) || value > TIMING_MAX {
                faults.add(format!(
                    "{setting} = {} is out of range: set 1 to {} milliseconds",
                    value.as_millis(),
                    TIMING_MAX.as_millis()
                ));
            }
        }
        if self.election_min < self.heartbeat.saturating_mul(2) {
            faults.add(format!(
                "election_min_ms = {} is less than twice heartbeat_ms = {}: one lost heartbeat would start an election. \
                 Set it to {} or more",
                self.election_min.as_millis(),
                self.heartbeat.as_millis(),
                self.heartbeat.saturating_mul(2).as_millis()
            ));
        }
        if self.election_max <= self.election_min {
            faults.add(format!(
                "election_max_ms = {} is not above election_min_ms = {}: members would stand at the same time. Twice the \
                 minimum is usual",
                self.election_max.as_millis(),
                self.election_min.as_millis()
            ));
        }
    }
}

impl Limits {
    fn check(&self, faults: &mut Faults) {
        faults.positive("group_commands", self.group_commands);
        faults.positive("group_bytes", self.group_bytes);
        faults.positive("groups_in_flight", self.groups_in_flight);
        faults.positive("queue_commands", self.queue_commands);
        faults.positive("queue_bytes", self.queue_bytes);
        faults.positive("command_bytes", self.command_bytes);
        for (setting, bytes, most) in [
            ("group_bytes", self.group_bytes, GROUP_BYTES_MAX),
            ("command_bytes", self.command_bytes, COMMAND_BYTES_MAX),
        ] {
            if bytes > most {
                faults.add(format!(
                    "{setting} = {bytes} is more than {most}: what it allows would be an entry of the log that is too large for a message between members, \
                     and no write after it would reach a majority. Lower it"
                ));
            }
        }
        if self.snapshot_log_bytes == 0 {
            faults.add("snapshot_log_bytes = 0: set 1 or more, or leave it out for the default");
        }
        if self.queue_bytes < self.command_bytes {
            faults.add(format!(
                "queue_bytes = {} is less than command_bytes = {}: the largest command would never find room. Raise the \
                 one or lower the other",
                self.queue_bytes, self.command_bytes
            ));
        }
    }
}

impl RespConfig {
    fn check(&self, faults: &mut Faults) {
        faults.positive("max_clients", self.max_clients);
        faults.positive("max_bulk_bytes", self.max_bulk_bytes);
        faults.positive("max_arguments", self.max_arguments);
        faults.positive("max_output_bytes", self.max_output_bytes);
        if self.listeners().next().is_none() {
            faults.add(
                "resp is empty and tls_listen is not set: give clients a port, or leave out what is for them",
            );
        }
        let Some(tls) = &self.tls else { return };
        for (setting, file) in [("tls_cert_file", &tls.cert_file), ("tls_key_file", &tls.key_file)] {
            if file.as_os_str().is_empty() {
                faults.add(format!(
                    "{setting} is not set: tls_listen = {} needs it",
                    tls.listen
                ));
            }
        }
        if tls.clients != TlsClients::No && tls.ca_cert_file.is_none() {
            faults.add(format!(
                "tls_auth_clients = {} without tls_ca_cert_file: set it to the certificates that sign those of clients",
                tls.clients
            ));
        }
    }
}

/// Whether an address, `host:port`, can be reached from this machine alone: `localhost`, 127.0.0.0/8 or ::1.
pub fn is_loopback(address: &str) -> bool {
    let Some(host) = host_of(address) else {
        return false;
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
        })
}

/// What an address is for.
#[derive(PartialEq)]
enum Use {
    /// Port 0 takes a free one.
    Listen,
    /// Others connect to it.
    Reach,
}

/// What was found wrong.
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    fn positive(&mut self, setting: &str, value: usize) {
        if value == 0 {
            self.add(format!(
                "{setting} = 0: set 1 or more, or leave it out for the default"
            ));
        }
    }

    fn address(&mut self, setting: &str, address: &str, purpose: Use) {
        if !well_formed(address) {
            self.add(format!(
                "{setting} = {address:?} is no address: write host:port, as 127.0.0.1:7001 or [::1]:7001"
            ));
        } else if purpose == Use::Reach && port_of(address) == Some(0) {
            self.add(format!(
                "{setting} = {address} has port 0, which nobody can connect to: write the port"
            ));
        } else if purpose == Use::Reach && host_of(address).is_some_and(is_unspecified) {
            self.add(format!(
                "{setting} = {address} is every address of a machine, which nobody can connect to: write the host"
            ));
        }
    }
}

/// The longest name DNS knows, in bytes.
const HOST_MAX: usize = 253;

fn well_formed(address: &str) -> bool {
    host_of(address).is_some() && port_of(address).is_some()
}

/// The host of `host:port`, without the brackets of an IPv6 address; none if it can be no host.
fn host_of(address: &str) -> Option<&str> {
    let (host, _) = address.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner);
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    ((1..=HOST_MAX).contains(&host.len()) && host.bytes().all(name)).then_some(host)
}

fn port_of(address: &str) -> Option<u16> {
    let (_, port) = address.rsplit_once(':')?;
    (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then(|| port.parse().ok())?
}

fn is_unspecified(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &Config) -> Vec<String> {
        match config.validate() {
            Ok(()) => Vec::new(),
            Err(Error::Config(faults)) => faults,
            Err(other) => panic!("not about settings: {other}"),
        }
    }

    fn one_fault(config: &Config, says: &[&str]) {
        let faults = faults(config);
        assert_eq!(faults.len(), 1, "{faults:#?}");
        for text in says {
            assert!(faults[0].contains(text), "{text:?} is not in {:?}", faults[0]);
        }
    }

    fn three(listen: &str) -> Config {
        let join = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
            .map(str::to_owned)
            .to_vec();
        Config {
            listen: listen.to_owned(),
            join,
            ..Config::new("/data")
        }
    }

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(faults(&Config::new("/data")), [""; 0]);
        assert_eq!(
            faults(&Config {
                resp: Some(RespConfig::new("127.0.0.1:0")),
                ..three("127.0.0.1:7001")
            }),
            [""; 0]
        );
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let limits = Limits {
            group_commands: 0,
            snapshot_log_bytes: 0,
            ..Limits::default()
        };
        let config = Config {
            listen: "nowhere".into(),
            expect: Some(0),
            limits,
            ..Config::new("")
        };
        let faults = faults(&config);
        for setting in ["data", "listen", "expect", "group_commands", "snapshot_log_bytes"] {
            assert_eq!(
                faults.iter().filter(|fault| fault.starts_with(setting)).count(),
                1,
                "{setting}: {faults:#?}"
            );
        }
        assert_eq!(faults.len(), 5, "{faults:#?}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in [
            "127.0.0.1:7001",
            "localhost:1",
            "[::1]:7001",
            "node-1.internal:65535",
            "my_host:0",
        ] {
            assert!(well_formed(good), "{good}");
        }
        for bad in [
            "",
            ":",
            ":7001",
            "host",
            "host:",
            "host:65536",
            "host:+1",
            "::1:7001",
            "[nine]:1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(!well_formed(bad), "{bad}");
        }
        one_fault(
            &Config {
                http: Some("8080".into()),
                ..Config::new("/data")
            },
            &["http = \"8080\"", "host:port"],
        );
    }

    #[test]
    fn addresses_to_reach_have_a_host_and_a_port() {
        let secret = Some(Secret::new("a secret of the cluster"));
        let all = Config {
            listen: "0.0.0.0:7001".into(),
            secret: secret.clone(),
            ..Config::new("/data")
        };
        one_fault(&all, &["listen = 0.0.0.0:7001", "advertise"]);
        one_fault(
            &Config {
                advertise: Some("0.0.0.0:7001".into()),
                ..all
            },
            &["advertise = 0.0.0.0:7001"],
        );
        let free = Config {
            advertise: Some("10.0.0.1:0".into()),
            secret,
            ..Config::new("/data")
        };
        one_fault(&free, &["advertise = 10.0.0.1:0", "port 0"]);
    }

    #[test]
    fn listeners_need_ports_of_their_own() {
        let mut config = Config {
            http: Some("127.0.0.1:7001".into()),
            ..three("127.0.0.1:7001")
        };
        one_fault(&config, &["listen and http are both 127.0.0.1:7001"]);
        config.http = Some("127.0.0.1:0".into());
        config.resp = Some(RespConfig::new("127.0.0.1:0"));
        assert_eq!(faults(&config), [""; 0], "port 0 takes another each time");
    }

    #[test]
    fn expect_is_a_majority_of_the_named() {
        for (expect, good) in [(0, false), (1, false), (2, true), (3, true), (4, false)] {
            let config = Config {
                expect: Some(expect),
                ..three("127.0.0.1:7001")
            };
            assert_eq!(faults(&config).is_empty(), good, "expect {expect} of 3");
        }
        // A fourth that is not in its own list counts itself.
        one_fault(
            &Config {
                expect: Some(2),
                ..three("127.0.0.1:7004")
            },
            &["expect = 2", "majority of the 4", "3 to 4"],
        );
        one_fault(
            &Config {
                expect: Some(2),
                ..Config::new("/data")
            },
            &["expect = 2", "more than the 1"],
        );
    }

    #[test]
    fn one_address_named_twice_counts_once() {
        let mut config = three("127.0.0.1:7001");
        config.join.push("127.0.0.1:7002".into());
        assert_eq!(config.named_members(), 3);
    }

    #[test]
    fn without_a_secret_peers_are_on_loopback() {
        let mut config = Config {
            listen: "10.0.0.1:7001".into(),
            ..Config::new("/data")
        };
        one_fault(
            &config,
            &[
                "listen = 10.0.0.1:7001",
                "Without a secret it serves peers on loopback only",
            ],
        );
        config.secret = Some(Secret::new("a secret of the cluster"));
        assert_eq!(faults(&config), [""; 0]);
        config.secret = Some(Secret::new(""));
        one_fault(&config, &["secret is empty"]);
        let advertised = Config {
            advertise: Some("node-1:7001".into()),
            ..Config::new("/data")
        };
        one_fault(&advertised, &["advertise = node-1:7001", "Without a secret"]);
    }

    #[test]
    fn without_an_access_key_redis_clients_are_on_loopback() {
        let mut config = Config {
            resp: Some(RespConfig::new("0.0.0.0:6379")),
            ..Config::new("/data")
        };
        one_fault(&config, &["resp = 0.0.0.0:6379", "without an access key"]);
        let resp = config.resp.as_mut().expect("set above");
        resp.access_key = Some(Secret::new("open"));
        assert_eq!(faults(&config), [""; 0]);
    }

    #[test]
    fn elections_leave_room_for_a_lost_heartbeat() {
        let ms = Duration::from_millis;
        let timing = Timing {
            heartbeat: ms(100),
            election_min: ms(199),
            election_max: ms(400),
            ..Timing::default()
        };
        one_fault(
            &Config {
                timing,
                ..Config::new("/data")
            },
            &["election_min_ms = 199", "heartbeat_ms = 100", "200"],
        );
        let timing = Timing {
            election_min: ms(300),
            election_max: ms(300),
            ..Timing::default()
        };
        one_fault(
            &Config {
                timing,
                ..Config::new("/data")
            },
            &["election_max_ms = 300"],
        );
        let timing = Timing {
            write_deadline: Duration::ZERO,
            ..Timing::default()
        };
        one_fault(
            &Config {
                timing,
                ..Config::new("/data")
            },
            &["write_deadline_ms = 0"],
        );
    }

    #[test]
    fn the_queue_has_room_for_the_largest_command() {
        let limits = Limits {
            queue_bytes: 1 << 20,
            ..Limits::default()
        };
        one_fault(
            &Config {
                limits,
                ..Config::new("/data")
            },
            &["queue_bytes = 1048576", "command_bytes"],
        );
    }

    #[test]
    fn no_setting_allows_an_entry_that_no_message_holds() {
        let limits = |group_bytes, command_bytes| Config {
            limits: Limits {
                group_bytes,
                command_bytes,
                ..Limits::default()
            },
            ..Config::new("/data")
        };
        assert_eq!(faults(&limits(60 << 20, 40 << 20)), [""; 0]);
        one_fault(
            &limits((60 << 20) + 1, 32 << 20),
            &[
                "group_bytes = 62914561",
                "more than 62914560",
                "message between members",
            ],
        );
        one_fault(
            &limits(512 << 10, (40 << 20) + 1),
            &["command_bytes = 41943041", "more than 41943040"],
        );
    }

    #[test]
    fn loopback_is_this_machine_alone() {
        for near in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "localhost:1",
            "LOCALHOST:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(near), "{near}");
        }
        for far in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            "localhost.example.org:1",
            "example.org:1",
            "127.0.0.1",
            "",
        ] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", Secret::new("open sesame")).contains("sesame"));
    }
}
