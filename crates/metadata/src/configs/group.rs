//! The configs of a group, which only the newer group protocols read. Vltava keeps them for those.

use super::define::Importance::Medium;
use super::define::{ConfigDef, boolean, int, string};

/// In order of protocol.
pub(super) const TABLE: &[ConfigDef] = &[
    int("consumer.session.timeout.ms", "45000", Medium).at_least(1),
    int("consumer.heartbeat.interval.ms", "5000", Medium).at_least(1),
    int("consumer.assignment.interval.ms", "1000", Medium).at_least(1),
    int("share.session.timeout.ms", "45000", Medium).at_least(1),
    int("share.heartbeat.interval.ms", "5000", Medium).at_least(1),
    int("share.record.lock.duration.ms", "30000", Medium).at_least(1),
    int("share.delivery.count.limit", "5", Medium).at_least(1),
    int("share.partition.max.record.locks", "2000", Medium).at_least(1),
    string("share.auto.offset.reset", "latest", Medium),
    string("share.isolation.level", "read_uncommitted", Medium),
    boolean("share.renew.acknowledge.enable", "true", Medium),
    int("share.assignment.interval.ms", "1000", Medium).at_least(1),
    int("streams.session.timeout.ms", "45000", Medium).at_least(1),
    int("streams.heartbeat.interval.ms", "5000", Medium).at_least(1),
    int("streams.num.standby.replicas", "0", Medium).at_least(0),
    int("streams.initial.rebalance.delay.ms", "3000", Medium).at_least(0),
    int("streams.assignment.interval.ms", "1000", Medium).at_least(1),
];
