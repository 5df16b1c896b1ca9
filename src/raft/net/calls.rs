//! Calls between the nodes of a simulation, piece by piece, in the place of HTTP/2: the head of a question, what it says, its end, and the same of its answer. Nothing
//! of it becomes bytes: a run takes half of the time.
//!
//! What HTTP/2 lets its users see is the same: the calls of one connection share its order and its end, either side may hang up on one of them, who is not heard
//! from is asked and given up, and who stops says so. There are no windows, so its queues have no bound: what is on
//! its way is what a simulation's few callers say. Above it is tonic with every encoder, as in earnest.

use super::simulated::{Calls, Listener, Place, Wire};
use crate::raft::client::{CONNECT_TIMEOUT, KEEP_ALIVE};
use crate::raft::connection::{LAST_WORDS, told};
use crate::raft::server;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Frame;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, request, response};
use tonic::codegen::{Body as Content, Service, StdError};
use tonic::transport::{Channel, Endpoint};

/// What calls go over to a peer.
#[derive(Clone, Debug)]
pub(in crate::raft) enum Line {
    Http2(Channel),
    Pieces(Arc<Callee>),
}

/// Calls to one address. Connects when it is first used, and again whenever it must.
#[derive(Debug)]
pub(in crate::raft) struct Callee {
    place: Place,
    address: String,
    /// Held while one connects: whoever else calls waits for that.
    connection: tokio::sync::Mutex<Option<Connection>>,
}

/// What is sent at once.
pub(super) type Pieces = Vec<Piece>;

/// A piece of a call, or something said of a whole connection.
#[derive(Debug)]
pub(super) struct Piece {
    call: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Asked(Box<request::Parts>),
    Answered(Box<response::Parts>),
    Said(Frame<Bytes>),
    /// All is said.
    End,
    /// Whoever sends this has no more to do with the call.
    HangUp,
    /// Of the connection: is anybody there?
    Ping,
    Pong,
    /// Of the connection: it takes no more calls.
    Leaving,
}

impl What {
    fn of(self, call: u64) -> Piece {
        Piece { call, what: self }
    }

    fn of_all(self) -> Piece {
        self.of(0)
    }
}

/// Where the pieces go that are to be sent.
type Outbox = mpsc::UnboundedSender<Piece>;

/// What the other side says in a call.
type Saying = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

impl Line {
    /// One to this endpoint from a place.
    pub(super) fn new(place: &Place, endpoint: &Endpoint) -> Self {
        match place.calls() {
            Calls::Http2 => Self::Http2(endpoint.connect_with_connector_lazy(place.connector())),
            Calls::Pieces => Self::Pieces(Arc::new(Callee {
                place: place.clone(),
                address: endpoint
                    .uri()
                    .authority()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                connection: tokio::sync::Mutex::default(),
            })),
        }
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Response<Body>, StdError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Self::Http2(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::Pieces(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Http2(channel) => Box::pin(channel.call(request).map(|answer| answer.map_err(Into::into))),
            Self::Pieces(callee) => {
                let callee = callee.clone();
                Box::pin(async move { Ok(callee.connection().await?.ask(request).await?) })
            }
        }
    }
}

impl Callee {
    async fn connection(&self) -> Result<Connection, Status> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| !open.calls.lock().closed) {
            return Ok(open.clone());
        }
        let wire = tokio::time::timeout(CONNECT_TIMEOUT, self.place.connect(&self.address)).await;
        let wire = wire.map_err(|_| Status::unavailable("nobody answers"))?;
        let new = Connection::over(wire.map_err(|error| Status::unavailable(error.to_string()))?);
        *connection = Some(new.clone());
        Ok(new)
    }
}

/// A connection, for those who ask.
#[derive(Clone, Debug)]
struct Connection {
    out: Outbox,
    calls: Arc<Mutex<Ongoing>>,
}

/// The calls of a connection that are not over.
#[derive(Debug, Default)]
struct Ongoing {
    last: u64,
    /// It takes no more.
    closed: bool,
    asked: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    head: Option<oneshot::Sender<response::Parts>>,
    answer: Saying,
    /// What goes on to ask.
    asks: Option<AbortHandle>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.asks.iter().for_each(AbortHandle::abort);
    }
}

