//! The way to a leader that is another node: one stream for the scripts of all callers, for a call of its own would cost more than most scripts.

use crate::raft::client::{Evaluated, Peers};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// Scripts on their way into the stream, at most; whoever comes then waits.
const WAITING: usize = 1_024;

/// The way to one leader. It ends when all its clones are dropped, or when the stream breaks: then begin another.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    leader: u64,
    address: String,
    scripts: mpsc::Sender<(u64, Bytes)>,
    last_ticket: Arc<AtomicU64>,
    waiting: Arc<Waiting>,
}

/// Who waits for what becomes of a script, by ticket; nothing once the stream has ended. Held to put in or take out.
type Waiting = Mutex<Option<BTreeMap<u64, oneshot::Sender<Evaluated>>>>;

impl Lane {
    pub(super) fn begin(peers: Arc<Peers>, leader: u64, address: &str) -> Self {
        let (scripts, sent) = mpsc::channel(WAITING);
        let lane = Self {
            leader,
            address: address.to_owned(),
            scripts,
            last_ticket: Arc::default(),
            waiting: Arc::new(Mutex::new(Some(BTreeMap::new()))),
        };
        let (address, waiting) = (lane.address.clone(), lane.waiting.clone());
        tokio::spawn(async move {
            deliver(&peers, leader, &address, sent, &waiting).await;
            // Dropped with those who waited: they learn that they are not answered.
            *waiting.lock() = None;
        });
        lane
    }

    /// Whether this still leads there.
    pub(super) fn leads_to(&self, leader: u64, address: &str) -> bool {
        self.leader == leader && self.address == address && self.waiting.lock().is_some()
    }

    /// What the leader makes of a script; nothing if it may or may not have come to it.
    pub(super) async fn evaluate(&self, script: Bytes) -> Option<Evaluated> {
        let (answer, answered) = oneshot::channel();
        let ticket = self.last_ticket.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().as_mut()?.insert(ticket, answer);
        self.scripts.send((ticket, script)).await.ok()?;
        answered.await.ok()
    }
}

/// Sends scripts to the leader and hands out its answers until the stream ends.
async fn deliver(
    peers: &Peers,
    leader: u64,
    address: &str,
    sent: mpsc::Receiver<(u64, Bytes)>,
    waiting: &Waiting,
) {
    let mut answers = match peers.evaluate(leader, address, ReceiverStream::new(sent)).await {
        Ok(answers) => Box::pin(answers),
        Err(status) => return tracing::debug!(leader, %status, "the leader takes no scripts"),
    };
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((ticket, evaluated)) => {
                let asked = waiting
                    .lock()
                    .as_mut()
                    .and_then(|waiting| waiting.remove(&ticket));
                // Whoever asked may have given up, or have its answer from the log.
                let _ = asked.map(|asked| asked.send(evaluated));
            }
            Err(status) => return tracing::debug!(leader, %status, "the stream of scripts broke"),
        }
    }
}
