//! DescribeQuorum: the metadata quorum's leader, and how far each member has come (KIP-595). Only the leader knows that,
//! so that it is asked, whichever broker the client has asked.

use std::time::Duration;

use tokio::time::Instant;
use vltava_metadata::ClusterImage;
use vltava_protocol::make;
use vltava_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use vltava_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse, WireId as _};
use vltava_types::{BrokerId, ErrorCode};

use crate::api::RequestContext;
use crate::controller::{QuorumStatus, ReplicaStatus};

const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// The request carries no timeout. An election takes less than this.
const TIMEOUT: Duration = Duration::from_secs(3);

pub async fn handle(context: &RequestContext<'_>, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let controller = &context.broker.controller;
    let asked = controller.leader_quorum_status(Instant::now() + TIMEOUT).await;
    let status = asked.unwrap_or_else(|_unavailable| QuorumStatus { leader: None, ..controller.quorum_status() });
    let asks_rightly = matches!(&request.topics[..], [topic]
        if topic.topic_name.as_str() == CLUSTER_METADATA_TOPIC
            && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0));
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            if asks_rightly { describe(context.version, &status) } else { unknown(partition.partition_index) }
        });
        make!(TopicData { topic_name: topic.topic_name.clone(), partitions: partitions.collect() })
    });
    let mut response = make!(DescribeQuorumResponse { topics: topics.collect() });
    if context.version >= 2 && asks_rightly {
        let members = status.voters.iter().chain(&status.observers);
        response.nodes = members.map(|member| node(&context.image, member.node_id)).collect();
    }
    response
}

fn unknown(partition_index: i32) -> PartitionData {
    make!(PartitionData { partition_index, error_code: ErrorCode::UnknownTopicOrPartition.code() })
}

fn describe(version: i16, status: &QuorumStatus) -> PartitionData {
    let Some(leader) = status.leader else {
        return make!(PartitionData { error_code: ErrorCode::LeaderNotAvailable.code(), leader_id: -1 });
    };
    make!(PartitionData {
        leader_id: leader.value(),
        leader_epoch: i32::try_from(status.term).unwrap_or(i32::MAX),
        high_watermark: status.high_watermark.value(),
        current_voters: status.voters.iter().map(|member| replica(version, member)).collect(),
        observers: status.observers.iter().map(|member| replica(version, member)).collect(),
    })
}

fn replica(version: i16, member: &ReplicaStatus) -> ReplicaState {
    let mut state = make!(ReplicaState {
        replica_id: member.node_id.value(),
        log_end_offset: member.log_end_offset.map_or(-1, |offset| offset.value()),
    });
    if version >= 1 {
        state.last_fetch_timestamp = member.last_fetch.map_or(-1, |time| time.value());
        state.last_caught_up_timestamp = member.last_caught_up.map_or(-1, |time| time.value());
    }
    if version >= 2 {
        state.replica_directory_id = member.directory_id.to_wire();
    }
    state
}

/// Where other nodes reach this one.
fn node(image: &ClusterImage, node_id: BrokerId) -> Node {
    let peer = image.broker(node_id).map(|broker| {
        let port = broker.peer.port;
        make!(Listener { name: "CONTROLLER".into(), host: broker.peer.host.as_str().into(), port })
    });
    make!(Node { node_id: node_id.value(), listeners: peer.into_iter().collect() })
}
