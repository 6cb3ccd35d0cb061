//! Committed offsets: OffsetCommit, OffsetFetch, OffsetDelete, and how offsets end (retention, deleted topics).

use std::collections::BTreeMap;

use vltava_protocol::make;
use vltava_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use vltava_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use vltava_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use vltava_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use vltava_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, WireId,
};
use vltava_types::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

use super::classic::{ClassicGroup, GroupState};
use super::rebalance::answer;
use super::timers::Timer;
use super::{
    Caller, CommittedOffset, CommittedOffsets, Decision, GroupCompletion, GroupCoordinator, GroupResponse, TopicExists,
};
use crate::core::{LogRecord, Now, Token};
use crate::records::{GroupRecord, MAX_STRING_LENGTH, OffsetCommitValue};

/// "No retention of its own": since OffsetCommit 5 the broker alone decides.
const DEFAULT_RETENTION_TIME: i64 = -1;

/// How many tombstones one round of the retention search writes at most; the rest follows in the next round, at once.
const MAX_EXPIRED_PER_ROUND: usize = 1000;

impl GroupCoordinator {
    pub(super) fn offset_commit(
        &mut self,
        token: Token,
        caller: &Caller,
        request: &OffsetCommitRequest,
        now: Now,
    ) -> Decision {
        let group_id = request.group_id.as_str();
        if let Err(error) = self.validate_commit(caller, request) {
            return answer(token, GroupResponse::OffsetCommit(commit_response(request, |_| error)));
        }
        // A commit proves that its member lives.
        let state = self.live.get(group_id).map(|group| group.state);
        if matches!(state, Some(GroupState::Stable | GroupState::PreparingRebalance)) {
            self.extend_session(group_id, &request.member_id, now);
        }
        let expire_timestamp = (request.retention_time_ms != DEFAULT_RETENTION_TIME)
            .then(|| TimestampMs(now.wall_clock.value().saturating_add(request.retention_time_ms)));
        let mut records = Vec::new();
        let response = commit_response(request, |committed| {
            let metadata = committed.metadata;
            if metadata.len() > self.config.offset_metadata_max_bytes.min(MAX_STRING_LENGTH) {
                return ErrorCode::OffsetMetadataTooLarge;
            }
            let value = OffsetCommitValue {
                offset: committed.offset,
                leader_epoch: committed.leader_epoch,
                metadata: metadata.to_owned(),
                commit_timestamp: now.wall_clock,
                expire_timestamp,
                topic_id: committed.topic_id,
            };
            records.push(offset_record(group_id, committed.topic, committed.partition, Some(value)));
            ErrorCode::None
        });
        let completion = Some(GroupCompletion::Answer(token, GroupResponse::OffsetCommit(response)));
        Decision { records, completion, key: Some(group_id.to_owned()), ..Decision::nothing() }
    }

    fn validate_commit(&self, caller: &Caller, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let group_id = request.group_id.as_str();
        let generation = request.generation_id_or_member_epoch;
        if group_id.len() > MAX_STRING_LENGTH {
            return Err(ErrorCode::InvalidGroupId);
        }
        if request.topics.iter().any(|topic| topic.name.len() > MAX_STRING_LENGTH) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let Some(group) = self.live.get(group_id) else {
            return match (generation, self.exists(group_id)) {
                // A consumer that assigns partitions to itself, or an administrator.
                (..0, _) => Ok(()),
                (_, true) => Err(ErrorCode::UnknownMemberId),
                (_, false) if caller.version >= 9 => Err(ErrorCode::GroupIdNotFound),
                (_, false) => Err(ErrorCode::IllegalGeneration),
            };
        };
        if generation < 0 && group.state == GroupState::Empty {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && request.group_instance_id.is_none() {
            // Not a member, and members are there: their positions are theirs.
            return Err(ErrorCode::UnknownMemberId);
        }
        group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // The member knows the new generation but not yet its assignment.
        if group.state == GroupState::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Waits for earlier commits of the group, so that no one reads an offset that a failover could take back. That
    /// also fulfils `require_stable` as long as there are no transactions.
    pub(super) fn offset_fetch(&mut self, token: Token, request: OffsetFetchRequestGroup) -> Decision {
        let offsets = self.replicated.offsets.get(request.group_id.as_str());
        let topics = match request.topics {
            Some(topics) => topics.into_iter().map(|topic| fetched_topic(topic, offsets)).collect(),
            None => all_topics(offsets),
        };
        let key = Some(request.group_id.as_str().to_owned());
        let response = make!(OffsetFetchResponseGroup { group_id: request.group_id, topics });
        let completion = Some(GroupCompletion::Answer(token, GroupResponse::OffsetFetch(response)));
        Decision { completion, key, ..Decision::nothing() }
    }

    pub(super) fn offset_delete(&mut self, token: Token, request: &OffsetDeleteRequest) -> Decision {
        let group_id = request.group_id.as_str();
        if let Err(error) = self.validate_offset_delete(group_id) {
            let error_code = error.code();
            return answer(token, GroupResponse::OffsetDelete(make!(OffsetDeleteResponse { error_code })));
        }
        let group = self.live.get(group_id);
        let offsets = self.replicated.offsets.get(group_id);
        let mut records = Vec::new();
        let topics = request.topics.iter().map(|topic| {
            let is_subscribed = group.is_some_and(|group| group.is_subscribed_to(&topic.name));
            let error = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            let committed = offsets.and_then(|offsets| offsets.get(topic.name.as_str()));
            let partitions = topic.partitions.iter().map(|partition| {
                let index = PartitionIndex(partition.partition_index);
                if !is_subscribed && committed.is_some_and(|committed| committed.contains_key(&index)) {
                    records.push(offset_record(group_id, &topic.name, index, None));
                }
                make!(OffsetDeleteResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.code()
                })
            });
            make!(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() })
        });
        let response = GroupResponse::OffsetDelete(make!(OffsetDeleteResponse { topics: topics.collect() }));
        let completion = Some(GroupCompletion::Answer(token, response));
        Decision { records, completion, key: Some(group_id.to_owned()), ..Decision::nothing() }
    }

