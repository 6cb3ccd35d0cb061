//! DescribeCluster: the brokers as this listener's clients reach them (KIP-700).

use vltava_protocol::make;
use vltava_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use vltava_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::api::authorized_operations::ALL_CLUSTER_OPERATIONS;
use crate::api::metadata::controller_id;

/// Kafka's `EndpointType` (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(context: &RequestContext<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if context.version >= 1 && request.endpoint_type != BROKERS {
        return refuse(request.endpoint_type);
    }
    let mut brokers = vec![];
    let include_fenced = context.version >= 2 && request.include_fenced_brokers;
    for broker in context.image.brokers.values().filter(|broker| broker.is_broker) {
        if broker.fenced && !include_fenced {
            continue;
        }
        let Some(endpoint) = broker.listeners.get(&context.connection.listener) else { continue };
        brokers.push(make!(DescribeClusterBroker {
            broker_id: broker.broker_id.value(),
            host: endpoint.host.as_str().into(),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_deref().map(Into::into),
            is_fenced: broker.fenced,
        }));
    }
    let mut response = make!(DescribeClusterResponse {
        cluster_id: context.image.cluster_id.as_str().into(),
        controller_id: controller_id(context, &context.image).value(),
        brokers,
    });
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
    }
    response
}

/// Controllers answer Kafka clients nowhere.
fn refuse(endpoint_type: i8) -> DescribeClusterResponse {
    let (error, message) = if endpoint_type == CONTROLLERS {
        let message =
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
        (ErrorCode::MismatchedEndpointType, message.to_owned())
    } else {
        (ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {endpoint_type}"))
    };
    make!(DescribeClusterResponse { error_code: error.code(), error_message: Some(message.into()) })
}
