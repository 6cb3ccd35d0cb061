//! Requests about partitions, which go to each partition's leader.

use std::collections::BTreeMap;

use vltava_protocol::make;
use vltava_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use vltava_protocol::messages::describe_producers_request::TopicRequest;
use vltava_protocol::messages::describe_producers_response::ProducerState;
use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::{DeleteRecordsRequest, DescribeProducersRequest, ListOffsetsRequest};
use vltava_types::ErrorCode;

use super::{Admin, AdminError, ApiError, Partition, To, by_topic};

const LIST_OFFSETS_VERSION: i16 = 9;
/// The first that knows `earliest-pending-upload` (KIP-1023 and KIP-1086).
const LIST_OFFSETS_VERSION_OF_PENDING_UPLOAD: i16 = 11;
const DELETE_RECORDS_VERSION: i16 = 2;
const DESCRIBE_PRODUCERS_VERSION: i16 = 0;

/// `ListOffsets`' names for places instead of times.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;
pub const MAX_TIMESTAMP: i64 = -3;
pub const EARLIEST_LOCAL: i64 = -4;
pub const LATEST_TIERED: i64 = -5;
pub const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// An outcome for each partition that was asked for.
pub type ByPartition<T> = BTreeMap<Partition, Result<T, ApiError>>;

