//! What this node does for processes that embed none: their writes and reads, as its own callers'.
//!
//! A node that is not a member yet, has not applied what was committed when it started, or is about to stop says so at once, so that they turn to
//! another; a write is refused as well while nobody leads or no majority is heard from. Reads as of what is applied here are served without a leader.

use super::hearing::SWALLOWED;
use super::{Freshness, Node, Token, Written};
use crate::error::{Error, Result};
use crate::machine::entry::Command;
use crate::machine::excerpt::{self, Wanted};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Run};
use crate::raft::remote::{Fresh, Heard, Host, Taken, Waited, Write};
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

impl Node {
    /// The reply of a write of one command, waited for where it waits in the log; and what has it. One that waits when the node stops may yet be served:
    /// until the log takes it back. So may one have been that a snapshot swallowed.
    pub(crate) async fn reply_of(&self, mut written: Written) -> Result<(Reply, Token)> {
        let Some(mut wait) = written.waits.pop() else {
            let reply = written.replies.pop();
            let missing = || Error::Value("a write without a reply: please report this".to_owned());
            return Ok((reply.ok_or_else(missing)?, written.token));
        };
        let began = Instant::now();
        let unknown = |why| Error::Unknown {
            waited: began.elapsed(),
            why,
        };
        let answer = tokio::select! {
            biased;
            answer = wait.answer() => answer,
            why = self.stopped() => {
                let why = why.unwrap_or_else(|| "it was asked to".to_owned());
                return Err(unknown(format!("this node stopped while the command waited in the log: {why}")));
            }
        };
        if answer == Reply::Error(SWALLOWED) {
            let why = "the command waited in the log, and not in the snapshot that this node went on from";
            return Err(unknown(why.to_owned()));
        }
        // It was given by a later entry of the log.
        Ok((answer, self.fresh(Freshness::Local).await?))
    }

    /// Whether others may be served.
    fn serves(&self) -> Result<()> {
        if self.inner.stopping.load(Ordering::Acquire) || self.inner.fault.get().is_some() {
            return Err(self.why_stopped());
        }
        if *self.inner.recovered.borrow() {
            return Ok(());
        }
        Err(not_ready("this node does not serve yet"))
    }
}

fn not_ready(why: &str) -> Error {
    Error::NoLeader {
        waited: Duration::ZERO,
        why: why.to_owned(),
    }
}

impl From<Fresh> for Freshness {
    fn from(fresh: Fresh) -> Self {
        match fresh {
            Fresh {
                linearizable: true, ..
            } => Self::Linearizable,
            Fresh { at_least: 0, .. } => Self::Local,
            Fresh { at_least, .. } => Self::AtLeast(Token(at_least)),
        }
    }
}

impl From<Freshness> for Fresh {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Local => Self::default(),
            Freshness::AtLeast(Token(at_least)) => Self {
                at_least,
                ..Self::default()
            },
            Freshness::Linearizable => Self {
                linearizable: true,
                ..Self::default()
            },
        }
    }
}

/// Refuses what only nodes may say to the log.
fn admit(command: &Command) -> Result<()> {
    match table::lookup(&command.argv)?.run {
        Run::Read(_) | Run::Write(_) => Ok(()),
        Run::Local => Err(CommandError::text("ERR this command is not for the log").into()),
    }
}

impl Host for Node {
    async fn write(&self, write: Write) -> Result<Taken<Waited>> {
        self.serves()?;
        if !self.is_ready() {
            return Err(not_ready("nobody leads, or no majority is heard from"));
        }
        let written = match write {
            Write::One(command) => {
                admit(&command)?;
                Node::write(self, vec![command]).await?
            }
            Write::Transaction(watches, commands) => {
                commands.iter().try_for_each(admit)?;
                self.transact(&watches, commands).await?
            }
        };
        let index = written.token.0;
        if written.waits.is_empty() {
            return Ok(Taken {
                replies: written.replies,
                index,
                wait: None,
            });
        }
        let node = self.clone();
        let wait = async move {
            let (reply, token) = node.reply_of(written).await?;
            Ok((reply, token.0))
        };
        Ok(Taken {
            replies: Vec::new(),
            index,
            wait: Some(wait.boxed()),
        })
    }

