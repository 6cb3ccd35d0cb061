//! OffsetDelete: drops offsets of topics that a group is no longer subscribed to (KIP-496).

use vltava_protocol::make;
use vltava_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use vltava_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use vltava_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use vltava_types::{ErrorCode, PartitionIndex};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, mut request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut unknown = Vec::new();
    let mut valid = Vec::new();
    for mut topic in std::mem::take(&mut request.topics) {
        let topic_id = context.image.topic_id(&topic.name);
        let exists = |partition: &OffsetDeleteRequestPartition| {
            let index = PartitionIndex(partition.partition_index);
            topic_id.is_some_and(|topic_id| context.image.partition(topic_id, index).is_some())
        };
        let (known, others): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions).into_iter().partition(exists);
        if !others.is_empty() {
            unknown.push(with_error(&topic, &others, ErrorCode::UnknownTopicOrPartition));
        }
        topic.partitions = known;
        if !topic.partitions.is_empty() {
            valid.push(topic);
        }
    }
    request.topics = valid;
    let outcome = context.broker.groups.offset_delete(request).await;
    let mut response = outcome.unwrap_or_else(|error| make!(OffsetDeleteResponse { error_code: error.code() }));
    if response.error_code == ErrorCode::None.code() {
        for mut topic in unknown {
            match response.topics.iter_mut().find(|other| other.name == topic.name) {
                Some(other) => other.partitions.append(&mut topic.partitions),
                None => response.topics.push(topic),
            }
        }
    }
    response
}

fn with_error(
    topic: &OffsetDeleteRequestTopic,
    partitions: &[OffsetDeleteRequestPartition],
    error: ErrorCode,
) -> OffsetDeleteResponseTopic {
    let partitions = partitions.iter().map(|partition| {
        make!(OffsetDeleteResponsePartition { partition_index: partition.partition_index, error_code: error.code() })
    });
    make!(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() })
}
