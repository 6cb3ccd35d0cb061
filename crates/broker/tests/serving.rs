//! What clients get from one broker, over real sockets.

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use expect_test::expect;
use tokio::time::Instant;
use vltava_client::{ClientError, Connection};
use vltava_protocol::batch::BatchBuilder;
use vltava_protocol::make;
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FetchResponse, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    MetadataResponse, OffsetForLeaderEpochRequest, ProduceRequest, Uuid, WireId as _,
};
use vltava_protocol::versions::ApiKey;
use vltava_types::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use support::{CLUSTER_ID, TestBroker};

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (i, value) in values.iter().enumerate() {
        builder.append(TimestampMs(1000 + i as i64), Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

fn error_name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| code.to_string(), |code| code.to_string())
}

/// What every version shows, with versions in a row that show the same under one head.
fn by_version(shown: impl IntoIterator<Item = (i16, String)>) -> String {
    let mut runs: Vec<(i16, i16, String)> = Vec::new();
    for (version, shown) in shown {
        match runs.last_mut() {
            Some((_, last, same)) if *same == shown => *last = version,
            _ => runs.push((version, version, shown)),
        }
    }
    let head = |first, last| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.into_iter().map(|(first, last, shown)| format!("{}:{shown}\n", head(first, last))).collect()
}

/// For partition 0 of a topic.
fn produce_request(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    let partition_data = vec![make!(PartitionProduceData { index: 0, records: Some(records) })];
    let topic_data = vec![make!(TopicProduceData { name: topic.into(), partition_data })];
    make!(ProduceRequest { acks, timeout_ms: 5000, topic_data })
}

async fn produce(
    connection: &mut Connection,
    version: i16,
    topic: &str,
    topic_id: Uuid,
    acks: i16,
    records: Bytes,
) -> String {
    let mut request = produce_request(if version >= 13 { "" } else { topic }, acks, records);
    if version >= 13 {
        request.topic_data[0].topic_id = topic_id;
    }
    let response = connection.call(version, &request).await.expect("an answer");
    let partition = &response.responses[0].partition_responses[0];
    format!("{} at {}", error_name(partition.error_code), partition.base_offset)
}

#[tokio::test]
async fn records_come_back_as_they_went_in_and_missing_topics_appear() {
    let broker = TestBroker::start(&[("num.partitions", "2")]).await;
    let mut client = broker.client();
    let metadata = client.metadata(Some(&["made-on-demand"]), true).await.expect("metadata");
    assert_eq!(metadata.topics[0].partitions.len(), 2);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        // The leader may learn of its new partition a moment after the client did.
        match client.produce("made-on-demand", 1, batch(&["one", "two"]), -1, Duration::from_secs(5)).await {
            Ok(produced) => break assert_eq!(produced.base_offset, Offset(0)),
            Err(error) => assert!(error.is_retriable() && Instant::now() < deadline, "{error}"),
        }
    }
    client.produce("made-on-demand", 1, batch(&["three"]), 1, Duration::from_secs(5)).await.expect("acks=1");
    let fetched = client.fetch("made-on-demand", 1, Offset(1), Duration::from_secs(5)).await.expect("records");
    let values: Vec<_> =
        fetched.records.iter().map(|r| (r.offset.value(), r.value.clone().expect("a value"))).collect();
    assert_eq!(values, [(1, Bytes::from("two")), (2, Bytes::from("three"))]);
    assert_eq!((fetched.next_offset, fetched.high_watermark), (Offset(3), Offset(3)));
}

