//! The configs of a broker.
//!
//! These defaults differ from Kafka's: `listeners`, `log.dir`, `node.id`, `process.roles`,
//! `broker.heartbeat.interval.ms`, `broker.session.timeout.ms` and `controller.quorum.election.timeout.ms`. Settings
//! that Vltava does not act on yet carry no documentation.

use super::define::Importance::{High, Low, Medium};
use super::define::{
    ConfigDef, Valid, boolean, class, double, int, list, long, password, short, string, unset_class, unset_int,
    unset_list, unset_long, unset_string,
};

/// In alphabetical order, ours last.
pub(super) const TABLE: &[ConfigDef] = &[
    int("add.partitions.to.txn.retry.backoff.max.ms", "100", High),
    int("add.partitions.to.txn.retry.backoff.ms", "20", High),
    unset_list("advertised.listeners", High)
        .honoured()
        .says("The listeners as clients are told of them; listeners where it is not set."),
    boolean("allow.everyone.if.no.acl.found", "false", Low),
    unset_class("alter.config.policy.class.name", Low),
    int("alter.log.dirs.replication.quota.window.num", "11", Low),
    int("alter.log.dirs.replication.quota.window.size.seconds", "1", Low),
    string("authorizer.class.name", "", Low),
    boolean("auto.create.topics.enable", "true", High)
        .honoured()
        .says("Whether asking for an unknown topic creates it."),
    boolean("auto.leader.rebalance.enable", "true", High)
        .honoured()
        .says("Whether leadership returns to preferred replicas by itself."),
    int("background.threads", "10", High).at_least(1).cluster_wide(),
    int("broker.heartbeat.interval.ms", "500", Medium)
        .honoured()
        .says("How often a broker tells the controller that it lives."),
    int("broker.id", "-1", High).honoured().says("The older name of node.id."),
    boolean("broker.id.generation.enable", "true", Medium),
    unset_string("broker.rack", Medium)
        .honoured()
        .says("Where the broker stands; replicas of a partition are spread over racks."),
    int("broker.session.timeout.ms", "2000", Medium).honoured().says("A broker silent for so long is fenced."),
    unset_class("client.quota.callback.class", Low),
    unset_string("cluster.id", High).honoured().says("The identity that a fresh cluster takes."),
    int("compression.gzip.level", "-1", Medium).valid(Valid::BetweenOr(1, 9, -1)).cluster_wide().honoured(),
    int("compression.lz4.level", "9", Medium).between(1, 17).cluster_wide(),
    string("compression.type", "producer", High)
        .one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
        .cluster_wide()
        .honoured()
        .says("The codec of topics that do not set one."),
    int("compression.zstd.level", "3", Medium).between(-131_072, 22).cluster_wide().honoured(),
    list("config.providers", "", Low),
    int("connection.failed.authentication.delay.ms", "100", Low),
    long("connections.max.idle.ms", "600000", Medium).honoured().says("An idle connection is closed after so long."),
    long("connections.max.reauth.ms", "0", Medium),
    boolean("controlled.shutdown.enable", "true", Medium)
        .honoured()
        .says("Whether leadership moves away before the broker stops."),
    unset_list("controller.listener.names", High).honoured().says("The listeners for other nodes of the cluster."),
    long("controller.performance.always.log.threshold.ms", "2000", Medium).internal(),
    long("controller.performance.sample.period.ms", "60000", Medium).internal(),
    int("controller.quorum.append.linger.ms", "25", Medium),
    boolean("controller.quorum.auto.join.enable", "false", Low),
    list("controller.quorum.bootstrap.servers", "", High).honoured().says("Where the quorum can be found."),
    int("controller.quorum.election.backoff.max.ms", "1000", High),
    int("controller.quorum.election.timeout.ms", "500", High)
        .honoured()
        .says("Without a leader for so long, a voter stands for election."),
    int("controller.quorum.fetch.max.bytes", "1048576", Low),
    int("controller.quorum.fetch.snapshot.max.bytes", "1048576", Low),
    int("controller.quorum.fetch.timeout.ms", "2000", High),
    int("controller.quorum.request.timeout.ms", "2000", Medium),
    int("controller.quorum.retry.backoff.ms", "20", Low),
    list("controller.quorum.voters", "", High).honoured().says("The voters of the metadata quorum, as id@host:port."),
    int("controller.quota.window.num", "11", Low),
    int("controller.quota.window.size.seconds", "1", Low),
    int("controller.socket.timeout.ms", "30000", Medium),
    list("cordoned.log.dirs", "", Medium).per_broker(),
    unset_class("create.topic.policy.class.name", Low),
    int("default.replication.factor", "1", Medium)
        .honoured()
        .says("Replicas of a topic created without saying how many."),
    long("delegation.token.expiry.check.interval.ms", "3600000", Low),
    long("delegation.token.expiry.time.ms", "86400000", Medium),
    long("delegation.token.max.lifetime.ms", "604800000", Medium),
    password("delegation.token.secret.key", Medium),
    int("delete.records.purgatory.purge.interval.requests", "1", Medium),
    boolean("delete.topic.enable", "true", High).honoured().says("Whether topics can be deleted."),
    unset_list("early.start.listeners", High),
    int("fetch.max.bytes", "57671680", Medium).at_least(1024).honoured().says("The most that one fetch returns."),
    int("fetch.purgatory.purge.interval.requests", "1000", Medium),
    boolean("follower.fetch.last.tiered.offset.enable", "false", Medium),
    long("follower.replication.throttled.rate", "9223372036854775807", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("What each leader sends at most, in bytes per second, to this broker's throttled replicas until they are in sync."),
    int("group.consumer.assignment.interval.ms", "1000", Medium),
    list("group.consumer.assignors", "uniform,range", Medium),
    int("group.consumer.heartbeat.interval.ms", "5000", Medium),
    int("group.consumer.max.assignment.interval.ms", "15000", Medium),
    int("group.consumer.max.heartbeat.interval.ms", "15000", Medium),
    int("group.consumer.max.session.timeout.ms", "60000", Medium),
    int("group.consumer.max.size", "2147483647", Medium),
    string("group.consumer.migration.policy", "bidirectional", Medium),
    int("group.consumer.min.assignment.interval.ms", "0", Medium),
    int("group.consumer.min.heartbeat.interval.ms", "5000", Medium),
    int("group.consumer.min.session.timeout.ms", "45000", Medium),
    int("group.consumer.regex.refresh.interval.ms", "600000", Medium).internal(),
    int("group.consumer.session.timeout.ms", "45000", Medium),
    int("group.coordinator.append.linger.ms", "-1", Medium),
    int("group.coordinator.background.threads", "2", High),
    int("group.coordinator.cached.buffer.max.bytes", "1048588", Medium),
    list("group.coordinator.rebalance.protocols", "Classic,Consumer,Streams", Medium),
    int("group.coordinator.threads", "4", High),
    int("group.initial.rebalance.delay.ms", "3000", Medium)
        .honoured()
        .says("How long a new group waits for more members."),
    int("group.max.session.timeout.ms", "1800000", Medium).honoured().says("The longest session a member may ask for."),
    int("group.max.size", "2147483647", Medium).at_least(1).honoured().says("The most members of a group."),
    int("group.min.session.timeout.ms", "6000", Medium).honoured().says("The shortest session a member may ask for."),
    int("group.share.assignment.interval.ms", "1000", Medium),
    list("group.share.assignors", "simple", Medium),
    int("group.share.delivery.count.limit", "5", Medium),
    int("group.share.heartbeat.interval.ms", "5000", Medium),
    int("group.share.initialize.retry.interval.ms", "30000", Low).internal(),
    int("group.share.max.assignment.interval.ms", "15000", Medium),
    int("group.share.max.delivery.count.limit", "10", Medium),
    int("group.share.max.heartbeat.interval.ms", "15000", Medium),
    int("group.share.max.partition.max.record.locks", "4000", Medium),
    int("group.share.max.record.lock.duration.ms", "60000", Medium),
    int("group.share.max.session.timeout.ms", "60000", Medium),
    int("group.share.max.share.sessions", "2000", Medium),
    int("group.share.max.size", "200", Medium),
    int("group.share.min.assignment.interval.ms", "0", Medium),
    int("group.share.min.delivery.count.limit", "2", Medium),
    int("group.share.min.heartbeat.interval.ms", "5000", Medium),
    int("group.share.min.partition.max.record.locks", "100", Medium),
    int("group.share.min.record.lock.duration.ms", "15000", Medium),
    int("group.share.min.session.timeout.ms", "45000", Medium),
    int("group.share.partition.max.record.locks", "2000", Medium),
    string("group.share.persister.class.name", "org.apache.kafka.server.share.persister.DefaultStatePersister", Medium)
        .internal(),
    int("group.share.record.lock.duration.ms", "30000", Medium),
    int("group.share.session.timeout.ms", "45000", Medium),
    int("group.streams.assignment.interval.ms", "1000", Medium),
    int("group.streams.heartbeat.interval.ms", "5000", Medium),
    int("group.streams.initial.rebalance.delay.ms", "3000", Medium),
    int("group.streams.max.assignment.interval.ms", "15000", Medium),
    int("group.streams.max.heartbeat.interval.ms", "15000", Medium),
    int("group.streams.max.session.timeout.ms", "60000", Medium),
    int("group.streams.max.size", "2147483647", Medium),
    int("group.streams.max.standby.replicas", "2", Medium),
    int("group.streams.min.assignment.interval.ms", "0", Medium),
    int("group.streams.min.heartbeat.interval.ms", "5000", Medium),
    int("group.streams.min.session.timeout.ms", "45000", Medium),
    int("group.streams.num.standby.replicas", "0", Medium),
    int("group.streams.session.timeout.ms", "45000", Medium),
    int("initial.broker.registration.timeout.ms", "60000", Medium),
    unset_string("inter.broker.listener.name", Medium)
        .honoured()
        .says("The listener that brokers use among themselves."),
    long("internal.metadata.delete.delay.millis", "60000", Low).internal(),
    unset_int("internal.metadata.log.segment.bytes", Low).internal(),
    int("internal.metadata.max.batch.size.in.bytes", "8388608", Low).internal(),
    int("kafka.metrics.polling.interval.secs", "10", Low),
    list("kafka.metrics.reporters", "", Low),
    long("leader.imbalance.check.interval.seconds", "300", High)
        .honoured()
        .says("How often the controller looks for leaders that are not preferred."),
    int("leader.imbalance.per.broker.percentage", "10", High)
        .honoured()
        .says("How many leaders of a broker may not be preferred before they are moved."),
    long("leader.replication.throttled.rate", "9223372036854775807", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("What this broker sends at most, in bytes per second, to replicas that are not in sync, where it leads throttled ones."),
    string(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        Low,
    )
    .per_broker()
    .honoured()
    .says("The protocol of each listener name."),
    list("listeners", "PLAINTEXT://localhost:9092", High)
        .valid(Valid::NotEmpty)
        .per_broker()
        .honoured()
        .says("Where the broker listens, as name://host:port."),
    long("log.cleaner.backoff.ms", "15000", Medium)
        .cluster_wide()
        .honoured()
        .says("How long the cleaner pauses when no log is due."),
    long("log.cleaner.dedupe.buffer.size", "134217728", Medium)
        .cluster_wide()
        .honoured()
        .says("Memory for the keys of the logs being compacted, shared by the cleaner threads."),
    long("log.cleaner.delete.retention.ms", "86400000", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("How long tombstones stay in a compacted topic."),
    boolean("log.cleaner.enable", "true", Medium).honoured().says("Whether logs are compacted at all."),
    double("log.cleaner.io.buffer.load.factor", "0.9", Medium)
        .cluster_wide()
        .honoured()
        .says("How full the dedupe buffer becomes, from 0 to 1."),
    int("log.cleaner.io.buffer.size", "524288", Medium)
        .cluster_wide()
        .honoured()
        .says("How much the cleaner reads at once."),
    double("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308", Medium)
        .cluster_wide()
        .honoured()
        .says("The most that all cleaner threads read and write in a second."),
    long("log.cleaner.max.compaction.lag.ms", "9223372036854775807", Medium)
        .at_least(1)
        .cluster_wide()
        .honoured()
        .says("A record is compacted at the latest after so long."),
    double("log.cleaner.min.cleanable.ratio", "0.5", Medium)
        .valid(Valid::Fraction(0.0, 1.0))
        .cluster_wide()
        .honoured()
        .says("How much of a log must be uncompacted before it is compacted."),
    long("log.cleaner.min.compaction.lag.ms", "0", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("A record stays uncompacted at least so long."),
    int("log.cleaner.threads", "1", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("How many logs are compacted at the same time."),
    list("log.cleanup.policy", "delete", Medium)
        .list_of(&["compact", "delete"])
        .cluster_wide()
        .honoured()
        .says("What happens to old segments: delete, compact or both."),
    list("log.dir", "./vltava-data", High).honoured().says("The log directory; log.dirs counts first."),
    long("log.dir.failure.timeout.ms", "30000", Low),
    unset_list("log.dirs", High).honoured().says("The directories that hold the logs."),
    long("log.flush.interval.messages", "9223372036854775807", High)
        .at_least(1)
        .cluster_wide()
        .honoured()
        .says("A log is flushed to disk after so many records."),
    unset_long("log.flush.interval.ms", High).cluster_wide().honoured().says("A log is flushed to disk after so long."),
    int("log.flush.offset.checkpoint.interval.ms", "60000", High).honoured()
        .says("How often recovery points are written, from which recovery after a crash begins."),
    long("log.flush.scheduler.interval.ms", "9223372036854775807", High).cluster_wide().honoured(),
    int("log.flush.start.offset.checkpoint.interval.ms", "60000", High).honoured()
        .says("How often the first offsets of logs are written down."),
    int("log.index.interval.bytes", "4096", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("An index entry is added after so many bytes of the log."),
    int("log.index.size.max.bytes", "10485760", Medium)
        .at_least(4)
        .cluster_wide()
        .honoured()
        .says("The size of an index, which bounds its segment too."),
    long("log.initial.task.delay.ms", "30000", Low).internal(),
    long("log.local.retention.bytes", "-2", Medium).at_least(-2).cluster_wide(),
    long("log.local.retention.ms", "-2", Medium).at_least(-2).cluster_wide(),
    long("log.message.timestamp.after.max.ms", "3600000", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("How far a record's timestamp may be ahead of the broker's clock."),
    long("log.message.timestamp.before.max.ms", "9223372036854775807", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("How far a record's timestamp may be behind the broker's clock."),
    string("log.message.timestamp.type", "CreateTime", Medium)
        .one_of(&["CreateTime", "LogAppendTime"])
        .cluster_wide()
        .honoured()
        .says("CreateTime or LogAppendTime."),
    boolean("log.preallocate", "false", Medium).cluster_wide(),
    long("log.retention.bytes", "-1", High)
        .cluster_wide()
        .honoured()
        .says("The size above which a partition's oldest segments are deleted; -1 for no bound."),
    long("log.retention.check.interval.ms", "300000", Medium)
        .at_least(1)
        .honoured()
        .says("How often old segments are looked for."),
    int("log.retention.hours", "168", High)
        .cluster_wide()
        .honoured()
        .says("The age above which segments are deleted, after log.retention.minutes."),
    unset_int("log.retention.minutes", High)
        .cluster_wide()
        .honoured()
        .says("The age above which segments are deleted, after log.retention.ms."),
    unset_long("log.retention.ms", High)
        .cluster_wide()
        .honoured()
        .says("The age above which segments are deleted; -1 for no bound."),
    int("log.roll.hours", "168", High)
        .at_least(1)
        .cluster_wide()
        .honoured()
        .says("The age at which a segment is rolled, after log.roll.ms."),
    int("log.roll.jitter.hours", "0", High).at_least(0).cluster_wide().honoured(),
    unset_long("log.roll.jitter.ms", High).at_least(0).cluster_wide().honoured(),
    unset_long("log.roll.ms", High).at_least(1).cluster_wide().honoured().says("The age at which a segment is rolled."),
    int("log.segment.bytes", "1073741824", High)
        .at_least(1 << 20)
        .cluster_wide()
        .honoured()
        .says("The size of a segment."),
    long("log.segment.delete.delay.ms", "60000", High)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("How long the files of a deleted segment stay."),
    int("max.connection.creation.rate", "2147483647", Medium).cluster_wide(),
    int("max.connections", "2147483647", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("The most connections of a broker."),
    int("max.connections.per.ip", "2147483647", Medium)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("The most connections from one address."),
    string("max.connections.per.ip.overrides", "", Medium).cluster_wide(),
    int("max.incremental.fetch.session.cache.slots", "1000", Medium).at_least(0).honoured()
        .says("The most incremental fetch sessions (KIP-227) that the broker keeps."),
    int("max.request.partition.size.limit", "2000", Medium),
    int("message.max.bytes", "1048588", High)
        .at_least(0)
        .cluster_wide()
        .honoured()
        .says("The largest record batch, as compressed."),
    unset_string("metadata.log.dir", High)
        .honoured()
        .says("Where the metadata log lies; the first log directory by default."),
    long("metadata.log.max.record.bytes.between.snapshots", "20971520", High),
    long("metadata.log.max.snapshot.interval.ms", "3600000", High),
    int("metadata.log.segment.bytes", "1073741824", High),
    long("metadata.log.segment.ms", "604800000", High),
    int("metadata.max.idle.interval.ms", "500", Low),
    long("metadata.max.retention.bytes", "104857600", High),
    long("metadata.max.retention.ms", "604800000", High),
    list("metric.reporters", "org.apache.kafka.common.metrics.JmxReporter", Low).cluster_wide(),
    int("metrics.num.samples", "2", Low),
    string("metrics.recording.level", "info", Low),
    long("metrics.sample.window.ms", "30000", Low),
    int("min.insync.replicas", "1", High)
        .at_least(1)
        .cluster_wide()
        .honoured()
        .says("With fewer in-sync replicas, writes with acks=all are refused."),
    int("node.id", "1", High)
        .at_least(0)
        .honoured()
        .says("The number of this node, which no other node of the cluster has."),
    int("num.io.threads", "8", High).at_least(1).cluster_wide(),
    int("num.network.threads", "3", High).at_least(1).cluster_wide(),
    int("num.partitions", "1", Medium)
        .at_least(1)
        .honoured()
        .says("Partitions of a topic created without saying how many."),
    int("num.recovery.threads.per.data.dir", "2", High)
        .at_least(1)
        .cluster_wide()
        .honoured()
        .says("How many logs of a directory are recovered at once."),
    unset_int("num.replica.alter.log.dirs.threads", High),
    int("num.replica.fetchers", "1", High).at_least(1).cluster_wide(),
    int("offset.metadata.max.bytes", "4096", High)
        .at_least(0)
        .honoured()
        .says("The most metadata of one committed offset."),
    int("offsets.commit.timeout.ms", "5000", High).at_least(1).honoured()
        .says("How long a write to the offsets topic may wait for its replicas."),
    int("offsets.load.buffer.size", "5242880", High).at_least(1).honoured()
        .says("How much a group coordinator reads at a time while it loads a partition of the offsets topic."),
    long("offsets.retention.check.interval.ms", "600000", High).at_least(1).honoured()
        .says("How often expired offsets are looked for."),
    int("offsets.retention.minutes", "10080", High)
        .at_least(1)
        .honoured()
        .says("How long the offsets of an empty group stay."),
    int("offsets.topic.compression.codec", "0", High),
    int("offsets.topic.num.partitions", "50", High).at_least(1).honoured().says("Partitions of __consumer_offsets."),
    short("offsets.topic.replication.factor", "3", High)
        .at_least(1)
        .honoured()
        .says("Replicas of __consumer_offsets, at most the live brokers."),
    int("offsets.topic.segment.bytes", "104857600", High)
        // Kafka takes less here, and then refuses to create the topic, again and again.
        .at_least(1 << 20)
        .honoured()
        .says("The segment size of __consumer_offsets."),
    class(
        "principal.builder.class",
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        Medium,
    )
    .per_broker(),
    list("process.roles", "broker,controller", High)
        .list_of(&["broker", "controller"])
        .honoured()
        .says("broker, controller or both."),
    int("producer.id.expiration.check.interval.ms", "600000", Low).at_least(1).internal(),
    int("producer.id.expiration.ms", "86400000", Low)
        .at_least(1)
        .cluster_wide()
        .honoured()
        .says("How long a partition remembers an idle producer."),
    int("producer.purgatory.purge.interval.requests", "1000", Medium),
    long("queued.max.request.bytes", "-1", Medium),
    int("queued.max.requests", "500", High).at_least(1),
    int("quota.window.num", "11", Low),
    int("quota.window.size.seconds", "1", Low),
    int("remote.fetch.max.wait.ms", "500", Medium).cluster_wide(),
    long("remote.list.offsets.request.timeout.ms", "30000", Medium).cluster_wide(),
    long("remote.log.index.file.cache.total.size.bytes", "1073741824", Low).cluster_wide(),
    long("remote.log.index.file.cache.ttl.ms", "900000", Low).internal(),
    int("remote.log.manager.copier.thread.pool.size", "10", Medium).cluster_wide(),
    long("remote.log.manager.copy.max.bytes.per.second", "9223372036854775807", Medium).cluster_wide(),
    int("remote.log.manager.copy.quota.window.num", "11", Medium),
    int("remote.log.manager.copy.quota.window.size.seconds", "1", Medium),
    int("remote.log.manager.expiration.thread.pool.size", "10", Medium).cluster_wide(),
    long("remote.log.manager.fetch.max.bytes.per.second", "9223372036854775807", Medium).cluster_wide(),
    int("remote.log.manager.fetch.quota.window.num", "11", Medium),
    int("remote.log.manager.fetch.quota.window.size.seconds", "1", Medium),
    int("remote.log.manager.follower.thread.pool.size", "2", Medium).cluster_wide(),
    long("remote.log.manager.task.interval.ms", "30000", Low),
    long("remote.log.manager.task.retry.backoff.max.ms", "30000", Low).internal(),
    long("remote.log.manager.task.retry.backoff.ms", "500", Low).internal(),
    double("remote.log.manager.task.retry.jitter", "0.2", Low).internal(),
    int("remote.log.manager.thread.pool.size", "2", Medium),
    int("remote.log.metadata.custom.metadata.max.bytes", "128", Low),
    string(
        "remote.log.metadata.manager.class.name",
        "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
        Medium,
    ),
    unset_string("remote.log.metadata.manager.class.path", Medium),
    string("remote.log.metadata.manager.impl.prefix", "rlmm.config.", Medium),
    unset_string("remote.log.metadata.manager.listener.name", Medium),
    int("remote.log.reader.max.pending.tasks", "100", Medium),
    int("remote.log.reader.threads", "10", Medium).cluster_wide(),
    unset_string("remote.log.storage.manager.class.name", Medium),
    unset_string("remote.log.storage.manager.class.path", Medium),
    string("remote.log.storage.manager.impl.prefix", "rsm.config.", Medium),
    boolean("remote.log.storage.system.enable", "false", Medium),
    long("replica.alter.log.dirs.io.max.bytes.per.second", "9223372036854775807", Medium)
        .cluster_wide()
        .honoured()
        .says("How fast replicas that move to other log directories are copied, in bytes per second, all together."),
    int("replica.fetch.backoff.ms", "1000", Medium).at_least(0),
    int("replica.fetch.max.bytes", "1048576", Medium).at_least(0),
    int("replica.fetch.min.bytes", "1", High),
    int("replica.fetch.response.max.bytes", "10485760", Medium).at_least(0).honoured()
        .says("The most bytes under way on one replica stream."),
    int("replica.fetch.wait.max.ms", "500", High),
    long("replica.high.watermark.checkpoint.interval.ms", "5000", High).honoured()
        .says("How often high watermarks are written down."),
    long("replica.lag.time.max.ms", "30000", High)
        .honoured()
        .says("A follower that was not caught up for so long leaves the ISR."),
    unset_string("replica.selector.class", Medium)
        .honoured()
        .says("Which replica consumers read from: Kafka's RackAwareReplicaSelector, or else the leader."),
    int("replica.socket.receive.buffer.bytes", "65536", High),
    int("replica.socket.timeout.ms", "30000", High),
    int("replication.quota.window.num", "11", Low),
    int("replication.quota.window.size.seconds", "1", Low),
    int("request.timeout.ms", "30000", High).honoured().says("How long a request to another node may take."),
    unset_class("sasl.client.callback.handler.class", Medium),
    list("sasl.enabled.mechanisms", "GSSAPI", Medium).per_broker(),
    password("sasl.jaas.config", Medium).per_broker(),
    string("sasl.kerberos.kinit.cmd", "/usr/bin/kinit", Medium).per_broker(),
    long("sasl.kerberos.min.time.before.relogin", "60000", Medium).per_broker(),
    list("sasl.kerberos.principal.to.local.rules", "DEFAULT", Medium).per_broker(),
    unset_string("sasl.kerberos.service.name", Medium).per_broker(),
    double("sasl.kerberos.ticket.renew.jitter", "0.05", Medium).per_broker(),
    double("sasl.kerberos.ticket.renew.window.factor", "0.80", Medium).per_broker(),
    unset_class("sasl.login.callback.handler.class", Medium),
    unset_class("sasl.login.class", Medium),
    unset_int("sasl.login.connect.timeout.ms", Low),
    unset_int("sasl.login.read.timeout.ms", Low),
    short("sasl.login.refresh.buffer.seconds", "300", Medium).per_broker(),
    short("sasl.login.refresh.min.period.seconds", "60", Medium).per_broker(),
    double("sasl.login.refresh.window.factor", "0.80", Medium).per_broker(),
    double("sasl.login.refresh.window.jitter", "0.05", Medium).per_broker(),
    long("sasl.login.retry.backoff.max.ms", "10000", Low),
    long("sasl.login.retry.backoff.ms", "100", Low),
    string("sasl.mechanism.controller.protocol", "GSSAPI", High),
    string("sasl.mechanism.inter.broker.protocol", "GSSAPI", Medium).per_broker(),
    string("sasl.oauthbearer.assertion.algorithm", "RS256", Medium),
    unset_string("sasl.oauthbearer.assertion.claim.aud", Medium),
    int("sasl.oauthbearer.assertion.claim.exp.seconds", "300", Low),
    unset_string("sasl.oauthbearer.assertion.claim.iss", Medium),
    boolean("sasl.oauthbearer.assertion.claim.jti.include", "false", Medium),
    int("sasl.oauthbearer.assertion.claim.nbf.seconds", "60", Low),
    unset_string("sasl.oauthbearer.assertion.claim.sub", Medium),
    unset_string("sasl.oauthbearer.assertion.file", Medium),
    unset_string("sasl.oauthbearer.assertion.private.key.file", Medium),
    password("sasl.oauthbearer.assertion.private.key.passphrase", Medium),
    unset_string("sasl.oauthbearer.assertion.template.file", Medium),
    unset_string("sasl.oauthbearer.client.credentials.client.id", Medium),
    password("sasl.oauthbearer.client.credentials.client.secret", Medium),
    int("sasl.oauthbearer.clock.skew.seconds", "30", Low),
    list("sasl.oauthbearer.expected.audience", "", High),
    unset_string("sasl.oauthbearer.expected.issuer", High),
    long("sasl.oauthbearer.jwks.endpoint.refresh.ms", "3600000", Low),
    long("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", "10000", Low),
    long("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", "100", Low),
    unset_string("sasl.oauthbearer.jwks.endpoint.url", Medium),
    class(
        "sasl.oauthbearer.jwt.retriever.class",
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
        Medium,
    ),
    class(
        "sasl.oauthbearer.jwt.validator.class",
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
        Medium,
    ),
    unset_string("sasl.oauthbearer.scope", Medium),
    string("sasl.oauthbearer.scope.claim.name", "scope", Low),
    string("sasl.oauthbearer.sub.claim.name", "sub", Low),
    unset_string("sasl.oauthbearer.token.endpoint.url", Medium),
    unset_class("sasl.server.callback.handler.class", Medium),
    int("sasl.server.max.receive.size", "524288", Medium),
    string("security.inter.broker.protocol", "PLAINTEXT", Medium)
        .one_of(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
        .honoured()
        .says("The protocol of the listener that brokers use among themselves, where inter.broker.listener.name is not set."),
    unset_string("security.providers", Low),
    long("server.max.startup.time.ms", "9223372036854775807", Medium).internal(),
    int("share.coordinator.append.linger.ms", "-1", Medium),
    int("share.coordinator.cached.buffer.max.bytes", "1048588", Medium),
    int("share.coordinator.cold.partition.snapshot.interval.ms", "300000", Low).internal(),
    int("share.coordinator.load.buffer.size", "5242880", High),
    int("share.coordinator.snapshot.update.records.per.snapshot", "500", Medium),
    int("share.coordinator.state.topic.compression.codec", "0", High),
    short("share.coordinator.state.topic.min.isr", "2", High),
    int("share.coordinator.state.topic.num.partitions", "50", High),
    int("share.coordinator.state.topic.prune.interval.ms", "300000", Low).internal(),
    short("share.coordinator.state.topic.replication.factor", "3", High),
    int("share.coordinator.state.topic.segment.bytes", "104857600", High),
    int("share.coordinator.threads", "1", Medium),
    int("share.coordinator.write.timeout.ms", "5000", High),
    int("share.fetch.purgatory.purge.interval.requests", "1000", Medium),
    long("socket.connection.setup.timeout.max.ms", "30000", Medium),
    long("socket.connection.setup.timeout.ms", "10000", Medium),
    int("socket.listen.backlog.size", "50", Medium),
    int("socket.receive.buffer.bytes", "102400", High),
    int("socket.request.max.bytes", "104857600", High).at_least(1).honoured().says("The largest request."),
    int("socket.send.buffer.bytes", "102400", High),
    boolean("ssl.allow.dn.changes", "false", Low),
    boolean("ssl.allow.san.changes", "false", Low),
    list("ssl.cipher.suites", "", Medium).per_broker(),
    string("ssl.client.auth", "none", Medium).one_of(&["required", "requested", "none"]).per_broker(),
    list("ssl.enabled.protocols", "TLSv1.2,TLSv1.3", Medium).per_broker(),
    string("ssl.endpoint.identification.algorithm", "https", Low).per_broker(),
    unset_class("ssl.engine.factory.class", Low).per_broker(),
    password("ssl.key.password", Medium).per_broker(),
    unset_string("ssl.keymanager.algorithm", Medium).per_broker(),
    password("ssl.keystore.certificate.chain", Medium).per_broker(),
    password("ssl.keystore.key", Medium).per_broker(),
    unset_string("ssl.keystore.location", Medium).per_broker(),
    password("ssl.keystore.password", Medium).per_broker(),
    string("ssl.keystore.type", "JKS", Medium).per_broker(),
    string("ssl.principal.mapping.rules", "DEFAULT", Low).per_broker(),
    string("ssl.protocol", "TLSv1.3", Medium).per_broker(),
    unset_string("ssl.provider", Medium).per_broker(),
    unset_string("ssl.secure.random.implementation", Low).per_broker(),
    unset_string("ssl.trustmanager.algorithm", Medium).per_broker(),
    password("ssl.truststore.certificates", Medium).per_broker(),
    unset_string("ssl.truststore.location", Medium).per_broker(),
    password("ssl.truststore.password", Medium).per_broker(),
    string("ssl.truststore.type", "JKS", Medium).per_broker(),
    unset_string("super.users", Low),
    int("telemetry.max.bytes", "1048576", Low),
    int("transaction.abort.timed.out.transaction.cleanup.interval.ms", "10000", Low),
    int("transaction.max.timeout.ms", "900000", High),
    boolean("transaction.partition.verification.enable", "true", Low).cluster_wide(),
    int("transaction.remove.expired.transaction.cleanup.interval.ms", "3600000", Low),
    int("transaction.state.log.load.buffer.size", "5242880", High),
    int("transaction.state.log.min.isr", "2", High).at_least(1),
    int("transaction.state.log.num.partitions", "50", High).at_least(1),
    short("transaction.state.log.replication.factor", "3", High).at_least(1),
    int("transaction.state.log.segment.bytes", "104857600", High),
    boolean("transaction.two.phase.commit.enable", "false", Low),
    int("transactional.id.expiration.ms", "604800000", High),
    boolean("unclean.leader.election.enable", "false", High)
        .cluster_wide()
        .honoured()
        .says("Whether a replica that may lack committed records can become leader."),
    long("unclean.leader.election.interval.ms", "300000", Medium).internal(),
    boolean("unstable.api.versions.enable", "false", High).internal(),
    boolean("unstable.feature.versions.enable", "false", High).internal(),
    int("vltava.connection.max.requests.in.flight", "64", Medium)
        .at_least(1)
        .honoured()
        .says("The most requests in work on one connection before it is read no further."),
    long("vltava.controlled.shutdown.timeout.ms", "10000", Medium)
        .at_least(0)
        .honoured()
        .says("How long leadership may take to move away before the process ends anyway."),
    long("vltava.disk.reserve.bytes", "67108864", Medium)
        .at_least(0)
        .honoured()
        .says("Produce requests are refused while a log directory has less free space."),
    string("vltava.durability", "flush", High)
        .one_of(&["flush", "page-cache"])
        .cluster_wide()
        .honoured()
        .says("Whether a replica acknowledges a batch once it is on disk, or once it is in the page cache."),
    string("vltava.http.listener", "localhost:9644", Medium)
        .honoured()
        .says("Where /livez, /readyz and /metrics are served, as host:port. Empty for nowhere."),
    long("vltava.metadata.reserve.bytes", "16777216", Medium)
        .at_least(0)
        .honoured()
        .says("Room that is kept on the metadata log's disk, so that metadata goes on when the disk is full."),
    long("vltava.scrub.bytes.per.second", "4194304", Low)
        .at_least(1)
        .honoured()
        .says("How fast closed segments are read again to find damage."),
    long("vltava.scrub.interval.ms", "604800000", Low)
        .at_least(0)
        .honoured()
        .says("How often closed segments are read again to find damage. 0 is never."),
];
