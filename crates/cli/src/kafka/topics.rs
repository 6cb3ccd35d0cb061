//! kafka-topics: lists, creates, describes, alters and deletes topics.

mod description;

use std::collections::BTreeMap;

use vltava_client::admin::ConfigResourceType;
use vltava_client::{Admin, AdminError, ApiError};
use vltava_protocol::make;
use vltava_protocol::messages::WireId as _;
use vltava_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use vltava_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use vltava_types::{ErrorCode, Uuid};

use super::exceptions;
use super::names::{self, Filter};
use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, join};
use crate::connect::Connection;
use crate::console::Console;
use description::{Configs, Known, Report, description};

const OPTIONS: &[OptionSpec] = &[
    value("bootstrap-server", "server to connect to", "REQUIRED: The brokers to begin with, host:port, by commas."),
    value("command-config", "command config property file", "A properties file with settings of the client."),
    flag("list", "List all topics."),
    flag("create", "Create a topic."),
    flag("delete", "Delete topics."),
    flag("alter", "Raise the number of partitions, and say where they are. Configs are altered by kafka-configs."),
    flag("describe", "Describe topics: their partitions, replicas and configs."),
    value("topic", "topic", "The topic. A regular expression, except with --create."),
    value("topic-id", "topic-id", "The id of the topic to describe."),
    value("config", "name=value", "With --create: a config of the topic. May be repeated."),
    value("delete-config", "name", "Has no effect any more; use kafka-configs."),
    value("partitions", "# of partitions", "The number of partitions, by default the cluster's num.partitions."),
    value("replication-factor", "replication factor", "The number of replicas, by default the cluster's."),
    value(
        "replica-assignment",
        "broker_id_for_part1_replica1 : broker_id_for_part1_replica2 , broker_id_for_part2_replica1 : \
         broker_id_for_part2_replica2 , ...",
        "The brokers of each partition of the topic that is created or altered.",
    ),
    flag("under-replicated-partitions", "With --describe: only partitions with replicas out of sync."),
    flag("unavailable-partitions", "With --describe: only partitions without a live leader."),
    flag("under-min-isr-partitions", "With --describe: only partitions below min.insync.replicas."),
    flag("at-min-isr-partitions", "With --describe: only partitions exactly at min.insync.replicas."),
    flag("topics-with-overrides", "With --describe: only topics that have configs of their own."),
    flag("if-exists", "With --alter, --delete or --describe: no failure where there is no such topic."),
    flag("if-not-exists", "With --create: no failure where there is such a topic already."),
    flag("exclude-internal", "With --list or --describe: without internal topics."),
    value(
        "partition-size-limit-per-response",
        "maximum number of partitions per response",
        "With --describe: ask for so many partitions at once.",
    ),
];

const ACTIONS: &[&str] = &["alter", "create", "describe", "list", "delete"];
const REPORTS: &[&str] =
    &["under-replicated-partitions", "under-min-isr-partitions", "at-min-isr-partitions", "unavailable-partitions"];
const ALTERED_BY_CONFIGS: &str = " (To alter topic configurations, the kafka-configs tool can be used.)";

/// Kafka's limit of partitions in one answer.
const PAGE: i32 = 2000;

/// Why the command was not carried out; told on standard output.
#[derive(Debug, thiserror::Error)]
enum TopicError {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Other(Failure),
}

impl From<AdminError> for TopicError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Api(error) => Self::Refused(exceptions::message(&error)),
            AdminError::Client(error) => Self::Refused(error.to_string()),
        }
    }
}

impl From<Failure> for TopicError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<std::io::Error> for TopicError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(Failure::Output(error))
    }
}

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    if let Some(code) = options.help_or_version(console, "Create, delete, describe, or change a topic.")? {
        return Ok(code);
    }
    check(&options, console)?;
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    match act(&options, &connection, console).await {
        Ok(()) => Ok(0),
        Err(TopicError::Other(failure @ Failure::Output(_))) => Err(failure),
        Err(error) => {
            console.line(format_args!("Error while executing topic command : {error}"))?;
            Ok(1)
        }
    }
}

