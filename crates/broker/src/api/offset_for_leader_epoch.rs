//! OffsetForLeaderEpoch: where the records of an epoch end, so that a consumer notices a truncation (KIP-320).

use vltava_protocol::make;
use vltava_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use vltava_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use vltava_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use vltava_types::{ErrorCode, LeaderEpoch, Offset};

use crate::api::RequestContext;
use crate::api::routing::{epoch_of_client, hosted_partition_by_name};

pub async fn handle(
    context: &RequestContext<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| answer(context, &topic.topic, asked)).collect();
        make!(OffsetForLeaderTopicResult { topic: topic.topic, partitions })
    });
    make!(OffsetForLeaderEpochResponse { topics: topics.collect() })
}

fn answer(context: &RequestContext<'_>, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let end = end_offset(context, topic, asked);
    let error = end.err().unwrap_or(ErrorCode::None);
    let (epoch, end) = end.ok().flatten().unwrap_or((LeaderEpoch::NONE, Offset(-1)));
    make!(EpochEndOffset {
        error_code: error.code(),
        partition: asked.partition,
        leader_epoch: epoch.value(),
        end_offset: end.value(),
    })
}

fn end_offset(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let partition = hosted_partition_by_name(context.broker, &context.image, topic, asked.partition)?;
    let believed = epoch_of_client(asked.current_leader_epoch);
    let end = partition.end_offset_for_epoch(LeaderEpoch(asked.leader_epoch), believed)?;
    Ok(end.map(|end| (end.epoch, end.end_offset)))
}
