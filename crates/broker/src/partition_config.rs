//! A topic's settings as a partition needs them.

use std::sync::Arc;

use vltava_metadata::configs::{CompressionType, TimestampType as ConfiguredTimestampType, TopicConfig};
use vltava_protocol::batch::{CompressionPolicy, Origin, TimestampType, ValidationRules};
use vltava_protocol::compression::Compression;
use vltava_replication::{Durability, ReplicationConfig};
use vltava_storage::LogConfig;
use vltava_types::TimestampMs;

use crate::config::BrokerConfig;

/// A topic's settings, and what follows from them for the log and for replication.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionConfig {
    pub topic: TopicConfig,
    pub log: Arc<LogConfig>,
    pub replication: ReplicationConfig,
}

impl PartitionConfig {
    #[must_use]
    pub fn new(topic: TopicConfig, broker: &BrokerConfig) -> Self {
        let log = Arc::new(LogConfig {
            segment_bytes: topic.segment_bytes.unsigned_abs(),
            segment_ms: topic.segment_ms,
            segment_jitter_ms: topic.segment_jitter_ms,
            segment_index_bytes: topic.segment_index_bytes.unsigned_abs(),
            index_interval_bytes: topic.index_interval_bytes.unsigned_abs(),
            retention_ms: topic.retention_ms,
            retention_bytes: topic.retention_bytes,
            delete_by_retention: topic.is_deleted,
            file_delete_delay_ms: topic.file_delete_delay_ms,
            is_compacted: topic.is_compacted,
            min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: topic.min_compaction_lag_ms,
            max_compaction_lag_ms: topic.max_compaction_lag_ms,
            delete_retention_ms: topic.delete_retention_ms,
        });
        let replication = ReplicationConfig {
            durability: if topic.flushes_before_acknowledging { Durability::Flush } else { Durability::PageCache },
            min_in_sync_replicas: usize::try_from(topic.min_insync_replicas).unwrap_or(1).max(1),
            lag_time_max_ms: i64::try_from(broker.replication.replica_lag_time_max.as_millis()).unwrap_or(i64::MAX),
        };
        Self { topic, log, replication }
    }

    /// What a batch has to satisfy to be appended now.
    #[must_use]
    pub fn validation_rules(&self, origin: Origin, now: TimestampMs) -> ValidationRules {
        ValidationRules {
            origin,
            now,
            timestamp_type: match self.topic.message_timestamp_type {
                ConfiguredTimestampType::CreateTime => TimestampType::CreateTime,
                ConfiguredTimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: self.topic.message_timestamp_before_max_ms,
            timestamp_after_max_ms: self.topic.message_timestamp_after_max_ms,
            is_compacted: self.topic.is_compacted,
            max_message_bytes: usize::try_from(self.topic.max_message_bytes).unwrap_or(0),
            compression: self.compression(),
        }
    }

    fn compression(&self) -> CompressionPolicy {
        let (codec, level) = match self.topic.compression_type {
            CompressionType::Producer => return CompressionPolicy::Producer,
            CompressionType::Uncompressed => (Compression::None, None),
            CompressionType::Gzip => (Compression::Gzip, Some(self.topic.compression_gzip_level)),
            CompressionType::Snappy => (Compression::Snappy, None),
            CompressionType::Lz4 => (Compression::Lz4, Some(self.topic.compression_lz4_level)),
            CompressionType::Zstd => (Compression::Zstd, Some(self.topic.compression_zstd_level)),
        };
        CompressionPolicy::Codec { codec, level }
    }
}
