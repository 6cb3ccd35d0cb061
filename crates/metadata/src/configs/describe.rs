//! What DescribeConfigs tells: each value with where it comes from, and what it would be otherwise.

use vltava_types::TopicId;

use super::define::{BrokerSynonym, ConfigDef, ConfigType, DynamicScope};
use super::resolve::Configs;
use super::{broker_config, broker_configs, group_configs, topic_configs};
use crate::image::ConfigImage;
use crate::record::ConfigResource;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    DynamicTopic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    Group,
}

/// A config as DescribeConfigs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` for null, and for every secret.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub config_type: ConfigType,
    pub is_sensitive: bool,
    pub is_read_only: bool,
    /// Every value that is set for it or for its synonyms, the one in force first.
    pub synonyms: Vec<ConfigSynonym>,
    pub documentation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

impl ConfigSource {
    /// The number in DescribeConfigs responses.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::DynamicTopic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::Group => 8,
        }
    }
}

/// Broker configs of one meaning in several units, in order of precedence.
const BROKER_SYNONYMS: &[&[&str]] = &[
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
];

impl Configs<'_> {
    /// All configs of a topic.
    #[must_use]
    pub fn describe_topic(&self, topic_id: TopicId) -> Vec<ConfigEntry> {
        let none = ConfigImage::new();
        let overrides = self.overrides(&ConfigResource::Topic(topic_id)).unwrap_or(&none);
        self.describe_topic_with(overrides)
    }

    /// All configs of a topic that would have these of its own.
    #[must_use]
    pub fn describe_topic_with(&self, overrides: &ConfigImage) -> Vec<ConfigEntry> {
        let describe = |config: &ConfigDef| {
            let resolved = self.resolve_topic_config(config, overrides);
            let mut synonyms = vec![];
            if let Some(value) = overrides.get(config.name) {
                synonyms.push(ConfigSynonym {
                    name: config.name.to_owned(),
                    value: Some(value.clone()),
                    source: ConfigSource::DynamicTopic,
                });
            }
            synonyms.extend(self.broker_places(config.synonyms.iter().map(|synonym: &BrokerSynonym| synonym.name)));
            ConfigEntry {
                name: config.name.to_owned(),
                value: resolved.value,
                source: resolved.source,
                config_type: config.config_type,
                is_sensitive: false,
                is_read_only: false,
                synonyms,
                documentation: config.documentation,
            }
        };
        topic_configs().iter().filter(|config| !config.is_internal).map(describe).collect()
    }

    /// All configs of this broker, and whatever else its properties set.
    #[must_use]
    pub fn describe_broker(&self) -> Vec<ConfigEntry> {
        let known = broker_configs().iter().filter(|config| !config.is_internal).map(|config| config.name);
        let others = self.properties.keys().map(String::as_str);
        let dynamic = self.layers().flat_map(|(_, values)| values.keys()).map(String::as_str);
        let names: std::collections::BTreeSet<&str> = known.chain(others).chain(dynamic).collect();
        names.into_iter().map(|name| self.describe_broker_config(name)).collect()
    }

    /// The configs that are set at run time for all brokers.
    #[must_use]
    pub fn describe_cluster_default(&self) -> Vec<ConfigEntry> {
        let none = ConfigImage::new();
        let set = self.overrides(&ConfigResource::ClusterDefault).unwrap_or(&none);
        set.iter()
            .map(|(name, value)| {
                let config = broker_config(name);
                let is_sensitive = config.is_none_or(ConfigDef::is_sensitive);
                let value = (!is_sensitive).then(|| value.clone());
                let source = ConfigSource::DynamicDefaultBroker;
                let synonym = ConfigSynonym { name: name.clone(), value: value.clone(), source };
                ConfigEntry {
                    name: name.clone(),
                    value,
                    source,
                    config_type: config.map_or(ConfigType::String, |config| config.config_type),
                    is_sensitive,
                    is_read_only: false,
                    synonyms: vec![synonym],
                    documentation: config.map_or("", |config| config.documentation),
                }
            })
            .collect()
    }

    /// All configs of a group.
    #[must_use]
    pub fn describe_group(&self, group_id: &str) -> Vec<ConfigEntry> {
        let set = self.overrides(&ConfigResource::Group(group_id.to_owned()));
        group_configs()
            .iter()
            .map(|config| {
                let own = set.and_then(|set| set.get(config.name));
                let default = config.default.map(str::to_owned);
                let synonym =
                    |value: Option<String>, source| ConfigSynonym { name: config.name.to_owned(), value, source };
                let mut synonyms: Vec<_> =
                    own.map(|value| synonym(Some(value.clone()), ConfigSource::Group)).into_iter().collect();
                synonyms.push(synonym(default.clone(), ConfigSource::Default));
                ConfigEntry {
                    name: config.name.to_owned(),
                    value: own.cloned().or(default),
                    source: synonyms[0].source,
                    config_type: config.config_type,
                    is_sensitive: false,
                    is_read_only: false,
                    synonyms,
                    documentation: config.documentation,
                }
            })
            .collect()
    }

    fn describe_broker_config(&self, name: &str) -> ConfigEntry {
        let config = broker_config(name);
        // As in Kafka, what is unknown might be a secret.
        let is_sensitive = config.is_none_or(ConfigDef::is_sensitive);
        let resolved = self.broker_value(name);
        let group = BROKER_SYNONYMS.iter().find(|group| group.contains(&name));
        let mut synonyms = match group {
            Some(group) => self.broker_places(group.iter().copied()),
            None => self.broker_places(std::iter::once(name)),
        };
        if is_sensitive {
            synonyms.iter_mut().for_each(|synonym| synonym.value = None);
        }
        ConfigEntry {
            name: name.to_owned(),
            value: resolved.value.filter(|_| !is_sensitive),
            source: resolved.source,
            config_type: config.map_or(ConfigType::String, |config| config.config_type),
            is_sensitive,
            is_read_only: config.is_none_or(|config| config.dynamic == DynamicScope::ReadOnly),
            synonyms,
            documentation: config.map_or("", |config| config.documentation),
        }
    }

    /// Every place where one of these broker configs has a value, the strongest first, their defaults last.
    fn broker_places<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Vec<ConfigSynonym> {
        let mut places = vec![];
        for (source, values) in self.layers() {
            for name in names.clone() {
                if let Some(value) = values.get(name) {
                    places.push(ConfigSynonym { name: name.to_owned(), value: Some(value.clone()), source });
                }
            }
        }
        for name in names {
            if let Some(default) = broker_config(name).and_then(|config| config.default) {
                let value = Some(default.to_owned());
                places.push(ConfigSynonym { name: name.to_owned(), value, source: ConfigSource::Default });
            }
        }
        places
    }
}
