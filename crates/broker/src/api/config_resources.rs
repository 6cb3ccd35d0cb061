//! What configs belong to, as requests name it.

use tokio::time::{Duration, Instant};
use vltava_metadata::configs::Configs;
use vltava_metadata::controller::{
    AlterConfigs, ConfigOperation, ControllerError, ControllerRequest, ControllerResponse,
};
use vltava_metadata::{ClusterImage, ConfigResource};
use vltava_types::{BrokerId, ErrorCode};

use crate::api::RequestContext;
use crate::api::refused::{mismatched, refuse, unanswered};
use crate::topic_creation::is_valid_name;

/// Kafka's `ConfigResource.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ResourceType {
    pub const ALL: [Self; 5] = [Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group];

    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            2 => Some(Self::Topic),
            4 => Some(Self::Broker),
            8 => Some(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics),
            32 => Some(Self::Group),
            _ => None,
        }
    }

    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }
}

/// Configs as this broker resolves them in the request's image.
pub fn configs<'a>(context: &'a RequestContext<'_>) -> Configs<'a> {
    Configs { image: &context.image, broker_id: context.broker.node_id, properties: &context.broker.config.properties }
}

/// The topic of this name, or why there is none.
pub fn topic_resource(image: &ClusterImage, name: &str) -> Result<ConfigResource, ControllerError> {
    match image.topic_by_name(name) {
        Some(topic) => Ok(ConfigResource::Topic(topic.topic_id)),
        None if !is_valid_name(name) => {
            Err(refuse(ErrorCode::InvalidTopicException, format!("Topic name is invalid: '{name}'")))
        }
        None => Err(refuse(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")),
    }
}

/// The resource whose configs a client wants to change.
pub fn alterable(image: &ClusterImage, type_code: i8, name: &str) -> Result<ConfigResource, ControllerError> {
    let Some(resource_type) = ResourceType::from_code(type_code) else {
        return Err(refuse(ErrorCode::InvalidRequest, format!("Unknown resource type {type_code}")));
    };
    match resource_type {
        ResourceType::Topic if name.is_empty() => {
            Err(refuse(ErrorCode::InvalidRequest, "Default topic resources are not allowed."))
        }
        ResourceType::Topic => topic_resource(image, name),
        ResourceType::Broker if name.is_empty() => Ok(ConfigResource::ClusterDefault),
        ResourceType::Broker => broker_id(name).map(ConfigResource::Broker),
        ResourceType::BrokerLogger => {
            Err(refuse(ErrorCode::InvalidRequest, "Log levels are set when the broker starts."))
        }
        ResourceType::ClientMetrics => Ok(ConfigResource::ClientMetrics(name.to_owned())),
        ResourceType::Group => Ok(ConfigResource::Group(name.to_owned())),
    }
}

pub fn broker_id(name: &str) -> Result<BrokerId, ControllerError> {
    let message = || format!("Broker id must be an integer, but it is: {name}");
    name.parse().map(BrokerId).map_err(|_| refuse(ErrorCode::InvalidRequest, message()))
}

/// Changes to one resource, as a request asks for them.
pub struct Alteration<'a> {
    pub type_code: i8,
    pub name: &'a str,
    /// Or why they cannot be read.
    pub operations: Result<Vec<ConfigOperation>, ControllerError>,
}

/// Has the controller decide what is in order, and answers for each alteration in turn.
pub async fn alter(
    context: &RequestContext<'_>,
    alterations: Vec<Alteration<'_>>,
    replace_all: bool,
    validate_only: bool,
) -> Vec<Result<(), ControllerError>> {
    let mut resources: Vec<(ConfigResource, Vec<ConfigOperation>)> = vec![];
    // For each alteration: its place among the resources, or why it has none.
    let mut places: Vec<Result<usize, ControllerError>> = vec![];
    for (index, alteration) in alterations.iter().enumerate() {
        let is_repeated = alterations.iter().enumerate().any(|(other, repeated)| {
            other != index && (repeated.type_code, repeated.name) == (alteration.type_code, alteration.name)
        });
        let place = if is_repeated {
            Err(refuse(ErrorCode::InvalidRequest, "Each resource must appear at most once."))
        } else {
            alterable(&context.image, alteration.type_code, alteration.name).and_then(|resource| {
                resources.push((resource, alteration.operations.clone()?));
                Ok(resources.len() - 1)
            })
        };
        places.push(place);
    }

    let mut outcomes = vec![Err(refuse(ErrorCode::UnknownServerError, "")); resources.len()];
    if !resources.is_empty() {
        let deadline = Instant::now() + context.broker.config.network.request_timeout;
        let request = AlterConfigs { resources: resources.clone(), replace_all, validate_only };
        match context.broker.controller.call(ControllerRequest::AlterConfigs(request), deadline).await {
            Ok(ControllerResponse::AlterConfigs(decided)) => {
                for (outcome, (_, decision)) in outcomes.iter_mut().zip(decided) {
                    *outcome = decision;
                }
            }
            Ok(other) => outcomes.fill(Err(mismatched(&other))),
            Err(_unavailable) => outcomes.fill(Err(unanswered(ErrorCode::RequestTimedOut))),
        }
        if !validate_only {
            wait_until_seen(context, &resources, &outcomes, deadline).await;
        }
    }
    places.into_iter().map(|place| place.and_then(|index| outcomes[index].clone())).collect()
}

/// A client that goes on with this broker reads what it has set.
async fn wait_until_seen(
    context: &RequestContext<'_>,
    resources: &[(ConfigResource, Vec<ConfigOperation>)],
    outcomes: &[Result<(), ControllerError>],
    deadline: Instant,
) {
    let mut expected = vec![];
    for ((resource, operations), outcome) in resources.iter().zip(outcomes) {
        if outcome.is_err() {
            continue;
        }
        for operation in operations {
            match operation {
                ConfigOperation::Set { name, value } => expected.push((resource, name, Some(value.as_str()))),
                ConfigOperation::Delete { name } => expected.push((resource, name, None)),
                // What comes out of these depends on what was there before.
                ConfigOperation::Append { .. } | ConfigOperation::Subtract { .. } => {}
            }
        }
    }
    let is_seen =
        |image: &ClusterImage| expected.iter().all(|(resource, name, value)| image.config(resource, name) == *value);
    // Another client may set the same config meanwhile, so this is not worth waiting for long.
    let soon = deadline.min(Instant::now() + Duration::from_secs(1));
    context.broker.wait_for_image(soon, is_seen).await;
}
