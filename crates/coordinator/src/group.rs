//! The group coordinator: the classic group protocol and committed offsets, over one partition of `__consumer_offsets`.
//!
//! Two kinds of state stand side by side. [`Replicated`] is what the log says: each group's last stored generation and
//! all committed offsets; replay alone changes it. The live groups (`classic`) are volatile: who has joined, who waits
//! for an answer, whose session runs until when. A live group is built from the stored generation when the log has been
//! loaded, and a generation becomes stored when its leader's assignment does, before any member learns of it.
//!
//! One file per concern: `rebalance` holds JoinGroup, SyncGroup, Heartbeat, LeaveGroup and their timers,
//! `offsets` the offsets and their retention, `admin` describing, listing and deleting.

mod admin;
mod classic;
mod offsets;
mod rebalance;
mod timers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use vltava_protocol::messages::delete_groups_response::DeletableGroupResult;
use vltava_protocol::messages::describe_groups_response::DescribedGroup;
use vltava_protocol::messages::list_groups_response::ListedGroup;
use vltava_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use vltava_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use vltava_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use vltava_types::{ErrorCode, Offset, PartitionIndex, TopicId, Uuid};

use crate::core::{Coordinator, LogRecord, Now, Reply, Token, client_error_of_failed_append};
use crate::records::{GroupMetadataValue, GroupRecord, OffsetCommitValue, RecordError};
use classic::ClassicGroup;
pub use classic::GroupState;
pub use rebalance::{Completion as RebalanceCompletion, StaticMemberReplaced};
use timers::{Timer, Timers};

/// The settings of Kafka's that govern classic groups and their offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: usize,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 10_080 * 60_000,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}

/// Who sent a request, and in which version of its API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub version: i16,
    pub client_id: String,
    /// As Kafka shows it: a slash and the address.
    pub client_host: String,
}

/// Whether a topic of this name and identity still exists; the identity is zero where it was never recorded.
pub type TopicExists = Arc<dyn Fn(&str, TopicId) -> bool + Send + Sync>;

/// What happens to the groups of one partition.
pub enum GroupEvent {
    JoinGroup {
        token: Token,
        caller: Caller,
        request: JoinGroupRequest,
        /// Random; becomes the end of the member's id if it has none yet.
        new_member: Uuid,
    },
    SyncGroup {
        token: Token,
        request: SyncGroupRequest,
    },
    Heartbeat {
        token: Token,
        request: HeartbeatRequest,
    },
    LeaveGroup {
        token: Token,
        request: LeaveGroupRequest,
    },
    /// Topics carry both name and id, and exist.
    OffsetCommit {
        token: Token,
        caller: Caller,
        request: OffsetCommitRequest,
    },
    OffsetFetch {
        token: Token,
        request: OffsetFetchRequestGroup,
    },
    OffsetDelete {
        token: Token,
        request: OffsetDeleteRequest,
    },
    DescribeGroups {
        token: Token,
        version: i16,
        group_ids: Vec<String>,
    },
    ListGroups {
        token: Token,
        states_filter: Vec<String>,
        types_filter: Vec<String>,
    },
    DeleteGroups {
        token: Token,
        group_ids: Vec<String>,
    },
    /// What is committed, for whoever watches how far groups are behind.
    CommittedOffsets {
        token: Token,
        /// Groups come whole, in the order of their names, until so many offsets are told.
        limit: usize,
    },
    /// Topics were deleted: their offsets go.
    TopicsDeleted {
        exists: TopicExists,
    },
}

/// The answer to the event of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupResponse {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponseGroup),
    OffsetDelete(OffsetDeleteResponse),
    DescribeGroups(Vec<DescribedGroup>),
    ListGroups(Vec<ListedGroup>),
    DeleteGroups(Vec<DeletableGroupResult>),
    CommittedOffsets(CommittedOffsets),
}

/// Offsets of all groups of one partition, whether they have members or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffsets {
    pub offsets: Vec<CommittedOffset>,
    /// How many there are beyond the limit.
    pub untold: usize,
}

/// Where a group goes on in a partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommittedOffset {
    pub group_id: String,
    pub topic: String,
    /// Zero where it was never recorded.
    pub topic_id: TopicId,
    pub partition: PartitionIndex,
    pub offset: Offset,
}

/// What the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicated {
    /// The last stored generation of each group.
    pub groups: BTreeMap<String, GroupMetadataValue>,
    /// By group, then topic, then partition; no inner map is empty.
    pub offsets: BTreeMap<String, BTreeMap<String, BTreeMap<PartitionIndex, OffsetCommitValue>>>,
}

/// What follows once records are durable.
#[derive(Debug)]
pub enum GroupCompletion {
    /// Send the answer.
    Answer(Token, GroupResponse),
    /// A step of a rebalance.
    Rebalance(RebalanceCompletion),
}

pub(crate) type Decision = crate::core::Decision<GroupCoordinator>;

/// The groups whose state one partition of `__consumer_offsets` holds.
pub struct GroupCoordinator {
    config: GroupConfig,
    replicated: Replicated,
    /// Every group with stored members or a rebalance under way. Groups known only by their offsets are not here.
    live: BTreeMap<String, ClassicGroup>,
    timers: Timers,
}

impl GroupCoordinator {
    #[must_use]
    pub fn new(config: GroupConfig) -> Self {
        Self { config, replicated: Replicated::default(), live: BTreeMap::new(), timers: Timers::default() }
    }

    /// What the log says, for tests and tools.
    #[must_use]
    pub fn replicated(&self) -> &Replicated {
        &self.replicated
    }

    /// Whether anything is known of the group: a live one, a stored one, or offsets.
    fn exists(&self, group_id: &str) -> bool {
        self.live.contains_key(group_id)
            || self.replicated.groups.contains_key(group_id)
            || self.replicated.offsets.contains_key(group_id)
    }
}

