//! The settings of `plenary serve`: one list, read from flags, `PLENARY_*` variables and a TOML file, in that precedence,
//! merged here and nowhere else. What the values must be is said by [`Config::validate`].

use crate::config::{
    Config, DebugCommand, Durability, Limits, LogKind, Reads, RespConfig, Secret, Timing, TlsClients,
    TlsConfig,
};
use crate::error::Error;
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where peers are listened for when nothing says otherwise. Fixed, because the address is how peers find a node again.
pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:7001";

/// Bytes of a settings or secret file; a larger one is another file named by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a secret below which guessing it is thinkable.
const SECRET_BYTES_MIN: usize = 16;

/// Every setting, each one optional: what a source does not say, the next one may.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Folder in which this node keeps its identity, log and snapshots. One folder, one process
    #[arg(long, env = "PLENARY_DATA", value_name = "DIR", help_heading = "Node")]
    pub(crate) data: Option<PathBuf>,

    /// Where peers are listened for [default: 127.0.0.1:7001]
    #[arg(long, env = "PLENARY_LISTEN", value_name = "HOST:PORT", help_heading = "Node")]
    pub(crate) listen: Option<String>,

    /// Where peers reach this node [default: where it listens]
    #[arg(
        long,
        env = "PLENARY_ADVERTISE",
        value_name = "HOST:PORT",
        help_heading = "Node"
    )]
    pub(crate) advertise: Option<String>,

    /// Peer addresses of members, this node's own may be among them [default: none, a cluster of one]
    #[arg(
        long,
        env = "PLENARY_JOIN",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        help_heading = "Node"
    )]
    pub(crate) join: Option<Vec<String>>,

    /// How many nodes form a fresh cluster; a majority of those named [default: all that --join names with this one]
    #[arg(long, env = "PLENARY_EXPECT", value_name = "N", help_heading = "Node")]
    pub(crate) expect: Option<usize>,

    /// When a write counts as stored: `fsync` survives power loss of every node at once, `os` (page cache) kill -9 of every
    /// process and power loss of a minority [default: fsync]
    #[arg(
        long,
        env = "PLENARY_DURABILITY",
        value_name = "fsync|os",
        help_heading = "Node"
    )]
    pub(crate) durability: Option<Durability>,

    /// What the log is kept in: `segments`, files of its own, or `sled`, the database that holds everything else. A folder whose log is
    /// kept in the other one is converted at the start [default: segments]
    #[arg(
        long,
        env = "PLENARY_LOG_STORE",
        value_name = "segments|sled",
        help_heading = "Node"
    )]
    pub(crate) log_store: Option<LogKind>,

    /// File with the secret that all members share. Without it peers are served on loopback only
    #[arg(long, env = "PLENARY_SECRET_FILE", value_name = "FILE", help_heading = "Node")]
    pub(crate) secret_file: Option<PathBuf>,

    /// What is logged to standard error: off, error, warn, info, debug, trace, or a filter as `warn,plenary=debug`
    /// [default: info]
    #[arg(long, env = "PLENARY_LOG", value_name = "LEVEL", help_heading = "Node")]
    pub(crate) log: Option<String>,

    /// Where Redis clients are served [default: nowhere]
    #[arg(
        long,
        env = "PLENARY_RESP",
        value_name = "HOST:PORT",
        help_heading = "Redis endpoint"
    )]
    pub(crate) resp: Option<String>,

    /// What clients give to AUTH. Without it Redis clients are served on loopback only. Others on this machine can see a flag:
    /// prefer the variable or the file
    #[arg(
        long,
        env = "PLENARY_ACCESS_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = clap::value_parser!(Secret),
        help_heading = "Redis endpoint"
    )]
    pub(crate) access_key: Option<Secret>,

    /// File with the access key
    #[arg(
        long,
        env = "PLENARY_ACCESS_KEY_FILE",
        value_name = "FILE",
        help_heading = "Redis endpoint"
    )]
    pub(crate) access_key_file: Option<PathBuf>,

    /// Connections at once [default: 10000]
    #[arg(
        long,
        env = "PLENARY_MAX_CLIENTS",
        value_name = "N",
        help_heading = "Redis endpoint"
    )]
    pub(crate) max_clients: Option<usize>,

    /// Bytes of one argument [default: 16777216]
    #[arg(
        long,
        env = "PLENARY_MAX_BULK_BYTES",
        value_name = "BYTES",
        help_heading = "Redis endpoint"
    )]
    pub(crate) max_bulk_bytes: Option<usize>,

    /// Arguments of one command [default: 1048576]
    #[arg(
        long,
        env = "PLENARY_MAX_ARGUMENTS",
        value_name = "N",
        help_heading = "Redis endpoint"
    )]
    pub(crate) max_arguments: Option<usize>,

    /// Bytes of replies that wait for a client to read them, before it is cut off [default: 67108864]
    #[arg(
        long,
        env = "PLENARY_MAX_OUTPUT_BYTES",
        value_name = "BYTES",
        help_heading = "Redis endpoint"
    )]
    pub(crate) max_output_bytes: Option<usize>,

    /// Silence after which a connection is closed, in milliseconds; 0 is never [default: 0]
    #[arg(
        long,
        env = "PLENARY_IDLE_TIMEOUT_MS",
        value_name = "MS",
        help_heading = "Redis endpoint"
    )]
    pub(crate) idle_timeout_ms: Option<u64>,

    /// How fresh reads are: as the node that is asked, or as of now cluster-wide; PLENARY FRESH chooses for a connection [default: local]
    #[arg(
        long,
        env = "PLENARY_READS",
        value_name = "local|linearizable",
        help_heading = "Redis endpoint"
    )]
    pub(crate) reads: Option<Reads>,

    /// Who may use DEBUG: nobody, clients on this machine, or all whom the rules for users let [default: no]
    #[arg(
        long,
        env = "PLENARY_ENABLE_DEBUG_COMMAND",
        value_name = "no|local|yes",
        help_heading = "Redis endpoint"
    )]
    pub(crate) enable_debug_command: Option<DebugCommand>,

    /// Where Redis clients are served with TLS; by convention port 6380 [default: nowhere]
    #[arg(
        long,
        env = "PLENARY_TLS_LISTEN",
        value_name = "HOST:PORT",
        help_heading = "Redis endpoint"
    )]
    pub(crate) tls_listen: Option<String>,

    /// PEM file with the certificate for clients, and those between it and the root; read again when it changes
    #[arg(
        long,
        env = "PLENARY_TLS_CERT_FILE",
        value_name = "FILE",
        help_heading = "Redis endpoint"
    )]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// PEM file with the certificate's key; read again when it changes
    #[arg(
        long,
        env = "PLENARY_TLS_KEY_FILE",
        value_name = "FILE",
        help_heading = "Redis endpoint"
    )]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// PEM file with the certificates that sign those of clients
    #[arg(
        long,
        env = "PLENARY_TLS_CA_CERT_FILE",
        value_name = "FILE",
        help_heading = "Redis endpoint"
    )]
    pub(crate) tls_ca_cert_file: Option<PathBuf>,

    /// Whether clients must show a certificate [default: no]
    #[arg(
        long,
        env = "PLENARY_TLS_AUTH_CLIENTS",
        value_name = "no|optional|yes",
        help_heading = "Redis endpoint"
    )]
    pub(crate) tls_auth_clients: Option<TlsClients>,

    /// Where /health, /ready and /metrics are served [default: nowhere]
    #[arg(long, env = "PLENARY_HTTP", value_name = "HOST:PORT", help_heading = "HTTP")]
    pub(crate) http: Option<String>,

    /// How often a leader shows itself, in milliseconds [default: 100]
    #[arg(
        long,
        env = "PLENARY_HEARTBEAT_MS",
        value_name = "MS",
        help_heading = "Timing"
    )]
    pub(crate) heartbeat_ms: Option<u64>,

    /// The shortest silence after which a member stands for election, in milliseconds; twice the heartbeat or more
    /// [default: 300]
    #[arg(
        long,
        env = "PLENARY_ELECTION_MIN_MS",
        value_name = "MS",
        help_heading = "Timing"
    )]
    pub(crate) election_min_ms: Option<u64>,

    /// The longest such silence, in milliseconds [default: 600]
    #[arg(
        long,
        env = "PLENARY_ELECTION_MAX_MS",
        value_name = "MS",
        help_heading = "Timing"
    )]
    pub(crate) election_max_ms: Option<u64>,

    /// Whether a leader answers linearizable reads on its lease: only where clocks run alike and no machine is ever suspended [default: false]
    #[arg(
        long,
        env = "PLENARY_LEASE_READS",
        value_name = "true|false",
        help_heading = "Timing"
    )]
    pub(crate) lease_reads: Option<bool>,

    /// How long a write waits for a leader and a majority before it is answered with an error, in milliseconds
    /// [default: 5000]
    #[arg(
        long,
        env = "PLENARY_WRITE_DEADLINE_MS",
        value_name = "MS",
        help_heading = "Timing"
    )]
    pub(crate) write_deadline_ms: Option<u64>,

    /// Commands of one group, which is one entry of the log [default: 1024]
    #[arg(
        long,
        env = "PLENARY_GROUP_COMMANDS",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub(crate) group_commands: Option<usize>,

    /// Bytes of one group, unless a single command is larger; 62914560 at most [default: 524288]
    #[arg(
        long,
        env = "PLENARY_GROUP_BYTES",
        value_name = "BYTES",
        help_heading = "Limits"
    )]
    pub(crate) group_bytes: Option<usize>,

    /// Groups of this node that are being replicated at once [default: 2]
    #[arg(
        long,
        env = "PLENARY_GROUPS_IN_FLIGHT",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub(crate) groups_in_flight: Option<usize>,

    /// Commands that wait for a place in a group [default: 65536]
    #[arg(
        long,
        env = "PLENARY_QUEUE_COMMANDS",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub(crate) queue_commands: Option<usize>,

    /// Bytes that wait for a place in a group [default: 268435456]
    #[arg(
        long,
        env = "PLENARY_QUEUE_BYTES",
        value_name = "BYTES",
        help_heading = "Limits"
    )]
    pub(crate) queue_bytes: Option<usize>,

    /// Bytes of one command, and of what one script writes; 41943040 at most [default: 33554432]
    #[arg(
        long,
        env = "PLENARY_COMMAND_BYTES",
        value_name = "BYTES",
        help_heading = "Limits"
    )]
    pub(crate) command_bytes: Option<usize>,

    /// Bytes of log after which a snapshot is taken and the log cut; a quarter of the last snapshot, if that is more [default: 67108864]
    #[arg(
        long,
        env = "PLENARY_SNAPSHOT_LOG_BYTES",
        value_name = "BYTES",
        help_heading = "Limits"
    )]
    pub(crate) snapshot_log_bytes: Option<u64>,
}

