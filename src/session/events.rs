//! What happened to sessions, as a stream from a position on, or as calls of a function.

use super::id::PREFIX;
use super::{SessionError, Sessions};
use crate::machine::session_events::SessionEvent;
use crate::remote::Moved;
use futures::{Stream, StreamExt, stream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// Events that are read from the machine at a time.
const READ_MAX: usize = 100;

/// A place among the events of all sessions: after the event of this number. Keep that of the last event you have dealt with, and go on from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Calls a function with events until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it ends"]
pub struct Subscription(AbortHandle);

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads events and waits for more.
struct Reader {
    db: u8,
    position: Position,
    read: VecDeque<Arc<SessionEvent>>,
    moved: Moved,
}

impl Reader {
    /// The next event of these sessions.
    async fn next(&mut self) -> Result<Arc<SessionEvent>, SessionError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(event);
            }
            let part = self.moved.after(self.position.0, READ_MAX).await?;
            if self.position.0 < part.lost() {
                let position = Position(part.lost());
                return Err(SessionError::EventsLost { position });
            }
            let ours =
                |event: &&Arc<SessionEvent>| event.db == self.db && event.key.starts_with(PREFIX.as_bytes());
            self.read = part.after(self.position.0).filter(ours).cloned().collect();
            self.position = Position(part.last());
        }
    }
}

impl Sessions {
    /// The position of the last event that this node knows of: where to begin for one who wants only what comes.
    ///
    /// # Errors
    /// [`SessionError::Failed`], on a remote handle that reaches no member.
    pub async fn position(&self) -> Result<Position, SessionError> {
        Ok(Position(self.cache.door().last_session_event().await?))
    }

    /// What happened to sessions after a position, in order, and what comes: each end once cluster-wide, on whatever node this is asked. After a
    /// restart begin from the position of the last event dealt with; the cluster keeps the last
    /// [`EVENTS_MAX`](crate::machine::session_events::EVENTS_MAX) events. With the setting `session-events content`, ends carry what the session held.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let plenary = plenary::Plenary::builder().data(folder.path()).start().await?;
    /// use futures::StreamExt;
    /// use plenary::session::{NewSession, Position, Reason, What};
    ///
    /// let sessions = plenary.sessions();
    /// let session = sessions.create(NewSession::new().owner("ada")).await?;
    /// sessions.end(session.id()).await?;
    ///
    /// let mut events = std::pin::pin!(sessions.events(Position::default()));
    /// assert_eq!(events.next().await.unwrap()?.what, What::Created);
    /// let ended = events.next().await.unwrap()?;
    /// assert_eq!((&ended.owner[..], &ended.what), (&b"ada"[..], &What::Ended(Reason::Abandoned, None)));
    /// # plenary.stop().await?; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SessionError::EventsLost`] where events after the position are not kept any more; the stream ends with it.
    pub fn events(
        &self,
        after: Position,
    ) -> impl Stream<Item = Result<Arc<SessionEvent>, SessionError>> + Send + use<> {
        let reader = Reader {
            db: self.database(),
            position: after,
            read: VecDeque::new(),
            moved: self.cache.door().session_events(),
        };
        stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            let next = reader.next().await;
            let rest = next.is_ok().then_some(reader);
            Some((next, rest))
        })
    }

    /// Calls `tell` with what happened after a position, and what comes, one after the other, until the subscription is dropped or it was told of an
    /// error.
    pub fn on_event(
        &self,
        after: Position,
        mut tell: impl FnMut(Result<Arc<SessionEvent>, SessionError>) + Send + 'static,
    ) -> Subscription {
        let events = self.events(after);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                tell(event);
            }
        });
        Subscription(task.abort_handle())
    }
}
