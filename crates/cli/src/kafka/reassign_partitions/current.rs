//! Where partitions and their replicas are now.

use std::collections::{BTreeMap, BTreeSet};

use vltava_client::admin::Partition;
use vltava_client::{Admin, AdminError, ApiError};
use vltava_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;
use vltava_types::ErrorCode;

use super::MoveError;
use super::document::Replica;
use crate::kafka::exceptions;

pub type Moves = BTreeMap<Partition, OngoingPartitionReassignment>;

/// The log directory of a replica, and the one that it is being moved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    pub current: Option<String>,
    pub future: Option<String>,
}

/// All moves under way.
pub async fn moves(admin: &mut Admin) -> Result<Moves, AdminError> {
    let topics = admin.list_reassignments(None).await?.into_iter();
    let moves = topics.flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |partition| ((name.clone(), partition.partition_index), partition))
    });
    Ok(moves.collect())
}

/// The replicas of all partitions of these topics.
pub async fn replicas(topics: BTreeSet<String>, admin: &mut Admin) -> Result<BTreeMap<Partition, Vec<i32>>, MoveError> {
    let names: Vec<String> = topics.into_iter().collect();
    let mut replicas = BTreeMap::new();
    if names.is_empty() {
        return Ok(replicas);
    }
    for topic in admin.topics(Some(&names)).await? {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
            let missing = ApiError {
                code: ErrorCode::UnknownTopicOrPartition,
                message: Some(format!("Topic {name} not found.")),
            };
            return Err(MoveError::Failed(exceptions::full(&missing)));
        }
        ApiError::check(topic.error_code, None).map_err(AdminError::Api)?;
        for partition in topic.partitions {
            replicas.insert((name.clone(), partition.partition_index), partition.replica_nodes);
        }
    }
    Ok(replicas)
}

/// The log directories of all replicas on these brokers, as far as they live.
pub async fn placements(
    brokers: impl IntoIterator<Item = i32>,
    admin: &mut Admin,
) -> Result<BTreeMap<Replica, Placement>, AdminError> {
    let live = live_brokers(admin).await?;
    let asked: BTreeSet<i32> = brokers.into_iter().filter(|broker| live.contains(broker)).collect();
    let mut placements = BTreeMap::<Replica, Placement>::new();
    for broker in asked {
        for directory in admin.describe_log_dirs(broker).await? {
            for topic in &directory.topics {
                for partition in &topic.partitions {
                    let replica =
                        Replica { broker, topic: topic.name.to_string(), partition: partition.partition_index };
                    let placement = placements.entry(replica).or_default();
                    let place = match partition.is_future_key {
                        true => &mut placement.future,
                        false => &mut placement.current,
                    };
                    *place = Some(directory.log_dir.to_string());
                }
            }
        }
    }
    Ok(placements)
}

/// The log directory of each replica, as far as its broker answers.
pub async fn directories(
    replicas: &BTreeMap<Partition, Vec<i32>>,
    admin: &mut Admin,
) -> Result<BTreeMap<Replica, String>, AdminError> {
    let placements = placements(replicas.values().flatten().copied(), admin).await?;
    let placed = |(replica, placement): (Replica, Placement)| Some((replica, placement.current?));
    Ok(placements.into_iter().filter_map(placed).collect())
}

pub async fn live_brokers(admin: &mut Admin) -> Result<BTreeSet<i32>, AdminError> {
    Ok(admin.describe_cluster(false).await?.brokers.iter().map(|broker| broker.broker_id).collect())
}
