//! kafka-reassign-partitions: moves partitions to other brokers, and follows or cancels such moves.

mod document;
mod placement;
mod progress;
mod throttles;

use std::collections::{BTreeMap, BTreeSet};

use vltava_client::admin::{ByPartition, Partition};
use vltava_client::{Admin, AdminError, ApiError};
use vltava_host::random;
use vltava_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;
use vltava_types::ErrorCode;

use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, exceptions, join, json, last_words, names};
use crate::connect::Connection;
use crate::console::Console;
use document::{Replica, Target};
use progress::{directory_states, listed, states};

const OPTIONS: &[OptionSpec] = &[
    flag("verify", "Say how far the moves of --reassignment-json-file are, and lift throttles when all are done."),
    flag("generate", "Propose where the topics of --topics-to-move-json-file could go. Moves nothing."),
    flag("execute", "Move partitions as --reassignment-json-file says."),
    flag("cancel", "Cancel the moves of --reassignment-json-file that are under way."),
    flag("list", "List all moves under way."),
    value(
        "bootstrap-server",
        "Server(s) to use for bootstrapping",
        "REQUIRED: The brokers to begin with, host:port, by commas.",
    ),
    value("bootstrap-controller", "bootstrap controller to connect to", "Not supported: ask the brokers."),
    value("command-config", "Admin client property file", "A properties file with settings of the client."),
    value(
        "reassignment-json-file",
        "manual assignment json file path",
        "{\"partitions\": [{\"topic\": \"foo\", \"partition\": 1, \"replicas\": [1,2,3]}], \"version\": 1}",
    ),
    value(
        "topics-to-move-json-file",
        "topics to reassign json file path",
        "{\"topics\": [{\"topic\": \"foo\"}], \"version\": 1}",
    ),
    value("broker-list", "brokerlist", "With --generate: the brokers to move to, 1,2,3."),
    flag("disable-rack-aware", "With --generate: pay no attention to racks."),
    value("throttle", "throttle", "Limit moves between brokers to so many bytes per second."),
    value(
        "replica-alter-log-dirs-throttle",
        "replicaAlterLogDirsThrottle",
        "Limit moves between log directories to so many bytes per second.",
    ),
    value("timeout", "timeout", "With --execute and --cancel: how long to wait, in ms (default: 10000)."),
    flag("additional", "With --execute: although other moves are under way."),
    flag("preserve-throttles", "With --verify and --cancel: leave throttles as they are."),
    flag("disallow-replication-factor-change", "With --execute: refuse to change how many replicas there are."),
];

const ACTIONS: &[&str] = &["generate", "execute", "verify", "cancel", "list"];

type Moves = BTreeMap<Partition, OngoingPartitionReassignment>;

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to move topic partitions between replicas.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    let action = check(&options)?;
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    match act(action, &options, &connection, console).await {
        Ok(()) => Ok(0),
        Err(MoveError::Output(error)) => Err(Failure::Output(error)),
        // This tool's last words are on standard output.
        Err(MoveError::Terse(message)) => {
            console.line(message)?;
            Ok(1)
        }
        Err(MoveError::Failed(message)) => {
            console.line(format_args!("Error: {message}"))?;
            Ok(1)
        }
    }
}

/// Why moves were not begun or looked after.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error("{0}")]
    Terse(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl From<AdminError> for MoveError {
    fn from(error: AdminError) -> Self {
        Self::Failed(last_words(&error))
    }
}

impl From<Failure> for MoveError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Output(error) => Self::Output(error),
            failure => Self::Failed(failure.to_string()),
        }
    }
}

