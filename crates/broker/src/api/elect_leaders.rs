//! ElectLeaders: back to preferred leaders, or to anyone at all if nothing else is left (KIP-183, KIP-460).

use std::collections::BTreeMap;

use tokio::time::Instant;
use vltava_metadata::controller::{ControllerError, ControllerRequest, ControllerResponse, ElectionType};
use vltava_protocol::make;
use vltava_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use vltava_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use vltava_types::{ErrorCode, PartitionIndex, TopicPartition};

use crate::api::RequestContext;
use crate::api::refused::{mismatched, refuse, timeout, told, unanswered};

/// By topic and partition.
type Outcomes = BTreeMap<(String, i32), Result<(), ControllerError>>;

pub async fn handle(context: &RequestContext<'_>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    // Version 0 knew preferred elections only.
    let election_type = match request.election_type {
        0 => ElectionType::Preferred,
        1 => ElectionType::Unclean,
        _ => return make!(ElectLeadersResponse { error_code: ErrorCode::InvalidRequest.code() }),
    };
    let mut outcomes = Outcomes::new();
    let mut wanted = request.topic_partitions.as_ref().map(|_| vec![]);
    for topic in request.topic_partitions.iter().flatten() {
        let known = context.image.topic_by_name(&topic.topic);
        for &index in &topic.partitions {
            let partition = known.filter(|topic| topic.partition(PartitionIndex(index)).is_some());
            match (partition, &mut wanted) {
                (Some(topic), Some(wanted)) => {
                    wanted.push(TopicPartition { topic_id: topic.topic_id, partition: PartitionIndex(index) });
                }
                _ => {
                    let refused = refuse(ErrorCode::UnknownTopicOrPartition, "No such topic or partition.");
                    outcomes.insert((topic.topic.to_string(), index), Err(refused));
                }
            }
        }
    }
    let has_work = wanted.as_ref().is_none_or(|wanted| !wanted.is_empty());
    if has_work && let Err(failure) = elect(context, election_type, wanted.clone(), &request, &mut outcomes).await {
        if context.version >= 1 {
            return make!(ElectLeadersResponse { error_code: failure.code.code() });
        }
        // Version 0 has no error of its own; each partition carries it.
        for partition in wanted.unwrap_or_default() {
            outcomes.insert(named(context, partition), Err(failure.clone()));
        }
    }

    let mut results: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for ((topic, index), outcome) in &outcomes {
        let (error_code, error_message) = told(outcome);
        let result = make!(PartitionResult { partition_id: *index, error_code, error_message });
        results.entry(topic.clone()).or_default().push(result);
    }
    let results = results
        .into_iter()
        .map(|(topic, partition_result)| make!(ReplicaElectionResult { topic: topic.into(), partition_result }));
    make!(ElectLeadersResponse { replica_election_results: results.collect() })
}

async fn elect(
    context: &RequestContext<'_>,
    election_type: ElectionType,
    partitions: Option<Vec<TopicPartition>>,
    request: &ElectLeadersRequest,
    outcomes: &mut Outcomes,
) -> Result<(), ControllerError> {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let asked = ControllerRequest::ElectLeaders { election_type, partitions };
    match context.broker.controller.call(asked, deadline).await {
        Ok(ControllerResponse::ElectLeaders(elected)) => {
            outcomes.extend(elected.into_iter().map(|(partition, outcome)| (named(context, partition), outcome)));
            Ok(())
        }
        Ok(other) => Err(mismatched(&other)),
        Err(_unavailable) => Err(unanswered(ErrorCode::RequestTimedOut)),
    }
}

fn named(context: &RequestContext<'_>, partition: TopicPartition) -> (String, i32) {
    // The controller may know a topic that this image does not have yet.
    let newest = context.broker.image();
    let topic = context.image.topic(partition.topic_id).or_else(|| newest.topic(partition.topic_id));
    (topic.map(|topic| topic.name.clone()).unwrap_or_default(), partition.partition.value())
}
