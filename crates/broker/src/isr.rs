//! ISR changes on their way to the controller: batched, one request at a time, at most one change a partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use vltava_metadata::controller::{
    AlterPartition, AlterPartitions, AlteredPartition, ControllerRequest, ControllerResponse,
};
use vltava_replication::{IsrProposal, IsrRejection};
use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, TopicPartition};

use crate::controller::Controller;
use crate::partition::Partition;

/// How long the controller may take to answer. What is unanswered is asked again.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a call that did not bring everything through.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Proposals that wait to be sent. A partition has at most one that is unanswered, so this is bounded by their number.
#[derive(Default)]
pub struct IsrProposals {
    waiting: Mutex<BTreeMap<TopicPartition, IsrProposal>>,
    bell: Notify,
}

impl IsrProposals {
    /// Sends a proposal soon. A later one of the same partition replaces one that was not sent yet.
    pub fn add(&self, partition: TopicPartition, proposal: IsrProposal) {
        self.waiting.lock().insert(partition, proposal);
        self.bell.notify_one();
    }

    fn take(&self) -> BTreeMap<TopicPartition, IsrProposal> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// Sends proposals and hands the outcomes back, until it is dropped. A partition that is no longer hosted has no use for
/// its outcome.
pub(crate) async fn send_proposals(
    proposals: &IsrProposals,
    controller: Arc<dyn Controller>,
    broker_id: BrokerId,
    broker_epoch: impl Fn() -> BrokerEpoch,
    partition: impl Fn(TopicPartition) -> Option<Arc<Partition>>,
) {
    loop {
        proposals.bell.notified().await;
        let sent = proposals.take();
        if sent.is_empty() {
            continue;
        }
        let request = request(broker_id, broker_epoch(), &sent);
        let answer = controller.call(request, Instant::now() + CALL_TIMEOUT).await;
        let (outcomes, failure): (BTreeMap<_, _>, _) = match answer {
            Ok(ControllerResponse::AlterPartitions(Ok(outcomes))) => (outcomes.into_iter().collect(), None),
            Ok(ControllerResponse::AlterPartitions(Err(error))) => {
                tracing::warn!(code = %error.code, message = %error.message, "the controller refused isr changes");
                (BTreeMap::new(), Some(error.code))
            }
            Ok(other) => unreachable!("responses have their request's kind, and this is {other:?}"),
            Err(unavailable) => {
                tracing::warn!(%unavailable, "isr changes were not answered");
                (BTreeMap::new(), None)
            }
        };
        // What was refused may be asked again at once: give the images time to arrive.
        let pause = sent.len() > outcomes.values().filter(|outcome| outcome.is_ok()).count();
        hand_back(&sent, &outcomes, failure, &partition);
        if pause {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

fn request(
    broker_id: BrokerId,
    broker_epoch: BrokerEpoch,
    sent: &BTreeMap<TopicPartition, IsrProposal>,
) -> ControllerRequest {
    let partitions = sent.iter().map(|(partition, proposal)| AlterPartition {
        partition: *partition,
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        new_isr: proposal.new_isr.clone(),
        leader_recovered: true,
    });
    ControllerRequest::AlterPartitions(AlterPartitions { broker_id, broker_epoch, partitions: partitions.collect() })
}

fn hand_back(
    sent: &BTreeMap<TopicPartition, IsrProposal>,
    outcomes: &BTreeMap<TopicPartition, Result<AlteredPartition, ErrorCode>>,
    failure: Option<ErrorCode>,
    partition: impl Fn(TopicPartition) -> Option<Arc<Partition>>,
) {
    for (id, proposal) in sent {
        let Some(partition) = partition(*id) else { continue };
        match outcomes.get(id) {
            Some(Ok(altered)) => {
                let AlteredPartition { leader_epoch, partition_epoch, isr, .. } = altered;
                let isr = isr.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                tracing::info!(partition = %partition.name(), %leader_epoch, %partition_epoch, isr, "isr changed");
                partition.on_isr_accepted(altered.leader_epoch, altered.partition_epoch, &altered.isr);
            }
            Some(Err(code)) => {
                let leader_epoch = proposal.leader_epoch;
                tracing::info!(partition = %partition.name(), %leader_epoch, %code, "isr change refused");
                let rejection = IsrRejection::from_code(Some(*code));
                partition.on_isr_rejected(proposal.leader_epoch, proposal.partition_epoch, rejection);
            }
            None => {
                let rejection = IsrRejection::from_code(failure);
                partition.on_isr_rejected(proposal.leader_epoch, proposal.partition_epoch, rejection);
            }
        }
    }
}
