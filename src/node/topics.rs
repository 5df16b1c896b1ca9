//! Who listens to topics on this node: messages in the order of the log, from the subscription on.
//!
//! What is heard is kept for nobody: who subscribes hears what comes after. Each topic with subscribers has a buffer of [`BUFFER`] messages; a
//! subscriber that falls behind it misses messages and is told how many.

use super::{Listener, Node};
use crate::machine::event::Event;
use crate::raft::remote::Heard;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use tokio::sync::broadcast::{self, error::RecvError};

/// Messages of a topic that a node keeps for subscribers who have not taken them yet.
pub(crate) const BUFFER: usize = 1_024;

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

/// The messages of a topic on this node, from the moment of the subscription on. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct Listening {
    node: Node,
    receiver: broadcast::Receiver<Told>,
}

impl Node {
    /// Listens to a topic from now on.
    pub(crate) fn listen_to(&self, topic: &Bytes) -> Listening {
        Listening {
            node: self.clone(),
            receiver: self.inner.topics.subscribe(self, topic),
        }
    }
}

impl Listening {
    /// What comes next; none when the node has stopped. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
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
}
