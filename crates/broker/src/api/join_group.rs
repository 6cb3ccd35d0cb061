//! JoinGroup: enters a group or its next generation; answered when the join phase ends.

use vltava_coordinator::group::Caller;
use vltava_protocol::make;
use vltava_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, mut request: JoinGroupRequest) -> JoinGroupResponse {
    if context.version == 0 {
        // There was one timeout for both.
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let member_id = request.member_id.clone();
    let outcome = context.broker.groups.join_group(caller(context), request).await;
    let mut response =
        outcome.unwrap_or_else(|error| make!(JoinGroupResponse { error_code: error.code(), member_id: member_id }));
    if context.version < 7 {
        // Not nullable yet.
        response.protocol_name.get_or_insert_default();
    }
    response
}

/// Who asks, as groups remember it.
pub(super) fn caller(context: &RequestContext<'_>) -> Caller {
    Caller {
        version: context.version,
        client_id: context.client_id.unwrap_or_default().to_owned(),
        client_host: format!("/{}", context.connection.peer.ip().to_canonical()),
    }
}
