//! DescribeGroups: the state and members of groups.

use vltava_protocol::make;
use vltava_protocol::messages::describe_groups_response::DescribedGroup;
use vltava_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use vltava_types::ErrorCode;

use super::RequestContext;
use super::authorized_operations::ALL_GROUP_OPERATIONS;

pub async fn handle(context: &RequestContext<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let group_ids = request.groups.iter().map(|group_id| group_id.as_str().to_owned()).collect();
    let parts = context.broker.groups.describe_groups(context.version, group_ids).await;
    let mut groups = Vec::new();
    for (group_ids, outcome) in parts {
        match outcome {
            Ok(described) => groups.extend(described),
            Err(error) => groups.extend(
                group_ids
                    .into_iter()
                    .map(|group_id| make!(DescribedGroup { group_id: group_id.into(), error_code: error.code() })),
            ),
        }
    }
    if context.version >= 3 && request.include_authorized_operations {
        for group in groups.iter_mut().filter(|group| group.error_code == ErrorCode::None.code()) {
            group.authorized_operations = ALL_GROUP_OPERATIONS;
        }
    }
    make!(DescribeGroupsResponse { groups })
}
