//! One live classic group: its members and the rules that need nothing but them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::make;
use vltava_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use vltava_protocol::messages::join_group_response::JoinGroupResponseMember;
use vltava_types::{ErrorCode, TimestampMs};

use crate::core::{LogRecord, Token};
use crate::records::{GroupMetadataValue, GroupRecord, MemberMetadata, subscribed_topics};

/// The protocol type of consumers, whose subscriptions the coordinator can read.
pub(super) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Where a group stands. (Kafka's fifth state, Dead, is a group that does not exist.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members; offsets may remain.
    Empty,
    /// Members are called to join; those who have wait for the others.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited, or being stored.
    CompletingRebalance,
    /// The assignment is stored, and members are told it when they ask.
    Stable,
}

impl GroupState {
    /// As Kafka's tools print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In order of preference: name and metadata.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// The JoinGroup that waits for the join phase to end.
    pub awaiting_join: Option<Token>,
    /// The SyncGroup that waits for the assignment to be stored.
    pub awaiting_sync: Option<Token>,
    /// Has not yet been told its first generation, so it cannot send heartbeats.
    pub is_new: bool,
}

/// Invariants: every static member is a member; `leader` is a member unless there are none; a member waits for at most
/// one of join and sync.
#[derive(Clone, Debug)]
pub(super) struct ClassicGroup {
    pub group_id: String,
    pub state: GroupState,
    /// The rebalance being prepared is the first of an empty group, which waits for more members to come.
    pub is_initial_rebalance: bool,
    pub current_state_timestamp: Option<TimestampMs>,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub generation: i32,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Member ids by group instance id (KIP-345).
    pub static_members: BTreeMap<String, String>,
    /// Ids given out that have yet to join with them (KIP-394).
    pub pending_join: BTreeSet<String>,
    /// Members that have yet to ask for their assignment.
    pub pending_sync: BTreeSet<String>,
    /// `None` if unknown: not consumers, or a subscription that cannot be read.
    pub subscribed_topics: Option<BTreeSet<String>>,
    /// A member came while the initial rebalance was delayed, so that the delay may be extended.
    pub new_member_added: bool,
    /// The delay of the initial rebalance now running and what remains of its limit; meaningful while it is prepared.
    pub initial_delay_ms: i32,
    pub initial_remaining_ms: i32,
    /// The leader's assignment for this generation is being stored.
    pub is_storing_assignment: bool,
}

impl ClassicGroup {
    pub fn new(group_id: &str, now: TimestampMs) -> Self {
        Self {
            group_id: group_id.to_owned(),
            state: GroupState::Empty,
            is_initial_rebalance: false,
            current_state_timestamp: Some(now),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay_ms: 0,
            initial_remaining_ms: 0,
            is_storing_assignment: false,
        }
    }