    pub(super) fn committed_offsets(&self, token: Token, limit: usize) -> Decision {
        let mut committed = CommittedOffsets::default();
        for (group_id, topics) in &self.replicated.offsets {
            let count = topics.values().map(BTreeMap::len).sum::<usize>();
            if committed.untold > 0 || committed.offsets.len() + count > limit {
                committed.untold += count;
                continue;
            }
            committed.offsets.extend(topics.iter().flat_map(|(topic, partitions)| {
                partitions.iter().map(move |(partition, value)| CommittedOffset {
                    group_id: group_id.clone(),
                    topic: topic.clone(),
                    topic_id: value.topic_id,
                    partition: *partition,
                    offset: value.offset,
                })
            }));
        }
        answer(token, GroupResponse::CommittedOffsets(committed))
    }

    fn validate_offset_delete(&self, group_id: &str) -> Result<(), ErrorCode> {
        if group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !self.exists(group_id) {
            return Err(ErrorCode::GroupIdNotFound);
        }
        match self.live.get(group_id) {
            // Of other protocols we cannot tell what a member is subscribed to.
            Some(group) if group.state != GroupState::Empty && !group.uses_consumer_protocol() => {
                Err(ErrorCode::NonEmptyGroup)
            }
            _ => Ok(()),
        }
    }

    /// The tombstones for all of a group's offsets.
    pub(super) fn all_offset_tombstones(&self, group_id: &str) -> Vec<LogRecord> {
        let topics = self.replicated.offsets.get(group_id).into_iter().flatten();
        topics
            .flat_map(|(topic, partitions)| {
                partitions.keys().map(move |partition| offset_record(group_id, topic, *partition, None))
            })
            .collect()
    }

    pub(super) fn delete_offsets_of_missing_topics(&self, exists: &TopicExists) -> Decision {
        let mut records = Vec::new();
        for (group_id, topics) in &self.replicated.offsets {
            for (topic, partitions) in topics {
                for (partition, value) in partitions {
                    if !exists(topic, value.topic_id) {
                        records.push(offset_record(group_id, topic, *partition, None));
                    }
                }
            }
        }
        Decision { records, ..Decision::nothing() }
    }

    /// One round of `offsets.retention.minutes`.
    pub(super) fn expire_offsets(&mut self, now: Now) -> Decision {
        let mut records = Vec::new();
        let stored_groups = self.replicated.groups.keys();
        let group_ids: std::collections::BTreeSet<&String> =
            stored_groups.chain(self.replicated.offsets.keys()).collect();
        for group_id in group_ids {
            if records.len() >= MAX_EXPIRED_PER_ROUND {
                break;
            }
            self.expire_group(group_id, now.wall_clock, &mut records);
        }
        let is_done = records.len() < MAX_EXPIRED_PER_ROUND;
        let pause_ms = if is_done { self.config.offsets_retention_check_interval_ms } else { 0 };
        self.timers.schedule(Timer::Retention, now.monotonic_ms + pause_ms);
        Decision { records, ..Decision::nothing() }
    }

    fn expire_group(&self, group_id: &str, now: TimestampMs, records: &mut Vec<LogRecord>) {
        let group = self.live.get(group_id);
        let mut keeps_offsets = false;
        for (topic, partitions) in self.replicated.offsets.get(group_id).into_iter().flatten() {
            for (partition, value) in partitions {
                if self.is_expired(group, topic, value, now) {
                    records.push(offset_record(group_id, topic, *partition, None));
                } else {
                    keeps_offsets = true;
                }
            }
        }
        let is_empty = group.is_none_or(|group| group.state == GroupState::Empty && group.pending_join.is_empty());
        if is_empty && !keeps_offsets && self.replicated.groups.contains_key(group_id) {
            records.push(GroupRecord::GroupMetadata { group_id: group_id.to_owned(), value: None }.encode());
        }
    }

