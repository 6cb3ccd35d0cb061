//! Groups: requests that go to each group's coordinator.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::make;
use vltava_protocol::messages::describe_groups_response::DescribedGroup;
use vltava_protocol::messages::list_groups_response::ListedGroup;
use vltava_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use vltava_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use vltava_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use vltava_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, RequestResponsePair,
};
use vltava_types::ErrorCode;

use super::{Admin, AdminError, ApiError, Partition, To, by_topic};
use crate::ClientError;

const FIND_COORDINATOR_VERSION: i16 = 4;
const LIST_GROUPS_VERSION: i16 = 5;
/// The first that tells a group that is not there from one that is empty.
const DESCRIBE_GROUPS_VERSION: i16 = 6;
const OFFSET_FETCH_VERSION: i16 = 8;
const OFFSET_COMMIT_VERSION: i16 = 9;
const OFFSET_DELETE_VERSION: i16 = 0;
const DELETE_GROUPS_VERSION: i16 = 2;

/// Where a broker of the cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    pub id: i32,
    pub host: String,
    pub port: i32,
}

/// What a group has committed for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// -1 if the consumer did not say.
    pub leader_epoch: i32,
}

impl Admin {
    /// The groups of all brokers, in order of name. Without filters all of them.
    pub async fn list_groups(&mut self, states: &[String], types: &[String]) -> Result<Vec<ListedGroup>, AdminError> {
        let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        let request = make!(ListGroupsRequest { states_filter: texts(states), types_filter: texts(types) });
        let mut groups = BTreeMap::new();
        let mut asked = BTreeSet::new();
        // A broker that dies meanwhile hands its groups to others, which may have been asked already: all are asked again.
        loop {
            let brokers: BTreeSet<i32> =
                self.describe_cluster(false).await?.brokers.iter().map(|broker| broker.broker_id).collect();
            if !asked.is_subset(&brokers) {
                asked.clear();
            }
            let Some(broker) = brokers.into_iter().find(|broker| !asked.contains(broker)) else { break };
            let check = |code: i16| ApiError::check(code, None);
            let to = To::Broker(broker);
            match self.call(to, LIST_GROUPS_VERSION, &request, |response| check(response.error_code)).await {
                Ok(answer) => {
                    groups.extend(answer.groups.into_iter().map(|group| (group.group_id.clone(), group)));
                    asked.insert(broker);
                }
                Err(error) if error.is_transient() && self.pause().await => {}
                Err(error) => return Err(error),
            }
        }
        Ok(groups.into_values().collect())
    }

    /// The broker that coordinates a group.
    pub async fn coordinator(&mut self, group: &str) -> Result<BrokerAddress, AdminError> {
        let request = make!(FindCoordinatorRequest { key_type: 0, coordinator_keys: vec![group.into()] });
        let answer = self
            .call(To::Any, FIND_COORDINATOR_VERSION, &request, |response| {
                response
                    .coordinators
                    .iter()
                    .try_for_each(|found| ApiError::check(found.error_code, found.error_message.as_ref()))
            })
            .await?;
        let found = answer.coordinators.into_iter().next().ok_or(ClientError::Incomplete)?;
        Ok(BrokerAddress { id: found.node_id, host: found.host.to_string(), port: found.port })
    }

    /// A group, its members and its coordinator.
    pub async fn describe_group(&mut self, group: &str) -> Result<(BrokerAddress, DescribedGroup), AdminError> {
        let request = make!(DescribeGroupsRequest { groups: vec![group.into()] });
        let (coordinator, answer) = self
            .call_coordinator(group, DESCRIBE_GROUPS_VERSION, &request, |response| {
                let mut groups = response.groups.iter();
                groups.try_for_each(|group| ApiError::check(group.error_code, group.error_message.as_ref()))
            })
            .await?;
        let described = answer.groups.into_iter().next().ok_or(ClientError::Incomplete)?;
        Ok((coordinator, described))
    }