impl Connection {
    fn over(wire: Wire) -> Self {
        let (out, outbox) = mpsc::unbounded_channel();
        let calls = Arc::<Mutex<Ongoing>>::default();
        let mut asking = Asking(calls.clone());
        tokio::spawn(async move { carry(wire, outbox, &mut asking).await });
        Self { out, calls }
    }

    async fn ask(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let (answered, answer_head) = oneshot::channel();
        let (says, said) = mpsc::unbounded_channel();
        let call = {
            let mut calls = self.calls.lock();
            calls.last += 1;
            let (call, asked) = (
                calls.last,
                Asked {
                    head: Some(answered),
                    answer: says,
                    asks: None,
                },
            );
            calls.asked.insert(call, asked);
            call
        };
        let _ = self.out.send(What::Asked(Box::new(head)).of(call));
        let incoming = Incoming {
            said,
            call: Some((self.clone(), call)),
        };
        let mut asks = Box::pin(say(body, call, self.out.clone()));
        if (&mut asks).now_or_never().is_none() {
            let asks = tokio::spawn(asks).abort_handle();
            match self.calls.lock().asked.get_mut(&call) {
                Some(asked) => asked.asks = Some(asks),
                None => asks.abort(),
            }
        }
        let head = answer_head.await.map_err(|_| gone())?;
        Ok(Response::from_parts(head, Body::new(incoming)))
    }
}

fn gone() -> Status {
    Status::unavailable("the connection is gone")
}

/// Says all of a body, and that it has ended.
async fn say<B: Content<Data = Bytes>>(body: B, call: u64, out: Outbox) {
    let mut body = Box::pin(body);
    let end = loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(frame)) => drop(out.send(What::Said(frame).of(call))),
            Some(Err(_)) => break What::HangUp,
            None => break What::End,
        }
    };
    let _ = out.send(end.of(call));
}

/// What the other side says, as a body. Who asked and drops it hangs up.
struct Incoming {
    said: mpsc::UnboundedReceiver<Result<Frame<Bytes>, Status>>,
    call: Option<(Connection, u64)>,
}

impl Content for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.said.poll_recv(cx)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some((connection, call)) = &self.call
            && connection.calls.lock().asked.remove(call).is_some()
        {
            let _ = connection.out.send(What::HangUp.of(*call));
        }
    }
}

/// One side of a connection.
trait Side {
    /// After how long without a word the other is asked whether it is there, and after how long it is given up then.
    const PATIENCE: Duration;
    /// Whether anything depends on its being there.
    fn cares(&self) -> bool;
    fn hears(&mut self, piece: Piece);
    /// What is about to be sent.
    fn says(&mut self, piece: &Piece);
}

/// Carries pieces both ways until the connection ends, or nobody is left who would say anything.
async fn carry<S: Side>(mut wire: Wire, mut outbox: mpsc::UnboundedReceiver<Piece>, side: &mut S) {
    // Whoever carries hears no end of its own making: the wire is dropped when this returns.
    let _: io::Result<()> = async {
        let (mut heard, mut pinged, mut waiting) = (Instant::now(), false, Vec::new());
        let mut alarm = pin!(tokio::time::sleep(S::PATIENCE));
        loop {
            tokio::select! {
                biased;
                pieces = poll_fn(|cx| wire.poll_pieces(cx)) => {
                    let Some(pieces) = pieces? else { return Ok(()) };
                    (heard, pinged) = (Instant::now(), false);
                    for piece in pieces {
                        match piece.what {
                            What::Ping => wire.send_pieces(vec![What::Pong.of_all()])?,
                            What::Pong => {}
                            _ => side.hears(piece),
                        }
                    }
                }
                count = outbox.recv_many(&mut waiting, usize::MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    waiting.iter().for_each(|piece| side.says(piece));
                    wire.send_pieces(std::mem::take(&mut waiting))?;
                }
                () = &mut alarm => {
                    if pinged {
                        return Ok(());
                    }
                    let (now, due) = (Instant::now(), heard + S::PATIENCE);
                    pinged = due <= now && side.cares();
                    if pinged {
                        wire.send_pieces(vec![What::Ping.of_all()])?;
                    }
                    alarm.as_mut().reset(if due > now { due } else { now + S::PATIENCE });
                }
            }
        }
    }
    .await;
}

