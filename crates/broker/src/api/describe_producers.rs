//! DescribeProducers: which idempotent producers a partition's leader remembers (KIP-664).

use vltava_protocol::make;
use vltava_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use vltava_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use vltava_replication::ActiveProducer;
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::api::routing::hosted_partition_by_name;
use crate::topic_creation::is_valid_name;

pub async fn handle(context: &RequestContext<'_>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| describe(context, &topic.name, *index)).collect();
        make!(TopicResponse { name: topic.name, partitions })
    });
    make!(DescribeProducersResponse { topics: topics.collect() })
}

fn describe(context: &RequestContext<'_>, topic: &str, partition_index: i32) -> PartitionResponse {
    match active_producers(context, topic, partition_index) {
        Ok(producers) => {
            make!(PartitionResponse { partition_index, active_producers: producers.iter().map(state).collect() })
        }
        Err(error) => make!(PartitionResponse { partition_index, error_code: error.code() }),
    }
}

fn active_producers(
    context: &RequestContext<'_>,
    topic: &str,
    partition: i32,
) -> Result<Vec<ActiveProducer>, ErrorCode> {
    if !is_valid_name(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    hosted_partition_by_name(context.broker, &context.image, topic, partition)?.active_producers()
}

fn state(producer: &ActiveProducer) -> ProducerState {
    make!(ProducerState {
        producer_id: producer.producer_id.value(),
        producer_epoch: i32::from(producer.producer_epoch.value()),
        last_sequence: producer.last_sequence.value(),
        last_timestamp: producer.last_timestamp.value(),
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.current_txn_first_offset.map_or(-1, |offset| offset.value()),
    })
}
