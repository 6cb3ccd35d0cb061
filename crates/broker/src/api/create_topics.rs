//! CreateTopics: partitions placed by the controller, or where the client says.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use vltava_host::random;
use vltava_metadata::ClusterImage;
use vltava_metadata::controller::{
    ControllerError, ControllerRequest, ControllerResponse, CreateTopic, CreateTopics, CreatedTopicDetail,
};
use vltava_protocol::make;
use vltava_protocol::messages::create_topics_request::CreatableTopic;
use vltava_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use vltava_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, WireId as _};
use vltava_types::{BrokerId, ErrorCode, PartitionIndex, TopicId};

use crate::api::RequestContext;
use crate::api::config_resources::configs;
use crate::api::refused::{mismatched, refuse, timeout, told, unanswered};

/// Holds the metadata log itself, whose replicas are the quorum's.
const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

type Outcome = Result<(CreateTopic, CreatedTopicDetail), ControllerError>;

pub async fn handle(context: &RequestContext<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let outcomes = create(context, &request, deadline).await;
    if !request.validate_only {
        // A client that goes on with this broker finds its topics here.
        let created: Vec<TopicId> = outcomes.values().flatten().map(|(_, detail)| detail.topic_id).collect();
        let are_known = |image: &ClusterImage| created.iter().all(|id| image.topic(*id).is_some());
        context.broker.wait_for_image(deadline, are_known).await;
    }
    let topics = outcomes.iter().map(|(name, outcome)| describe(context, name, outcome)).collect();
    make!(CreateTopicsResponse { topics })
}

async fn create(
    context: &RequestContext<'_>,
    request: &CreateTopicsRequest,
    deadline: Instant,
) -> BTreeMap<String, Outcome> {
    let mut outcomes = BTreeMap::new();
    let mut wanted = vec![];
    let duplicates = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
    for topic in &request.topics {
        if duplicates.contains(topic.name.as_str()) {
            let refused = refuse(ErrorCode::InvalidRequest, "Duplicate topic name.");
            outcomes.insert(topic.name.to_string(), Err(refused));
            continue;
        }
        match to_create(topic) {
            Ok(topic) => wanted.push(topic),
            Err(refused) => _ = outcomes.insert(topic.name.to_string(), Err(refused)),
        }
    }
    if wanted.is_empty() {
        return outcomes;
    }

    let asked =
        ControllerRequest::CreateTopics(CreateTopics { topics: wanted.clone(), validate_only: request.validate_only });
    let failure = match context.broker.controller.call(asked, deadline).await {
        Ok(ControllerResponse::CreateTopics(created)) => {
            let mut created: BTreeMap<_, _> = created.into_iter().map(|topic| (topic.name, topic.result)).collect();
            for topic in wanted {
                let result =
                    created.remove(&topic.name).unwrap_or_else(|| Err(refuse(ErrorCode::UnknownServerError, "")));
                outcomes.insert(topic.name.clone(), result.map(|detail| (topic, detail)));
            }
            return outcomes;
        }
        Ok(other) => mismatched(&other),
        Err(_unavailable) => unanswered(ErrorCode::RequestTimedOut),
    };
    outcomes.extend(wanted.into_iter().map(|topic| (topic.name, Err(failure.clone()))));
    outcomes
}

/// Names that appear more than once.
pub fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// What the controller is asked for, as far as the request itself is in order.
fn to_create(topic: &CreatableTopic) -> Result<CreateTopic, ControllerError> {
    if topic.name.as_str() == CLUSTER_METADATA_TOPIC {
        let message = format!("Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.");
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    if !topic.assignments.is_empty() && topic.replication_factor != -1 {
        let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    if !topic.assignments.is_empty() && topic.num_partitions != -1 {
        let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    let mut assignments = BTreeMap::new();
    for assignment in &topic.assignments {
        let partition = PartitionIndex(assignment.partition_index);
        let brokers = assignment.broker_ids.iter().copied().map(BrokerId).collect();
        if assignments.insert(partition, brokers).is_some() {
            let message = format!("Found multiple manual partition assignments for partition {partition}");
            return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("Null value not supported for topic configs: {}", config.name);
            return Err(refuse(ErrorCode::InvalidConfig, message));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    Ok(CreateTopic {
        name: topic.name.to_string(),
        topic_id: TopicId::from_random(random::bytes()),
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments,
        configs,
        clamp_replication_factor: false,
    })
}

fn describe(context: &RequestContext<'_>, name: &str, outcome: &Outcome) -> CreatableTopicResult {
    let (error_code, error_message) = told(outcome);
    let mut result = make!(CreatableTopicResult { name: name.into(), error_code, error_message });
    let Ok((topic, detail)) = outcome else { return result };
    if context.version >= 7 {
        result.topic_id = detail.topic_id.to_wire();
    }
    if context.version >= 5 {
        result.num_partitions = detail.partition_count;
        result.replication_factor = detail.replication_factor;
        let entries = configs(context).describe_topic_with(&topic.configs).into_iter().map(|entry| {
            make!(CreatableTopicConfigs {
                name: entry.name.into(),
                value: entry.value.map(Into::into),
                read_only: entry.is_read_only,
                config_source: entry.source.code(),
                is_sensitive: entry.is_sensitive,
            })
        });
        result.configs = Some(entries.collect());
    }
    result
}
