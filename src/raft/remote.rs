//! Calls of processes that embed no node, both sides: [`Line`] asks a member, [`service`] answers with what node/ says as [`Host`].
//!
//! Such a process has the cluster's secret and no id. Its proof is made of the secret for this service alone, so it opens no call between nodes, and
//! theirs opens none here; it is checked before a byte of a call's body is read.

use super::caller::{Guard, Proof, Role};
use super::client::{MESSAGE_BYTES, endpoint};
use super::pb;
use super::pb::remote_client::RemoteClient;
use super::pb::remote_server::{Remote, RemoteServer};
use crate::config::Secret;
use crate::error::Error;
use crate::machine::entry::Command;
use crate::machine::excerpt::Wanted;
use crate::machine::internal::Watch;
use crate::machine::keyspace::DATABASES;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use std::future::{Future, ready};
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Response, Status, Streaming};

/// The longest a member waits for events of sessions before it says that there are none.
pub(crate) const EVENTS_WAIT_MAX: Duration = Duration::from_secs(30);

/// Events of sessions in one answer, at most.
pub(crate) const EVENTS_MAX: usize = 1_000;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fresh {
    /// As of now, cluster-wide.
    pub(crate) linearizable: bool,
    /// At least this index.
    pub(crate) at_least: u64,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// One command, which may wait in the log.
    One(Command),
    /// Commands that are applied together if what is watched still has its version.
    Transaction(Vec<Watch>, Vec<Command>),
}

/// What came of a write.
pub(crate) struct Taken<W> {
    pub(crate) replies: Vec<Reply>,
    pub(crate) index: u64,
    /// In place of the replies: the command waits in the log, and this brings its answer, with an index that has it.
    pub(crate) wait: Option<W>,
}

/// The answer of a command that waits, on the side of the node.
pub(crate) type Waited = BoxFuture<'static, Result<(Reply, u64), Error>>;

/// What a subscriber of a topic is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Bytes),
    /// So many messages are missing here, because they were not taken in time; none: it is not known how many, because the node was so far behind
    /// that it was given a snapshot, or a remote handle had to turn to another one.
    Missed(Option<u64>),
}

/// What node/ answers processes that embed none.
pub(crate) trait Host: Clone + Send + Sync + 'static {
    fn write(&self, write: Write) -> impl Future<Output = Result<Taken<Waited>, Error>> + Send;
    /// The reply, and an index that has it.
    fn read(
        &self,
        fresh: Fresh,
        db: u8,
        argv: Vec<Bytes>,
    ) -> impl Future<Output = Result<(Reply, u64), Error>> + Send;
    /// An excerpt, and an index that has it.
    fn look(
        &self,
        fresh: Fresh,
        db: u8,
        wanted: Wanted,
    ) -> impl Future<Output = Result<(Bytes, u64), Error>> + Send;
    /// Events of sessions after a position, waited for this long.
    fn session_events(
        &self,
        after: u64,
        most: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send;
    /// What is heard of a topic from now on; ends with the node.
    fn listen(&self, topic: Bytes) -> Result<BoxStream<'static, Heard>, Error>;
}

/// The service, for [`super::server::Service::serve`].
pub(super) fn service<H: Host>(
    host: H,
    secret: Option<&Secret>,
) -> InterceptedService<RemoteServer<Served<H>>, Guard> {
    let service = RemoteServer::new(Served(host))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    InterceptedService::new(service, Guard(Proof::new(secret, Role::Remote)))
}

pub(super) struct Served<H>(H);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl<H: Host> Remote for Served<H> {
    type WriteStream = Answers<pb::WriteResponse>;