async fn act(
    action: &str,
    options: &Options,
    connection: &Connection,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let file =
        options.value(if action == "generate" { "topics-to-move-json-file" } else { "reassignment-json-file" })?;
    let text = file.map(json::read_file).transpose()?.unwrap_or_default();
    let mut admin = super::reach(connection, console).await?;
    match action {
        "generate" => generate(options, &text, &mut admin, console).await,
        "execute" => execute(options, &text, &mut admin, console).await,
        "verify" => verify(options, &text, &mut admin, console).await,
        "cancel" => cancel(options, &text, &mut admin, console).await,
        _ => Ok(console.line(listed(&moves(&mut admin).await?))?),
    }
}

/// All moves under way.
async fn moves(admin: &mut Admin) -> Result<Moves, AdminError> {
    let topics = admin.list_reassignments(None).await?.into_iter();
    let moves = topics.flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |partition| ((name.clone(), partition.partition_index), partition))
    });
    Ok(moves.collect())
}

/// The replicas of all partitions of these topics.
async fn replicas(topics: BTreeSet<String>, admin: &mut Admin) -> Result<BTreeMap<Partition, Vec<i32>>, MoveError> {
    let names: Vec<String> = topics.into_iter().collect();
    let mut replicas = BTreeMap::new();
    if names.is_empty() {
        return Ok(replicas);
    }
    for topic in admin.topics(Some(&names)).await? {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
            let missing = ApiError {
                code: ErrorCode::UnknownTopicOrPartition,
                message: Some(format!("Topic {name} not found.")),
            };
            return Err(MoveError::Failed(exceptions::full(&missing)));
        }
        ApiError::check(topic.error_code, None).map_err(AdminError::Api)?;
        for partition in topic.partitions {
            replicas.insert((name.clone(), partition.partition_index), partition.replica_nodes);
        }
    }
    Ok(replicas)
}

/// The log directory of each replica, as far as its broker answers.
async fn directories(
    replicas: &BTreeMap<Partition, Vec<i32>>,
    admin: &mut Admin,
) -> Result<BTreeMap<Replica, String>, MoveError> {
    let live = live_brokers(admin).await?;
    let asked: BTreeSet<i32> = replicas.values().flatten().copied().filter(|broker| live.contains(broker)).collect();
    let mut directories = BTreeMap::new();
    for broker in asked {
        for directory in admin.describe_log_dirs(broker).await? {
            for topic in &directory.topics {
                for partition in topic.partitions.iter().filter(|partition| !partition.is_future_key) {
                    let replica =
                        Replica { broker, topic: topic.name.to_string(), partition: partition.partition_index };
                    directories.insert(replica, directory.log_dir.to_string());
                }
            }
        }
    }
    Ok(directories)
}

async fn live_brokers(admin: &mut Admin) -> Result<BTreeSet<i32>, MoveError> {
    Ok(admin.describe_cluster(false).await?.brokers.iter().map(|broker| broker.broker_id).collect())
}

async fn generate(
    options: &Options,
    text: &str,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let list = options.value("broker-list")?.unwrap_or_default();
    let wanted: Result<Vec<i32>, _> = list.split(',').map(|id| id.trim().parse()).collect();
    let wanted = wanted.map_err(|_| MoveError::Failed(format!("For input string: \"{list}\"")))?;
    let repeated = names::repeated(&wanted);
    if !repeated.is_empty() {
        return Err(MoveError::Failed(format!("Broker list contains duplicate entries: {repeated:?}")));
    }
    let topics = document::topics(text).map_err(MoveError::Failed)?;
    let repeated = names::repeated(&topics);
    if !repeated.is_empty() {
        let repeated = repeated.join(", ");
        let message = format!("List of topics to reassign contains duplicate entries: [{repeated}]");
        return Err(MoveError::Failed(message));
    }
    let current = replicas(topics.into_iter().collect(), admin).await?;
    let directories = directories(&current, admin).await?;
    let mut brokers = vec![];
    for broker in admin.describe_cluster(false).await?.brokers {
        if wanted.contains(&broker.broker_id) {
            let rack = broker.rack.map(|rack| rack.to_string()).filter(|_| !options.has("disable-rack-aware"));
            brokers.push((broker.broker_id, rack));
        }
    }
    let proposed = placement::propose(&current, &brokers, random::u64()).map_err(MoveError::Failed)?;
    console
        .line(format_args!("Current partition replica assignment\n{}\n", document::format(&current, &directories)))?;
    console.line(format_args!(
        "Proposed partition reassignment configuration\n{}",
        document::format(&proposed, &BTreeMap::new())
    ))?;
    Ok(())
}

