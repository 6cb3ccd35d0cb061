//! What brokers ask of the controller, and what it answers.

use std::collections::BTreeMap;

use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch, MetadataOffset, PartitionEpoch,
    PartitionIndex, ProducerId, TopicId, TopicPartition,
};

use crate::record::{ConfigResource, Endpoint};

/// An error with the text that a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerError {
    pub code: ErrorCode,
    pub message: String,
}

/// What brokers ask of the controller. Every request is answered by the response variant of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerRequest {
    RegisterBroker(RegisterBroker),
    Heartbeat(Heartbeat),
    AlterPartitions(AlterPartitions),
    CreateTopics(CreateTopics),
    DeleteTopics { topics: Vec<TopicSelector> },
    CreatePartitions { topics: Vec<CreatePartitionsTopic>, validate_only: bool },
    AlterConfigs(AlterConfigs),
    ElectLeaders { election_type: ElectionType, partitions: Option<Vec<TopicPartition>> },
    AlterPartitionReassignments { partitions: Vec<Reassignment>, allow_replication_factor_change: bool },
    AllocateProducerIds { broker_id: BrokerId, broker_epoch: BrokerEpoch },
    UnregisterBroker { broker_id: BrokerId },
}

/// Answers to [`ControllerRequest`]. The outer error of a call means that nothing of it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerResponse {
    RegisterBroker(Result<BrokerEpoch, ControllerError>),
    Heartbeat(Result<HeartbeatReply, ControllerError>),
    AlterPartitions(Result<AlteredPartitions, ControllerError>),
    CreateTopics(Vec<CreatedTopic>),
    DeleteTopics(DeletedTopics),
    CreatePartitions(Vec<(String, Result<(), ControllerError>)>),
    AlterConfigs(Vec<(ConfigResource, Result<(), ControllerError>)>),
    /// `None` asked for all partitions and gets those for which an election was needed.
    ElectLeaders(Vec<(TopicPartition, Result<(), ControllerError>)>),
    AlterPartitionReassignments(Vec<(TopicPartition, Result<(), ControllerError>)>),
    AllocateProducerIds(Result<ProducerIdBlock, ControllerError>),
    UnregisterBroker(Result<(), ControllerError>),
}

/// Each partition of an AlterPartition request with its outcome.
pub type AlteredPartitions = Vec<(TopicPartition, Result<AlteredPartition, ErrorCode>)>;

/// Each selected topic with what was deleted.
pub type DeletedTopics = Vec<(TopicSelector, Result<(TopicId, String), ControllerError>)>;

/// A node registers at start-up, and again whenever the controller does not know its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    pub broker_id: BrokerId,
    pub cluster_id: String,
    pub incarnation_id: IncarnationId,
    pub listeners: BTreeMap<String, Endpoint>,
    pub peer: Endpoint,
    pub rack: Option<String>,
    pub log_dirs: Vec<DirectoryId>,
    pub is_broker: bool,
    /// The epoch in the clean-shutdown marker, or [`BrokerEpoch::NONE`] after an unclean shutdown (trap 12).
    pub previous_broker_epoch: BrokerEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub broker_id: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// How far this broker has applied the metadata log; it is unfenced only once it knows its own registration.
    pub applied: MetadataOffset,
    pub want_fence: bool,
    pub want_shutdown: bool,
    /// Log directories that failed since registration.
    pub offline_log_dirs: Vec<DirectoryId>,
    /// Partitions whose replica here lies in a failed directory. They lose this replica as leader and ISR member.
    pub offline_partitions: Vec<TopicPartition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    pub is_caught_up: bool,
    pub is_fenced: bool,
    /// Controlled shutdown may proceed: no leadership is left here and live brokers have learnt of it (trap 30).
    pub should_shut_down: bool,
}

/// A leader proposes new ISRs by compare-and-set (KIP-497).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitions {
    pub broker_id: BrokerId,
    pub broker_epoch: BrokerEpoch,
    pub partitions: Vec<AlterPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartition {
    pub partition: TopicPartition,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    /// Each with the broker epoch under which the leader knows it (KIP-903).
    pub new_isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The leader has finished recovering from an unclean election.
    pub leader_recovered: bool,
}

/// A partition as the controller has it after an accepted AlterPartition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredPartition {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    pub partition_epoch: PartitionEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    pub topics: Vec<CreateTopic>,
    pub validate_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    pub name: String,
    /// Drawn by the asking broker, so that deciding needs no randomness.
    pub topic_id: TopicId,
    /// -1 for the default.
    pub partition_count: i32,
    /// -1 for the default.
    pub replication_factor: i16,
    /// Replicas by partition; empty for automatic placement.
    pub assignments: BTreeMap<PartitionIndex, Vec<BrokerId>>,
    pub configs: BTreeMap<String, String>,
    /// Internal topics take the replication factor asked for, clamped to the live brokers (DESIGN section 7).
    pub clamp_replication_factor: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub name: String,
    pub result: Result<CreatedTopicDetail, ControllerError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopicDetail {
    pub topic_id: TopicId,
    pub partition_count: i32,
    pub replication_factor: i16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicSelector {
    Name(String),
    Id(TopicId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePartitionsTopic {
    pub name: String,
    /// The new total.
    pub count: i32,
    /// Replicas of each added partition; `None` for automatic placement.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterConfigs {
    pub resources: Vec<(ConfigResource, Vec<ConfigOperation>)>,
    /// AlterConfigs (key 33): replaces all configs of the resource. IncrementalAlterConfigs (key 44) if false.
    pub replace_all: bool,
    pub validate_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    Set {
        name: String,
        value: String,
    },
    Delete {
        name: String,
    },
    /// Adds to a list-typed config.
    Append {
        name: String,
        value: String,
    },
    /// Removes from a list-typed config.
    Subtract {
        name: String,
        value: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    Preferred,
    Unclean,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    pub partition: TopicPartition,
    /// `None` cancels a reassignment under way.
    pub replicas: Option<Vec<BrokerId>>,
}

/// Producer ids `first .. first + length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    pub first: ProducerId,
    pub length: i32,
}
