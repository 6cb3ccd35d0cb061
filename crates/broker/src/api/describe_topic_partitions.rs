//! DescribeTopicPartitions: topics page by page, with what the controller knows of eligible leaders (KIP-966).

use std::collections::BTreeSet;

use vltava_metadata::{ClusterImage, PartitionImage, TopicImage};
use vltava_protocol::make;
use vltava_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use vltava_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, WireId as _};
use vltava_types::{BrokerId, ErrorCode, PartitionIndex};

use crate::api::RequestContext;
use crate::api::authorized_operations::ALL_TOPIC_OPERATIONS;
use crate::topic_creation::{is_internal, is_valid_name};

/// `max.request.partition.size.limit`.
const MAX_PARTITIONS: i32 = 2000;

pub async fn handle(
    context: &RequestContext<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = &context.image;
    let cursor = request.cursor.as_ref().map(|cursor| (cursor.topic_name.as_str(), cursor.partition_index.max(0)));
    let limit = request.response_partition_limit.clamp(1, MAX_PARTITIONS).unsigned_abs() as usize;
    let names = wanted(image, &request, cursor.map(|(name, _)| name));

    let mut remaining = limit;
    let mut topics = vec![];
    let mut next_cursor = None;
    for name in names {
        let first = cursor.filter(|(topic, _)| *topic == name).map_or(0, |(_, partition)| partition);
        if remaining == 0 {
            next_cursor = Some(make!(Cursor { topic_name: name.into(), partition_index: first }));
            break;
        }
        let Some(topic) = image.topic_by_name(name) else {
            // Nobody asked for a topic by name if all are wanted, so one that is gone is not missed.
            if !request.topics.is_empty() {
                topics.push(missing(name));
            }
            continue;
        };
        let page: Vec<_> = topic
            .indexed_partitions()
            .skip_while(|(index, _)| index.value() < first)
            .take(remaining)
            .map(|(index, partition)| describe_partition(image, &context.connection.listener, index, partition))
            .collect();
        remaining -= page.len();
        let end = first.saturating_add(i32::try_from(page.len()).unwrap_or(i32::MAX));
        let is_cut = topic.partition(PartitionIndex(end)).is_some();
        topics.push(describe_topic(topic, page));
        if is_cut {
            next_cursor = Some(make!(Cursor { topic_name: name.into(), partition_index: end }));
            break;
        }
    }
    make!(DescribeTopicPartitionsResponse { topics, next_cursor })
}

/// Names in order, from the cursor on.
fn wanted<'a>(
    image: &'a ClusterImage,
    request: &'a DescribeTopicPartitionsRequest,
    from: Option<&str>,
) -> BTreeSet<&'a str> {
    let is_ahead = |name: &&str| from.is_none_or(|from| *name >= from);
    if request.topics.is_empty() {
        return image.topic_ids.keys().map(String::as_str).filter(is_ahead).collect();
    }
    request.topics.iter().map(|topic| topic.name.as_str()).filter(is_ahead).collect()
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = if is_valid_name(name) { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
    make!(DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.into()),
        is_internal: is_internal(name),
    })
}

fn describe_topic(
    topic: &TopicImage,
    partitions: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    make!(DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.as_str().into()),
        topic_id: topic.topic_id.to_wire(),
        is_internal: is_internal(&topic.name),
        partitions,
        topic_authorized_operations: ALL_TOPIC_OPERATIONS,
    })
}

fn describe_partition(
    image: &ClusterImage,
    listener: &str,
    index: PartitionIndex,
    partition: &PartitionImage,
) -> DescribeTopicPartitionsResponsePartition {
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|id| id.value()).collect::<Vec<_>>();
    let error = match partition.leader {
        None => ErrorCode::LeaderNotAvailable,
        Some(leader) if !image.is_live(leader) => ErrorCode::LeaderNotAvailable,
        Some(leader) if image.endpoint(leader, listener).is_none() => ErrorCode::ListenerNotFound,
        Some(_) => ErrorCode::None,
    };
    let offline = partition.replicas.iter().filter(|replica| !image.is_live(**replica));
    make!(DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index: index.value(),
        leader_id: partition.leader.unwrap_or(BrokerId::NONE).value(),
        leader_epoch: partition.leader_epoch.value(),
        replica_nodes: numbers(&partition.replicas),
        isr_nodes: numbers(&partition.isr),
        eligible_leader_replicas: Some(numbers(&partition.eligible_leader_replicas)),
        last_known_elr: Some(partition.last_known_leader.iter().map(|id| id.value()).collect()),
        offline_replicas: offline.map(|id| id.value()).collect(),
    })
}
