//! Input that no client should send: answered with an error or with a closed connection, and the broker serves on.

mod support;

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::time::timeout;
use vltava_client::{ClientError, Connection};
use vltava_protocol::make;
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use vltava_protocol::versions::ApiKey;

use support::TestBroker;

/// What became of a connection after some input.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Answered(Bytes),
    Closed,
    /// Neither within a short time: the broker waits for more.
    Waiting,
}

async fn reaction(connection: &mut Connection, input: &[u8]) -> Reaction {
    if connection.send_bytes(input).await.is_err() {
        return Reaction::Closed;
    }
    match timeout(Duration::from_millis(500), connection.receive_frame()).await {
        Ok(Ok(frame)) => Reaction::Answered(frame),
        Ok(Err(ClientError::Closed | ClientError::Io(_))) => Reaction::Closed,
        Ok(Err(error)) => panic!("{error}"),
        Err(_) => Reaction::Waiting,
    }
}

async fn check_serves(broker: &TestBroker) {
    let response = broker.connect().await.call(0, &make!(ApiVersionsRequest {})).await.expect("the broker serves");
    assert_eq!(response.error_code, 0);
}

/// A whole frame: length, header, body.
fn frame(api_key: i16, version: i16, is_flexible: bool, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.put_i16(1);
    frame.put_u8(b'c');
    if is_flexible {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    with_length(&frame)
}

fn with_length(bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(bytes.len()).expect("a short frame"));
    frame.put_slice(bytes);
    frame.freeze()
}

fn random(rng: &mut TestRng, length: usize) -> Vec<u8> {
    use proptest::prelude::Rng as _;
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[tokio::test]
async fn impossible_lengths_close_the_connection() {
    let broker = TestBroker::start(&[("socket.request.max.bytes", "1000000")]).await;
    for length in [-1, i32::MIN, i32::MAX, 1_000_001] {
        let mut connection = broker.connect().await;
        assert_eq!(reaction(&mut connection, &length.to_be_bytes()).await, Reaction::Closed, "{length}");
    }
    check_serves(&broker).await;
}

#[tokio::test]
async fn frames_too_short_for_a_header_close_the_connection() {
    let broker = TestBroker::start(&[]).await;
    let whole = frame(3, 1, false, &[0xff; 4]);
    for length in 0..11 {
        let mut connection = broker.connect().await;
        let input = with_length(&whole[4..4 + length]);
        assert_eq!(reaction(&mut connection, &input).await, Reaction::Closed, "{length} bytes");
    }
    check_serves(&broker).await;
}

#[tokio::test]
async fn truncated_frames_wait_and_are_dropped_when_the_client_leaves() {
    let broker = TestBroker::start(&[]).await;
    let whole = frame(3, 1, false, &[0xff; 4]);
    let mut waiting = Vec::new();
    for length in 0..whole.len() {
        let mut connection = broker.connect().await;
        connection.send_bytes(&whole[..length]).await.expect("sent");
        waiting.push((connection, length));
    }
    check_serves(&broker).await;
    for (mut connection, length) in waiting {
        // The rest still makes a whole request.
        assert!(matches!(reaction(&mut connection, &whole[length..]).await, Reaction::Answered(_)), "{length}");
    }
}

#[tokio::test]
async fn unknown_keys_and_versions_close_the_connection() {
    let broker = TestBroker::start(&[]).await;
    for (key, version) in [(4, 0), (7, 1), (52, 0), (1000, 0), (-1, 0), (i16::MIN, 0), (i16::MAX, 0)] {
        let mut connection = broker.connect().await;
        assert_eq!(reaction(&mut connection, &frame(key, version, false, &[])).await, Reaction::Closed, "{key}");
    }
    // Client telemetry and the new consumer protocol exist in Kafka and are not built here: that much can be said.
    for key in [71, 68] {
        let mut connection = broker.connect().await;
        let reaction = reaction(&mut connection, &frame(key, 0, true, &[0; 40])).await;
        assert!(!matches!(reaction, Reaction::Waiting), "{key}");
    }
    for api in ApiKey::ALL.iter().copied().filter(|api| *api != ApiKey::ApiVersions) {
        let versions = api.accepted_versions();
        for version in [*versions.start() - 1, *versions.end() + 1, i16::MIN, i16::MAX] {
            let mut connection = broker.connect().await;
            let input = frame(api.code(), version, true, &[0; 16]);
            assert_eq!(reaction(&mut connection, &input).await, Reaction::Closed, "{} {version}", api.name());
        }
    }
    check_serves(&broker).await;
}

#[tokio::test]
async fn random_bytes_never_stop_the_broker() {
    let broker = TestBroker::start(&[]).await;
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[1; 32]);
    for round in 0..200 {
        let mut connection = broker.connect().await;
        let bytes = random(&mut rng, 1 + round * 3);
        // Both as they are, where they begin with a length, and with a proper length before them.
        let input = if round % 2 == 0 { Bytes::from(bytes) } else { with_length(&bytes) };
        let _ = connection.send_bytes(&input).await;
    }
    check_serves(&broker).await;
}

