//! Outbound calls. `Peers` keeps the channels; `Link` is Raft's network to one member; the rest are calls of node/.

use super::caller::{Caller, Proof, Role};
use super::files::File;
use super::ground::{Net, beside};
use super::leadership::Follows;
use super::net::Line;
use super::pb::peer_client::PeerClient;
use super::snapshot_store::SnapshotFile;
use super::{Member, Types, log, pb, telling, wire};
use crate::config::{ENTRY_BYTES, Secret};
use crate::machine::recency::Use;
use crate::machine::reply::Reply;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Status;
use tonic::transport::Endpoint;

/// Bytes of one message between nodes, at most: a group with the largest command, and room for more groups around it.
pub(super) const MESSAGE_BYTES: usize = 64 << 20;
/// Every entry of the log fits into one, behind what one read of the log takes before it, and with a head for each.
const _: () = assert!(ENTRY_BYTES + log::READ_BYTES as usize + (256 << 10) <= MESSAGE_BYTES);
/// HTTP/2 windows in bytes; the default of 64 KiB stalls a stream of groups.
pub(super) const STREAM_WINDOW: u32 = 8 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of snapshot in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a connection may take; on a network where it takes longer, Raft's timeouts are wrong anyway.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection that answers no ping for this long is given up, so that a stream over it ends.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The channels to other nodes, by address.
#[derive(Debug)]
pub(crate) struct Peers {
    net: Net,
    /// Held to look up or add a channel, never across an await.
    channels: Mutex<HashMap<String, Channels>>,
    /// Where each member is, as known last. Raft keeps its [`Link`]s when a member moves, so they look here. Held to look up or note one.
    addresses: Mutex<HashMap<u64, String>>,
    proof: Proof,
    node: u64,
    /// This node's cluster; 0 before it belongs to one.
    cluster: AtomicU64,
    /// Members that are being sent a snapshot.
    fed: AtomicUsize,
}

/// Two connections to a peer, so that a snapshot or a burst of entries never queues in front of a heartbeat.
#[derive(Clone, Debug)]
struct Channels {
    control: Line,
    bulk: Line,
}

/// What a node says of itself to one that looks for its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) node: u64,
    pub(crate) member: Member,
    /// 0: it belongs to no cluster yet.
    pub(crate) cluster: u64,
    pub(crate) leader: u64,
}

/// What a leader made of a script.
#[derive(Debug)]
#[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
pub(crate) enum Evaluated {
    /// It wrote nothing: the answer, the index that its reader must have applied, and what it did beside that.
    Direct(Reply, u64, Bytes),
    /// What it wrote is proposed: the answer comes with it. What it did beside that.
    Proposed(Bytes),
    /// It was not begun, for another has run for too long; what its caller is told.
    Busy(String),
    /// It was not evaluated, and why.
    Refused(String),
}

/// A script that runs on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "lua"), allow(unreachable_pub))] // Public beside scripts alone.
pub struct Running {
    /// Its SHA-1, or the function's name.
    pub name: Bytes,
    /// Whether it is a function.
    pub function: bool,
    /// As its caller said it, for a function.
    pub command: Vec<Bytes>,
    /// For how long it has run.
    pub duration_ms: u64,
    /// Whether that is longer than the busy limit.
    pub busy: bool,
    /// Whether it was told to end.
    pub killed: bool,
}

/// What `SCRIPT KILL` or `FUNCTION KILL` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "lua"), allow(unreachable_pub))] // Public beside scripts alone.
pub enum Kind {
    /// A script.
    Script,
    /// A function.
    Function,
}

/// A change of the members, asked of any node.
#[derive(Clone, Debug)]
pub(crate) enum MemberChange {
    /// Add as a learner that stays one until promoted.
    Add(u64, Member),
    /// A fresh node wants in: add it, promote it as soon as it has caught up; it replaces a member with the same address.
    Join(u64, Member),
    Promote(u64),
    Remove(u64),
}

