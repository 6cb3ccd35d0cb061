//! AlterConfigs, the older way: what is not named goes back to its default.

use vltava_metadata::controller::{ConfigOperation, ControllerError};
use vltava_protocol::make;
use vltava_protocol::messages::alter_configs_request::AlterableConfig;
use vltava_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use vltava_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::api::config_resources::{Alteration, alter};
use crate::api::refused::{refuse, told};

pub async fn handle(context: &RequestContext<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let alterations = request.resources.iter().map(|resource| Alteration {
        type_code: resource.resource_type,
        name: &resource.resource_name,
        operations: operations(&resource.configs),
    });
    let outcomes = alter(context, alterations.collect(), true, request.validate_only).await;
    let responses = request.resources.iter().zip(&outcomes).map(|(resource, outcome)| {
        let (error_code, error_message) = told(outcome);
        make!(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        })
    });
    make!(AlterConfigsResponse { responses: responses.collect() })
}

fn operations(configs: &[AlterableConfig]) -> Result<Vec<ConfigOperation>, ControllerError> {
    let without_value: Vec<&str> =
        configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.as_str()).collect();
    if !without_value.is_empty() {
        let message = format!("Null value not supported for : {}", without_value.join(", "));
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    let set = |config: &AlterableConfig| {
        let value = config.value.as_ref()?.to_string();
        Some(ConfigOperation::Set { name: config.name.to_string(), value })
    };
    Ok(configs.iter().filter_map(set).collect())
}
