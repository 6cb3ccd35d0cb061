//! A producer's settings: Kafka's names and defaults.

use std::time::Duration;

use vltava_protocol::compression::Compression;

use crate::Options;
use crate::settings::{SettingError, Settings};

/// See Kafka's producer configs, whose names these are.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub bootstrap_servers: String,
    pub connection: Options,
    /// 0, 1, or -1 for all.
    pub acks: i16,
    pub enable_idempotence: bool,
    pub compression_type: Compression,
    pub compression_level: Option<i32>,
    pub batch_size: usize,
    pub linger: Duration,
    pub buffer_memory: usize,
    pub max_block: Duration,
    pub max_request_size: usize,
    pub max_in_flight: usize,
    pub delivery_timeout: Duration,
    pub retries: u32,
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    pub metadata_max_age: Duration,
    pub partitioner_ignore_keys: bool,
}

/// What `max.in.flight.requests.per.connection` may be for an idempotent producer: brokers remember so many batches.
pub(super) const MAX_IN_FLIGHT_IDEMPOTENT: usize = 5;

impl ProducerConfig {
    /// The defaults, for the cluster of these servers.
    #[must_use]
    pub fn new(bootstrap_servers: &str) -> Self {
        let mut settings: Settings = [("bootstrap.servers", bootstrap_servers)].into_iter().collect();
        Self::from_settings(&mut settings).expect("the defaults fit together")
    }

    /// Takes out what a producer knows; the caller decides what becomes of the rest.
    pub fn from_settings(settings: &mut Settings) -> Result<Self, SettingError> {
        let (bootstrap_servers, mut connection) = settings.connection("vltava-producer")?;
        let acks = settings.choice("acks", -1, &[("all", -1), ("-1", -1), ("0", 0), ("1", 1)])?;
        let explicit_idempotence = settings.get("enable.idempotence").is_some();
        let mut enable_idempotence = settings.flag("enable.idempotence", true)?;
        let retries = settings.number("retries", i32::MAX.cast_unsigned(), 0)?;
        let max_in_flight = settings.number("max.in.flight.requests.per.connection", 5, 1)?;
        // As Kafka does: what was asked for outright must fit together, and a default gives way.
        let obstacle = if acks != -1 {
            Some(
                "Must set acks to all in order to use the idempotent producer. Otherwise we cannot guarantee idempotence.",
            )
        } else if retries == 0 {
            Some("Must set retries to non-zero when using the idempotent producer.")
        } else if max_in_flight > MAX_IN_FLIGHT_IDEMPOTENT {
            Some("Must set max.in.flight.requests.per.connection to at most 5 to use the idempotent producer.")
        } else {
            None
        };
        if let Some(obstacle) = obstacle.filter(|_| enable_idempotence) {
            if explicit_idempotence {
                return Err(SettingError::Conflict(obstacle.to_owned()));
            }
            enable_idempotence = false;
        }
        let linger = settings.millis("linger.ms", 5)?;
        let explicit_delivery_timeout = settings.get("delivery.timeout.ms").is_some();
        let mut delivery_timeout = settings.millis("delivery.timeout.ms", 120_000)?;
        if delivery_timeout < linger + connection.timeout {
            if explicit_delivery_timeout {
                let problem = "delivery.timeout.ms should be equal to or larger than linger.ms + request.timeout.ms";
                return Err(SettingError::Conflict(problem.to_owned()));
            }
            delivery_timeout = linger + connection.timeout;
        }
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let compression_type =
            settings.choice("compression.type", Compression::None, &codecs.map(|codec| (codec.name(), codec)))?;
        let compression_level = match compression_type {
            Compression::Gzip => Some(settings.number("compression.gzip.level", -1, -1)?),
            Compression::Zstd => Some(settings.number("compression.zstd.level", 3, -131_072)?),
            Compression::None | Compression::Snappy | Compression::Lz4 => None,
        };
        let max_request_size = settings.number("max.request.size", 1024 * 1024, 0)?;
        connection.max_frame_bytes = connection.max_frame_bytes.max(max_request_size + 1024 * 1024);
        Ok(Self {
            bootstrap_servers,
            connection,
            acks,
            enable_idempotence,
            compression_type,
            compression_level,
            batch_size: settings.number("batch.size", 16 * 1024, 0)?,
            linger,
            buffer_memory: settings.number("buffer.memory", 32 * 1024 * 1024, 0)?,
            max_block: settings.millis("max.block.ms", 60_000)?,
            max_request_size,
            max_in_flight,
            delivery_timeout,
            retries,
            retry_backoff: settings.millis("retry.backoff.ms", 100)?,
            retry_backoff_max: settings.millis("retry.backoff.max.ms", 1_000)?,
            metadata_max_age: settings.millis("metadata.max.age.ms", 300_000)?,
            partitioner_ignore_keys: settings.flag("partitioner.ignore.keys", false)?,
        })
    }

    /// How many batches of one partition may be without an answer. One where order could not be kept otherwise: a
    /// batch that is sent again would come after its successors.
    pub(super) fn batches_in_flight_per_partition(&self) -> usize {
        if self.enable_idempotence || self.retries == 0 { self.max_in_flight } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<ProducerConfig, String> {
        let mut settings: Settings = pairs.iter().copied().collect();
        settings.set("bootstrap.servers", "localhost:9092");
        ProducerConfig::from_settings(&mut settings).map_err(|error| error.to_string())
    }

    #[test]
    fn idempotence_is_the_default_and_gives_way_to_weaker_settings() {
        assert!(config(&[]).expect("defaults").enable_idempotence);
        assert!(!config(&[("acks", "1")]).expect("valid").enable_idempotence);
        assert!(config(&[("acks", "1"), ("enable.idempotence", "true")]).is_err());
        assert!(config(&[("delivery.timeout.ms", "10")]).is_err());
    }

    #[test]
    fn order_is_kept_with_one_batch_in_flight_where_nothing_else_keeps_it() {
        assert_eq!(config(&[]).expect("defaults").batches_in_flight_per_partition(), 5);
        assert_eq!(config(&[("acks", "1")]).expect("valid").batches_in_flight_per_partition(), 1);
    }
}
