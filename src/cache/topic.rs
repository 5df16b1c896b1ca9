//! Topics: messages to everybody who listens, on every node the same and in the same order, that of the log. Topics are the channels of Redis: `PUBLISH` and
//! `SUBSCRIBE` reach them, keyspace notifications come on them.
//!
//! What is heard is kept for nobody: who subscribes hears what comes after. Each topic with subscribers has a buffer of [`BUFFER`] messages
//! on a node; a subscriber that falls behind it misses messages and is told how many.

use super::Cache;
use crate::error::Result;
use crate::machine::event::Event;
use crate::node::{Listener, Node};
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use tokio::sync::broadcast::{self, error::RecvError};

/// Messages of a topic that a node keeps for subscribers who have not taken them yet.
const BUFFER: usize = 1_024;

/// What is told to the subscribers of one topic.
#[derive(Clone, Debug)]
enum Told {
    Message(Bytes),
    /// A snapshot has replaced the state of this node: what was published meanwhile is not known.
    Gap,
}

/// The topics that somebody on this node listens to.
#[derive(Debug)]
pub(super) struct Hub {
    /// The node is asked to tell once somebody listens.
    listening: Once,
    /// Whether there are topics: what is asked for every event, without the lock.
    any: AtomicBool,
    /// Held to find a topic, and to put a message into its buffer; never across an await.
    topics: Mutex<HashMap<Bytes, broadcast::Sender<Told>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            listening: Once::new(),
            any: AtomicBool::new(false),
            topics: Mutex::default(),
        }
    }
}

impl Hub {
    fn subscribe(self: &Arc<Self>, node: &Node, topic: &Bytes) -> broadcast::Receiver<Told> {
        self.listening.call_once(|| node.listen(self.clone()));
        let mut topics = self.topics.lock();
        topics.retain(|_, sender| sender.receiver_count() > 0);
        let receiver = match topics.get(topic) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = broadcast::channel(BUFFER);
                topics.insert(topic.clone(), sender);
                receiver
            }
        };
        self.any.store(true, Ordering::Release);
        receiver
    }
}

impl Listener for Hub {
    fn event(&self, event: &Event) {
        let Event::Message {
            channel,
            message,
            sharded: false,
        } = event
        else {
            return;
        };
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut topics = self.topics.lock();
        // Copied, so that what waits in the buffer does not pin the groups it came in.
        if let Some(sender) = topics.get(channel)
            && sender
                .send(Told::Message(Bytes::copy_from_slice(message)))
                .is_err()
        {
            // Nobody listens any more.
            topics.remove(channel);
            self.any.store(!topics.is_empty(), Ordering::Release);
        }
    }

    fn replaced(&self) {
        for sender in self.topics.lock().values() {
            // Where nobody listens any more, nobody needs to know.
            let _ = sender.send(Told::Gap);
        }
    }
}

/// A topic of the whole cluster.
#[derive(Clone, Debug)]
pub struct Topic {
    cache: Cache,
    name: Bytes,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Bytes),
    /// So many messages are missing here, because they were not taken in time; none: it is not known how many, because this node was so far
    /// behind that it was given a snapshot.
    Missed(Option<u64>),
}

/// The messages of a topic on one node, from the moment of the subscription on. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    node: Node,
    receiver: broadcast::Receiver<Told>,
}

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
    /// Those of [`Node::write`].
    pub async fn publish(&self, message: impl AsRef<[u8]>) -> Result<()> {
        let argv = [b"PUBLISH", &self.name[..], message.as_ref()];
        self.cache.run(&argv).await.map(drop)
    }

    /// Listens to what comes from now on, on this node.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            node: self.cache.node.clone(),
            receiver: self.cache.topics.subscribe(&self.cache.node, &self.name),
        }
    }
}

impl Subscription {
    /// What comes next; none when the node has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        let heard = tokio::select! {
            biased;
            heard = self.receiver.recv() => heard,
            _ = self.node.stopped() => return None,
        };
        match heard {
            Ok(Told::Message(message)) => Some(Heard::Message(message)),
            Ok(Told::Gap) => Some(Heard::Missed(None)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(Some(missed))),
            Err(RecvError::Closed) => None,
        }
    }

    /// The same as a stream, which ends when the node has stopped.
    pub fn into_stream(self) -> impl Stream<Item = Heard> + Send {
        futures::stream::unfold(self, async |mut subscription| {
            let heard = subscription.next().await?;
            Some((heard, subscription))
        })
    }
}