impl Peers {
    pub(crate) fn new(net: Net, node: u64, cluster: u64, secret: Option<&Secret>) -> Arc<Self> {
        Arc::new(Self {
            net,
            channels: Mutex::default(),
            addresses: Mutex::default(),
            proof: Proof::new(secret, Role::Peer),
            node,
            cluster: AtomicU64::new(cluster),
            fed: AtomicUsize::new(0),
        })
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    pub(crate) fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Release);
    }

    /// Notes where a member is. It is called by its id, so whoever else answers there refuses.
    pub(super) fn note_address(&self, id: u64, address: &str) {
        self.addresses.lock().insert(id, address.to_owned());
    }

    /// Whether a member is being sent a snapshot.
    pub(super) fn feeds(&self) -> bool {
        self.fed.load(Ordering::Relaxed) > 0
    }

    pub(super) fn proof(&self) -> &Proof {
        &self.proof
    }

    fn channels(&self, address: &str) -> Result<Channels, Status> {
        let mut channels = self.channels.lock();
        if let Some(found) = channels.get(address) {
            return Ok(found.clone());
        }
        let endpoint = endpoint(address)
            .map_err(|error| Status::invalid_argument(format!("{address} is no address: {error}")))?;
        let found = Channels {
            control: self.net.line(&endpoint),
            bulk: self.net.line(&endpoint),
        };
        channels.insert(address.to_owned(), found.clone());
        Ok(found)
    }

    fn control(&self, address: &str) -> Result<PeerClient<Line>, Status> {
        Ok(client(self.channels(address)?.control))
    }

    fn caller(&self, to: u64) -> Caller {
        Caller {
            cluster: self.cluster(),
            from: self.node,
            to,
        }
    }

    fn request<T>(&self, to: u64, message: T) -> tonic::Request<T> {
        self.caller(to).mark(&self.proof, message)
    }

    /// Who listens at an address.
    pub(crate) async fn hello(&self, address: &str, me: &Member) -> Result<Hello, Status> {
        let request = pb::HelloRequest {
            node: self.node,
            raft_addr: me.raft_addr.clone(),
            resp_addr: me.resp_addr.clone(),
        };
        let answer = self
            .control(address)?
            .hello(self.request(0, request))
            .await?
            .into_inner();
        Ok(Hello {
            node: answer.node,
            member: wire::addresses_from(answer.raft_addr, answer.resp_addr)?,
            cluster: answer.cluster,
            leader: answer.leader,
        })
    }

    /// Asks a founder to promise itself to a cluster of these members. `Some`: why it does not.
    pub(crate) async fn promise(
        &self,
        address: &str,
        members: &[(u64, Member)],
    ) -> Result<Option<String>, Status> {
        let members = members
            .iter()
            .map(|(id, member)| wire::member_to(*id, member))
            .collect();
        let request = self.request(0, pb::PromiseRequest { members });
        let refused = self
            .control(address)?
            .promise(request)
            .await?
            .into_inner()
            .refused;
        Ok((!refused.is_empty()).then_some(refused))
    }

    /// Asks a node to change the members. The cluster's id.
    pub(crate) async fn change_member(&self, address: &str, change: MemberChange) -> Result<u64, Status> {
        use pb::change_member_request::Change;
        let change = match change {
            MemberChange::Add(id, member) => Change::Add(wire::member_to(id, &member)),
            MemberChange::Join(id, member) => Change::Join(wire::member_to(id, &member)),
            MemberChange::Promote(id) => Change::Promote(id),
            MemberChange::Remove(id) => Change::Remove(id),
        };
        let request = self.request(0, pb::ChangeMemberRequest { change: Some(change) });
        Ok(self
            .control(address)?
            .change_member(request)
            .await?
            .into_inner()
            .cluster)
    }

    /// A read index of the leader.
    pub(crate) async fn read_index(&self, leader: u64, address: &str) -> Result<u64, Status> {
        let request = self.request(leader, pb::ReadIndexRequest {});
        Ok(self
            .control(address)?
            .read_index(request)
            .await?
            .into_inner()
            .index)
    }

    /// Whether a member follows this leader still.
    pub(super) async fn follows(&self, id: u64, address: &str, vote: super::Vote) -> Result<Follows, Status> {
        let request = pb::FollowsRequest {
            vote: Some(wire::vote_to(vote)),
        };
        let answer = self.control(address)?.follows(self.request(id, request)).await?;
        Ok(wire::follows_from(answer.into_inner()))
    }

    /// What a member knows of itself: role, term, applied index.
    pub(crate) async fn status(&self, id: u64, address: &str) -> Result<pb::StatusResponse, Status> {
        Ok(self
            .control(address)?
            .status(self.request(id, pb::StatusRequest {}))
            .await?
            .into_inner())
    }

    /// When a member last used these keys, in their order; none where it has no such key.
    pub(crate) async fn last_use(
        &self,
        id: u64,
        address: &str,
        keys: Vec<(u8, Bytes)>,
    ) -> Result<Vec<Option<Use>>, Status> {
        let request = self.request(id, wire::used_keys_to(keys));
        let answer = self.control(address)?.last_use(request).await?.into_inner();
        Ok(wire::uses_from(&answer))
    }

    /// Opens the stream on which groups are forwarded to the leader. It answers those it refuses, with the reason.
    pub(crate) async fn forward(
        &self,
        leader: u64,
        address: &str,
        groups: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<impl Stream<Item = Result<(u64, Option<String>), Status>> + Send, Status> {
        let requests = groups.map(|group| pb::ForwardRequest { group });
        let request = self.request(leader, requests);
        let answers = client(self.channels(address)?.bulk)
            .forward(request)
            .await?
            .into_inner();
        Ok(answers.map(|answer| {
            answer.map(|answer| {
                (
                    answer.number,
                    (!answer.refused.is_empty()).then_some(answer.refused),
                )
            })
        }))
    }

    /// Opens the stream on which the leader is asked to evaluate scripts. Each is answered under its number, in any order.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
    pub(crate) async fn evaluate(
        &self,
        leader: u64,
        address: &str,
        scripts: impl Stream<Item = (u64, Bytes)> + Send + 'static,
    ) -> Result<impl Stream<Item = Result<(u64, Evaluated), Status>> + Send, Status> {
        let requests = scripts.map(|(ticket, script)| pb::EvaluateRequest { script, ticket });
        let request = self.request(leader, requests);
        let answers = client(self.channels(address)?.bulk)
            .evaluate(request)
            .await?
            .into_inner();
        Ok(answers.map(|answer| {
            let answer = answer?;
            Ok((answer.ticket, wire::evaluated_from(answer)?))
        }))
    }
}

