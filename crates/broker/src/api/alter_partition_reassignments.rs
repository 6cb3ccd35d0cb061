//! AlterPartitionReassignments: moves replicas, or calls a move off (KIP-455).

use std::collections::BTreeMap;

use tokio::time::Instant;
use vltava_metadata::controller::{ControllerError, ControllerRequest, ControllerResponse, Reassignment};
use vltava_protocol::make;
use vltava_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use vltava_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use vltava_types::{BrokerId, ErrorCode, PartitionIndex, TopicPartition};

use crate::api::RequestContext;
use crate::api::refused::{mismatched, refuse, timeout, told, unanswered};

pub async fn handle(
    context: &RequestContext<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let mut response = make!(AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change
    });
    let wanted = wanted(context, &request);
    let mut outcomes: BTreeMap<TopicPartition, Result<(), ControllerError>> = BTreeMap::new();
    if !wanted.is_empty() {
        let asked = ControllerRequest::AlterPartitionReassignments {
            partitions: wanted,
            allow_replication_factor_change: request.allow_replication_factor_change,
        };
        let failure = match context.broker.controller.call(asked, deadline).await {
            Ok(ControllerResponse::AlterPartitionReassignments(decided)) => {
                outcomes.extend(decided);
                None
            }
            Ok(other) => Some(mismatched(&other)),
            Err(_unavailable) => Some(unanswered(ErrorCode::RequestTimedOut)),
        };
        if let Some(failure) = failure {
            (response.error_code, response.error_message) = told::<()>(&Err(failure));
            return response;
        }
    }

    let topics = request.topics.iter().map(|topic| {
        let known = context.image.topic_by_name(&topic.name);
        let partitions = topic.partitions.iter().map(|partition| {
            let index = PartitionIndex(partition.partition_index);
            let outcome = match known {
                Some(topic) => outcomes
                    .get(&TopicPartition { topic_id: topic.topic_id, partition: index })
                    .cloned()
                    .unwrap_or_else(|| Err(refuse(ErrorCode::UnknownServerError, ""))),
                None => {
                    let message = "Unable to find a topic with the specified name.";
                    Err(refuse(ErrorCode::UnknownTopicOrPartition, message))
                }
            };
            let (error_code, error_message) = told(&outcome);
            make!(ReassignablePartitionResponse { partition_index: index.value(), error_code, error_message })
        });
        make!(ReassignableTopicResponse { name: topic.name.clone(), partitions: partitions.collect() })
    });
    response.responses = topics.collect();
    response
}

fn wanted(context: &RequestContext<'_>, request: &AlterPartitionReassignmentsRequest) -> Vec<Reassignment> {
    let mut wanted = vec![];
    for topic in &request.topics {
        let Some(known) = context.image.topic_by_name(&topic.name) else { continue };
        for partition in &topic.partitions {
            let replicas = partition.replicas.as_ref();
            wanted.push(Reassignment {
                partition: TopicPartition {
                    topic_id: known.topic_id,
                    partition: PartitionIndex(partition.partition_index),
                },
                replicas: replicas.map(|replicas| replicas.iter().copied().map(BrokerId).collect()),
            });
        }
    }
    wanted
}