/// What the settings come to.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) config: Config,
    /// What works, but should be known: to be logged at start.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads the TOML file.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be read, has an unknown key (the known ones are listed) or a value of another type.
    pub(crate) fn from_file(path: &Path) -> Result<Self, Error> {
        let fault = |why: String| Error::Config(vec![format!("config = {}: {why}", path.display())]);
        let text = read_file(path).map_err(fault)?;
        Self::from_toml(&text).map_err(fault)
    }

    /// Reads TOML. Of what is wrong the place is told and not the line that stands there: it may hold an access key, under a misspelt name too.
    pub(crate) fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = String::from_utf8_lossy(&text.as_bytes()[..at]);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|sign| *sign != '\n').count() + 1;
            format!("line {line}, column {column}: {}", error.message())
        })
    }

    /// These settings; what they do not say, `below` says.
    pub(crate) fn over(self, below: Self) -> Self {
        // One key in two forms: a file named here must not lose to a key named below.
        let keyed = self.access_key.is_some() || self.access_key_file.is_some();
        let (key, key_file) = if keyed {
            (None, None)
        } else {
            (below.access_key, below.access_key_file)
        };
        Self {
            data: self.data.or(below.data),
            listen: self.listen.or(below.listen),
            advertise: self.advertise.or(below.advertise),
            join: self.join.or(below.join),
            expect: self.expect.or(below.expect),
            durability: self.durability.or(below.durability),
            log_store: self.log_store.or(below.log_store),
            secret_file: self.secret_file.or(below.secret_file),
            log: self.log.or(below.log),
            resp: self.resp.or(below.resp),
            access_key: self.access_key.or(key),
            access_key_file: self.access_key_file.or(key_file),
            max_clients: self.max_clients.or(below.max_clients),
            max_bulk_bytes: self.max_bulk_bytes.or(below.max_bulk_bytes),
            max_arguments: self.max_arguments.or(below.max_arguments),
            max_output_bytes: self.max_output_bytes.or(below.max_output_bytes),
            idle_timeout_ms: self.idle_timeout_ms.or(below.idle_timeout_ms),
            reads: self.reads.or(below.reads),
            enable_debug_command: self.enable_debug_command.or(below.enable_debug_command),
            tls_listen: self.tls_listen.or(below.tls_listen),
            tls_cert_file: self.tls_cert_file.or(below.tls_cert_file),
            tls_key_file: self.tls_key_file.or(below.tls_key_file),
            tls_ca_cert_file: self.tls_ca_cert_file.or(below.tls_ca_cert_file),
            tls_auth_clients: self.tls_auth_clients.or(below.tls_auth_clients),
            http: self.http.or(below.http),
            heartbeat_ms: self.heartbeat_ms.or(below.heartbeat_ms),
            election_min_ms: self.election_min_ms.or(below.election_min_ms),
            election_max_ms: self.election_max_ms.or(below.election_max_ms),
            lease_reads: self.lease_reads.or(below.lease_reads),
            write_deadline_ms: self.write_deadline_ms.or(below.write_deadline_ms),
            group_commands: self.group_commands.or(below.group_commands),
            group_bytes: self.group_bytes.or(below.group_bytes),
            groups_in_flight: self.groups_in_flight.or(below.groups_in_flight),
            queue_commands: self.queue_commands.or(below.queue_commands),
            queue_bytes: self.queue_bytes.or(below.queue_bytes),
            command_bytes: self.command_bytes.or(below.command_bytes),
            snapshot_log_bytes: self.snapshot_log_bytes.or(below.snapshot_log_bytes),
        }
    }

    /// Reads the secret files, fills in the defaults and validates.
    ///
    /// # Errors
    /// [`Error::Config`] with every fault.
    pub(crate) fn resolve(self) -> Result<Resolved, Error> {
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        let mut secret_in = |setting: &str, file: &Path| {
            read_secret(setting, file, &mut warnings).unwrap_or_else(|fault| {
                faults.push(fault);
                // Stands in for it, so that it is not told again as missing; with a fault nothing starts.
                Secret::new("a secret that could not be read")
            })
        };
        let secret = self
            .secret_file
            .as_deref()
            .map(|file| secret_in("secret_file", file));
        let key_in_file = self
            .access_key_file
            .as_deref()
            .map(|file| secret_in("access_key_file", file));
        if key_in_file.is_some() && self.access_key.is_some() {
            faults.push("access_key and access_key_file are both set: keep one".to_owned());
        }
        let access_key = self.access_key.clone().or(key_in_file);
        let config = self.config(secret, access_key);
        match config.validate() {
            Err(Error::Config(found)) => faults.extend(found),
            other => other?,
        }
        if !faults.is_empty() {
            return Err(Error::Config(faults));
        }
        warnings.extend(cautions(&config));
        Ok(Resolved { config, warnings })
    }

    pub(super) fn config(self, secret: Option<Secret>, access_key: Option<Secret>) -> Config {
        let (timing, limits) = (Timing::default(), Limits::default());
        let ms = |value: Option<u64>, default: Duration| value.map_or(default, Duration::from_millis);
        let said = |text: &String| !text.is_empty();
        let tls = self.tls_listen.filter(said).map(|listen| TlsConfig {
            listen,
            cert_file: self.tls_cert_file.unwrap_or_default(),
            key_file: self.tls_key_file.unwrap_or_default(),
            ca_cert_file: self.tls_ca_cert_file.filter(|file| !file.as_os_str().is_empty()),
            clients: self.tls_auth_clients.unwrap_or_default(),
        });
        let plain = self.resp.filter(said);
        let served = plain.is_some() || tls.is_some();
        let resp = served.then(|| {
            let resp = RespConfig::new(plain.unwrap_or_default());
            RespConfig {
                tls,
                reads: self.reads.unwrap_or_default(),
                debug_command: self.enable_debug_command.unwrap_or_default(),
                access_key,
                max_clients: self.max_clients.unwrap_or(resp.max_clients),
                max_bulk_bytes: self.max_bulk_bytes.unwrap_or(resp.max_bulk_bytes),
                max_arguments: self.max_arguments.unwrap_or(resp.max_arguments),
                max_output_bytes: self.max_output_bytes.unwrap_or(resp.max_output_bytes),
                idle_timeout: ms(self.idle_timeout_ms, resp.idle_timeout),
                ..resp
            }
        });
        // An empty variable or a comma too many names no peer.
        let join = self
            .join
            .unwrap_or_default()
            .into_iter()
            .map(|address| address.trim().to_owned());
        Config {
            listen: self.listen.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()),
            advertise: self.advertise.filter(said),
            join: join.filter(said).collect(),
            expect: self.expect,
            secret,
            durability: self.durability.unwrap_or_default(),
            log_store: self.log_store.unwrap_or_default(),
            resp,
            http: self.http.filter(said),
            timing: Timing {
                heartbeat: ms(self.heartbeat_ms, timing.heartbeat),
                election_min: ms(self.election_min_ms, timing.election_min),
                election_max: ms(self.election_max_ms, timing.election_max),
                write_deadline: ms(self.write_deadline_ms, timing.write_deadline),
            },
            lease_reads: self.lease_reads.unwrap_or_default(),
            limits: Limits {
                group_commands: self.group_commands.unwrap_or(limits.group_commands),
                group_bytes: self.group_bytes.unwrap_or(limits.group_bytes),
                groups_in_flight: self.groups_in_flight.unwrap_or(limits.groups_in_flight),
                queue_commands: self.queue_commands.unwrap_or(limits.queue_commands),
                queue_bytes: self.queue_bytes.unwrap_or(limits.queue_bytes),
                command_bytes: self.command_bytes.unwrap_or(limits.command_bytes),
                snapshot_log_bytes: self.snapshot_log_bytes.unwrap_or(limits.snapshot_log_bytes),
            },
            ..Config::new(self.data.unwrap_or_default())
        }
    }
}

