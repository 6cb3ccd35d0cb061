//! The tools under Kafka's names, as `vltava kafka-topics ...` or through a link called `kafka-topics` or
//! `kafka-topics.sh`.
//!
//! They keep Kafka's options, what is on standard output, and the exit codes: 0, or 1 for any failure. Standard error is
//! for people and only resembles Kafka's (no stack traces).

mod broker_api_versions;
mod client_settings;
mod cluster;
mod configs;
mod console_consumer;
mod console_producer;
mod consumer_groups;
pub(crate) mod consumer_perf_test;
mod delete_records;
mod exceptions;
mod formatters;
mod get_offsets;
mod json;
mod leader_election;
mod line_reader;
mod log_dirs;
mod metadata_quorum;
mod names;
pub mod options;
pub(crate) mod producer_perf_test;
mod reassign_partitions;
mod server;
mod storage;
mod subcommands;
pub(crate) mod time;
mod topics;

pub(crate) use configs::source_name;
pub(crate) use consumer_groups::group_offsets;

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use vltava_client::{Admin, AdminError};

use crate::connect::Connection;
use crate::console::Console;

/// Declares each tool once: its variant and Kafka's name for it.
macro_rules! tools {
    ($($(#[$doc:meta])* $tool:ident = $name:literal,)*) => {
        /// A tool under one of Kafka's names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Tool {
            $($(#[$doc])* $tool,)*
        }

        impl Tool {
            pub const ALL: &'static [Self] = &[$(Self::$tool,)*];

            /// Kafka's name, without `.sh`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$tool => $name,)*
                }
            }
        }
    };
}

tools! {
    Topics = "kafka-topics",
    ConsoleProducer = "kafka-console-producer",
    ConsoleConsumer = "kafka-console-consumer",
    ConsumerGroups = "kafka-consumer-groups",
    Configs = "kafka-configs",
    ReassignPartitions = "kafka-reassign-partitions",
    LeaderElection = "kafka-leader-election",
    MetadataQuorum = "kafka-metadata-quorum",
    GetOffsets = "kafka-get-offsets",
    DeleteRecords = "kafka-delete-records",
    LogDirs = "kafka-log-dirs",
    ProducerPerfTest = "kafka-producer-perf-test",
    ConsumerPerfTest = "kafka-consumer-perf-test",
    BrokerApiVersions = "kafka-broker-api-versions",
    Cluster = "kafka-cluster",
    Storage = "kafka-storage",
    ServerStart = "kafka-server-start",
    ServerStop = "kafka-server-stop",
    Acls = "kafka-acls",
    Transactions = "kafka-transactions",
    DelegationTokens = "kafka-delegation-tokens",
    Features = "kafka-features",
    ShareGroups = "kafka-share-groups",
    StreamsGroups = "kafka-streams-groups",
}

impl Tool {
    /// The tool of this name, which may be a path and end in `.sh`.
    #[must_use]
    pub fn named(program: &OsStr) -> Option<Self> {
        let name = Path::new(program).file_name()?.to_str()?;
        let name = name.strip_suffix(".sh").unwrap_or(name);
        Self::ALL.iter().copied().find(|tool| tool.name() == name)
    }

    /// What a command line asks for: the tool that the program was called as, or that its first argument names, and the
    /// arguments that are left.
    #[must_use]
    pub fn requested(command_line: &[String]) -> Option<(Self, &[String])> {
        let (program, arguments) = command_line.split_first()?;
        if let Some(tool) = Self::named(program.as_ref()) {
            return Some((tool, arguments));
        }
        let (first, rest) = arguments.split_first()?;
        if first.contains('/') {
            return None;
        }
        Some((Self::named(first.as_ref())?, rest))
    }
}

/// Why a tool did not end well. Tools whose last words belong on standard output print them and give exit code 1 instead.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Said on standard error.
    #[error("{0}")]
    Message(String),
    /// Nobody reads what is printed any more.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

/// Runs a tool to its exit code.
pub async fn run(tool: Tool, arguments: &[String], console: &mut Console<'_>) -> u8 {
    let outcome = match tool {
        Tool::Topics => topics::run(arguments, console).await,
        Tool::ConsoleProducer => console_producer::run(arguments, console).await,
        Tool::ConsoleConsumer => console_consumer::run(arguments, console).await,
        Tool::ConsumerGroups => consumer_groups::run(arguments, console).await,
        Tool::Configs => configs::run(arguments, console).await,
        Tool::ReassignPartitions => reassign_partitions::run(arguments, console).await,
        Tool::LeaderElection => leader_election::run(arguments, console).await,
        Tool::MetadataQuorum => metadata_quorum::run(arguments, console).await,
        Tool::GetOffsets => get_offsets::run(arguments, console).await,
        Tool::DeleteRecords => delete_records::run(arguments, console).await,
        Tool::LogDirs => log_dirs::run(arguments, console).await,
        Tool::ProducerPerfTest => producer_perf_test::run(arguments, console).await,
        Tool::ConsumerPerfTest => consumer_perf_test::run(arguments, console).await,
        Tool::BrokerApiVersions => broker_api_versions::run(arguments, console).await,
        Tool::Cluster => cluster::run(arguments, console).await,
        Tool::Storage => storage::run(arguments, console),
        Tool::ServerStart => server::start(arguments, console),
        Tool::ServerStop => server::stop(arguments, console),
        Tool::Acls => Err(not_built(tool, "access control lists")),
        Tool::Transactions => Err(not_built(tool, "transactions")),
        Tool::DelegationTokens => Err(not_built(tool, "delegation tokens")),
        Tool::Features => Err(not_built(tool, "feature levels")),
        Tool::ShareGroups => Err(not_built(tool, "share groups")),
        Tool::StreamsGroups => Err(not_built(tool, "streams groups")),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::Output(_)) => 1,
        Err(failure) => {
            let _ = console.complain(failure);
            1
        }
    }
}

fn not_built(tool: Tool, what: &str) -> Failure {
    Failure::Message(format!("{}: {what} are not built yet", tool.name()))
}

/// A client that has reached the cluster; without one, says what to do.
async fn reach(connection: &Connection, console: &mut Console<'_>) -> Result<Admin, Failure> {
    connection.admin(console).await.map_err(|error| {
        Failure::Message(format!(
            "Timed out waiting for a node assignment: no broker answered at {} ({error}); is one running? try `vltava serve`",
            connection.bootstrap
        ))
    })
}

/// An error as Java prints it.
fn last_words(error: &AdminError) -> String {
    match error {
        AdminError::Api(error) => exceptions::full(error),
        AdminError::Client(error) => error.to_string(),
    }
}

/// Numbers, separated by commas.
fn join(numbers: &[i32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::Tool;

    fn requested(line: &str) -> Option<(Tool, String)> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Tool::requested(&words).map(|(tool, rest)| (tool, rest.join(" ")))
    }

    #[test]
    fn tools_go_by_link_or_by_first_argument() {
        let list = || "--list".to_owned();
        assert_eq!(requested("/opt/kafka/bin/kafka-topics.sh --list"), Some((Tool::Topics, list())));
        assert_eq!(requested("kafka-topics --list"), Some((Tool::Topics, list())));
        assert_eq!(requested("vltava kafka-topics --list"), Some((Tool::Topics, list())));
        assert_eq!(requested("vltava kafka-topics.sh --list"), Some((Tool::Topics, list())));
        assert_eq!(requested("vltava topics list"), None);
        assert_eq!(requested("vltava serve"), None);
        assert_eq!(requested("vltava"), None);
    }
}