    /// The group as its last stored generation left it.
    pub fn from_stored(group_id: &str, stored: &GroupMetadataValue) -> Self {
        let mut group = Self::new(group_id, stored.current_state_timestamp);
        group.current_state_timestamp =
            Some(stored.current_state_timestamp).filter(|timestamp| *timestamp != TimestampMs::NONE);
        group.state = if stored.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        group.generation = stored.generation;
        group.protocol_type = Some(stored.protocol_type.clone()).filter(|name| !name.is_empty());
        group.protocol_name = stored.protocol.clone();
        for stored_member in &stored.members {
            let protocol = stored.protocol.clone().unwrap_or_default();
            let rebalance_timeout_ms = match stored_member.rebalance_timeout_ms {
                -1 => stored_member.session_timeout_ms,
                timeout_ms => timeout_ms,
            };
            group.add(Member {
                member_id: stored_member.member_id.clone(),
                group_instance_id: stored_member.group_instance_id.clone(),
                client_id: stored_member.client_id.clone(),
                client_host: stored_member.client_host.clone(),
                rebalance_timeout_ms,
                session_timeout_ms: stored_member.session_timeout_ms,
                protocols: vec![(protocol, stored_member.subscription.clone())],
                assignment: stored_member.assignment.clone(),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            });
        }
        let stored_leader = stored.leader.clone().filter(|leader| group.members.contains_key(leader));
        group.leader = stored_leader.or_else(|| group.members.keys().next().cloned());
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The stored form of this generation, with these assignments; members without one get an empty one.
    pub fn to_record(&self, assignments: &BTreeMap<String, Bytes>) -> LogRecord {
        let protocol = self.protocol_name.as_deref();
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: assignments.get(&member.member_id).cloned().unwrap_or_default(),
        });
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.current_state_timestamp.unwrap_or(TimestampMs::NONE),
            members: members.collect(),
        };
        GroupRecord::GroupMetadata { group_id: self.group_id.clone(), value: Some(value) }.encode()
    }

    /// The assignments that the members hold now.
    pub fn assignments(&self) -> BTreeMap<String, Bytes> {
        self.members.iter().map(|(member_id, member)| (member_id.clone(), member.assignment.clone())).collect()
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether deleting the topic's offsets would take them from a running consumer. Unknown counts as subscribed.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    pub fn transition_to(&mut self, state: GroupState, now: TimestampMs) {
        let allowed = match state {
            GroupState::Empty | GroupState::CompletingRebalance => self.state == GroupState::PreparingRebalance,
            GroupState::PreparingRebalance => self.state != GroupState::PreparingRebalance,
            GroupState::Stable => self.state == GroupState::CompletingRebalance,
        };
        assert!(allowed, "a group never goes from {:?} to {state:?}", self.state);
        if state == GroupState::PreparingRebalance {
            self.is_initial_rebalance = self.state == GroupState::Empty;
            self.new_member_added = false;
        }
        self.is_storing_assignment = false;
        self.state = state;
        self.current_state_timestamp = Some(now);
    }

    pub fn add(&mut self, member: Member) {
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.insert(instance_id.clone(), member.member_id.clone());
        }
        self.pending_join.remove(&member.member_id);
        self.leader.get_or_insert_with(|| member.member_id.clone());
        self.members.insert(member.member_id.clone(), member);
    }

    /// Takes a member out, and passes its leadership on.
    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
        let removed = self.members.remove(member_id);
        if let Some(instance_id) = removed.as_ref().and_then(|member| member.group_instance_id.as_deref()) {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        removed
    }

    /// A static member came back under a new id, and takes over all that the old one had but its waiting requests,
    /// which are returned to be refused.
    pub fn replace_static_member(&mut self, instance_id: &str, old_id: &str, new_id: &str) -> Vec<Token> {
        let mut member = self.members.remove(old_id).expect("every static member is a member");
        let waiting = [member.awaiting_join.take(), member.awaiting_sync.take()];
        member.member_id = new_id.to_owned();
        member.is_new = false;
        self.members.insert(new_id.to_owned(), member);
        if self.is_leader(old_id) {
            self.leader = Some(new_id.to_owned());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.to_owned());
        }
        self.static_members.insert(instance_id.to_owned(), new_id.to_owned());
        waiting.into_iter().flatten().collect()
    }

    /// Membership, and fencing of static members whose id has passed to a newer process (KIP-345).
    pub fn validate_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a member with these protocols can be part of the group.
    pub fn supports(&self, protocol_type: &str, protocols: &[JoinGroupRequestProtocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.is_supported_by_all(protocol.name.as_str()))
    }

    fn is_supported_by_all(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.supports(protocol))
    }

    /// The protocol that most members prefer among those that all support; a tie goes to the leader's preference.
    pub fn select_protocol(&self) -> String {
        // What all support, the first supports.
        let first = self.members.values().next().map(|member| member.protocols.as_slice()).unwrap_or_default();
        let candidates: BTreeSet<&str> =
            first.iter().map(|(name, _)| name.as_str()).filter(|name| self.is_supported_by_all(name)).collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().map(|(name, _)| name.as_str()).find(|name| candidates.contains(name));
            if let Some(vote) = vote {
                *votes.entry(vote).or_default() += 1;
            }
        }
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let preference = |name: &str| {
            let position = leader.and_then(|leader| leader.protocols.iter().position(|(own, _)| own == name));
            std::cmp::Reverse(position.unwrap_or(usize::MAX))
        };
        let winner = votes.into_iter().max_by_key(|(name, count)| (*count, preference(name)));
        winner.map(|(name, _)| name.to_owned()).expect("a member is admitted only with a protocol that all support")
    }

    pub fn has_all_members_joined(&self) -> bool {
        self.pending_join.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    pub fn count_awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// If the leader has not joined again, a member that has becomes leader. False if nobody has.
    pub fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member: &&Member| member.awaiting_join.is_some();
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let Some(member) = self.members.values().find(has_joined) else { return false };
        self.leader = Some(member.member_id.clone());
        true
    }

    /// Ends the join phase.
    pub fn begin_next_generation(&mut self, now: TimestampMs) {
        // Wraps to 1: 0 is for groups that never had a generation, and below 0 are requests without one.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.protocol_name = None;
            self.subscribed_topics = self.compute_subscribed_topics();
            self.transition_to(GroupState::Empty, now);
        } else {
            self.protocol_name = Some(self.select_protocol());
            self.subscribed_topics = self.compute_subscribed_topics();
            self.transition_to(GroupState::CompletingRebalance, now);
        }
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(self.protocol_name.as_deref())).ok()?);
        }
        Some(topics)
    }

    /// What the leader needs to make the assignment.
    pub fn join_response_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol_name.as_deref();
        let members = self.members.values().map(|member| {
            make!(JoinGroupResponseMember {
                member_id: member.member_id.as_str().into(),
                group_instance_id: member.group_instance_id.as_deref().map(Into::into),
                metadata: member.metadata(protocol),
            })
        });
        members.collect()
    }
}

impl Member {
    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// The metadata for the protocol; empty if the member does not know it.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub fn has_protocols(&self, protocols: &[JoinGroupRequestProtocol]) -> bool {
        self.protocols.len() == protocols.len()
            && self
                .protocols
                .iter()
                .zip(protocols)
                .all(|((name, metadata), other)| *name == *other.name && *metadata == other.metadata)
    }
}

/// Copied out of the request, so that a member does not keep a whole frame in memory.
pub(super) fn owned_protocols(protocols: &[JoinGroupRequestProtocol]) -> Vec<(String, Bytes)> {
    let owned = protocols
        .iter()
        .map(|protocol| (protocol.name.as_str().to_owned(), Bytes::copy_from_slice(&protocol.metadata)));
    owned.collect()
}
