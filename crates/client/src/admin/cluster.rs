//! The cluster itself: its brokers, configs and moves under way.

use std::collections::BTreeMap;

use vltava_protocol::make;
use vltava_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use vltava_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use vltava_protocol::messages::describe_configs_request::DescribeConfigsResource;
use vltava_protocol::messages::describe_configs_response::DescribeConfigsResult;
use vltava_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use vltava_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use vltava_protocol::messages::elect_leaders_request::TopicPartitions;
use vltava_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use vltava_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use vltava_protocol::messages::list_partition_reassignments_response::OngoingTopicReassignment;
use vltava_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiVersionsRequest, ApiVersionsResponse,
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, DescribeQuorumResponse, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest, UnregisterBrokerRequest,
};

use super::{Admin, AdminError, ApiError, ByPartition, Partition, To, by_topic};

const DESCRIBE_CLUSTER_VERSION: i16 = 2;
const DESCRIBE_CONFIGS_VERSION: i16 = 4;
const INCREMENTAL_ALTER_CONFIGS_VERSION: i16 = 1;
const LIST_CONFIG_RESOURCES_VERSION: i16 = 1;
const ELECT_LEADERS_VERSION: i16 = 2;
const DESCRIBE_LOG_DIRS_VERSION: i16 = 4;
const ALTER_REPLICA_LOG_DIRS_VERSION: i16 = 2;
const DESCRIBE_QUORUM_VERSION: i16 = 2;
const API_VERSIONS_VERSION: i16 = 3;
const UNREGISTER_BROKER_VERSION: i16 = 0;
const LIST_PARTITION_REASSIGNMENTS_VERSION: i16 = 0;

/// `ConfigResource.Type` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

/// `ElectionType` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ElectionType {
    /// The first replica, if it is in sync.
    Preferred = 0,
    /// Any live replica, where none is eligible.
    Unclean = 1,
}

/// `AlterConfigOp.OpType` on the wire.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// A config and its new value; its default without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub name: String,
    pub value: Option<String>,
}

impl Admin {
    /// The brokers, also those that are fenced if asked for, in order of id.
    pub async fn describe_cluster(&mut self, include_fenced: bool) -> Result<DescribeClusterResponse, AdminError> {
        let request = make!(DescribeClusterRequest { endpoint_type: 1, include_fenced_brokers: include_fenced });
        let mut cluster = self
            .call(To::Any, DESCRIBE_CLUSTER_VERSION, &request, |response| {
                ApiError::check(response.error_code, response.error_message.as_ref())
            })
            .await?;
        cluster.brokers.sort_by_key(|broker| broker.broker_id);
        Ok(cluster)
    }

    /// The configs of resources that any broker knows of, or of one broker if `broker` names it. Each resource has an
    /// error code of its own.
    pub async fn describe_configs(
        &mut self,
        broker: Option<i32>,
        resources: &[(ConfigResourceType, String)],
    ) -> Result<Vec<DescribeConfigsResult>, AdminError> {
        let wanted = |(kind, name): &(ConfigResourceType, String)| {
            make!(DescribeConfigsResource { resource_type: *kind as i8, resource_name: name.as_str().into() })
        };
        let request =
            make!(DescribeConfigsRequest { resources: resources.iter().map(wanted).collect(), include_synonyms: true });
        let to = broker.map_or(To::Any, To::Broker);
        Ok(self.call(to, DESCRIBE_CONFIGS_VERSION, &request, |_| Ok(())).await?.results)
    }

    /// Changes configs of one resource. The broker itself must be asked where it concerns a broker.
    pub async fn alter_configs(
        &mut self,
        broker: Option<i32>,
        kind: ConfigResourceType,
        name: &str,
        changes: &[ConfigChange],
    ) -> Result<(), AdminError> {
        let configs = changes.iter().map(|change| {
            make!(AlterableConfig {
                name: change.name.as_str().into(),
                config_operation: if change.value.is_some() { SET } else { DELETE },
                value: change.value.as_deref().map(Into::into),
            })
        });
        let resource = make!(AlterConfigsResource {
            resource_type: kind as i8,
            resource_name: name.into(),
            configs: configs.collect(),
        });
        let request = make!(IncrementalAlterConfigsRequest { resources: vec![resource] });
        let to = broker.map_or(To::Any, To::Broker);
        self.call(to, INCREMENTAL_ALTER_CONFIGS_VERSION, &request, |response| {
            let mut results = response.responses.iter();
            results.try_for_each(|result| ApiError::check(result.error_code, result.error_message.as_ref()))
        })
        .await?;
        Ok(())
    }

    /// The names of all resources of a kind that have configs.
    pub async fn list_config_resources(&mut self, kind: ConfigResourceType) -> Result<Vec<String>, AdminError> {
        let request = make!(ListConfigResourcesRequest { resource_types: vec![kind as i8] });
        let response = self
            .call(To::Any, LIST_CONFIG_RESOURCES_VERSION, &request, |response| {
                ApiError::check(response.error_code, None)
            })
            .await?;
        Ok(response.config_resources.iter().map(|resource| resource.resource_name.to_string()).collect())
    }

