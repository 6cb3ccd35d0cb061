//! The configs of a topic.

use super::define::Importance::{Low, Medium};
use super::define::{
    BrokerSynonym, ConfigDef, Valid, boolean, double, in_hours, in_minutes, int, list, long, same_unit, string,
};

/// The broker config of another name, or of the same.
macro_rules! from {
    ($($synonym:expr),+) => {{
        const SYNONYMS: &[BrokerSynonym] = &[$($synonym),+];
        SYNONYMS
    }};
}

/// In alphabetical order.
pub(super) const TABLE: &[ConfigDef] = &[
    list("cleanup.policy", "delete", Medium)
        .list_of(&["compact", "delete"])
        .synonyms(from![same_unit("log.cleanup.policy")])
        .honoured()
        .says("What happens to old segments: deleted by time and size, or compacted to the last record of each key."),
    int("compression.gzip.level", "-1", Medium)
        .valid(Valid::BetweenOr(1, 9, -1))
        .synonyms(from![same_unit("compression.gzip.level")])
        .honoured()
        .says("The level if compression.type is gzip."),
    int("compression.lz4.level", "9", Medium)
        .between(1, 17)
        .synonyms(from![same_unit("compression.lz4.level")])
        .says("The level if compression.type is lz4."),
    string("compression.type", "producer", Medium)
        .one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
        .synonyms(from![same_unit("compression.type")])
        .honoured()
        .says("The codec of the topic's batches; producer keeps what the producer chose."),
    int("compression.zstd.level", "3", Medium)
        .between(-131_072, 22)
        .synonyms(from![same_unit("compression.zstd.level")])
        .honoured()
        .says("The level if compression.type is zstd."),
    long("delete.retention.ms", "86400000", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.cleaner.delete.retention.ms")])
        .honoured()
        .says("How long tombstones stay in a compacted topic."),
    long("file.delete.delay.ms", "60000", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.segment.delete.delay.ms")])
        .honoured()
        .says("How long the files of a deleted segment stay."),
    long("flush.messages", "9223372036854775807", Medium)
        .at_least(1)
        .synonyms(from![same_unit("log.flush.interval.messages")])
        .honoured()
        .says("The log is flushed to disk after so many records."),
    long("flush.ms", "9223372036854775807", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.flush.interval.ms"), same_unit("log.flush.scheduler.interval.ms")])
        .honoured()
        .says("The log is flushed to disk after so long."),
    list("follower.replication.throttled.replicas", "", Medium).valid(Valid::ThrottledReplicas).honoured().says(
        "Replicas (partition:broker,... or *) that are sent, until they are in sync, no more than the broker's \
               follower.replication.throttled.rate.",
    ),
    int("index.interval.bytes", "4096", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.index.interval.bytes")])
        .honoured()
        .says("An index entry is added after so many bytes of the log."),
    list("leader.replication.throttled.replicas", "", Medium).valid(Valid::ThrottledReplicas).honoured().says(
        "Leaders (partition:broker,... or *) that send to replicas that are not in sync no more than the broker's \
               leader.replication.throttled.rate.",
    ),
    long("local.retention.bytes", "-2", Medium)
        .at_least(-2)
        .synonyms(from![same_unit("log.local.retention.bytes")])
        .says("How much of a tiered partition stays on local disk; -2 is retention.bytes."),
    long("local.retention.ms", "-2", Medium)
        .at_least(-2)
        .synonyms(from![same_unit("log.local.retention.ms")])
        .says("How long a tiered partition's segments stay on local disk; -2 is retention.ms."),
    long("max.compaction.lag.ms", "9223372036854775807", Medium)
        .at_least(1)
        .synonyms(from![same_unit("log.cleaner.max.compaction.lag.ms")])
        .honoured()
        .says("A record is compacted at the latest after so long."),
    int("max.message.bytes", "1048588", Medium)
        .at_least(0)
        .synonyms(from![same_unit("message.max.bytes")])
        .honoured()
        .says("The largest record batch, as compressed."),
    long("message.timestamp.after.max.ms", "3600000", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.message.timestamp.after.max.ms")])
        .honoured()
        .says("How far a record's timestamp may be ahead of the broker's clock."),
    long("message.timestamp.before.max.ms", "9223372036854775807", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.message.timestamp.before.max.ms")])
        .honoured()
        .says("How far a record's timestamp may be behind the broker's clock."),
    string("message.timestamp.type", "CreateTime", Medium)
        .one_of(&["CreateTime", "LogAppendTime"])
        .synonyms(from![same_unit("log.message.timestamp.type")])
        .honoured()
        .says("Whether a record's timestamp is when the producer made it or when the leader appended it."),
    double("min.cleanable.dirty.ratio", "0.5", Medium)
        .valid(Valid::Fraction(0.0, 1.0))
        .synonyms(from![same_unit("log.cleaner.min.cleanable.ratio")])
        .honoured()
        .says("How much of a log must be uncompacted before it is compacted."),
    long("min.compaction.lag.ms", "0", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.cleaner.min.compaction.lag.ms")])
        .honoured()
        .says("A record stays uncompacted at least so long."),
    int("min.insync.replicas", "1", Medium)
        .at_least(1)
        .synonyms(from![same_unit("min.insync.replicas")])
        .honoured()
        .says("With fewer in-sync replicas, writes with acks=all are refused and the high watermark stays."),
    boolean("preallocate", "false", Medium)
        .synonyms(from![same_unit("log.preallocate")])
        .says("Whether a segment's file has its full size from the start."),
    boolean("remote.log.copy.disable", "false", Medium).says("Stops copying a tiered topic."),
    boolean("remote.log.delete.on.disable", "false", Medium).says("Deletes remote data when tiering is disabled."),
    boolean("remote.storage.enable", "false", Medium).says("Tiered storage, which Vltava does not have."),
    long("retention.bytes", "-1", Medium)
        .synonyms(from![same_unit("log.retention.bytes")])
        .honoured()
        .says("The size above which a partition's oldest segments are deleted; -1 for no bound."),
    long("retention.ms", "604800000", Medium)
        .at_least(-1)
        .synonyms(from![
            same_unit("log.retention.ms"),
            in_minutes("log.retention.minutes"),
            in_hours("log.retention.hours")
        ])
        .honoured()
        .says("The age above which segments are deleted; -1 for no bound."),
    int("segment.bytes", "1073741824", Medium)
        .at_least(1 << 20)
        .synonyms(from![same_unit("log.segment.bytes")])
        .honoured()
        .says("The size of a segment."),
    int("segment.index.bytes", "10485760", Medium)
        .at_least(4)
        .synonyms(from![same_unit("log.index.size.max.bytes")])
        .honoured()
        .says("The size of an index, which bounds its segment too."),
    long("segment.jitter.ms", "0", Medium)
        .at_least(0)
        .synonyms(from![same_unit("log.roll.jitter.ms"), in_hours("log.roll.jitter.hours")])
        .honoured()
        .says("How much earlier, at random, a segment may be rolled, so that not all roll at once."),
    long("segment.ms", "604800000", Medium)
        .at_least(1)
        .synonyms(from![same_unit("log.roll.ms"), in_hours("log.roll.hours")])
        .honoured()
        .says("The age at which a segment is rolled even if it is not full."),
    boolean("unclean.leader.election.enable", "false", Medium)
        .synonyms(from![same_unit("unclean.leader.election.enable")])
        .honoured()
        .says("Whether a replica that may lack committed records can become leader when no other is left."),
    string("vltava.durability", "flush", Low)
        .one_of(&["flush", "page-cache"])
        .synonyms(from![same_unit("vltava.durability")])
        .honoured()
        .says("Whether a replica acknowledges a batch once it is on disk, or once it is in the page cache."),
    int("vltava.target.replication.factor", "-1", Low).at_least(-1).honoured().says(
        "The controller adds replicas until there are so many, as brokers come, and then removes this; -1 for off.",
    ),
];
