//! ListConfigResources: what has configs (KIP-1142). Version 0 listed client metrics subscriptions only.

use std::collections::BTreeSet;

use vltava_metadata::{ClusterImage, ConfigResource};
use vltava_protocol::make;
use vltava_protocol::messages::list_config_resources_response::ConfigResource as Listed;
use vltava_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::api::config_resources::ResourceType;

pub async fn handle(context: &RequestContext<'_>, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let Some(types) = wanted(context.version, &request.resource_types) else {
        return make!(ListConfigResourcesResponse { error_code: ErrorCode::UnsupportedVersion.code() });
    };
    let mut config_resources = vec![];
    for resource_type in types {
        for name in names(&context.image, resource_type) {
            let mut listed = make!(Listed { resource_name: name.into() });
            if context.version >= 1 {
                listed.resource_type = resource_type.code();
            }
            config_resources.push(listed);
        }
    }
    make!(ListConfigResourcesResponse { config_resources })
}

/// All types if none is named; `None` if an unknown one is.
fn wanted(version: i16, codes: &[i8]) -> Option<BTreeSet<ResourceType>> {
    if version == 0 {
        return Some([ResourceType::ClientMetrics].into());
    }
    if codes.is_empty() {
        return Some(ResourceType::ALL.into());
    }
    codes.iter().map(|code| ResourceType::from_code(*code)).collect()
}

fn names(image: &ClusterImage, resource_type: ResourceType) -> Vec<String> {
    match resource_type {
        ResourceType::Topic => image.topic_ids.keys().cloned().collect(),
        ResourceType::Broker | ResourceType::BrokerLogger => {
            let brokers = image.brokers.values().filter(|broker| broker.is_broker);
            brokers.map(|broker| broker.broker_id.to_string()).collect()
        }
        ResourceType::ClientMetrics => {
            let subscription = |resource: &ConfigResource| match resource {
                ConfigResource::ClientMetrics(name) => Some(name.clone()),
                _ => None,
            };
            image.configs.keys().filter_map(subscription).collect()
        }
        ResourceType::Group => {
            let group = |resource: &ConfigResource| match resource {
                ConfigResource::Group(name) => Some(name.clone()),
                _ => None,
            };
            image.configs.keys().filter_map(group).collect()
        }
    }
}
