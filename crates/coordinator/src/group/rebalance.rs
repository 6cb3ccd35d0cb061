//! Membership: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and the timers that stand in for requests that never come.
//!
//! The rules are those of Kafka's classic groups in the 4.x line. A join phase ends when every member has joined again
//! or the largest rebalance timeout has passed; the leader then makes the assignment, which is stored before anyone is
//! told of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::make;
use vltava_protocol::messages::leave_group_response::MemberResponse;
use vltava_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use vltava_types::{ErrorCode, Uuid};

use super::classic::{ClassicGroup, GroupState, Member, owned_protocols};
use super::timers::{Timer, Timers};
use super::{Caller, Decision, GroupCompletion, GroupConfig, GroupCoordinator, GroupResponse};
use crate::core::{Now, Reply, Token, client_error_of_failed_append};
use crate::records::MAX_STRING_LENGTH;

/// How long a new member's JoinGroup stays parked. Its client cannot send heartbeats yet, and if it is gone it leaves
/// no other trace.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// How much of a client's id goes into its member id.
const MAX_CLIENT_ID_IN_MEMBER_ID: usize = 1024;

/// A step of a rebalance that waits for its record.
#[derive(Debug)]
pub enum Completion {
    /// The leader's assignment is stored: members may learn it.
    Assignment { group_id: String, generation: i32, assignments: BTreeMap<String, Bytes> },
    /// A static member's new id is stored without a rebalance.
    StaticMember(Box<StaticMemberReplaced>),
}

#[derive(Debug)]
pub struct StaticMemberReplaced {
    group_id: String,
    generation: i32,
    instance_id: String,
    old_leader: Option<String>,
    new_member_id: String,
    old_member: Member,
    version: i16,
}

impl GroupCoordinator {
    pub(super) fn join_group(
        &mut self,
        token: Token,
        caller: &Caller,
        request: &JoinGroupRequest,
        new_member: Uuid,
        now: Now,
    ) -> Decision {
        let member_id = request.member_id.as_str();
        if let Err(error) = self.validate_join(request) {
            return answer(token, join_error(member_id, error));
        }
        let is_unknown_member = member_id.is_empty();
        if !self.live.contains_key(request.group_id.as_str()) {
            if !is_unknown_member {
                return answer(token, join_error(member_id, ErrorCode::UnknownMemberId));
            }
            let group = ClassicGroup::new(&request.group_id, now.wall_clock);
            self.live.insert(request.group_id.as_str().to_owned(), group);
        }
        self.step(&request.group_id, now, |step| {
            if !step.accepts(member_id) {
                step.remove_member(member_id);
                step.reply(token, join_error("", ErrorCode::GroupMaxSizeReached));
            } else if !step.group.supports(&request.protocol_type, &request.protocols) {
                step.reply(token, join_error(member_id, ErrorCode::InconsistentGroupProtocol));
            } else if is_unknown_member {
                step.join_new_member(token, caller, request, new_member);
            } else {
                step.join_existing_member(token, caller, request);
            }
        })
    }

