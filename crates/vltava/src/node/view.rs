//! What probes and metrics see of a running node.

use std::sync::Arc;

use tokio::sync::watch;
use vltava_broker::Broker;
use vltava_broker::lifecycle::BrokerState;
use vltava_metadata::ClusterImage;
use vltava_quorum::Handle;
use vltava_types::BrokerId;

/// A running node, to look at. Cheap to clone.
#[derive(Clone)]
pub struct NodeView {
    pub(super) node_id: BrokerId,
    pub(super) quorum: Handle,
    pub(super) broker: Option<BrokerView>,
}

/// What a node with the broker role shows besides.
#[derive(Clone)]
pub(super) struct BrokerView {
    pub(super) broker: Arc<Broker>,
    pub(super) state: watch::Receiver<BrokerState>,
}

/// Why a node should not be sent clients, nor the next one be restarted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    #[error("the metadata quorum has no leader")]
    NoQuorum,
    #[error("the broker is not registered with the controller yet")]
    Starting,
    #[error("the controller has fenced the broker, or has not let it in yet")]
    Fenced,
    #[error("the broker is shutting down")]
    ShuttingDown,
    #[error("{count} of its replicas are not in sync, {example} among them")]
    CatchingUp { count: usize, example: String },
}

impl NodeView {
    /// For the simulator, which looks into its brokers.
    #[cfg(vltava_sim)]
    #[must_use]
    pub fn broker(&self) -> Option<&Arc<Broker>> {
        self.broker.as_ref().map(|running| &running.broker)
    }

    /// The newest image, for the simulator.
    #[cfg(vltava_sim)]
    #[must_use]
    pub fn image(&self) -> Arc<ClusterImage> {
        self.quorum.images().borrow().clone()
    }

    /// The controller as this node knows it, for the simulator.
    #[cfg(vltava_sim)]
    #[must_use]
    pub fn controller(&self) -> Option<BrokerId> {
        *self.quorum.leader().borrow()
    }

    /// Whether the node serves and all its replicas are in sync: only then may another broker be stopped.
    pub fn readiness(&self) -> Result<(), Unready> {
        match &self.broker {
            Some(broker) => broker_readiness(*broker.state.borrow(), &self.quorum.images().borrow(), self.node_id),
            None if self.quorum.leader().borrow().is_some() => Ok(()),
            None => Err(Unready::NoQuorum),
        }
    }
}

fn broker_readiness(state: BrokerState, image: &ClusterImage, node_id: BrokerId) -> Result<(), Unready> {
    match state {
        BrokerState::Starting => return Err(Unready::Starting),
        BrokerState::Fenced => return Err(Unready::Fenced),
        BrokerState::ShuttingDown | BrokerState::Stopped => return Err(Unready::ShuttingDown),
        BrokerState::Running => {}
    }
    let mut behind = image
        .partitions()
        .filter(|(_, partition)| partition.replicas.contains(&node_id) && !partition.isr.contains(&node_id));
    let Some((first, _)) = behind.next() else { return Ok(()) };
    let topic = image.topic_name(first.topic_id).unwrap_or_default();
    Err(Unready::CatchingUp { count: 1 + behind.count(), example: format!("{topic}-{}", first.partition) })
}

#[cfg(test)]
mod tests {
    use vltava_broker::lifecycle::BrokerState;
    use vltava_metadata::{ClusterImage, MetadataRecord, PartitionRecord};
    use vltava_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

    use super::{Unready, broker_readiness};

    /// One topic whose partition 0 has replicas 1 and 2 and this ISR, as broker 2 sees it.
    fn check(state: BrokerState, isr: &[i32], expected: Result<(), &str>) {
        let topic_id = TopicId::from_random([1; 16]);
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let mut image = ClusterImage::default();
        image.replay(&MetadataRecord::Topic { topic_id, name: "events".to_owned() });
        image.replay(&MetadataRecord::Partition(PartitionRecord {
            topic_id,
            partition: PartitionIndex(0),
            replicas: ids(&[1, 2]),
            isr: ids(isr),
            eligible_leader_replicas: vec![],
            last_known_leader: None,
            adding_replicas: vec![],
            removing_replicas: vec![],
            leader: Some(BrokerId(1)),
            leader_recovering: false,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
        }));
        let readiness = broker_readiness(state, &image, BrokerId(2)).map_err(|unready: Unready| unready.to_string());
        assert_eq!(readiness, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_broker_is_ready_when_it_runs_and_its_replicas_are_in_sync() {
        check(BrokerState::Running, &[1, 2], Ok(()));
        check(BrokerState::Running, &[1], Err("1 of its replicas are not in sync, events-0 among them"));
        check(BrokerState::Fenced, &[1, 2], Err("the controller has fenced the broker, or has not let it in yet"));
        check(BrokerState::ShuttingDown, &[1, 2], Err("the broker is shutting down"));
    }
}
