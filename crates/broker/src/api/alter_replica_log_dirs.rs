//! AlterReplicaLogDirs (KIP-113): moves replicas between the log directories of this broker, while they serve.

use std::path::Path;

use vltava_protocol::make;
use vltava_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use vltava_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use vltava_types::{ErrorCode, PartitionIndex, TopicPartition};

use crate::api::RequestContext;

/// Answers once the moves have begun. DescribeLogDirs shows them, as future replicas, until they are done.
pub async fn handle(context: &RequestContext<'_>, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let topics = request.dirs.iter().flat_map(|dir| dir.topics.iter().map(move |topic| (dir, topic)));
    let results = topics.map(|(dir, topic)| {
        let partition_results = topic.partitions.iter().map(|&partition_index| {
            let outcome = alter(context, &dir.path, &topic.name, partition_index);
            let error_code = outcome.err().unwrap_or(ErrorCode::None).code();
            make!(AlterReplicaLogDirPartitionResult { partition_index, error_code })
        });
        make!(AlterReplicaLogDirTopicResult { topic_name: topic.name.clone(), partitions: partition_results.collect() })
    });
    make!(AlterReplicaLogDirsResponse { results: results.collect() })
}

fn alter(context: &RequestContext<'_>, path: &str, topic: &str, partition: i32) -> Result<(), ErrorCode> {
    let topic_id = context.image.topic_id(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = TopicPartition { topic_id, partition: PartitionIndex(partition) };
    if context.image.partition(topic_id, partition.partition).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    context.broker.replicas.alter_log_dir(partition, Path::new(path))
}