async fn act(options: &Options, connection: &Connection, console: &mut Console<'_>) -> Result<(), TopicError> {
    if options.has("create") {
        return create(options, connection, console).await;
    }
    let filter = Filter::new(options.value("topic")?)?;
    let mut admin = super::reach(connection, console).await?;
    if options.has("list") {
        let names = matching(&mut admin, &filter, options.has("exclude-internal")).await?;
        return Ok(console.line(names.join("\n"))?);
    }
    if options.has("describe") {
        return describe(options, &filter, &mut admin, console).await;
    }
    let assignment = assignment(options)?;
    let names = matching(&mut admin, &filter, false).await?;
    if names.is_empty() && !options.has("if-exists") {
        return Err(missing(options));
    }
    if options.has("delete") {
        return Ok(admin.delete_topics(&names).await?);
    }
    let count = options.number("partitions")?.unwrap_or_default();
    let mut grown = vec![];
    for topic in admin.describe_topics(&names, PAGE).await? {
        let added = assignment.as_ref().map(|assignment| {
            let added = assignment.iter().skip(topic.partitions.len());
            added.map(|brokers| make!(CreatePartitionsAssignment { broker_ids: brokers.clone() })).collect()
        });
        let name = topic.name.clone().unwrap_or_default();
        grown.push(make!(CreatePartitionsTopic { name, count, assignments: added }));
    }
    if !grown.is_empty() {
        admin.create_partitions(grown).await?;
    }
    Ok(())
}

