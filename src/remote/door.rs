//! The narrow door through which handles reach the cluster: a node in this process, or members over the network. All that is different between the two
//! is here.

use super::Client;
use crate::error::{Error, Result};
use crate::machine::entry::{Command, Millis};
use crate::machine::excerpt::Wanted;
use crate::machine::internal::Watch;
use crate::machine::keyspace::View;
use crate::machine::reply::Reply;
use crate::machine::session_events::SessionEvents;
use crate::node::topics::{BUFFER, Listening};
use crate::node::{Freshness, Heard, Node, Token};
use crate::raft::ground::Wall;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// What a reader looks at. A node shows everything and does not mind; a member is asked for just this.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sight<'a> {
    /// These keys.
    Keys(&'a [&'a [u8]]),
    /// The sessions of an owner.
    Owned(&'a Bytes),
    /// Every key: too much to be sent.
    All,
}

/// A way to the cluster. Clones are the same way.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// A node in this process.
    Node(Node),
    /// Members, over the network.
    Remote(Client),
}

impl Door {
    /// The node, where it is in this process.
    pub(crate) fn node(&self) -> Option<&Node> {
        match self {
            Self::Node(node) => Some(node),
            Self::Remote(_) => None,
        }
    }

    /// Writes one command: its reply, waited for where it waits in the log, and what has it.
    pub(crate) async fn write(&self, command: Command) -> Result<(Reply, Token)> {
        match self {
            Self::Node(node) => node.reply_of(node.write(vec![command]).await?).await,
            Self::Remote(client) => client.write(command).await,
        }
    }

    /// Applies commands together if what is watched still has its version. One reply: an array of theirs, or no array.
    pub(crate) async fn transact(
        &self,
        watches: Vec<Watch>,
        commands: Vec<Command>,
    ) -> Result<(Vec<Reply>, Token)> {
        match self {
            Self::Node(node) => {
                let written = node.transact(&watches, commands).await?;
                Ok((written.replies, written.token))
            }
            Self::Remote(client) => client.transact(watches, commands).await,
        }
    }

    /// A read-only command; [`Reply::Waiting`]: it is to wait, which is for the log.
    pub(crate) async fn read(&self, freshness: Freshness, db: u8, argv: &[Bytes]) -> Result<(Reply, Token)> {
        match self {
            Self::Node(node) => {
                let reply = node.read(freshness, db, argv).await?;
                Ok((reply, node.token()))
            }
            Self::Remote(client) => client.read(freshness, db, argv).await,
        }
    }

    /// The answer of a command that would only renew a key's life, where that needs no write. Members write each for others: how fresh what they go by must be,
    /// only this process knows.
    pub(crate) async fn renew(&self, freshness: Freshness, db: u8, argv: &[Bytes]) -> Option<(Reply, Token)> {
        match self {
            Self::Node(node) => Some((node.renew(freshness, db, argv).await?, node.token())),
            Self::Remote(_) => None,
        }
    }

