//! Who this node is, and who it takes others for.
//!
//! A Raft node id must never be used with an empty log by a node that had voted or acknowledged entries under it
//! (trap 13). So identity is the pair of node id and directory id: the membership records both, every request names
//! both, and a node
//!
//! - accepts only requests meant for its own directory: nothing that it answers is ever counted for a directory that
//!   was wiped;
//! - stands for election only while the membership it follows records its own directory as a voter.
//!
//! The second rule matters while a wiped node catches up: it then replays memberships that list its old directory.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::timeout;
use vltava_metadata::Endpoint;
use vltava_peer::CallError;
use vltava_peer::raft::Envelope;
use vltava_types::{DirectoryId, IncarnationId, Uuid};

use crate::types::{Member, Raft, StoredMembership};

/// Shared by everything that talks to other nodes.
pub(crate) struct Identity {
    pub node_id: u64,
    pub directory_id: DirectoryId,
    /// This run of the process.
    pub incarnation_id: IncarnationId,
    /// Where this node answers others.
    pub endpoint: Endpoint,
    /// `controller.quorum.voters`, this node among them if it votes.
    pub voters: BTreeMap<u64, Endpoint>,
    /// Other nodes to ask for the leader.
    pub bootstrap_servers: Vec<Endpoint>,
    cluster_id: Mutex<String>,
    raft: OnceLock<Raft>,
}

impl Identity {
    pub fn new(
        node_id: u64,
        directory_id: DirectoryId,
        incarnation_id: IncarnationId,
        endpoint: Endpoint,
        voters: BTreeMap<u64, Endpoint>,
        bootstrap_servers: Vec<Endpoint>,
        cluster_id: String,
    ) -> Self {
        let (cluster_id, raft) = (Mutex::new(cluster_id), OnceLock::new());
        Self { node_id, directory_id, incarnation_id, endpoint, voters, bootstrap_servers, cluster_id, raft }
    }

    /// Raft needs the network, which needs this, so it is known a moment later.
    pub fn set_raft(&self, raft: Raft) {
        assert!(self.raft.set(raft).is_ok(), "raft is started once");
    }

    /// Empty as long as this node belongs to no cluster.
    pub fn cluster_id(&self) -> String {
        self.cluster_id.lock().clone()
    }

    pub fn set_cluster_id(&self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.cluster_id.lock());
    }

    /// How the membership should record this node.
    pub fn member(&self) -> Member {
        Member { directory_id: self.directory_id, endpoint: self.endpoint.clone() }
    }

    /// The membership that this node follows: the latest in its log, committed or not.
    pub fn membership(&self) -> Option<Arc<StoredMembership>> {
        Some(Arc::clone(&self.raft.get()?.metrics().borrow_watched().membership_config))
    }

    /// Whether this node's own log says that this directory may vote.
    pub fn may_stand_for_election(&self) -> bool {
        self.membership().is_some_and(|membership| is_recorded_voter(&membership, self.node_id, self.directory_id))
    }

    /// Waits a moment for that to become true: what is published of the membership may lag behind Raft's own view.
    pub async fn wait_to_stand_for_election(&self, patience: Duration) -> bool {
        let Some(raft) = self.raft.get() else {
            return false;
        };
        let mut metrics = raft.metrics();
        let recorded = async {
            while !self.may_stand_for_election() {
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(patience, recorded).await.unwrap_or(false)
    }

    /// Where a node answers: as configured, else as the membership records it.
    pub fn endpoint_of(&self, node_id: u64) -> Option<Endpoint> {
        if let Some(endpoint) = self.voters.get(&node_id) {
            return Some(endpoint.clone());
        }
        self.membership()?.get_node(&node_id).map(|member| member.endpoint.clone())
    }

    /// Addresses a request.
    pub fn envelope(&self, target_id: u64, target_directory_id: DirectoryId) -> Envelope {
        Envelope {
            cluster_id: self.cluster_id(),
            sender_id: self.node_id,
            sender_directory_id: directory_to_wire(self.directory_id),
            target_id,
            target_directory_id: directory_to_wire(target_directory_id),
            membership_index: self.membership().and_then(|membership| membership_index(&membership)),
        }
    }

    /// Refuses a request that is meant for another node, another cluster, or a directory that is no more.
    pub fn check(&self, envelope: Option<&Envelope>) -> Result<(), CallError> {
        let refuse = |reason: String| Err(CallError::Refused(reason));
        let Some(envelope) = envelope else {
            return refuse("the request does not say whom it is meant for".to_owned());
        };
        if envelope.target_id != self.node_id {
            return refuse(format!("this is node {}, not {}", self.node_id, envelope.target_id));
        }
        let cluster_id = self.cluster_id.lock();
        if !cluster_id.is_empty() && !envelope.cluster_id.is_empty() && *cluster_id != envelope.cluster_id {
            return refuse(format!("this is cluster {cluster_id}, not {}", envelope.cluster_id));
        }
        if directory_from_wire(&envelope.target_directory_id) != Some(self.directory_id) {
            return refuse(format!("this is node {} with directory {}", self.node_id, self.directory_id));
        }
        Ok(())
    }
}

/// Where in the log a membership stands.
pub(crate) fn membership_index(membership: &StoredMembership) -> Option<u64> {
    membership.log_id().as_ref().map(|log_id| log_id.index)
}

/// Whether a membership lists this node, with this directory, as a voter.
pub(crate) fn is_recorded_voter(membership: &StoredMembership, node_id: u64, directory_id: DirectoryId) -> bool {
    membership.get_node(&node_id).is_some_and(|member| member.directory_id == directory_id)
        && membership.voter_ids().any(|voter| voter == node_id)
}

pub(crate) fn directory_to_wire(directory_id: DirectoryId) -> Bytes {
    Bytes::copy_from_slice(&directory_id.0.0)
}

pub(crate) fn incarnation_to_wire(incarnation_id: IncarnationId) -> Bytes {
    Bytes::copy_from_slice(&incarnation_id.0.0)
}

pub(crate) fn incarnation_from_wire(bytes: &[u8]) -> Option<IncarnationId> {
    bytes.try_into().ok().map(|bytes| IncarnationId(Uuid(bytes)))
}

pub(crate) fn directory_from_wire(bytes: &[u8]) -> Option<DirectoryId> {
    bytes.try_into().ok().map(|bytes| DirectoryId(Uuid(bytes)))
}