    fn validate_join(&self, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() || request.group_id.len() > MAX_STRING_LENGTH {
            return Err(ErrorCode::InvalidGroupId);
        }
        let sessions = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !sessions.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let instance_id_length = request.group_instance_id.as_ref().map_or(0, |instance_id| instance_id.len());
        let protocol_names = request.protocols.iter().map(|protocol| protocol.name.len());
        let longest = protocol_names.chain([instance_id_length, request.protocol_type.len()]).max();
        if longest.is_some_and(|length| length > MAX_STRING_LENGTH) {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    pub(super) fn sync_group(&mut self, token: Token, request: &SyncGroupRequest, now: Now) -> Decision {
        if request.group_id.is_empty() {
            return answer(token, sync_error(ErrorCode::InvalidGroupId));
        }
        if self.live.get(request.group_id.as_str()).is_none_or(|group| group.state == GroupState::Empty) {
            return answer(token, sync_error(ErrorCode::UnknownMemberId));
        }
        self.step(&request.group_id, now, |step| match step.validate_sync(request) {
            Err(error) => step.reply(token, sync_error(error)),
            Ok(()) => step.sync(token, request),
        })
    }

    pub(super) fn heartbeat(&mut self, token: Token, request: &HeartbeatRequest, now: Now) -> Decision {
        let result = self.check_heartbeat(request, now);
        let error_code = result.err().unwrap_or(ErrorCode::None).code();
        answer(token, GroupResponse::Heartbeat(make!(HeartbeatResponse { error_code })))
    }

    fn check_heartbeat(&mut self, request: &HeartbeatRequest, now: Now) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let group = self.live.get(request.group_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
        group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let state = group.state;
        self.extend_session(&request.group_id, &request.member_id, now);
        match state {
            GroupState::Empty => Err(ErrorCode::UnknownMemberId),
            GroupState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    /// A sign of life: the session starts anew.
    pub(super) fn extend_session(&mut self, group_id: &str, member_id: &str, now: Now) {
        let member = self.live.get(group_id).and_then(|group| group.members.get(member_id));
        if let Some(timeout_ms) = member.map(|member| member.session_timeout_ms) {
            schedule_session(&mut self.timers, group_id, member_id, timeout_ms, now);
        }
    }

    pub(super) fn leave_group(&mut self, token: Token, request: &LeaveGroupRequest, now: Now) -> Decision {
        if request.group_id.is_empty() {
            let error_code = ErrorCode::InvalidGroupId.code();
            return answer(token, GroupResponse::LeaveGroup(make!(LeaveGroupResponse { error_code })));
        }
        let mut results = vec![Err(ErrorCode::UnknownMemberId); request.members.len()];
        let mut decision = self.step(&request.group_id, now, |step| {
            for (leaving, result) in request.members.iter().zip(&mut results) {
                *result = step.leave(&leaving.member_id, leaving.group_instance_id.as_deref());
            }
            step.after_leave(&results);
        });
        let members = request.members.iter().zip(results).map(|(leaving, result)| {
            make!(MemberResponse {
                member_id: leaving.member_id.clone(),
                group_instance_id: leaving.group_instance_id.clone(),
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
            })
        });
        let response = GroupResponse::LeaveGroup(make!(LeaveGroupResponse { members: members.collect() }));
        if decision.records.is_empty() {
            decision.replies.push(Reply { token, outcome: Ok(response) });
        } else {
            decision.completion = Some(GroupCompletion::Answer(token, response));
        }
        decision
    }

    /// After a failover, every stored member gets a session from now on.
    pub(super) fn restart_sessions(&mut self, now: Now) -> Decision {
        let group_ids: Vec<String> = self.live.keys().cloned().collect();
        for group_id in group_ids {
            let decision = self.step(&group_id, now, |step| {
                let sessions: Vec<(String, i32)> =
                    step.group.members.values().map(|it| (it.member_id.clone(), it.session_timeout_ms)).collect();
                for (member_id, timeout_ms) in sessions {
                    step.start_session(&member_id, timeout_ms);
                }
                // The limit was lowered: a rebalance lets the surplus members commit before they are turned away.
                if step.group.members.len() > step.config.max_size {
                    step.prepare_rebalance();
                }
            });
            assert!(decision.records.is_empty() && decision.replies.is_empty(), "nobody has asked for anything yet");
        }
        Decision::nothing()
    }

    pub(super) fn expire_session(&mut self, group_id: &str, member_id: &str, now: Now) -> Decision {
        self.step(group_id, now, |step| {
            if step.group.pending_join.contains(member_id) {
                step.group.remove(member_id);
                step.complete_join_if_all_joined();
                return;
            }
            let Some(member) = step.group.members.get(member_id) else { return };
            // A member that waits for an answer of ours is alive as far as anyone can tell, unless it is new: its
            // client may have gone, and nothing but this timer would ever remove it.
            let waits = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
            if waits && !member.is_new {
                return;
            }
            step.remove_member(member_id);
            match step.group.state {
                GroupState::Stable | GroupState::CompletingRebalance => step.prepare_rebalance(),
                GroupState::PreparingRebalance => step.complete_join_if_all_joined(),
                GroupState::Empty => {}
            }
        })
    }

    pub(super) fn expire_join(&mut self, group_id: &str, now: Now) -> Decision {
        self.step(group_id, now, |step| {
            let group = &mut *step.group;
            if group.state != GroupState::PreparingRebalance {
                return;
            }
            if group.is_initial_rebalance && group.new_member_added && group.initial_remaining_ms != 0 {
                // Somebody came during the delay: wait once more, up to the rebalance timeout in all.
                group.new_member_added = false;
                let next_delay_ms = step.config.initial_rebalance_delay_ms.min(group.initial_remaining_ms);
                group.initial_remaining_ms = (group.initial_remaining_ms - group.initial_delay_ms).max(0);
                group.initial_delay_ms = next_delay_ms;
                step.schedule_join(next_delay_ms);
            } else {
                step.complete_join();
            }
        })
    }

    /// Members that joined but never asked for their assignment are taken for dead.
    pub(super) fn expire_sync(&mut self, group_id: &str, now: Now) -> Decision {
        self.step(group_id, now, |step| {
            let is_waiting = matches!(step.group.state, GroupState::CompletingRebalance | GroupState::Stable);
            if !is_waiting || step.group.pending_sync.is_empty() {
                return;
            }
            for member_id in std::mem::take(&mut step.group.pending_sync) {
                step.remove_member(&member_id);
            }
            step.prepare_rebalance();
        })
    }

    pub(super) fn complete_rebalance_step(
        &mut self,
        completion: Completion,
        result: Result<(), ErrorCode>,
        now: Now,
    ) -> Decision {
        let result = result.map_err(client_error_of_failed_append);
        match completion {
            Completion::Assignment { group_id, generation, assignments } => self.step(&group_id, now, |step| {
                // Meanwhile another rebalance may have begun; then this assignment is of no interest to anyone.
                if step.group.generation == generation && step.group.is_storing_assignment {
                    step.finish_sync(result, assignments);
                }
            }),
            Completion::StaticMember(replaced) => {
                let group_id = replaced.group_id.clone();
                self.step(&group_id, now, |step| step.finish_static_member(*replaced, result))
            }
        }
    }

    /// Runs `body` on a live group, if there is one, and forgets a group that came to nothing.
    fn step(&mut self, group_id: &str, now: Now, body: impl FnOnce(&mut Step<'_>)) -> Decision {
        let Some(group) = self.live.get_mut(group_id) else { return Decision::nothing() };
        let decision = Decision { key: Some(group_id.to_owned()), ..Decision::nothing() };
        let mut step = Step { group, timers: &mut self.timers, config: &self.config, now, decision };
        body(&mut step);
        let decision = step.decision;
        let is_idle = step.group.state == GroupState::Empty && step.group.pending_join.is_empty();
        if is_idle && decision.records.is_empty() && !self.replicated.groups.contains_key(group_id) {
            self.live.remove(group_id);
        }
        decision
    }
}

/// One event's work on one group.
struct Step<'a> {
    group: &'a mut ClassicGroup,
    timers: &'a mut Timers,
    config: &'a GroupConfig,
    now: Now,
    decision: Decision,
}

impl Step<'_> {
    fn reply(&mut self, token: Token, response: GroupResponse) {
        self.decision.replies.push(Reply { token, outcome: Ok(response) });
    }

    /// `group.max.size`. While members join, those who wait are counted rather than all, so that a group above a
    /// lowered limit loses those who come last.
    fn accepts(&self, member_id: &str) -> bool {
        let member = self.group.members.get(member_id);
        match self.group.state {
            GroupState::Empty => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.group.count_awaiting_join() < self.config.max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.group.members.len() < self.config.max_size
            }
        }
    }

    fn join_new_member(&mut self, token: Token, caller: &Caller, request: &JoinGroupRequest, new_member: Uuid) {
        let Some(instance_id) = request.group_instance_id.as_deref() else {
            let member_id = new_member_id(&caller.client_id, new_member);
            if caller.version >= 4 {
                // The id must come back in a second JoinGroup, so that retries of the first leave no ghosts (KIP-394).
                self.start_session(&member_id, request.session_timeout_ms);
                self.reply(token, join_error(&member_id, ErrorCode::MemberIdRequired));
                self.group.pending_join.insert(member_id);
            } else {
                self.add_member(token, caller, request, member_id);
            }
            return;
        };
        let member_id = new_member_id(instance_id, new_member);
        match self.group.static_members.get(instance_id).cloned() {
            Some(old_member_id) => self.replace_static_member(token, caller, request, &old_member_id, member_id),
            None => self.add_member(token, caller, request, member_id),
        }
    }

    fn join_existing_member(&mut self, token: Token, caller: &Caller, request: &JoinGroupRequest) {
        let member_id = request.member_id.as_str();
        let instance_id = request.group_instance_id.as_deref();
        if self.group.pending_join.contains(member_id) {
            if instance_id.is_some() {
                // Ids are handed out ahead of joining to dynamic members only.
                self.reply(token, join_error(member_id, ErrorCode::UnknownMemberId));
            } else {
                self.add_member(token, caller, request, member_id.to_owned());
            }
            return;
        }
        if let Err(error) = self.group.validate_member(member_id, instance_id) {
            self.reply(token, join_error(member_id, error));
            return;
        }
        let has_same_protocols = self.group.members[member_id].has_protocols(&request.protocols);
        match self.group.state {
            GroupState::PreparingRebalance => self.rejoin(token, request),
            // It lost our answer: here it is again.
            GroupState::CompletingRebalance if has_same_protocols => {
                let response = self.join_response(member_id);
                self.reply(token, GroupResponse::JoinGroup(response));
            }
            // A leader joins again to have topics reassigned whose partitions changed; others need no rebalance.
            GroupState::Stable if has_same_protocols && !self.group.is_leader(member_id) => {
                let response = self.join_response(member_id);
                self.reply(token, GroupResponse::JoinGroup(response));
            }
            GroupState::CompletingRebalance | GroupState::Stable => self.rejoin(token, request),
            GroupState::Empty => self.reply(token, join_error(member_id, ErrorCode::UnknownMemberId)),
        }
    }

    fn add_member(&mut self, token: Token, caller: &Caller, request: &JoinGroupRequest, member_id: String) {
        if self.group.state == GroupState::PreparingRebalance && self.group.is_initial_rebalance {
            self.group.new_member_added = true;
        }
        if self.group.members.is_empty() {
            self.group.protocol_type = Some(request.protocol_type.as_str().to_owned());
        }
        self.group.add(Member {
            member_id: member_id.clone(),
            group_instance_id: request.group_instance_id.as_deref().map(str::to_owned),
            client_id: caller.client_id.clone(),
            client_host: caller.client_host.clone(),
            rebalance_timeout_ms: request.rebalance_timeout_ms.max(0),
            session_timeout_ms: request.session_timeout_ms,
            protocols: owned_protocols(&request.protocols),
            assignment: Bytes::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
        });
        self.start_session(&member_id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.prepare_rebalance_or_complete_join();
    }

    fn rejoin(&mut self, token: Token, request: &JoinGroupRequest) {
        self.update_member(&request.member_id, token, request);
        self.prepare_rebalance_or_complete_join();
    }

    fn update_member(&mut self, member_id: &str, token: Token, request: &JoinGroupRequest) {
        let member = self.group.members.get_mut(member_id).expect("the caller has found this member");
        member.protocols = owned_protocols(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms.max(0);
        member.session_timeout_ms = request.session_timeout_ms;
        if let Some(superseded) = member.awaiting_join.replace(token) {
            self.reply(superseded, join_error(member_id, ErrorCode::RebalanceInProgress));
        }
    }

    /// A static member's process came back without its id. If nothing changes for the others, it takes over its
    /// assignment without a rebalance (KIP-345); the new id is stored first, so that the old process stays fenced.
    fn replace_static_member(
        &mut self,
        token: Token,
        caller: &Caller,
        request: &JoinGroupRequest,
        old_member_id: &str,
        new_member_id: String,
    ) {
        let instance_id = request.group_instance_id.as_deref().expect("the caller has seen the instance id");
        let old_leader = self.group.leader.clone();
        let old_member = self.group.members[old_member_id].clone();
        if let Some(token) = old_member.awaiting_join {
            self.reply(token, join_error(old_member_id, ErrorCode::FencedInstanceId));
        }
        if let Some(token) = old_member.awaiting_sync {
            self.reply(token, sync_error(ErrorCode::FencedInstanceId));
        }
        self.group.replace_static_member(instance_id, old_member_id, &new_member_id);
        self.cancel_session(old_member_id);
        self.update_member(&new_member_id, token, request);
        self.start_session(&new_member_id, request.session_timeout_ms);
        match self.group.state {
            GroupState::Stable if self.group.protocol_name.as_ref() == Some(&self.group.select_protocol()) => {
                self.decision.records.push(self.group.to_record(&self.group.assignments()));
                let replaced = StaticMemberReplaced {
                    group_id: self.group.group_id.clone(),
                    generation: self.group.generation,
                    instance_id: instance_id.to_owned(),
                    old_leader,
                    new_member_id,
                    old_member: Member { awaiting_join: None, awaiting_sync: None, ..old_member },
                    version: caller.version,
                };
                let completion = Completion::StaticMember(Box::new(replaced));
                self.decision.completion = Some(GroupCompletion::Rebalance(completion));
            }
            // In CompletingRebalance the leader may already be assigning partitions to the old id.
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(),
            GroupState::PreparingRebalance => self.complete_join_if_due(),
            GroupState::Empty => unreachable!("an empty group has no static members"),
        }
    }

    fn finish_static_member(&mut self, replaced: StaticMemberReplaced, result: Result<(), ErrorCode>) {
        let StaticMemberReplaced { generation, instance_id, old_leader, new_member_id, old_member, version, .. } =
            replaced;
        let is_current = self.group.state == GroupState::Stable
            && self.group.generation == generation
            && self.group.static_members.get(&instance_id) == Some(&new_member_id);
        if !is_current {
            // A rebalance has begun meanwhile, and its end answers the member; or a third process has taken over.
            return;
        }
        match result {
            Ok(()) => {
                let mut response = self.join_response(&new_member_id);
                if version >= 9 {
                    response.skip_assignment = self.group.is_leader(&new_member_id);
                } else {
                    // An older client that finds itself leader would make a new assignment; it is told the old id.
                    response.leader = old_leader.unwrap_or_default().as_str().into();
                    response.members = Vec::new();
                }
                self.answer_join(&new_member_id, response);
            }
            Err(error) => {
                self.answer_join(&new_member_id, make!(JoinGroupResponse { error_code: error.code() }));
                self.cancel_session(&new_member_id);
                let waiting = self.group.replace_static_member(&instance_id, &new_member_id, &old_member.member_id);
                for token in waiting {
                    self.reply(token, sync_error(error));
                }
                self.start_session(&old_member.member_id, old_member.session_timeout_ms);
                self.group.members.insert(old_member.member_id.clone(), old_member);
            }
        }
    }

    fn answer_join(&mut self, member_id: &str, response: JoinGroupResponse) {
        let member = self.group.members.get_mut(member_id);
        if let Some(token) = member.and_then(|member| member.awaiting_join.take()) {
            self.reply(token, GroupResponse::JoinGroup(response));
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: Option<&str>, own: Option<&String>| asked.is_some() && asked != own.map(String::as_str);
        if differs(request.protocol_type.as_deref(), self.group.protocol_type.as_ref())
            || differs(request.protocol_name.as_deref(), self.group.protocol_name.as_ref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn sync(&mut self, token: Token, request: &SyncGroupRequest) {
        let member_id = request.member_id.as_str();
        match self.group.state {
            GroupState::Empty => self.reply(token, sync_error(ErrorCode::UnknownMemberId)),
            GroupState::PreparingRebalance => self.reply(token, sync_error(ErrorCode::RebalanceInProgress)),
            GroupState::CompletingRebalance => {
                self.note_sync(member_id);
                let member = self.group.members.get_mut(member_id).expect("the request was validated");
                if let Some(superseded) = member.awaiting_sync.replace(token) {
                    self.reply(superseded, sync_error(ErrorCode::RebalanceInProgress));
                }
                if self.group.is_leader(member_id) && !self.group.is_storing_assignment {
                    self.store_assignment(request);
                }
            }
            GroupState::Stable => {
                self.note_sync(member_id);
                let response = self.sync_response(member_id);
                self.reply(token, response);
            }
        }
    }

    fn note_sync(&mut self, member_id: &str) {
        self.group.pending_sync.remove(member_id);
        if self.group.pending_sync.is_empty() {
            self.timers.cancel(&Timer::Sync { group_id: self.group.group_id.clone() });
        }
    }

    /// Nobody learns the assignment before it is stored: a new coordinator must know every generation that has owners.
    fn store_assignment(&mut self, request: &SyncGroupRequest) {
        let given: BTreeMap<&str, &Bytes> =
            request.assignments.iter().map(|given| (given.member_id.as_str(), &given.assignment)).collect();
        let assignment_of = |member_id: &String| {
            given.get(member_id.as_str()).map(|assignment| Bytes::copy_from_slice(assignment)).unwrap_or_default()
        };
        let assignments: BTreeMap<String, Bytes> =
            self.group.members.keys().map(|member_id| (member_id.clone(), assignment_of(member_id))).collect();
        self.decision.records.push(self.group.to_record(&assignments));
        self.group.is_storing_assignment = true;
        self.decision.completion = Some(GroupCompletion::Rebalance(Completion::Assignment {
            group_id: self.group.group_id.clone(),
            generation: self.group.generation,
            assignments,
        }));
    }

    fn finish_sync(&mut self, result: Result<(), ErrorCode>, mut assignments: BTreeMap<String, Bytes>) {
        match result {
            Ok(()) => {
                self.group.transition_to(GroupState::Stable, self.now.wall_clock);
                for member in self.group.members.values_mut() {
                    member.assignment = assignments.remove(&member.member_id).unwrap_or_default();
                }
                self.answer_syncs(None);
            }
            Err(error) => {
                self.forget_assignments(error);
                self.prepare_rebalance();
            }
        }
    }

    /// Answers all who wait for an assignment. Their sessions did not run while they waited.
    fn answer_syncs(&mut self, error: Option<ErrorCode>) {
        let member_ids: Vec<String> = self.group.members.keys().cloned().collect();
        for member_id in member_ids {
            let member = self.group.members.get_mut(&member_id).expect("taken from the members");
            let Some(token) = member.awaiting_sync.take() else { continue };
            let timeout_ms = member.session_timeout_ms;
            let response = match error {
                None => self.sync_response(&member_id),
                Some(error) => sync_error(error),
            };
            self.reply(token, response);
            self.start_session(&member_id, timeout_ms);
        }
    }

    fn forget_assignments(&mut self, error: ErrorCode) {
        for member in self.group.members.values_mut() {
            member.assignment = Bytes::new();
        }
        self.answer_syncs(Some(error));
    }

    /// Takes out one who leaves. True if it was a member, and false if it had only been given an id.
    fn leave(&mut self, member_id: &str, instance_id: Option<&str>) -> Result<bool, ErrorCode> {
        if self.group.pending_join.contains(member_id) {
            self.remove_member(member_id);
            return Ok(false);
        }
        let member_id = if member_id.is_empty() {
            // An administrator removes a static member by its instance id alone (KIP-345).
            let found = instance_id.and_then(|instance_id| self.group.static_members.get(instance_id));
            found.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            self.group.validate_member(member_id, instance_id)?;
            member_id.to_owned()
        };
        self.remove_member(&member_id);
        Ok(true)
    }

    fn after_leave(&mut self, results: &[Result<bool, ErrorCode>]) {
        match self.group.state {
            GroupState::Stable | GroupState::CompletingRebalance if results.contains(&Ok(true)) => {
                self.prepare_rebalance();
            }
            GroupState::PreparingRebalance => self.complete_join_if_due(),
            GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty => {}
        }
    }

    /// Takes a member out; what it waits for ends with UNKNOWN_MEMBER_ID, upon which a live client joins anew.
    fn remove_member(&mut self, member_id: &str) {
        self.cancel_session(member_id);
        let Some(member) = self.group.remove(member_id) else { return };
        if let Some(token) = member.awaiting_join {
            self.reply(token, join_error("", ErrorCode::UnknownMemberId));
        }
        if let Some(token) = member.awaiting_sync {
            self.reply(token, sync_error(ErrorCode::UnknownMemberId));
        }
    }

    fn prepare_rebalance_or_complete_join(&mut self) {
        if self.group.state == GroupState::PreparingRebalance {
            self.complete_join_if_due();
        } else {
            self.prepare_rebalance();
        }
    }

    fn prepare_rebalance(&mut self) {
        if self.group.state == GroupState::CompletingRebalance {
            self.forget_assignments(ErrorCode::RebalanceInProgress);
        }
        self.group.pending_sync.clear();
        self.timers.cancel(&Timer::Sync { group_id: self.group.group_id.clone() });
        self.group.transition_to(GroupState::PreparingRebalance, self.now.wall_clock);
        if self.group.is_initial_rebalance {
            // The group is new; its members are probably just starting, and one rebalance is better than one for each.
            let delay_ms = self.config.initial_rebalance_delay_ms;
            self.group.initial_delay_ms = delay_ms;
            self.group.initial_remaining_ms = (self.group.rebalance_timeout_ms() - delay_ms).max(0);
            self.schedule_join(delay_ms);
        } else if self.group.has_all_members_joined() {
            self.complete_join();
        } else {
            self.schedule_join(self.group.rebalance_timeout_ms());
        }
    }

    /// The initial rebalance ends by its timer alone.
    fn complete_join_if_due(&mut self) {
        if !self.group.is_initial_rebalance {
            self.complete_join_if_all_joined();
        }
    }

    fn complete_join_if_all_joined(&mut self) {
        if self.group.state == GroupState::PreparingRebalance && self.group.has_all_members_joined() {
            self.complete_join();
        }
    }

    /// Ends the join phase: who has not joined is out, except static members, whom only their session removes.
    fn complete_join(&mut self) {
        self.timers.cancel(&Timer::Join { group_id: self.group.group_id.clone() });
        let is_absent = |member: &&Member| member.awaiting_join.is_none() && member.group_instance_id.is_none();
        let absent: Vec<String> =
            self.group.members.values().filter(is_absent).map(|member| member.member_id.clone()).collect();
        for member_id in absent {
            self.remove_member(&member_id);
        }
        if !self.group.elect_joined_leader() && !self.group.members.is_empty() {
            // Only silent static members are left. They return, or their sessions end.
            self.group.is_initial_rebalance = false;
            self.schedule_join(self.group.rebalance_timeout_ms());
            return;
        }
        self.group.begin_next_generation(self.now.wall_clock);
        if self.group.state == GroupState::Empty {
            self.decision.records.push(self.group.to_record(&BTreeMap::new()));
            return;
        }
        let member_ids: Vec<String> = self.group.members.keys().cloned().collect();
        for member_id in member_ids {
            let response = self.join_response(&member_id);
            self.answer_join(&member_id, response);
            let member = self.group.members.get_mut(&member_id).expect("taken from the members");
            member.is_new = false;
            let timeout_ms = member.session_timeout_ms;
            self.start_session(&member_id, timeout_ms);
            self.group.pending_sync.insert(member_id);
        }
        let deadline_ms = deadline(self.now, self.group.rebalance_timeout_ms());
        self.timers.schedule(Timer::Sync { group_id: self.group.group_id.clone() }, deadline_ms);
    }

    fn join_response(&self, member_id: &str) -> JoinGroupResponse {
        let members = if self.group.is_leader(member_id) { self.group.join_response_members() } else { Vec::new() };
        make!(JoinGroupResponse {
            generation_id: self.group.generation,
            protocol_type: self.group.protocol_type.as_deref().map(Into::into),
            protocol_name: self.group.protocol_name.as_deref().map(Into::into),
            leader: self.group.leader.as_deref().unwrap_or_default().into(),
            member_id: member_id.into(),
            members,
        })
    }

    fn sync_response(&self, member_id: &str) -> GroupResponse {
        GroupResponse::SyncGroup(make!(SyncGroupResponse {
            protocol_type: self.group.protocol_type.as_deref().map(Into::into),
            protocol_name: self.group.protocol_name.as_deref().map(Into::into),
            assignment: self.group.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }))
    }

    fn start_session(&mut self, member_id: &str, timeout_ms: i32) {
        schedule_session(self.timers, &self.group.group_id, member_id, timeout_ms, self.now);
    }

    fn cancel_session(&mut self, member_id: &str) {
        let group_id = self.group.group_id.clone();
        self.timers.cancel(&Timer::Session { group_id, member_id: member_id.to_owned() });
    }

    fn schedule_join(&mut self, delay_ms: i32) {
        let group_id = self.group.group_id.clone();
        self.timers.schedule(Timer::Join { group_id }, deadline(self.now, delay_ms));
    }
}

/// An answer that depends on nothing.
pub(super) fn answer(token: Token, response: GroupResponse) -> Decision {
    Decision { replies: vec![Reply { token, outcome: Ok(response) }], ..Decision::nothing() }
}

fn join_error(member_id: &str, error: ErrorCode) -> GroupResponse {
    GroupResponse::JoinGroup(make!(JoinGroupResponse { error_code: error.code(), member_id: member_id.into() }))
}

fn sync_error(error: ErrorCode) -> GroupResponse {
    GroupResponse::SyncGroup(make!(SyncGroupResponse { error_code: error.code() }))
}

fn schedule_session(timers: &mut Timers, group_id: &str, member_id: &str, timeout_ms: i32, now: Now) {
    let timer = Timer::Session { group_id: group_id.to_owned(), member_id: member_id.to_owned() };
    timers.schedule(timer, deadline(now, timeout_ms));
}

fn deadline(now: Now, delay_ms: i32) -> u64 {
    now.monotonic_ms + u64::try_from(delay_ms).unwrap_or(0)
}

/// The client's id (or the instance id of a static member), a dash, and the random part in its usual notation.
fn new_member_id(prefix: &str, random: Uuid) -> String {
    let mut end = prefix.len().min(MAX_CLIENT_ID_IN_MEMBER_ID);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let hex: String = random.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}-{}", &prefix[..end], &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
