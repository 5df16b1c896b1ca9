//! etcd's `KV.Put` over gRPC, as its own clients call it: to measure it by the same loop.

use super::Fault;
use super::target::{Caller, Place, Target, cpu_of};
use futures::future::BoxFuture;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
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

/// One caller of etcd. Callers of one member share its connection, as gRPC clients do.
pub(crate) struct Client(Grpc<Channel>);

impl Client {
    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.0.ready().await?;
        let request = tonic::Request::new(PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
        });
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.0.unary(request, path, codec).await?;
        Ok(())
    }
}

/// Members of an etcd cluster that somebody else started.
pub(crate) struct Etcd(Vec<Channel>);

impl Etcd {
    pub(crate) async fn connect(members: &[String]) -> Result<Self, Fault> {
        let mut channels = Vec::new();
        for member in members {
            let endpoint = Endpoint::from_shared(format!("http://{member}"))?.tcp_nodelay(true);
            channels.push(endpoint.connect().await?);
        }
        Ok(Self(channels))
    }
}

impl Target for Etcd {
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Caller>, Fault>> {
        let client = |caller| Client(Grpc::new(self.0[place.node(caller, 0, self.0.len())].clone()));
        let callers = (0..count).map(|caller| Caller::Etcd(client(caller))).collect();
        Box::pin(async move { Ok(callers) })
    }

    /// Of the callers alone: the members are not ours to look at.
    fn cpu(&self) -> Result<Duration, Fault> {
        cpu_of(std::process::id())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