impl Coordinator for GroupCoordinator {
    type Event = GroupEvent;
    type Response = GroupResponse;
    type Completion = GroupCompletion;

    fn replay(&mut self, record: &LogRecord) -> Result<(), RecordError> {
        match GroupRecord::decode(record)? {
            Some(GroupRecord::OffsetCommit { group_id, topic, partition, value }) => {
                self.replicated.put_offset(group_id, topic, partition, value);
            }
            Some(GroupRecord::GroupMetadata { group_id, value: Some(value) }) => {
                self.replicated.groups.insert(group_id, value);
            }
            Some(GroupRecord::GroupMetadata { group_id, value: None }) => {
                // A tombstone is written for an empty group only; nobody waits in it.
                if self.live.get(&group_id).is_some_and(|group| group.state == GroupState::Empty) {
                    self.live.remove(&group_id);
                }
                self.replicated.groups.remove(&group_id);
            }
            None => {}
        }
        Ok(())
    }

    /// Every stored member gets a fresh session: the old coordinator's clocks died with it.
    fn loaded(&mut self, now: Now) -> Decision {
        self.live = self
            .replicated
            .groups
            .iter()
            .map(|(group_id, stored)| (group_id.clone(), ClassicGroup::from_stored(group_id, stored)))
            .collect();
        self.timers.schedule(Timer::Retention, now.monotonic_ms + self.config.offsets_retention_check_interval_ms);
        self.restart_sessions(now)
    }

    fn handle(&mut self, event: GroupEvent, now: Now) -> Decision {
        match event {
            GroupEvent::JoinGroup { token, caller, request, new_member } => {
                self.join_group(token, &caller, &request, new_member, now)
            }
            GroupEvent::SyncGroup { token, request } => self.sync_group(token, &request, now),
            GroupEvent::Heartbeat { token, request } => self.heartbeat(token, &request, now),
            GroupEvent::LeaveGroup { token, request } => self.leave_group(token, &request, now),
            GroupEvent::OffsetCommit { token, caller, request } => self.offset_commit(token, &caller, &request, now),
            GroupEvent::OffsetFetch { token, request } => self.offset_fetch(token, request),
            GroupEvent::OffsetDelete { token, request } => self.offset_delete(token, &request),
            GroupEvent::DescribeGroups { token, version, group_ids } => {
                self.describe_groups(token, version, &group_ids)
            }
            GroupEvent::ListGroups { token, states_filter, types_filter } => {
                self.list_groups(token, &states_filter, &types_filter)
            }
            GroupEvent::DeleteGroups { token, group_ids } => self.delete_groups(token, group_ids),
            GroupEvent::CommittedOffsets { token, limit } => self.committed_offsets(token, limit),
            GroupEvent::TopicsDeleted { exists } => self.delete_offsets_of_missing_topics(&exists),
        }
    }

    fn complete(&mut self, completion: GroupCompletion, result: Result<(), ErrorCode>, now: Now) -> Decision {
        match completion {
            GroupCompletion::Answer(token, response) => {
                let outcome = result.map(|()| response).map_err(client_error_of_failed_append);
                Decision { replies: vec![Reply { token, outcome }], ..Decision::nothing() }
            }
            GroupCompletion::Rebalance(completion) => self.complete_rebalance_step(completion, result, now),
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_deadline_ms()
    }

    fn expire(&mut self, now: Now) -> Option<Decision> {
        let timer = self.timers.pop_expired(now.monotonic_ms)?;
        Some(match timer {
            Timer::Session { group_id, member_id } => self.expire_session(&group_id, &member_id, now),
            Timer::Join { group_id } => self.expire_join(&group_id, now),
            Timer::Sync { group_id } => self.expire_sync(&group_id, now),
            Timer::Retention => self.expire_offsets(now),
        })
    }

    fn unload(&mut self) -> Vec<Reply<GroupResponse>> {
        let groups = std::mem::take(&mut self.live);
        self.timers = Timers::default();
        let waiting = groups.into_values().flat_map(|group| group.members.into_values());
        waiting
            .flat_map(|member| [member.awaiting_join, member.awaiting_sync])
            .flatten()
            .map(|token| Reply { token, outcome: Err(ErrorCode::NotCoordinator) })
            .collect()
    }
}

impl Replicated {
    fn put_offset(
        &mut self,
        group_id: String,
        topic: String,
        partition: PartitionIndex,
        value: Option<OffsetCommitValue>,
    ) {
        if let Some(value) = value {
            self.offsets.entry(group_id).or_default().entry(topic).or_default().insert(partition, value);
            return;
        }
        let Some(topics) = self.offsets.get_mut(&group_id) else { return };
        if let Some(partitions) = topics.get_mut(&topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                topics.remove(&topic);
            }
        }
        if topics.is_empty() {
            self.offsets.remove(&group_id);
        }
    }
}

impl fmt::Debug for GroupEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::JoinGroup { .. } => "JoinGroup",
            Self::SyncGroup { .. } => "SyncGroup",
            Self::Heartbeat { .. } => "Heartbeat",
            Self::LeaveGroup { .. } => "LeaveGroup",
            Self::OffsetCommit { .. } => "OffsetCommit",
            Self::OffsetFetch { .. } => "OffsetFetch",
            Self::OffsetDelete { .. } => "OffsetDelete",
            Self::DescribeGroups { .. } => "DescribeGroups",
            Self::ListGroups { .. } => "ListGroups",
            Self::DeleteGroups { .. } => "DeleteGroups",
            Self::CommittedOffsets { .. } => "CommittedOffsets",
            Self::TopicsDeleted { .. } => "TopicsDeleted",
        })
    }
}