    /// Whoever hangs up while its command waits takes it back: what waits for it here is dropped.
    async fn write(&self, request: Request<pb::WriteRequest>) -> Result<Response<Self::WriteStream>, Status> {
        let write = write_from(request.into_inner())?;
        let taken = self.0.write(write).await.map_err(failed)?;
        let first = written(&taken.replies, taken.index)?;
        let answer = stream::iter(taken.wait).then(|wait| async {
            let (reply, index) = wait.await.map_err(failed)?;
            written(&[reply], index)
        });
        Ok(Response::new(
            stream::once(ready(Ok(first))).chain(answer).boxed(),
        ))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<pb::ReadResponse>, Status> {
        let request = request.into_inner();
        let (fresh, db) = (fresh_from(request.freshness), database_from(request.database)?);
        let (reply, index) = self.0.read(fresh, db, request.argv).await.map_err(failed)?;
        let response = pb::ReadResponse {
            waits: matches!(reply, Reply::Waiting(_)),
            reply: reply.to_bytes(),
            index,
        };
        fits(&response).map_err(failed)?;
        Ok(Response::new(response))
    }

    async fn look(&self, request: Request<pb::LookRequest>) -> Result<Response<pb::LookResponse>, Status> {
        let request = request.into_inner();
        let (fresh, db) = (fresh_from(request.freshness), database_from(request.database)?);
        let wanted = if request.owner.is_empty() {
            Wanted::Keys(request.keys)
        } else {
            Wanted::Owned(request.owner)
        };
        let (excerpt, index) = self.0.look(fresh, db, wanted).await.map_err(failed)?;
        let response = pb::LookResponse { excerpt, index };
        fits(&response).map_err(failed)?;
        Ok(Response::new(response))
    }

    async fn session_events(
        &self,
        request: Request<pb::SessionEventsRequest>,
    ) -> Result<Response<pb::SessionEventsResponse>, Status> {
        let pb::SessionEventsRequest { after, most, wait_ms } = request.into_inner();
        let most = usize::try_from(most).unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
        let wait = Duration::from_millis(wait_ms).min(EVENTS_WAIT_MAX);
        let events = self.0.session_events(after, most, wait).await.map_err(failed)?;
        let response = pb::SessionEventsResponse { events };
        fits(&response).map_err(failed)?;
        Ok(Response::new(response))
    }

    type ListenStream = Answers<pb::ListenResponse>;

    async fn listen(
        &self,
        request: Request<pb::ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        use pb::listen_response::Heard as Told;
        let heard = self.0.listen(request.into_inner().topic).map_err(failed)?;
        let heard = heard.map(|heard| {
            let heard = Some(match heard {
                Heard::Message(message) => Told::Message(message),
                Heard::Missed(missed) => Told::Missed(missed.unwrap_or(0)),
            });
            Ok(pb::ListenResponse { heard })
        });
        let listens = stream::once(ready(Ok(pb::ListenResponse { heard: None })));
        Ok(Response::new(listens.chain(heard).boxed()))
    }
}

/// Whether one message holds this. It is asked before a message is given to tonic, whose own refusal is the same for a request that was not sent and for an
/// answer to one that was carried out.
fn fits(message: &impl Message) -> Result<(), Error> {
    let (size, limit) = (message.encoded_len(), MESSAGE_BYTES);
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { size, limit })
}

/// What is answered to a write that was applied.
fn written(replies: &[Reply], index: u64) -> Result<pb::WriteResponse, Status> {
    let response = pb::WriteResponse {
        replies: replies.iter().map(Reply::to_bytes).collect(),
        index,
    };
    fits(&response).map_err(|error| {
        failed(Error::Unknown {
            waited: Duration::ZERO,
            why: format!("it was applied, and its answer is {error}"),
        })
    })?;
    Ok(response)
}

/// Why a call brought no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The member says so itself.
    Failed(Error),
    /// It did not get as far as the member: nothing was done.
    Unsent(String),
    /// It may have got there.
    Broken(String),
    /// The member lets this process not in.
    Stranger(String),
}

/// The way to one member. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    address: String,
    calls: RemoteClient<Channel>,
    /// A connection of its own for what takes long: there is room for so many calls on one.
    waits: RemoteClient<Channel>,
    proof: Proof,
}

