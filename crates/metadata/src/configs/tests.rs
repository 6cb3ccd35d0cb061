//! Stories about configs.

use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::{Expect, expect};
use vltava_types::{BrokerId, TopicId};

use super::*;
use crate::{ClusterImage, ConfigResource};

const TOPIC: TopicId = TopicId(vltava_types::Uuid([7; 16]));

/// Reads `layer name=value` words, where layer is topic, broker, default or file.
fn places(settings: &str) -> (ClusterImage, BTreeMap<String, String>) {
    let mut image = ClusterImage::default();
    let mut properties = BTreeMap::new();
    for line in settings.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (layer, setting) = line.split_once(' ').expect("layer name=value");
        let (name, value) = setting.split_once('=').expect("name=value");
        let resource = match layer {
            "topic" => ConfigResource::Topic(TOPIC),
            "broker" => ConfigResource::Broker(BrokerId(1)),
            "default" => ConfigResource::ClusterDefault,
            _ => {
                properties.insert(name.to_owned(), value.to_owned());
                continue;
            }
        };
        let configs = Arc::make_mut(&mut image.configs).entry(resource).or_default();
        Arc::make_mut(configs).insert(name.to_owned(), value.to_owned());
    }
    (image, properties)
}

fn check(settings: &str, name: &str, expected: Expect) {
    let (image, properties) = places(settings);
    let configs = Configs { image: &image, broker_id: BrokerId(1), properties: &properties };
    let entry = configs.describe_topic(TOPIC).into_iter().find(|entry| entry.name == name).expect("a topic config");
    let mut told = format!("{} {:?}\n", entry.value.as_deref().unwrap_or("null"), entry.source);
    for synonym in entry.synonyms {
        let value = synonym.value.as_deref().unwrap_or("null");
        told += &format!("  {:?}:{}={value}\n", synonym.source, synonym.name);
    }
    expected.assert_eq(&told);
}

