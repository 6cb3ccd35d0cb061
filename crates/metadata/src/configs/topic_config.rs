//! A topic's configs as types, for those who act on them.

use std::collections::BTreeSet;

use vltava_types::{BrokerId, PartitionIndex};

use super::define::ConfigDef;
use super::topic_config as find;
use super::value::ConfigValue;

/// Everything that a topic's configs say, all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` contains `delete`; with an empty policy, neither does.
    pub is_deleted: bool,
    /// `cleanup.policy` contains `compact`.
    pub is_compacted: bool,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    /// -1 for no bound.
    pub retention_bytes: i64,
    /// -1 for no bound.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
    /// `vltava.durability` is `flush`: a replica acknowledges only what is on disk.
    pub flushes_before_acknowledging: bool,
    /// Leaders that send to replicas that are not in sync no faster than `leader.replication.throttled.rate`.
    pub leader_throttled_replicas: ThrottledReplicas,
    /// Replicas that are sent, until they are in sync, no more than `follower.replication.throttled.rate`.
    pub follower_throttled_replicas: ThrottledReplicas,
}

/// `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas` (KIP-73).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// `*`.
    All,
    /// `partition:broker` each.
    Listed(BTreeSet<(PartitionIndex, BrokerId)>),
}

impl ThrottledReplicas {
    #[must_use]
    pub fn contains(&self, partition: PartitionIndex, broker: BrokerId) -> bool {
        match self {
            Self::All => true,
            Self::Listed(replicas) => replicas.contains(&(partition, broker)),
        }
    }

    /// What is no pair of numbers was refused when it was set.
    fn new(value: &ConfigValue) -> Self {
        let ConfigValue::List(list) = value else { return Self::Listed(BTreeSet::new()) };
        if list == &["*"] {
            return Self::All;
        }
        let pair = |element: &String| {
            let (partition, broker) = element.split_once(':')?;
            Some((PartitionIndex(partition.parse().ok()?), BrokerId(broker.parse().ok()?)))
        };
        Self::Listed(list.iter().filter_map(pair).collect())
    }
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::from_values(|_| None)
    }
}

impl TopicConfig {
    /// Asks for each config's value; where there is none, the default counts.
    pub(super) fn from_values(value: impl Fn(&ConfigDef) -> Option<ConfigValue>) -> Self {
        let get = |name: &str| {
            let config = find(name).expect("the topic table has every field's config");
            value(config).unwrap_or_else(|| {
                let default = config.default.expect("topic configs have defaults");
                config.parse(default).expect("defaults are valid")
            })
        };
        let long = |name| match get(name) {
            ConfigValue::Number(number) => number,
            other => unreachable!("{name} is a number in the table, not {other:?}"),
        };
        let int = |name| i32::try_from(long(name)).expect("the table gives this config the type int");
        let boolean = |name| get(name) == ConfigValue::Boolean(true);
        let is_text = |name, text: &str| get(name) == ConfigValue::Text(text.to_owned());
        let policy = get("cleanup.policy");
        let has_policy =
            |name: &str| matches!(&policy, ConfigValue::List(list) if list.iter().any(|element| element == name));
        Self {
            is_deleted: has_policy("delete"),
            is_compacted: has_policy("compact"),
            compression_type: compression_type(&get("compression.type")),
            compression_gzip_level: int("compression.gzip.level"),
            compression_lz4_level: int("compression.lz4.level"),
            compression_zstd_level: int("compression.zstd.level"),
            delete_retention_ms: long("delete.retention.ms"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            max_message_bytes: int("max.message.bytes"),
            message_timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            message_timestamp_type: if is_text("message.timestamp.type", "LogAppendTime") {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            min_cleanable_dirty_ratio: match get("min.cleanable.dirty.ratio") {
                ConfigValue::Double(ratio) => ratio,
                other => unreachable!("the ratio is a double in the table, not {other:?}"),
            },
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            min_insync_replicas: int("min.insync.replicas"),
            preallocate: boolean("preallocate"),
            retention_bytes: long("retention.bytes"),
            retention_ms: long("retention.ms"),
            segment_bytes: int("segment.bytes"),
            segment_index_bytes: int("segment.index.bytes"),
            segment_jitter_ms: long("segment.jitter.ms"),
            segment_ms: long("segment.ms"),
            unclean_leader_election_enable: boolean("unclean.leader.election.enable"),
            flushes_before_acknowledging: is_text("vltava.durability", "flush"),
            leader_throttled_replicas: ThrottledReplicas::new(&get("leader.replication.throttled.replicas")),
            follower_throttled_replicas: ThrottledReplicas::new(&get("follower.replication.throttled.replicas")),
        }
    }
}

fn compression_type(value: &ConfigValue) -> CompressionType {
    match value {
        ConfigValue::Text(text) => match text.as_str() {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        },
        _ => CompressionType::Producer,
    }
}
