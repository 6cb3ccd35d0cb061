//! Raft's requests to other nodes.
//!
//! Every failure of transport is `Unreachable`, which makes Raft back off. `stream_append` is left to OpenRaft's
//! sequential default: it waits for its first request before it sends anything, so that a refused connection cannot
//! turn into a loop without a pause.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use vltava_metadata::Endpoint;
use vltava_peer::raft::{RaftClient, SnapshotHeader};

use crate::active_controller::LeaderContact;
use crate::encoding::encode_snapshot_meta;
use crate::identity::Identity;
use crate::pre_vote::{Backing, Candidacy};
use crate::types::{Member, Snapshot, TypeConfig, Vote};
use crate::wire;

/// An append is answered when the follower's disk has it, which may take longer than a heartbeat interval.
const MIN_APPEND_DEADLINE: Duration = Duration::from_millis(1000);

/// How long a candidacy waits for this node's own membership to be published.
const CANDIDATE_PATIENCE: Duration = Duration::from_millis(50);

/// Makes the clients of one node.
pub(crate) struct Network {
    pub identity: Arc<Identity>,
    pub backing: Arc<Mutex<Backing>>,
    pub leader_contact: Arc<LeaderContact>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerConnection;

    async fn new_client(&mut self, target: u64, member: &Member) -> PeerConnection {
        PeerConnection {
            identity: self.identity.clone(),
            backing: self.backing.clone(),
            leader_contact: self.leader_contact.clone(),
            target,
            member: member.clone(),
            client: None,
        }
    }
}

/// One node as Raft's sender sees it, with the directory that the membership recorded when the sender was made.
pub(crate) struct PeerConnection {
    identity: Arc<Identity>,
    backing: Arc<Mutex<Backing>>,
    leader_contact: Arc<LeaderContact>,
    target: u64,
    member: Member,
    /// With the endpoint it was made for.
    client: Option<(Endpoint, RaftClient)>,
}

impl PeerConnection {
    fn client(&mut self) -> RaftClient {
        let endpoint = self.identity.endpoint_of(self.target).unwrap_or_else(|| self.member.endpoint.clone());
        match &self.client {
            Some((current, client)) if *current == endpoint => client.clone(),
            _ => {
                let client = RaftClient::new(&endpoint);
                self.client = Some((endpoint, client.clone()));
                client
            }
        }
    }

    fn envelope(&self) -> vltava_peer::raft::Envelope {
        self.identity.envelope(self.target, self.member.directory_id)
    }

    /// The second rule of [`crate::identity`].
    async fn check_candidate(&self) -> Result<(), RPCError<TypeConfig>> {
        if self.identity.wait_to_stand_for_election(CANDIDATE_PATIENCE).await {
            return Ok(());
        }
        Err(RPCError::Unreachable(Unreachable::from_string("this directory is not recorded as a voter")))
    }
}

impl RaftNetworkV2<TypeConfig> for PeerConnection {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = option.hard_ttl().max(MIN_APPEND_DEADLINE);
        let request = wire::append_to_wire(self.envelope(), &request);
        let response = self.client().append_entries(request, deadline).await.map_err(unreachable)?;
        wire::appended_from_wire(response).map_err(unreachable)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.check_candidate().await?;
        let request = wire::vote_request_to_wire(self.envelope(), &request);
        let response = self.client().vote(request, option.hard_ttl()).await.map_err(unreachable)?;
        self.leader_contact.learn(response.leader_id, Duration::from_millis(response.leader_silence_ms));
        wire::voted_from_wire(response).map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.check_candidate().await?;
        if !self.backing.lock().back(Candidacy::of(&request), Instant::now()) {
            return Err(unreachable("this node backs another candidate"));
        }
        let request = wire::vote_request_to_wire(self.envelope(), &request);
        let response = self.client().pre_vote(request, option.hard_ttl()).await.map_err(unreachable)?;
        wire::voted_from_wire(response).map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let header = SnapshotHeader {
            envelope: Some(self.envelope()),
            vote: Some(wire::vote_to_wire(&vote)),
            meta: encode_snapshot_meta(&snapshot.meta),
            length: snapshot.snapshot.len() as u64,
        };
        let client = self.client();
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            response = client.install_snapshot(header, snapshot.snapshot, option.hard_ttl()) => {
                let response = response.map_err(unreachable).map_err(StreamingError::from)?;
                let vote = wire::vote_from_wire(response.vote).map_err(unreachable).map_err(StreamingError::from)?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire::transfer_to_wire(self.envelope(), &request);
        let response = self.client().transfer_leader(request, option.hard_ttl()).await.map_err(unreachable)?;
        if response.accepted {
            Ok(Ok(()))
        } else {
            Err(RPCError::Unreachable(Unreachable::from_string("the node declined to take over")))
        }
    }
}

fn unreachable(error: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}
