//! What the rest of the process holds of the quorum.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use vltava_metadata::controller::{Controller, ControllerRequest, ControllerResponse};
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_types::{BrokerId, DirectoryId, MetadataOffset, TimestampMs};

/// One entry of `controller.quorum.voters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub endpoint: Endpoint,
}

/// What the quorum has to know of its node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    pub node_id: BrokerId,
    /// Where this node's control-plane server answers other nodes.
    pub peer: Endpoint,
    /// `controller.quorum.voters`. A node that is not among them follows as a learner. Empty: this node alone.
    pub voters: BTreeMap<BrokerId, Voter>,
    /// `metadata.log.dir`; the log is `__cluster_metadata-0` in it.
    pub metadata_log_dir: PathBuf,
    /// `cluster.id`, if configured: refused if the quorum has another one.
    pub cluster_id: Option<String>,
    /// `controller.quorum.election.timeout.ms`: a follower that hears nothing starts an election after between this
    /// and twice this time. 400 ms by default; Kafka's default is 1000.
    pub election_timeout: Duration,
    /// Entries after which a snapshot is taken and the log before it may go.
    pub snapshot_every: u64,
}

/// A running quorum member. Cheap to clone; the member stops when [`Handle::shutdown`] is called or the last clone
/// is dropped.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<()>,
}

impl Handle {
    /// Starts this node's member of the quorum on a runtime of its own, and returns once its log is open. Forming or
    /// joining the quorum goes on in the background. `controller` decides while this node leads.
    ///
    /// Control-plane connections must be offered to [`Handle::control_plane`] from now on.
    pub async fn start(config: QuorumConfig, controller: Controller) -> Result<Self, StartError> {
        unimplemented!()
    }

    /// The control-plane server (Raft and controller calls), running on the quorum's own runtime.
    pub fn control_plane(&self) -> Arc<vltava_peer::server::PlaneServer> {
        unimplemented!()
    }

    /// Every committed image, newest last. A receiver may skip images but never sees them out of order.
    pub fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        unimplemented!()
    }

    /// The quorum's leader as this node knows it.
    pub fn leader(&self) -> watch::Receiver<Option<BrokerId>> {
        unimplemented!()
    }

    /// Sends a request to the active controller, wherever it is, and retries changes of leader until `deadline`.
    /// An error leaves the outcome unknown: the records may commit later.
    pub async fn call(&self, request: ControllerRequest, deadline: Instant) -> Result<ControllerResponse, Unavailable> {
        unimplemented!()
    }

    pub fn status(&self) -> QuorumStatus {
        unimplemented!()
    }

    /// Leaves in order: hands leadership over if this node leads, then stops.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}

/// No controller answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no active controller answered in time")]
pub struct Unavailable;

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("metadata log directory: {0}")]
    Io(#[from] std::io::Error),
    #[error("the metadata directory belongs to node {found}, and this is node {configured}")]
    OtherNode { found: BrokerId, configured: BrokerId },
    #[error("the metadata directory belongs to cluster {found}, and cluster.id is {configured}")]
    OtherCluster { found: String, configured: String },
    #[error("consensus failed to start: {0}")]
    Consensus(String),
}

/// The quorum's leader and how far each member has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumStatus {
    pub leader: Option<BrokerId>,
    pub term: i64,
    /// The committed metadata offset.
    pub high_watermark: MetadataOffset,
    pub voters: Vec<ReplicaStatus>,
    pub observers: Vec<ReplicaStatus>,
}

/// A member of the quorum. Offsets and times are known on the leader only, and `None` elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub node_id: BrokerId,
    pub directory_id: DirectoryId,
    pub log_end_offset: Option<MetadataOffset>,
    pub last_fetch: Option<TimestampMs>,
    pub last_caught_up: Option<TimestampMs>,
}
