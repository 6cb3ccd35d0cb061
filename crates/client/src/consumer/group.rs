//! Membership of a classic group: joining, heartbeats, commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vltava_protocol::make;
use vltava_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use vltava_protocol::messages::leave_group_request::MemberIdentity;
use vltava_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use vltava_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use vltava_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use vltava_protocol::messages::{
    ApiVersion, ConsumerProtocolAssignment, ConsumerProtocolSubscription, DecodeLimits, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    RequestResponsePair, SyncGroupRequest, consumer_protocol_assignment, decode_consumer_protocol_assignment,
    decode_consumer_protocol_subscription, encode_consumer_protocol_assignment, encode_consumer_protocol_subscription,
};
use vltava_types::{ErrorCode, Offset};

use super::assignor::{Assignor, Subscriber};
use super::positions::TopicPartition;
use super::{ConsumeError, ConsumerConfig};
use crate::ClientError;
use crate::error::{check, is_retriable};
use crate::network::{Network, Purpose};

const FIND_COORDINATOR_VERSION: i16 = 3;
const JOIN_GROUP_VERSION: i16 = 7;
const SYNC_GROUP_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_GROUP_VERSION: i16 = 4;
const OFFSET_COMMIT_VERSION: i16 = 8;
const OFFSET_FETCH_VERSION: i16 = 7;

/// How long the committed offsets may take to be told, over changes of the coordinator.
const COMMITTED_PATIENCE: Duration = Duration::from_secs(60);

const PROTOCOL_TYPE: &str = "consumer";
/// What Kafka's own client writes.
const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 3;

/// What a failed request to the coordinator means for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupStep {
    /// The same again, after a pause.
    Wait,
    /// The same again, at whoever coordinates now.
    FindCoordinator,
    /// Join again as the same member.
    Rejoin,
    /// Join again as a new member: the coordinator does not know this one any more.
    JoinAnew,
    Fail,
}

pub(super) fn group_step(code: ErrorCode) -> GroupStep {
    match code {
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::UnstableOffsetCommit => GroupStep::Wait,
        ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => GroupStep::FindCoordinator,
        ErrorCode::RebalanceInProgress | ErrorCode::MemberIdRequired | ErrorCode::IllegalGeneration => {
            GroupStep::Rejoin
        }
        ErrorCode::UnknownMemberId => GroupStep::JoinAnew,
        code if is_retriable(code) => GroupStep::FindCoordinator,
        _ => GroupStep::Fail,
    }
}

/// What a member is known as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) member_id: String,
    pub(super) generation: i32,
}

impl Membership {
    pub(super) const NONE: i32 = -1;
}

/// The outcome of a rebalance.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) membership: Membership,
    pub(super) assignment: Vec<TopicPartition>,
    /// What the leader's assignment was made from: it rebalances when this changes. `None` for everybody else.
    pub(super) watched: Option<BTreeMap<String, i32>>,
}

/// What a member's heartbeats found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Rejoin,
    JoinAnew,
    Fatal(ErrorCode),
}

/// A group, seen from one member.
#[derive(Clone)]
pub(super) struct Group {
    network: Network,
    config: Arc<ConsumerConfig>,
    id: Arc<str>,
    /// By what name the coordinator knows the member, from its first answer on; empty before.
    member_id: Arc<Mutex<String>>,
    coordinator: Arc<Mutex<Option<i32>>>,
}

impl Group {
    pub(super) fn new(network: Network, config: Arc<ConsumerConfig>, id: &str) -> Self {
        Self { network, config, id: id.into(), member_id: Arc::default(), coordinator: Arc::default() }
    }

    /// Joins, or joins again, however long it takes.
    pub(super) async fn join(&self, topics: Vec<String>) -> Result<Joined, ConsumeError> {
        loop {
            let joined = match self.join_once(&topics).await {
                Ok(joined) => return Ok(joined),
                Err(error) => error,
            };
            match self.step_after(&joined) {
                GroupStep::Rejoin => continue,
                GroupStep::JoinAnew => self.forget_member(),
                GroupStep::Wait | GroupStep::FindCoordinator => {}
                GroupStep::Fail => return Err(ConsumeError::Group { group: self.id.to_string(), cause: joined }),
            }
            tokio::time::sleep(self.config.retry_backoff).await;
        }
    }