async fn execute(options: &Options, text: &str, admin: &mut Admin, console: &mut Console<'_>) -> Result<(), MoveError> {
    let targets = document::parse(text).map_err(MoveError::Failed)?;
    document::check(&targets).map_err(MoveError::Failed)?;
    let under_way = moves(admin).await?;
    if !options.has("additional") && !under_way.is_empty() {
        return Err(MoveError::Terse(
            "Cannot execute because there is an existing partition assignment.  Use --additional to override this and \
             create a new partition assignment in addition to the existing one. The --additional flag can also be used \
             to change the throttle by resubmitting the current reassignment."
                .to_owned(),
        ));
    }
    let live = live_brokers(admin).await?;
    if let Some(unknown) = targets.iter().flat_map(|target| &target.replicas).find(|broker| !live.contains(broker)) {
        return Err(MoveError::Failed(format!("Unknown broker id {unknown}")));
    }
    let all = replicas(targets.iter().map(|target| target.partition.0.clone()).collect(), admin).await?;
    let mut current = BTreeMap::new();
    let mut missing = vec![];
    for target in &targets {
        match all.get(&target.partition) {
            Some(replicas) => _ = current.insert(target.partition.clone(), replicas.clone()),
            None => missing.push(target.name()),
        }
    }
    if !missing.is_empty() {
        let missing = ApiError {
            code: ErrorCode::UnknownTopicOrPartition,
            message: Some(format!("Unable to find partition: {}", missing.join(", "))),
        };
        return Err(MoveError::Failed(exceptions::full(&missing)));
    }
    let placed = placed_replicas(&targets);
    check_directories(&placed, admin).await?;
    let directories = directories(&current, admin).await?;
    console.line(format_args!(
        "Current partition replica assignment\n\n{}\n\nSave this to use as the --reassignment-json-file option during \
         rollback",
        document::format(&current, &directories)
    ))?;
    let throttle = options.number::<i64>("throttle")?.filter(|rate| *rate >= 0);
    let directory_throttle = options.number::<i64>("replica-alter-log-dirs-throttle")?.filter(|rate| *rate >= 0);
    if throttle.is_some() || directory_throttle.is_some() {
        console.line(
            "Warning: You must run --verify periodically, until the reassignment completes, to ensure the throttle is \
             removed.",
        )?;
    }
    if let Some(rate) = throttle {
        throttles::set(rate, &under_way, &targets, &current, admin).await?;
        console.line(format_args!("The inter-broker throttle limit was set to {rate} B/s"))?;
    }
    if let Some(rate) = directory_throttle {
        let brokers = placed.keys().map(|replica| replica.broker).collect();
        throttles::set_for_directories(rate, brokers, admin).await?;
        console.line(format_args!("The replica-alter-dir throttle limit was set to {rate} B/s"))?;
    }
    let wanted: BTreeMap<Partition, Option<Vec<i32>>> =
        targets.iter().map(|target| (target.partition.clone(), Some(target.replicas.clone()))).collect();
    let outcomes = admin.alter_reassignments(&wanted, !options.has("disallow-replication-factor-change")).await?;
    failures(&outcomes, "Error reassigning partition(s):")?;
    let plural = if wanted.len() == 1 { "" } else { "s" };
    let named = wanted.keys().map(name).collect::<Vec<_>>().join(",");
    console.line(format_args!("Successfully started partition reassignment{plural} for {named}"))?;
    for (replica, directory) in placed {
        let Replica { broker, topic, partition } = replica;
        console.line(format_args!(
            "Successfully started moving log directory to {directory} for replica {topic}-{partition} with broker \
             {broker} "
        ))?;
    }
    Ok(())
}

