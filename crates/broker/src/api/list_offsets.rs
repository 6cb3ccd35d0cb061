//! ListOffsets: offsets by time, or the ends of a partition.

use std::collections::BTreeSet;

use vltava_protocol::make;
use vltava_protocol::messages::list_offsets_request::ListOffsetsPartition;
use vltava_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use vltava_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use vltava_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs};

use crate::api::routing::{epoch_of_client, hosted_partition_by_name};
use crate::api::{RequestContext, catch_up};
use crate::partition::Isolation;

/// Timestamps that stand for something else, and the first version that knows each.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: (i64, i16) = (-3, 7);
const EARLIEST_LOCAL: (i64, i16) = (-4, 8);
const LATEST_TIERED: (i64, i16) = (-5, 9);
const EARLIEST_PENDING_UPLOAD: (i64, i16) = (-6, 11);

/// An answer for one partition. Unknown parts are -1 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    offset: Offset,
    timestamp: TimestampMs,
    leader_epoch: LeaderEpoch,
}

impl Found {
    /// No record matches: not an error.
    const NOTHING: Self = Self { offset: Offset(-1), timestamp: TimestampMs::NONE, leader_epoch: LeaderEpoch::NONE };
}

/// Whoever asks is a consumer: offsets above the high watermark are for replicas, which do not ask here.
pub async fn handle(context: &RequestContext<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = catch_up::image_for_list_offsets(context, &request).await;
    let context = &RequestContext { image, ..*context };
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let repeated = repeated_partitions(&request);
    let topics = request.topics.into_iter().map(|topic| {
        let answer = |asked: &ListOffsetsPartition| {
            let found = if repeated.contains(&(topic.name.to_string(), asked.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else {
                find(context, &topic.name, asked, isolation)
            };
            describe(context.version, asked.partition_index, found)
        };
        let partitions = topic.partitions.iter().map(answer).collect();
        make!(ListOffsetsTopicResponse { name: topic.name, partitions })
    });
    make!(ListOffsetsResponse { topics: topics.collect() })
}

/// A partition asked for twice is refused both times.
fn repeated_partitions(request: &ListOffsetsRequest) -> BTreeSet<(String, i32)> {
    let mut seen = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((topic.name.as_str(), partition.partition_index)) {
                repeated.insert((topic.name.to_string(), partition.partition_index));
            }
        }
    }
    repeated
}

fn find(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, ErrorCode> {
    check_timestamp(context.version, asked.timestamp)?;
    let partition = hosted_partition_by_name(context.broker, &context.image, topic, asked.partition_index)?;
    let believed = epoch_of_client(asked.current_leader_epoch);
    let at_end = |(offset, leader_epoch)| Found { offset, timestamp: TimestampMs::NONE, leader_epoch };
    let found = match asked.timestamp {
        LATEST => return partition.latest_offset(isolation, believed).map(at_end),
        timestamp if timestamp == EARLIEST || timestamp == EARLIEST_LOCAL.0 => {
            return partition.earliest_offset(believed).map(at_end);
        }
        // There is no tiered storage: nothing is there, and nothing waits to go there.
        timestamp if timestamp == LATEST_TIERED.0 || timestamp == EARLIEST_PENDING_UPLOAD.0 => {
            partition.earliest_offset(believed)?;
            None
        }
        timestamp if timestamp == MAX_TIMESTAMP.0 => partition.max_timestamp(believed)?,
        timestamp => partition.offset_for_timestamp(TimestampMs(timestamp), isolation, believed)?,
    };
    Ok(found.map_or(Found::NOTHING, |found| Found {
        offset: found.offset,
        timestamp: found.timestamp,
        leader_epoch: found.leader_epoch,
    }))
}

fn check_timestamp(version: i16, timestamp: i64) -> Result<(), ErrorCode> {
    let is_known = match timestamp {
        0.. | LATEST | EARLIEST => true,
        _ => [MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD]
            .iter()
            .any(|(known, since)| timestamp == *known && version >= *since),
    };
    if is_known { Ok(()) } else { Err(ErrorCode::UnsupportedVersion) }
}

fn describe(version: i16, partition_index: i32, found: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    let error = match found {
        Ok(_) => ErrorCode::None,
        // The code was added with version 5; older clients retry on this one.
        Err(ErrorCode::OffsetNotAvailable) if version < 5 => ErrorCode::LeaderNotAvailable,
        Err(error) => error,
    };
    let found = found.unwrap_or(Found::NOTHING);
    let mut response = make!(ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp: found.timestamp.value(),
        offset: found.offset.value(),
    });
    if version >= 4 {
        response.leader_epoch = found.leader_epoch.value();
    }
    response
}

#[cfg(test)]
mod tests {
    use vltava_types::ErrorCode;

    use super::check_timestamp;

    #[test]
    fn special_timestamps_are_known_from_their_version_on() {
        for (timestamp, since) in [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11), (0, 1), (i64::MAX, 1)] {
            for version in 1..=11 {
                assert_eq!(check_timestamp(version, timestamp).is_ok(), version >= since, "{timestamp} at {version}");
            }
        }
        assert_eq!(check_timestamp(11, -7), Err(ErrorCode::UnsupportedVersion));
    }
}
