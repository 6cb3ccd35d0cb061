//! A client can know of a new leader before that leader does: it asked a broker that has heard of the election earlier.
//!
//! Such a client is right, and one that does not retry (kafka-python 2.0.2 by default) would lose its record to an
//! error. So a produce request waits a moment for this broker to catch up, and is refused only then.

use std::sync::Arc;
use std::time::Duration;

use vltava_metadata::ClusterImage;
use vltava_protocol::messages::{ProduceRequest, WireId as _};
use vltava_types::{PartitionIndex, TopicId, TopicPartition};

use crate::Broker;
use crate::api::RequestContext;

/// Later requests of the connection wait as well, so this is short: some times what a follower of the quorum lags.
const PATIENCE: Duration = Duration::from_millis(300);

/// The image to serve the request with.
pub async fn image_for_produce(context: &RequestContext<'_>, request: &ProduceRequest) -> Arc<ClusterImage> {
    let (broker, version) = (context.broker, context.version);
    if is_settled(broker, &context.image, version, request) {
        return Arc::clone(&context.image);
    }
    let mut images = broker.replicas.applied_images();
    let settled = images.wait_for(|image| is_settled(broker, image, version, request));
    match tokio::time::timeout(PATIENCE, settled).await {
        Ok(Ok(image)) => Arc::clone(&image),
        Ok(Err(_)) | Err(_) => broker.image(),
    }
}

/// Whether all topics are known, and everything that this broker should lead is led.
fn is_settled(broker: &Broker, image: &ClusterImage, version: i16, request: &ProduceRequest) -> bool {
    request.topic_data.iter().all(|data| {
        let topic = match version {
            13.. => image.topic(TopicId::from_wire(data.topic_id)),
            _ => image.topic_by_name(&data.name),
        };
        let Some(topic) = topic else { return false };
        data.partition_data.iter().all(|partition| {
            let id = TopicPartition { topic_id: topic.topic_id, partition: PartitionIndex(partition.index) };
            match image.partition(id.topic_id, id.partition) {
                Some(expected) if expected.leader == Some(broker.node_id) => {
                    let hosted = broker.replicas.partition(id);
                    hosted.and_then(|hosted| hosted.leader_epoch()) >= Some(expected.leader_epoch)
                }
                _ => true,
            }
        })
    })
}