#[tokio::test]
async fn produce_in_every_version() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let topic_id = broker.broker.image().topic_id("t").expect("it was created").to_wire();
    let mut connection = broker.connect().await;
    let mut story = String::new();
    for version in 3..=13 {
        let result = produce(&mut connection, version, "t", topic_id, -1, batch(&["a", "b"])).await;
        writeln!(story, "{version}: {result}").expect("memory");
    }
    expect![[r#"
        3: NONE at 0
        4: NONE at 2
        5: NONE at 4
        6: NONE at 6
        7: NONE at 8
        8: NONE at 10
        9: NONE at 12
        10: NONE at 14
        11: NONE at 16
        12: NONE at 18
        13: NONE at 20
    "#]]
    .assert_eq(&story);
}

#[tokio::test]
async fn produce_refuses_what_it_must() {
    let broker = TestBroker::start(&[("message.max.bytes", "2000")]).await;
    broker.create_topic("t", 1).await;
    broker.create_topic("__consumer_offsets", 1).await;
    let none = Uuid::ZERO;
    let mut connection = broker.connect().await;
    let mut story = String::new();
    let mut corrupt = batch(&["x"]).to_vec();
    *corrupt.last_mut().expect("bytes") ^= 1;
    let mut transactional = BatchBuilder::new().producer(ProducerId(5), ProducerEpoch(0), Sequence(0)).transactional();
    transactional.append(TimestampMs(1), None, Some(b"x"), &[]);
    let two = [batch(&["x"]), batch(&["y"])].concat();
    for (what, version, topic, id, acks, records) in [
        ("acks=2", 9, "t", none, 2, batch(&["x"])),
        ("no such topic", 9, "u", none, -1, batch(&["x"])),
        ("no such id", 13, "", Uuid::from_bytes([9; 16]), -1, batch(&["x"])),
        ("internal topic", 9, "__consumer_offsets", none, -1, batch(&["x"])),
        ("corrupt", 9, "t", none, -1, corrupt.into()),
        ("two batches", 9, "t", none, -1, two.into()),
        ("no batch", 9, "t", none, -1, Bytes::new()),
        ("garbage", 9, "t", none, -1, Bytes::from(vec![0xab; 100])),
        ("too large", 9, "t", none, -1, batch(&[&"x".repeat(3000)])),
        ("transactional", 9, "t", none, -1, transactional.build()),
        ("all is well", 9, "t", none, -1, batch(&["x"])),
    ] {
        let result = produce(&mut connection, version, topic, id, acks, records).await;
        writeln!(story, "{what}: {result}").expect("memory");
    }
    expect![[r#"
        acks=2: INVALID_REQUIRED_ACKS at -1
        no such topic: UNKNOWN_TOPIC_OR_PARTITION at -1
        no such id: UNKNOWN_TOPIC_ID at -1
        internal topic: INVALID_TOPIC_EXCEPTION at -1
        corrupt: CORRUPT_MESSAGE at -1
        two batches: INVALID_RECORD at -1
        no batch: INVALID_RECORD at -1
        garbage: INVALID_RECORD at -1
        too large: MESSAGE_TOO_LARGE at -1
        transactional: INVALID_TXN_STATE at -1
        all is well: NONE at 0
    "#]]
    .assert_eq(&story);
}

#[tokio::test]
async fn acks_0_is_not_answered_and_closes_the_connection_where_it_fails() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut connection = broker.connect().await;
    connection.send(9, &produce_request("t", 0, batch(&["x"]))).await.expect("sent");
    // The next answer is that of the next request.
    let versions = connection.call(0, &make!(ApiVersionsRequest {})).await.expect("an answer");
    assert_eq!(versions.error_code, 0);
    assert_eq!(broker.client().list_offset("t", 0, -1).await.expect("an offset"), Offset(1));
    connection.send(9, &produce_request("missing", 0, batch(&["x"]))).await.expect("sent");
    assert!(matches!(connection.receive_frame().await, Err(ClientError::Closed | ClientError::Io(_))));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut connection = broker.connect().await;
    let mut sent = Vec::new();
    for i in 0..200 {
        let request = produce_request("t", if i % 3 == 0 { 1 } else { -1 }, batch(&["x"]));
        sent.push(connection.send(9, &request).await.expect("sent"));
    }
    for (i, correlation_id) in sent.into_iter().enumerate() {
        let response = connection.receive::<ProduceRequest>(9, correlation_id).await.expect("an answer");
        assert_eq!(response.responses[0].partition_responses[0].base_offset, i as i64);
    }
}

fn fetch_request(version: i16, topic: &str, topic_id: Uuid, offset: i64) -> FetchRequest {
    let wanted = make!(FetchPartition { partition: 0, fetch_offset: offset, partition_max_bytes: 1 << 20 });
    let mut fetch_topic = make!(FetchTopic { partitions: vec![wanted] });
    if version >= 13 {
        fetch_topic.topic_id = topic_id;
    } else {
        fetch_topic.topic = topic.into();
    }
    let mut request =
        make!(FetchRequest { max_wait_ms: 0, min_bytes: 1, max_bytes: 1 << 20, topics: vec![fetch_topic] });
    if version < 15 {
        request.replica_id = -1;
    }
    if version >= 7 {
        request.session_epoch = -1;
    }
    request
}

fn describe_fetch(response: &FetchResponse) -> String {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let partitions = partitions.map(|p| {
        let records = p.records.as_ref().map_or("null".to_owned(), |records| records.len().to_string());
        format!(
            " [{} hw {} lso {} records {records}]",
            error_name(p.error_code),
            p.high_watermark,
            p.last_stable_offset
        )
    });
    format!("{}{}", error_name(response.error_code), partitions.collect::<String>())
}

#[tokio::test]
async fn fetch_in_every_version() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let topic_id = broker.broker.image().topic_id("t").expect("it was created").to_wire();
    let mut connection = broker.connect().await;
    produce(&mut connection, 9, "t", topic_id, -1, batch(&["a", "b"])).await;
    let mut shown = Vec::new();
    for version in 4..=18 {
        let mut fetched = String::new();
        for offset in [0, 2, 3] {
            let response = connection.call(version, &fetch_request(version, "t", topic_id, offset)).await;
            let response = describe_fetch(&response.expect("an answer"));
            write!(fetched, "\n    from {offset}: {response}").expect("memory");
        }
        shown.push((version, fetched));
    }
    let mut story = by_version(shown);
    let missing = connection.call(12, &fetch_request(12, "u", topic_id, 0)).await.expect("an answer");
    writeln!(story, "no such topic: {}", describe_fetch(&missing)).expect("memory");
    let missing = connection.call(13, &fetch_request(13, "", Uuid::from_bytes([9; 16]), 0)).await.expect("an answer");
    writeln!(story, "no such id: {}", describe_fetch(&missing)).expect("memory");
    expect![[r#"
        4-18:
            from 0: NONE [NONE hw 2 lso 2 records 83]
            from 2: NONE [NONE hw 2 lso 2 records 0]
            from 3: NONE [OFFSET_OUT_OF_RANGE hw -1 lso -1 records 0]
        no such topic: NONE [UNKNOWN_TOPIC_OR_PARTITION hw -1 lso -1 records 0]
        no such id: NONE [UNKNOWN_TOPIC_ID hw -1 lso -1 records 0]
    "#]]
    .assert_eq(&story);
}

#[tokio::test]
async fn a_clients_fetch_cannot_pass_for_a_followers() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let topic_id = broker.broker.image().topic_id("t").expect("it was created").to_wire();
    let mut connection = broker.connect().await;
    produce(&mut connection, 9, "t", topic_id, -1, batch(&["a"])).await;
    for version in 4..=18 {
        for replica_id in [0, 1, 2, 1000, -3, i32::MAX] {
            let mut request = fetch_request(version, "t", topic_id, 0);
            if version < 15 {
                request.replica_id = replica_id;
            } else {
                request.replica_state = make!(ReplicaState { replica_id, replica_epoch: 1 });
            }
            let response = connection.call(version, &request).await.expect("an answer");
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, ErrorCode::TopicAuthorizationFailed.code(), "{version} {replica_id}");
            assert_eq!(partition.records, Some(Bytes::new()));
            assert_eq!(response.session_id, 0);
        }
    }
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer_than_asked() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut consumer = broker.connect().await;
    let mut producer = broker.connect().await;
    let mut request = fetch_request(12, "t", Uuid::ZERO, 0);
    request.max_wait_ms = 300;
    let began = Instant::now();
    let response = consumer.call(12, &request).await.expect("an answer");
    assert_eq!(describe_fetch(&response), "NONE [NONE hw 0 lso 0 records 0]");
    assert!(began.elapsed() >= Duration::from_millis(300));

    request.max_wait_ms = 8000;
    let began = Instant::now();
    let sent = consumer.send(12, &request).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    produce(&mut producer, 9, "t", Uuid::ZERO, -1, batch(&["a"])).await;
    let response = consumer.receive::<FetchRequest>(12, sent).await.expect("an answer");
    assert!(describe_fetch(&response).starts_with("NONE [NONE hw 1"), "{}", describe_fetch(&response));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_first_batch_above_all_limits_is_sent_all_the_same() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut connection = broker.connect().await;
    let large = batch(&[&"x".repeat(10_000)]);
    produce(&mut connection, 9, "t", Uuid::ZERO, -1, large.clone()).await;
    produce(&mut connection, 9, "t", Uuid::ZERO, -1, large.clone()).await;
    let mut request = fetch_request(12, "t", Uuid::ZERO, 0);
    request.max_bytes = 100;
    request.topics[0].partitions[0].partition_max_bytes = 50;
    let response = connection.call(12, &request).await.expect("an answer");
    let records = response.responses[0].partitions[0].records.as_ref().expect("never null");
    assert_eq!(records.len(), large.len());
}

#[tokio::test]
async fn a_fetch_session_over_the_wire() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut connection = broker.connect().await;
    let mut first = fetch_request(12, "t", Uuid::ZERO, 0);
    first.session_epoch = 0;
    let response = connection.call(12, &first).await.expect("an answer");
    assert_ne!(response.session_id, 0);
    assert_eq!(response.responses.len(), 1);
    let mut next = make!(FetchRequest { replica_id: -1, max_wait_ms: 0, min_bytes: 1, max_bytes: 1 << 20 });
    next.session_id = response.session_id;
    next.session_epoch = 1;
    let response = connection.call(12, &next).await.expect("an answer");
    assert_eq!((response.error_code, response.responses.len()), (0, 0), "nothing is new");
    produce(&mut connection, 9, "t", Uuid::ZERO, -1, batch(&["a"])).await;
    next.session_epoch = 2;
    let response = connection.call(12, &next).await.expect("an answer");
    assert_eq!(response.responses.len(), 1);
    let response = connection.call(12, &next).await.expect("an answer");
    assert_eq!(response.error_code, ErrorCode::InvalidFetchSessionEpoch.code());
}

