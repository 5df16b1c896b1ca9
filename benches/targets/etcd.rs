//! etcd's calls over gRPC, as its own clients make them: to measure it by the same loop.

use super::{Caller, Fault};
use futures::future::BoxFuture;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What it answers is of no interest here; prost passes over fields it does not know.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// Linearizable, as nothing else is said.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// One caller of a member.
pub(crate) struct Client(Grpc<Channel>);

impl Client {
    pub(crate) fn new(member: Channel) -> Self {
        Self(Grpc::new(member))
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Fault>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await?;
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<Q, A>::default());
        let answer = self.0.unary(tonic::Request::new(request), path, codec).await?;
        Ok(answer.into_inner())
    }
}

impl Caller for Client {
    fn write<'a>(&'a mut self, key: &'a [u8], value: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        let (key, value) = (key.to_vec(), value.to_vec());
        Box::pin(async move {
            let request = PutRequest { key, value };
            let _: PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
            Ok(())
        })
    }

    fn read<'a>(&'a mut self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        let request = RangeRequest { key: key.to_vec() };
        Box::pin(async move {
            let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
            if answer.count == 1 {
                Ok(())
            } else {
                Err("a key is missing".into())
            }
        })
    }
}

/// Which member leads.
pub(crate) async fn leader(members: &[Channel]) -> Result<usize, Fault> {
    for (which, member) in members.iter().enumerate() {
        let path = "/etcdserverpb.Maintenance/Status";
        let status: StatusResponse = Client::new(member.clone()).call(path, StatusRequest {}).await?;
        if status
            .header
            .is_some_and(|header| header.member_id == status.leader)
        {
            return Ok(which);
        }
    }
    Err("no member of etcd leads".into())
}
