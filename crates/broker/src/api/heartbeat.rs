//! Heartbeat: a member is alive, and learns whether a rebalance is under way.

use vltava_protocol::make;
use vltava_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use vltava_types::ErrorCode;

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let outcome = context.broker.groups.heartbeat(request).await;
    outcome.unwrap_or_else(|error| match error {
        // All sessions start afresh when the load ends, so the member may believe that all is well.
        ErrorCode::CoordinatorLoadInProgress => make!(HeartbeatResponse { error_code: ErrorCode::None.code() }),
        error => make!(HeartbeatResponse { error_code: error.code() }),
    })
}
