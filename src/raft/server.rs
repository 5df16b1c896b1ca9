//! Inbound calls. Checks who calls (the proof before a byte of the body is read), turns bytes into our types, and hands on: Raft's calls to Raft, the
//! rest to node/.

use super::caller::{Caller, Guard};
use super::client::{
    CONNECTION_WINDOW, Evaluated, Hello, Kind, MESSAGE_BYTES, MemberChange, Peers, Running, STREAM_WINDOW,
};
use super::connection::{accepted, told};
use super::ground::beside;
use super::net::Listener;
use super::pb::peer_server::{Peer, PeerServer};
use super::remote::{self, Host};
use super::replica::{LeaderWatch, Replica};
use super::{Member, Vote, pb, telling, wire};
use crate::config::Secret;
use crate::machine::entry::{self, Entry, Millis};
use crate::machine::recency::Use;
use crate::mutant::Mutant;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::raft::VoteResponse;
use openraft::storage::Snapshot;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

/// Groups of one follower that wait for the leader's word, at most: more than it may have in flight, so the stream never stalls.
const FORWARD_PIPELINE: usize = 64;

/// Scripts of one follower that are evaluated or wait for it at once; further ones wait in the stream.
const EVALUATE_PIPELINE: usize = 4_096;

/// Keys that are asked for at once when they were last used: applying waits while they are looked up.
pub(crate) const LAST_USE_KEYS: usize = 4_096;

/// HTTP/2 streams of one connection at once: a peer opens a handful, a stranger must not open a million.
const STREAMS_PER_CONNECTION: u32 = 256;

/// A connection on which nothing was heard for so long is asked whether anybody is there, and given up after as long again.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What node/ answers other nodes.
pub(crate) trait Inbound: Send + Sync + 'static {
    /// Who this node is.
    fn hello(&self) -> impl Future<Output = Hello> + Send;
    /// Another founder asks this node to promise itself to a cluster. `Some`: why not.
    fn promise(&self, members: Vec<(u64, Member)>) -> impl Future<Output = Option<String>> + Send;
    /// Changes the members, here or through the leader. The cluster's id.
    fn change_member(&self, change: MemberChange) -> impl Future<Output = Result<u64, String>> + Send;
    /// Evaluates a script that another node asks this leader for.
    fn evaluate(&self, from: u64, script: &Bytes) -> impl Future<Output = Evaluated> + Send;
    /// When keys were last used here, in their order; none where there is no such key.
    fn last_use(&self, keys: &[(u8, Bytes)]) -> Vec<Option<Use>>;
    /// This machine's clock, in milliseconds since the Unix epoch.
    fn wall_ms(&self) -> Millis;
    /// Which script runs here; it is ended if it is of this kind and has run for too long.
    fn running(&self, kill: Option<Kind>) -> Option<Running>;
    /// Proposes a follower's group. `Some`: why not.
    fn propose(&self, group: Bytes) -> impl Future<Output = Option<String>> + Send;
}

/// The service of one node.
pub(crate) struct Service<I> {
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    inbound: Arc<I>,
    node: u64,
    /// Until then no vote is granted: see [`Service::vote`].
    silent_until: Instant,
}

impl<I: Inbound> Service<I> {
    /// `silent` is how long after this start no vote is granted.
    pub(crate) fn new(
        replica: Arc<Replica>,
        peers: Arc<Peers>,
        inbound: Arc<I>,
        node: u64,
        silent: Duration,
    ) -> Self {
        Self {
            replica,
            peers,
            inbound,
            node,
            silent_until: Instant::now() + silent,
        }
    }

    /// Serves peers, and processes that embed no node, until it is told to stop; connections end then, whatever goes on in them.
    pub(crate) async fn serve(
        self,
        remote: (impl Host, Option<Secret>),
        listener: Listener,
        stop: watch::Receiver<bool>,
    ) -> Result<(), tonic::transport::Error> {
        let (host, secret) = remote;
        let guard = Guard(self.peers.proof().clone());
        let service = PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let service = InterceptedService::new(service, guard);
        #[cfg(test)]
        let listener = match listener.of_pieces() {
            Ok(listener) => {
                super::net::calls::serve(listener, service, stop).await;
                return Ok(());
            }
            Err(listener) => listener,
        };
        tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(service)
            .add_service(remote::service(host, secret.as_ref()))
            .serve_with_incoming_shutdown(accepted(listener, stop.clone()), told(stop))
            .await
    }

