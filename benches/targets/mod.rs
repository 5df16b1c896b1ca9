//! What benchmarks load: the trait, its callers, and three nodes in this process. Beside it: processes (`children`), etcd's calls (`etcd`), and the load
//! itself (`closed_loop`). Shared by `writes`, by `scale`, and by `compare`, which is in `peers`.

#![allow(dead_code, reason = "each benchmark uses a part")]
#![allow(unreachable_pub, reason = "shared by several programs")]

pub(crate) mod children;
pub(crate) mod closed_loop;
pub(crate) mod etcd;

use futures::future::BoxFuture;
use plenary::config::{Durability, Limits};
use plenary::{Cache, Freshness, Plenary};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) type Fault = Box<dyn Error + Send + Sync>;

/// How long a cluster may take to form, and a node with millions of keys to serve.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

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
pub(crate) trait Target: Sync {
    /// So many callers, connected.
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>>;
    /// The processes that its nodes are, where they are not this one.
    fn processes(&self) -> Vec<u32>;
    /// Ends it.
    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>>;
}

/// One who asks, and waits for the answer before asking again.
pub(crate) trait Caller: Send {
    /// Writes, and waits until that is acknowledged.
    fn write<'a>(&'a mut self, key: &'a [u8], value: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>>;
    /// Reads what is there now: whatever was acknowledged anywhere before is seen.
    fn read<'a>(&'a mut self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>>;
}

impl Caller for Cache {
    fn write<'a>(&'a mut self, key: &'a [u8], value: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move { Ok(self.set(key, value).await?) })
    }

    fn read<'a>(&'a mut self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let found = self.with_freshness(Freshness::Linearizable).get(key).await?;
            found.ok_or("a key is missing")?;
            Ok(())
        })
    }
}

impl Caller for Resp {
    fn write<'a>(&'a mut self, key: &'a [u8], value: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let reply = self.ask(&[b"SET", key, value]).await?;
            if reply == b"+OK\r\n" {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(reply).into())
            }
        })
    }

    fn read<'a>(&'a mut self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let reply = self.ask(&[b"GET", key]).await?;
            if reply.starts_with(b"$") && reply != b"$-1\r\n" {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(reply).into())
            }
        })
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
        self.encode(argv);
        self.stream.write_all(&self.request).await?;
        self.reply.clear();
        loop {
            self.read().await?;
            if rest_of(&self.reply).is_some() {
                return Ok(&self.reply);
            }
        }
    }

    /// Sends commands at once. All must be answered, and none by an error.
    pub(crate) async fn ask_all<W: AsRef<[u8]>>(&mut self, commands: &[Vec<W>]) -> Result<(), Fault> {
        self.request.clear();
        for argv in commands {
            let argv: Vec<&[u8]> = argv.iter().map(AsRef::as_ref).collect();
            self.encode(&argv);
        }
        self.stream.write_all(&self.request).await?;
        self.reply.clear();
        let (mut answered, mut at) = (0, 0);
        while answered < commands.len() {
            self.read().await?;
            while let Some(rest) = rest_of(&self.reply[at..]) {
                let reply = &self.reply[at..self.reply.len() - rest.len()];
                if reply[0] == b'-' {
                    return Err(String::from_utf8_lossy(reply).into());
                }
                (answered, at) = (answered + 1, at + reply.len());
            }
        }
        Ok(())
    }

    fn encode(&mut self, argv: &[&[u8]]) {
        self.request
            .extend_from_slice(format!("*{}\r\n", argv.len()).as_bytes());
        for argument in argv {
            self.request
                .extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            self.request.extend_from_slice(argument);
            self.request.extend_from_slice(b"\r\n");
        }
    }

    async fn read(&mut self) -> Result<(), Fault> {
        match self.stream.read_buf(&mut self.reply).await? {
            0 => Err("the node hung up".into()),
            _ => Ok(()),
        }
    }
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
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>> {
        Box::pin(async move {
            let leads = |node: &Plenary| node.node().status().leader_id == Some(node.node().id());
            let leader = self.nodes.iter().position(leads).ok_or("no leader")?;
            let node = |caller| &self.nodes[place.node(caller, leader, self.nodes.len())];
            Ok((0..count)
                .map(|caller| Box::new(node(caller).cache()) as Box<dyn Caller>)
                .collect())
        })
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
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
