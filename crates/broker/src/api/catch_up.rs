//! A client can know of a new leader before that leader does: it asked a broker that has heard of it earlier.
//!
//! Such a client is right, and one that does not retry would fail for nothing: kafka-python 2.0.2 loses its record,
//! administration with kafkajs and franz-go breaks off. So requests to leaders wait a moment for this broker to catch
//! up, and are refused only then. Consumers' fetches need no such patience: all consumers retry them.

use std::sync::Arc;
use std::time::Duration;

use vltava_metadata::{ClusterImage, TopicImage};
use vltava_protocol::messages::{ListOffsetsRequest, ProduceRequest, WireId as _};
use vltava_types::{PartitionIndex, TopicId, TopicPartition};

use crate::Broker;
use crate::api::RequestContext;

/// Later requests of the connection wait as well, so this is short: some times what a follower of the quorum lags.
const PATIENCE: Duration = Duration::from_millis(300);

/// The image to serve a Produce request with.
pub async fn image_for_produce(context: &RequestContext<'_>, request: &ProduceRequest) -> Arc<ClusterImage> {
    let broker = context.broker;
    let is_ready = |image: &ClusterImage| {
        request.topic_data.iter().all(|data| {
            let topic = match context.version {
                13.. => image.topic(TopicId::from_wire(data.topic_id)),
                _ => image.topic_by_name(&data.name),
            };
            is_caught_up(broker, topic.map(Arc::as_ref), data.partition_data.iter().map(|partition| partition.index))
        })
    };
    wait_until(context, is_ready).await
}

/// The image to serve a ListOffsets request with.
pub async fn image_for_list_offsets(context: &RequestContext<'_>, request: &ListOffsetsRequest) -> Arc<ClusterImage> {
    let broker = context.broker;
    let is_ready = |image: &ClusterImage| {
        request.topics.iter().all(|asked| {
            let topic = image.topic_by_name(&asked.name);
            let partitions = asked.partitions.iter().map(|partition| partition.partition_index);
            is_caught_up(broker, topic.map(Arc::as_ref), partitions)
        })
    };
    wait_until(context, is_ready).await
}

async fn wait_until(context: &RequestContext<'_>, is_ready: impl Fn(&ClusterImage) -> bool) -> Arc<ClusterImage> {
    if is_ready(&context.image) {
        return Arc::clone(&context.image);
    }
    let mut images = context.broker.replicas.applied_images();
    let ready = images.wait_for(|image| is_ready(image));
    match tokio::time::timeout(PATIENCE, ready).await {
        Ok(Ok(image)) => Arc::clone(&image),
        Ok(Err(_)) | Err(_) => context.broker.image(),
    }
}

/// Whether all partitions are known, and those that this broker should lead are led.
fn is_caught_up(broker: &Broker, topic: Option<&TopicImage>, partitions: impl IntoIterator<Item = i32>) -> bool {
    let Some(topic) = topic else { return false };
    partitions.into_iter().all(|index| {
        let Some(expected) = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index)) else {
            return false;
        };
        if expected.leader != Some(broker.node_id) {
            return true;
        }
        let id = TopicPartition { topic_id: topic.topic_id, partition: PartitionIndex(index) };
        let led = broker.replicas.partition(id).and_then(|partition| partition.leader_epoch());
        led >= Some(expected.leader_epoch)
    })
}