impl Line {
    /// Connects when it is first used, and again whenever it must.
    pub(crate) fn new(address: &str, secret: Option<&Secret>) -> Result<Self, Error> {
        let endpoint = endpoint(address)
            .map_err(|error| Error::Config(vec![format!("{address} is no address of a member: {error}")]))?;
        let client = || {
            RemoteClient::new(endpoint.connect_lazy())
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES)
        };
        Ok(Self {
            address: address.to_owned(),
            calls: client(),
            waits: client(),
            proof: Proof::new(secret, Role::Remote),
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A request with the proof; refused where it is larger than a message may be.
    fn request<M: Message>(&self, message: M) -> Result<Request<M>, Lost> {
        fits(&message).map_err(Lost::Failed)?;
        Ok(self.proof.mark(message))
    }

    /// Writes; `long`: it may wait in the log.
    pub(crate) async fn write(self, write: Write, long: bool) -> Result<Taken<Answer>, Lost> {
        let request = self.request(write_to(write))?;
        let mut client = if long { self.waits } else { self.calls };
        let answers = client.write(request).await.map_err(lost)?;
        let mut answer = Answer(answers.into_inner());
        let (replies, index) = answer.next().await?;
        let wait = replies.is_empty().then_some(answer);
        Ok(Taken { replies, index, wait })
    }

    /// Reads: the reply, and an index that has it.
    pub(crate) async fn read(mut self, fresh: Fresh, db: u8, argv: Vec<Bytes>) -> Result<(Reply, u64), Lost> {
        let request = self.request(pb::ReadRequest {
            freshness: Some(fresh_to(fresh)),
            database: db.into(),
            argv,
        })?;
        let answer = self.calls.read(request).await.map_err(lost)?.into_inner();
        let reply = if answer.waits {
            Reply::Waiting(0)
        } else {
            reply_from(&answer.reply)?
        };
        Ok((reply, answer.index))
    }

    /// An excerpt, and an index that has it.
    pub(crate) async fn look(mut self, fresh: Fresh, db: u8, wanted: Wanted) -> Result<(Bytes, u64), Lost> {
        let (keys, owner) = match wanted {
            Wanted::Keys(keys) => (keys, Bytes::new()),
            Wanted::Owned(owner) => (Vec::new(), owner),
        };
        let request = self.request(pb::LookRequest {
            freshness: Some(fresh_to(fresh)),
            database: db.into(),
            keys,
            owner,
        })?;
        let answer = self.calls.look(request).await.map_err(lost)?.into_inner();
        Ok((answer.excerpt, answer.index))
    }

    /// Events of sessions after a position, waited for this long.
    pub(crate) async fn session_events(
        mut self,
        after: u64,
        most: usize,
        wait: Duration,
    ) -> Result<Bytes, Lost> {
        let request = self.request(pb::SessionEventsRequest {
            after,
            most: u32::try_from(most).unwrap_or(u32::MAX),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        })?;
        let answer = self.waits.session_events(request).await.map_err(lost)?;
        Ok(answer.into_inner().events)
    }

    /// What is heard of a topic, once the member listens to it for this process.
    pub(crate) async fn listen(mut self, topic: Bytes) -> Result<BoxStream<'static, Heard>, Lost> {
        use pb::listen_response::Heard as Told;
        let request = self.request(pb::ListenRequest { topic })?;
        let mut told = self.waits.listen(request).await.map_err(lost)?.into_inner();
        told.message().await.map_err(lost)?;
        let heard = told.take_while(|told| ready(told.is_ok()));
        let heard = heard.filter_map(|told| {
            ready(told.ok().and_then(|told| told.heard).map(|heard| match heard {
                Told::Message(message) => Heard::Message(message),
                Told::Missed(missed) => Heard::Missed((missed > 0).then_some(missed)),
            }))
        });
        Ok(heard.boxed())
    }
}

/// The answer of a command that waits, on the side of the process. Dropped, the command is taken back.
pub(crate) struct Answer(Streaming<pb::WriteResponse>);

impl Answer {
    /// The reply, once there is one, and an index that has it.
    pub(crate) async fn reply(mut self) -> Result<(Reply, u64), Lost> {
        let (mut replies, index) = self.next().await?;
        let reply = replies.pop().ok_or_else(nothing)?;
        Ok((reply, index))
    }

    async fn next(&mut self) -> Result<(Vec<Reply>, u64), Lost> {
        let answer = self.0.message().await.map_err(lost)?.ok_or_else(nothing)?;
        let replies: Result<_, _> = answer.replies.iter().map(reply_from).collect();
        Ok((replies?, answer.index))
    }
}

fn nothing() -> Lost {
    Lost::Broken("the member answered nothing".to_owned())
}

/// What a status means to who asked.
fn lost(status: Status) -> Lost {
    if !status.details().is_empty()
        && let Ok(failure) = pb::Failure::decode(status.details())
    {
        return Lost::Failed(failure_from(failure));
    }
    let why = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated => Lost::Stranger(why),
        // It was looked at and not begun. `OutOfRange` may also be of an answer that no message holds.
        Code::Unimplemented | Code::InvalidArgument => Lost::Unsent(why),
        _ if is_unsent(&status) => Lost::Unsent(why),
        _ => Lost::Broken(why),
    }
}

