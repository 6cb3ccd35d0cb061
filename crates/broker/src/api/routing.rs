//! From names, ids and indexes of a request to the partitions hosted here, and to those who lead them otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;

use vltava_metadata::ClusterImage;
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, PartitionIndex, TopicId, TopicPartition};

use crate::Broker;
use crate::partition::Partition;

/// The partition if it is hosted here. One that exists elsewhere is NOT_LEADER_OR_FOLLOWER: the client's metadata are
/// old.
pub fn hosted_partition(
    broker: &Broker,
    image: &ClusterImage,
    topic_id: TopicId,
    partition: i32,
) -> Result<Arc<Partition>, ErrorCode> {
    let partition = PartitionIndex(partition);
    if image.partition(topic_id, partition).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    broker.replicas.partition(TopicPartition { topic_id, partition }).ok_or(ErrorCode::NotLeaderOrFollower)
}

/// As [`hosted_partition`], for requests that name their topics.
pub fn hosted_partition_by_name(
    broker: &Broker,
    image: &ClusterImage,
    topic: &str,
    partition: i32,
) -> Result<Arc<Partition>, ErrorCode> {
    let topic_id = image.topic_id(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    hosted_partition(broker, image, topic_id, partition)
}

/// The epoch that a client says it believes in; -1 is none (KIP-320).
pub fn epoch_of_client(leader_epoch: i32) -> Option<LeaderEpoch> {
    (leader_epoch >= 0).then_some(LeaderEpoch(leader_epoch))
}

/// Leaders named in a response, so that clients find them without asking for metadata first (KIP-951).
#[derive(Default)]
pub struct LeaderHints {
    leaders: BTreeSet<BrokerId>,
}

/// Where a named leader is reached.
pub struct NodeAddress {
    pub node_id: BrokerId,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

impl LeaderHints {
    /// The leader of a partition by the newest image: the one that the request began with may be what misled it.
    pub fn name(&mut self, broker: &Broker, partition: TopicPartition) -> Option<(BrokerId, LeaderEpoch)> {
        let image = broker.image();
        let partition = image.partition(partition.topic_id, partition.partition)?;
        let leader = partition.leader?;
        self.leaders.insert(leader);
        Some((leader, partition.leader_epoch))
    }

    /// The endpoints, on the client's listener, of the leaders named so far.
    pub fn addresses(&self, broker: &Broker, listener: &str) -> Vec<NodeAddress> {
        let image = broker.image();
        let address = |node_id: &BrokerId| {
            let registration = image.broker(*node_id)?;
            let endpoint = registration.listeners.get(listener)?;
            Some(NodeAddress {
                node_id: *node_id,
                host: endpoint.host.clone(),
                port: endpoint.port,
                rack: registration.rack.clone(),
            })
        };
        self.leaders.iter().filter_map(address).collect()
    }
}
