//! Stories about frames: what is answered, what closes the connection, and what hostile bytes can do (nothing).

use bytes::{BufMut, Bytes, BytesMut};
use expect_test::expect;
use proptest::prelude::*;
use vltava_protocol::frame::{FrameError, Incoming, decode_body, encode_response, read_header};
use vltava_protocol::make;
use vltava_protocol::messages::*;
use vltava_protocol::versions::ApiKey;

/// Calls `$body` with `$Request` standing for the request type of `$api`.
macro_rules! with_request_type {
    ($api:expr, $Request:ident => $body:expr) => {
        with_request_type!(@arms $api, $Request => $body;
            Produce ProduceRequest, Fetch FetchRequest, ListOffsets ListOffsetsRequest, Metadata MetadataRequest,
            OffsetCommit OffsetCommitRequest, OffsetFetch OffsetFetchRequest, FindCoordinator FindCoordinatorRequest,
            JoinGroup JoinGroupRequest, Heartbeat HeartbeatRequest, LeaveGroup LeaveGroupRequest,
            SyncGroup SyncGroupRequest, DescribeGroups DescribeGroupsRequest, ListGroups ListGroupsRequest,
            ApiVersions ApiVersionsRequest, CreateTopics CreateTopicsRequest, DeleteTopics DeleteTopicsRequest,
            DeleteRecords DeleteRecordsRequest, InitProducerId InitProducerIdRequest,
            OffsetForLeaderEpoch OffsetForLeaderEpochRequest, DescribeConfigs DescribeConfigsRequest,
            AlterConfigs AlterConfigsRequest,
            AlterReplicaLogDirs AlterReplicaLogDirsRequest, DescribeLogDirs DescribeLogDirsRequest,
            CreatePartitions CreatePartitionsRequest, DeleteGroups DeleteGroupsRequest,
            ElectLeaders ElectLeadersRequest, IncrementalAlterConfigs IncrementalAlterConfigsRequest,
            AlterPartitionReassignments AlterPartitionReassignmentsRequest,
            ListPartitionReassignments ListPartitionReassignmentsRequest, OffsetDelete OffsetDeleteRequest,
            DescribeQuorum DescribeQuorumRequest, DescribeCluster DescribeClusterRequest,
            DescribeProducers DescribeProducersRequest, UnregisterBroker UnregisterBrokerRequest,
            ListConfigResources ListConfigResourcesRequest, DescribeTopicPartitions DescribeTopicPartitionsRequest)
    };
    (@arms $api:expr, $Request:ident => $body:expr; $($key:ident $ty:ident),*) => {
        match $api {
            $(ApiKey::$key => {
                type $Request = $ty;
                $body
            })*
        }
    };
}

