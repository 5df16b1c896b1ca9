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
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

/// How long a connection may last on which no call has shown the proof.
const STRANGER_TIME: Duration = Duration::from_secs(10);

/// Connections without proof at once. One more ends the oldest of them: whoever belongs here proves it in a moment.
const STRANGERS_MAX: usize = 256;

/// How long a connection must be quiet after the service was told to stop before it ends: who calls has heard by then that it takes no more, and has its
/// answers.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(50);

/// How often it is looked meanwhile whether it is. Time alone tells nothing: where the machine gave this process no processor for so long, what was asked is still to
/// be read and answered.
const LOOKS: u32 = 5;

/// How long it lasts at most after that, quiet or not.
const LAST_WORDS_MOST: Duration = Duration::from_secs(1);

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
                    sleep(ACCEPT_PAUSE).await;
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
                () = ended => sleep(LAST_WORDS_MOST).await,
                () = stranger => {}
            }
        };
        let connection = Connection {
            stream,
            standing,
            end: Some(Box::pin(end)),
            quiet: Quiet::after(told(stop.clone())),
        };
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

/// Resolves when nothing was noted for [`LAST_WORDS`] after something.
struct Quiet {
    /// None once it has resolved.
    after: Option<BoxFuture<'static, ()>>,
    look: Pin<Box<Sleep>>,
    looks: u32,
}

impl Quiet {
    fn after(what: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            after: Some(Box::pin(what)),
            look: Box::pin(sleep(Duration::ZERO)),
            looks: 0,
        }
    }

    /// It is not quiet.
    fn note(&mut self) {
        self.looks = 0;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(after) = &mut self.after {
            ready!(after.as_mut().poll(cx));
            self.after = None;
            self.look.as_mut().reset(Instant::now() + LAST_WORDS / LOOKS);
        }
        while self.looks < LOOKS {
            ready!(self.look.as_mut().poll(cx));
            self.looks += 1;
            self.look.as_mut().reset(Instant::now() + LAST_WORDS / LOOKS);
        }
        Poll::Ready(())
    }
}

/// A connection that can be read until `end` resolves, or `quiet` while there is nothing to read, and fails then.
pub(super) struct Connection {
    stream: Wire,
    standing: Arc<Standing>,
    /// None once it has resolved.
    end: Option<BoxFuture<'static, ()>>,
    quiet: Quiet,
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
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.quiet.note();
        } else if self.quiet.poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.quiet.note();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.quiet.note();
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
    use std::future::poll_fn;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_was_quiet_after_the_word_and_not_before() {
        let (tell, told) = oneshot::channel::<()>();
        let mut quiet = Quiet::after(told.map(drop));
        let began = Instant::now();
        let until = async |quiet: &mut Quiet, time: u64| {
            let end = sleep(Duration::from_millis(time));
            tokio::select! {
                () = poll_fn(|cx| quiet.poll(cx)) => true,
                () = end => false,
            }
        };
        assert!(
            !until(&mut quiet, 10_000).await,
            "nobody has said that it is to end"
        );
        tell.send(()).unwrap();
        for _ in 0..20 {
            assert!(!until(&mut quiet, 38).await, "it is not quiet");
            quiet.note();
        }
        let noted = began.elapsed();
        assert!(until(&mut quiet, 1_000).await);
        let quiet_for = began.elapsed() - noted;
        assert!(
            (LAST_WORDS..LAST_WORDS * 2).contains(&(quiet_for + LAST_WORDS / LOOKS)),
            "{quiet_for:?}"
        );
    }

    /// A process that gets no processor for long has all its timers come at once: what waits to be read then is not lost.
    #[tokio::test(start_paused = true)]
    async fn time_alone_ends_no_connection() {
        let mut quiet = Quiet::after(async {});
        let looks = async |quiet: &mut Quiet| poll_fn(|cx| Poll::Ready(quiet.poll(cx).is_ready())).await;
        for _ in 0..LOOKS {
            assert!(!looks(&mut quiet).await);
            tokio::time::advance(LAST_WORDS * 10).await;
        }
        assert!(looks(&mut quiet).await);
    }

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