async fn create(options: &Options, connection: &Connection, console: &mut Console<'_>) -> Result<(), TopicError> {
    let refused = |message: String| Err(TopicError::Refused(message));
    let name = options.value("topic")?.unwrap_or_default();
    let partitions = options.number::<i32>("partitions")?;
    let replication_factor = options.number::<i32>("replication-factor")?;
    let assignment = assignment(options)?.unwrap_or_default();
    let configs = configs(options.values("config"))?;
    if name.contains(['.', '_']) {
        console.line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. \
             To avoid issues it is best to use either, but not both.",
        )?;
    }
    let replicas = match replication_factor.map(i16::try_from) {
        None => -1,
        Some(Ok(factor)) if factor >= 1 => factor,
        Some(_) => {
            return refused(format!("The replication factor must be between 1 and {} inclusive", i16::MAX));
        }
    };
    if partitions.is_some_and(|partitions| partitions < 1) {
        return refused("The partitions must be greater than 0".to_owned());
    }
    let assignments = assignment
        .into_iter()
        .zip(0..)
        .map(|(broker_ids, partition_index)| make!(CreatableReplicaAssignment { partition_index, broker_ids }));
    let configs = configs
        .into_iter()
        .map(|(name, value)| make!(CreatableTopicConfig { name: name.into(), value: Some(value.into()) }));
    let topic = make!(CreatableTopic {
        name: name.into(),
        num_partitions: partitions.unwrap_or(-1),
        replication_factor: replicas,
        assignments: assignments.collect(),
        configs: configs.collect(),
    });
    match super::reach(connection, console).await?.create_topic(topic).await {
        Ok(()) => Ok(console.line(format_args!("Created topic {name}."))?),
        Err(AdminError::Api(ApiError { code: ErrorCode::TopicAlreadyExists, .. })) if options.has("if-not-exists") => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn describe(
    options: &Options,
    filter: &Filter,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), TopicError> {
    let hides_internal = options.has("exclude-internal");
    let id = options.value("topic-id")?.map(topic_id).transpose()?.filter(|id| !id.is_zero());
    let names = match id {
        None => {
            let names = matching(admin, filter, hides_internal).await?;
            if names.is_empty() && options.has("topic") && !options.has("if-exists") {
                return Err(missing(options));
            }
            names
        }
        Some(id) => {
            let all = admin.topics(None).await?;
            let found = all.iter().filter(|topic| Uuid::from_wire(topic.topic_id) == id);
            let names: Vec<String> = found.filter_map(|topic| Some(topic.name.as_ref()?.to_string())).collect();
            if names.is_empty() && !options.has("if-exists") {
                return Err(TopicError::Refused(format!("TopicId '{id}' does not exist as expected")));
            }
            names
        }
    };
    let page = options.number("partition-size-limit-per-response")?.unwrap_or(PAGE);
    let mut topics = admin.describe_topics(&names, page).await?;
    for topic in &mut topics {
        ApiError::check(topic.error_code, None).map_err(AdminError::Api)?;
        if id.is_some() {
            // Kafka asks in another way here, which does not tell eligible leaders.
            for partition in &mut topic.partitions {
                partition.eligible_leader_replicas = None;
                partition.last_known_elr = None;
            }
        }
    }
    let resources: Vec<_> = names.iter().map(|name| (ConfigResourceType::Topic, name.clone())).collect();
    let mut configs = BTreeMap::new();
    if !resources.is_empty() {
        for result in admin.describe_configs(None, &resources).await? {
            ApiError::check(result.error_code, result.error_message.as_ref()).map_err(AdminError::Api)?;
            configs.insert(result.resource_name.to_string(), Configs::of(&result.configs));
        }
    }
    let live_brokers = admin.describe_cluster(false).await?.brokers.iter().map(|broker| broker.broker_id).collect();
    let mut moves = BTreeMap::new();
    for topic in admin.list_reassignments(None).await? {
        for partition in topic.partitions {
            moves.insert((topic.name.to_string(), partition.partition_index), partition);
        }
    }
    let known = Known { configs, live_brokers, moves };
    Ok(console.text(description(&topics, &known, &Report::of(options)))?)
}

/// The names of the topics that pass, in order.
async fn matching(admin: &mut Admin, filter: &Filter, hides_internal: bool) -> Result<Vec<String>, AdminError> {
    let topics = admin.topics(None).await?;
    let names = topics.into_iter().filter_map(|topic| topic.name).map(|name| name.to_string());
    Ok(names.filter(|name| filter.allows(name) && !(hides_internal && names::is_internal(name))).collect())
}

fn missing(options: &Options) -> TopicError {
    let name = options.values("topic").next().unwrap_or_default();
    TopicError::Refused(format!("Topic '{name}' does not exist as expected"))
}

/// An id, or what Kafka says of what is none.
fn topic_id(text: &str) -> Result<Uuid, TopicError> {
    const LONGEST: usize = 24;
    let refuse = |message| Err(TopicError::Refused(message));
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if let Some((prefix, _)) = text.split_at_checked(LONGEST).filter(|(_, rest)| !rest.is_empty()) {
        return refuse(format!("Input string with prefix `{prefix}` is too long to be decoded as a base64 UUID"));
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if let Some(byte) = text.bytes().find(|byte| !is_base64(*byte)) {
        return refuse(format!("Illegal base64 character {byte:x}"));
    }
    let bytes = text.len() * 3 / 4;
    refuse(format!(
        "Input string `{text}` decoded as {bytes} bytes, which is not equal to the expected 16 bytes of a base64-encoded \
         UUID"
    ))
}

/// The brokers of each partition: `1:2,2:3` puts partition 0 on 1 and 2, and partition 1 on 2 and 3.
fn assignment(options: &Options) -> Result<Option<Vec<Vec<i32>>>, TopicError> {
    let Some(text) = options.value("replica-assignment")?.filter(|text| !text.is_empty()) else { return Ok(None) };
    parse_assignment(text).map(Some).map_err(TopicError::Refused)
}

fn parse_assignment(text: &str) -> Result<Vec<Vec<i32>>, String> {
    let mut assignment: Vec<Vec<i32>> = vec![];
    for part in text.split(',') {
        let mut brokers = vec![];
        for id in part.split(':').map(str::trim) {
            brokers.push(id.parse().map_err(|_| format!("For input string: \"{id}\""))?);
        }
        let repeated = names::repeated(&brokers);
        if !repeated.is_empty() {
            let repeated = join(&repeated);
            return Err(format!("Partition replica lists may not contain duplicate entries: {repeated}"));
        }
        if assignment.first().is_some_and(|first| first.len() != brokers.len()) {
            let brokers = brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!("Partition {} has different replication factor: [{brokers}]", assignment.len()));
        }
        assignment.push(brokers);
    }
    Ok(assignment)
}

/// `name=value` pairs.
fn configs<'a>(pairs: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>, TopicError> {
    let mut configs = BTreeMap::new();
    for pair in pairs {
        let parts: Vec<&str> = pair.split('=').map(str::trim).collect();
        let [name, value] = parts[..] else {
            let message =
                "requirement failed: Invalid topic config: all configs to be added must be in the format \"key=val\".";
            return Err(TopicError::Refused(message.to_owned()));
        };
        configs.insert(name.to_owned(), value.to_owned());
    }
    Ok(configs)
}

