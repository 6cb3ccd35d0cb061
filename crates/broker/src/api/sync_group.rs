//! SyncGroup: the leader hands in the assignment, and every member gets its own.

use vltava_protocol::make;
use vltava_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use vltava_types::ErrorCode;

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    let outcome = if context.version >= 5 && !names_protocol {
        Err(ErrorCode::InconsistentGroupProtocol)
    } else {
        context.broker.groups.sync_group(request).await
    };
    outcome.unwrap_or_else(|error| make!(SyncGroupResponse { error_code: error.code() }))
}
