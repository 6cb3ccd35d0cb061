//! DescribeConfigs: the values in force, where each comes from, and what it would be otherwise.

use vltava_metadata::configs::{ConfigEntry, ConfigSource, ConfigType};
use vltava_metadata::controller::ControllerError;
use vltava_metadata::{ConfigImage, ConfigResource};
use vltava_protocol::make;
use vltava_protocol::messages::describe_configs_request::DescribeConfigsResource;
use vltava_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use vltava_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::api::config_resources::{ResourceType, broker_id, configs, topic_resource};
use crate::api::refused::{refuse, told};

/// Kafka's `ConfigSource` of client metrics subscriptions.
const CLIENT_METRICS_SOURCE: i8 = 7;

pub async fn handle(context: &RequestContext<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let entries = entries(context, resource);
        let (error_code, error_message) = told(&entries);
        let wanted = |name: &str| match resource.configuration_keys.as_deref() {
            None | Some([]) => true,
            Some(keys) => keys.iter().any(|key| key.as_str() == name),
        };
        let is_metrics = resource.resource_type == ResourceType::ClientMetrics.code();
        let shown = entries.unwrap_or_default().into_iter().filter(|entry| wanted(&entry.name)).map(|entry| {
            let mut result = describe(context, &request, entry);
            if is_metrics {
                result.config_source = CLIENT_METRICS_SOURCE;
            }
            result
        });
        make!(DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs: shown.collect(),
        })
    });
    make!(DescribeConfigsResponse { results: results.collect() })
}

fn entries(
    context: &RequestContext<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, ControllerError> {
    let name = resource.resource_name.as_str();
    let refuse = |message: String| Err(refuse(ErrorCode::InvalidRequest, message));
    let own_id = context.broker.node_id;
    match ResourceType::from_code(resource.resource_type) {
        Some(ResourceType::Topic) => match topic_resource(&context.image, name)? {
            ConfigResource::Topic(topic_id) => Ok(configs(context).describe_topic(topic_id)),
            _ => Ok(vec![]),
        },
        Some(ResourceType::Broker) if name.is_empty() => Ok(configs(context).describe_cluster_default()),
        // Only a broker itself knows its properties file.
        Some(ResourceType::Broker) if broker_id(name)? == own_id => Ok(configs(context).describe_broker()),
        Some(ResourceType::Broker) => {
            refuse(format!("Unexpected broker id, expected {own_id} or empty string, but received {name}"))
        }
        Some(ResourceType::BrokerLogger) if name.is_empty() => refuse("Broker id must not be empty".to_owned()),
        // Vltava has one filter for all of its log, set at start-up.
        Some(ResourceType::BrokerLogger) if broker_id(name)? == own_id => Ok(vec![]),
        Some(ResourceType::BrokerLogger) => {
            refuse(format!("Unexpected broker id, expected {own_id} but received {name}"))
        }
        Some(ResourceType::ClientMetrics) if name.is_empty() => {
            refuse("Client metrics subscription name must not be empty".to_owned())
        }
        Some(ResourceType::ClientMetrics) => {
            let subscription = context.image.configs.get(&ConfigResource::ClientMetrics(name.to_owned()));
            Ok(subscription.map(|configs| client_metrics(configs)).unwrap_or_default())
        }
        Some(ResourceType::Group) if name.is_empty() => refuse("Group name must not be empty".to_owned()),
        Some(ResourceType::Group) => Ok(configs(context).describe_group(name)),
        None => refuse(format!("Unsupported resource type: {}", resource.resource_type)),
    }
}

fn client_metrics(configs: &ConfigImage) -> Vec<ConfigEntry> {
    let entry = |(name, value): (&String, &String)| ConfigEntry {
        name: name.clone(),
        value: Some(value.clone()),
        source: ConfigSource::Default,
        config_type: if name == "interval.ms" { ConfigType::Int } else { ConfigType::List },
        is_sensitive: false,
        is_read_only: false,
        synonyms: vec![],
        documentation: "",
    };
    configs.iter().map(entry).collect()
}

fn describe(
    context: &RequestContext<'_>,
    request: &DescribeConfigsRequest,
    entry: ConfigEntry,
) -> DescribeConfigsResourceResult {
    let mut result = make!(DescribeConfigsResourceResult {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.is_read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.is_sensitive,
    });
    if request.include_synonyms {
        let synonyms = entry.synonyms.into_iter().map(|synonym| {
            let value = synonym.value.map(Into::into);
            make!(DescribeConfigsSynonym { name: synonym.name.into(), value, source: synonym.source.code() })
        });
        result.synonyms = synonyms.collect();
    }
    if context.version >= 3 {
        result.config_type = entry.config_type.code();
        if request.include_documentation {
            result.documentation = Some(entry.documentation.into());
        }
    }
    result
}
