//! The whole of Plenary in one handle: a node, and the edges that its configuration names.
//!
//! The topmost layer, beside the binary: the only module of the library that may name both `node` and `edge`. It starts and stops, and
//! decides nothing else.

use crate::cache::Cache;
use crate::config::{Config, Durability, Limits, LogKind, RespConfig, Secret, Timing};
use crate::connect::Connector;
#[cfg(not(all(feature = "resp", feature = "http")))]
use crate::error::Error;
use crate::error::Result;
use crate::node::{Node, Token};
use crate::session::Sessions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A running node with its edges. Clones are handles to the same.
///
/// A process that exits without [`Plenary::stop`] is, to the others, a node that was killed: nothing acknowledged is lost, and they
/// need an election if it led.
#[derive(Clone, Debug)]
pub struct Plenary {
    node: Node,
    /// The one whose clones are handed out: they know of each other's loads.
    cache: Cache,
    edges: Arc<Edges>,
}

#[cfg(feature = "resp")]
use crate::edge::resp::Listeners;
/// Nobody, without the feature `resp`.
#[cfg(not(feature = "resp"))]
type Listeners = ();

/// What listens for others than peers.
#[derive(Debug, Default)]
struct Edges {
    #[cfg(feature = "resp")]
    resp: Option<crate::edge::resp::Resp>,
    /// Taken out by the one who stops it.
    #[cfg(feature = "http")]
    http: parking_lot::Mutex<Option<crate::edge::http::Http>>,
}

impl Plenary {
    /// Settings to start from: a cluster of one that keeps its data in `plenary-data` and serves nobody but this process.
    pub fn builder() -> Builder {
        Builder {
            config: Config::new("plenary-data"),
        }
    }

    /// The way to a cluster from a process that embeds no node, by the peer addresses of its members (some of them are enough), to the same handles.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let node = plenary::Plenary::builder().data(folder.path()).listen("127.0.0.1:0").secret("of the cluster").start().await?;
    /// # node.node().ready(std::time::Duration::from_secs(20)).await?;
    /// # let members = [node.node().raft_addr().to_owned()];
    /// use plenary::{Plenary, session::NewSession};
    ///
    /// // let members = ["10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.3:7001"];
    /// let plenary = Plenary::connect(members).secret("of the cluster").open().await?;
    /// let sessions = plenary.sessions();
    /// let id = sessions.create(NewSession::new().owner("ada")).await?.id().clone();
    /// let mut session = sessions.load(&id).await?.expect("just created");
    /// session.set("theme", "dark");
    /// sessions.save(&mut session).await?;
    /// # node.stop().await?;
    /// # Ok(()) }
    /// ```
    pub fn connect<A: Into<String>>(members: impl IntoIterator<Item = A>) -> Connector {
        Connector::new(members.into_iter().map(Into::into).collect())
    }

    /// Starts a node with these settings, and the edges they name. [`Node::ready`] waits until it serves.
    ///
    /// # Errors
    /// Those of [`Node::start`], and [`Error::Listen`](crate::error::Error::Listen) of an edge.
    pub async fn start(config: Config) -> Result<Self> {
        let mut config = config;
        config.validate()?;
        let http = config.http.clone();
        let resp = Edges::bind(&mut config).await?;
        let node = Node::start(config).await?;
        match Edges::start(&node, resp, http).await {
            Ok(edges) => Ok(Self {
                cache: Cache::new(node.clone()),
                node,
                edges: Arc::new(edges),
            }),
            Err(error) => {
                // The port is the news; that a node which has done nothing stops is not.
                let _ = node.stop().await;
                Err(error)
            }
        }
    }

    /// Keys and values; a handle with a token of its own.
    pub fn cache(&self) -> Cache {
        self.cache.at_least(Token::default())
    }

    /// Web sessions.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.cache())
    }

    /// The node, for its status and members.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Where Redis clients are listened for, after port 0 was resolved.
    pub fn resp_addr(&self) -> Option<SocketAddr> {
        self.edges.resp_addr()
    }

    /// Where HTTP is listened for, after port 0 was resolved.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.edges.http_addr()
    }

    /// Stops in this order: Redis clients, so that what they sent is finished; the node, which hands over leadership first and finishes what is
    /// under way; HTTP last, so that `/ready` tells of it.
    ///
    /// # Errors
    /// Those of [`Node::stop`].
    pub async fn stop(&self) -> Result<()> {
        #[cfg(feature = "resp")]
        if let Some(resp) = &self.edges.resp {
            resp.stop().await;
        }
        let stopped = self.node.stop().await;
        #[cfg(feature = "http")]
        {
            let http = self.edges.http.lock().take();
            if let Some(http) = http {
                http.stop().await;
            }
        }
        stopped
    }
}

#[cfg_attr(
    not(all(feature = "resp", feature = "http")),
    allow(unused_variables, clippy::unused_async)
)]
impl Edges {
    /// Takes the Redis endpoint's port before the node starts, and notes it in the settings: the node tells the others.
    async fn bind(config: &mut Config) -> Result<Option<(Listeners, RespConfig)>> {
        let Some(resp) = &mut config.resp else {
            return Ok(None);
        };
        #[cfg(not(feature = "resp"))]
        return Err(Error::Config(vec![format!(
            "resp = {:?}: this program was built without the feature `resp`",
            resp.listen
        )]));
        #[cfg(feature = "resp")]
        {
            let listeners = crate::edge::resp::Resp::bind(resp).await?;
            Ok(Some((listeners, resp.clone())))
        }
    }

    async fn start(node: &Node, resp: Option<(Listeners, RespConfig)>, http: Option<String>) -> Result<Self> {
        #[cfg(not(feature = "http"))]
        if http.is_some() {
            return Err(Error::Config(vec![
                "http: this program was built without the feature `http`".to_owned(),
            ]));
        }
        Ok(Self {
            #[cfg(feature = "resp")]
            resp: resp
                .map(|(listeners, resp)| crate::edge::resp::Resp::start(listeners, node.clone(), resp))
                .transpose()?,
            #[cfg(feature = "http")]
            http: match http {
                Some(listen) => Some(crate::edge::http::Http::start(node.clone(), &listen).await?).into(),
                None => None.into(),
            },
        })
    }

    fn resp_addr(&self) -> Option<SocketAddr> {
        #[cfg(feature = "resp")]
        return self.resp.as_ref().map(crate::edge::resp::Resp::address);
        #[cfg(not(feature = "resp"))]
        None
    }

    fn http_addr(&self) -> Option<SocketAddr> {
        #[cfg(feature = "http")]
        return self.http.lock().as_ref().map(crate::edge::http::Http::address);
        #[cfg(not(feature = "http"))]
        None
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

    /// [`Config::log_store`].
    pub fn log_store(mut self, kind: LogKind) -> Self {
        self.config.log_store = kind;
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
