//! The records of the metadata log. Their names and fields follow Kafka's KRaft records.

use std::collections::BTreeMap;

use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, IncarnationId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
};

/// One change to the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// The first record of a cluster's life.
    ClusterId { cluster_id: String },
    /// A broker (or controller-only node) registered; replaces any earlier registration of the id. It starts fenced.
    RegisterBroker(BrokerRegistration),
    /// A broker was fenced or unfenced, or began or ended a controlled shutdown.
    BrokerRegistrationChange {
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        fenced: bool,
        in_controlled_shutdown: bool,
    },
    /// The broker is gone for good (UnregisterBroker).
    UnregisterBroker { broker_id: BrokerId, broker_epoch: BrokerEpoch },
    /// Broker epochs up to `last` are given out. Written in snapshots, where an unregistered broker leaves no other
    /// trace.
    BrokerEpochs { last: BrokerEpoch },
    /// A topic was created; its partitions follow.
    Topic { topic_id: TopicId, name: String },
    /// A topic, its partitions and its configs were removed.
    RemoveTopic { topic_id: TopicId },
    /// A partition was created.
    Partition(PartitionRecord),
    /// Some fields of a partition changed. Raises its partition epoch by one.
    PartitionChange(PartitionChange),
    /// A dynamic config was set, or deleted if `value` is `None`.
    Config { resource: ConfigResource, name: String, value: Option<String> },
    /// Producer ids below `next` are given out.
    ProducerIds { broker_id: BrokerId, broker_epoch: BrokerEpoch, next: ProducerId },
    /// A finalized feature level (KIP-584), or its removal at level 0.
    FeatureLevel { name: String, level: i16 },
    /// Written by a controller as the first entry of its term; carries nothing.
    NoOp,
}

/// A node as it registered with the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub broker_id: BrokerId,
    pub broker_epoch: BrokerEpoch,
    pub incarnation_id: IncarnationId,
    /// The client listeners as advertised, by listener name.
    pub listeners: BTreeMap<String, Endpoint>,
    /// Where this node's gRPC services answer other nodes.
    pub peer: Endpoint,
    pub rack: Option<String>,
    pub log_dirs: Vec<DirectoryId>,
    /// Whether the node hosts partitions (`process.roles` contains `broker`).
    pub is_broker: bool,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
}

/// A host and port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    /// Kafka's `SecurityProtocol` name, such as `PLAINTEXT`.
    pub security_protocol: String,
}

/// A partition's whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    pub topic_id: TopicId,
    pub partition: PartitionIndex,
    /// In order of preference. During a reassignment: the target replicas first, then those being removed.
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// Out of the ISR but known to hold everything below the high watermark (KIP-966).
    pub eligible_leader_replicas: Vec<BrokerId>,
    /// The last leader, while there is none: the likeliest to have the most if all others are lost (KIP-966).
    pub last_known_leader: Option<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    pub leader: Option<BrokerId>,
    /// The leader was elected uncleanly and must not be trusted to hold committed records (trap 32).
    pub leader_recovering: bool,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
}

/// Changes to a partition; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionChange {
    pub topic_id: TopicId,
    pub partition: PartitionIndex,
    pub replicas: Option<Vec<BrokerId>>,
    pub isr: Option<Vec<BrokerId>>,
    pub eligible_leader_replicas: Option<Vec<BrokerId>>,
    pub last_known_leader: Option<Option<BrokerId>>,
    pub adding_replicas: Option<Vec<BrokerId>>,
    pub removing_replicas: Option<Vec<BrokerId>>,
    pub leader: Option<Option<BrokerId>>,
    pub leader_recovering: Option<bool>,
    /// Whether replay raises the leader epoch by one. True for every change of leader, and where replicas leave.
    pub bump_leader_epoch: bool,
}

/// What a dynamic config belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    Topic(TopicId),
    Broker(BrokerId),
    /// The default of all brokers (resource name "" on the wire).
    ClusterDefault,
    Group(String),
    ClientMetrics(String),
}
