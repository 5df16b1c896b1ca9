//! Connections at the peer port: each ends with the service, and soon where nobody on it proves the secret.
//!
//! tonic lets open calls come to their end before a connection closes, and a leader's stream of entries has none: it would hold the data folder of a
//! stopped node for as long as its peers live. And it keeps a connection that says nothing, or half of something, for ever.

use super::caller::Standing;
use super::net::{Listener, Wire};
use futures::future::BoxFuture;
use futures::stream::{self, Stream};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tonic::transport::server::Connected;

/// How long a connection may last on which no call has shown the proof.
const STRANGER_TIME: Duration = Duration::from_secs(10);

/// Connections without proof at once. One more ends the oldest of them: whoever belongs here proves it in a moment.
const STRANGERS_MAX: usize = 256;

/// How long connections last after the service was told to stop: until who calls has heard that it takes no more, and has its answers.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(50);

/// The wait after the system could not give us a connection (no file descriptors left): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Those who connect, until the service is told to stop.
pub(super) fn accepted(
    listener: Listener,
    stop: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Connection>> {
    let begin = (listener, Strangers::default(), stop);
    stream::unfold(begin, |(mut listener, mut strangers, stop)| async move {
        let stream = loop {
            match listener.accept().await {
                Ok(stream) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let standing = strangers.admit();
        let (ended, stranger) = (
            told(stop.clone()),
            Standing::ended(standing.clone(), STRANGER_TIME),
        );
        let end = async move {
            tokio::select! {
                biased;
                () = ended => tokio::time::sleep(LAST_WORDS).await,
                () = stranger => {}
            }
        };
        let connection = Connection::new(stream, standing, end);
        Some((Ok(connection), (listener, strangers, stop)))
    })
}

/// Resolves when it is told, or can be told no more.
pub(super) async fn told(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Who has proved nothing yet, oldest first.
#[derive(Default)]
struct Strangers(VecDeque<Weak<Standing>>);

impl Strangers {
    /// One more.
    fn admit(&mut self) -> Arc<Standing> {
        self.0
            .retain(|one| one.upgrade().is_some_and(|one| !one.is_proven()));
        while self.0.len() >= STRANGERS_MAX {
            if let Some(oldest) = self.0.pop_front().and_then(|one| one.upgrade()) {
                oldest.end();
            }
        }
        let standing = Arc::<Standing>::default();
        self.0.push_back(Arc::downgrade(&standing));
        standing
    }
}

/// A connection that can be read until `end` resolves, and fails then.
pub(super) struct Connection {
    stream: Wire,
    standing: Arc<Standing>,
    /// None once it has resolved.
    end: Option<BoxFuture<'static, ()>>,
}

impl Connection {
    fn new(stream: Wire, standing: Arc<Standing>, end: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            stream,
            standing,
            end: Some(Box::pin(end)),
        }
    }
}

impl Connected for Connection {
    /// What its calls find, to note that one has shown the proof.
    type ConnectInfo = Arc<Standing>;

    fn connect_info(&self) -> Arc<Standing> {
        self.standing.clone()
    }
}

impl AsyncRead for Connection {
    /// Whoever serves a connection always waits for bytes, so this is where it learns of the end.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self
            .end
            .as_mut()
            .is_none_or(|end| end.as_mut().poll(cx).is_ready())
        {
            self.end = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn of_those_without_proof_the_oldest_go() {
        let mut strangers = Strangers::default();
        let friend = strangers.admit();
        friend.prove();
        let all: Vec<_> = (0..STRANGERS_MAX).map(|_| strangers.admit()).collect();
        let ended = |one: &Arc<Standing>| {
            let ended = Standing::ended(one.clone(), Duration::MAX);
            ended.now_or_never().is_some()
        };
        assert!(!all.iter().any(ended), "there is room for all of them");
        let last = strangers.admit();
        assert_eq!(
            all.iter().map(ended).collect::<Vec<_>>(),
            [&[true][..], &[false; STRANGERS_MAX - 1]].concat()
        );
        assert!(!ended(&friend) && !ended(&last));
        drop((all, last));
        strangers.admit();
        assert_eq!(strangers.0.len(), 1, "those who have gone do not count");
    }
}
