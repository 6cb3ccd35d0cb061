//! The cluster as of one metadata offset. Immutable once published; holders keep theirs while newer ones appear.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_types::{BrokerId, LeaderEpoch, MetadataOffset, PartitionEpoch, PartitionIndex, ProducerId, TopicId};

use crate::record::{BrokerRegistration, ConfigResource, MetadataRecord};

/// Everything the quorum has agreed on. Cloning is cheap: large parts are shared and copied on write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterImage {
    /// The last entry replayed.
    pub offset: MetadataOffset,
    /// The term of that entry: the controller epoch.
    pub term: i64,
    /// Empty until the first controller has formed the cluster.
    pub cluster_id: String,
    pub brokers: Arc<BTreeMap<BrokerId, Arc<BrokerImage>>>,
    pub topics: Arc<BTreeMap<TopicId, Arc<TopicImage>>>,
    pub topic_ids: Arc<BTreeMap<String, TopicId>>,
    pub configs: Arc<BTreeMap<ConfigResource, Arc<ConfigImage>>>,
    pub features: Arc<BTreeMap<String, i16>>,
    pub next_producer_id: ProducerId,
}

/// A registered node.
pub type BrokerImage = BrokerRegistration;

/// The dynamic configs of one resource, by name.
pub type ConfigImage = BTreeMap<String, String>;

/// A topic with its partitions, which are numbered from 0 without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    pub topic_id: TopicId,
    pub name: String,
    pub partitions: Vec<Arc<PartitionImage>>,
}

/// A partition as the controller last decided it. Field meanings are those of [`crate::PartitionRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub eligible_leader_replicas: Vec<BrokerId>,
    pub last_known_leader: Option<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    pub leader: Option<BrokerId>,
    pub leader_recovering: bool,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
}

impl ClusterImage {
    /// Applies one committed record. The only code that changes an image.
    pub fn replay(&mut self, _record: &MetadataRecord) {
        unimplemented!("written with the controller's decisions")
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topic_ids.get(name).and_then(|id| self.topics.get(id))
    }

    /// The topic of this identity.
    #[must_use]
    pub fn topic(&self, topic_id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&topic_id)
    }

    /// The partition, if topic and index exist.
    #[must_use]
    pub fn partition(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<&Arc<PartitionImage>> {
        let index = usize::try_from(partition.value()).ok()?;
        self.topics.get(&topic_id)?.partitions.get(index)
    }

    /// The registration of a node.
    #[must_use]
    pub fn broker(&self, broker_id: BrokerId) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&broker_id)
    }

    /// A dynamic config as set on exactly this resource.
    #[must_use]
    pub fn config(&self, resource: &ConfigResource, name: &str) -> Option<&str> {
        self.configs.get(resource)?.get(name).map(String::as_str)
    }
}
