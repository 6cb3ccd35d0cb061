//! Topics: creation, more partitions, deletion.

use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

use super::configs::check_topic_configs;
use super::draft::{Draft, error};
use super::growth;
use super::placement::{check_manual_assignment, place};
use super::{
    Controller, ControllerError, CreatePartitionsTopic, CreateTopic, CreateTopics, CreatedTopic, CreatedTopicDetail,
    Decision, DeletedTopics, TopicSelector,
};
use crate::image::ClusterImage;
use crate::record::{ConfigResource, MetadataRecord, PartitionRecord};

const MAX_NAME_LENGTH: usize = 249;

type Expansions = Vec<(String, Result<(), ControllerError>)>;

impl Controller {
    pub(super) fn create_topics(&self, image: &ClusterImage, request: &CreateTopics) -> Decision<Vec<CreatedTopic>> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let mut budget = self.config.max_partitions_per_request;
        let mut created = vec![];
        for topic in &request.topics {
            let result = create_topic(&mut draft, topic, &mut budget);
            created.push(CreatedTopic { name: topic.name.clone(), result });
        }
        decide_unless(request.validate_only, draft, created)
    }

    pub(super) fn create_partitions(
        &self,
        image: &ClusterImage,
        topics: &[CreatePartitionsTopic],
        validate_only: bool,
    ) -> Decision<Expansions> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let mut budget = self.config.max_partitions_per_request;
        let mut expanded = vec![];
        for topic in topics {
            expanded.push((topic.name.clone(), add_partitions(&mut draft, topic, &mut budget)));
        }
        decide_unless(validate_only, draft, expanded)
    }

    pub(super) fn delete_topics(&self, image: &ClusterImage, topics: &[TopicSelector]) -> Decision<DeletedTopics> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let deleted = topics.iter().map(|selector| (selector.clone(), delete_topic(&mut draft, selector))).collect();
        draft.decide(deleted)
    }
}

fn decide_unless<T>(validate_only: bool, draft: Draft<'_>, response: T) -> Decision<T> {
    if validate_only { Decision { records: vec![], response } } else { draft.decide(response) }
}

fn create_topic(
    draft: &mut Draft<'_>,
    request: &CreateTopic,
    budget: &mut usize,
) -> Result<CreatedTopicDetail, ControllerError> {
    check_name(&request.name)?;
    if draft.image.topic_by_name(&request.name).is_some() {
        let message = format!("Topic '{}' already exists.", request.name);
        return Err(error(ErrorCode::TopicAlreadyExists, message));
    }
    check_collision(&draft.image, &request.name)?;
    if request.topic_id.is_zero() || draft.image.topic(request.topic_id).is_some() {
        return Err(error(ErrorCode::InvalidRequest, "The topic id must be a new one."));
    }
    check_topic_configs(&request.configs)?;

    let assignments = if request.assignments.is_empty() {
        let (count, replication_factor) = check_counts(draft, request)?;
        spend(budget, count)?;
        place(&draft.image, request.topic_id, count, replication_factor)?
    } else {
        let assignments = check_assignments(draft, request)?;
        spend(budget, assignments.len())?;
        assignments
    };
    let partitions = assign(draft, request.topic_id, 0, &assignments)?;

    let detail = CreatedTopicDetail {
        topic_id: request.topic_id,
        partition_count: i32::try_from(assignments.len()).expect("bounded by the budget"),
        replication_factor: i16::try_from(assignments.first().map_or(0, Vec::len)).unwrap_or(i16::MAX),
    };
    draft.push(MetadataRecord::Topic { topic_id: request.topic_id, name: request.name.clone() });
    for (name, value) in &request.configs {
        let resource = ConfigResource::Topic(request.topic_id);
        draft.push(MetadataRecord::Config { resource, name: name.clone(), value: Some(value.clone()) });
    }
    if detail.replication_factor < request.replication_factor {
        let (resource, value) = (ConfigResource::Topic(request.topic_id), request.replication_factor.to_string());
        draft.push(MetadataRecord::Config { resource, name: growth::TARGET.to_owned(), value: Some(value) });
    }
    for partition in partitions {
        draft.push(MetadataRecord::Partition(partition));
    }
    Ok(detail)
}

/// Kafka's rules for names, which become names of directories and metrics.
fn check_name(name: &str) -> Result<(), ControllerError> {
    let refuse = |message: String| Err(error(ErrorCode::InvalidTopicException, message));
    if name.is_empty() {
        return refuse("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return refuse(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    if name.len() > MAX_NAME_LENGTH {
        return refuse(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return refuse(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ));
    }
    Ok(())
}

/// Names that differ in `.` and `_` only collide as metrics.
fn check_collision(image: &ClusterImage, name: &str) -> Result<(), ControllerError> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let as_metric = |name: &str| name.replace('.', "_");
    let metric = as_metric(name);
    match image.topic_ids.keys().find(|existing| existing.contains(['.', '_']) && as_metric(existing) == metric) {
        Some(existing) => {
            let message = format!("Topic '{name}' collides with existing topic: {existing}");
            Err(error(ErrorCode::InvalidTopicException, message))
        }
        None => Ok(()),
    }
}

