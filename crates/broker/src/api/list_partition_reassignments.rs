//! ListPartitionReassignments: the moves under way (KIP-455).

use vltava_metadata::{PartitionImage, TopicImage};
use vltava_protocol::make;
use vltava_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use vltava_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use vltava_types::{BrokerId, PartitionIndex};

use crate::api::RequestContext;

pub async fn handle(
    context: &RequestContext<'_>,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = &context.image;
    let topics: Vec<_> = match &request.topics {
        None => image.topics.values().filter_map(|topic| describe(topic, |_| true)).collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|wanted| {
                let topic = image.topic_by_name(&wanted.name)?;
                describe(topic, |index| wanted.partition_indexes.contains(&index.value()))
            })
            .collect(),
    };
    make!(ListPartitionReassignmentsResponse { topics })
}

/// `None` if no wanted partition is being moved.
fn describe(topic: &TopicImage, is_wanted: impl Fn(PartitionIndex) -> bool) -> Option<OngoingTopicReassignment> {
    let moving = topic.indexed_partitions().filter(|(index, partition)| is_moving(partition) && is_wanted(*index));
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|id| id.value()).collect::<Vec<_>>();
    let partitions: Vec<_> = moving
        .map(|(index, partition)| {
            make!(OngoingPartitionReassignment {
                partition_index: index.value(),
                replicas: numbers(&partition.replicas),
                adding_replicas: numbers(&partition.adding_replicas),
                removing_replicas: numbers(&partition.removing_replicas),
            })
        })
        .collect();
    let is_moving = !partitions.is_empty();
    is_moving.then(|| make!(OngoingTopicReassignment { name: topic.name.as_str().into(), partitions }))
}

fn is_moving(partition: &PartitionImage) -> bool {
    !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
}
