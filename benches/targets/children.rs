//! Processes that are measured: three of Plenary's program, Redis, alone or with replicas, and etcd.

use super::etcd::{Client, leader};
use super::{Caller, Fault, PATIENCE, Place, Resp, Target, free_port};
use futures::future::BoxFuture;
use plenary::config::Durability;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// A process that ends with its owner.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Result<Self, Fault> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(quiet.spawn()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Asks again and again until the answer pleases.
async fn until_ready(port: u16, argv: &[&[u8]], ready: impl Fn(&[u8]) -> bool) -> Result<(), Fault> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(mut connection) = Resp::connect(port).await
            && let Ok(reply) = connection.ask(argv).await
            && ready(reply)
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("port {port} does not serve within {PATIENCE:?}").into())
}

/// The program to be measured: Cargo names it to our own benchmarks, others are told by whoever built it.
fn plenary_program() -> Result<String, Fault> {
    if let Some(program) = option_env!("CARGO_BIN_EXE_plenary") {
        return Ok(program.to_owned());
    }
    Ok(std::env::var("PLENARY_PROGRAM").map_err(|_| "PLENARY_PROGRAM names the plenary to measure")?)
}

/// `plenary serve`, each a process, spoken to by RESP: three, where nothing else is said.
pub(crate) struct Plenaries {
    folder: PathBuf,
    /// What each is started with, beside its addresses and its folder.
    settings: Vec<String>,
    peers: Vec<String>,
    processes: Vec<Process>,
    pub(crate) ports: Vec<u16>,
}

impl Plenaries {
    pub(crate) async fn start(folder: &Path, durability: Durability) -> Result<Self, Fault> {
        Self::start_with(folder, 3, &["--durability", &durability.to_string()]).await
    }

    /// So many with these settings. One alone goes on with what is in its folder.
    pub(crate) async fn start_with(folder: &Path, count: usize, settings: &[&str]) -> Result<Self, Fault> {
        let mut nodes = Self {
            folder: folder.to_owned(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            peers: (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect(),
            processes: Vec::new(),
            ports: Vec::new(),
        };
        for which in 0..count {
            let expect = count.to_string();
            nodes.spawn(which, &["--expect", &expect])?;
        }
        for which in 0..count {
            nodes.until(which, |status| status["ready"] == true).await?;
        }
        Ok(nodes)
    }

    /// Starts one more, which joins the others; which it is. Does not wait until it serves.
    pub(crate) fn join(&mut self) -> Result<usize, Fault> {
        self.peers.push(format!("127.0.0.1:{}", free_port()));
        let which = self.peers.len() - 1;
        self.spawn(which, &[])?;
        Ok(which)
    }

    fn spawn(&mut self, which: usize, more: &[&str]) -> Result<(), Fault> {
        let port = free_port();
        let mut command = Command::new(plenary_program()?);
        command.args(["serve", "--listen", &self.peers[which]]);
        if self.peers.len() > 1 {
            command.args(["--join", &self.peers.join(",")]).args(more);
        }
        command
            .args(["--resp", &format!("127.0.0.1:{port}"), "--log", "error"])
            .args(&self.settings)
            .arg("--data")
            .arg(self.folder.join(format!("n{which}")));
        self.processes.push(Process::start(&mut command)?);
        self.ports.push(port);
        Ok(())
    }

    /// Waits until what one says of itself pleases.
    pub(crate) async fn until(
        &self,
        which: usize,
        pleases: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), Fault> {
        let ready = |reply: &[u8]| status(reply).is_some_and(|status| pleases(&status));
        until_ready(self.ports[which], &[b"PLENARY", b"STATUS"], ready).await
    }

    /// What one says of itself.
    pub(crate) async fn status(&self, which: usize) -> Result<serde_json::Value, Fault> {
        let mut connection = Resp::connect(self.ports[which]).await?;
        let reply = connection.ask(&[b"PLENARY", b"STATUS"]).await?;
        Ok(status(reply).ok_or("a status that cannot be read")?)
    }

    /// Which of them leads.
    pub(crate) async fn leader(&self) -> Result<usize, Fault> {
        for which in 0..self.ports.len() {
            if self.status(which).await?["role"] == "leader" {
                return Ok(which);
            }
        }
        Err("none of them leads".into())
    }

    /// Stops one where it is (`STOP`), or lets it go on (`CONT`).
    pub(crate) fn signal(&self, which: usize, signal: &str) -> Result<(), Fault> {
        let process = self.processes[which].0.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &process])
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("no signal reaches process {process}").into())
        }
    }
}

