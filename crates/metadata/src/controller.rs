//! The controller: the only place where the cluster's decisions are made.
//!
//! A decision reads an image and returns the records it wants; nothing has happened until they commit. The quorum's
//! shell decides requests one after another on a scratch image, replaying each decision's records into it before the
//! next, so nothing here remembers what an image says. What the [`Controller`] does remember is volatile by nature:
//! when it last heard of each broker. A new controller starts without that memory, and safely so.

mod requests;

use vltava_types::{BrokerEpoch, BrokerId};

use crate::image::ClusterImage;
use crate::record::MetadataRecord;

pub use requests::{
    AlterConfigs, AlterPartition, AlterPartitions, AlteredPartition, ConfigOperation, ControllerError,
    ControllerRequest, ControllerResponse, CreatePartitionsTopic, CreateTopic, CreateTopics, CreatedTopic,
    CreatedTopicDetail, ElectionType, Heartbeat, HeartbeatReply, ProducerIdBlock, Reassignment, RegisterBroker,
    TopicSelector,
};

/// What the controller wants. Nothing has happened until `records` commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<T> {
    pub records: Vec<MetadataRecord>,
    pub response: T,
}

/// The settings of the controller's own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// `broker.session.timeout.ms`: a broker that is not heard of for so long is fenced.
    pub session_timeout_ms: i64,
    /// `num.partitions`, for topics created without a count.
    pub default_partition_count: i32,
    /// `default.replication.factor`, for topics created without one.
    pub default_replication_factor: i16,
    /// `min.insync.replicas` of topics that do not set it, unless a cluster-wide dynamic config does.
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable` of topics that do not set it, unless a cluster-wide dynamic config does.
    pub unclean_leader_election_enable: bool,
    /// `auto.leader.rebalance.enable`.
    pub auto_leader_rebalance_enable: bool,
    /// `leader.imbalance.check.interval.seconds`, in milliseconds.
    pub leader_imbalance_check_interval_ms: i64,
    /// `leader.imbalance.per.broker.percentage`.
    pub leader_imbalance_per_broker_percentage: i32,
    /// The largest number of partitions that one request may create.
    pub max_partitions_per_request: usize,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 3000,
            default_partition_count: 1,
            default_replication_factor: 1,
            min_insync_replicas: 1,
            unclean_leader_election_enable: false,
            auto_leader_rebalance_enable: true,
            leader_imbalance_check_interval_ms: 300_000,
            leader_imbalance_per_broker_percentage: 10,
            max_partitions_per_request: 10_000,
        }
    }
}

/// The active controller. Holds broker sessions, which are volatile, and its settings; nothing that is replicated.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
}

impl Controller {
    #[must_use]
    pub fn new(config: ControllerConfig) -> Self {
        Self { config }
    }

    /// A new term begins: every unfenced broker gets a fresh session. Returns those to probe at once.
    pub fn on_elected(&mut self, image: &ClusterImage, now_ms: i64) -> Vec<BrokerId> {
        unimplemented!("{image:?} {now_ms} {:?}", self.config)
    }

    /// The first records of a cluster's life, if the image has none yet.
    pub fn form_cluster(&self, image: &ClusterImage, cluster_id: &str) -> Vec<MetadataRecord> {
        unimplemented!("{image:?} {cluster_id}")
    }

    /// Decides one request. `now_ms` is monotonic.
    pub fn handle(
        &mut self,
        image: &ClusterImage,
        request: &ControllerRequest,
        now_ms: i64,
    ) -> Decision<ControllerResponse> {
        unimplemented!("{image:?} {request:?} {now_ms}")
    }

    /// What is due without a request: expired sessions, preferred-leader balancing. Called every 100 ms or so.
    pub fn tick(&mut self, image: &ClusterImage, now_ms: i64) -> Vec<MetadataRecord> {
        unimplemented!("{image:?} {now_ms}")
    }

    /// A probe proved the process dead (connection refused): fence at once. Ignored if the epoch is not current.
    pub fn on_broker_down(
        &mut self,
        image: &ClusterImage,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Vec<MetadataRecord> {
        unimplemented!("{image:?} {broker_id} {broker_epoch}")
    }
}