#[tokio::test]
async fn list_offsets_knows_ends_and_times() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut connection = broker.connect().await;
    produce(&mut connection, 9, "t", Uuid::ZERO, -1, batch(&["a", "b", "c"])).await;
    let mut story = String::new();
    for (version, timestamp, leader_epoch) in [
        (1, -1, -1),
        (1, -2, -1),
        (4, -1, 0),
        (4, -1, 7),
        (6, -3, -1),
        (7, -3, -1),
        (8, -4, -1),
        (9, -5, -1),
        (11, -6, -1),
        (11, -7, -1),
        (7, 0, -1),
        (7, 1001, -1),
        (7, 5000, -1),
    ] {
        let mut wanted = make!(ListOffsetsPartition { partition_index: 0, timestamp });
        if version >= 4 {
            wanted.current_leader_epoch = leader_epoch;
        }
        let topics = vec![make!(ListOffsetsTopic { name: "t".into(), partitions: vec![wanted] })];
        let response =
            connection.call(version, &make!(ListOffsetsRequest { replica_id: -1, topics })).await.expect("an answer");
        let found = &response.topics[0].partitions[0];
        let (error, offset) = (error_name(found.error_code), found.offset);
        let line =
            format!("v{version} {timestamp}: {error} {offset} at {} epoch {}", found.timestamp, found.leader_epoch);
        writeln!(story, "{line}").expect("memory");
    }
    expect![[r#"
        v1 -1: NONE 3 at -1 epoch -1
        v1 -2: NONE 0 at -1 epoch -1
        v4 -1: NONE 3 at -1 epoch 0
        v4 -1: UNKNOWN_LEADER_EPOCH -1 at -1 epoch -1
        v6 -3: UNSUPPORTED_VERSION -1 at -1 epoch -1
        v7 -3: NONE 2 at 1002 epoch 0
        v8 -4: NONE 0 at -1 epoch 0
        v9 -5: NONE -1 at -1 epoch -1
        v11 -6: NONE -1 at -1 epoch -1
        v11 -7: UNSUPPORTED_VERSION -1 at -1 epoch -1
        v7 0: NONE 0 at 1000 epoch 0
        v7 1001: NONE 1 at 1001 epoch 0
        v7 5000: NONE -1 at -1 epoch -1
    "#]]
    .assert_eq(&story);
}

#[tokio::test]
async fn offset_for_leader_epoch_tells_where_epochs_end() {
    let broker = TestBroker::start(&[]).await;
    broker.create_topic("t", 1).await;
    let mut connection = broker.connect().await;
    produce(&mut connection, 9, "t", Uuid::ZERO, -1, batch(&["a", "b", "c"])).await;
    let mut story = String::new();
    for (version, believed, epoch) in [(2, -1, 0), (3, 0, 0), (4, 0, 5), (4, 9, 0), (4, -1, -1)] {
        let wanted =
            make!(OffsetForLeaderPartition { partition: 0, current_leader_epoch: believed, leader_epoch: epoch });
        let topics = vec![make!(OffsetForLeaderTopic { topic: "t".into(), partitions: vec![wanted] })];
        let request = make!(OffsetForLeaderEpochRequest { replica_id: -2, topics });
        let response = connection.call(version, &request).await.expect("an answer");
        let found = &response.topics[0].partitions[0];
        let (error, end) = (error_name(found.error_code), found.end_offset);
        writeln!(story, "v{version} {epoch} in {believed}: {error} {} ends at {end}", found.leader_epoch)
            .expect("memory");
    }
    expect![[r#"
        v2 0 in -1: NONE 0 ends at 3
        v3 0 in 0: NONE 0 ends at 3
        v4 5 in 0: NONE -1 ends at -1
        v4 0 in 9: UNKNOWN_LEADER_EPOCH -1 ends at -1
        v4 -1 in -1: NONE -1 ends at -1
    "#]]
    .assert_eq(&story);
}

#[tokio::test]
async fn producer_ids_are_given_once_and_transactions_are_refused() {
    let broker = TestBroker::start(&[]).await;
    let mut connection = broker.connect().await;
    let mut given = std::collections::BTreeSet::new();
    for version in 0..=5 {
        for _ in 0..300 {
            let request = make!(InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: 1 });
            let response = connection.call(version, &request).await.expect("an answer");
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(given.insert(response.producer_id), "{} was given twice", response.producer_id);
        }
        let request = make!(InitProducerIdRequest { transactional_id: Some("t".into()), transaction_timeout_ms: 1 });
        let response = connection.call(version, &request).await.expect("an answer");
        assert_eq!(response.error_code, ErrorCode::TransactionalIdAuthorizationFailed.code());
    }
}

#[tokio::test]
async fn a_panicking_handler_costs_its_connection_and_no_other() {
    let broker = TestBroker::start(&[]).await;
    let mut victim = broker.connect().await;
    let mut bystander = broker.connect().await;
    broker.controller.panics.store(true, std::sync::atomic::Ordering::Relaxed);
    let metadata = make!(MetadataRequest { topics: None });
    assert!(matches!(victim.call(12, &metadata).await, Err(ClientError::Closed | ClientError::Io(_))));
    broker.controller.panics.store(false, std::sync::atomic::Ordering::Relaxed);
    bystander.call(12, &metadata).await.expect("an answer");
    broker.connect().await.call(12, &metadata).await.expect("an answer");
}

fn describe_metadata(response: &MetadataResponse, address: &str) -> String {
    let brokers = response.brokers.iter().map(|b| {
        assert_eq!(format!("{}:{}", b.host, b.port), address);
        b.node_id.to_string()
    });
    let topics = response.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let (error, leader, epoch) = (p.error_code, p.leader_id, p.leader_epoch);
            let (replicas, isr, offline) = (&p.replica_nodes, &p.isr_nodes, &p.offline_replicas);
            format!(" {}:{error}/{leader}@{epoch}{replicas:?}{isr:?}{offline:?}", p.partition_index)
        });
        let name = topic.name.as_deref().unwrap_or("null");
        let id = if topic.topic_id.is_zero() { "" } else { " id" };
        let internal = if topic.is_internal { " internal" } else { "" };
        let operations = topic.topic_authorized_operations;
        let (error, partitions) = (error_name(topic.error_code), partitions.collect::<String>());
        format!("\n    {name}{id}{internal} {error} ops {operations}{partitions}")
    });
    let cluster = response.cluster_id.as_deref().unwrap_or("null").replace(CLUSTER_ID, "ours");
    format!(
        "brokers {} controller {} cluster {cluster} ops {}{}",
        brokers.collect::<Vec<_>>().join(","),
        response.controller_id,
        response.cluster_authorized_operations,
        topics.collect::<String>()
    )
}

