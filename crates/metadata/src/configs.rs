//! Every setting that Kafka 4.3 knows, and ours: names, types, defaults, what values are valid, and which value is in
//! force.
//!
//! A topic's value is the first that is set of: the topic's own, then the broker's synonyms of it as set for this
//! broker at run time, for all brokers at run time, and in this broker's properties file; else the default. Several
//! synonyms at one of these places count in their own order, such as `log.retention.ms` before `.minutes` before
//! `.hours`.
//!
//! Settings that Vltava does not honour yet are known all the same, so that a Kafka configuration can be used unedited;
//! [`ConfigDef::is_honoured`] tells them apart.

mod broker;
mod define;
mod describe;
mod group;
mod resolve;
mod topic;
mod topic_config;
mod value;

#[cfg(test)]
mod tests;

pub use define::{BrokerSynonym, ConfigDef, ConfigType, DynamicScope, Importance, Valid};
pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym};
pub use resolve::{Configs, Resolved};
pub use topic_config::{CompressionType, TimestampType, TopicConfig};
pub use value::{ConfigValue, InvalidConfig, split_list};

/// The configs of a broker, in alphabetical order; those of Vltava last.
#[must_use]
pub fn broker_configs() -> &'static [ConfigDef] {
    broker::TABLE
}

/// The configs of a topic.
#[must_use]
pub fn topic_configs() -> &'static [ConfigDef] {
    topic::TABLE
}

/// The configs of a consumer, share or streams group.
#[must_use]
pub fn group_configs() -> &'static [ConfigDef] {
    group::TABLE
}

/// A broker config by name. A listener's own variant (`listener.name.<listener>.ssl.keystore.location`) is the config
/// that it overrides.
#[must_use]
pub fn broker_config(name: &str) -> Option<&'static ConfigDef> {
    find(broker::TABLE, name).or_else(|| {
        let (_listener, name) = name.strip_prefix("listener.name.")?.split_once('.')?;
        find(broker::TABLE, name).or_else(|| {
            // SASL settings of a listener carry the mechanism too.
            let (_mechanism, name) = name.split_once('.')?;
            find(broker::TABLE, name)
        })
    })
}

/// A topic config by name.
#[must_use]
pub fn topic_config(name: &str) -> Option<&'static ConfigDef> {
    find(topic::TABLE, name)
}

/// A group config by name.
#[must_use]
pub fn group_config(name: &str) -> Option<&'static ConfigDef> {
    find(group::TABLE, name)
}

/// The broker config that a misspelt name most likely means, if one is near enough.
#[must_use]
pub fn nearest_broker_config(name: &str) -> Option<&'static str> {
    nearest(broker::TABLE.iter().map(|config| config.name), name)
}

/// The topic config that a misspelt name most likely means, if one is near enough.
#[must_use]
pub fn nearest_topic_config(name: &str) -> Option<&'static str> {
    nearest(topic::TABLE.iter().map(|config| config.name), name)
}

/// Whether these configs can be set on a topic, as Kafka checks them at creation and after each change: every name
/// known, every value valid, and no two in conflict. `configs` are all overrides that the topic would have.
pub fn validate_topic_overrides<'a>(
    configs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), InvalidConfig> {
    let mut min_compaction_lag_ms = None;
    let mut max_compaction_lag_ms = None;
    for (name, value) in configs {
        let config = topic_config(name).ok_or_else(|| InvalidConfig::UnknownTopicConfig { name: name.to_owned() })?;
        let value = config.parse(value)?;
        match (name, value) {
            ("min.compaction.lag.ms", ConfigValue::Number(lag)) => min_compaction_lag_ms = Some(lag),
            ("max.compaction.lag.ms", ConfigValue::Number(lag)) => max_compaction_lag_ms = Some(lag),
            ("remote.storage.enable", ConfigValue::Boolean(true)) => return Err(InvalidConfig::NoTieredStorage),
            _ => {}
        }
    }
    if let (Some(min), Some(max)) = (min_compaction_lag_ms, max_compaction_lag_ms)
        && min > max
    {
        return Err(InvalidConfig::CompactionLags { min, max });
    }
    Ok(())
}

fn find(table: &'static [ConfigDef], name: &str) -> Option<&'static ConfigDef> {
    table.iter().find(|config| config.name == name)
}

/// The name with the smallest edit distance, if that is at most a quarter of the length.
fn nearest(names: impl Iterator<Item = &'static str>, wanted: &str) -> Option<&'static str> {
    let most = wanted.len().div_ceil(4);
    // No distance is less than the difference of the lengths, and whoever asks may ask for something very long.
    let possible = names.filter(|name| name.len().abs_diff(wanted.len()) <= most);
    let (distance, name) = possible.map(|name| (edit_distance(name, wanted), name)).min()?;
    (distance <= most).then_some(name)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, left) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &right) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