fn status(reply: &[u8]) -> Option<serde_json::Value> {
    let start = reply.iter().position(|byte| *byte == b'{')?;
    serde_json::from_slice(&reply[start..reply.len() - 2]).ok()
}

impl Target for Plenaries {
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>> {
        Box::pin(async move {
            let (leader, mut callers) = (self.leader().await?, Vec::<Box<dyn Caller>>::new());
            for caller in 0..count {
                let port = self.ports[place.node(caller, leader, self.ports.len())];
                callers.push(Box::new(Resp::connect(port).await?));
            }
            Ok(callers)
        })
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.0.id()).collect()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

/// A redis-server that flushes before it answers.
pub(crate) struct Redis {
    process: Process,
    pub(crate) port: u16,
}

impl Redis {
    /// One that keeps nothing on the disk.
    pub(crate) async fn start_in_memory(folder: &Path) -> Result<Vec<Self>, Fault> {
        Ok(vec![Self::start_with(folder, &["--appendonly", "no"]).await?])
    }

    /// One with so many replicas, the same as it and in step with it. It comes first.
    pub(crate) async fn start_group(folder: &Path, replicas: usize) -> Result<Vec<Self>, Fault> {
        let first = Self::start_with(&folder.join("primary"), &["--repl-diskless-sync-delay", "0"]).await?;
        let port = first.port.to_string();
        let mut group = vec![first];
        for which in 0..replicas {
            let folder = folder.join(format!("replica{which}"));
            group.push(Self::start_with(&folder, &["--replicaof", "127.0.0.1", &port]).await?);
        }
        let online =
            |reply: &[u8]| String::from_utf8_lossy(reply).matches("state=online").count() == replicas;
        until_ready(group[0].port, &[b"INFO", b"replication"], online).await?;
        Ok(group)
    }

    async fn start_with(folder: &Path, more: &[&str]) -> Result<Self, Fault> {
        std::fs::create_dir_all(folder)?;
        let port = free_port();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder)
            .args(more);
        let process = Process::start(&mut command)?;
        until_ready(port, &[b"PING"], |reply| reply == b"+PONG\r\n").await?;
        Ok(Self { process, port })
    }
}

/// Callers of Redis ask the first, which takes the writes.
impl Target for Vec<Redis> {
    fn callers(&self, _: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>> {
        Box::pin(async move {
            let mut callers = Vec::<Box<dyn Caller>>::new();
            for _ in 0..count {
                callers.push(Box::new(Resp::connect(self[0].port).await?));
            }
            Ok(callers)
        })
    }

    fn processes(&self) -> Vec<u32> {
        self.iter().map(|redis| redis.process.0.id()).collect()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

/// Three members of etcd, each a process with the settings that it has by itself. Callers of one member share its connection, as gRPC clients do.
pub(crate) struct Etcd {
    processes: Vec<Process>,
    members: Vec<Channel>,
}

impl Etcd {
    pub(crate) async fn start(folder: &Path) -> Result<Self, Fault> {
        let address = || format!("http://127.0.0.1:{}", free_port());
        let (clients, peers) = ([(); 3].map(|()| address()), [(); 3].map(|()| address()));
        let cluster: Vec<String> = (0..3).map(|which| format!("n{which}={}", peers[which])).collect();
        let (mut processes, mut members) = (Vec::new(), Vec::new());
        for which in 0..3 {
            let (client, peer) = (&clients[which], &peers[which]);
            let mut command = Command::new("etcd");
            command
                .args([
                    "--name",
                    &format!("n{which}"),
                    "--log-level",
                    "error",
                    "--data-dir",
                ])
                .arg(folder.join(format!("n{which}")))
                .args(["--listen-client-urls", client, "--advertise-client-urls", client])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &cluster.join(",")]);
            processes.push(Process::start(command.stderr(Stdio::null()))?);
            members.push(
                Endpoint::from_shared(client.clone())?
                    .tcp_nodelay(true)
                    .connect_lazy(),
            );
        }
        let etcd = Self { processes, members };
        let begun = Instant::now();
        // A write goes through only when there is a leader.
        while etcd.client(0).write(b"ready", b"").await.is_err() {
            if begun.elapsed() > PATIENCE {
                return Err(format!("etcd does not serve within {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(etcd)
    }

    fn client(&self, member: usize) -> Client {
        Client::new(self.members[member].clone())
    }
}

impl Target for Etcd {
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>> {
        Box::pin(async move {
            let (leader, mut callers) = (leader(&self.members).await?, Vec::<Box<dyn Caller>>::new());
            for caller in 0..count {
                callers.push(Box::new(self.client(place.node(
                    caller,
                    leader,
                    self.members.len(),
                ))));
            }
            Ok(callers)
        })
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.0.id()).collect()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
