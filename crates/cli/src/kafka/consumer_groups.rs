//! kafka-consumer-groups: lists, describes and deletes groups, and resets and deletes their offsets.
//!
//! As in Kafka, what goes wrong with a group is told on standard output and the exit code is 0 all the same; only a
//! command line that makes no sense gives 1.

mod offsets;
mod reset;
mod text;

/// What the commands for people show too.
pub(crate) mod group_offsets {
    pub(crate) use super::offsets::{Row, collect};
    pub(crate) use super::text::Group;
}

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use vltava_client::{Admin, AdminError};
use vltava_protocol::messages::list_groups_response::ListedGroup;

use super::options::{OptionSpec, Options, flag, maybe_value, value};
use super::{Failure, last_words};
use crate::connect::Connection;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value("bootstrap-server", "server to connect to", "REQUIRED: The brokers to begin with, host:port, by commas."),
    value("command-config", "command config property file", "A properties file with settings of the client."),
    value("timeout", "timeout (ms)", "How long to wait for the cluster (default: 30000)."),
    value("group", "group id", "The group. May be repeated."),
    flag("all-groups", "All groups."),
    value(
        "topic",
        "topic",
        "The topic whose offsets are reset or deleted, or some of its partitions: topic:0,1,2. May be repeated.",
    ),
    flag("all-topics", "With --reset-offsets: all partitions that the group has offsets for."),
    flag("list", "List all groups."),
    flag("describe", "Describe groups: what they consume, and how far they are behind."),
    flag("delete", "Delete groups without members."),
    flag("reset-offsets", "Set the offsets of a group without members. Shows what would be done unless --execute."),
    flag("delete-offsets", "Delete the offsets of a group for topics that it does not consume."),
    flag("dry-run", "With --reset-offsets: only show what would be done."),
    flag("execute", "With --reset-offsets: do it."),
    flag("export", "With --reset-offsets: print the offsets as CSV, for --from-file."),
    value("to-offset", "offset", "Reset to this offset."),
    value("from-file", "path to CSV file", "Reset to the offsets of this file: [group,]topic,partition,offset."),
    value("to-datetime", "datetime", "Reset to the first record since YYYY-MM-DDThh:mm:ss.sss."),
    value("by-duration", "duration", "Reset to the first record since so long ago: PnDTnHnMnS."),
    flag("to-earliest", "Reset to the first record."),
    flag("to-latest", "Reset to the end."),
    flag("to-current", "Reset to where the group is."),
    value("shift-by", "number-of-offsets", "Reset by so many records, forth or back."),
    flag("members", "With --describe: the members."),
    flag("offsets", "With --describe: the offsets, as without this option."),
    maybe_value("state", "state", "With --describe: the state. With --list: the states, or groups in these states."),
    maybe_value("type", "type", "With --list: the types, or groups of these types."),
    flag("verbose", "With --describe: more columns."),
    value("validate-regex", "regex", "Say whether this is a regular expression."),
];

const ACTIONS: &[&str] = &["list", "describe", "delete", "reset-offsets", "delete-offsets", "validate-regex"];
const SCENARIOS: &[&str] =
    &["to-offset", "shift-by", "to-datetime", "by-duration", "to-earliest", "to-latest", "to-current", "from-file"];
const STATES: &[&str] =
    &["PreparingRebalance", "CompletingRebalance", "Stable", "Dead", "Empty", "Assigning", "Reconciling"];
const TYPES: &[&str] = &["Classic", "Consumer"];

/// Why the command was not carried out.
#[derive(Debug)]
pub(super) enum GroupError {
    /// Told on standard output as a failed command.
    Failed(String),
    Other(Failure),
}

impl From<AdminError> for GroupError {
    fn from(error: AdminError) -> Self {
        Self::Failed(last_words(&error))
    }
}

impl From<Failure> for GroupError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<std::io::Error> for GroupError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(Failure::Output(error))
    }
}

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to list, describe, delete and manage the offsets of consumer groups.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    check(&options, console)?;
    if let Some(pattern) = options.value("validate-regex")? {
        console.line(match Regex::new(pattern) {
            Ok(_) => format!("The regular expression `{pattern}` is valid."),
            Err(_) => format!("The regular expression `{pattern}` is invalid."),
        })?;
        return Ok(0);
    }
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let mut connection = Connection::new(bootstrap, options.value("command-config")?)?;
    let timeout = options.number("timeout")?.unwrap_or(30_000);
    connection.limit = connection.limit.min(std::time::Duration::from_millis(timeout));
    match act(&options, &connection, console).await {
        Ok(()) => Ok(0),
        Err(GroupError::Failed(message)) => {
            error(&format!("Executing consumer group command failed due to {message}"), console)?;
            Ok(0)
        }
        Err(GroupError::Other(failure)) => Err(failure),
    }
}

