//! The replicas as other nodes reach them before they are there.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use vltava_broker::replica_manager::ReplicaManager;
use vltava_peer::replica::{FollowerFrames, Hello, LeaderFrame, ReplicaHandler};

/// Ends streams at once until the replicas are set; followers try again.
#[derive(Default)]
pub struct LateReplicas {
    replicas: OnceLock<Arc<ReplicaManager>>,
}

impl LateReplicas {
    pub fn set(&self, replicas: Arc<ReplicaManager>) {
        assert!(self.replicas.set(replicas).is_ok(), "replicas are opened once");
    }
}

impl ReplicaHandler for LateReplicas {
    async fn follow(&self, hello: Hello, frames: FollowerFrames, updates: mpsc::Sender<LeaderFrame>) {
        if let Some(replicas) = self.replicas.get() {
            replicas.follow(hello, frames, updates).await;
        }
    }
}
