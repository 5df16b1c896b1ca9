//! A node of its own in this process, with a Redis endpoint, and a connection to it.

use super::oracle::Connection;
use plenary::config::{Config, Durability, RespConfig};
use plenary::edge::resp::Resp;
use plenary::node::Node;
use std::net::TcpStream;

/// Runs until it is dropped.
pub struct Endpoint {
    runtime: tokio::runtime::Runtime,
    node: Node,
    resp: Resp,
    _folder: tempfile::TempDir,
}

impl Endpoint {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("threads to run on");
        let folder = tempfile::tempdir().expect("a folder for its data");
        let (node, resp) = runtime.block_on(async {
            let mut config = Config::new(folder.path());
            config.durability = Durability::Os;
            let node = Node::start(config).await.expect("a node alone");
            let mut config = RespConfig::new("127.0.0.1:0");
            let listener = Resp::bind(&mut config).await.expect("a free port");
            let resp = Resp::start(listener, node.clone(), config).expect("an endpoint on loopback");
            (node, resp)
        });
        Self {
            runtime,
            node,
            resp,
            _folder: folder,
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::new(TcpStream::connect(self.resp.address()).expect("it listens"))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            self.resp.stop().await;
            // What came of it is of no use to anybody: the test is over.
            let _ = self.node.stop().await;
        });
    }
}