impl Peers {
    /// Which script runs on a member; it is ended if it is of this kind and has run for longer than the busy limit.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
    pub(crate) async fn running(
        &self,
        id: u64,
        address: &str,
        kill: Option<Kind>,
    ) -> Result<Option<Running>, Status> {
        let request = self.request(id, wire::running_request_to(kill));
        let answer = self.control(address)?.running(request).await?.into_inner();
        Ok(wire::running_from(answer))
    }
}

/// How a member's peer port is connected to, by nodes and by processes that embed none.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE))
}

fn client(line: Line) -> PeerClient<Line> {
    PeerClient::new(line)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

/// Makes Raft's networks.
pub(super) struct Network {
    pub(super) peers: Arc<Peers>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        self.peers.note_address(target, &node.raft_addr);
        Link {
            peers: self.peers.clone(),
            target,
            streams: true,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Link {
        // Each heartbeat opens a "stream" of one request: a unary call on the control channel does the same for less.
        Link {
            streams: false,
            ..self.new_client(target, node).await
        }
    }
}

/// Raft's network to one member.
pub(super) struct Link {
    peers: Arc<Peers>,
    target: u64,
    streams: bool,
}

impl Link {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        self.peers.request(self.target, message)
    }

    fn address(&self) -> String {
        let addresses = self.peers.addresses.lock();
        addresses
            .get(&self.target)
            .cloned()
            .expect("noted when this link was made, and never taken out")
    }

    fn control(&self) -> Result<PeerClient<Line>, RPCError<Types>> {
        self.peers.control(&self.address()).map_err(unreachable)
    }

    async fn within<T>(
        &self,
        limit: Duration,
        action: RPCTypes,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<Types>> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => Ok(answer.map_err(failed)?.into_inner()),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action,
                id: self.peers.node,
                target: self.target,
                timeout: limit,
            })),
        }
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<Types>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.control()?;
        let request = self.request(wire::vote_request_to(request, pre_vote));
        let answer = self
            .within(option.hard_ttl(), RPCTypes::Vote, client.vote(request))
            .await?;
        wire::vote_response_from(answer).map_err(failed)
    }

    async fn send_snapshot(
        &self,
        vote: super::Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let _fed = Fed::begin(&self.peers.fed);
        let file = snapshot.snapshot.open().map_err(|error| network(&error))?;
        let vote = pb::SnapshotChunk {
            vote: Some(wire::vote_to(vote)),
            content: Bytes::new(),
        };
        let chunks = futures::stream::once(async { vote }).chain(chunks(file));
        let channels = self
            .peers
            .channels(&self.address())
            .map_err(|error| network(&error))?;
        let answer = client(channels.bulk)
            .snapshot(self.request(chunks))
            .await
            .map_err(|error| network(&error))?;
        let vote = wire::vote_from(answer.into_inner().vote).map_err(|error| network(&error))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// A member that is being sent a snapshot, until this is dropped.
struct Fed<'a>(&'a AtomicUsize);