#[test]
fn a_topic_without_configs_has_the_broker_s_defaults() {
    check(
        "",
        "retention.ms",
        expect![[r#"
            604800000 Default
              Default:log.retention.hours=168
        "#]],
    );
}

#[test]
fn the_properties_file_speaks_in_hours() {
    check(
        "file log.retention.hours=48",
        "retention.ms",
        expect![[r#"
            172800000 StaticBroker
              StaticBroker:log.retention.hours=48
              Default:log.retention.hours=168
        "#]],
    );
}

#[test]
fn within_one_place_milliseconds_come_before_minutes_before_hours() {
    check(
        "file log.retention.hours=48
         file log.retention.minutes=7",
        "retention.ms",
        expect![[r#"
            420000 StaticBroker
              StaticBroker:log.retention.minutes=7
              StaticBroker:log.retention.hours=48
              Default:log.retention.hours=168
        "#]],
    );
}

#[test]
fn what_is_set_at_run_time_wins_over_a_finer_unit_in_the_file() {
    check(
        "file log.retention.ms=1000
         default log.retention.hours=1",
        "retention.ms",
        expect![[r#"
            3600000 DynamicDefaultBroker
              DynamicDefaultBroker:log.retention.hours=1
              StaticBroker:log.retention.ms=1000
              Default:log.retention.hours=168
        "#]],
    );
}

#[test]
fn topic_wins_over_broker_over_all_brokers_over_file() {
    let all = "file min.insync.replicas=2
               default min.insync.replicas=3
               broker min.insync.replicas=4
               topic min.insync.replicas=5";
    check(
        all,
        "min.insync.replicas",
        expect![[r#"
            5 DynamicTopic
              DynamicTopic:min.insync.replicas=5
              DynamicBroker:min.insync.replicas=4
              DynamicDefaultBroker:min.insync.replicas=3
              StaticBroker:min.insync.replicas=2
              Default:min.insync.replicas=1
        "#]],
    );
}

#[test]
fn hours_of_minus_one_mean_for_ever() {
    let (image, properties) = places("file log.retention.hours=-1");
    let configs = Configs { image: &image, broker_id: BrokerId(1), properties: &properties };
    assert_eq!(configs.topic(TOPIC).retention_ms, -1);
}

#[test]
fn typed_values_follow_overrides() {
    let (image, properties) = places(
        "topic cleanup.policy=compact,delete
         topic compression.type=zstd
         file vltava.durability=page-cache",
    );
    let config = Configs { image: &image, broker_id: BrokerId(1), properties: &properties }.topic(TOPIC);
    assert!(config.is_compacted && config.is_deleted && !config.flushes_before_acknowledging);
    assert_eq!(config.compression_type, CompressionType::Zstd);
    let defaults = TopicConfig::default();
    assert!(!defaults.is_compacted && defaults.is_deleted && defaults.flushes_before_acknowledging);
    assert_eq!(defaults.min_insync_replicas, 1);
}

#[test]
fn every_default_is_a_valid_value_and_every_synonym_exists() {
    for config in topic_configs().iter().chain(broker_configs()).chain(group_configs()) {
        if let Some(default) = config.default {
            config.parse(default).unwrap_or_else(|error| panic!("{error}"));
        }
        for synonym in config.synonyms {
            let broker = broker_config(synonym.name).unwrap_or_else(|| panic!("{} is no config", synonym.name));
            assert_eq!(broker.is_honoured, config.is_honoured, "{} and {}", config.name, broker.name);
        }
    }
}

#[test]
fn tables_are_sorted_and_without_duplicates() {
    for table in [topic_configs(), broker_configs()] {
        let ours = |name: &str| name.starts_with("vltava.");
        let names: Vec<_> = table.iter().map(|config| (ours(config.name), config.name)).collect();
        for pair in names.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }
}

fn refusal(name: &str, value: &str) -> String {
    match validate_topic_overrides([(name, value)]) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn refusals_read_as_kafka_s() {
    let told: Vec<String> = [
        ("segment.bytes", "14"),
        ("segment.bytes", "many"),
        ("retention.ms", "-2"),
        ("retention.ms", "9223372036854775808"),
        ("cleanup.policy", "shred"),
        ("cleanup.policy", ""),
        ("cleanup.policy", "compact, delete"),
        ("compression.type", "brotli"),
        ("compression.gzip.level", "10"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("preallocate", "perhaps"),
        ("leader.replication.throttled.replicas", "0-1"),
        ("leader.replication.throttled.replicas", "0:1,1:2"),
        ("remote.storage.enable", "true"),
        ("retention", "1"),
    ]
    .map(|(name, value)| refusal(name, value))
    .to_vec();
    expect![[r#"
        Invalid value 14 for configuration segment.bytes: Value must be at least 1048576
        Invalid value many for configuration segment.bytes: Not a number of type INT
        Invalid value -2 for configuration retention.ms: Value must be at least -1
        Invalid value 9223372036854775808 for configuration retention.ms: Not a number of type LONG
        Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete
        ok
        ok
        Invalid value brotli for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer
        Invalid value 10 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1
        Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1
        Invalid value perhaps for configuration preallocate: Expected value to be either true or false
        Invalid value 0-1 for configuration leader.replication.throttled.replicas: must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...
        ok
        Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.
        Unknown topic config name: retention"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn a_misspelt_name_finds_the_nearest() {
    assert_eq!(nearest_broker_config("log.retention.hour"), Some("log.retention.hours"));
    assert_eq!(nearest_broker_config("listner.security.protocol.map"), Some("listener.security.protocol.map"));
    assert_eq!(nearest_topic_config("retention.mss"), Some("retention.ms"));
    assert_eq!(nearest_broker_config("completely.different.thing"), None);
    assert_eq!(
        broker_config("listener.name.internal.ssl.keystore.location").map(|c| c.name),
        Some("ssl.keystore.location")
    );
}

#[test]
fn secrets_are_never_shown() {
    let (image, properties) = places("file ssl.key.password=hunter2\nfile my.own.secret=hunter2");
    let configs = Configs { image: &image, broker_id: BrokerId(1), properties: &properties };
    let shown = format!("{:?}", configs.describe_broker());
    assert!(shown.contains("ssl.key.password") && shown.contains("my.own.secret"));
    assert!(!shown.contains("hunter2"));
}
