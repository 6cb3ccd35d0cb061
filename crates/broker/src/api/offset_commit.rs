//! OffsetCommit: stores how far a group has come.

use vltava_metadata::ClusterImage;
use vltava_protocol::make;
use vltava_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use vltava_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use vltava_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, WireId};
use vltava_types::{ErrorCode, PartitionIndex, TopicId};

use super::RequestContext;
use super::join_group::caller;

pub async fn handle(context: &RequestContext<'_>, mut request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut topics = Vec::new();
    let mut valid = Vec::new();
    for mut topic in std::mem::take(&mut request.topics) {
        match resolve(&context.image, context.version, &mut topic) {
            Err(error) => topics.push(with_error(&topic, &topic.partitions, error)),
            Ok(()) => {
                let topic_id = TopicId::from_wire(topic.topic_id);
                let exists = |partition: &OffsetCommitRequestPartition| {
                    context.image.partition(topic_id, PartitionIndex(partition.partition_index)).is_some()
                };
                let (known, unknown): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut topic.partitions).into_iter().partition(exists);
                if !unknown.is_empty() {
                    topics.push(with_error(&topic, &unknown, ErrorCode::UnknownTopicOrPartition));
                }
                topic.partitions = known;
                if !topic.partitions.is_empty() {
                    valid.push(topic);
                }
            }
        }
    }
    if valid.is_empty() {
        return make!(OffsetCommitResponse { topics });
    }
    request.topics = valid.clone();
    let outcome = context.broker.groups.offset_commit(caller(context), request).await;
    let decided = match outcome {
        Ok(response) => response.topics,
        Err(error) => valid.iter().map(|topic| with_error(topic, &topic.partitions, error)).collect(),
    };
    for mut topic in decided {
        let same =
            |other: &&mut OffsetCommitResponseTopic| other.name == topic.name && other.topic_id == topic.topic_id;
        match topics.iter_mut().find(same) {
            Some(other) => other.partitions.append(&mut topic.partitions),
            None => topics.push(topic),
        }
    }
    make!(OffsetCommitResponse { topics })
}

/// Gives a topic both its name and its id, whichever the client's version speaks of.
fn resolve(image: &ClusterImage, version: i16, topic: &mut OffsetCommitRequestTopic) -> Result<(), ErrorCode> {
    if version >= 10 {
        let known = image.topic(TopicId::from_wire(topic.topic_id)).ok_or(ErrorCode::UnknownTopicId)?;
        topic.name = known.name.as_str().into();
    } else {
        let known = image.topic_by_name(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        topic.topic_id = known.topic_id.to_wire();
    }
    Ok(())
}

fn with_error(
    topic: &OffsetCommitRequestTopic,
    partitions: &[OffsetCommitRequestPartition],
    error: ErrorCode,
) -> OffsetCommitResponseTopic {
    let partitions = partitions.iter().map(|partition| {
        make!(OffsetCommitResponsePartition { partition_index: partition.partition_index, error_code: error.code() })
    });
    make!(OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    })
}