    /// Kafka's rules (KIP-211): retention runs from when the group became empty; for consumers that do without groups,
    /// from the commit; and in a stable group from the commit, for topics that nobody there is subscribed to.
    fn is_expired(
        &self,
        group: Option<&ClassicGroup>,
        topic: &str,
        value: &OffsetCommitValue,
        now: TimestampMs,
    ) -> bool {
        let base = match group {
            Some(group) if group.protocol_type.is_some() => match group.state {
                GroupState::Empty => group.current_state_timestamp.unwrap_or(value.commit_timestamp),
                GroupState::Stable if group.subscribed_topics.is_some() && !group.is_subscribed_to(topic) => {
                    value.commit_timestamp
                }
                GroupState::Stable | GroupState::PreparingRebalance | GroupState::CompletingRebalance => return false,
            },
            _ => value.commit_timestamp,
        };
        match value.expire_timestamp {
            Some(expire_timestamp) => now >= expire_timestamp,
            None => now.value().saturating_sub(base.value()) >= self.config.offsets_retention_ms,
        }
    }
}

struct Committed<'a> {
    topic: &'a str,
    topic_id: TopicId,
    partition: PartitionIndex,
    offset: Offset,
    leader_epoch: LeaderEpoch,
    metadata: &'a str,
}

/// The response to a commit, with the error that `decide` finds for each partition.
fn commit_response(
    request: &OffsetCommitRequest,
    mut decide: impl FnMut(Committed<'_>) -> ErrorCode,
) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error = decide(Committed {
                topic: &topic.name,
                topic_id: TopicId::from_wire(topic.topic_id),
                partition: PartitionIndex(partition.partition_index),
                offset: Offset(partition.committed_offset),
                leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
                metadata: partition.committed_metadata.as_deref().unwrap_or_default(),
            });
            make!(OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.code()
            })
        });
        make!(OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        })
    });
    make!(OffsetCommitResponse { topics: topics.collect() })
}

type GroupOffsets = BTreeMap<String, BTreeMap<PartitionIndex, OffsetCommitValue>>;

fn fetched_topic(topic: OffsetFetchRequestTopics, offsets: Option<&GroupOffsets>) -> OffsetFetchResponseTopics {
    let committed = offsets.and_then(|offsets| offsets.get(topic.name.as_str()));
    let wanted = TopicId::from_wire(topic.topic_id);
    let partitions = topic.partition_indexes.iter().map(|index| {
        let value = committed.and_then(|committed| committed.get(&PartitionIndex(*index)));
        // An offset of a deleted topic says nothing about a new one of the same name.
        let is_of_topic =
            |value: &&OffsetCommitValue| value.topic_id.is_zero() || wanted.is_zero() || value.topic_id == wanted;
        fetched_partition(PartitionIndex(*index), value.filter(is_of_topic))
    });
    let partitions = partitions.collect();
    make!(OffsetFetchResponseTopics { name: topic.name, topic_id: topic.topic_id, partitions })
}

fn all_topics(offsets: Option<&GroupOffsets>) -> Vec<OffsetFetchResponseTopics> {
    let topics = offsets.into_iter().flatten().map(|(topic, committed)| {
        let topic_id = committed.values().map(|value| value.topic_id).find(|id| !id.is_zero()).unwrap_or_default();
        let partitions = committed.iter().map(|(index, value)| fetched_partition(*index, Some(value)));
        make!(OffsetFetchResponseTopics {
            name: topic.as_str().into(),
            topic_id: topic_id.to_wire(),
            partitions: partitions.collect(),
        })
    });
    topics.collect()
}

fn fetched_partition(partition: PartitionIndex, value: Option<&OffsetCommitValue>) -> OffsetFetchResponsePartitions {
    match value {
        None => make!(OffsetFetchResponsePartitions {
            partition_index: partition.value(),
            committed_offset: -1,
            committed_leader_epoch: LeaderEpoch::NONE.value(),
            metadata: Some("".into()),
        }),
        Some(value) => make!(OffsetFetchResponsePartitions {
            partition_index: partition.value(),
            committed_offset: value.offset.value(),
            committed_leader_epoch: value.leader_epoch.value(),
            metadata: Some(value.metadata.as_str().into()),
        }),
    }
}

fn offset_record(
    group_id: &str,
    topic: &str,
    partition: PartitionIndex,
    value: Option<OffsetCommitValue>,
) -> LogRecord {
    GroupRecord::OffsetCommit { group_id: group_id.to_owned(), topic: topic.to_owned(), partition, value }.encode()
}
