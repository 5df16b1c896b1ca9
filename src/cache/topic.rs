//! Topics: messages to everybody who listens, on every node the same and in the same order, that of the log. Topics are the channels of Redis: `PUBLISH` and
//! `SUBSCRIBE` reach them, keyspace notifications come on them.
//!
//! What is heard is kept for nobody: who subscribes hears what comes after. How much waits for a subscriber: `node/topics.rs`.

use super::Cache;
use crate::error::{Error, Result};
pub use crate::node::Heard;
use crate::remote::Hearing;
use bytes::Bytes;
use futures::Stream;

/// A topic of the whole cluster.
#[derive(Clone, Debug)]
pub struct Topic {
    cache: Cache,
    name: Bytes,
}

/// The messages of a topic on one node, from the moment of the subscription on. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription(Hearing);

impl Cache {
    /// A topic by its name: the channel of that name, of all databases.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> plenary::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// # let cache = plenary.cache();
    /// use plenary::cache::Heard;
    ///
    /// let prices = cache.topic("prices");
    /// let mut heard = prices.subscribe(); // on any node; as a Stream: prices.subscribe().into_stream()
    /// prices.publish("tea 12.50").await?;
    /// assert_eq!(heard.next().await, Some(Heard::Message("tea 12.50".into())));
    /// # plenary.stop().await?;
    /// assert_eq!(heard.next().await, None);
    /// # Ok(()) }
    /// ```
    pub fn topic(&self, name: impl AsRef<[u8]>) -> Topic {
        Topic {
            cache: self.clone(),
            name: Bytes::copy_from_slice(name.as_ref()),
        }
    }
}

impl Topic {
    /// Tells everybody who listens, on all nodes; once it has returned, those on this node have the message before them. Redis: `PUBLISH`.
    ///
    /// # Errors
    /// Those of [`Node::write`](crate::node::Node::write).
    pub async fn publish(&self, message: impl AsRef<[u8]>) -> Result<()> {
        let argv = [b"PUBLISH", &self.name[..], message.as_ref()];
        self.cache.run(&argv).await.map(drop)
    }

    /// Listens to what comes from now on, on this node. On a remote handle, from when a member has been reached: [`Subscription::ready`] waits for that.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.cache.door().listen(&self.name))
    }
}

impl Subscription {
    /// Waits until what is published is heard: at once on a node.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the subscription has ended before.
    pub async fn ready(&mut self) -> Result<()> {
        let why = || "the subscription has ended".to_owned();
        let listens = self.0.listens().await;
        listens.then_some(()).ok_or_else(|| Error::Stopped { why: why() })
    }

    /// What comes next; none when the node has stopped, or the remote handle was closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        self.0.next().await
    }

    /// The same as a stream, which ends when the node has stopped.
    pub fn into_stream(self) -> impl Stream<Item = Heard> + Send {
        futures::stream::unfold(self, async |mut subscription| {
            let heard = subscription.next().await?;
            Some((heard, subscription))
        })
    }
}
