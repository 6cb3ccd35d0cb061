//! The quorum as the broker sees it.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_broker::controller::{Controller, ControllerUnavailable, QuorumStatus, ReplicaStatus, Voters};
use vltava_metadata::ClusterImage;
use vltava_metadata::controller::{ControllerRequest, ControllerResponse};
use vltava_quorum::Handle;
use vltava_types::BrokerId;

pub struct QuorumController {
    quorum: Handle,
}

impl QuorumController {
    pub fn new(quorum: Handle) -> Self {
        Self { quorum }
    }
}

impl Controller for QuorumController {
    fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.quorum.images()
    }

    fn call(
        &self,
        request: ControllerRequest,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<ControllerResponse, ControllerUnavailable>> {
        Box::pin(async move { self.quorum.call(request, deadline).await.map_err(|_unavailable| ControllerUnavailable) })
    }

    fn leader(&self) -> watch::Receiver<Option<BrokerId>> {
        self.quorum.leader()
    }

    fn quorum_status(&self) -> QuorumStatus {
        quorum_status(self.quorum.status())
    }

    fn voters(&self) -> Voters {
        let vltava_quorum::Voters { sets, endpoints } = self.quorum.voters();
        Voters { sets, endpoints }
    }

    fn leader_quorum_status(&self, deadline: Instant) -> BoxFuture<'_, Result<QuorumStatus, ControllerUnavailable>> {
        Box::pin(async move {
            let status = self.quorum.leader_status(deadline).await.map_err(|_unavailable| ControllerUnavailable)?;
            Ok(quorum_status(status))
        })
    }
}

fn quorum_status(status: vltava_quorum::QuorumStatus) -> QuorumStatus {
    QuorumStatus {
        leader: status.leader,
        term: status.term,
        high_watermark: status.high_watermark,
        voters: status.voters.into_iter().map(replica_status).collect(),
        observers: status.observers.into_iter().map(replica_status).collect(),
    }
}

fn replica_status(status: vltava_quorum::ReplicaStatus) -> ReplicaStatus {
    ReplicaStatus {
        node_id: status.node_id,
        directory_id: status.directory_id,
        log_end_offset: status.log_end_offset,
        last_fetch: status.last_fetch,
        last_caught_up: status.last_caught_up,
    }
}