    async fn join_once(&self, topics: &[String]) -> Result<Joined, ClientError> {
        let subscription = make!(ConsumerProtocolSubscription {
            topics: topics.iter().map(|topic| topic.as_str().into()).collect(),
            generation_id: Membership::NONE,
        });
        let mut metadata = BytesMut::new();
        encode_consumer_protocol_subscription(&mut metadata, &subscription, ApiVersion::new(SUBSCRIPTION_VERSION))?;
        let metadata = metadata.freeze();
        let protocol = |assignor: &Assignor| {
            make!(JoinGroupRequestProtocol { name: assignor.name().into(), metadata: metadata.clone() })
        };
        let instance_id = self.config.group_instance_id.as_deref();
        let request = make!(JoinGroupRequest {
            group_id: (&*self.id).into(),
            session_timeout_ms: millis(self.config.session_timeout),
            rebalance_timeout_ms: millis(self.config.max_poll_interval),
            member_id: self.member_id.lock().as_str().into(),
            group_instance_id: instance_id.map(Into::into),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: self.config.assignors.iter().map(protocol).collect(),
        });
        // The answer waits for the other members, who may take that long.
        let patience = self.config.max_poll_interval + Duration::from_secs(5);
        let response = self.call(Purpose::Group, JOIN_GROUP_VERSION, &request, patience).await?;
        let joined = check(response.error_code);
        if matches!(joined, Ok(()) | Err(ClientError::Refused(ErrorCode::MemberIdRequired))) {
            *self.member_id.lock() = response.member_id.to_string();
        }
        joined?;
        let is_leader = response.leader == response.member_id;
        let (assignments, watched) = if is_leader { self.assign(&response).await? } else { (vec![], None) };
        let request = make!(SyncGroupRequest {
            group_id: (&*self.id).into(),
            generation_id: response.generation_id,
            member_id: response.member_id.clone(),
            group_instance_id: instance_id.map(Into::into),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: response.protocol_name.clone(),
            assignments,
        });
        let synced = self.call(Purpose::Group, SYNC_GROUP_VERSION, &request, patience).await?;
        check(synced.error_code)?;
        let mut assignment = Vec::new();
        if !synced.assignment.is_empty() {
            let (_, told) = decode_consumer_protocol_assignment(synced.assignment, DecodeLimits::default())?;
            for topic in told.assigned_partitions {
                let of_topic =
                    topic.partitions.iter().map(|partition| TopicPartition::new(topic.topic.as_str(), *partition));
                assignment.extend(of_topic);
            }
        }
        let membership = Membership { member_id: response.member_id.to_string(), generation: response.generation_id };
        Ok(Joined { membership, assignment, watched })
    }

    /// The leader's part: shares out what the members want.
    async fn assign(
        &self,
        response: &JoinGroupResponse,
    ) -> Result<(Vec<SyncGroupRequestAssignment>, Option<BTreeMap<String, i32>>), ClientError> {
        let mut members = Vec::new();
        for member in &response.members {
            let (_, subscription) =
                decode_consumer_protocol_subscription(member.metadata.clone(), DecodeLimits::default())?;
            members.push(Subscriber {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
                topics: subscription.topics.iter().map(ToString::to_string).collect(),
            });
        }
        let topics: BTreeSet<String> = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let metadata = self.network.metadata(Some(&topics), self.config.allow_auto_create_topics).await?;
        let counts: BTreeMap<String, i32> = metadata
            .topics
            .iter()
            .filter(|topic| topic.error_code == ErrorCode::None.code() && !topic.partitions.is_empty())
            .filter_map(|topic| Some((topic.name.as_ref()?.to_string(), topic.partitions.len() as i32)))
            .collect();
        let chosen = response.protocol_name.as_ref().and_then(|name| Assignor::named(name.as_str()));
        let assigned = chosen.ok_or(ClientError::Incomplete)?.assign(members, &counts);
        let mut assignments = Vec::new();
        for (member_id, assignment) in assigned {
            let topics = assignment.into_iter().map(|(topic, partitions)| {
                make!(consumer_protocol_assignment::TopicPartition { topic: topic.as_str().into(), partitions })
            });
            let assignment = make!(ConsumerProtocolAssignment { assigned_partitions: topics.collect() });
            let mut bytes = BytesMut::new();
            encode_consumer_protocol_assignment(&mut bytes, &assignment, ApiVersion::new(ASSIGNMENT_VERSION))?;
            assignments.push(make!(SyncGroupRequestAssignment {
                member_id: member_id.as_str().into(),
                assignment: Bytes::from(bytes),
            }));
        }
        Ok((assignments, Some(counts)))
    }