/// What is allowed, but should not go unsaid.
fn cautions(config: &Config) -> Vec<String> {
    let mut cautions = Vec::new();
    match &config.secret {
        None => cautions.push(format!(
            "no secret_file: peers are served on loopback only ({}), and every process on this machine can be one",
            config.listen
        )),
        Some(secret) if secret.expose().len() < SECRET_BYTES_MIN => cautions.push(format!(
            "the secret has {} bytes; use {SECRET_BYTES_MIN} random ones or more",
            secret.expose().len()
        )),
        Some(_) => {}
    }
    match &config.resp {
        None => cautions.push("no resp: this node serves no Redis clients".to_owned()),
        Some(resp) if resp.access_key.is_none() => cautions.push(format!(
            "no access key: Redis clients are served on loopback only ({}), and every process on this machine can be one",
            resp.listen
        )),
        Some(_) => {}
    }
    cautions
}

/// A file's text without the white space around it; a warning if everybody on the machine can read it.
pub(crate) fn read_secret(setting: &str, file: &Path, warnings: &mut Vec<String>) -> Result<Secret, String> {
    let text = read_file(file).map_err(|why| format!("{setting} = {}: {why}", file.display()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!(
            "{setting} = {} is empty: put a random text into it",
            file.display()
        ));
    }
    if world_readable(file) {
        warnings.push(format!(
            "{setting} = {} can be read by everybody on this machine: chmod 600 it",
            file.display()
        ));
    }
    Ok(Secret::new(text))
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "is larger than {FILE_BYTES_MAX} bytes: is it the right file?"
        ));
    }
    Ok(text)
}

