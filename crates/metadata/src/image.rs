//! The cluster as of one metadata offset. Immutable once published; holders keep theirs while newer ones appear.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, MetadataOffset, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
    TopicPartition,
};

use crate::record::{BrokerRegistration, ConfigResource, Endpoint, MetadataRecord, PartitionChange, PartitionRecord};

/// Everything the quorum has agreed on. Cloning is cheap: large parts are shared and copied on write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterImage {
    /// The last entry replayed. Set by the quorum, not by [`ClusterImage::replay`].
    pub offset: MetadataOffset,
    /// The term of that entry: the controller epoch. Set by the quorum, not by [`ClusterImage::replay`].
    pub term: i64,
    /// Empty until the first controller has formed the cluster.
    pub cluster_id: String,
    pub brokers: Arc<BTreeMap<BrokerId, Arc<BrokerImage>>>,
    pub topics: Arc<BTreeMap<TopicId, Arc<TopicImage>>>,
    pub topic_ids: Arc<BTreeMap<String, TopicId>>,
    pub configs: Arc<BTreeMap<ConfigResource, Arc<ConfigImage>>>,
    pub features: Arc<BTreeMap<String, i16>>,
    pub next_producer_id: ProducerId,
    /// The largest broker epoch ever given out, also to brokers since unregistered.
    pub last_broker_epoch: BrokerEpoch,
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
    ///
    /// A record that does not fit the image (a change of an unknown topic, say) was never decided on it: the metadata
    /// log and this node disagree, and a crash is better than two nodes that go on with different metadata.
    pub fn replay(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::ClusterId { cluster_id } => self.cluster_id.clone_from(cluster_id),
            MetadataRecord::RegisterBroker(registration) => {
                self.last_broker_epoch = self.last_broker_epoch.max(registration.broker_epoch);
                Arc::make_mut(&mut self.brokers).insert(registration.broker_id, Arc::new(registration.clone()));
            }
            MetadataRecord::BrokerRegistrationChange { broker_id, broker_epoch, fenced, in_controlled_shutdown } => {
                let broker =
                    Arc::make_mut(&mut self.brokers).get_mut(broker_id).expect("a changed broker is registered");
                assert_eq!(broker.broker_epoch, *broker_epoch, "a changed broker has the epoch of the change");
                let broker = Arc::make_mut(broker);
                broker.fenced = *fenced;
                broker.in_controlled_shutdown = *in_controlled_shutdown;
            }
            MetadataRecord::UnregisterBroker { broker_id, broker_epoch } => {
                self.last_broker_epoch = self.last_broker_epoch.max(*broker_epoch);
                Arc::make_mut(&mut self.brokers).remove(broker_id);
            }
            MetadataRecord::BrokerEpochs { last } => self.last_broker_epoch = self.last_broker_epoch.max(*last),
            MetadataRecord::Topic { topic_id, name } => {
                let topic = TopicImage { topic_id: *topic_id, name: name.clone(), partitions: vec![] };
                Arc::make_mut(&mut self.topics).insert(*topic_id, Arc::new(topic));
                Arc::make_mut(&mut self.topic_ids).insert(name.clone(), *topic_id);
            }
            MetadataRecord::RemoveTopic { topic_id } => self.remove_topic(*topic_id),
            MetadataRecord::Partition(record) => self.add_partition(record),
            MetadataRecord::PartitionChange(change) => self.change_partition(change),
            MetadataRecord::Config { resource, name, value } => self.set_config(resource, name, value.as_deref()),
            MetadataRecord::ProducerIds { next, .. } => self.next_producer_id = *next,
            MetadataRecord::FeatureLevel { name, level: 0 } => {
                Arc::make_mut(&mut self.features).remove(name);
            }
            MetadataRecord::FeatureLevel { name, level } => {
                Arc::make_mut(&mut self.features).insert(name.clone(), *level);
            }
            MetadataRecord::NoOp => {}
        }
    }

    /// Applies committed records in order.
    pub fn replay_all(&mut self, records: &[MetadataRecord]) {
        for record in records {
            self.replay(record);
        }
    }

    /// Records that, replayed over a default image, give this one but for `offset` and `term`: a snapshot's content.
    #[must_use]
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = vec![];
        if !self.cluster_id.is_empty() {
            records.push(MetadataRecord::ClusterId { cluster_id: self.cluster_id.clone() });
        }
        for (name, level) in self.features.iter() {
            records.push(MetadataRecord::FeatureLevel { name: name.clone(), level: *level });
        }
        if self.last_broker_epoch != BrokerEpoch::default() {
            records.push(MetadataRecord::BrokerEpochs { last: self.last_broker_epoch });
        }
        for broker in self.brokers.values() {
            records.push(MetadataRecord::RegisterBroker(BrokerRegistration::clone(broker)));
        }
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic { topic_id: topic.topic_id, name: topic.name.clone() });
            for (partition, image) in topic.indexed_partitions() {
                records.push(MetadataRecord::Partition(image.to_record(topic.topic_id, partition)));
            }
        }
        for (resource, configs) in self.configs.iter() {
            for (name, value) in configs.iter() {
                let (resource, name, value) = (resource.clone(), name.clone(), Some(value.clone()));
                records.push(MetadataRecord::Config { resource, name, value });
            }
        }
        if self.next_producer_id != ProducerId::default() {
            records.push(MetadataRecord::ProducerIds {
                broker_id: BrokerId::NONE,
                broker_epoch: BrokerEpoch::NONE,
                next: self.next_producer_id,
            });
        }
        records
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

    /// The identity of the topic of this name.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.topic_ids.get(name).copied()
    }

    /// The name of the topic of this identity.
    #[must_use]
    pub fn topic_name(&self, topic_id: TopicId) -> Option<&str> {
        self.topics.get(&topic_id).map(|topic| topic.name.as_str())
    }

    /// The partition, if topic and index exist.
    #[must_use]
    pub fn partition(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<&Arc<PartitionImage>> {
        self.topics.get(&topic_id)?.partition(partition)
    }

    /// All partitions, ordered by topic id and index.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &Arc<PartitionImage>)> {
        self.topics.values().flat_map(|topic| {
            topic.indexed_partitions().map(|(partition, image)| {
                let partition = TopicPartition { topic_id: topic.topic_id, partition };
                (partition, image)
            })
        })
    }

    /// The partitions that this broker leads.
    pub fn partitions_led_by(
        &self,
        broker_id: BrokerId,
    ) -> impl Iterator<Item = (TopicPartition, &Arc<PartitionImage>)> {
        self.partitions().filter(move |(_, image)| image.leader == Some(broker_id))
    }

    /// The partitions that this broker has a replica of, leading or following.
    pub fn partitions_hosted_by(
        &self,
        broker_id: BrokerId,
    ) -> impl Iterator<Item = (TopicPartition, &Arc<PartitionImage>)> {
        self.partitions().filter(move |(_, image)| image.replicas.contains(&broker_id))
    }

    /// The registration of a node.
    #[must_use]
    pub fn broker(&self, broker_id: BrokerId) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&broker_id)
    }

    /// The unfenced brokers, which clients are told of. Controller-only nodes are not among them.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.brokers.values().filter(|broker| broker.is_broker && !broker.fenced)
    }

    /// Whether this node, broker or not, is registered and unfenced.
    #[must_use]
    pub fn is_unfenced(&self, broker_id: BrokerId) -> bool {
        self.brokers.get(&broker_id).is_some_and(|broker| !broker.fenced)
    }

    /// Whether this broker is registered and unfenced. It may be shutting down.
    #[must_use]
    pub fn is_live(&self, broker_id: BrokerId) -> bool {
        self.brokers.get(&broker_id).is_some_and(|broker| broker.is_broker && !broker.fenced)
    }

    /// Whether this broker may lead partitions and join ISRs: unfenced and not shutting down.
    #[must_use]
    pub fn is_active(&self, broker_id: BrokerId) -> bool {
        self.is_live(broker_id) && !self.brokers[&broker_id].in_controlled_shutdown
    }

    /// Where a live broker answers clients on the listener of this name.
    #[must_use]
    pub fn endpoint(&self, broker_id: BrokerId, listener_name: &str) -> Option<&Endpoint> {
        self.brokers.get(&broker_id).filter(|broker| !broker.fenced)?.listeners.get(listener_name)
    }

    /// The leader of a partition and where it answers clients on the listener of this name.
    #[must_use]
    pub fn leader_endpoint(&self, partition: TopicPartition, listener_name: &str) -> Option<(BrokerId, &Endpoint)> {
        let leader = self.partition(partition.topic_id, partition.partition)?.leader?;
        Some((leader, self.endpoint(leader, listener_name)?))
    }

    /// A dynamic config as set on exactly this resource.
    #[must_use]
    pub fn config(&self, resource: &ConfigResource, name: &str) -> Option<&str> {
        self.configs.get(resource)?.get(name).map(String::as_str)
    }

    fn remove_topic(&mut self, topic_id: TopicId) {
        let topic = Arc::make_mut(&mut self.topics).remove(&topic_id).expect("a removed topic exists");
        Arc::make_mut(&mut self.topic_ids).remove(&topic.name);
        let resource = ConfigResource::Topic(topic_id);
        if self.configs.contains_key(&resource) {
            Arc::make_mut(&mut self.configs).remove(&resource);
        }
    }

    fn add_partition(&mut self, record: &PartitionRecord) {
        let topics = Arc::make_mut(&mut self.topics);
        let topic = Arc::make_mut(topics.get_mut(&record.topic_id).expect("a partition's topic exists"));
        let next = PartitionIndex(i32::try_from(topic.partitions.len()).expect("partitions are numbered by i32"));
        assert_eq!(record.partition, next, "partitions are numbered without gaps");
        topic.partitions.push(Arc::new(PartitionImage::from_record(record)));
    }

    fn change_partition(&mut self, change: &PartitionChange) {
        let topics = Arc::make_mut(&mut self.topics);
        let topic = Arc::make_mut(topics.get_mut(&change.topic_id).expect("a changed partition's topic exists"));
        let partition = usize::try_from(change.partition.value())
            .ok()
            .and_then(|index| topic.partitions.get_mut(index))
            .expect("a changed partition exists");
        Arc::make_mut(partition).apply(change);
    }

    fn set_config(&mut self, resource: &ConfigResource, name: &str, value: Option<&str>) {
        let configs = Arc::make_mut(&mut self.configs);
        let entries = Arc::make_mut(configs.entry(resource.clone()).or_default());
        match value {
            Some(value) => {
                entries.insert(name.to_owned(), value.to_owned());
            }
            None => {
                entries.remove(name);
            }
        }
        if entries.is_empty() {
            configs.remove(resource);
        }
    }
}

