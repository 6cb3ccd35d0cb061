//! A frame as a client sends it (without its length), for every API at every version: header, body, and of a Produce
//! request what validation says of its records.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use vltava_protocol::batch::validate_produce_format;
use vltava_protocol::frame::{Header, Incoming, decode_body, read_header};
use vltava_protocol::messages::*;
use vltava_protocol::versions::ApiKey;

use crate::record_batches::check_produced;

pub fn run(data: &[u8]) {
    match read_header(Bytes::copy_from_slice(data)) {
        Ok(Incoming::Request { header, body }) => request(&header, body),
        Ok(Incoming::NotBuilt { response, .. }) => {
            let length = response.first_chunk::<4>().expect("a frame has a length");
            assert_eq!(u32::from_be_bytes(*length) as usize, response.len() - 4, "the length is that of the frame");
        }
        Ok(Incoming::ApiVersionsTooNew { .. }) | Err(_) => {}
    }
}

macro_rules! decode {
    ($header:ident, $body:ident, $($api:ident => $request:ident,)*) => {
        match $header.api {
            ApiKey::Produce => produce($header, $body),
            $(ApiKey::$api => _ = check::<$request>($header, $body),)*
        }
    };
}

fn request(header: &Header, body: Bytes) {
    decode! { header, body,
        Fetch => FetchRequest,
        ListOffsets => ListOffsetsRequest,
        Metadata => MetadataRequest,
        OffsetCommit => OffsetCommitRequest,
        OffsetFetch => OffsetFetchRequest,
        FindCoordinator => FindCoordinatorRequest,
        JoinGroup => JoinGroupRequest,
        Heartbeat => HeartbeatRequest,
        LeaveGroup => LeaveGroupRequest,
        SyncGroup => SyncGroupRequest,
        DescribeGroups => DescribeGroupsRequest,
        ListGroups => ListGroupsRequest,
        ApiVersions => ApiVersionsRequest,
        CreateTopics => CreateTopicsRequest,
        DeleteTopics => DeleteTopicsRequest,
        DeleteRecords => DeleteRecordsRequest,
        InitProducerId => InitProducerIdRequest,
        OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
        DescribeConfigs => DescribeConfigsRequest,
        AlterConfigs => AlterConfigsRequest,
        AlterReplicaLogDirs => AlterReplicaLogDirsRequest,
        DescribeLogDirs => DescribeLogDirsRequest,
        CreatePartitions => CreatePartitionsRequest,
        DeleteGroups => DeleteGroupsRequest,
        ElectLeaders => ElectLeadersRequest,
        IncrementalAlterConfigs => IncrementalAlterConfigsRequest,
        AlterPartitionReassignments => AlterPartitionReassignmentsRequest,
        ListPartitionReassignments => ListPartitionReassignmentsRequest,
        OffsetDelete => OffsetDeleteRequest,
        DescribeQuorum => DescribeQuorumRequest,
        DescribeCluster => DescribeClusterRequest,
        DescribeProducers => DescribeProducersRequest,
        UnregisterBroker => UnregisterBrokerRequest,
        ListConfigResources => ListConfigResourcesRequest,
        DescribeTopicPartitions => DescribeTopicPartitionsRequest,
    }
}

/// What was decoded says the same once it is encoded and decoded again.
fn check<R: KafkaRequest + KafkaEncode + Debug + PartialEq>(header: &Header, body: Bytes) -> Option<R> {
    let request: R = decode_body(header, body).ok()?;
    let mut encoded = BytesMut::new();
    if request.encode_into(&mut encoded, ApiVersion::new(header.version)).is_ok() {
        let again: R = decode_body(header, encoded.freeze()).expect("what we encoded can be decoded");
        assert_eq!(again, request, "a request keeps its meaning");
    }
    Some(request)
}

fn produce(header: &Header, body: Bytes) {
    let Some(request) = check::<ProduceRequest>(header, body) else { return };
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    for records in partitions.filter_map(|partition| partition.records.as_ref()) {
        if let Ok(batch) = validate_produce_format(header.version, records) {
            check_produced(&batch, 0);
        }
    }
}
