//! What administrators ask of groups: describe, list, delete.

use std::collections::BTreeSet;

use vltava_protocol::make;
use vltava_protocol::messages::delete_groups_response::DeletableGroupResult;
use vltava_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use vltava_protocol::messages::list_groups_response::ListedGroup;
use vltava_types::ErrorCode;

use super::classic::{ClassicGroup, GroupState};
use super::rebalance::answer;
use super::{Decision, GroupCompletion, GroupCoordinator, GroupResponse};
use crate::core::Token;
use crate::records::GroupRecord;

/// The state of a group that does not exist.
const DEAD: &str = "Dead";

/// The only type of group there is so far (KIP-848 adds others).
const CLASSIC: &str = "classic";

impl GroupCoordinator {
    pub(super) fn describe_groups(&self, token: Token, version: i16, group_ids: &[String]) -> Decision {
        let groups = group_ids.iter().map(|group_id| self.describe_group(version, group_id));
        answer(token, GroupResponse::DescribeGroups(groups.collect()))
    }

    fn describe_group(&self, version: i16, group_id: &str) -> DescribedGroup {
        match self.live.get(group_id) {
            Some(group) => describe_live(group),
            None if self.exists(group_id) => {
                make!(DescribedGroup { group_id: group_id.into(), group_state: GroupState::Empty.name().into() })
            }
            None if version >= 6 => make!(DescribedGroup {
                group_id: group_id.into(),
                group_state: DEAD.into(),
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(format!("Group {group_id} not found.").into()),
            }),
            // Older clients take the state for the answer.
            None => make!(DescribedGroup { group_id: group_id.into(), group_state: DEAD.into() }),
        }
    }

    pub(super) fn list_groups(&self, token: Token, states_filter: &[String], types_filter: &[String]) -> Decision {
        let states: BTreeSet<String> = states_filter.iter().map(|state| state.trim().to_lowercase()).collect();
        let is_type_wanted =
            types_filter.is_empty() || types_filter.iter().any(|name| name.eq_ignore_ascii_case(CLASSIC));
        let known = self.live.keys().chain(self.replicated.groups.keys()).chain(self.replicated.offsets.keys());
        let known: BTreeSet<&String> = if is_type_wanted { known.collect() } else { BTreeSet::new() };
        let groups = known.into_iter().filter_map(|group_id| {
            let group = self.live.get(group_id);
            let state = group.map_or(GroupState::Empty, |group| group.state).name();
            if !states.is_empty() && !states.contains(&state.to_lowercase()) {
                return None;
            }
            let protocol_type = group.and_then(|group| group.protocol_type.as_deref()).unwrap_or_default();
            Some(make!(ListedGroup {
                group_id: group_id.as_str().into(),
                protocol_type: protocol_type.into(),
                group_state: state.into(),
                group_type: CLASSIC.into(),
            }))
        });
        answer(token, GroupResponse::ListGroups(groups.collect()))
    }

    /// All groups of one request are deleted by one decision.
    pub(super) fn delete_groups(&mut self, token: Token, group_ids: Vec<String>) -> Decision {
        let mut records = Vec::new();
        let mut results = Vec::new();
        for group_id in group_ids.into_iter().collect::<BTreeSet<_>>() {
            let error = match self.live.get(&group_id) {
                Some(group) if group.state != GroupState::Empty => ErrorCode::NonEmptyGroup,
                _ if !self.exists(&group_id) => ErrorCode::GroupIdNotFound,
                _ => {
                    records.extend(self.all_offset_tombstones(&group_id));
                    records.push(GroupRecord::GroupMetadata { group_id: group_id.clone(), value: None }.encode());
                    ErrorCode::None
                }
            };
            results.push(make!(DeletableGroupResult { group_id: group_id.into(), error_code: error.code() }));
        }
        let completion = Some(GroupCompletion::Answer(token, GroupResponse::DeleteGroups(results)));
        Decision { records, completion, ..Decision::nothing() }
    }
}

fn describe_live(group: &ClassicGroup) -> DescribedGroup {
    // Subscriptions are settled only in a stable group.
    let protocol = group.protocol_name.as_deref().filter(|_| group.state == GroupState::Stable);
    let members = group.members.values().map(|member| {
        make!(DescribedGroupMember {
            member_id: member.member_id.as_str().into(),
            group_instance_id: member.group_instance_id.as_deref().map(Into::into),
            client_id: member.client_id.as_str().into(),
            client_host: member.client_host.as_str().into(),
            member_metadata: protocol.map(|protocol| member.metadata(Some(protocol))).unwrap_or_default(),
            member_assignment: member.assignment.clone(),
        })
    });
    make!(DescribedGroup {
        group_id: group.group_id.as_str().into(),
        group_state: group.state.name().into(),
        protocol_type: group.protocol_type.as_deref().unwrap_or_default().into(),
        protocol_data: protocol.unwrap_or_default().into(),
        members: members.collect(),
    })
}