impl Admin {
    /// The offset of each partition for a time in milliseconds or one of the places above; -1 where there is none.
    pub async fn list_offsets(&mut self, wanted: &BTreeMap<Partition, i64>) -> Result<ByPartition<i64>, AdminError> {
        let newest = wanted.values().any(|timestamp| *timestamp == EARLIEST_PENDING_UPLOAD);
        let version = if newest { LIST_OFFSETS_VERSION_OF_PENDING_UPLOAD } else { LIST_OFFSETS_VERSION };
        self.call_leaders(wanted, async |admin: &mut Self, leader, wanted| {
            let topics = by_topic(wanted.iter().map(|(partition, timestamp)| (partition, *timestamp)));
            let topics = topics.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(partition_index, timestamp)| {
                    make!(ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp })
                });
                make!(ListOffsetsTopic { name: name.into(), partitions: partitions.collect() })
            });
            let request = make!(ListOffsetsRequest { replica_id: -1, topics: topics.collect() });
            let answer = admin.call_once(To::Broker(leader), version, &request, |_| Ok(())).await?;
            let found = answer.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|partition| {
                    let outcome = ApiError::check(partition.error_code, None).map(|()| partition.offset);
                    ((topic.name.to_string(), partition.partition_index), outcome)
                })
            });
            Ok(found.collect())
        })
        .await
    }

    /// Deletes the records below each offset (-1: below the high watermark); gives the log start offsets that result.
    pub async fn delete_records(&mut self, wanted: &BTreeMap<Partition, i64>) -> Result<ByPartition<i64>, AdminError> {
        self.call_leaders(wanted, async |admin: &mut Self, leader, wanted| {
            let topics = by_topic(wanted.iter().map(|(partition, offset)| (partition, *offset)));
            let topics = topics.into_iter().map(|(name, partitions)| {
                let partitions = partitions
                    .into_iter()
                    .map(|(partition_index, offset)| make!(DeleteRecordsPartition { partition_index, offset }));
                make!(DeleteRecordsTopic { name: name.into(), partitions: partitions.collect() })
            });
            let request = make!(DeleteRecordsRequest { topics: topics.collect(), timeout_ms: admin.timeout_ms() });
            let answer = admin.call_once(To::Broker(leader), DELETE_RECORDS_VERSION, &request, |_| Ok(())).await?;
            let found = answer.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|partition| {
                    let outcome = ApiError::check(partition.error_code, None).map(|()| partition.low_watermark);
                    ((topic.name.to_string(), partition.partition_index), outcome)
                })
            });
            Ok(found.collect())
        })
        .await
    }

    /// The producers that a partition's leader remembers.
    pub async fn describe_producers(
        &mut self,
        partitions: &[Partition],
    ) -> Result<ByPartition<Vec<ProducerState>>, AdminError> {
        let wanted = partitions.iter().map(|partition| (partition.clone(), ())).collect();
        self.call_leaders(&wanted, async |admin: &mut Self, leader, wanted| {
            let topics = by_topic(wanted.keys().map(|partition| (partition, ())));
            let topics = topics.into_iter().map(|(name, partitions)| {
                let partition_indexes = partitions.into_iter().map(|(index, ())| index).collect();
                make!(TopicRequest { name: name.into(), partition_indexes })
            });
            let request = make!(DescribeProducersRequest { topics: topics.collect() });
            let answer = admin.call_once(To::Broker(leader), DESCRIBE_PRODUCERS_VERSION, &request, |_| Ok(())).await?;
            let found = answer.topics.into_iter().flat_map(|topic| {
                let name = topic.name.to_string();
                topic.partitions.into_iter().map(move |partition| {
                    let outcome = ApiError::check(partition.error_code, partition.error_message.as_ref());
                    ((name.clone(), partition.partition_index), outcome.map(|()| partition.active_producers))
                })
            });
            Ok(found.collect())
        })
        .await
    }

    /// Asks the leaders of partitions, and again those that were not, until each partition has an outcome or the time is
    /// up. What is not there at all is told at once.
    async fn call_leaders<W: Clone, T>(
        &mut self,
        wanted: &BTreeMap<Partition, W>,
        ask: impl AsyncFn(&mut Self, i32, &BTreeMap<Partition, W>) -> Result<ByPartition<T>, AdminError>,
    ) -> Result<ByPartition<T>, AdminError> {
        let mut outcomes = BTreeMap::new();
        let mut left = wanted.clone();
        while !left.is_empty() {
            let mut names: Vec<String> = left.keys().map(|(topic, _)| topic.clone()).collect();
            names.dedup();
            let mut leaders: BTreeMap<Partition, Result<i32, ApiError>> = BTreeMap::new();
            for topic in self.topics(Some(&names)).await? {
                let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
                let whole = ApiError::check(topic.error_code, None);
                for partition in &topic.partitions {
                    let leader = match (&whole, partition.leader_id) {
                        (Err(error), _) => Err(error.clone()),
                        (Ok(()), -1) => Err(ApiError { code: ErrorCode::LeaderNotAvailable, message: None }),
                        (Ok(()), leader) => Ok(leader),
                    };
                    leaders.insert((name.clone(), partition.partition_index), leader);
                }
            }
            let mut by_leader: BTreeMap<i32, BTreeMap<Partition, W>> = BTreeMap::new();
            let mut failures: BTreeMap<Partition, ApiError> = BTreeMap::new();
            for (partition, what) in &left {
                match leaders.remove(partition) {
                    Some(Ok(leader)) => {
                        by_leader.entry(leader).or_default().insert(partition.clone(), what.clone());
                    }
                    Some(Err(error)) => _ = failures.insert(partition.clone(), error),
                    None => {
                        let missing = ApiError { code: ErrorCode::UnknownTopicOrPartition, message: None };
                        failures.insert(partition.clone(), missing);
                    }
                }
            }
            for (leader, wanted) in by_leader {
                let answer = match ask(self, leader, &wanted).await {
                    Ok(answer) => answer,
                    Err(AdminError::Client(error)) if error.is_retriable() && !self.is_late() => continue,
                    Err(error) => return Err(error),
                };
                for (partition, outcome) in answer {
                    match outcome {
                        Err(error) if is_of_leadership(error.code) => _ = failures.insert(partition, error),
                        outcome => {
                            left.remove(&partition);
                            outcomes.insert(partition, outcome);
                        }
                    }
                }
            }
            for (partition, error) in failures {
                if error.code == ErrorCode::UnknownTopicOrPartition || self.is_late() {
                    left.remove(&partition);
                    outcomes.insert(partition, Err(error));
                }
            }
            if !left.is_empty() && !self.pause().await {
                return Err(crate::ClientError::TimedOut.into());
            }
        }
        Ok(outcomes)
    }
}

/// Whether another broker, or this one a little later, leads the partition.
const fn is_of_leadership(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::KafkaStorageError
    )
}
