//! Raft between the nodes of the metadata quorum.
//!
//! The messages are those of `proto/vltava/raft.proto`. This module checks nothing but their shape; whether a request
//! is meant for this node, and what to do with it, is the handler's decision.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use vltava_metadata::Endpoint;

use crate::client::{connect, unary};
use crate::server::Routes;
use crate::{CallError, MAX_MESSAGE_BYTES, Plane};

pub use messages::append_entries_response::{Conflict, Outcome, PartialSuccess, Success};
pub use messages::{
    AppendEntriesRequest, AppendEntriesResponse, DescribeResponse, Entry, Envelope, JoinRequest, JoinResponse, LogId,
    MemberStatus, SnapshotHeader, SnapshotResponse, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
    Vote, VoteRequest, VoteResponse,
};

/// The longest snapshot a node accepts, in bytes: far above an image of a million partitions.
pub const MAX_SNAPSHOT_BYTES: u64 = 1024 * 1024 * 1024;

/// A snapshot travels in pieces of this many bytes.
const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// A node of the quorum as other nodes reach it. An error refuses the request and says why.
pub trait RaftHandler: Send + Sync + 'static {
    fn append_entries(
        &self,
        request: AppendEntriesRequest,
    ) -> impl Future<Output = Result<AppendEntriesResponse, CallError>> + Send;

    fn vote(&self, request: VoteRequest) -> impl Future<Output = Result<VoteResponse, CallError>> + Send;

    fn pre_vote(&self, request: VoteRequest) -> impl Future<Output = Result<VoteResponse, CallError>> + Send;

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest,
    ) -> impl Future<Output = Result<TransferLeaderResponse, CallError>> + Send;

    /// Called before the snapshot is received, so that one meant for somebody else is not.
    fn check_snapshot(&self, header: &SnapshotHeader) -> Result<(), CallError>;

    fn install_snapshot(
        &self,
        header: SnapshotHeader,
        snapshot: Bytes,
    ) -> impl Future<Output = Result<SnapshotResponse, CallError>> + Send;

    fn describe(&self) -> impl Future<Output = DescribeResponse> + Send;

    fn status(&self) -> impl Future<Output = StatusResponse> + Send;

    fn join(&self, request: JoinRequest) -> impl Future<Output = Result<JoinResponse, CallError>> + Send;
}

/// Adds the Raft service to a plane.
pub fn add_routes<H: RaftHandler>(routes: Routes, handler: Arc<H>) -> Routes {
    routes.with(
        messages::raft_server::RaftServer::new(Service { handler })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
}

/// Another node of the quorum. Cheap to clone.
#[derive(Clone)]
pub struct RaftClient {
    client: messages::raft_client::RaftClient<Channel>,
}

impl RaftClient {
    /// A client that connects when first used.
    #[must_use]
    pub fn new(endpoint: &Endpoint) -> Self {
        let client = messages::raft_client::RaftClient::new(connect(endpoint, Plane::Control))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { client }
    }

    pub async fn append_entries(
        &self,
        request: AppendEntriesRequest,
        deadline: Duration,
    ) -> Result<AppendEntriesResponse, CallError> {
        let mut client = self.client.clone();
        unary(deadline, request, |request| async move { client.append_entries(request).await }).await
    }

    pub async fn vote(&self, request: VoteRequest, deadline: Duration) -> Result<VoteResponse, CallError> {
        let mut client = self.client.clone();
        unary(deadline, request, |request| async move { client.vote(request).await }).await
    }

    pub async fn pre_vote(&self, request: VoteRequest, deadline: Duration) -> Result<VoteResponse, CallError> {
        let mut client = self.client.clone();
        unary(deadline, request, |request| async move { client.pre_vote(request).await }).await
    }

    pub async fn transfer_leader(
        &self,
        request: TransferLeaderRequest,
        deadline: Duration,
    ) -> Result<TransferLeaderResponse, CallError> {
        let mut client = self.client.clone();
        unary(deadline, request, |request| async move { client.transfer_leader(request).await }).await
    }

    pub async fn install_snapshot(
        &self,
        header: SnapshotHeader,
        snapshot: Bytes,
        deadline: Duration,
    ) -> Result<SnapshotResponse, CallError> {
        let mut client = self.client.clone();
        unary(deadline, chunks(header, snapshot), |request| async move { client.install_snapshot(request).await }).await
    }

    pub async fn describe(&self, deadline: Duration) -> Result<DescribeResponse, CallError> {
        let mut client = self.client.clone();
        let request = messages::DescribeRequest {};
        unary(deadline, request, |request| async move { client.describe(request).await }).await
    }

    pub async fn status(&self, deadline: Duration) -> Result<StatusResponse, CallError> {
        let mut client = self.client.clone();
        let request = messages::StatusRequest {};
        unary(deadline, request, |request| async move { client.status(request).await }).await
    }

    pub async fn join(&self, request: JoinRequest, deadline: Duration) -> Result<JoinResponse, CallError> {
        let mut client = self.client.clone();
        unary(deadline, request, |request| async move { client.join(request).await }).await
    }
}

fn chunks(
    header: SnapshotHeader,
    snapshot: Bytes,
) -> impl futures::Stream<Item = messages::SnapshotChunk> + Send + 'static {
    stream::unfold((Some(header), snapshot), |(header, mut rest)| async move {
        if header.is_none() && rest.is_empty() {
            return None;
        }
        let data = rest.split_to(rest.len().min(SNAPSHOT_CHUNK_BYTES));
        Some((messages::SnapshotChunk { header, data }, (None, rest)))
    })
}

struct Service<H> {
    handler: Arc<H>,
}

#[tonic::async_trait]
impl<H: RaftHandler> messages::raft_server::Raft for Service<H> {
    async fn append_entries(
        &self,
        request: Request<AppendEntriesRequest>,
    ) -> Result<Response<AppendEntriesResponse>, Status> {
        answer(self.handler.append_entries(request.into_inner()).await)
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        answer(self.handler.vote(request.into_inner()).await)
    }

    async fn pre_vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        answer(self.handler.pre_vote(request.into_inner()).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        answer(self.handler.transfer_leader(request.into_inner()).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<messages::SnapshotChunk>>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("a snapshot without a chunk"))?;
        let header = first.header.ok_or_else(|| Status::invalid_argument("a snapshot without a header"))?;
        if header.length > MAX_SNAPSHOT_BYTES {
            return Err(Status::invalid_argument("the snapshot is too long"));
        }
        self.handler.check_snapshot(&header).map_err(refuse)?;
        // Grows with what arrives: the announced length allocates nothing.
        let mut snapshot = BytesMut::from(first.data);
        while let Some(chunk) = chunks.message().await? {
            snapshot.extend_from_slice(&chunk.data);
            if snapshot.len() as u64 > header.length {
                return Err(Status::invalid_argument("the snapshot is longer than announced"));
            }
        }
        if snapshot.len() as u64 != header.length {
            return Err(Status::invalid_argument("the snapshot is shorter than announced"));
        }
        answer(self.handler.install_snapshot(header, snapshot.freeze()).await)
    }

    async fn describe(
        &self,
        _request: Request<messages::DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(self.handler.describe().await))
    }

    async fn status(&self, _request: Request<messages::StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.handler.status().await))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        answer(self.handler.join(request.into_inner()).await)
    }
}

fn answer<T>(result: Result<T, CallError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(refuse)
}

fn refuse(error: CallError) -> Status {
    match error {
        CallError::Refused(reason) => Status::failed_precondition(reason),
        CallError::Unreachable(reason) => Status::unavailable(reason),
    }
}

pub(crate) mod messages {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("vltava.raft");
}
