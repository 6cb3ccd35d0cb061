//! LeaveGroup: members go, by themselves or at an administrator's wish.

use vltava_protocol::make;
use vltava_protocol::messages::leave_group_request::MemberIdentity;
use vltava_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use vltava_types::ErrorCode;

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, mut request: LeaveGroupRequest) -> LeaveGroupResponse {
    if context.version < 3 {
        request.members = vec![make!(MemberIdentity { member_id: std::mem::take(&mut request.member_id) })];
    }
    let outcome = context.broker.groups.leave_group(request).await;
    let mut response = outcome.unwrap_or_else(|error| make!(LeaveGroupResponse { error_code: error.code() }));
    if context.version < 3 {
        // One member, so its error is that of the request.
        let member = response.members.pop();
        if response.error_code == ErrorCode::None.code() {
            response.error_code = member.map_or(ErrorCode::None.code(), |member| member.error_code);
        }
    }
    response
}