    /// Sends heartbeats until the member has to join again, or has not polled for too long, which it then tells the
    /// coordinator. `last_poll` is in milliseconds since `started`.
    pub(super) async fn heartbeat(
        self,
        membership: Membership,
        started: Instant,
        last_poll: Arc<AtomicU64>,
        signals: mpsc::Sender<Signal>,
    ) {
        let request = make!(HeartbeatRequest {
            group_id: (&*self.id).into(),
            generation_id: membership.generation,
            member_id: membership.member_id.as_str().into(),
            group_instance_id: self.config.group_instance_id.as_deref().map(Into::into),
        });
        let mut is_told = false;
        loop {
            tokio::time::sleep(self.config.heartbeat_interval).await;
            let polled_at = started + Duration::from_millis(last_poll.load(Ordering::Relaxed));
            if polled_at + self.config.max_poll_interval < Instant::now() {
                self.leave().await;
                let _ = signals.send(Signal::JoinAnew).await;
                return;
            }
            let patience = self.config.session_timeout;
            let answer = self.call(Purpose::Heartbeat, HEARTBEAT_VERSION, &request, patience).await;
            let Err(error) = answer.and_then(|response| check(response.error_code)) else { continue };
            let signal = match self.step_after(&error) {
                GroupStep::Wait | GroupStep::FindCoordinator => continue,
                GroupStep::Rejoin => Signal::Rejoin,
                GroupStep::JoinAnew => Signal::JoinAnew,
                GroupStep::Fail => match error {
                    ClientError::Refused(code) => Signal::Fatal(code),
                    _ => continue,
                },
            };
            // After the first news of a rebalance the heartbeats go on: the member may be busy with what it has.
            if !is_told || signal != Signal::Rejoin {
                let _ = signals.send(signal).await;
                is_told = true;
            }
            if signal != Signal::Rejoin {
                return;
            }
        }
    }

    /// The next join is that of a new member.
    pub(super) fn forget_member(&self) {
        self.member_id.lock().clear();
    }

    /// Goes without waiting for the session to expire, also in the midst of joining. Static members stay, for when they
    /// come back.
    pub(super) async fn leave(&self) {
        let member_id = std::mem::take(&mut *self.member_id.lock());
        if self.config.group_instance_id.is_some() || member_id.is_empty() {
            return;
        }
        let request = make!(LeaveGroupRequest {
            group_id: (&*self.id).into(),
            members: vec![make!(MemberIdentity { member_id: member_id.as_str().into() })],
        });
        // If it fails, the session expires.
        let _ = self.call(Purpose::Heartbeat, LEAVE_GROUP_VERSION, &request, Duration::from_secs(5)).await;
    }

