//! FindCoordinator: which broker coordinates a group. Creates the groups' topic when it is first needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Duration, Instant};
use vltava_coordinator::partition_for;
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_protocol::make;
use vltava_protocol::messages::find_coordinator_response::Coordinator;
use vltava_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use vltava_types::{BrokerId, ErrorCode};

use super::RequestContext;
use crate::topic_creation::CONSUMER_OFFSETS_TOPIC;

/// The kinds of coordinators, as `key_type` numbers them.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// How long the first request waits for the topic to come into being. Clients ask again anyway, but then they have
/// waited for their whole backoff.
const CREATION_TIMEOUT: Duration = Duration::from_secs(2);

pub async fn handle(context: &RequestContext<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let image = match request.key_type {
        GROUP => image_with_offsets_topic(context).await,
        _ => Arc::clone(&context.image),
    };
    if context.version < 4 {
        return match find(context, &image, request.key_type, &request.key) {
            Ok((node_id, endpoint)) => make!(FindCoordinatorResponse {
                node_id: node_id.value(),
                host: endpoint.host.as_str().into(),
                port: endpoint.port.into(),
                error_message: Some(ErrorCode::None.name().into()),
            }),
            Err(error) => make!(FindCoordinatorResponse {
                error_code: error.code(),
                error_message: Some(error.name().into()),
                node_id: BrokerId::NONE.value(),
                port: -1,
            }),
        };
    }
    let coordinators =
        request.coordinator_keys.into_iter().map(|key| match find(context, &image, request.key_type, &key) {
            Ok((node_id, endpoint)) => make!(Coordinator {
                key,
                node_id: node_id.value(),
                host: endpoint.host.as_str().into(),
                port: endpoint.port.into(),
            }),
            Err(error) => {
                make!(Coordinator { key, error_code: error.code(), node_id: BrokerId::NONE.value(), port: -1 })
            }
        });
    make!(FindCoordinatorResponse { coordinators: coordinators.collect() })
}

async fn image_with_offsets_topic(context: &RequestContext<'_>) -> Arc<ClusterImage> {
    if context.image.topic_by_name(CONSUMER_OFFSETS_TOPIC).is_some() {
        return Arc::clone(&context.image);
    }
    let names = BTreeSet::from([CONSUMER_OFFSETS_TOPIC.to_owned()]);
    let deadline = Instant::now() + CREATION_TIMEOUT;
    // What is refused stays missing from the image, and is asked for again with the client's next try.
    context.broker.topic_creation.create(context.broker, &names, deadline).await;
    context.broker.image()
}

/// The broker that leads the key's partition, as reached over the client's own listener.
fn find(
    context: &RequestContext<'_>,
    image: &ClusterImage,
    key_type: i8,
    key: &str,
) -> Result<(BrokerId, Endpoint), ErrorCode> {
    match key_type {
        GROUP => {}
        // Not built yet: to a client, a coordinator that is not there at the moment.
        TRANSACTION => return Err(ErrorCode::CoordinatorNotAvailable),
        SHARE if context.version >= 6 => return Err(ErrorCode::CoordinatorNotAvailable),
        _ => return Err(ErrorCode::InvalidRequest),
    }
    let topic = image.topic_by_name(CONSUMER_OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let partition_count = i32::try_from(topic.partitions.len()).map_err(|_| ErrorCode::CoordinatorNotAvailable)?;
    let partition = partition_for(key, partition_count);
    let leader = image.partition(topic.topic_id, partition).and_then(|partition| partition.leader);
    let broker = leader.and_then(|leader| image.broker(leader)).filter(|broker| !broker.fenced);
    let broker = broker.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let endpoint = broker.listeners.get(&context.connection.listener).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok((broker.broker_id, endpoint.clone()))
}