fn frame(api_key: i16, version: i16, flexible: bool, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.put_i16(4);
    frame.put_slice(b"test");
    if flexible {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

fn read(frame: Bytes) -> Result<(), FrameError> {
    match read_header(frame)? {
        Incoming::Request { header, body } => {
            with_request_type!(header.api, R => decode_body::<R>(&header, body).map(|_| ()))
        }
        Incoming::ApiVersionsTooNew { .. } | Incoming::NotBuilt { .. } => Ok(()),
    }
}

#[test]
fn the_table_agrees_with_the_schemas() {
    for &api in ApiKey::ALL {
        with_request_type!(api, R => {
            assert_eq!(R::API_KEY.value(), api.code());
            assert_eq!(format!("{}Request", api.name()), R::NAME);
            for version in api.accepted_versions() {
                let wire = ApiVersion::new(version);
                assert!(R::supports(wire), "{} {version}", api.name());
                assert_eq!(R::is_flexible(wire), api.is_flexible(version), "{} {version}", api.name());
                let response = <R as RequestResponsePair>::Response::supports(wire);
                assert!(response, "{} {version}", api.name());
            }
        });
    }
}

#[test]
fn advertised_ranges_are_those_of_kafka_4_3() {
    let told: String = ApiKey::ALL
        .iter()
        .map(|api| {
            let versions = api.advertised_versions();
            format!("{} {} {}-{}\n", api.code(), api.name(), versions.start(), versions.end())
        })
        .collect();
    expect![[r#"
        0 Produce 0-13
        1 Fetch 4-18
        2 ListOffsets 1-11
        3 Metadata 0-13
        8 OffsetCommit 2-10
        9 OffsetFetch 1-10
        10 FindCoordinator 0-6
        11 JoinGroup 0-9
        12 Heartbeat 0-4
        13 LeaveGroup 0-5
        14 SyncGroup 0-5
        15 DescribeGroups 0-6
        16 ListGroups 0-5
        18 ApiVersions 0-4
        19 CreateTopics 2-7
        20 DeleteTopics 1-6
        21 DeleteRecords 0-2
        22 InitProducerId 0-5
        23 OffsetForLeaderEpoch 2-4
        32 DescribeConfigs 1-4
        33 AlterConfigs 0-2
        34 AlterReplicaLogDirs 1-2
        35 DescribeLogDirs 1-5
        37 CreatePartitions 0-3
        42 DeleteGroups 0-2
        43 ElectLeaders 0-2
        44 IncrementalAlterConfigs 0-1
        45 AlterPartitionReassignments 0-1
        46 ListPartitionReassignments 0-0
        47 OffsetDelete 0-0
        55 DescribeQuorum 0-2
        60 DescribeCluster 0-2
        61 DescribeProducers 0-0
        64 UnregisterBroker 0-0
        74 ListConfigResources 0-1
        75 DescribeTopicPartitions 0-0
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_request_round_trips_at_every_version() {
    for &api in ApiKey::ALL {
        with_request_type!(api, R => {
            for version in api.accepted_versions() {
                let mut buffer = BytesMut::new();
                let limits = OutboundFrameLimits::new(1 << 20);
                let id = Some(StrBytes::from("me"));
                let request = R::default();
                let Ok(_) = encode_request(&mut buffer, 5, id, &request, ApiVersion::new(version), limits) else {
                    // Some defaults cannot be sent at some versions, such as an absent name.
                    continue;
                };
                let frame = buffer.freeze().slice(4..);
                let Incoming::Request { header, body } = read_header(frame).expect("a sound header") else {
                    panic!("a supported version");
                };
                assert_eq!((header.api, header.version, header.correlation_id), (api, version, 5));
                assert_eq!(header.client_id.as_deref(), Some("me"));
                decode_body::<R>(&header, body).expect("a sound body");
            }
        });
    }
}

#[test]
fn headers_that_cannot_be_served() {
    let told = |frame| match read_header(frame) {
        Ok(Incoming::ApiVersionsTooNew { correlation_id }) => format!("too new {correlation_id}"),
        Ok(Incoming::NotBuilt { api_key, .. }) => format!("not built {api_key}"),
        Ok(Incoming::Request { header, .. }) => format!("{:?} {}", header.api, header.version),
        Err(error) => error.to_string(),
    };
    assert_eq!(told(frame(18, 9, true, &[])), "too new 77");
    assert_eq!(told(frame(18, -1, false, &[])), "too new 77");
    assert_eq!(told(frame(3, 99, true, &[])), "version 99 of Metadata is not supported");
    assert_eq!(told(frame(0, 2, false, &[])), "version 2 of Produce is not supported");
    assert_eq!(told(frame(68, 0, true, &[])), "not built 68");
    assert_eq!(told(frame(68, 9, true, &[])), "unknown or unsupported api key 68 (version 9)");
    assert_eq!(told(frame(4, 0, false, &[])), "unknown or unsupported api key 4 (version 0)");
    assert_eq!(told(frame(-7, 0, false, &[])), "unknown or unsupported api key -7 (version 0)");
    assert_eq!(told(frame(3, 1, false, &[])), "Metadata 1");
    assert!(told(Bytes::from_static(&[0, 3])).starts_with("malformed request header"));
    let large = frame(3, 1, false, &vec![0; 17 << 20]);
    assert!(told(large).starts_with("Metadata request of"));
}

#[test]
fn responses_have_the_header_of_their_version() {
    let response = make!(ApiVersionsResponse { error_code: 35 });
    let bytes = encode_response(ApiKey::ApiVersions, 3, 9, &response).expect("encodable");
    // Length, correlation id without tagged fields, error code, no keys, throttle time, tagged fields.
    assert_eq!(bytes[..], [0, 0, 0, 12, 0, 0, 0, 9, 0, 35, 1, 0, 0, 0, 0, 0]);
    let response = make!(HeartbeatResponse { error_code: 27 });
    let bytes = encode_response(ApiKey::Heartbeat, 4, 9, &response).expect("encodable");
    assert_eq!(bytes[..], [0, 0, 0, 12, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 27, 0]);
    let bytes = encode_response(ApiKey::Heartbeat, 0, 9, &response).expect("encodable");
    assert_eq!(bytes[..], [0, 0, 0, 6, 0, 0, 0, 9, 0, 27]);
}

#[test]
fn hostile_array_lengths_are_refused_in_every_request() {
    for &api in ApiKey::ALL {
        for version in api.accepted_versions() {
            let flexible = api.is_flexible(version);
            // Wherever an array may start, its length claims the most there is.
            for lead in 0..24 {
                for claim in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x7f, 0xff]] {
                    let mut body = vec![0; lead];
                    body.extend_from_slice(claim);
                    let _ = read(frame(api.code(), version, flexible, &body));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for &api in ApiKey::ALL {
            for version in api.accepted_versions() {
                let _ = read(frame(api.code(), version, api.is_flexible(version), &body));
            }
        }
    }

    #[test]
    fn bodies_of_small_numbers_never_panic(body in proptest::collection::vec(0u8..4, 0..200)) {
        for &api in ApiKey::ALL {
            for version in api.accepted_versions() {
                let _ = read(frame(api.code(), version, api.is_flexible(version), &body));
            }
        }
    }

    #[test]
    fn random_frames_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(Bytes::from(frame));
    }
}

#[test]
fn partitions_of_a_few_bytes_cannot_fill_the_memory() {
    let mut body = BytesMut::new();
    body.put_i16(-1);
    body.put_i16(1);
    body.put_i32(1000);
    body.put_i32(1000);
    for _ in 0..1000 {
        body.put_i16(0);
        body.put_i32(1000);
        for index in 0..1000 {
            body.put_i32(index);
            body.put_i32(-1);
        }
    }
    let error = read(frame(0, 3, false, &body)).expect_err("a million partitions");
    assert!(error.to_string().contains("topics and partitions"), "{error}");
}