/// Whether nothing of a call has left this process: nobody was there, or the connection ended before the call's turn to be sent came, which is the one
/// thing that hyper says `is_canceled` of.
fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let canceled = |error: &hyper::Error| error.is_canceled();
        if error.is::<ConnectError>() || error.downcast_ref().is_some_and(canceled) {
            return true;
        }
        source = error.source();
    }
    false
}

fn reply_from(bytes: &Bytes) -> Result<Reply, Lost> {
    Reply::from_bytes(bytes).ok_or_else(|| Lost::Broken("the member's reply cannot be read".to_owned()))
}

fn database_from(database: u32) -> Result<u8, Status> {
    let db = u8::try_from(database)
        .ok()
        .filter(|db| usize::from(*db) < DATABASES);
    db.ok_or_else(|| Status::invalid_argument("no such database"))
}

fn fresh_to(fresh: Fresh) -> pb::Freshness {
    pb::Freshness {
        linearizable: fresh.linearizable,
        at_least: fresh.at_least,
    }
}

fn fresh_from(fresh: Option<pb::Freshness>) -> Fresh {
    let fresh = fresh.unwrap_or_default();
    Fresh {
        linearizable: fresh.linearizable,
        at_least: fresh.at_least,
    }
}

fn write_to(write: Write) -> pb::WriteRequest {
    let command = |command: Command| pb::Command {
        database: command.db.into(),
        argv: command.argv,
    };
    match write {
        Write::One(one) => pb::WriteRequest {
            commands: vec![command(one)],
            ..Default::default()
        },
        Write::Transaction(watches, commands) => pb::WriteRequest {
            commands: commands.into_iter().map(command).collect(),
            transaction: true,
            watched: watches
                .into_iter()
                .map(|watch| pb::WatchedKey {
                    database: watch.db.into(),
                    key: watch.key,
                    version: watch.version,
                })
                .collect(),
        },
    }
}

fn write_from(request: pb::WriteRequest) -> Result<Write, Status> {
    let commands = request.commands.into_iter().map(|command| {
        Ok(Command {
            db: database_from(command.database)?,
            argv: command.argv,
        })
    });
    let mut commands = commands.collect::<Result<Vec<_>, Status>>()?;
    if request.transaction {
        let watches = request.watched.into_iter().map(|watched| {
            Ok(Watch {
                db: database_from(watched.database)?,
                key: watched.key,
                version: watched.version,
            })
        });
        return Ok(Write::Transaction(
            watches.collect::<Result<_, Status>>()?,
            commands,
        ));
    }
    match (commands.pop(), commands.is_empty()) {
        (Some(command), true) => Ok(Write::One(command)),
        _ => Err(Status::invalid_argument("not one command, and no transaction")),
    }
}

/// An error as a status that carries it.
fn failed(error: Error) -> Status {
    let failure = failure_to(error);
    let details = failure.encode_to_vec();
    Status::with_details(Code::Aborted, failure.why, details.into())
}

fn failure_to(error: Error) -> pb::Failure {
    use pb::failure::Kind;
    let of = |kind: Kind, why: String| pb::Failure {
        kind: kind.into(),
        why,
        ..Default::default()
    };
    let waited = |kind: Kind, waited: Duration, why: String| pb::Failure {
        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        ..of(kind, why)
    };
    match error {
        Error::NoLeader { waited: time, why } => waited(Kind::NoLeader, time, why),
        Error::Unknown { waited: time, why } => waited(Kind::Unknown, time, why),
        Error::NotFresh { waited: time, why } => waited(Kind::NotFresh, time, why),
        Error::Overloaded { queued, unit, limit } => pb::Failure {
            size: queued as u64,
            unit: unit.to_owned(),
            limit: limit as u64,
            ..of(Kind::Overloaded, String::new())
        },
        Error::TooLarge { size, limit } => pb::Failure {
            size: size as u64,
            limit: limit as u64,
            ..of(Kind::TooLarge, String::new())
        },
        Error::Stopped { why } => of(Kind::Stopped, why),
        Error::Refused(refused) => of(Kind::Refused, refused.to_string()),
        Error::Value(why) => of(Kind::Other, why),
        other => of(Kind::Other, other.to_string()),
    }
}

