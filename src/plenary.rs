//! The whole of Plenary in one handle: a node, and the edges that its configuration names.
//!
//! The topmost layer, beside the binary: the only module of the library that may name both `node` and `edge`. It starts and stops, and
//! decides nothing else.

use crate::cache::Cache;
use crate::config::{Config, Durability, Limits, RespConfig, Secret, Timing};
use crate::error::Result;
use crate::node::Node;
use crate::session::Sessions;
use std::path::PathBuf;

/// A running node with its edges. Clones are handles to the same.
///
/// A process that exits without [`Plenary::stop`] is, to the others, a node that was killed: nothing acknowledged is lost, and they
/// need an election if it led.
#[derive(Clone, Debug)]
pub struct Plenary {
    node: Node,
}

impl Plenary {
    /// Settings to start from: a cluster of one that keeps its data in `plenary-data` and serves nobody but this process.
    pub fn builder() -> Builder {
        Builder {
            config: Config::new("plenary-data"),
        }
    }

    /// Starts a node with these settings, and the edges they name.
    ///
    /// # Errors
    /// Those of [`Node::start`], and [`Error::Listen`](crate::Error::Listen) of an edge.
    pub async fn start(config: Config) -> Result<Self> {
        Ok(Self {
            node: Node::start(config).await?,
        })
    }

    /// Keys and values.
    pub fn cache(&self) -> Cache {
        Cache::new(self.node.clone())
    }

    /// Web sessions.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.cache())
    }

    /// The node, for its status and members.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Stops the edges, hands over leadership, finishes what is under way and stops the node.
    ///
    /// # Errors
    /// Those of [`Node::stop`].
    pub async fn stop(&self) -> Result<()> {
        self.node.stop().await
    }
}

/// [`Config`] in the form one writes in a program; [`Builder::start`] starts it. Each setting is described there.
#[derive(Debug)]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// [`Config::data`].
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.data = folder.into();
        self
    }

    /// [`Config::listen`].
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.config.listen = address.into();
        self
    }

    /// [`Config::advertise`].
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.config.advertise = Some(address.into());
        self
    }

    /// [`Config::join`].
    pub fn join<A: Into<String>>(mut self, peers: impl IntoIterator<Item = A>) -> Self {
        self.config.join = peers.into_iter().map(Into::into).collect();
        self
    }

    /// [`Config::expect`].
    pub fn expect(mut self, nodes: usize) -> Self {
        self.config.expect = Some(nodes);
        self
    }

    /// [`Config::secret`].
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.config.secret = Some(Secret::new(secret));
        self
    }

    /// [`Config::durability`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.config.durability = durability;
        self
    }

    /// [`Config::resp`].
    pub fn resp(mut self, endpoint: RespConfig) -> Self {
        self.config.resp = Some(endpoint);
        self
    }

    /// [`Config::http`].
    pub fn http(mut self, address: impl Into<String>) -> Self {
        self.config.http = Some(address.into());
        self
    }

    /// [`Config::timing`].
    pub fn timing(mut self, timing: Timing) -> Self {
        self.config.timing = timing;
        self
    }

    /// [`Config::limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// The settings so far.
    pub fn config(self) -> Config {
        self.config
    }

    /// [`Plenary::start`] with them.
    ///
    /// # Errors
    /// Those of [`Plenary::start`].
    pub async fn start(self) -> Result<Plenary> {
        Plenary::start(self.config).await
    }
}