    /// Commits, trying again while that can help, at most `patience` long.
    pub(super) async fn commit(
        &self,
        membership: Option<Membership>,
        offsets: BTreeMap<TopicPartition, Offset>,
        patience: Duration,
    ) -> Result<(), ConsumeError> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (partition, offset) in offsets {
            let committed = make!(OffsetCommitRequestPartition {
                partition_index: partition.partition,
                committed_offset: offset.0,
                committed_metadata: Some("".into()),
            });
            match topics.last_mut().filter(|topic| topic.name.as_str() == partition.topic) {
                Some(topic) => topic.partitions.push(committed),
                None => topics.push(make!(OffsetCommitRequestTopic {
                    name: partition.topic.as_str().into(),
                    partitions: vec![committed],
                })),
            }
        }
        let request = make!(OffsetCommitRequest {
            group_id: (&*self.id).into(),
            generation_id_or_member_epoch: membership.as_ref().map_or(Membership::NONE, |member| member.generation),
            member_id: membership.as_ref().map_or("", |member| member.member_id.as_str()).into(),
            group_instance_id: membership.and(self.config.group_instance_id.as_deref()).map(Into::into),
            topics,
        });
        let deadline = Instant::now() + patience;
        loop {
            match self.commit_once(&request).await {
                Ok(()) => return Ok(()),
                Err(cause) => self.wait_out(cause, deadline).await?,
            }
        }
    }

    async fn commit_once(&self, request: &OffsetCommitRequest) -> Result<(), ClientError> {
        let timeout = self.config.connection.timeout;
        let response = self.call(Purpose::Heartbeat, OFFSET_COMMIT_VERSION, request, timeout).await?;
        response.topics.iter().flat_map(|topic| &topic.partitions).try_for_each(|told| check(told.error_code))
    }

    /// The committed offsets of these partitions; partitions without one are left out.
    pub(super) async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConsumeError> {
        let mut topics: Vec<OffsetFetchRequestTopic> = Vec::new();
        for partition in partitions {
            match topics.iter_mut().find(|topic| topic.name.as_str() == partition.topic) {
                Some(topic) => topic.partition_indexes.push(partition.partition),
                None => topics.push(make!(OffsetFetchRequestTopic {
                    name: partition.topic.as_str().into(),
                    partition_indexes: vec![partition.partition],
                })),
            }
        }
        let request = make!(OffsetFetchRequest {
            group_id: (&*self.id).into(),
            topics: Some(topics),
            require_stable: self.config.isolation_level == super::IsolationLevel::ReadCommitted,
        });
        let deadline = Instant::now() + COMMITTED_PATIENCE;
        loop {
            match self.committed_once(&request).await {
                Ok(committed) => return Ok(committed),
                Err(cause) => self.wait_out(cause, deadline).await?,
            }
        }
    }

    async fn committed_once(
        &self,
        request: &OffsetFetchRequest,
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        let timeout = self.config.connection.timeout;
        let response = self.call(Purpose::Heartbeat, OFFSET_FETCH_VERSION, request, timeout).await?;
        check(response.error_code)?;
        let mut committed = BTreeMap::new();
        for topic in &response.topics {
            for told in &topic.partitions {
                check(told.error_code)?;
                if told.committed_offset >= 0 {
                    let partition = TopicPartition::new(topic.name.as_str(), told.partition_index);
                    committed.insert(partition, Offset(told.committed_offset));
                }
            }
        }
        Ok(committed)
    }

    /// Pauses before the same request is sent again; an error if that cannot help, or not in time.
    async fn wait_out(&self, cause: ClientError, deadline: Instant) -> Result<(), ConsumeError> {
        let is_transient = matches!(self.step_after(&cause), GroupStep::Wait | GroupStep::FindCoordinator);
        if !is_transient || deadline <= Instant::now() {
            return Err(ConsumeError::Group { group: self.id.to_string(), cause });
        }
        tokio::time::sleep(self.config.retry_backoff).await;
        Ok(())
    }

    fn step_after(&self, error: &ClientError) -> GroupStep {
        let step = match error {
            ClientError::Refused(code) => group_step(*code),
            error if error.is_retriable() => GroupStep::FindCoordinator,
            _ => GroupStep::Fail,
        };
        if step == GroupStep::FindCoordinator {
            *self.coordinator.lock() = None;
            self.network.ask_another();
        }
        step
    }

    async fn call<R: RequestResponsePair>(
        &self,
        purpose: Purpose,
        version: i16,
        request: &R,
        patience: Duration,
    ) -> Result<R::Response, ClientError> {
        let known = *self.coordinator.lock();
        let coordinator = match known {
            Some(coordinator) => coordinator,
            None => {
                let find = make!(FindCoordinatorRequest { key: (&*self.id).into(), key_type: 0 });
                let found = self.network.call_any(FIND_COORDINATOR_VERSION, &find).await?;
                check(found.error_code)?;
                self.network.set_address(found.node_id, format!("{}:{}", found.host, found.port));
                *self.coordinator.lock() = Some(found.node_id);
                found.node_id
            }
        };
        self.network.submit(coordinator, purpose, version, request, patience)?.receive().await
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_next_step() {
        let cases = [
            (ErrorCode::CoordinatorLoadInProgress, GroupStep::Wait),
            (ErrorCode::NotCoordinator, GroupStep::FindCoordinator),
            (ErrorCode::RequestTimedOut, GroupStep::FindCoordinator),
            (ErrorCode::RebalanceInProgress, GroupStep::Rejoin),
            (ErrorCode::MemberIdRequired, GroupStep::Rejoin),
            (ErrorCode::IllegalGeneration, GroupStep::Rejoin),
            (ErrorCode::UnknownMemberId, GroupStep::JoinAnew),
            (ErrorCode::FencedInstanceId, GroupStep::Fail),
            (ErrorCode::InconsistentGroupProtocol, GroupStep::Fail),
            (ErrorCode::GroupAuthorizationFailed, GroupStep::Fail),
        ];
        for (code, step) in cases {
            assert_eq!(group_step(code), step, "{code}");
        }
    }
}