/// Replicas that were given a log directory of their own.
fn placed_replicas(targets: &[Target]) -> BTreeMap<Replica, String> {
    let placed = targets.iter().flat_map(|target| {
        target.directories.iter().map(|(broker, directory)| {
            let (topic, partition) = target.partition.clone();
            (Replica { broker: *broker, topic, partition }, directory.clone())
        })
    });
    placed.collect()
}

/// Moving a replica from one directory of a broker to another is not built. A broker with one directory has no choice,
/// so a file that names it can be carried out, such as one saved for a rollback.
async fn check_directories(placed: &BTreeMap<Replica, String>, admin: &mut Admin) -> Result<(), MoveError> {
    let brokers: BTreeSet<i32> = placed.keys().map(|replica| replica.broker).collect();
    for broker in brokers {
        let directories = admin.describe_log_dirs(broker).await?;
        for (replica, directory) in placed.iter().filter(|(replica, _)| replica.broker == broker) {
            let is_only = directories.len() == 1 && directories[0].log_dir.as_str() == directory;
            let holds = |found: &vltava_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult| {
                found.log_dir.as_str() == directory
                    && found.topics.iter().any(|topic| {
                        topic.name.as_str() == replica.topic
                            && topic.partitions.iter().any(|found| found.partition_index == replica.partition)
                    })
            };
            if !is_only && !directories.iter().any(holds) {
                return Err(MoveError::Terse(format!(
                    "cannot place {replica} in {directory}: choosing the log directory of a broker is not built yet; \
                     use \"any\""
                )));
            }
        }
    }
    Ok(())
}

/// The first line, then one for each partition that was refused.
fn failures(outcomes: &ByPartition<()>, title: &str) -> Result<(), MoveError> {
    let failed = outcomes.iter().filter_map(|(partition, outcome)| {
        let error = outcome.as_ref().err()?;
        Some(format!("{}: {}", name(partition), exceptions::message(error)))
    });
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() { Ok(()) } else { Err(MoveError::Terse(format!("{title}\n{}", failed.join("\n")))) }
}

fn name((topic, partition): &Partition) -> String {
    format!("{topic}-{partition}")
}