fn failure_from(failure: pb::Failure) -> Error {
    use pb::failure::Kind;
    let (kind, waited) = (failure.kind(), Duration::from_millis(failure.waited_ms));
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let why = failure.why;
    match kind {
        Kind::NoLeader => Error::NoLeader { waited, why },
        Kind::Unknown => Error::Unknown { waited, why },
        Kind::NotFresh => Error::NotFresh { waited, why },
        Kind::Overloaded => Error::Overloaded {
            queued: number(failure.size),
            // The units there are.
            unit: ["commands", "bytes", "readers", "loads"]
                .into_iter()
                .find(|unit| *unit == failure.unit)
                .unwrap_or("requests"),
            limit: number(failure.limit),
        },
        Kind::TooLarge => Error::TooLarge {
            size: number(failure.size),
            limit: number(failure.limit),
        },
        Kind::Stopped => Error::Stopped { why },
        Kind::Refused => Error::Refused(CommandError::from_text(why)),
        Kind::Other => Error::Value(why),
    }
}

/// A message's bytes as they are written again once it has become one of our types; none where it is refused. For `fuzz/`.
pub(super) fn again(name: &str, bytes: Bytes) -> Option<Vec<u8>> {
    Some(match name {
        "WriteRequest" => write_to(write_from(pb::WriteRequest::decode(bytes).ok()?).ok()?).encode_to_vec(),
        "WriteResponse" => {
            let response = pb::WriteResponse::decode(bytes).ok()?;
            let replies: Result<Vec<Reply>, Lost> = response.replies.iter().map(reply_from).collect();
            pb::WriteResponse {
                replies: replies.ok()?.iter().map(Reply::to_bytes).collect(),
                index: response.index,
            }
            .encode_to_vec()
        }
        "ReadRequest" => {
            let request = pb::ReadRequest::decode(bytes).ok()?;
            pb::ReadRequest {
                freshness: Some(fresh_to(fresh_from(request.freshness))),
                database: database_from(request.database).ok()?.into(),
                argv: request.argv,
            }
            .encode_to_vec()
        }
        "LookRequest" => {
            let request = pb::LookRequest::decode(bytes).ok()?;
            database_from(request.database).ok()?;
            request.encode_to_vec()
        }
        "Failure" => failure_to(failure_from(pb::Failure::decode(bytes).ok()?)).encode_to_vec(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_on_both_sides() {
        let (waited, why) = (Duration::from_millis(7), || "why".to_owned());
        let errors = [
            Error::NoLeader { waited, why: why() },
            Error::Unknown { waited, why: why() },
            Error::NotFresh { waited, why: why() },
            Error::Overloaded {
                queued: 3,
                unit: "bytes",
                limit: 2,
            },
            Error::TooLarge { size: 3, limit: 2 },
            Error::Stopped { why: why() },
            Error::Value(why()),
            Error::Refused(CommandError::WrongType),
            Error::Refused(CommandError::text("NOSESSION no such session")),
        ];
        for error in errors {
            let text = format!("{error:?}");
            let Lost::Failed(there) = lost(failed(error)) else {
                panic!("{text}: the member's word")
            };
            // The texts of refusals are owned there.
            assert_eq!(format!("{there:?}"), text);
        }
    }

    #[test]
    fn what_is_known_not_to_have_been_begun_is_told_apart() {
        let of = |status| format!("{:?}", lost(status));
        assert!(of(Status::unauthenticated("no")).starts_with("Stranger"));
        assert!(of(Status::unimplemented("an older version")).starts_with("Unsent"));
        assert!(of(Status::unavailable("transport error")).starts_with("Broken"));
        assert!(of(Status::cancelled("")).starts_with("Broken"));
        assert!(of(Status::out_of_range("of the request, or of the answer?")).starts_with("Broken"));
    }

    #[tokio::test]
    async fn a_call_whose_connection_ended_before_its_turn_has_not_been_sent() {
        let (near, _far) = tokio::io::duplex(1_000);
        let near = hyper_util::rt::TokioIo::new(near);
        let (mut calls, connection) = hyper::client::conn::http1::handshake(near)
            .await
            .expect("nothing is said yet");
        let call = calls.send_request(hyper::Request::new(String::new()));
        drop(connection);
        let error = call.await.expect_err("nobody sends it");
        let lost = lost(Status::from_error(error.into()));
        assert!(matches!(lost, Lost::Unsent(_)), "{lost:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_known_to_have_taken_nothing() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it has one").to_string();
        drop(free);
        let line = Line::new(&address, None).expect("an address");
        let write = Write::One(Command::new(0, ["SET", "k", "v"]));
        for _ in 0..2 {
            let lost = line.clone().write(write.clone(), false).await;
            assert!(matches!(lost, Err(Lost::Unsent(_))), "{:?}", lost.err());
        }
    }
}
