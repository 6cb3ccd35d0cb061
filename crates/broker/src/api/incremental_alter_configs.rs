//! IncrementalAlterConfigs: sets, deletes, and changes of lists; what is not named stays (KIP-339).

use vltava_metadata::controller::{ConfigOperation, ControllerError};
use vltava_protocol::make;
use vltava_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use vltava_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use vltava_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::api::config_resources::{Alteration, alter};
use crate::api::create_topics::duplicates;
use crate::api::refused::{refuse, told};

/// Kafka's `AlterConfigOp.OpType`.
const DELETE: i8 = 1;

pub async fn handle(
    context: &RequestContext<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let alterations = request.resources.iter().map(|resource| Alteration {
        type_code: resource.resource_type,
        name: &resource.resource_name,
        operations: operations(&resource.configs),
    });
    let outcomes = alter(context, alterations.collect(), false, request.validate_only).await;
    let responses = request.resources.iter().zip(&outcomes).map(|(resource, outcome)| {
        let (error_code, error_message) = told(outcome);
        make!(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        })
    });
    make!(IncrementalAlterConfigsResponse { responses: responses.collect() })
}

fn operations(configs: &[AlterableConfig]) -> Result<Vec<ConfigOperation>, ControllerError> {
    if !duplicates(configs.iter().map(|config| config.name.as_str())).is_empty() {
        return Err(refuse(ErrorCode::InvalidRequest, "Error due to duplicate config keys"));
    }
    let without_value: Vec<&str> = configs
        .iter()
        .filter(|config| config.config_operation != DELETE && config.value.is_none())
        .map(|config| config.name.as_str())
        .collect();
    if !without_value.is_empty() {
        let message = format!("Null value not supported for : {}", without_value.join(", "));
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    configs.iter().map(operation).collect()
}

fn operation(config: &AlterableConfig) -> Result<ConfigOperation, ControllerError> {
    let name = config.name.to_string();
    let value = config.value.as_deref().unwrap_or_default().to_owned();
    match config.config_operation {
        0 => Ok(ConfigOperation::Set { name, value }),
        DELETE => Ok(ConfigOperation::Delete { name }),
        2 => Ok(ConfigOperation::Append { name, value }),
        3 => Ok(ConfigOperation::Subtract { name, value }),
        other => Err(refuse(ErrorCode::InvalidRequest, format!("Unknown operation type {other}"))),
    }
}
