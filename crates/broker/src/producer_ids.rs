//! Producer ids for idempotent producers, taken from the controller in blocks (KIP-730).

use std::time::Duration;

use tokio::sync::Mutex;
use vltava_metadata::controller::{ControllerRequest, ControllerResponse, ProducerIdBlock};
use vltava_types::{ErrorCode, ProducerId};

use crate::Broker;

const ALLOCATION_TIMEOUT: Duration = Duration::from_secs(5);

/// The rest of this broker's block. Ids of a block that is lost with the process are never given out again.
#[derive(Default)]
pub struct ProducerIds {
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    next: i64,
    end: i64,
}

impl Rest {
    fn take(&mut self) -> Option<ProducerId> {
        let id = self.next;
        (id < self.end).then(|| {
            self.next += 1;
            ProducerId(id)
        })
    }

    fn refill(&mut self, block: ProducerIdBlock) {
        self.next = block.first.value();
        self.end = block.first.value() + i64::from(block.length);
    }
}

impl ProducerIds {
    /// An id that no producer of this cluster ever had. One caller at a time asks the controller; the others wait for
    /// its block.
    pub async fn next(&self, broker: &Broker) -> Result<ProducerId, ErrorCode> {
        let mut rest = self.rest.lock().await;
        if let Some(id) = rest.take() {
            return Ok(id);
        }
        rest.refill(allocate(broker).await?);
        // A controller that gives out empty blocks is treated as one that does not answer.
        rest.take().ok_or(ErrorCode::CoordinatorLoadInProgress)
    }
}

/// Every failure is COORDINATOR_LOAD_IN_PROGRESS, as in Kafka: producers retry it.
async fn allocate(broker: &Broker) -> Result<ProducerIdBlock, ErrorCode> {
    let image = broker.image();
    let registration = image.broker(broker.node_id).ok_or(ErrorCode::CoordinatorLoadInProgress)?;
    let request =
        ControllerRequest::AllocateProducerIds { broker_id: broker.node_id, broker_epoch: registration.broker_epoch };
    match broker.ask_controller(request, ALLOCATION_TIMEOUT).await {
        Ok(ControllerResponse::AllocateProducerIds(Ok(block))) => Ok(block),
        Ok(ControllerResponse::AllocateProducerIds(Err(error))) => {
            tracing::warn!("no producer ids from the controller: {} {}", error.code, error.message);
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
        Ok(_) | Err(_) => Err(ErrorCode::CoordinatorLoadInProgress),
    }
}
