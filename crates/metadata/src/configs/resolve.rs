//! Which value of a config is in force, and where it comes from.

use std::collections::BTreeMap;

use vltava_types::{BrokerId, TopicId};

use super::define::{BrokerSynonym, ConfigDef};
use super::describe::ConfigSource;
use super::topic_config::TopicConfig;
use super::value::ConfigValue;
use super::{broker_config, topic_configs};
use crate::image::{ClusterImage, ConfigImage};
use crate::record::ConfigResource;

/// Every place that a value can come from, as one broker sees them.
#[derive(Clone, Copy, Debug)]
pub struct Configs<'a> {
    pub image: &'a ClusterImage,
    pub broker_id: BrokerId,
    /// This broker's properties file, environment and overrides.
    pub properties: &'a BTreeMap<String, String>,
}

/// A value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `None` where Kafka's is null.
    pub value: Option<String>,
    pub source: ConfigSource,
}

impl<'a> Configs<'a> {
    /// All configs of a topic; those of a topic without any of its own if it is unknown.
    #[must_use]
    pub fn topic(&self, topic_id: TopicId) -> TopicConfig {
        self.topic_with(self.overrides(&ConfigResource::Topic(topic_id)).unwrap_or(&ConfigImage::new()))
    }

    /// All configs of a topic that would have these of its own.
    #[must_use]
    pub fn topic_with(&self, overrides: &ConfigImage) -> TopicConfig {
        TopicConfig::from_values(|config| {
            let resolved = self.resolve_topic_config(config, overrides);
            resolved.value.and_then(|value| config.parse(&value).ok())
        })
    }

    /// One config of a topic, such as `min.insync.replicas`.
    #[must_use]
    pub fn topic_value(&self, topic_id: TopicId, name: &str) -> Option<Resolved> {
        let config = topic_configs().iter().find(|config| config.name == name)?;
        let none = ConfigImage::new();
        Some(self.resolve_topic_config(config, self.overrides(&ConfigResource::Topic(topic_id)).unwrap_or(&none)))
    }

    /// One config of this broker. Names that no table has resolve to what the properties file says.
    #[must_use]
    pub fn broker_value(&self, name: &str) -> Resolved {
        match self.places(name).next() {
            Some((value, source)) => Resolved { value: Some(value.to_owned()), source },
            None => {
                let default = broker_config(name).and_then(|config| config.default).map(str::to_owned);
                Resolved { value: default, source: ConfigSource::Default }
            }
        }
    }

    /// A number among this broker's configs; the default where the value cannot be read.
    #[must_use]
    pub fn broker_number(&self, name: &str) -> Option<i64> {
        let config = broker_config(name)?;
        let parsed = self.broker_value(name).value.and_then(|value| config.parse(&value).ok());
        match parsed.or_else(|| config.parse(config.default?).ok()) {
            Some(ConfigValue::Number(number)) => Some(number),
            _ => None,
        }
    }

    pub(super) fn resolve_topic_config(&self, config: &ConfigDef, overrides: &ConfigImage) -> Resolved {
        if let Some(value) = overrides.get(config.name) {
            return Resolved { value: Some(value.clone()), source: ConfigSource::DynamicTopic };
        }
        // Place by place: what is set at run time wins over the file, whichever synonym it uses.
        for (source, values) in self.layers() {
            for synonym in config.synonyms {
                let value = values.get(synonym.name).filter(|value| is_valid(synonym, value));
                if let Some(value) = value {
                    return Resolved { value: Some(scaled(synonym, value)), source };
                }
            }
        }
        Resolved { value: config.default.map(str::to_owned), source: ConfigSource::Default }
    }

    /// The places of broker configs, the strongest first.
    pub(super) fn layers(&self) -> impl Iterator<Item = (ConfigSource, &'a BTreeMap<String, String>)> {
        [
            (ConfigSource::DynamicBroker, self.overrides(&ConfigResource::Broker(self.broker_id))),
            (ConfigSource::DynamicDefaultBroker, self.overrides(&ConfigResource::ClusterDefault)),
            (ConfigSource::StaticBroker, Some(self.properties)),
        ]
        .into_iter()
        .filter_map(|(source, values)| Some((source, values?)))
    }

    pub(super) fn overrides(&self, resource: &ConfigResource) -> Option<&'a ConfigImage> {
        self.image.configs.get(resource).map(|configs| &**configs)
    }

    fn places(&self, name: &str) -> impl Iterator<Item = (&'a str, ConfigSource)> {
        self.layers().filter_map(move |(source, values)| Some((values.get(name)?.as_str(), source)))
    }
}

/// An empty or unreadable value in the file counts as none; start-up has complained about it.
fn is_valid(synonym: &BrokerSynonym, value: &str) -> bool {
    broker_config(synonym.name).is_some_and(|config| config.parse(value).is_ok())
}

fn scaled(synonym: &BrokerSynonym, value: &str) -> String {
    match value.trim().parse::<i64>() {
        // Any negative time means "without bound".
        Ok(number) if synonym.scale > 1 && number < 0 => "-1".to_owned(),
        Ok(number) if synonym.scale > 1 => number.saturating_mul(synonym.scale).to_string(),
        _ => value.to_owned(),
    }
}
