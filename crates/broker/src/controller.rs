//! How the broker reaches the metadata quorum. The binary implements this with the quorum's handle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_metadata::controller::{ControllerRequest, ControllerResponse};
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_types::{BrokerId, DirectoryId, MetadataOffset, TimestampMs};

/// The metadata quorum as a broker sees it.
pub trait Controller: Send + Sync + 'static {
    /// Every committed image, newest last. A receiver may skip images but never sees them out of order.
    fn images(&self) -> watch::Receiver<Arc<ClusterImage>>;

    /// Sends a request to the active controller, wherever it is, and retries changes of leader until `deadline`.
    /// An error leaves the outcome unknown: the records may commit later.
    fn call(
        &self,
        request: ControllerRequest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ControllerResponse, ControllerUnavailable>>;

    /// The active controller as this node knows it. A node that is alone never has another.
    fn leader(&self) -> watch::Receiver<Option<BrokerId>> {
        watch::channel(None).1
    }

    /// What this node knows of the quorum.
    fn quorum_status(&self) -> QuorumStatus;

    /// Who may vote in the quorum, as far as this node knows. Nobody, if it does not know.
    fn voters(&self) -> Voters {
        Voters::default()
    }

    /// What the leader knows of the quorum, asked of it wherever it is, until `deadline`. A node that is alone knows it
    /// itself.
    fn leader_quorum_status(&self, _deadline: Instant) -> BoxFuture<'_, Result<QuorumStatus, ControllerUnavailable>> {
        Box::pin(std::future::ready(Ok(self.quorum_status())))
    }
}

/// No controller answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no active controller answered in time")]
pub struct ControllerUnavailable;

/// The voters and where they answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// Sets of voters of which each may be the one whose majority is a quorum.
    pub sets: Vec<BTreeSet<BrokerId>>,
    pub endpoints: BTreeMap<BrokerId, Endpoint>,
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