    /// Holds elections for these partitions, or for all that need one. Each has an outcome of its own.
    pub async fn elect_leaders(
        &mut self,
        election: ElectionType,
        partitions: Option<&[Partition]>,
    ) -> Result<ByPartition<()>, AdminError> {
        let topics = partitions.map(|partitions| {
            let topics = by_topic(partitions.iter().map(|partition| (partition, ())));
            let topics = topics.into_iter().map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(index, ())| index).collect();
                make!(TopicPartitions { topic: topic.into(), partitions })
            });
            topics.collect()
        });
        let request = make!(ElectLeadersRequest {
            election_type: election as i8,
            topic_partitions: topics,
            timeout_ms: self.timeout_ms(),
        });
        let response = self
            .call(To::Any, ELECT_LEADERS_VERSION, &request, |response| ApiError::check(response.error_code, None))
            .await?;
        let results = response.replica_election_results.iter().flat_map(|topic| {
            topic.partition_result.iter().map(|result| {
                let outcome = ApiError::check(result.error_code, result.error_message.as_ref());
                ((topic.topic.to_string(), result.partition_id), outcome)
            })
        });
        Ok(results.collect())
    }

    /// The replicas of partitions in the log directories of one broker.
    pub async fn describe_log_dirs(&mut self, broker: i32) -> Result<Vec<DescribeLogDirsResult>, AdminError> {
        let request = make!(DescribeLogDirsRequest { topics: None });
        let response = self
            .call(To::Broker(broker), DESCRIBE_LOG_DIRS_VERSION, &request, |response| {
                ApiError::check(response.error_code, None)
            })
            .await?;
        Ok(response.results)
    }

    /// Moves replicas on one broker to these log directories, each a path. A move there that is under way goes on, one to
    /// elsewhere is given up. Each has an outcome of its own; ReplicaNotAvailable says that the broker has no such replica.
    pub async fn alter_replica_log_dirs(
        &mut self,
        broker: i32,
        directories: &BTreeMap<Partition, String>,
    ) -> Result<ByPartition<()>, AdminError> {
        let mut by_path = BTreeMap::<&str, Vec<&Partition>>::new();
        for (partition, path) in directories {
            by_path.entry(path).or_default().push(partition);
        }
        let dirs = by_path.into_iter().map(|(path, partitions)| {
            let topics = by_topic(partitions.into_iter().map(|partition| (partition, ()))).into_iter();
            let topics = topics.map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(index, ())| index).collect();
                make!(AlterReplicaLogDirTopic { name: name.into(), partitions })
            });
            make!(AlterReplicaLogDir { path: path.into(), topics: topics.collect() })
        });
        let request = make!(AlterReplicaLogDirsRequest { dirs: dirs.collect() });
        let to = To::Broker(broker);
        let response = self.call(to, ALTER_REPLICA_LOG_DIRS_VERSION, &request, |_| Ok(())).await?;
        let results = response.results.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| {
                let outcome = ApiError::check(partition.error_code, None);
                ((topic.topic_name.to_string(), partition.partition_index), outcome)
            })
        });
        Ok(results.collect())
    }

    /// The metadata quorum: its leader, its voters and who follows it.
    pub async fn describe_quorum(&mut self) -> Result<DescribeQuorumResponse, AdminError> {
        let topic = make!(TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![make!(PartitionData { partition_index: 0 })],
        });
        let request = make!(DescribeQuorumRequest { topics: vec![topic] });
        self.call(To::Any, DESCRIBE_QUORUM_VERSION, &request, |response| {
            ApiError::check(response.error_code, response.error_message.as_ref())?;
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.try_for_each(|partition| ApiError::check(partition.error_code, partition.error_message.as_ref()))
        })
        .await
    }

    /// The APIs and versions that one broker speaks.
    pub async fn api_versions(&mut self, broker: i32) -> Result<ApiVersionsResponse, AdminError> {
        let request = make!(ApiVersionsRequest {
            client_software_name: "vltava".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        });
        self.call(To::Broker(broker), API_VERSIONS_VERSION, &request, |response| {
            ApiError::check(response.error_code, None)
        })
        .await
    }

    /// Takes a broker that is gone for good out of the cluster.
    pub async fn unregister_broker(&mut self, broker_id: i32) -> Result<(), AdminError> {
        let request = make!(UnregisterBrokerRequest { broker_id });
        self.call(To::Any, UNREGISTER_BROKER_VERSION, &request, |response| {
            ApiError::check(response.error_code, response.error_message.as_ref())
        })
        .await?;
        Ok(())
    }

    /// Moves partitions to brokers, or ends their moves where there are none. Each has an outcome of its own.
    pub async fn alter_reassignments(
        &mut self,
        moves: &BTreeMap<Partition, Option<Vec<i32>>>,
        allow_replication_factor_change: bool,
    ) -> Result<ByPartition<()>, AdminError> {
        let topics = by_topic(moves.iter().map(|(partition, brokers)| (partition, brokers.clone())));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|(partition_index, replicas)| make!(ReassignablePartition { partition_index, replicas }));
            make!(ReassignableTopic { name: name.into(), partitions: partitions.collect() })
        });
        let request = make!(AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            allow_replication_factor_change,
            topics: topics.collect(),
        });
        // The first version allows it without saying so.
        let version = if allow_replication_factor_change { 0 } else { 1 };
        let response = self
            .call(To::Any, version, &request, |response| {
                ApiError::check(response.error_code, response.error_message.as_ref())
            })
            .await?;
        let results = response.responses.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| {
                let outcome = ApiError::check(partition.error_code, partition.error_message.as_ref());
                ((topic.name.to_string(), partition.partition_index), outcome)
            })
        });
        Ok(results.collect())
    }

    /// The moves under way of these partitions, or of all.
    pub async fn list_reassignments(
        &mut self,
        topics: Option<Vec<ListPartitionReassignmentsTopics>>,
    ) -> Result<Vec<OngoingTopicReassignment>, AdminError> {
        let request = make!(ListPartitionReassignmentsRequest { timeout_ms: self.timeout_ms(), topics });
        let response = self
            .call(To::Any, LIST_PARTITION_REASSIGNMENTS_VERSION, &request, |response| {
                ApiError::check(response.error_code, response.error_message.as_ref())
            })
            .await?;
        Ok(response.topics)
    }
}
