//! The controller: the only place where the cluster's decisions are made.
//!
//! A decision reads an image and returns the records it wants; nothing has happened until they commit. The quorum's
//! shell decides requests one after another on a scratch image, replaying each decision's records into it before the
//! next, so nothing here remembers what an image says. What the [`Controller`] does remember is volatile by nature:
//! when it last heard of each broker. A new controller starts without that memory, and safely so.

mod brokers;
mod configs;
mod draft;
mod election;
mod features;
mod growth;
mod heartbeats;
mod isr;
mod partition_update;
mod placement;
mod producer_ids;
mod reassignment;
mod requests;
mod sessions;
mod topics;

use vltava_types::{BrokerId, IncarnationId};

use crate::image::ClusterImage;
use crate::record::MetadataRecord;
use sessions::Sessions;

pub use requests::{
    AlterConfigs, AlterPartition, AlterPartitions, AlteredPartition, AlteredPartitions, ConfigOperation,
    ControllerError, ControllerRequest, ControllerResponse, CreatePartitionsTopic, CreateTopic, CreateTopics,
    CreatedTopic, CreatedTopicDetail, DeletedTopics, ElectionType, Heartbeat, HeartbeatReply, ProducerIdBlock,
    Reassignment, RegisterBroker, TopicSelector,
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
    /// This process, if it is a broker too. Its earlier incarnations are known to be dead.
    pub local_node: Option<(BrokerId, IncarnationId)>,
    /// `broker.session.timeout.ms`: a broker that is not heard of for so long is fenced.
    pub session_timeout_ms: i64,
    /// `num.partitions`, for topics created without a count.
    pub default_partition_count: i32,
    /// `default.replication.factor`, for topics created without one.
    pub default_replication_factor: i16,
    /// `min.insync.replicas` that a new cluster begins with. Later it is a dynamic config of the cluster.
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
            local_node: None,
            session_timeout_ms: 2000,
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
/// Times are monotonic milliseconds.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    sessions: Sessions,
    last_tick_ms: Option<i64>,
    next_balancing_ms: Option<i64>,
    next_growth_ms: Option<i64>,
}

impl Controller {
    #[must_use]
    pub fn new(config: ControllerConfig) -> Self {
        Self {
            config,
            sessions: Sessions::default(),
            last_tick_ms: None,
            next_balancing_ms: None,
            next_growth_ms: None,
        }
    }

    /// A new term begins: every unfenced broker gets a fresh session. Returns those to probe at once.
    pub fn on_elected(&mut self, image: &ClusterImage, now_ms: i64) -> Vec<BrokerId> {
        self.sessions.clear();
        self.last_tick_ms = Some(now_ms);
        self.next_balancing_ms = None;
        self.next_growth_ms = None;
        let mut unfenced = vec![];
        for broker in image.brokers.values().filter(|broker| !broker.fenced) {
            self.sessions.begin(broker.broker_id, broker.broker_epoch, image.offset, now_ms);
            unfenced.push(broker.broker_id);
        }
        unfenced
    }

    /// The controller before this one was silent for so long when this one took over, which is why there was an
    /// election. That counts, or those whose leader it was would wait for an election and a whole session. At least a
    /// quarter of a session is left: if it is alive, it has to find the new controller first, and beats as soon as it has.
    pub fn on_predecessor_silent(&mut self, predecessor: BrokerId, silent_ms: i64) {
        let longest_ms = self.config.session_timeout_ms - self.config.session_timeout_ms / 4;
        self.sessions.shorten(predecessor, silent_ms.clamp(0, longest_ms));
    }

    /// Decides one request.
    pub fn handle(
        &mut self,
        image: &ClusterImage,
        request: &ControllerRequest,
        now_ms: i64,
    ) -> Decision<ControllerResponse> {
        use ControllerRequest as Request;
        use ControllerResponse as Response;
        match request {
            Request::RegisterBroker(request) => {
                self.register_broker(image, request, now_ms).map(Response::RegisterBroker)
            }
            Request::Heartbeat(request) => self.heartbeat(image, request, now_ms).map(Response::Heartbeat),
            Request::AlterPartitions(request) => self.alter_partitions(image, request).map(Response::AlterPartitions),
            Request::CreateTopics(request) => self.create_topics(image, request).map(Response::CreateTopics),
            Request::DeleteTopics { topics } => self.delete_topics(image, topics).map(Response::DeleteTopics),
            Request::CreatePartitions { topics, validate_only } => {
                self.create_partitions(image, topics, *validate_only).map(Response::CreatePartitions)
            }
            Request::AlterConfigs(request) => self.alter_configs(image, request).map(Response::AlterConfigs),
            Request::ElectLeaders { election_type, partitions } => {
                self.elect_leaders(image, *election_type, partitions.as_deref()).map(Response::ElectLeaders)
            }
            Request::AlterPartitionReassignments { partitions, allow_replication_factor_change } => self
                .alter_partition_reassignments(image, partitions, *allow_replication_factor_change)
                .map(Response::AlterPartitionReassignments),
            Request::AllocateProducerIds { broker_id, broker_epoch } => {
                producer_ids::allocate_producer_ids(image, *broker_id, *broker_epoch).map(Response::AllocateProducerIds)
            }
            Request::UnregisterBroker { broker_id } => {
                self.unregister_broker(image, *broker_id).map(Response::UnregisterBroker)
            }
        }
    }

