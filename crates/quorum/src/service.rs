//! What this node answers to other nodes.

use std::sync::Arc;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::raft::AppendEntriesResponse as RaftAppendEntriesResponse;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use vltava_metadata::{Endpoint, codec};
use vltava_peer::CallError;
use vltava_peer::controller::{ControllerCall, ControllerHandler, ControllerReply};
use vltava_peer::raft::{
    AppendEntriesRequest, AppendEntriesResponse, DescribeResponse, Envelope, JoinRequest, JoinResponse, RaftHandler,
    SnapshotHeader, SnapshotResponse, StatusResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use vltava_types::BrokerId;

use crate::active_controller::{Event, LeaderContact, Request};
use crate::encoding::decode_snapshot_meta;
use crate::identity::{Identity, directory_from_wire, directory_to_wire, incarnation_to_wire, membership_index};
use crate::log_store::LogStore;
use crate::membership::Join;
use crate::pre_vote::{Backing, Candidacy};
use crate::types::{Member, Raft, Snapshot, SnapshotMeta, TypeConfig};
use crate::{status, wire};

/// The handlers of the control plane.
pub(crate) struct Service {
    pub identity: Arc<Identity>,
    pub log_store: LogStore,
    pub raft: Raft,
    pub joins: mpsc::Sender<Join>,
    pub requests: mpsc::Sender<Request>,
    pub events: mpsc::Sender<Event>,
    pub leader_contact: Arc<LeaderContact>,
    pub backing: Arc<Mutex<Backing>>,
}

impl RaftHandler for Service {
    async fn append_entries(&self, request: AppendEntriesRequest) -> Result<AppendEntriesResponse, CallError> {
        self.admit(request.envelope.as_ref()).await?;
        let sender_id = request.envelope.as_ref().map(|envelope| envelope.sender_id);
        let request = wire::append_from_wire(request)?;
        let response = self.raft.append_entries(request).await.map_err(failed)?;
        if let (Some(leader_id), false) = (sender_id, matches!(response, RaftAppendEntriesResponse::HigherVote(_))) {
            self.leader_contact.heard_from(leader_id);
        }
        Ok(wire::appended_to_wire(&response))
    }

    async fn vote(&self, request: VoteRequest) -> Result<VoteResponse, CallError> {
        self.admit(request.envelope.as_ref()).await?;
        self.check_candidate(request.envelope.as_ref())?;
        let response = self.raft.vote(wire::vote_request_from_wire(request)?).await.map_err(failed)?;
        let (leader_id, silence) = self.leader_contact.silence();
        let leader_silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        Ok(VoteResponse { leader_id, leader_silence_ms, ..wire::voted_to_wire(&response) })
    }

    async fn pre_vote(&self, request: VoteRequest) -> Result<VoteResponse, CallError> {
        self.admit(request.envelope.as_ref()).await?;
        self.check_candidate(request.envelope.as_ref())?;
        let request = wire::vote_request_from_wire(request)?;
        let candidacy = Candidacy::of(&request);
        let mut response = self.raft.pre_vote(request).await.map_err(failed)?;
        response.vote_granted = response.vote_granted && self.backing.lock().back(candidacy, Instant::now());
        Ok(wire::voted_to_wire(&response))
    }

    async fn transfer_leader(&self, request: TransferLeaderRequest) -> Result<TransferLeaderResponse, CallError> {
        self.admit(request.envelope.as_ref()).await?;
        let request = wire::transfer_from_wire(request)?;
        let response = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(TransferLeaderResponse { accepted: response.is_ok() })
    }

    fn check_snapshot(&self, header: &SnapshotHeader) -> Result<(), CallError> {
        self.identity.check(header.envelope.as_ref())?;
        snapshot_meta(header).map(|_| ())
    }

    async fn install_snapshot(&self, header: SnapshotHeader, snapshot: Bytes) -> Result<SnapshotResponse, CallError> {
        self.admit(header.envelope.as_ref()).await?;
        let meta = snapshot_meta(&header)?;
        codec::decode_records(&snapshot).map_err(|error| CallError::Refused(error.to_string()))?;
        let vote = wire::vote_from_wire(header.vote)?;
        let response = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await.map_err(stopped)?;
        Ok(SnapshotResponse { vote: Some(wire::vote_to_wire(&response.vote)) })
    }

    async fn describe(&self) -> DescribeResponse {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leader = metrics.current_leader.and_then(|leader| self.identity.endpoint_of(leader));
        DescribeResponse {
            node_id: self.identity.node_id,
            directory_id: directory_to_wire(self.identity.directory_id),
            cluster_id: self.identity.cluster_id(),
            pristine: self.log_store.is_pristine(),
            term: metrics.current_term,
            leader_id: metrics.current_leader,
            leader_port: leader.as_ref().map_or(0, |leader| u32::from(leader.port)),
            leader_host: leader.map_or_else(String::new, |leader| leader.host),
            incarnation_id: incarnation_to_wire(self.identity.incarnation_id),
        }
    }

    async fn status(&self) -> StatusResponse {
        let metrics = self.raft.metrics().borrow_watched().clone();
        status::to_wire(&status::current(self.identity.node_id, &metrics))
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinResponse, CallError> {
        let envelope = request.envelope.ok_or_else(|| wire::malformed("nobody asks to join"))?;
        let cluster_id = self.identity.cluster_id();
        if !envelope.cluster_id.is_empty() && envelope.cluster_id != cluster_id {
            return Err(CallError::Refused(format!("this is cluster {cluster_id}, not {}", envelope.cluster_id)));
        }
        let directory_id = directory_from_wire(&envelope.sender_directory_id)
            .filter(|directory_id| !directory_id.is_zero())
            .ok_or_else(|| wire::malformed("a node without a directory"))?;
        let port = u16::try_from(request.port).map_err(|_| wire::malformed("a port beyond 65535"))?;
        let endpoint = Endpoint { host: request.host, port, security_protocol: request.security_protocol };
        let (reply, answer) = oneshot::channel();
        let join = Join { node_id: envelope.sender_id, member: Member { directory_id, endpoint }, reply };
        let busy = || CallError::Unreachable("too many nodes are joining".to_owned());
        self.joins.try_send(join).map_err(|_| busy())?;
        answer.await.map_err(|_| busy())
    }
}

impl Service {
    /// Checks whom a request is meant for, and learns the cluster's id from the first one that is meant for this node.
    async fn admit(&self, envelope: Option<&Envelope>) -> Result<(), CallError> {
        self.identity.check(envelope)?;
        let cluster_id = envelope.map_or("", |envelope| &envelope.cluster_id);
        if self.identity.cluster_id().is_empty() && !cluster_id.is_empty() {
            let saved = self.log_store.save_cluster_id(cluster_id).await;
            saved.map_err(|error| CallError::Unreachable(error.to_string()))?;
            self.identity.set_cluster_id(cluster_id);
        }
        Ok(())
    }

    /// A candidate checks by itself that its directory may vote. This is the second pair of eyes: it refuses a node
    /// that this log records with another directory, unless the candidate's log may have recorded a later one.
    fn check_candidate(&self, envelope: Option<&Envelope>) -> Result<(), CallError> {
        let (Some(envelope), Some(membership)) = (envelope, self.identity.membership()) else {
            return Ok(());
        };
        let claimed = directory_from_wire(&envelope.sender_directory_id);
        match membership.get_node(&envelope.sender_id) {
            Some(member)
                if Some(member.directory_id) != claimed
                    && envelope.membership_index <= membership_index(&membership) =>
            {
                Err(CallError::Refused(format!("node {} is recorded with another directory", envelope.sender_id)))
            }
            _ => Ok(()),
        }
    }
}

impl ControllerHandler for Service {
    async fn call(&self, call: ControllerCall) -> Result<ControllerReply, CallError> {
        let cluster_id = self.identity.cluster_id();
        if !call.cluster_id.is_empty() && call.cluster_id != cluster_id {
            return Err(CallError::Refused(format!("this is cluster {cluster_id}, not {}", call.cluster_id)));
        }
        let request = codec::decode_request(&call.request).map_err(|error| CallError::Refused(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let overloaded = || CallError::Unreachable("too many requests are waiting".to_owned());
        self.requests.try_send(Request { request, reply }).map_err(|_| overloaded())?;
        Ok(match answer.await.ok().flatten() {
            Some(response) => ControllerReply::Response(codec::encode_response(&response).into()),
            None => ControllerReply::NotController { leader_id: self.raft.metrics().borrow_watched().current_leader },
        })
    }

    fn session_reset(&self, node_id: u64) {
        let Ok(node_id) = i32::try_from(node_id) else {
            return;
        };
        // If the queue is full, expiry of the broker's session fences it a little later.
        let _ = self.events.try_send(Event::SessionReset(BrokerId(node_id)));
    }
}

/// OpenRaft asserts that a snapshot is consistent, so it is checked first.
fn snapshot_meta(header: &SnapshotHeader) -> Result<SnapshotMeta, CallError> {
    let meta = decode_snapshot_meta(header.meta.clone()).map_err(|error| CallError::Refused(error.to_string()))?;
    if meta.last_log_id.is_none() || meta.last_membership.log_id() > &meta.last_log_id {
        return Err(wire::malformed("a snapshot that contradicts itself"));
    }
    Ok(meta)
}

fn failed(error: openraft::errors::RaftError<TypeConfig>) -> CallError {
    CallError::Unreachable(error.to_string())
}

fn stopped(error: Fatal<TypeConfig>) -> CallError {
    CallError::Unreachable(error.to_string())
}