    async fn read(&self, fresh: Fresh, db: u8, argv: Vec<Bytes>) -> Result<(Reply, u64)> {
        self.serves()?;
        let reply = Node::read(self, fresh.into(), db, &argv).await?;
        // Asked after the read, so that the index covers it.
        Ok((reply, self.token().0))
    }

    async fn look(&self, fresh: Fresh, db: u8, wanted: Wanted) -> Result<(Bytes, u64)> {
        self.serves()?;
        self.fresh(fresh.into()).await?;
        let excerpt = self.view(db, |view| excerpt::write(&view, &wanted));
        let excerpt = excerpt.map_err(|size| Error::TooLarge {
            size,
            limit: excerpt::BYTES_MAX,
        })?;
        Ok((excerpt, self.token().0))
    }

    async fn session_events(&self, after: u64, most: usize, wait: Duration) -> Result<Bytes> {
        self.serves()?;
        let mut moved = Node::session_events(self);
        let next = async {
            loop {
                // Marked before the look, so that nothing which comes after it is missed.
                moved.borrow_and_update();
                let part = self.view(0, |view| view.store().session_events().part(after, most));
                if part.last() > after || moved.changed().await.is_err() {
                    return part;
                }
            }
        };
        let part = tokio::select! {
            biased;
            part = tokio::time::timeout(wait, next) => part,
            _ = self.stopped() => return Err(self.why_stopped()),
        };
        let part =
            part.unwrap_or_else(|_| self.view(0, |view| view.store().session_events().part(after, most)));
        Ok(part.to_bytes())
    }

    fn listen(&self, topic: Bytes) -> Result<BoxStream<'static, Heard>> {
        self.serves()?;
        let listening = self.listen_to(&topic);
        let heard = stream::unfold(listening, async |mut listening| {
            let heard = listening.next().await?;
            Some((heard, listening))
        });
        Ok(heard.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::machine::Machine;

    /// Until it is taken back an element may yet be given to it.
    #[tokio::test]
    async fn whoever_waits_in_the_log_is_not_told_that_nothing_was_done() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(Config::new(folder.path())).await.expect("it starts");
        node.ready(Duration::from_secs(30)).await.expect("it serves");
        let written = Node::write(&node, [Command::new(0, ["BLPOP", "jobs", "0"])]).await;
        let written = written.expect("it waits in the log");
        let (reply, stopped) = futures::join!(node.reply_of(written), node.stop());
        stopped.expect("it stops");
        assert!(
            matches!(&reply, Err(error) if error.may_be_applied()),
            "{reply:?}"
        );
    }

    /// A snapshot in which it waits no more does not say whether an element was given to it.
    #[tokio::test]
    async fn whoever_waited_before_a_snapshot_is_not_told_that_nothing_was_done() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(Config::new(folder.path())).await.expect("it starts");
        node.ready(Duration::from_secs(30)).await.expect("it serves");
        let wait = async || {
            let written = Node::write(&node, [Command::new(0, ["BLPOP", "jobs", "0"])]).await;
            written.expect("it waits in the log")
        };
        let (mut one, other) = (wait().await, wait().await);
        node.inner.hearing.replaced(&Machine::default());
        let told = one.waits[0].answer().await;
        assert!(
            matches!(&told, Reply::Error(error) if error.to_string().starts_with("UNKNOWN ")),
            "{told:?}"
        );
        let reply = node.reply_of(other).await;
        assert!(
            matches!(&reply, Err(error) if error.may_be_applied()),
            "{reply:?}"
        );
        node.stop().await.expect("it stops");
    }

    #[test]
    fn what_only_nodes_say_to_the_log_is_refused() {
        let admits =
            |argv: &[&str]| admit(&Command::new(0, argv.iter().map(|word| (*word).to_owned()))).is_ok();
        assert!(admits(&["SET", "k", "v"]) && admits(&["GET", "k"]) && admits(&["SESSION.TOUCH", "k"]));
        assert!(
            !admits(&[".gone", "1", "1"])
                && !admits(&[".exec", "0", "0"])
                && !admits(&["PING"])
                && !admits(&[])
        );
    }
}
