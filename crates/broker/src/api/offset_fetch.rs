//! OffsetFetch: how far groups have come. From version 8 on for several groups at once.

use futures::future::join_all;
use vltava_metadata::ClusterImage;
use vltava_protocol::make;
use vltava_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use vltava_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use vltava_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, WireId};
use vltava_types::{ErrorCode, LeaderEpoch, TopicId};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version >= 8 {
        let groups = join_all(request.groups.into_iter().map(|group| fetch(context, group))).await;
        return make!(OffsetFetchResponse { groups });
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            make!(OffsetFetchRequestTopics { name: topic.name, partition_indexes: topic.partition_indexes })
        });
        topics.collect()
    });
    let group = make!(OffsetFetchRequestGroup { group_id: request.group_id, topics });
    single_group(fetch(context, group).await)
}

/// The form that the response had before version 8.
fn single_group(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            make!(OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            })
        });
        make!(OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() })
    });
    make!(OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code })
}

async fn fetch(context: &RequestContext<'_>, mut request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let asked = request.clone();
    let mut unknown = Vec::new();
    if context.version >= 10
        && let Some(topics) = request.topics.take()
    {
        let (known, others) = resolve(&context.image, topics);
        request.topics = Some(known);
        unknown = others;
    }
    let outcome = context.broker.groups.offset_fetch(request).await;
    match outcome {
        Err(error) => group_error(context.version, &asked, error),
        Ok(mut group) => {
            if context.version >= 10 && asked.topics.is_none() {
                group.topics.retain_mut(|topic| fill_in_topic_id(&context.image, topic));
            }
            group.topics.extend(unknown.iter().map(|topic| with_error(topic, ErrorCode::UnknownTopicId)));
            group
        }
    }
}

/// Gives topics that are asked for by id their names; returns those that do not exist apart.
fn resolve(
    image: &ClusterImage,
    topics: Vec<OffsetFetchRequestTopics>,
) -> (Vec<OffsetFetchRequestTopics>, Vec<OffsetFetchRequestTopics>) {
    let named = topics.into_iter().map(|mut topic| {
        let known = image.topic(TopicId::from_wire(topic.topic_id));
        topic.name = known.map(|known| known.name.as_str()).unwrap_or_default().into();
        topic
    });
    named.partition(|topic| !topic.name.is_empty())
}

/// Offsets that were stored without an id get that of the topic of today. False if there is none, since the response
/// could not name the topic then.
fn fill_in_topic_id(image: &ClusterImage, topic: &mut OffsetFetchResponseTopics) -> bool {
    if TopicId::from_wire(topic.topic_id).is_zero()
        && let Some(known) = image.topic_by_name(&topic.name)
    {
        topic.topic_id = known.topic_id.to_wire();
    }
    !TopicId::from_wire(topic.topic_id).is_zero()
}

fn group_error(version: i16, asked: &OffsetFetchRequestGroup, error: ErrorCode) -> OffsetFetchResponseGroup {
    let error = match error {
        // Older consumers know only the other of the two that make them look for the coordinator again.
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        error => error,
    };
    if version >= 2 {
        return make!(OffsetFetchResponseGroup { group_id: asked.group_id.clone(), error_code: error.code() });
    }
    // Version 1 has room for errors in partitions only.
    let topics = asked.topics.iter().flatten().map(|topic| with_error(topic, error));
    make!(OffsetFetchResponseGroup { group_id: asked.group_id.clone(), topics: topics.collect() })
}

fn with_error(topic: &OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|partition_index| {
        make!(OffsetFetchResponsePartitions {
            partition_index: *partition_index,
            committed_offset: -1,
            committed_leader_epoch: LeaderEpoch::NONE.value(),
            metadata: Some("".into()),
            error_code: error.code(),
        })
    });
    make!(OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    })
}