    /// A call of nodes that may not share a cluster yet: beside the proof, that the caller's program is not too old.
    fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        Caller::must_understand(request.metadata(), self.replica.level())?;
        Caller::of(request.metadata())
    }

    /// A call within the cluster that means this very node.
    fn admit_member<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.admit(request)?;
        caller.must_mean(self.peers.cluster(), self.node)?;
        Ok(caller)
    }
}

/// One that was taken out does not hear of it, and goes on: what it wrote would be in a log whose applied state it never sees.
fn must_be_member(members: &LeaderWatch, caller: Caller) -> Result<(), Status> {
    if members.has(caller.from) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "node {} is no member of this cluster. If it was taken out, give it an empty folder, and it joins as a new member",
        caller.from
    )))
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// A leader does not follow itself, nor does a candidate ask itself: Raft takes for granted that nobody sends it its own entries, or asks for its vote in its name.
fn must_be_another(node: u64, vote: Vote) -> Result<(), Status> {
    if vote.leader_id.node_id != node {
        return Ok(());
    }
    Err(Status::invalid_argument("what only this node would send"))
}

/// Work that blocks on the disk, beside the tasks.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    beside(work).await.map_err(internal)?.map_err(internal)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<I: Inbound> Peer for Service<I> {
    /// For one election timeout after its start a node grants no vote, except to a leader's chosen successor: it forgot the lease it gave
    /// before it stopped, and a vote now could make a second leader while the first still trusts that lease.
    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        self.admit_member(&request)?;
        let message = request.into_inner();
        let pre_vote = message.pre_vote;
        let request = wire::vote_request_from(message)?;
        must_be_another(self.node, request.vote)?;
        let silent = Instant::now() < self.silent_until && !Mutant::VoteAfterRestart.is_planted();
        if silent && !request.leadership_transfer {
            let (vote, last_log) = self.replica.vote_and_last_log();
            return Ok(Response::new(wire::vote_response_to(VoteResponse::new(
                vote, last_log, false,
            ))));
        }
        let raft = self.replica.raft();
        let answer = if pre_vote {
            raft.pre_vote(request).await
        } else {
            raft.vote(request).await
        };
        Ok(Response::new(wire::vote_response_to(answer.map_err(internal)?)))
    }

    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        self.admit_member(&request)?;
        let request = wire::append_request_from(request.into_inner())?;
        must_be_another(self.node, request.vote)?;
        let (prev, last) = (
            request.prev_log_id,
            request.entries.last().map(|entry| entry.log_id),
        );
        let answer = self
            .replica
            .raft()
            .append_entries(request)
            .await
            .map_err(internal)?;
        Ok(Response::new(wire::append_result_to(
            answer.into_stream_result(prev, last.or(prev)),
        )))
    }

    type AppendStreamStream = Answers<pb::AppendResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        self.admit_member(&request)?;
        // A malformed or broken stream ends; Raft opens another.
        let node = self.node;
        let requests = request.into_inner().map(move |message| {
            let request = wire::append_request_from(message?)?;
            must_be_another(node, request.vote).map(|()| request)
        });
        let requests = requests.take_while(|request| futures::future::ready(request.is_ok()));
        let requests = requests.filter_map(|request| futures::future::ready(request.ok()));
        if Mutant::AcknowledgeUnstored.is_planted() {
            let (told, answers) = tokio::sync::mpsc::channel(1_024);
            let requests = requests.inspect(move |request| {
                let last = request.entries.last().map(|entry| entry.log_id);
                // Who has hung up, or does not listen, hears nothing.
                let _ = told.try_send(Ok(wire::append_result_to(Ok(last.or(request.prev_log_id)))));
            });
            let stored = self.replica.raft().stream_append(Box::pin(requests));
            tokio::spawn(stored.for_each(|_| futures::future::ready(())));
            let answers = tokio_stream::wrappers::ReceiverStream::new(answers);
            return Ok(Response::new(Box::pin(answers)));
        }
        let answers = self.replica.raft().stream_append(Box::pin(requests));
        let answers = telling::worth_answering(answers);
        Ok(Response::new(Box::pin(answers.map(|answer| {
            answer.map(wire::append_result_to).map_err(internal)
        }))))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        self.admit_member(&request)?;
        let mut chunks = request.into_inner();
        let vote = wire::leader_from(chunks.message().await?.and_then(|first| first.vote))?;
        must_be_another(self.node, vote)?;
        let mut receiving = self.replica.snapshots().receive().map_err(internal)?;
        while let Some(chunk) = chunks.message().await? {
            receiving = on_disk(move || receiving.write(&chunk.content).map(|()| receiving)).await?;
        }
        let snapshot = on_disk(move || receiving.finish()).await?;
        let last = snapshot.meta.last_log_id;
        wire::must_have_come_before(last, vote)?;
        if self.replica.contradicts(last).await.map_err(internal)? {
            return Err(Status::invalid_argument(
                "a snapshot that ends otherwise than the log that is committed here",
            ));
        }
        let snapshot = Snapshot {
            meta: snapshot.meta.clone(),
            snapshot,
        };
        let answer = self
            .replica
            .raft()
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(internal)?;
        Ok(Response::new(pb::SnapshotResponse {
            vote: Some(wire::vote_to(answer.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        self.admit_member(&request)?;
        let request = wire::transfer_from(request.into_inner())?;
        let answer = self
            .replica
            .raft()
            .handle_transfer_leader(request)
            .await
            .map_err(internal)?;
        let refused = answer
            .err()
            .map(|refused| refused.to_string())
            .unwrap_or_default();
        Ok(Response::new(pb::TransferLeaderResponse { refused }))
    }

    type ForwardStream = Answers<pb::ForwardResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let caller = self.admit_member(&request)?;
        let (inbound, members) = (self.inbound.clone(), self.replica.watch_leader());
        // Before a group is read, and for each: one may be taken out while its stream is open.
        must_be_member(&members, caller)?;
        let proposals = request.into_inner().map(move |message| {
            let (inbound, member) = (inbound.clone(), must_be_member(&members, caller));
            async move {
                let group = message?.group;
                member?;
                // All of it: what cannot be decoded would stop every node that comes to apply it, for good.
                let origin = entry::checked_origin(&group)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                if origin.node != caller.from {
                    return Err(Status::permission_denied("a group that another node collected"));
                }
                let refused = inbound.propose(group).await.unwrap_or_default();
                Ok(pb::ForwardResponse {
                    number: origin.number,
                    refused,
                })
            }
        });
        // `buffered` starts the proposals in the order they came, which is the order the machine takes them in.
        let answers = proposals.buffered(FORWARD_PIPELINE);
        // What was proposed will be applied where it came from, which is all the answer needed: only a refusal is worth a message.
        Ok(Response::new(Box::pin(answers.filter(|answer| {
            let proposed = matches!(answer, Ok(answer) if answer.refused.is_empty());
            futures::future::ready(!proposed)
        }))))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        let caller = self.admit_member(&request)?;
        must_be_member(&self.replica.watch_leader(), caller)?;
        let index = self.replica.read_index().await.map_err(internal)?;
        Ok(Response::new(pb::ReadIndexResponse { index }))
    }

    async fn follows(
        &self,
        request: Request<pb::FollowsRequest>,
    ) -> Result<Response<pb::FollowsResponse>, Status> {
        self.admit_member(&request)?;
        let leader = wire::vote_from(request.into_inner().vote)?;
        let follows = self.replica.follows(leader).await.map_err(internal)?;
        Ok(Response::new(wire::follows_to(follows)))
    }

    async fn last_use(
        &self,
        request: Request<pb::LastUseRequest>,
    ) -> Result<Response<pb::LastUseResponse>, Status> {
        self.admit_member(&request)?;
        let keys = wire::used_keys_from(request.into_inner())?;
        if keys.len() > LAST_USE_KEYS {
            return Err(Status::invalid_argument(format!(
                "{} keys, {LAST_USE_KEYS} at most",
                keys.len()
            )));
        }
        Ok(Response::new(wire::uses_to(&self.inbound.last_use(&keys))))
    }

    type EvaluateStream = Answers<pb::EvaluateResponse>;

    async fn evaluate(
        &self,
        request: Request<Streaming<pb::EvaluateRequest>>,
    ) -> Result<Response<Self::EvaluateStream>, Status> {
        let caller = self.admit_member(&request)?;
        let (inbound, members) = (self.inbound.clone(), self.replica.watch_leader());
        let evaluations = request.into_inner().map(move |message| {
            let (inbound, member) = (inbound.clone(), must_be_member(&members, caller));
            async move {
                let pb::EvaluateRequest { script, ticket } = message?;
                let evaluated = match member {
                    Ok(()) => inbound.evaluate(caller.from, &script).await,
                    // As an answer: of one that is lost with its stream nobody knows what came.
                    Err(refused) => Evaluated::Refused(refused.message().to_owned()),
                };
                Ok(wire::evaluated_to(ticket, evaluated))
            }
        });
        // In the order in which they are ready: a script must not wait for the answer of a longer one.
        Ok(Response::new(Box::pin(
            evaluations.buffer_unordered(EVALUATE_PIPELINE),
        )))
    }

    async fn running(
        &self,
        request: Request<pb::RunningRequest>,
    ) -> Result<Response<pb::RunningResponse>, Status> {
        self.admit_member(&request)?;
        let kill = wire::running_request_from(request.into_inner());
        Ok(Response::new(wire::running_to(self.inbound.running(kill))))
    }

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloResponse>, Status> {
        self.admit(&request)?;
        let hello = self.inbound.hello().await;
        Ok(Response::new(pb::HelloResponse {
            node: hello.node,
            raft_addr: hello.member.raft_addr,
            resp_addr: hello.member.resp_addr,
            cluster: hello.cluster,
            leader: hello.leader,
        }))
    }

    async fn promise(
        &self,
        request: Request<pb::PromiseRequest>,
    ) -> Result<Response<pb::PromiseResponse>, Status> {
        self.admit(&request)?;
        let members = request
            .into_inner()
            .members
            .into_iter()
            .map(wire::member_from)
            .collect::<Result<_, _>>()?;
        let refused = self.inbound.promise(members).await.unwrap_or_default();
        Ok(Response::new(pb::PromiseResponse { refused }))
    }

    async fn change_member(
        &self,
        request: Request<pb::ChangeMemberRequest>,
    ) -> Result<Response<pb::ChangeMemberResponse>, Status> {
        use pb::change_member_request::Change;
        self.admit(&request)?;
        let change = request
            .into_inner()
            .change
            .ok_or_else(|| Status::invalid_argument("no change"))?;
        let change = match change {
            Change::Add(member) => {
                let (id, member) = wire::member_from(member)?;
                MemberChange::Add(id, member)
            }
            Change::Join(member) => {
                let (id, member) = wire::member_from(member)?;
                MemberChange::Join(id, member)
            }
            Change::Promote(id) => MemberChange::Promote(id),
            Change::Remove(id) => MemberChange::Remove(id),
        };
        let cluster = self
            .inbound
            .change_member(change)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::ChangeMemberResponse { cluster }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.admit_member(&request)?;
        let (state, audit) = (self.replica.state(), self.replica.audit());
        Ok(Response::new(pb::StatusResponse {
            role: state.role.name().to_owned(),
            term: state.term,
            applied_index: self.replica.applied(),
            leader: state.leader.unwrap_or_default(),
            audit_index: audit.map_or(0, |audit| audit.index),
            audit_digest: audit.map_or(Bytes::new(), |audit| {
                Bytes::copy_from_slice(&audit.digest.to_le_bytes())
            }),
            wall_ms: self.inbound.wall_ms(),
            writes_snapshot: self.replica.writes_snapshot(),
            level: Entry::FORMAT.into(),
        }))
    }
}