/// Bodies that claim arrays, strings and byte fields as long as their type allows, with next to nothing behind them.
fn hostile_bodies(rng: &mut TestRng) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for fill in [0x00, 0x01, 0x7f, 0x80, 0xff] {
        bodies.push(vec![fill; 64]);
    }
    // A long length at each of the first places, with small or null fields before it.
    for position in 0..16 {
        for length in [&[0x7f, 0xff, 0xff, 0xff][..], &[0x00, 0x0f, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            for before in [0x00, 0x01, 0xff] {
                let mut body = vec![before; position];
                body.extend_from_slice(length);
                body.extend_from_slice(&[0; 8]);
                bodies.push(body);
            }
        }
    }
    bodies.extend((0..10).map(|i| random(rng, 20 * (i + 1))));
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_lengths_in_every_request_type_are_harmless() {
    let broker = TestBroker::start(&[("group.initial.rebalance.delay.ms", "0")]).await;
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[2; 32]);
    let before = resident_bytes();
    for api in ApiKey::ALL.iter().copied() {
        for version in api.accepted_versions() {
            for body in hostile_bodies(&mut rng) {
                // Each on a connection of its own, and not waited for: some are valid and take their time.
                let mut connection = broker.connect().await;
                let input = frame(api.code(), version, api.is_flexible(version), &body);
                let _ = connection.send_bytes(&input).await;
            }
        }
        check_serves(&broker).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 * 1024 * 1024, "the broker grew by {grown} bytes");
}

#[tokio::test]
async fn a_million_small_elements_are_refused_before_they_cost_memory() {
    let broker = TestBroker::start(&[]).await;
    let before = resident_bytes();
    // A Metadata request for as many topics with empty names as a frame of 15 MB can hold.
    let count = 7_000_000_i32;
    let mut body = BytesMut::new();
    body.put_i32(count);
    body.put_bytes(0, count as usize * 2);
    for _ in 0..5 {
        let mut connection = broker.connect().await;
        assert_eq!(reaction(&mut connection, &frame(3, 1, false, &body)).await, Reaction::Closed);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 * 1024 * 1024, "the broker grew by {grown} bytes");
    check_serves(&broker).await;
}

#[tokio::test]
async fn claims_of_large_frames_cost_nothing() {
    let broker = TestBroker::start(&[]).await;
    let before = resident_bytes();
    let mut claims = Vec::new();
    for _ in 0..200 {
        let mut connection = broker.connect().await;
        connection.send_bytes(&100_000_000_i32.to_be_bytes()).await.expect("sent");
        claims.push(connection);
    }
    check_serves(&broker).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "200 claims cost {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_not_served_without_end() {
    let broker = TestBroker::start(&[("auto.create.topics.enable", "false")]).await;
    let mut connection = broker.connect().await;
    let before = resident_bytes();
    // Each answer takes about 40 kB; nobody reads them.
    let topic = |i: usize| make!(MetadataRequestTopic { name: Some(format!("missing-{i:020}").into()) });
    let request = make!(MetadataRequest { topics: Some((0..1000).map(topic).collect()) });
    let mut sent = 0;
    while let Ok(result) = timeout(Duration::from_secs(1), connection.send(1, &request)).await {
        result.expect("the connection stays open");
        sent += 1;
        assert!(sent < 5000, "the broker took {sent} requests without an answer being read");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "unread answers cost {grown} bytes");
    check_serves(&broker).await;
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_by_address() {
    let broker = TestBroker::start(&[("max.connections.per.ip", "3")]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = broker.connect().await;
        connection.call(0, &make!(ApiVersionsRequest {})).await.expect("room");
        open.push(connection);
    }
    let mut refused = broker.connect().await;
    assert!(refused.call(0, &make!(ApiVersionsRequest {})).await.is_err());
    drop(open);
    let mut served = false;
    for _ in 0..100 {
        served = broker.connect().await.call(0, &make!(ApiVersionsRequest {})).await.is_ok();
        if served {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(served, "closed connections make room");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let broker = TestBroker::start(&[("connections.max.idle.ms", "200")]).await;
    let mut connection = broker.connect().await;
    connection.call(0, &make!(ApiVersionsRequest {})).await.expect("an answer");
    assert!(matches!(connection.receive_frame().await, Err(ClientError::Closed | ClientError::Io(_))));
}

#[tokio::test]
async fn stopping_finishes_requests_and_closes_connections() {
    let broker = TestBroker::start(&[]).await;
    let mut connection = broker.connect().await;
    connection.call(0, &make!(ApiVersionsRequest {})).await.expect("an answer");
    let address = broker.address.clone();
    timeout(Duration::from_secs(5), broker.server.stop()).await.expect("no request is in work");
    assert!(matches!(connection.receive_frame().await, Err(ClientError::Closed | ClientError::Io(_))));
    assert!(Connection::connect(&address, support::options()).await.is_err());
}

/// This process's memory, as the kernel counts it.
fn resident_bytes() -> usize {
    let statm = vltava_host::fs::read_to_string(std::path::Path::new("/proc/self/statm")).unwrap_or_default();
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
