//! A cluster from a process that embeds no node: the same handles, over the network.
//!
//! Of the topmost layer, as `plenary.rs`, whose place it takes in such a process.

use crate::cache::Cache;
use crate::config::Secret;
use crate::error::Result;
use crate::node::Token;
use crate::remote::{Client, Door};
use crate::session::Sessions;
use std::time::Duration;

/// How long a request may take, members that do not answer and elections included, unless it is said: twice as long as a node waits for a majority.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A cluster that runs in other processes. Clones are the same; dropping the last handle closes the connections.
///
/// Its handles are those of [`Plenary`](crate::Plenary), with the same methods. What is different:
///
/// - Every read is a call to a member. Values are copies, and [`Freshness::Local`](crate::Freshness::Local) is what that member has.
/// - A write whose answer is lost with its member is [`Error::Unknown`](crate::Error::Unknown); all that no member has taken is tried on the next one.
/// - Locks on sessions end with their lease alone, whatever becomes of the member that gave them, or of this process.
/// - To look at all sessions ([`Sessions::count`], [`Sessions::end_all`]) is [`Error::NodeNeeded`](crate::Error::NodeNeeded).
#[derive(Clone, Debug)]
pub struct Remote {
    client: Client,
    /// The one whose clones are handed out: they know of each other's loads.
    cache: Cache,
}

impl Remote {
    /// Keys and values; a handle with a token of its own.
    pub fn cache(&self) -> Cache {
        self.cache.at_least(Token::default())
    }

    /// Web sessions.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.cache())
    }

    /// The peer address of the member that is asked now.
    pub fn member(&self) -> &str {
        self.client.member()
    }

    /// Ends subscriptions and waits; further calls are [`Error::Stopped`](crate::Error::Stopped).
    pub fn close(&self) {
        self.client.close();
    }
}

/// How to reach a cluster: [`Plenary::connect`](crate::Plenary::connect).
#[derive(Debug)]
pub struct Connector {
    members: Vec<String>,
    secret: Option<Secret>,
    deadline: Duration,
}

impl Connector {
    pub(crate) fn new(members: Vec<String>) -> Self {
        Self {
            members,
            secret: None,
            deadline: DEADLINE,
        }
    }

    /// The cluster's secret: [`Config::secret`](crate::Config::secret).
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(Secret::new(secret));
        self
    }

    /// How long a request may take, the wait for a lock or a value that another loads aside; [`DEADLINE`] if nothing is said.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Connects; a member has answered then.
    ///
    /// # Errors
    /// [`Error::Stranger`](crate::Error::Stranger) with another secret, [`Error::NoLeader`](crate::Error::NoLeader) if no member serves within the deadline,
    /// [`Error::Config`](crate::Error::Config).
    pub async fn open(self) -> Result<Remote> {
        let client = Client::new(&self.members, self.secret.as_ref(), self.deadline)?;
        client.open().await?;
        let cache = Cache::behind(Door::Remote(client.clone()));
        Ok(Remote { client, cache })
    }
}
