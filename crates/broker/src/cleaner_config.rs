//! The settings of the log cleaner, as they are at the moment: all but one may change while the broker runs.

use std::time::Duration;

use vltava_metadata::configs::{ConfigValue, Configs, broker_config};
use vltava_storage::{CleanerOptions, OffsetMapLimits};

/// `log.cleaner.*`, but for those that are defaults of topics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub is_enabled: bool,
    /// `log.cleaner.threads`: how many logs are cleaned at the same time.
    pub threads: usize,
    /// `log.cleaner.dedupe.buffer.size`, shared by the threads, `log.cleaner.io.buffer.load.factor` and
    /// `log.cleaner.io.buffer.size`.
    pub options: CleanerOptions,
    /// `log.cleaner.io.max.bytes.per.second`, for all threads together.
    pub max_bytes_per_second: f64,
    /// `log.cleaner.backoff.ms`: the pause when there is nothing to clean.
    pub backoff: Duration,
}

impl CleanerConfig {
    #[must_use]
    pub fn new(configs: &Configs<'_>) -> Self {
        let size = |name| usize::try_from(configs.broker_number(name).unwrap_or(0)).unwrap_or(0);
        let threads = size("log.cleaner.threads");
        Self {
            is_enabled: value(configs, "log.cleaner.enable") == Some(ConfigValue::Boolean(true)),
            threads,
            options: CleanerOptions {
                map: OffsetMapLimits {
                    bytes: size("log.cleaner.dedupe.buffer.size") / threads.max(1),
                    load_factor: double(configs, "log.cleaner.io.buffer.load.factor"),
                },
                io_buffer_bytes: size("log.cleaner.io.buffer.size"),
            },
            max_bytes_per_second: double(configs, "log.cleaner.io.max.bytes.per.second"),
            backoff: Duration::from_millis(size("log.cleaner.backoff.ms").max(1) as u64),
        }
    }
}

fn double(configs: &Configs<'_>, name: &str) -> f64 {
    match value(configs, name) {
        Some(ConfigValue::Double(number)) => number,
        other => unreachable!("{name} is a double with a default in the table, not {other:?}"),
    }
}

/// The default where what is set cannot be read.
fn value(configs: &Configs<'_>, name: &str) -> Option<ConfigValue> {
    let config = broker_config(name)?;
    let set = configs.broker_value(name).value.and_then(|value| config.parse(&value).ok());
    set.or_else(|| config.parse(config.default?).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use vltava_metadata::ClusterImage;
    use vltava_metadata::configs::Configs;
    use vltava_types::BrokerId;

    use super::CleanerConfig;

    fn read(properties: &[(&str, &str)]) -> CleanerConfig {
        let properties: BTreeMap<_, _> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let image = ClusterImage::default();
        CleanerConfig::new(&Configs { image: &image, broker_id: BrokerId(1), properties: &properties })
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = read(&[]);
        assert!(config.is_enabled && config.threads == 1 && config.max_bytes_per_second == f64::MAX);
        assert_eq!(config.options.map.bytes, 128 << 20);
        assert!((config.options.map.load_factor - 0.9).abs() < 1e-9);
        assert_eq!((config.options.io_buffer_bytes, config.backoff), (512 << 10, Duration::from_secs(15)));
    }

    #[test]
    fn the_dedupe_buffer_is_shared_and_nonsense_counts_as_nothing() {
        let config = read(&[
            ("log.cleaner.enable", "false"),
            ("log.cleaner.threads", "4"),
            ("log.cleaner.dedupe.buffer.size", "4000"),
            ("log.cleaner.io.max.bytes.per.second", "1e6"),
            ("log.cleaner.backoff.ms", "soon"),
        ]);
        assert!(!config.is_enabled);
        assert_eq!((config.threads, config.options.map.bytes, config.max_bytes_per_second), (4, 1000, 1e6));
        assert_eq!(config.backoff, Duration::from_secs(15));
    }
}