async fn verify(options: &Options, text: &str, admin: &mut Admin, console: &mut Console<'_>) -> Result<(), MoveError> {
    let targets = document::parse(text).map_err(MoveError::Failed)?;
    let under_way = moves(admin).await?;
    let mut current = BTreeMap::new();
    let names: BTreeSet<String> = targets.iter().map(|target| target.partition.0.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    // Unlike elsewhere, a topic that is gone is no failure: its replicas are none.
    for topic in if names.is_empty() { vec![] } else { admin.topics(Some(&names)).await? } {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let partitions = topic.partitions.into_iter();
        current.extend(partitions.map(|found| ((name.clone(), found.partition_index), found.replica_nodes)));
    }
    console.line(states(&targets, &under_way, &current))?;
    let placed = placed_replicas(&targets);
    let wanted: BTreeMap<Partition, Vec<i32>> =
        targets.iter().map(|target| (target.partition.clone(), target.replicas.clone())).collect();
    let found = if placed.is_empty() { BTreeMap::new() } else { directories(&wanted, admin).await? };
    console.line(directory_states(&placed, &found))?;
    if under_way.is_empty() && !options.has("preserve-throttles") {
        clear_throttles(&targets, admin, console).await?;
    }
    Ok(())
}

async fn clear_throttles(targets: &[Target], admin: &mut Admin, console: &mut Console<'_>) -> Result<(), MoveError> {
    let mut brokers = live_brokers(admin).await?;
    brokers.extend(targets.iter().flat_map(|target| target.replicas.iter().copied()));
    let topics: BTreeSet<String> = targets.iter().map(|target| target.partition.0.clone()).collect();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let ids = join(&brokers.iter().copied().collect::<Vec<_>>());
    console.line(format_args!("Clearing broker-level throttles on broker{} {ids}", plural(brokers.len())))?;
    throttles::clear_brokers(brokers, admin).await?;
    let names = topics.iter().cloned().collect::<Vec<_>>().join(",");
    console.line(format_args!("Clearing topic-level throttles on topic{} {names}", plural(topics.len())))?;
    throttles::clear_topics(topics, admin).await?;
    Ok(())
}

async fn cancel(options: &Options, text: &str, admin: &mut Admin, console: &mut Console<'_>) -> Result<(), MoveError> {
    let targets = document::parse(text).map_err(MoveError::Failed)?;
    let under_way = moves(admin).await?;
    let moving = targets.iter().map(|target| &target.partition).filter(|partition| under_way.contains_key(*partition));
    let cancelled: BTreeMap<Partition, Option<Vec<i32>>> = moving.map(|partition| (partition.clone(), None)).collect();
    if cancelled.is_empty() {
        console.line("None of the specified partition reassignments are active.")?;
    } else {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let outcomes = admin.alter_reassignments(&cancelled, true).await?;
        let failed = outcomes.values().filter(|outcome| outcome.is_err()).count();
        failures(&outcomes, &format!("Error cancelling partition reassignment{} for:", plural(failed)))?;
        let named = cancelled.keys().map(name).collect::<Vec<_>>().join(",");
        console.line(format_args!(
            "Successfully cancelled partition reassignment{} for: {named}",
            plural(cancelled.len())
        ))?;
    }
    // Kafka ends no line here.
    console.text("None of the specified partition moves are active.")?;
    if !options.has("preserve-throttles") {
        clear_throttles(&targets, admin, console).await?;
    }
    Ok(())
}

/// What goes with what; gives the action.
fn check(options: &Options) -> Result<&'static str, Failure> {
    let chosen: Vec<&'static str> = ACTIONS.iter().copied().filter(|action| options.has(action)).collect();
    let [action] = chosen[..] else {
        let actions = ACTIONS.iter().map(|action| format!("--{action}")).collect::<Vec<_>>().join(", ");
        return Err(options.usage(&format!("Command must include exactly one action: {actions}")));
    };
    if options.has("bootstrap-controller") {
        let message = match options.has("bootstrap-server") {
            true => "Please don't specify both --bootstrap-server and --bootstrap-controller",
            false => "--bootstrap-controller is not supported: any broker passes on what concerns the controller",
        };
        return Err(options.usage(message));
    }
    if !options.has("bootstrap-server") {
        return Err(options.usage("Please specify either --bootstrap-server or --bootstrap-controller"));
    }
    let (required, permitted): (&[&str], &[&str]) = match action {
        "verify" => (&["reassignment-json-file"], &["preserve-throttles"]),
        "generate" => (&["topics-to-move-json-file", "broker-list"], &["disable-rack-aware"]),
        "execute" => (
            &["reassignment-json-file"],
            &[
                "additional",
                "throttle",
                "replica-alter-log-dirs-throttle",
                "timeout",
                "disallow-replication-factor-change",
            ],
        ),
        "cancel" => (&["reassignment-json-file"], &["preserve-throttles", "timeout"]),
        _ => (&[], &[]),
    };
    options.require(required)?;
    let is_allowed = |name: &str| {
        name == action
            || ["bootstrap-server", "command-config"].contains(&name)
            || required.contains(&name)
            || permitted.contains(&name)
    };
    match OPTIONS.iter().find(|option| options.has(option.name) && !is_allowed(option.name)) {
        Some(other) => {
            Err(options.usage(&format!("Option \"[{}]\" can't be used with action \"[{action}]\"", other.name)))
        }
        None => Ok(action),
    }
}