/// The side that asks.
struct Asking(Arc<Mutex<Ongoing>>);

impl Side for Asking {
    const PATIENCE: Duration = KEEP_ALIVE;

    fn cares(&self) -> bool {
        !self.0.lock().asked.is_empty()
    }

    fn hears(&mut self, Piece { call, what }: Piece) {
        let mut calls = self.0.lock();
        if matches!(what, What::Leaving) {
            calls.closed = true;
        }
        let Some(asked) = calls.asked.get_mut(&call) else {
            return;
        };
        // Where nobody listens any more, the call is about to be hung up on.
        match what {
            What::Answered(head) => drop(asked.head.take().map(|answered| answered.send(*head))),
            What::Said(frame) => drop(asked.answer.send(Ok(frame))),
            What::End => drop(calls.asked.remove(&call)),
            What::HangUp => {
                let _ = asked.answer.send(Err(gone()));
                calls.asked.remove(&call);
            }
            _ => {}
        }
    }

    fn says(&mut self, _: &Piece) {}
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut calls = self.0.lock();
        calls.closed = true;
        for asked in std::mem::take(&mut calls.asked).into_values() {
            let _ = asked.answer.send(Err(gone()));
        }
    }
}

/// Answers calls until it is told to stop.
pub(in crate::raft) async fn serve<S, B>(mut listener: Listener, service: S, stop: watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Content<Data = Bytes> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut stopped = pin!(told(stop.clone()));
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            wire = listener.accept() => {
                connections.spawn(answer(wire, service.clone(), stop.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn answer<S, B>(wire: Wire, service: S, stop: watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Send,
    S::Future: Send + 'static,
    B: Content<Data = Bytes> + Send + 'static,
{
    let (out, outbox) = mpsc::unbounded_channel();
    let leave = async {
        told(stop).await;
        let _ = out.send(What::Leaving.of_all());
        tokio::time::sleep(LAST_WORDS).await;
    };
    let mut answering = Answering {
        service,
        out: out.clone(),
        calls: BTreeMap::new(),
    };
    tokio::select! {
        biased;
        () = carry(wire, outbox, &mut answering) => {}
        () = leave => {}
    }
}

/// The side that answers.
struct Answering<S> {
    service: S,
    out: Outbox,
    calls: BTreeMap<u64, Answer>,
}

struct Answer {
    /// None once all is said.
    question: Option<Saying>,
    task: AbortHandle,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S, B> Side for Answering<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Content<Data = Bytes> + Send + 'static,
{
    const PATIENCE: Duration = server::KEEP_ALIVE;

    fn cares(&self) -> bool {
        true
    }

    fn hears(&mut self, Piece { call, what }: Piece) {
        if let What::Asked(head) = what {
            let (question, said) = mpsc::unbounded_channel();
            let body = Body::new(Incoming { said, call: None });
            let (answer, out) = (
                self.service.call(Request::from_parts(*head, body)),
                self.out.clone(),
            );
            let task = tokio::spawn(async move {
                let Ok(answer) = answer.await;
                let (head, body) = answer.into_parts();
                let _ = out.send(What::Answered(Box::new(head)).of(call));
                say(body, call, out).await;
            });
            let answer = Answer {
                question: Some(question),
                task: task.abort_handle(),
            };
            self.calls.insert(call, answer);
            return;
        }
        let Some(answer) = self.calls.get_mut(&call) else {
            return;
        };
        match what {
            // Where nobody listens any more, it is being answered without.
            What::Said(frame) => drop(answer.question.as_ref().map(|says| says.send(Ok(frame)))),
            What::End => answer.question = None,
            What::HangUp => drop(self.calls.remove(&call)),
            _ => {}
        }
    }

    fn says(&mut self, piece: &Piece) {
        if matches!(piece.what, What::End | What::HangUp) {
            self.calls.remove(&piece.call);
        }
    }
}