impl TopicImage {
    /// The partition of this index.
    #[must_use]
    pub fn partition(&self, partition: PartitionIndex) -> Option<&Arc<PartitionImage>> {
        self.partitions.get(usize::try_from(partition.value()).ok()?)
    }

    /// The partitions with their indexes.
    pub fn indexed_partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Arc<PartitionImage>)> {
        (0..).map(PartitionIndex).zip(&self.partitions)
    }
}

impl PartitionImage {
    /// The partition as a record creates it.
    #[must_use]
    pub fn from_record(record: &PartitionRecord) -> Self {
        Self {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            eligible_leader_replicas: record.eligible_leader_replicas.clone(),
            last_known_leader: record.last_known_leader,
            adding_replicas: record.adding_replicas.clone(),
            removing_replicas: record.removing_replicas.clone(),
            leader: record.leader,
            leader_recovering: record.leader_recovering,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        }
    }

    /// The record that creates the partition as it is.
    #[must_use]
    pub fn to_record(&self, topic_id: TopicId, partition: PartitionIndex) -> PartitionRecord {
        PartitionRecord {
            topic_id,
            partition,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            eligible_leader_replicas: self.eligible_leader_replicas.clone(),
            last_known_leader: self.last_known_leader,
            adding_replicas: self.adding_replicas.clone(),
            removing_replicas: self.removing_replicas.clone(),
            leader: self.leader,
            leader_recovering: self.leader_recovering,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
        }
    }

    /// The first replica, whom clients expect to lead.
    #[must_use]
    pub fn preferred_leader(&self) -> Option<BrokerId> {
        self.replicas.first().copied()
    }

    /// Whether replicas are being added or removed.
    #[must_use]
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    fn apply(&mut self, change: &PartitionChange) {
        fn set<T: Clone>(field: &mut T, change: Option<&T>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        set(&mut self.replicas, change.replicas.as_ref());
        set(&mut self.isr, change.isr.as_ref());
        set(&mut self.eligible_leader_replicas, change.eligible_leader_replicas.as_ref());
        set(&mut self.last_known_leader, change.last_known_leader.as_ref());
        set(&mut self.adding_replicas, change.adding_replicas.as_ref());
        set(&mut self.removing_replicas, change.removing_replicas.as_ref());
        set(&mut self.leader, change.leader.as_ref());
        set(&mut self.leader_recovering, change.leader_recovering.as_ref());
        if change.bump_leader_epoch {
            self.leader_epoch.0 += 1;
        }
        self.partition_epoch.0 += 1;
    }
}