async fn act(options: &Options, connection: &Connection, console: &mut Console<'_>) -> Result<(), GroupError> {
    let states = chosen(options, "state", STATES, "states")?;
    let types = chosen(options, "type", TYPES, "types")?;
    let mut admin =
        super::reach(connection, console).await.map_err(|failure| GroupError::Failed(failure.to_string()))?;
    if options.has("list") {
        return list(options, &states, &types, &mut admin, console).await;
    }
    let groups = match options.has("all-groups") {
        true => names(&consumer_groups(&mut admin, &[], &[]).await?),
        false => options.values("group").map(str::to_owned).collect(),
    };
    if options.has("describe") {
        describe(options, &groups, &mut admin, console).await
    } else if options.has("delete") {
        delete(&groups, &mut admin, console).await
    } else if options.has("delete-offsets") {
        let group = options.value("group")?.unwrap_or_default();
        offsets::delete(group, options, &mut admin, console).await
    } else {
        let planned = reset::run(options, &groups, &mut admin, console).await?;
        let is_single = options.values("group").count() == 1;
        match options.has("export") {
            true => console.line(reset::csv(&planned, is_single))?,
            false => console.text(reset::table(&planned))?,
        }
        Ok(())
    }
}

/// The values of `--state` or `--type`, as brokers spell them.
fn chosen(options: &Options, name: &str, valid: &[&str], plural: &str) -> Result<Vec<String>, GroupError> {
    let Some(text) = options.value(name)?.filter(|text| !text.is_empty()) else { return Ok(vec![]) };
    let known = |word: &str| valid.iter().find(|valid| valid.eq_ignore_ascii_case(word.trim()));
    match text.split(',').map(known).collect::<Option<BTreeSet<_>>>() {
        Some(chosen) => Ok(chosen.into_iter().map(|valid| (*valid).to_owned()).collect()),
        None => {
            let message = format!("Invalid {plural} list '{text}'. Valid {plural} are: {}", valid.join(", "));
            // Kafka's word for one of these is in the singular.
            Err(options.usage(&message.replacen("states list", "state list", 1)).into())
        }
    }
}

/// Groups of consumers, and groups that only have offsets.
async fn consumer_groups(
    admin: &mut Admin,
    states: &[String],
    types: &[String],
) -> Result<Vec<ListedGroup>, AdminError> {
    let groups = admin.list_groups(states, types).await?;
    let is_of_consumers = |group: &ListedGroup| {
        let protocol = group.protocol_type.as_str();
        (protocol.is_empty() || protocol == "consumer")
            && TYPES.iter().any(|kind| kind.eq_ignore_ascii_case(group.group_type.as_str()))
    };
    Ok(groups.into_iter().filter(is_of_consumers).collect())
}

fn names(groups: &[ListedGroup]) -> Vec<String> {
    groups.iter().map(|group| group.group_id.to_string()).collect()
}

async fn list(
    options: &Options,
    states: &[String],
    types: &[String],
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), GroupError> {
    let groups = consumer_groups(admin, states, types).await?;
    let (with_type, with_state) = (options.has("type"), options.has("state"));
    if with_type || with_state {
        return Ok(console.text(text::list(&groups, with_type, with_state))?);
    }
    for name in names(&groups) {
        console.line(name)?;
    }
    Ok(())
}