fn check_counts(draft: &Draft<'_>, request: &CreateTopic) -> Result<(usize, i16), ControllerError> {
    let mut replication_factor = match request.replication_factor {
        -1 => draft.config.default_replication_factor,
        ..=0 => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(error(ErrorCode::InvalidReplicationFactor, message));
        }
        given => given,
    };
    let count = match request.partition_count {
        -1 => draft.config.default_partition_count,
        ..=0 => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(error(ErrorCode::InvalidPartitions, message));
        }
        given => given,
    };
    if request.clamp_replication_factor {
        let brokers = draft.image.live_brokers().filter(|broker| !broker.in_controlled_shutdown).count();
        replication_factor = replication_factor.min(i16::try_from(brokers).unwrap_or(i16::MAX)).max(1);
    }
    Ok((usize::try_from(count).unwrap_or(0), replication_factor))
}

fn check_assignments(draft: &Draft<'_>, request: &CreateTopic) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
    if request.replication_factor != -1 {
        let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return Err(error(ErrorCode::InvalidRequest, message));
    }
    if request.partition_count != -1 {
        let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return Err(error(ErrorCode::InvalidRequest, message));
    }
    let expected = (0..).map(PartitionIndex);
    if !request.assignments.keys().copied().eq(expected.take(request.assignments.len())) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(error(ErrorCode::InvalidReplicaAssignment, message));
    }
    let mut replication_factor = None;
    for replicas in request.assignments.values() {
        check_manual_assignment(&draft.image, replicas, replication_factor)?;
        replication_factor = Some(replicas.len());
    }
    Ok(request.assignments.values().cloned().collect())
}

/// New partitions, led by the first of their replicas that is up.
fn assign(
    draft: &Draft<'_>,
    topic_id: TopicId,
    first: i32,
    assignments: &[Vec<BrokerId>],
) -> Result<Vec<PartitionRecord>, ControllerError> {
    let mut partitions = vec![];
    for (partition, replicas) in (first..).map(PartitionIndex).zip(assignments) {
        let isr: Vec<BrokerId> = replicas.iter().copied().filter(|replica| draft.image.is_active(*replica)).collect();
        if isr.is_empty() {
            let message = format!(
                "All brokers specified in the manual partition assignment for partition {partition} are fenced or in \
                 controlled shutdown."
            );
            return Err(error(ErrorCode::InvalidReplicaAssignment, message));
        }
        partitions.push(PartitionRecord {
            topic_id,
            partition,
            replicas: replicas.clone(),
            leader: isr.first().copied(),
            isr,
            eligible_leader_replicas: vec![],
            last_known_leader: None,
            adding_replicas: vec![],
            removing_replicas: vec![],
            leader_recovering: false,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
        });
    }
    Ok(partitions)
}

fn add_partitions(
    draft: &mut Draft<'_>,
    request: &CreatePartitionsTopic,
    budget: &mut usize,
) -> Result<(), ControllerError> {
    let Some(topic) = draft.image.topic_by_name(&request.name) else {
        return Err(error(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition."));
    };
    let topic_id = topic.topic_id;
    let current = i32::try_from(topic.partitions.len()).expect("partitions are numbered by i32");
    // That of the first partition, after any reassignment under way.
    let replication_factor =
        topic.partitions.first().map_or(1, |first| first.replicas.len() - first.removing_replicas.len());
    if request.count == current {
        let message = format!("Topic already has {current} partition(s).");
        return Err(error(ErrorCode::InvalidPartitions, message));
    }
    if request.count < current {
        let message = format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase.",
            request.name, request.count
        );
        return Err(error(ErrorCode::InvalidPartitions, message));
    }
    let added = usize::try_from(request.count - current).expect("the count is larger");
    let assignments = match &request.assignments {
        Some(assignments) if assignments.len() != added => {
            let message = format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(error(ErrorCode::InvalidReplicaAssignment, message));
        }
        Some(assignments) => {
            for replicas in assignments {
                check_manual_assignment(&draft.image, replicas, Some(replication_factor))?;
            }
            spend(budget, added)?;
            assignments.clone()
        }
        None => {
            spend(budget, added)?;
            place(&draft.image, topic_id, added, i16::try_from(replication_factor).unwrap_or(i16::MAX))?
        }
    };
    for partition in assign(draft, topic_id, current, &assignments)? {
        draft.push(MetadataRecord::Partition(partition));
    }
    Ok(())
}

fn delete_topic(draft: &mut Draft<'_>, selector: &TopicSelector) -> Result<(TopicId, String), ControllerError> {
    let found = match selector {
        TopicSelector::Name(name) => draft.image.topic_by_name(name),
        TopicSelector::Id(topic_id) => draft.image.topic(*topic_id),
    };
    let Some(topic) = found else {
        return Err(match selector {
            TopicSelector::Name(_) => {
                error(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")
            }
            TopicSelector::Id(_) => error(ErrorCode::UnknownTopicId, "This server does not host this topic ID."),
        });
    };
    let deleted = (topic.topic_id, topic.name.clone());
    draft.push(MetadataRecord::RemoveTopic { topic_id: deleted.0 });
    Ok(deleted)
}

/// One request must not fill the metadata log.
fn spend(budget: &mut usize, partitions: usize) -> Result<(), ControllerError> {
    match budget.checked_sub(partitions) {
        Some(rest) => {
            *budget = rest;
            Ok(())
        }
        None => Err(error(ErrorCode::PolicyViolation, "Excessively large number of partitions per request.")),
    }
}
