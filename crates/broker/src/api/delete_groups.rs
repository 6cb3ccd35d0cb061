//! DeleteGroups: deletes groups without members, with all their offsets.

use vltava_protocol::make;
use vltava_protocol::messages::delete_groups_response::DeletableGroupResult;
use vltava_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let group_ids = request.groups_names.iter().map(|group_id| group_id.as_str().to_owned()).collect();
    let mut results = Vec::new();
    for (group_ids, outcome) in context.broker.groups.delete_groups(group_ids).await {
        match outcome {
            Ok(deleted) => results.extend(deleted),
            Err(error) => {
                results.extend(group_ids.into_iter().map(|group_id| {
                    make!(DeletableGroupResult { group_id: group_id.into(), error_code: error.code() })
                }))
            }
        }
    }
    make!(DeleteGroupsResponse { results })
}