#[cfg(unix)]
fn world_readable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Who may read a file is not a matter of mode bits elsewhere.
#[cfg(not(unix))]
fn world_readable(_file: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, CommandFactory};

    fn args() -> Vec<clap::Arg> {
        Settings::augment_args(Command::new("serve"))
            .get_arguments()
            .cloned()
            .collect()
    }

    fn serve_help() -> String {
        let mut command = crate::cli::Cli::command();
        command.build();
        let serve = command
            .find_subcommand_mut("serve")
            .expect("there is `plenary serve`");
        serve
            .render_long_help()
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn an_error_in_a_file_does_not_tell_the_access_key() {
        for text in [
            "access_key = \"Xyzzy",
            "access_key = Xyzzy",
            "access_key = \"Xyzzy\" expect = 3",
            "access_key = \"\"\"\nXyzzy",
            "access_key = [\"Xyzzy\"]",
            "access_key = { Xyzzy = 1 }",
            "access_key = 77777",
            "access_key = 7.7777",
            "access_key = 1979-05-27",
            "\"access_key\" = 'Xyzzy",
            "acces_key = \"Xyzzy\"",
            "access_key = \"Xyzzy\"\naccess_key = \"Xyzzy\"",
            "access_key = \"Xyzzy\"\nexpect = \"Xyzzy",
        ] {
            let error = Settings::from_toml(text).expect_err(text);
            let told = ["Xyzzy", "7777", "1979"]
                .iter()
                .any(|secret| error.contains(secret));
            assert!(!told, "{text}: {error}");
        }
        let error = Settings::from_toml("access_key = \"a\"\n\n  expect = \"three\"").expect_err("no number");
        let place = "line 3, column 12: invalid type: string \"three\"";
        assert!(error.starts_with(place), "{error}");
    }

    #[test]
    fn every_setting_is_a_flag_a_variable_and_a_key() {
        let (help, sample) = (serve_help(), include_str!("../../plenary.example.toml"));
        let unknown = Settings::from_toml("nothing = 1").expect_err("no such key");
        for arg in args() {
            let name = arg.get_id().as_str();
            assert_eq!(arg.get_long(), Some(name.replace('_', "-").as_str()));
            let variable = format!("PLENARY_{}", name.to_ascii_uppercase());
            assert_eq!(
                arg.get_env().and_then(|env| env.to_str()),
                Some(variable.as_str())
            );
            assert!(
                help.contains(&format!("--{} <", name.replace('_', "-"))),
                "--help has no {name}"
            );
            assert!(
                help.contains(&format!("[env: {variable}")),
                "--help has no {variable}"
            );
            assert!(
                unknown.contains(&format!("`{name}`")),
                "an unknown key's error does not list {name}: {unknown}"
            );
            let in_sample = sample
                .lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
            assert!(in_sample, "plenary.example.toml has no {name}");
        }
    }

    #[test]
    fn the_help_says_the_true_defaults() {
        let (timing, limits, resp) = (Timing::default(), Limits::default(), RespConfig::new(""));
        let defaults = [
            ("listen", LISTEN_DEFAULT.to_owned()),
            ("durability", Durability::default().to_string()),
            ("log_store", LogKind::default().to_string()),
            ("max_clients", resp.max_clients.to_string()),
            ("max_bulk_bytes", resp.max_bulk_bytes.to_string()),
            ("max_arguments", resp.max_arguments.to_string()),
            ("max_output_bytes", resp.max_output_bytes.to_string()),
            ("idle_timeout_ms", resp.idle_timeout.as_millis().to_string()),
            ("reads", resp.reads.to_string()),
            ("enable_debug_command", resp.debug_command.to_string()),
            ("tls_auth_clients", TlsClients::default().to_string()),
            ("heartbeat_ms", timing.heartbeat.as_millis().to_string()),
            ("election_min_ms", timing.election_min.as_millis().to_string()),
            ("election_max_ms", timing.election_max.as_millis().to_string()),
            ("lease_reads", Config::new("").lease_reads.to_string()),
            ("write_deadline_ms", timing.write_deadline.as_millis().to_string()),
            ("group_commands", limits.group_commands.to_string()),
            ("group_bytes", limits.group_bytes.to_string()),
            ("groups_in_flight", limits.groups_in_flight.to_string()),
            ("queue_commands", limits.queue_commands.to_string()),
            ("queue_bytes", limits.queue_bytes.to_string()),
            ("command_bytes", limits.command_bytes.to_string()),
            ("snapshot_log_bytes", limits.snapshot_log_bytes.to_string()),
        ];
        for (name, default) in defaults {
            let arg = args().into_iter().find(|arg| arg.get_id() == name).expect(name);
            let help = arg.get_help().expect(name).to_string();
            assert!(
                help.contains(&format!("[default: {default}]")),
                "{name} is {default} by default: {help}"
            );
        }
    }

    /// The sample as it stands, and with every commented setting switched on.
    #[test]
    fn the_sample_file_works() {
        let sample = include_str!("../../plenary.example.toml");
        Settings::from_toml(sample).expect("as it stands");
        let is_setting = |line: &str| {
            let name = line
                .trim_start_matches("# ")
                .split(" = ")
                .next()
                .unwrap_or_default();
            line.contains(" = ") && args().iter().any(|arg| arg.get_id() == name)
        };
        let all: Vec<_> = sample
            .lines()
            .filter(|line| is_setting(line))
            .map(|line| line.trim_start_matches("# "))
            .collect();
        let settings = Settings::from_toml(&all.join("\n")).expect("with everything on");
        let config = settings.config(
            Some(Secret::new("a secret of the cluster")),
            Some(Secret::new("open")),
        );
        config.validate().expect("with everything on");
    }

    #[test]
    fn a_higher_source_wins_and_a_lower_one_fills_in() {
        let high = Settings {
            expect: Some(3),
            ..Settings::default()
        };
        let low = Settings {
            expect: Some(5),
            http: Some("127.0.0.1:1".into()),
            ..Settings::default()
        };
        let merged = high.over(low);
        assert_eq!(
            (merged.expect, merged.http.as_deref()),
            (Some(3), Some("127.0.0.1:1"))
        );
    }

    #[test]
    fn an_access_key_in_a_file_beats_one_below_it() {
        let high = Settings {
            access_key_file: Some("key".into()),
            ..Settings::default()
        };
        let low = Settings {
            access_key: Some(Secret::new("old")),
            ..Settings::default()
        };
        let merged = high.over(low);
        assert_eq!(
            (merged.access_key, merged.access_key_file),
            (None, Some("key".into()))
        );
    }

    #[test]
    fn neither_join_nor_expect_is_a_cluster_of_one() {
        let settings = Settings {
            data: Some("d".into()),
            join: Some(vec![String::new()]),
            ..Settings::default()
        };
        let config = settings.resolve().expect("good").config;
        assert_eq!(
            (config.join.len(), config.expect, config.named_members()),
            (0, None, 1)
        );
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_told_once_with_the_other_faults() {
        let settings = Settings {
            data: Some("d".into()),
            listen: Some("10.0.0.1:7001".into()),
            secret_file: Some("/no/such/file".into()),
            group_bytes: Some(0),
            ..Settings::default()
        };
        let Err(Error::Config(faults)) = settings.resolve() else {
            panic!("not refused")
        };
        assert_eq!(faults.len(), 2, "{faults:#?}");
        assert!(
            faults[0].starts_with("secret_file = /no/such/file: cannot be read"),
            "{faults:#?}"
        );
        assert!(faults[1].starts_with("group_bytes = 0"), "{faults:#?}");
    }

    #[test]
    fn loopback_without_secret_and_key_is_served_with_warnings() {
        let settings = Settings {
            data: Some("d".into()),
            resp: Some("127.0.0.1:0".into()),
            ..Settings::default()
        };
        let warnings = settings.resolve().expect("good").warnings;
        assert_eq!(warnings.len(), 2, "{warnings:#?}");
        assert!(
            warnings[0].contains("no secret_file") && warnings[1].contains("no access key"),
            "{warnings:#?}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_file_is_trimmed_and_should_not_be_readable_by_all() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "  a secret of the cluster\n").expect("written");
        let read = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode))
                .expect("permissions set");
            let mut warnings = Vec::new();
            let secret = read_secret("secret_file", file.path(), &mut warnings).expect("read");
            assert_eq!(secret.expose(), "a secret of the cluster");
            warnings
        };
        assert_eq!(read(0o600), [""; 0]);
        assert!(read(0o644)[0].contains("chmod 600"));
    }

    #[test]
    fn the_access_key_is_never_printed() {
        let settings = Settings {
            access_key: Some(Secret::new("open sesame")),
            ..Settings::default()
        };
        assert!(!format!("{settings:?}").contains("sesame"));
        let key = args()
            .into_iter()
            .find(|arg| arg.get_id() == "access_key")
            .expect("there is one");
        assert!(key.is_hide_env_values_set());
    }
}