/// What goes with what.
fn check(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        let message = "Command must include exactly one action: --list, --describe, --create, --alter or --delete";
        return Err(options.usage(message));
    }
    if options.has("delete-config") {
        console.complain("--delete-config has no effect since Kafka 4.0; use kafka-configs")?;
    }
    if !options.has("bootstrap-server") {
        return Err(Failure::Message("--bootstrap-server must be specified".to_owned()));
    }
    if options.has("describe") && options.has("if-exists") {
        if !options.has("topic") && !options.has("topic-id") {
            return Err(options.usage("--topic or --topic-id is required to describe a topic"));
        }
        if options.has("topic") && options.has("topic-id") {
            console.line(
                "Only topic id will be used when both --topic and --topic-id are specified and topicId is not \
                 Uuid.ZERO_UUID",
            )?;
        }
    }
    if !options.has("list") && !options.has("describe") {
        options.require(&["topic"])?;
    }
    if options.has("alter") {
        if options.has("config") {
            let message = "Option combination \"[[bootstrap-server], [config]]\" can't be used with option \"[alter]\"";
            return Err(options.usage(&format!("{message}{ALTERED_BY_CONFIGS}")));
        }
        options.require(&["partitions"])?;
    }
    let only_with = |name: &str, actions: &[&str]| {
        let others: Vec<&str> = ACTIONS.iter().copied().filter(|action| !actions.contains(action)).collect();
        options.conflict(name, &others)
    };
    only_with("config", &["alter", "create"])?;
    only_with("partitions", &["alter", "create"])?;
    only_with("replication-factor", &["create"])?;
    only_with("replica-assignment", &["alter", "create"])?;
    if options.has("create") {
        options.conflict("replica-assignment", &["partitions", "replication-factor"])?;
    }
    for report in REPORTS {
        options.conflict(report, &["topics-with-overrides"])?;
        only_with(report, &["describe"])?;
    }
    only_with("topics-with-overrides", &["describe"])?;
    only_with("if-exists", &["alter", "delete", "describe"])?;
    only_with("if-not-exists", &["create"])?;
    only_with("exclude-internal", &["list", "describe"])
}

#[cfg(test)]
mod tests {
    use super::parse_assignment;

    #[test]
    fn assignments_name_the_brokers_of_each_partition() {
        assert_eq!(parse_assignment("1:2, 2:3"), Ok(vec![vec![1, 2], vec![2, 3]]));
        assert_eq!(parse_assignment("1:x"), Err("For input string: \"x\"".to_owned()));
        let repeated = "Partition replica lists may not contain duplicate entries: 1";
        assert_eq!(parse_assignment("1:1"), Err(repeated.to_owned()));
        let uneven = "Partition 1 has different replication factor: [1, 2]";
        assert_eq!(parse_assignment("1,1:2"), Err(uneven.to_owned()));
    }
}
