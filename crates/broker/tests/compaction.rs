//! Compacted topics as clients see them, on one broker with real logs.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use vltava_broker::partition::Partition;
use vltava_client::Client;
use vltava_protocol::batch::BatchBuilder;
use vltava_protocol::compression::Compression;
use vltava_protocol::make;
use vltava_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use vltava_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::{
    IncrementalAlterConfigsRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    incremental_alter_configs_request,
};
use vltava_types::{ErrorCode, Offset, PartitionIndex, TimestampMs, TopicPartition};

use support::TestBroker;

const MIB: u64 = 1 << 20;
const CLEANER: [(&str, &str); 2] = [("log.cleaner.backoff.ms", "50"), ("log.segment.delete.delay.ms", "0")];

fn partition(broker: &TestBroker, topic: &str) -> Arc<Partition> {
    let topic_id = broker.broker.image().topic_id(topic).expect("the topic exists");
    let id = TopicPartition { topic_id, partition: PartitionIndex(0) };
    broker.broker.replicas.partition(id).expect("it is hosted here")
}

/// Waits until the condition holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create(broker: &TestBroker, name: &str, configs: &[(&str, &str)]) {
    broker.client().create_topic(name, 1, 1, configs).await.expect("a new topic");
    eventually("the topic is led", || {
        let topic_id = broker.broker.image().topic_id(name);
        topic_id.is_some_and(|topic_id| {
            let id = TopicPartition { topic_id, partition: PartitionIndex(0) };
            broker.broker.replicas.partition(id).is_some_and(|partition| partition.leader_epoch().is_some())
        })
    })
    .await;
}

/// Sets a config of a resource: a topic (2), or all brokers (4, without a name).
async fn alter_config(broker: &TestBroker, (resource_type, resource_name): (i8, &str), name: &str, value: &str) {
    let config = make!(incremental_alter_configs_request::AlterableConfig {
        name: name.into(),
        config_operation: 0,
        value: Some(value.into()),
    });
    let resource = make!(incremental_alter_configs_request::AlterConfigsResource {
        resource_type,
        resource_name: resource_name.into(),
        configs: vec![config],
    });
    let request = make!(IncrementalAlterConfigsRequest { resources: vec![resource] });
    let response = broker.connect().await.call(1, &request).await.expect("an answer");
    assert_eq!(response.responses[0].error_code, 0);
}

/// Rounds of the same ten keys, 100 KB a round; returns the last value of each.
async fn produce_rounds(client: &mut Client, topic: &str, rounds: usize) -> BTreeMap<Bytes, Bytes> {
    let mut latest = BTreeMap::new();
    for round in 0..rounds {
        let mut builder = BatchBuilder::new();
        for key in 0..10 {
            let key = format!("key {key}");
            let value = format!("{round} {}", "x".repeat(10_000));
            builder.append(TimestampMs(1_700_000_000_000), Some(key.as_bytes()), Some(value.as_bytes()), &[]);
            latest.insert(Bytes::from(key), Bytes::from(value));
        }
        client.produce(topic, 0, builder.build(), -1, Duration::from_secs(10)).await.expect("produced");
    }
    latest
}

