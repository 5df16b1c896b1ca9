//! The processes of a soak: three members on free ports of loopback, in one folder; started, killed, asked to stop, watched.

use super::super::client::{Client, Error, text};
use super::super::report::ask_status;
use crate::machine::reply::Reply;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How many members there are: one may be down at any time.
pub(super) const MEMBERS: usize = 3;

/// How long a member may take to answer a question of ours.
const ANSWER: Duration = Duration::from_secs(10);

/// After how much log a snapshot is taken: less than by default, so that a soak sees many.
const SNAPSHOT_LOG_BYTES: &str = "8388608";

/// Where free ports are looked for: below the range that outgoing connections take, or a member that is down could find its own taken.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Lines of its log that are shown of a member which ended by itself.
const LAST_WORDS: usize = 12;

/// One member: its process while it runs, and what it is started with.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) redis: String,
    data: PathBuf,
    log: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Member {
    /// All members, in this folder, not started.
    ///
    /// # Errors
    /// Where no ports are free.
    pub(super) fn all(folder: &Path) -> io::Result<Vec<Self>> {
        let ports = free_ports(2 * MEMBERS)?;
        let at = |port: &u16| format!("127.0.0.1:{port}");
        let (peers, redis): (Vec<String>, Vec<String>) = (
            ports[..MEMBERS].iter().map(at).collect(),
            ports[MEMBERS..].iter().map(at).collect(),
        );
        let member = |which: usize| Self {
            name: format!("n{which}"),
            redis: redis[which].clone(),
            data: folder.join(format!("n{which}")),
            log: folder.join(format!("n{which}.log")),
            args: [
                ["--listen", &peers[which]],
                ["--resp", &redis[which]],
                ["--join", &peers.join(",")],
                ["--expect", &MEMBERS.to_string()],
                ["--snapshot-log-bytes", SNAPSHOT_LOG_BYTES],
            ]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
            child: None,
        };
        Ok((0..MEMBERS).map(member).collect())
    }

    /// Starts it. It stops when this process has gone, whatever ended it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            // Save for a bug that is planted: members are to show that it is found.
            if name.to_string_lossy().starts_with("PLENARY_") && name != "PLENARY_MUTANT" {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--until-stdin-ends", "--data"])
            .arg(&self.data)
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop; [`Member::has_ended`] tells when it has.
    pub(super) fn ask_to_stop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
    }

    /// How it ended, if it has: none while it runs, and whether it was well.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn has_ended(&mut self) -> io::Result<Option<bool>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended.map(|status| status.success()))
    }

    /// A client of it, that waits so long for a reply.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let client = Client::connect(&self.redis, None)?;
        client.set_reply_time_max(ANSWER)?;
        Ok(client)
    }

    /// Whether it serves, else why not.
    pub(super) fn serves(&self) -> Result<(), String> {
        let asked = self
            .client()
            .and_then(|mut client| ask_status(&mut client)?.is_well());
        match asked {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "{} does not serve, or another's state differs from its own",
                self.name
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The index it has applied, and the digest of its state there.
    pub(super) fn digest(&self) -> Result<(i64, String), String> {
        let reply = self
            .client()
            .and_then(|mut client| client.call(&["PLENARY", "DIGEST"]));
        match reply.map_err(|error| error.to_string())? {
            Reply::Array(parts) => match parts.as_slice() {
                [Reply::Integer(index), digest] => Ok((*index, text(digest))),
                other => Err(format!("a digest that is {other:?}")),
            },
            other => Err(format!("a digest that is {other:?}")),
        }
    }

    /// Bytes of memory its process has; none where it does not run, or the system does not tell.
    pub(super) fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    /// Bytes its folder takes on the disk.
    pub(super) fn disk(&self) -> u64 {
        folder_bytes(&self.data)
    }

    /// The end of what it said.
    pub(super) fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It has ended already if it cannot be killed.
        let _ = self.kill();
    }
}

/// Bytes of all files below. What goes away meanwhile counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Ports of loopback that nobody listens on. Each process begins to look at another place.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let span = PORTS.end - PORTS.start;
    let begin = (std::process::id() % u32::from(span)) as u16;
    let candidates = (0..span).map(|step| PORTS.start + (begin + step) % span);
    let free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = free.take(count).collect();
    if ports.len() == count {
        Ok(ports)
    } else {
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no ports of loopback are free",
        ))
    }
}
