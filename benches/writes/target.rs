//! What can be written to: the trait, its callers, and three nodes in this process.

use super::{Fault, VALUE, etcd};
use futures::FutureExt;
use futures::future::BoxFuture;
use plenary::config::{Durability, Limits};
use plenary::{Cache, Plenary};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a cluster may take to form.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// On which nodes the callers are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Leader,
    Follower,
    Spread,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "on the leader",
            Self::Follower => "on a follower",
            Self::Spread => "spread",
        })
    }
}

impl Place {
    /// The node for this caller, given which one leads.
    pub(crate) fn node(self, caller: usize, leader: usize, nodes: usize) -> usize {
        match self {
            Self::Leader => leader,
            Self::Follower => (leader + 1) % nodes,
            Self::Spread => caller % nodes,
        }
    }
}

/// Something that takes writes.
pub(crate) trait Target {
    /// So many callers, connected.
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Caller>, Fault>>;
    /// Processor time used so far by the nodes and by this process, which has the callers.
    fn cpu(&self) -> Result<Duration, Fault>;
    /// Ends it.
    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>>;
}

/// One who writes, one write after the other.
pub(crate) enum Caller {
    Local(Cache),
    Resp(Resp),
    Etcd(etcd::Client),
}

impl Caller {
    /// Writes and waits for the answer.
    pub(crate) async fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Local(cache) => Ok(cache.set(key, value).await?),
            Self::Resp(connection) => {
                let reply = connection.ask(&[b"SET", key, value]).await?;
                if reply == b"+OK\r\n" {
                    Ok(())
                } else {
                    Err(String::from_utf8_lossy(reply).into())
                }
            }
            Self::Etcd(client) => client.put(key, value).await,
        }
    }
}

/// A connection that speaks just enough of Redis.
pub(crate) struct Resp {
    stream: TcpStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Resp {
    pub(crate) async fn connect(port: u16) -> Result<Self, Fault> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: Vec::new(),
            reply: Vec::new(),
        })
    }

    /// Sends a command and gives the reply as it came, of RESP2.
    pub(crate) async fn ask(&mut self, argv: &[&[u8]]) -> Result<&[u8], Fault> {
        self.request.clear();
        self.request
            .extend_from_slice(format!("*{}\r\n", argv.len()).as_bytes());
        for argument in argv {
            self.request
                .extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            self.request.extend_from_slice(argument);
            self.request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&self.request).await?;
        self.reply.clear();
        loop {
            if self.stream.read_buf(&mut self.reply).await? == 0 {
                return Err("the node hung up".into());
            }
            if is_whole(&self.reply) {
                return Ok(&self.reply);
            }
        }
    }
}

fn is_whole(reply: &[u8]) -> bool {
    rest_of(reply).is_some()
}

/// What follows the first reply; nothing, if that is not whole yet.
fn rest_of(reply: &[u8]) -> Option<&[u8]> {
    let line = reply.windows(2).position(|end| end == b"\r\n")?;
    let (head, mut rest) = (reply.get(1..line)?, &reply[line + 2..]);
    let length = || std::str::from_utf8(head).ok()?.parse::<usize>().ok();
    match reply[0] {
        b'$' => match length() {
            Some(length) => rest.get(length + 2..),
            None => Some(rest),
        },
        b'*' => {
            for _ in 0..length().unwrap_or(0) {
                rest = rest_of(rest)?;
            }
            Some(rest)
        }
        _ => Some(rest),
    }
}

/// A free port of loopback, below the range from which the system takes ports for outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 10_000 + u16::try_from(std::process::id() % 200).expect("below 200") * 100;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Processor time of a process, as Linux counts it: in hundredths of a second.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration, Fault> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

/// Three nodes in this process.
pub(crate) struct Local {
    nodes: Vec<Plenary>,
}

impl Local {
    pub(crate) async fn start(folder: PathBuf, durability: Durability, groups: usize) -> Result<Self, Fault> {
        let addresses: Vec<String> = (0..3).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let mut nodes = Vec::new();
        for (which, address) in addresses.iter().enumerate() {
            let builder = Plenary::builder()
                .data(folder.join(format!("n{which}")))
                .listen(address)
                .join(addresses.clone())
                .expect(3)
                .durability(durability)
                .limits(Limits {
                    groups_in_flight: groups,
                    ..Limits::default()
                });
            nodes.push(builder.start().await?);
        }
        for node in &nodes {
            node.node().ready(PATIENCE).await?;
        }
        Ok(Self { nodes })
    }
}

impl Target for Local {
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Caller>, Fault>> {
        Box::pin(async move {
            let leads = |node: &Plenary| node.node().status().leader_id == Some(node.node().id());
            let leader = self.nodes.iter().position(leads).ok_or("no leader")?;
            let node = |caller| &self.nodes[place.node(caller, leader, self.nodes.len())];
            Ok((0..count)
                .map(|caller| Caller::Local(node(caller).cache()))
                .collect())
        })
    }

    fn cpu(&self) -> Result<Duration, Fault> {
        cpu_of(std::process::id())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            for node in &self.nodes {
                node.stop().await?;
            }
            Ok(())
        })
    }
}

/// Local reads from one node's memory: one caller, then two on threads of their own.
pub(crate) async fn reads(folder: &Path, span: Duration) -> Result<(), Fault> {
    const STORED: usize = 100_000;
    let plenary = Plenary::builder()
        .data(folder)
        .durability(Durability::Os)
        .start()
        .await?;
    plenary.node().ready(PATIENCE).await?;
    let key = |number: usize| format!("bench:{number:032}");
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..STORED {
        let cache = plenary.cache();
        writes.spawn(async move { cache.set(key(number), [b'v'; VALUE]).await });
        if writes.len() >= 1_024 {
            writes.join_next().await.ok_or("a write was under way")???;
        }
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    println!(
        "\n{:<50} {:>9} {:>9}",
        "local reads of 256 bytes, 100,000 keys", "per s", "ns each"
    );
    for callers in [1, 2] {
        let mut threads = Vec::new();
        for caller in 0..callers {
            let cache = plenary.cache();
            threads.push(tokio::task::spawn_blocking(move || {
                let (begun, mut count) = (Instant::now(), 0_usize);
                while begun.elapsed() < span {
                    for _ in 0..1_000 {
                        count += 1;
                        // A stride that has no divisor in common with the number of keys visits all, in no order.
                        let key = key((count * 7_919 + caller) % STORED);
                        let read = cache.get(key).now_or_never();
                        read.ok_or("a local read had to wait")??
                            .ok_or("a key is missing")?;
                    }
                }
                Ok::<usize, Fault>(count)
            }));
        }
        let mut count = 0;
        for thread in threads {
            count += thread.await??;
        }
        let per_second = count as f64 / span.as_secs_f64();
        println!(
            "{:<50} {per_second:>9.0} {:>9.0}",
            format!("{callers} threads"),
            1e9 * callers as f64 / per_second
        );
    }
    plenary.stop().await?;
    Ok(())
}