#[tokio::test]
async fn metadata_in_every_version() {
    let broker = TestBroker::start(&[("auto.create.topics.enable", "false")]).await;
    broker.create_topic("t", 2).await;
    broker.create_topic("__consumer_offsets", 1).await;
    let mut connection = broker.connect().await;
    let named = |name: &str| make!(MetadataRequestTopic { name: Some(name.into()) });
    let mut shown = Vec::new();
    for version in 0..=13 {
        let mut request = make!(MetadataRequest {
            topics: Some(vec![
                named("t"),
                named("__consumer_offsets"),
                named("missing"),
                named("bad name"),
                named("t")
            ]),
        });
        request.include_topic_authorized_operations = version >= 8;
        request.include_cluster_authorized_operations = (8..=10).contains(&version);
        let response = connection.call(version, &request).await.expect("an answer");
        shown.push((version, format!(" {}", describe_metadata(&response, &broker.address))));
    }
    expect![[r#"
        0: brokers 1 controller -1 cluster null ops -2147483648
            t NONE ops -2147483648 0:0/1@-1[1][1][] 1:0/1@-1[1][1][]
            __consumer_offsets NONE ops -2147483648 0:0/1@-1[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
        1: brokers 1 controller 1 cluster null ops -2147483648
            t NONE ops -2147483648 0:0/1@-1[1][1][] 1:0/1@-1[1][1][]
            __consumer_offsets internal NONE ops -2147483648 0:0/1@-1[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
        2-6: brokers 1 controller 1 cluster ours ops -2147483648
            t NONE ops -2147483648 0:0/1@-1[1][1][] 1:0/1@-1[1][1][]
            __consumer_offsets internal NONE ops -2147483648 0:0/1@-1[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
        7: brokers 1 controller 1 cluster ours ops -2147483648
            t NONE ops -2147483648 0:0/1@0[1][1][] 1:0/1@0[1][1][]
            __consumer_offsets internal NONE ops -2147483648 0:0/1@0[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
        8-9: brokers 1 controller 1 cluster ours ops 8096
            t NONE ops 3576 0:0/1@0[1][1][] 1:0/1@0[1][1][]
            __consumer_offsets internal NONE ops 3576 0:0/1@0[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
        10: brokers 1 controller 1 cluster ours ops 8096
            t id NONE ops 3576 0:0/1@0[1][1][] 1:0/1@0[1][1][]
            __consumer_offsets id internal NONE ops 3576 0:0/1@0[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
        11-13: brokers 1 controller 1 cluster ours ops -2147483648
            t id NONE ops 3576 0:0/1@0[1][1][] 1:0/1@0[1][1][]
            __consumer_offsets id internal NONE ops 3576 0:0/1@0[1][1][]
            missing UNKNOWN_TOPIC_OR_PARTITION ops -2147483648
            bad name INVALID_TOPIC_EXCEPTION ops -2147483648
    "#]]
    .assert_eq(&by_version(shown));
}

async fn check_topics(connection: &mut Connection, version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> String {
    let response = connection.call(version, &make!(MetadataRequest { topics })).await.expect("an answer");
    let topic = |t: &vltava_protocol::messages::metadata_response::MetadataResponseTopic| {
        format!("{} {}", t.name.as_deref().unwrap_or("null"), error_name(t.error_code))
    };
    format!("v{version}: {}\n", response.topics.iter().map(topic).collect::<Vec<_>>().join(", "))
}

#[tokio::test]
async fn all_topics_no_topics_and_topics_by_id() {
    let broker = TestBroker::start(&[("auto.create.topics.enable", "false")]).await;
    broker.create_topic("t", 1).await;
    let topic_id = broker.broker.image().topic_id("t").expect("it was created").to_wire();
    let mut connection = broker.connect().await;
    let mut story = String::new();
    let by_id = |topic_id| Some(vec![make!(MetadataRequestTopic { topic_id })]);
    story += &check_topics(&mut connection, 0, Some(vec![])).await;
    story += &check_topics(&mut connection, 1, Some(vec![])).await;
    story += &check_topics(&mut connection, 1, None).await;
    story += &check_topics(&mut connection, 13, None).await;
    story += &check_topics(&mut connection, 11, by_id(topic_id)).await;
    story += &check_topics(&mut connection, 12, by_id(topic_id)).await;
    story += &check_topics(&mut connection, 13, by_id(Uuid::from_bytes([9; 16]))).await;
    expect![[r#"
        v0: t NONE
        v1: 
        v1: t NONE
        v13: t NONE
        v11:  INVALID_REQUEST
        v12: t NONE
        v13: null UNKNOWN_TOPIC_ID
    "#]]
    .assert_eq(&story);
}

/// Asks in `version`; four keys a line.
async fn served_apis(broker: &TestBroker, version: i16) -> String {
    let mut request = make!(ApiVersionsRequest {});
    if version >= 3 {
        request.client_software_name = "test".into();
        request.client_software_version = "1.0".into();
    }
    let response = broker.connect().await.call(version, &request).await.expect("an answer");
    assert_eq!(response.error_code, 0);
    let mut story = String::new();
    for (i, api) in response.api_keys.iter().enumerate() {
        let name = ApiKey::from_code(api.api_key).map_or("?", ApiKey::name);
        let end = if i % 4 == 3 { "\n" } else { ", " };
        write!(story, "{name} {}-{}{end}", api.min_version, api.max_version).expect("memory");
    }
    for feature in &response.finalized_features {
        write!(story, "\n{} is {}", feature.name, feature.max_version_level).expect("memory");
    }
    story
}

#[tokio::test]
async fn api_versions_in_every_version() {
    let broker = TestBroker::start(&[]).await;
    let mut stories: Vec<String> = Vec::new();
    for version in 0..=4 {
        stories.push(served_apis(&broker, version).await);
    }
    expect![[r#"
        Produce 0-13, Fetch 4-18, ListOffsets 1-11, Metadata 0-13
        OffsetCommit 2-10, OffsetFetch 1-10, FindCoordinator 0-6, JoinGroup 0-9
        Heartbeat 0-4, LeaveGroup 0-5, SyncGroup 0-5, DescribeGroups 0-6
        ListGroups 0-5, ApiVersions 0-4, CreateTopics 2-7, DeleteTopics 1-6
        DeleteRecords 0-2, InitProducerId 0-5, OffsetForLeaderEpoch 2-4, DescribeConfigs 1-4
        AlterConfigs 0-2, AlterReplicaLogDirs 1-2, DescribeLogDirs 1-5, CreatePartitions 0-3
        DeleteGroups 0-2, ElectLeaders 0-2, IncrementalAlterConfigs 0-1, AlterPartitionReassignments 0-1
        ListPartitionReassignments 0-0, OffsetDelete 0-0, DescribeQuorum 0-2, DescribeCluster 0-2
        DescribeProducers 0-0, UnregisterBroker 0-0, ListConfigResources 0-1, DescribeTopicPartitions 0-0
    "#]]
    .assert_eq(&stories[0]);
    assert_eq!(stories[1], stories[0]);
    assert_eq!(stories[2], stories[0]);
    let features = "\neligible.leader.replicas.version is 1";
    assert_eq!(stories[3], stories[0].clone() + features);
    assert_eq!(stories[4], stories[3]);

    // Above the largest version: header and body of version 0, one key (KIP-511).
    let mut connection = broker.connect().await;
    connection.send_bytes(&[0, 0, 0, 12, 0, 18, 0x7f, 0xff, 0, 0, 0, 42, 0xff, 0xff, 9, 9]).await.expect("sent");
    let frame = connection.receive_frame().await.expect("an answer");
    assert_eq!(frame[..], [0, 0, 0, 42, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    // A client that does not name itself properly.
    let request = make!(ApiVersionsRequest { client_software_name: "-x-".into(), client_software_version: "1".into() });
    let response = connection.call(3, &request).await.expect("an answer");
    assert_eq!((response.error_code, response.api_keys.len()), (ErrorCode::InvalidRequest.code(), 0));
}
