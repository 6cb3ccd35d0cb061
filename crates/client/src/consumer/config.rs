//! A consumer's settings: Kafka's names and defaults.

use std::time::Duration;

use super::assignor::Assignor;
use crate::Options;
use crate::settings::{SettingError, Settings};

/// Where to begin where no position is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    Earliest,
    Latest,
    /// Nowhere: it is an error.
    None,
}

/// Whether records of transactions that are not committed (yet) are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
}

/// See Kafka's consumer configs, whose names these are.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub bootstrap_servers: String,
    pub connection: Options,
    pub group_id: Option<String>,
    pub group_instance_id: Option<String>,
    pub auto_offset_reset: OffsetReset,
    pub enable_auto_commit: bool,
    pub auto_commit_interval: Duration,
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub max_poll_interval: Duration,
    pub max_poll_records: usize,
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub fetch_max_wait: Duration,
    pub max_partition_fetch_bytes: i32,
    pub isolation_level: IsolationLevel,
    pub assignors: Vec<Assignor>,
    pub allow_auto_create_topics: bool,
    pub exclude_internal_topics: bool,
    pub metadata_max_age: Duration,
    pub retry_backoff: Duration,
}

impl ConsumerConfig {
    /// The defaults, for the cluster of these servers.
    #[must_use]
    pub fn new(bootstrap_servers: &str) -> Self {
        let mut settings: Settings = [("bootstrap.servers", bootstrap_servers)].into_iter().collect();
        Self::from_settings(&mut settings).expect("the defaults fit together")
    }

    /// Takes out what a consumer knows; the caller decides what becomes of the rest.
    pub fn from_settings(settings: &mut Settings) -> Result<Self, SettingError> {
        let (bootstrap_servers, connection) = settings.connection("vltava-consumer")?;
        let assignors = match settings.take("partition.assignment.strategy") {
            None => vec![Assignor::Range],
            Some(list) => {
                let unknown = |name: &str| {
                    SettingError::Conflict(format!(
                        "partition.assignment.strategy {name} is not supported: range and roundrobin are"
                    ))
                };
                let named = list.split(',').map(str::trim).filter(|name| !name.is_empty());
                named.map(|name| Assignor::named(name).ok_or_else(|| unknown(name))).collect::<Result<_, _>>()?
            }
        };
        if let Some(protocol) = settings.take("group.protocol")
            && !protocol.trim().eq_ignore_ascii_case("classic")
        {
            return Err(SettingError::Conflict(format!("group.protocol={protocol} is not supported yet: classic is")));
        }
        let reset = [("earliest", OffsetReset::Earliest), ("latest", OffsetReset::Latest), ("none", OffsetReset::None)];
        let isolation =
            [("read_uncommitted", IsolationLevel::ReadUncommitted), ("read_committed", IsolationLevel::ReadCommitted)];
        let group_id = settings.take("group.id").filter(|id| !id.is_empty());
        let config = Self {
            bootstrap_servers,
            connection,
            group_instance_id: settings.take("group.instance.id").filter(|id| !id.is_empty()),
            auto_offset_reset: settings.choice("auto.offset.reset", OffsetReset::Latest, &reset)?,
            enable_auto_commit: settings.flag("enable.auto.commit", true)? && group_id.is_some(),
            auto_commit_interval: settings.millis("auto.commit.interval.ms", 5_000)?,
            session_timeout: settings.millis("session.timeout.ms", 45_000)?,
            heartbeat_interval: settings.millis("heartbeat.interval.ms", 3_000)?,
            max_poll_interval: settings.millis("max.poll.interval.ms", 300_000)?,
            max_poll_records: settings.number("max.poll.records", 500, 1)?,
            fetch_min_bytes: settings.number("fetch.min.bytes", 1, 0)?,
            fetch_max_bytes: settings.number("fetch.max.bytes", 50 * 1024 * 1024, 0)?,
            fetch_max_wait: settings.millis("fetch.max.wait.ms", 500)?,
            max_partition_fetch_bytes: settings.number("max.partition.fetch.bytes", 1024 * 1024, 0)?,
            isolation_level: settings.choice("isolation.level", IsolationLevel::ReadUncommitted, &isolation)?,
            assignors,
            allow_auto_create_topics: settings.flag("allow.auto.create.topics", true)?,
            exclude_internal_topics: settings.flag("exclude.internal.topics", true)?,
            metadata_max_age: settings.millis("metadata.max.age.ms", 300_000)?,
            retry_backoff: settings.millis("retry.backoff.ms", 100)?,
            group_id,
        };
        if config.session_timeout <= config.heartbeat_interval {
            return Err(SettingError::Conflict(
                "heartbeat.interval.ms must be smaller than session.timeout.ms".to_owned(),
            ));
        }
        Ok(config)
    }
}
