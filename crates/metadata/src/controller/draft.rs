//! A decision in the making: the records so far, and the image as it will be once they commit.

use vltava_types::{BrokerId, TopicId, TopicPartition};

use super::partition_update::PartitionUpdate;
use super::sessions::Sessions;
use super::{ControllerConfig, ControllerError, Decision};
use crate::image::ClusterImage;
use crate::record::{ConfigResource, MetadataRecord};

/// Every step of a decision sees what the steps before it have decided, because it reads this image.
pub(super) struct Draft<'a> {
    pub(super) image: ClusterImage,
    pub(super) config: &'a ControllerConfig,
    sessions: &'a Sessions,
    records: Vec<MetadataRecord>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(image: &ClusterImage, config: &'a ControllerConfig, sessions: &'a Sessions) -> Self {
        Self { image: image.clone(), config, sessions, records: vec![] }
    }

    pub(super) fn push(&mut self, record: MetadataRecord) {
        self.image.replay(&record);
        self.records.push(record);
    }

    pub(super) fn into_records(self) -> Vec<MetadataRecord> {
        self.records
    }

    pub(super) fn decide<T>(self, response: T) -> Decision<T> {
        Decision { records: self.records, response }
    }

    /// Begins a change of an existing partition.
    pub(super) fn update(&self, partition: TopicPartition) -> PartitionUpdate {
        let before = self.image.partition(partition.topic_id, partition.partition).expect("the partition exists");
        PartitionUpdate::new(partition, before)
    }

    /// Decides a change of a partition. False if nothing needs to change after all.
    pub(super) fn apply(&mut self, update: PartitionUpdate) -> bool {
        let Some(change) = update.resolve(self) else { return false };
        self.push(MetadataRecord::PartitionChange(change));
        true
    }

    /// Whether this broker may lead the partition or be in its ISR: it is active, and its log there has not failed.
    pub(super) fn may_lead(&self, broker_id: BrokerId, partition: TopicPartition) -> bool {
        self.image.is_active(broker_id) && !self.sessions.is_offline(broker_id, partition)
    }

    /// `min.insync.replicas` of a topic, at most its replication factor.
    pub(super) fn min_insync_replicas(&self, topic_id: TopicId, replicas: usize) -> usize {
        let configured = self
            .effective_config(topic_id, "min.insync.replicas")
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(self.config.min_insync_replicas);
        usize::try_from(configured).unwrap_or(1).clamp(1, replicas.max(1))
    }

    pub(super) fn allows_unclean_election(&self, topic_id: TopicId) -> bool {
        self.effective_config(topic_id, "unclean.leader.election.enable")
            .map_or(self.config.unclean_leader_election_enable, |value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// A partition as error messages name it.
    pub(super) fn describe(&self, partition: TopicPartition) -> String {
        let name = self.image.topic_name(partition.topic_id).unwrap_or("");
        format!("{name}-{}", partition.partition)
    }

    /// The topic's own value, else the cluster's. Values of single brokers do not count: the controller and all leaders
    /// must see the same one.
    fn effective_config(&self, topic_id: TopicId, name: &str) -> Option<&str> {
        let own = self.image.config(&ConfigResource::Topic(topic_id), name);
        own.or_else(|| self.image.config(&ConfigResource::ClusterDefault, name))
    }
}

/// Reads as `error(ErrorCode::InvalidPartitions, "…")` where a decision refuses.
pub(super) fn error(code: vltava_types::ErrorCode, message: impl Into<String>) -> ControllerError {
    ControllerError { code, message: message.into() }
}