async fn describe(
    options: &Options,
    groups: &[String],
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), GroupError> {
    let is_verbose = options.has("verbose");
    let mut described = BTreeMap::new();
    for group in groups {
        described.insert(group.clone(), text::Group::of(admin.describe_group(group).await?));
    }
    for (name, group) in &described {
        // Rows for people only where there is something to show.
        let rows = if options.has("members") {
            text::members(name, group, is_verbose)
        } else if options.has("state") {
            text::state(name, group, is_verbose)
        } else {
            let rows = offsets::collect(name, group, admin).await?;
            offsets::table(name, &rows, is_verbose)
        };
        let is_shown = match group.state.as_str() {
            "Dead" => {
                error(&format!("Consumer group '{name}' does not exist."), console)?;
                false
            }
            "Empty" => {
                console.complain(format_args!("\nConsumer group '{name}' has no active members."))?;
                true
            }
            "Stable" => true,
            _ => {
                console.complain(format_args!("\nWarning: Consumer group '{name}' is rebalancing."))?;
                true
            }
        };
        if is_shown || options.has("members") {
            console.text(rows)?;
        }
    }
    Ok(())
}

async fn delete(groups: &[String], admin: &mut Admin, console: &mut Console<'_>) -> Result<(), GroupError> {
    let mut deleted = vec![];
    let mut failed = vec![];
    for group in groups {
        match admin.delete_group(group).await {
            Ok(()) => deleted.push(format!("'{group}'")),
            Err(error) => failed.push((group, last_words(&error))),
        }
    }
    let deleted_names = deleted.join(", ");
    if failed.is_empty() {
        return Ok(
            console.line(format_args!("Deletion of requested consumer groups ({deleted_names}) was successful."))?
        );
    }
    error("Deletion of some consumer groups failed:", console)?;
    for (group, error) in failed {
        console.line(format_args!("* Group '{group}' could not be deleted due to: {error}"))?;
    }
    if !deleted.is_empty() {
        console.line(format_args!("\nThese consumer groups were deleted successfully: {deleted_names}"))?;
    }
    Ok(())
}

fn error(message: &str, console: &mut Console<'_>) -> std::io::Result<()> {
    console.line(format_args!("\nError: {message}"))
}

/// What goes with what.
fn check(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    if !options.has("validate-regex") {
        options.require(&["bootstrap-server"])?;
    }
    let has_group = options.has("group") || options.has("all-groups");
    let groups =
        |action: &str| options.usage(&format!("Option [{action}] takes one of these options: [group], [all-groups]"));
    if options.has("describe") {
        if !has_group {
            return Err(groups("describe"));
        }
        if ["members", "offsets", "state"].iter().filter(|name| options.has(name)).count() > 1 {
            let message = "Option [describe] takes at most one of these options: [members], [offsets], [state]";
            return Err(options.usage(message));
        }
        if options.value("state")?.is_some() {
            return Err(options.usage("Option [describe] does not take a value for [state]"));
        }
    }
    if options.has("delete") {
        if !has_group {
            return Err(groups("delete"));
        }
        if options.has("topic") {
            let message = "The consumer does not support topic-specific offset deletion from a consumer group.";
            return Err(options.usage(message));
        }
    }
    if options.has("delete-offsets") && !(options.has("group") && options.has("topic")) {
        let message = "Option [delete-offsets] takes the following options: [group], [topic]";
        return Err(options.usage(message));
    }
    if options.has("reset-offsets") {
        if options.has("dry-run") && options.has("execute") {
            return Err(options.usage("Option [reset-offsets] only accepts one of [execute] and [dry-run]"));
        }
        if !options.has("dry-run") && !options.has("execute") {
            console.complain("WARN: nothing is changed without --execute")?;
        }
        if !has_group {
            return Err(groups("reset-offsets"));
        }
        for scenario in SCENARIOS {
            let others: Vec<&str> = SCENARIOS.iter().copied().filter(|other| other != scenario).collect();
            options.conflict(scenario, &others)?;
        }
    }
    for (name, needs) in [
        ("members", &["describe"][..]),
        ("verbose", &["describe"]),
        ("offsets", &["describe"]),
        ("state", &["describe", "list"]),
        ("type", &["list"]),
    ] {
        if options.has(name) && !needs.iter().any(|need| options.has(need)) {
            return Err(Failure::Message(format!(
                "Option {name} is unavailable given other options on the command line"
            )));
        }
    }
    options.conflict("group", &["all-groups"])?;
    options.conflict("group", &["list"])?;
    options.conflict("topic", &["list", "describe"])?;
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        let actions = ACTIONS.iter().map(|action| format!("--{action}")).collect::<Vec<_>>().join(", ");
        return Err(options.usage(&format!("Command must include exactly one action: {actions}")));
    }
    Ok(())
}