    /// What is due without a request: an expired session, else topics that can grow, else the balancing of leaders. Called every 100 ms or so;
    /// fences one broker at most, so that a decision stays small.
    pub fn tick(&mut self, image: &ClusterImage, now_ms: i64) -> Vec<MetadataRecord> {
        self.forgive_own_absence(now_ms);
        for broker in image.brokers.values().filter(|broker| !broker.fenced) {
            if self.is_expired(image, broker, now_ms) {
                return self.fence(image, broker.broker_id);
            }
        }
        let growth = self.grow_topics(image, now_ms);
        if growth.is_empty() { self.balance_leaders(image, now_ms) } else { growth }
    }

    /// If this process itself stood still (suspended, starved), heartbeats wait in its queues and prove nothing by
    /// their absence.
    fn forgive_own_absence(&mut self, now_ms: i64) {
        let away_ms = self.last_tick_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms));
        if away_ms > self.config.session_timeout_ms / 2 {
            self.sessions.extend(away_ms);
        }
        self.last_tick_ms = Some(now_ms);
    }
}

impl<T> Decision<T> {
    fn map<U>(self, into: impl FnOnce(T) -> U) -> Decision<U> {
        Decision { records: self.records, response: into(self.response) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vltava_types::{BrokerEpoch, DirectoryId, TopicId};

    use super::*;
    use crate::codec::sample_request;
    use crate::record::Endpoint;

    /// Brokers 0 and 1, which are the ids that random requests are most likely to name, and a topic of the zero id's
    /// neighbour.
    fn small_cluster(controller: &mut Controller) -> ClusterImage {
        let mut image = ClusterImage::default();
        image.replay_all(&controller.form_cluster(&image, "cluster"));
        let endpoint = Endpoint { host: "localhost".to_owned(), port: 1, security_protocol: "PLAINTEXT".to_owned() };
        for id in [0, 1] {
            let register = ControllerRequest::RegisterBroker(RegisterBroker {
                broker_id: BrokerId(id),
                cluster_id: String::new(),
                incarnation_id: IncarnationId::ZERO,
                listeners: BTreeMap::new(),
                peer: endpoint.clone(),
                rack: None,
                log_dirs: vec![DirectoryId::ZERO],
                is_broker: true,
                previous_broker_epoch: BrokerEpoch::NONE,
            });
            image.replay_all(&controller.handle(&image, &register, 0).records);
            let heartbeat = ControllerRequest::Heartbeat(Heartbeat {
                broker_id: BrokerId(id),
                broker_epoch: image.last_broker_epoch,
                applied: vltava_types::MetadataOffset(1),
                want_fence: false,
                want_shutdown: false,
                offline_log_dirs: vec![],
                offline_partitions: vec![],
            });
            image.replay_all(&controller.handle(&image, &heartbeat, 0).records);
        }
        let topic = CreateTopic {
            name: "a".to_owned(),
            topic_id: TopicId(vltava_types::Uuid([1; 16])),
            partition_count: 2,
            replication_factor: 2,
            assignments: BTreeMap::new(),
            configs: BTreeMap::new(),
            clamp_replication_factor: false,
        };
        let create = ControllerRequest::CreateTopics(CreateTopics { topics: vec![topic], validate_only: false });
        image.replay_all(&controller.handle(&image, &create, 0).records);
        assert_eq!(image.partitions().count(), 2, "the cluster is up");
        image
    }

    #[test]
    fn a_predecessors_silence_counts_until_a_quarter_of_a_session_is_left() {
        let fenced_at = |silent_ms| {
            let mut controller = Controller::new(ControllerConfig::default());
            let image = small_cluster(&mut controller);
            controller.on_elected(&image, 0);
            controller.on_predecessor_silent(BrokerId(0), silent_ms);
            (0..100).map(|tick| tick * 100).find(|now_ms| !controller.tick(&image, *now_ms).is_empty())
        };
        assert_eq!([0, 700, 60_000].map(fenced_at), [Some(2000), Some(1300), Some(500)]);
    }

    proptest! {
        /// Requests come from other nodes: whatever they say, there is an answer, and its records can be replayed.
        #[test]
        fn any_request_is_answered(
            requests in prop::collection::vec(prop::collection::vec(0..3u8, 0..200), 1..10),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut controller = Controller::new(ControllerConfig::default());
            let mut image = small_cluster(&mut controller);
            for entropy in requests.iter().chain([&noise]) {
                for kind in 0..11 {
                    let entropy = [&[kind], entropy.as_slice()].concat();
                    let decision = controller.handle(&image, &sample_request(&entropy), 0);
                    image.replay_all(&decision.records);
                }
            }
        }
    }
}
