//! The replicas as other nodes reach them before they are there.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use vltava_broker::replica_manager::ReplicaManager;
use vltava_peer::CallError;
use vltava_peer::positions::{PositionsHandler, Question, Standing};
use vltava_peer::replica::{FollowerFrames, Hello, LeaderFrame, ReplicaHandler};
use vltava_types::ErrorCode;

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

impl PositionsHandler for LateReplicas {
    async fn find(&self, question: Question) -> Result<Vec<Result<Standing, ErrorCode>>, CallError> {
        match self.replicas.get() {
            Some(replicas) => replicas.find(question).await,
            None => Err(CallError::Refused("the logs are being opened".to_owned())),
        }
    }
}
