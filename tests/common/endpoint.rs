//! A node with a Redis endpoint, a client of one, and a real Redis to judge them by.

use super::{PATIENCE, one};
use bytes::BytesMut;
use plenary::config::RespConfig;
use plenary::edge::resp::Resp;
use plenary::edge::resp::decode::{decode, request};
use plenary::machine::reply::Reply;
use plenary::node::Node;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An endpoint of a node, on a free port.
pub async fn endpoint(node: &Node, change: impl FnOnce(&mut RespConfig)) -> Resp {
    let mut config = RespConfig::new("127.0.0.1:0");
    change(&mut config);
    let listeners = Resp::bind(&mut config).await.unwrap();
    Resp::start(listeners, node.clone(), config).unwrap()
}

/// A node by itself with an endpoint.
pub struct Server {
    pub node: Node,
    pub resp: Resp,
    pub folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut RespConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = one(folder.path()).await;
        let resp = endpoint(&node, change).await;
        Self { node, resp, folder }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.resp.address()).await
    }

    pub async fn stop(self) {
        timeout(PATIENCE, self.resp.stop())
            .await
            .expect("the endpoint stops");
        timeout(PATIENCE, self.node.stop())
            .await
            .expect("the node stops")
            .unwrap();
    }

    /// A field of `INFO`.
    pub async fn field(&self, name: &str) -> String {
        let info = self.client().await.text(&["INFO", "everything"]).await;
        let field = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
    }

    /// Waits until a field of `INFO` has this value.
    pub async fn until(&self, name: &str, value: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.field(name).await;
            if now == value {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {now}, not {value}");
        }
    }
}

/// A client that waits no longer than [`PATIENCE`] for anything.
pub struct Client<S = TcpStream> {
    pub stream: S,
    input: BytesMut,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next reply; none at the end.
    pub async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = decode(&mut self.input).unwrap() {
                return Some(reply);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input))
                .await
                .expect("a reply, or the end");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }

    /// The reply; none where the other side has closed.
    pub async fn ask_or_end(&mut self, argv: &[&str]) -> Option<Reply> {
        // A side that has closed need not take it.
        let _ = self.stream.write_all(&request(argv)).await;
        let _ = self.stream.flush().await;
        self.reply().await
    }

    pub async fn ask(&mut self, argv: &[&str]) -> Reply {
        self.ask_or_end(argv).await.expect("a reply, not the end")
    }

    /// A reply as `redis-cli` would tell its content.
    pub async fn text(&mut self, argv: &[&str]) -> String {
        text(&self.ask(argv).await)
    }

    /// Asks again until there is nothing.
    pub async fn until_nothing(&mut self, argv: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while self.text(argv).await != "(nil)" {
            assert!(Instant::now() < deadline, "{argv:?} still finds something");
        }
    }

    /// Everything until the other side closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut bytes = self.input.to_vec();
        // A reset ends it too: what came before it counts.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut bytes))
            .await
            .expect("the other side closes");
        bytes
    }
}

/// What a reply says, as `redis-cli` would tell it.
pub fn text(reply: &Reply) -> String {
    match reply {
        Reply::Simple(text) => text.to_string(),
        Reply::Bulk(bytes) | Reply::Verbatim(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Integer(number) => number.to_string(),
        Reply::Error(error) => error.to_string(),
        Reply::Nil | Reply::NilArray => "(nil)".to_owned(),
        Reply::Array(items) | Reply::Set(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Streams(pairs) => pairs
            .iter()
            .map(|(key, value)| format!("{}={}", text(key), text(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => format!("{other:?}"),
    }
}

/// A real Redis on a free port, ended with the test.
pub struct Redis {
    child: Child,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// None where no Redis is named to compare with.
    pub async fn start(arguments: &[&str]) -> Option<Self> {
        let Ok(program) = std::env::var("PLENARY_REDIS_SERVER") else {
            println!("PLENARY_REDIS_SERVER is not set: compared nothing with a real Redis");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // Redis takes no port 0: a port that was free a moment ago. A loser of that race cannot listen, and the next is tried.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let mut child = Command::new(&program)
                .args([
                    "--port",
                    &free.port().to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ])
                .args(arguments)
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .spawn()
                .expect("PLENARY_REDIS_SERVER names a program that starts");
            let deadline = Instant::now() + PATIENCE;
            while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if TcpStream::connect(free).await.is_ok() {
                    return Some(Self {
                        child,
                        address: free,
                        _folder: folder,
                    });
                }
                tokio::task::yield_now().await;
            }
        }
        panic!("Redis did not start");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
