//! What happens while the cluster cannot answer: no leader, no majority. An application chooses.

use super::{Session, SessionError, SessionId, Sessions, told_apart};
use crate::cache::Cache;
use crate::error::Error;
use crate::machine::reply::Reply;
use crate::node::Freshness;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait before a first retry; each further one waits twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The longest wait between two.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// What a handle does while the cluster cannot answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// It answers with the error, after what the node itself waits for a leader.
    #[default]
    Error,
    /// It tries again for this long: after 20 ms, then after twice as long each time, up to a second. A write whose outcome is unknown is not repeated.
    RetryFor(Duration),
    /// Loads are answered with what this node has, and the session says so ([`Session::is_stale`](super::Session::is_stale)); one that is not here counts
    /// as absent. Writes answer with the error.
    ServeLocal,
}

impl Sessions {
    /// A write, tried again if that was chosen and it is known that it was not applied.
    pub(super) async fn write(&self, argv: Vec<Bytes>) -> Result<Reply, SessionError> {
        self.retried(|| self.cache.write(argv.clone())).await
    }

    /// What a write answers, tried again if that was chosen and it is known that it was not applied.
    pub(super) async fn retried<R, F: Future<Output = Result<R, Error>>>(
        &self,
        write: impl Fn() -> F,
    ) -> Result<R, SessionError> {
        let retry_until = self.retry_until();
        let mut after = RETRY_AFTER;
        loop {
            match write().await {
                Err(error) if passes(&error) && Instant::now() + after < retry_until => {
                    tokio::time::sleep(after).await;
                    after = (after * 2).min(RETRY_AFTER_MAX);
                }
                written => return written.map_err(told_apart),
            }
        }
    }

    /// A read of a session, tried again or made from what is here, if that was chosen.
    pub(super) async fn look_for(
        &self,
        cache: &Cache,
        id: &SessionId,
    ) -> Result<Option<Session>, SessionError> {
        let retry_until = self.retry_until();
        let mut after = RETRY_AFTER;
        loop {
            match self.look(cache, id).await {
                Err(SessionError::Failed(error)) if passes(&error) && self.trouble == Trouble::ServeLocal => {
                    let here = cache
                        .at_least(Default::default())
                        .with_freshness(Freshness::Local);
                    let found = self.look(&here, id).await?;
                    return Ok(found.map(|session| Session {
                        stale: true,
                        ..session
                    }));
                }
                Err(SessionError::Failed(error))
                    if passes(&error) && Instant::now() + after < retry_until =>
                {
                    tokio::time::sleep(after).await;
                    after = (after * 2).min(RETRY_AFTER_MAX);
                }
                found => return found,
            }
        }
    }

    fn retry_until(&self) -> Instant {
        let now = Instant::now();
        match self.trouble {
            Trouble::RetryFor(most) => now + most,
            Trouble::Error | Trouble::ServeLocal => now,
        }
    }
}

/// Whether it may be over in a moment, and nothing was applied.
fn passes(error: &Error) -> bool {
    matches!(
        error,
        Error::NoLeader { .. } | Error::Overloaded { .. } | Error::NotFresh { .. }
    )
}