/// What a consumer that reads everything ends up with, and how many records it read.
async fn consume(client: &mut Client, topic: &str) -> (BTreeMap<Bytes, Bytes>, usize) {
    let mut latest = BTreeMap::new();
    let mut count = 0;
    let mut offset = Offset(0);
    loop {
        let fetched = client.fetch(topic, 0, offset, Duration::from_secs(5)).await.expect("records");
        for record in fetched.records {
            assert!(record.offset >= offset, "offsets only increase");
            offset = record.offset;
            count += 1;
            latest.insert(record.key.expect("a key"), record.value.expect("a value"));
        }
        assert!(fetched.next_offset > offset || fetched.next_offset == fetched.high_watermark);
        offset = fetched.next_offset;
        if offset == fetched.high_watermark {
            return (latest, count);
        }
    }
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_value_of_each_key() {
    let broker = TestBroker::start(&CLEANER).await;
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("file.delete.delay.ms", "0"),
    ];
    create(&broker, "t", &configs).await;
    let mut client = broker.client();
    let expected = produce_rounds(&mut client, "t", 60).await;
    let partition = partition(&broker, "t");
    eventually("compaction", || partition.size_bytes() < 3 * MIB / 2).await;
    let (latest, count) = consume(&mut client, "t").await;
    assert_eq!(latest, expected);
    assert!(count < 200, "{count} of 600 records");
    assert_eq!(partition.log_end_offset(), Offset(600));
    assert_eq!(partition.log_start_offset(), Offset(0));
    let checkpoint = broker.log_dir().join("cleaner-offset-checkpoint");
    eventually("the checkpoint", || {
        let text = vltava_host::fs::read_to_string(&checkpoint).unwrap_or_default();
        let mut words = text.split_whitespace();
        let cleaned: Option<i64> = words.nth(4).and_then(|word| word.parse().ok());
        text.starts_with("0\n1\nt 0 ") && cleaned.is_some_and(|offset| offset >= 500)
    })
    .await;

    // Everything goes on after a restart.
    let broker = broker.restart(&CLEANER).await;
    let mut client = broker.client();
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.list_offset("t", 0, -1).await.is_err() {
        assert!(Instant::now() < deadline, "the topic is led again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(consume(&mut client, "t").await.0, expected);
}

#[tokio::test]
async fn the_policy_changes_at_run_time() {
    let broker = TestBroker::start(&CLEANER).await;
    let configs = [("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01"), ("file.delete.delay.ms", "0")];
    create(&broker, "t", &configs).await;
    let mut client = broker.client();
    let expected = produce_rounds(&mut client, "t", 30).await;
    let partition = partition(&broker, "t");
    assert!(partition.size_bytes() > 2 * MIB);
    alter_config(&broker, (2, "t"), "cleanup.policy", "compact,delete").await;
    eventually("compaction", || partition.size_bytes() < 3 * MIB / 2).await;
    assert_eq!(consume(&mut client, "t").await.0, expected);
}

#[tokio::test]
async fn the_cleaner_tells_what_it_cannot_clean_and_what_it_has_done() {
    // Of 24 bytes a key, and one free: nine keys, where a batch has ten.
    let broker = TestBroker::start(&[CLEANER[0], CLEANER[1], ("log.cleaner.dedupe.buffer.size", "240")]).await;
    let never = ("min.cleanable.dirty.ratio", "1.0");
    create(&broker, "waits", &[("cleanup.policy", "compact"), ("segment.bytes", "1048576"), never]).await;
    let mut client = broker.client();
    produce_rounds(&mut client, "waits", 30).await;
    let status = || broker.broker.replicas.cleaner_status();
    eventually("a log that is dirty", || status().max_dirty_ratio > 0.99).await;
    assert_eq!((status().uncleanable_partitions, status().passes), (0, 0));

    let soon = ("min.cleanable.dirty.ratio", "0.01");
    create(&broker, "t", &[("cleanup.policy", "compact"), ("segment.bytes", "1048576"), soon]).await;
    produce_rounds(&mut client, "t", 30).await;
    eventually("a log that cannot be cleaned", || status().uncleanable_partitions == 1).await;
    eventually("its bytes", || status().uncleanable_bytes == partition(&broker, "t").size_bytes()).await;
    assert_eq!(status().passes, 0);
    let before = status().last_run;
    eventually("another look", || status().last_run > before).await;

    // With room for 18 keys it is cleaned.
    alter_config(&broker, (4, ""), "log.cleaner.dedupe.buffer.size", "480").await;
    eventually("a pass", || status().passes > 0 && status().uncleanable_partitions == 0).await;
    assert_eq!(status().uncleanable_bytes, 0);
    assert!((status().buffer_utilization - 10.0 / 18.0).abs() < 1e-9, "{:?}", status());
    assert!(status().bytes_read > 2 * MIB && (1..MIB).contains(&status().bytes_written), "{:?}", status());
    assert!(status().max_dirty_ratio > 0.99, "the other log still waits");
    // Nobody asks whether a log can be cleaned whose topic is not compacted any more.
    alter_config(&broker, (4, ""), "log.cleaner.dedupe.buffer.size", "240").await;
    produce_rounds(&mut client, "t", 30).await;
    eventually("a log that cannot be cleaned", || status().uncleanable_partitions == 1).await;
    alter_config(&broker, (2, "t"), "cleanup.policy", "delete").await;
    eventually("no such log", || status().uncleanable_partitions == 0).await;
}

#[tokio::test]
async fn records_without_keys_are_refused() {
    let broker = TestBroker::start(&[]).await;
    create(&broker, "compacted", &[("cleanup.policy", "compact")]).await;
    create(&broker, "both", &[("cleanup.policy", "compact,delete")]).await;
    create(&broker, "deleted", &[]).await;
    let mut connection = broker.connect().await;
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        for (topic, expected) in
            [("compacted", ErrorCode::InvalidRecord), ("both", ErrorCode::InvalidRecord), ("deleted", ErrorCode::None)]
        {
            let mut builder = BatchBuilder::new().compression(codec);
            builder.append(TimestampMs(1_700_000_000_000), Some(b"key"), Some(b"value"), &[]);
            builder.append(TimestampMs(1_700_000_000_000), None, Some(b"value"), &[]);
            let data = make!(PartitionProduceData { index: 0, records: Some(builder.build()) });
            let request = make!(ProduceRequest {
                acks: -1,
                timeout_ms: 5000,
                topic_data: vec![make!(TopicProduceData { name: topic.into(), partition_data: vec![data] })],
            });
            let response = connection.call(9, &request).await.expect("an answer");
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(ErrorCode::from_code(partition.error_code), Some(expected), "{topic} {codec:?}");
            if expected == ErrorCode::InvalidRecord {
                assert_eq!(partition.record_errors[0].batch_index, 1);
            }
        }
    }
}

#[tokio::test]
async fn the_offsets_topic_stays_small_under_steady_commits() {
    const PARTITIONS: i32 = 20;
    const COMMITS: i64 = 2_500;
    let properties = [
        CLEANER[0],
        CLEANER[1],
        ("offsets.topic.segment.bytes", "1048576"),
        ("offsets.topic.num.partitions", "1"),
        ("offsets.topic.replication.factor", "1"),
    ];
    let broker = TestBroker::start(&properties).await;
    broker.create_topic("t", PARTITIONS).await;
    let mut connection = broker.connect().await;
    let metadata = "m".repeat(200);
    let mut largest = 0;
    let mut commits = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while commits < COMMITS {
        let partition_of = |index| {
            make!(OffsetCommitRequestPartition {
                partition_index: index,
                committed_offset: commits,
                committed_metadata: Some(metadata.as_str().into()),
            })
        };
        let topic = make!(OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: (0..PARTITIONS).map(partition_of).collect()
        });
        let request = make!(OffsetCommitRequest { group_id: "g".into(), topics: vec![topic] });
        let response = connection.call(8, &request).await.expect("an answer");
        let code = ErrorCode::from_code(response.topics[0].partitions[0].error_code).expect("a known code");
        if code == ErrorCode::None {
            commits += 1;
            largest = largest.max(partition(&broker, "__consumer_offsets").size_bytes());
        } else {
            // The coordinator's topic is only just being created.
            assert!(commits == 0 && Instant::now() < deadline, "{code}");
            broker.client().metadata(Some(&["__consumer_offsets"]), true).await.expect("metadata");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let offsets = partition(&broker, "__consumer_offsets");
    let written = offsets.log_end_offset().value().unsigned_abs() * 250;
    assert!(written > 12_000_000, "more than ten segments were written: {written} bytes");
    eventually("compaction", || offsets.size_bytes() < 5 * MIB / 2).await;
    println!("{written} bytes written, at most {largest} at a time, {} at the end", offsets.size_bytes());
    assert!(largest < 8 * MIB, "{largest} bytes");

    // The group is read back from what is left.
    drop(connection);
    let broker = broker.restart(&properties).await;
    let mut connection = broker.connect().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let topic = make!(OffsetFetchRequestTopics { name: "t".into(), partition_indexes: (0..PARTITIONS).collect() });
        let group = make!(OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topic]) });
        let request = make!(OffsetFetchRequest { groups: vec![group] });
        let response = connection.call(8, &request).await.expect("an answer");
        let group = &response.groups[0];
        if group.error_code != 0 {
            assert!(Instant::now() < deadline, "{:?}", ErrorCode::from_code(group.error_code));
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let committed: Vec<_> = group.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
        assert_eq!(committed, vec![COMMITS - 1; PARTITIONS as usize]);
        return;
    }
}
