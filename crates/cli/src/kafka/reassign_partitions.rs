//! kafka-reassign-partitions: moves partitions to other brokers, and follows or cancels such moves.

mod current;
mod directory_moves;
mod document;
mod execute;
mod generate;
mod placement;
mod progress;
mod throttles;
mod verify;

use std::time::Duration;

use vltava_client::AdminError;
use vltava_client::admin::{ByPartition, Partition};

use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, exceptions, json, last_words};
use crate::connect::Connection;
use crate::console::Console;
use current::{Moves, moves};

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

/// How long to wait until moves between log directories can begin, unless `--timeout` says.
const TIMEOUT_MS: u64 = 10_000;

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
        "generate" => generate::generate(options, &text, &mut admin, console).await,
        "execute" => execute::execute(options, &text, &mut admin, console).await,
        "verify" => verify::verify(options, &text, &mut admin, console).await,
        "cancel" => verify::cancel(options, &text, &mut admin, console).await,
        _ => Ok(console.line(progress::listed(&moves(&mut admin).await?))?),
    }
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

fn timeout(options: &Options) -> Result<Duration, Failure> {
    Ok(Duration::from_millis(options.number("timeout")?.unwrap_or(TIMEOUT_MS)))
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
