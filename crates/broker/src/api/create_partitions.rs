//! CreatePartitions: more partitions for topics that exist.

use std::collections::BTreeMap;

use tokio::time::Instant;
use vltava_metadata::ClusterImage;
use vltava_metadata::controller::{
    ControllerError, ControllerRequest, ControllerResponse, CreatePartitionsTopic as Expansion,
};
use vltava_protocol::make;
use vltava_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use vltava_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use vltava_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use vltava_types::{BrokerId, ErrorCode};

use crate::api::RequestContext;
use crate::api::create_topics::duplicates;
use crate::api::refused::{mismatched, refuse, timeout, told, unanswered};

pub async fn handle(context: &RequestContext<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let duplicates = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
    let mut outcomes: BTreeMap<String, Result<(), ControllerError>> = duplicates
        .iter()
        .map(|name| ((*name).to_owned(), Err(refuse(ErrorCode::InvalidRequest, "Duplicate topic name."))))
        .collect();
    let wanted: Vec<Expansion> =
        request.topics.iter().filter(|topic| !duplicates.contains(topic.name.as_str())).map(to_expand).collect();
    if !wanted.is_empty() {
        outcomes.extend(expand(context, &wanted, request.validate_only, deadline).await);
    }
    let results = outcomes.iter().map(|(name, outcome)| {
        let (error_code, error_message) = told(outcome);
        make!(CreatePartitionsTopicResult { name: name.as_str().into(), error_code, error_message })
    });
    make!(CreatePartitionsResponse { results: results.collect() })
}

fn to_expand(topic: &CreatePartitionsTopic) -> Expansion {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let brokers = |ids: &Vec<i32>| ids.iter().copied().map(BrokerId).collect();
        assignments.iter().map(|assignment| brokers(&assignment.broker_ids)).collect()
    });
    Expansion { name: topic.name.to_string(), count: topic.count, assignments }
}

async fn expand(
    context: &RequestContext<'_>,
    wanted: &[Expansion],
    validate_only: bool,
    deadline: Instant,
) -> Vec<(String, Result<(), ControllerError>)> {
    let asked = ControllerRequest::CreatePartitions { topics: wanted.to_vec(), validate_only };
    let failure = match context.broker.controller.call(asked, deadline).await {
        Ok(ControllerResponse::CreatePartitions(outcomes)) => {
            if !validate_only {
                let succeeded = |name: &str| outcomes.iter().any(|(other, outcome)| other == name && outcome.is_ok());
                let grown = |image: &ClusterImage| {
                    wanted.iter().filter(|topic| succeeded(&topic.name)).all(|topic| {
                        let count = image.topic_by_name(&topic.name).map_or(i32::MAX as usize, |t| t.partitions.len());
                        count as i64 >= i64::from(topic.count)
                    })
                };
                context.broker.wait_for_image(deadline, grown).await;
            }
            return outcomes;
        }
        Ok(other) => mismatched(&other),
        Err(_unavailable) => unanswered(ErrorCode::RequestTimedOut),
    };
    wanted.iter().map(|topic| (topic.name.clone(), Err(failure.clone()))).collect()
}