impl<'a> Fed<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Fed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file in pieces. One that cannot be read on ends early: the receiver sees by the checksum that it is not whole.
fn chunks(file: File) -> impl Stream<Item = pb::SnapshotChunk> + Send {
    futures::stream::unfold(file, |mut file| async move {
        let read = beside(move || {
            let mut content = vec![0; CHUNK_BYTES];
            let length = file.read(&mut content).ok()?;
            content.truncate(length);
            (length > 0).then(|| {
                (
                    pb::SnapshotChunk {
                        vote: None,
                        content: content.into(),
                    },
                    file,
                )
            })
        });
        read.await.ok().flatten()
    })
}

/// The peer is not there: Raft waits before it asks again.
fn unreachable(status: Status) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&status))
}

/// The call failed. A refusal or a dead peer will not pass at once, so both count as unreachable.
fn failed(status: Status) -> RPCError<Types> {
    match status.code() {
        tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => {
            RPCError::Network(NetworkError::new(&status))
        }
        _ => unreachable(status),
    }
}

fn network(error: &(impl std::error::Error + 'static)) -> StreamingError<Types> {
    StreamingError::Network(NetworkError::new(error))
}

type AppendStream<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let mut client = self.control()?;
        let request = self.request(wire::append_request_to(request));
        let answer = self
            .within(option.hard_ttl(), RPCTypes::AppendEntries, client.append(request))
            .await?;
        Ok(wire::append_result_from(answer).map_err(failed)?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendStream<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + openraft::OptionalSend + Unpin + 'static,
    {
        if !self.streams {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // openraft waits between two attempts inside `input`, before its first request: connecting without having asked for that one
            // would try a dead peer again and again without a pause, which costs most of a processor.
            let Some(first) = input.next().await else {
                return Ok(Box::pin(futures::stream::empty()) as AppendStream<'s>);
            };
            let channels = self.peers.channels(&self.address()).map_err(unreachable)?;
            let requests = futures::stream::once(std::future::ready(first)).chain(input);
            let requests = telling::worth_sending(self.target, requests);
            let request = self.request(requests.map(wire::append_request_to));
            let answers = client(channels.bulk)
                .append_stream(request)
                .await
                .map_err(failed)?
                .into_inner();
            let results = answers.map(|answer| answer.and_then(wire::append_result_from).map_err(failed));
            Ok(Box::pin(results) as AppendStream<'s>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(request, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: super::Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        // No limit of time: a large snapshot over a slow line takes what it takes, and a dead line ends by its keep-alive.
        tokio::select! {
            biased;
            answer = self.send_snapshot(vote, snapshot) => answer,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Types>, RPCError<Types>> {
        let mut client = self.control()?;
        let message = self.request(wire::transfer_to(&request));
        let answer = self
            .within(
                option.hard_ttl(),
                RPCTypes::TransferLeader,
                client.transfer_leader(message),
            )
            .await?;
        if answer.refused.is_empty() {
            return Ok(Ok(()));
        }
        Ok(Err(openraft::raft::TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: *request.from_leader(),
        }))
    }

    fn backoff(&self) -> Option<Backoff> {
        // 20 ms, doubling, to 500 ms at most: a peer that restarts is found at once, one that is gone costs two calls a second.
        Some(Backoff::new((0..).map(|step: u32| {
            Duration::from_millis((20 << step.min(5)).min(500))
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Vote;
    use crate::raft::files::Disk;
    use crate::raft::snapshot_store::SnapshotMeta;
    use openraft::type_config::alias::SnapshotOf;

    #[tokio::test]
    async fn a_member_is_fed_as_long_as_a_snapshot_is_on_its_way() {
        // One who never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peers = Peers::new(Net::System, 1, 1, None);
        peers.note_address(2, &silent.local_addr().unwrap().to_string());
        let link = Link {
            peers: peers.clone(),
            target: 2,
            streams: true,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = SnapshotMeta::default();
        let snapshot = SnapshotOf::<Types, SnapshotFile> {
            meta: meta.clone(),
            snapshot: SnapshotFile {
                meta,
                path: file.path().to_owned(),
                len: 0,
                disk: Disk::System,
                aside: None,
            },
        };
        let mut sending = Box::pin(link.send_snapshot(Vote::new(1, 1), snapshot));
        assert!(!peers.feeds(), "not begun");
        assert!(futures::poll!(&mut sending).is_pending());
        assert!(peers.feeds());
        drop(sending);
        assert!(!peers.feeds());
    }
}
