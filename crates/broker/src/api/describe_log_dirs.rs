//! DescribeLogDirs: what this broker keeps where, and how much room is left.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::make;
use vltava_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use vltava_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use vltava_types::ErrorCode;

use crate::api::RequestContext;
use crate::replica_manager::LogDirStatus;

/// Topic and index of the partitions asked for; `None` asks for all.
type Wanted = Option<BTreeSet<(String, i32)>>;

pub async fn handle(context: &RequestContext<'_>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted: Wanted = request.topics.as_ref().map(|topics| {
        let partitions = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic.to_string(), *partition)));
        partitions.collect()
    });
    let directories = context.broker.replicas.log_dirs();
    let results = directories.iter().map(|directory| describe(context.version, directory, &wanted));
    make!(DescribeLogDirsResponse { results: results.collect() })
}

fn describe(version: i16, directory: &LogDirStatus, wanted: &Wanted) -> DescribeLogDirsResult {
    let mut result = make!(DescribeLogDirsResult { log_dir: directory.path.display().to_string().into() });
    if !directory.online {
        result.error_code = ErrorCode::KafkaStorageError.code();
        return result;
    }
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in &directory.partitions {
        let name = partition.name();
        let index = name.partition.value();
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&(name.topic.clone(), index))) {
            continue;
        }
        let lag = partition.high_watermark().value() - partition.log_end_offset().value();
        topics.entry(&name.topic).or_default().push(make!(DescribeLogDirsPartition {
            partition_index: index,
            partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
            offset_lag: lag.max(0),
        }));
    }
    for future in &directory.futures {
        let name = future.partition.name();
        let index = name.partition.value();
        if wanted.as_ref().is_none_or(|wanted| wanted.contains(&(name.topic.clone(), index))) {
            topics.entry(&name.topic).or_default().push(make!(DescribeLogDirsPartition {
                partition_index: index,
                partition_size: i64::try_from(future.size_bytes).unwrap_or(i64::MAX),
                offset_lag: future.offset_lag,
                is_future_key: true,
            }));
        }
    }
    let topics =
        topics.into_iter().map(|(name, partitions)| make!(DescribeLogDirsTopic { name: name.into(), partitions }));
    result.topics = topics.collect();
    if version >= 4 {
        let told = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1);
        result.total_bytes = told(directory.total_bytes);
        result.usable_bytes = told(directory.usable_bytes);
    }
    result
}
