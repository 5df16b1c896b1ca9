//! The one door for reads: as this node is, at least as fresh as a token, or as fresh as the cluster is now.

use super::{Freshness, Token};
use crate::error::{Error, Result};
use crate::mutant::Mutant;
use crate::raft::client::Peers;
use crate::raft::replica::{Replica, Role};
use crate::raft::state_store::State;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Readers that wait for the next round to a majority, at most.
const WAITING_READERS: usize = 64 << 10;

/// How long to wait before a failed round is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// How long one round may take before another is begun.
const ROUND: Duration = Duration::from_secs(1);

/// Where one reader's index goes.
pub(super) type Answer = oneshot::Sender<u64>;

/// The readers' side.
#[derive(Debug)]
pub(super) struct Query {
    rounds: mpsc::Sender<Answer>,
    state: State,
    deadline: Duration,
}

impl Query {
    /// The door, and the other end for [`serve_rounds`].
    pub(super) fn new(state: State, deadline: Duration) -> (Self, mpsc::Receiver<Answer>) {
        let (rounds, asked) = mpsc::channel(WAITING_READERS);
        (
            Self {
                rounds,
                state,
                deadline,
            },
            asked,
        )
    }

    /// The last index applied here.
    pub(super) fn applied(&self) -> u64 {
        self.state.applied_index()
    }

    /// Waits until this node is as fresh as asked. How fresh it is then.
    pub(super) async fn fresh(&self, freshness: Freshness) -> Result<Token> {
        let until = match freshness {
            Freshness::Local => return Ok(Token(self.applied())),
            Freshness::AtLeast(Token(index)) if index <= self.applied() => return Ok(Token(self.applied())),
            Freshness::AtLeast(_) if Mutant::ReadBehindToken.is_planted() => self.applied(),
            Freshness::AtLeast(Token(index)) => {
                self.within(self.wait_for(index), "this node has not applied it")
                    .await?
            }
            Freshness::Linearizable => {
                let read = async { self.wait_for(self.read_index().await?).await };
                self.within(read, "no leader confirmed by a majority").await?
            }
        };
        Ok(Token(until))
    }

    async fn within(&self, read: impl Future<Output = Result<u64>>, why: &str) -> Result<u64> {
        let late = || Error::NotFresh {
            waited: self.deadline,
            why: why.to_owned(),
        };
        tokio::time::timeout(self.deadline, read)
            .await
            .map_err(|_| late())?
    }

    /// Waits until an index is applied here. How far it is then.
    pub(super) async fn wait_for(&self, index: u64) -> Result<u64> {
        let applied = self.state.applied_index();
        if applied >= index {
            return Ok(applied);
        }
        let mut applied = self.state.applied();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map(|applied| *applied).map_err(|_| stopped())
    }

    /// An index of the leader, confirmed by a majority after this call. Everybody who asks at the same time shares a round.
    async fn read_index(&self) -> Result<u64> {
        let (answer, answered) = oneshot::channel();
        self.rounds.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded {
                queued: WAITING_READERS,
                unit: "readers",
                limit: WAITING_READERS,
            },
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answered.await.map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::Stopped {
        why: "it was asked to".to_owned(),
    }
}

/// Asks the leader for a read index whenever anybody waits for one. A round begins after everybody it serves has asked: that is what
/// makes it linearizable.
pub(super) async fn serve_rounds(
    mut asked: mpsc::Receiver<Answer>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, WAITING_READERS).await > 0 {
        let index = loop {
            // Whoever gave up in the meantime needs no round.
            waiting.retain(|answer: &Answer| !answer.is_closed());
            if waiting.is_empty() {
                break None;
            }
            let began = Instant::now();
            match tokio::time::timeout(ROUND, round(&replica, &peers)).await {
                Ok(Ok(index)) => break Some(index),
                Ok(Err(why)) => tracing::debug!(why, "no read index"),
                Err(_) => tracing::debug!("no read index in time"),
            }
            tokio::time::sleep(RETRY.saturating_sub(began.elapsed())).await;
        };
        for answer in waiting.drain(..) {
            if let Some(index) = index {
                // A reader that has gone needs no answer.
                let _ = answer.send(index);
            }
        }
    }
}

async fn round(replica: &Replica, peers: &Peers) -> Result<u64, String> {
    let state = replica.state();
    if state.role == Role::Leader {
        return replica.read_index().await;
    }
    let (leader, address) = state.leader_address().ok_or("no leader")?;
    peers
        .read_index(leader, address)
        .await
        .map_err(|status| status.message().to_owned())
}