    /// What a group has committed.
    pub async fn committed_offsets(&mut self, group: &str) -> Result<BTreeMap<Partition, Committed>, AdminError> {
        let wanted = make!(OffsetFetchRequestGroup { group_id: group.into(), member_epoch: -1, topics: None });
        let request = make!(OffsetFetchRequest { groups: vec![wanted], require_stable: false });
        let (_, answer) = self
            .call_coordinator(group, OFFSET_FETCH_VERSION, &request, |response| {
                response.groups.iter().try_for_each(|group| ApiError::check(group.error_code, None))
            })
            .await?;
        let mut committed = BTreeMap::new();
        for topic in answer.groups.into_iter().flat_map(|group| group.topics) {
            for partition in topic.partitions {
                ApiError::check(partition.error_code, None)?;
                let found =
                    Committed { offset: partition.committed_offset, leader_epoch: partition.committed_leader_epoch };
                if found.offset >= 0 {
                    committed.insert((topic.name.to_string(), partition.partition_index), found);
                }
            }
        }
        Ok(committed)
    }

    /// Commits offsets for a group without members. The first partition that is refused is the error.
    pub async fn commit_offsets(&mut self, group: &str, offsets: &BTreeMap<Partition, i64>) -> Result<(), AdminError> {
        let topics = by_topic(offsets.iter().map(|(partition, offset)| (partition, *offset)));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(partition_index, committed_offset)| {
                make!(OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset,
                    committed_leader_epoch: -1,
                    committed_metadata: Some("".into()),
                })
            });
            make!(OffsetCommitRequestTopic { name: name.into(), partitions: partitions.collect() })
        });
        let request = make!(OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics: topics.collect(),
        });
        self.call_coordinator(group, OFFSET_COMMIT_VERSION, &request, |response| {
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.try_for_each(|partition| ApiError::check(partition.error_code, None))
        })
        .await?;
        Ok(())
    }

    /// Forgets what a group has committed. Each partition has an outcome of its own.
    pub async fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<BTreeMap<Partition, Result<(), ApiError>>, AdminError> {
        let topics = by_topic(partitions.iter().map(|partition| (partition, ())));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|(partition_index, ())| make!(OffsetDeleteRequestPartition { partition_index }));
            make!(OffsetDeleteRequestTopic { name: name.into(), partitions: partitions.collect() })
        });
        let request = make!(OffsetDeleteRequest { group_id: group.into(), topics: topics.collect() });
        let (_, answer) = self
            .call_coordinator(group, OFFSET_DELETE_VERSION, &request, |response| {
                ApiError::check(response.error_code, None)
            })
            .await?;
        let outcomes = answer.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| {
                let outcome = ApiError::check(partition.error_code, None);
                ((topic.name.to_string(), partition.partition_index), outcome)
            })
        });
        Ok(outcomes.collect())
    }

    /// Deletes a group without members.
    pub async fn delete_group(&mut self, group: &str) -> Result<(), AdminError> {
        let request = make!(DeleteGroupsRequest { groups_names: vec![group.into()] });
        self.call_coordinator(group, DELETE_GROUPS_VERSION, &request, |response| {
            let mut results = response.results.iter();
            results.try_for_each(|result| ApiError::check(result.error_code, result.error_message.as_ref()))
        })
        .await?;
        Ok(())
    }

    /// Asks the group's coordinator, and looks for it again when it has moved.
    async fn call_coordinator<R: RequestResponsePair>(
        &mut self,
        group: &str,
        version: i16,
        request: &R,
        check: impl Fn(&R::Response) -> Result<(), ApiError>,
    ) -> Result<(BrokerAddress, R::Response), AdminError> {
        loop {
            let coordinator = self.coordinator(group).await?;
            let error = match self.call_once(To::Broker(coordinator.id), version, request, &check).await {
                Ok(response) => return Ok((coordinator, response)),
                Err(error) => error,
            };
            if !error.is_transient() || !self.pause().await {
                return Err(error);
            }
            // The coordinator may be at an address that is not known yet.
            if matches!(
                error,
                AdminError::Api(ApiError { code: ErrorCode::NotCoordinator, .. }) | AdminError::Client(_)
            ) {
                self.refresh().await;
            }
        }
    }
}
