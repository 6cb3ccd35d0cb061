//! ListGroups: the groups that this broker coordinates.

use vltava_protocol::make;
use vltava_protocol::messages::{ListGroupsRequest, ListGroupsResponse, StrBytes};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let owned = |filter: Vec<StrBytes>| filter.into_iter().map(StrBytes::into_string).collect();
    let groups = context.broker.groups.list_groups(owned(request.states_filter), owned(request.types_filter));
    match groups.await {
        Ok(groups) => make!(ListGroupsResponse { groups }),
        Err(error) => make!(ListGroupsResponse { error_code: error.code() }),
    }
}
