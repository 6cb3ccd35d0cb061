//! DeleteRecords: moves the start of a log, and answers once every live replica has moved its own, durably: neither an
//! election nor a crash brings back what was deleted.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;
use vltava_host::task;
use vltava_protocol::make;
use vltava_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use vltava_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use vltava_types::{ErrorCode, Offset, PartitionIndex, TopicPartition};

use crate::api::RequestContext;
use crate::api::config_resources::configs;
use crate::api::refused::timeout;
use crate::partition::Partition;
use crate::topic_creation::is_internal;

/// Where a deletion ends if all that may be read is to go.
const HIGH_WATERMARK: i64 = -1;

pub async fn handle(context: &RequestContext<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let topics = request.topics.iter().map(async |topic| {
        let partitions = topic.partitions.iter().map(async |partition| {
            let index = PartitionIndex(partition.partition_index);
            let outcome = delete(context, &topic.name, index, partition.offset, deadline).await;
            let (low_watermark, error) = match outcome {
                Ok(low_watermark) => (low_watermark.value(), ErrorCode::None),
                Err(error) => (-1, error),
            };
            let error_code = error.code();
            make!(DeleteRecordsPartitionResult { partition_index: index.value(), low_watermark, error_code })
        });
        make!(DeleteRecordsTopicResult { name: topic.name.clone(), partitions: join_all(partitions).await })
    });
    make!(DeleteRecordsResponse { topics: join_all(topics).await })
}

async fn delete(
    context: &RequestContext<'_>,
    topic: &str,
    index: PartitionIndex,
    offset: i64,
    deadline: Instant,
) -> Result<Offset, ErrorCode> {
    let image = context.image.topic_by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    image.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    if !configs(context).topic(image.topic_id).is_deleted {
        return Err(ErrorCode::PolicyViolation);
    }
    let before = match offset {
        HIGH_WATERMARK => None,
        0.. => Some(Offset(offset)),
        _ => return Err(ErrorCode::OffsetOutOfRange),
    };
    let id = TopicPartition { topic_id: image.topic_id, partition: index };
    let partition = context.broker.replicas.partition(id).ok_or(ErrorCode::NotLeaderOrFollower)?;
    let deleting = Arc::clone(&partition);
    let start = task::blocking(move || deleting.delete_records_before(before)).await?;
    // Retention may have come further than was asked for, which nobody has to wait for.
    let target = before.map_or(start, |before| before.min(start));
    let waited = tokio::time::timeout_at(deadline, wait_for_replicas(&partition, target)).await;
    waited.unwrap_or(Err(ErrorCode::RequestTimedOut))
}

/// Waits until no live replica can serve anything below `target` again.
async fn wait_for_replicas(partition: &Arc<Partition>, target: Offset) -> Result<Offset, ErrorCode> {
    let waiter = Arc::new(Notify::new());
    let _subscription = partition.subscribe(&waiter);
    loop {
        match partition.low_watermark()? {
            Some(low_watermark) if low_watermark >= target => return Ok(low_watermark),
            Some(_) | None => waiter.notified().await,
        }
    }
}