    /// What `read` makes of what is in sight. The token is taken after the read, so that it covers it: more may have been applied meanwhile, never less.
    pub(crate) async fn look<R>(
        &self,
        freshness: Freshness,
        db: u8,
        sight: Sight<'_>,
        read: impl FnOnce(View<'_>) -> Result<R>,
    ) -> Result<(R, Token)> {
        let client = match self {
            Self::Node(node) => {
                node.fresh(freshness).await?;
                let result = node.view(db, read)?;
                return Ok((result, node.token()));
            }
            Self::Remote(client) => client,
        };
        let wanted = match sight {
            Sight::Keys(keys) => Wanted::Keys(keys.iter().copied().map(Bytes::copy_from_slice).collect()),
            Sight::Owned(owner) if owner.is_empty() => Wanted::Keys(Vec::new()),
            Sight::Owned(owner) => Wanted::Owned(owner.clone()),
            Sight::All => return Err(Error::NodeNeeded("looking at all keys")),
        };
        client.look(freshness, db, wanted, read).await
    }

    /// Now, by the log's clock as it is estimated here.
    pub(crate) fn now(&self) -> Millis {
        match self {
            Self::Node(node) => node.now(),
            Self::Remote(client) => client.now(),
        }
    }

    /// When a life is used that is used now: see [`Node::used_at`].
    pub(crate) fn used_at(&self) -> Millis {
        match self {
            Self::Node(node) => node.used_at(),
            Self::Remote(client) => client.now().max(Wall::System.now()),
        }
    }

    /// How far the log is known to be here.
    pub(crate) fn reached(&self) -> Token {
        match self {
            Self::Node(node) => node.token(),
            Self::Remote(client) => client.reached(),
        }
    }

    /// The position of the last event of sessions.
    pub(crate) async fn last_session_event(&self) -> Result<u64> {
        match self {
            Self::Node(node) => Ok(node.view(0, |view| view.store().session_events().last())),
            Self::Remote(client) => Ok(client.session_events(u64::MAX, 0).await?.last()),
        }
    }

    /// Where events of sessions are read from.
    pub(crate) fn session_events(&self) -> Moved {
        match self {
            Self::Node(node) => Moved::Node(node.clone(), node.session_events()),
            Self::Remote(client) => Moved::Remote(client.clone()),
        }
    }

    /// Listens to a topic.
    pub(crate) fn listen(&self, topic: &Bytes) -> Hearing {
        match self {
            Self::Node(node) => Hearing::Node(node.listen_to(topic)),
            Self::Remote(client) => Hearing::remote(client.clone(), topic.clone()),
        }
    }
}

/// Waits for events of sessions.
pub(crate) enum Moved {
    Node(Node, watch::Receiver<u64>),
    Remote(Client),
}

impl Moved {
    /// The next events after a position, `most` at a time, once there are some.
    pub(crate) async fn after(&mut self, position: u64, most: usize) -> Result<SessionEvents> {
        loop {
            let part = match self {
                Self::Node(node, moved) => {
                    // Marked before the look, so that nothing which comes after it is missed.
                    moved.borrow_and_update();
                    let part = node.view(0, |view| view.store().session_events().part(position, most));
                    if part.last() <= position && moved.changed().await.is_err() {
                        return Err(Error::Stopped {
                            why: "it tells of no more sessions".to_owned(),
                        });
                    }
                    part
                }
                Self::Remote(client) => client.session_events(position, most).await?,
            };
            if part.last() > position {
                return Ok(part);
            }
        }
    }
}

/// What is heard of a topic.
#[derive(Debug)]
pub(crate) enum Hearing {
    Node(Listening),
    Remote {
        heard: mpsc::Receiver<Heard>,
        /// Whether a member listens.
        listens: watch::Receiver<bool>,
        task: AbortHandle,
    },
}

impl Drop for Hearing {
    fn drop(&mut self) {
        if let Self::Remote { task, .. } = self {
            task.abort();
        }
    }
}

impl Hearing {
    fn remote(client: Client, topic: Bytes) -> Self {
        let (told, heard) = mpsc::channel(BUFFER);
        let (listening, listens) = watch::channel(false);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = hear(&client, &topic, &told, &listening) => {}
                () = client.closed() => {}
            }
        });
        Self::Remote {
            heard,
            listens,
            task: task.abort_handle(),
        }
    }

    /// What comes next; none when it is over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        match self {
            Self::Node(listening) => listening.next().await,
            Self::Remote { heard, .. } => heard.recv().await,
        }
    }

    /// Waits until what comes is heard. Whether it is.
    pub(crate) async fn listens(&mut self) -> bool {
        match self {
            Self::Node(_) => true,
            Self::Remote { listens, .. } => listens.wait_for(|listens| *listens).await.is_ok(),
        }
    }
}

/// Listens on one member after the other. What comes between two is not heard, and the subscriber is told so.
async fn hear(client: &Client, topic: &Bytes, told: &mpsc::Sender<Heard>, listening: &watch::Sender<bool>) {
    let mut missed = false;
    loop {
        let (mut heard, _turn) = match client.listen(topic).await {
            Ok(listening) => listening,
            // Another round begins where this one has ended: its rests are its own.
            Err(Error::NotFresh { why, .. }) => {
                tracing::debug!(why, "no member listens for this process");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a subscription has ended");
                return;
            }
        };
        listening.send_replace(true);
        if missed && told.send(Heard::Missed(None)).await.is_err() {
            return;
        }
        while let Some(heard) = heard.next().await {
            // While the subscriber takes nothing, the member buffers, and counts what is missed.
            if told.send(heard).await.is_err() {
                return;
            }
        }
        missed = true;
    }
}
