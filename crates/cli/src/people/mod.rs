//! Commands for people: `vltava topics list` and its like. Results can be had as JSON or YAML too.

mod brokers;
mod configs;
mod consume;
mod drain;
mod groups;
mod partitions;
mod perf;
mod produce;
pub mod report;
mod topics;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use vltava_client::admin::{ByPartition, Partition};
use vltava_client::{Admin, AdminError, ApiError, Settings};

use crate::connect::{self, Connection};
use crate::console::Console;
use crate::install_links::{self, InstallLinks};
use report::{Format, Report};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List, describe, create, grow and delete topics.
    #[command(subcommand)]
    Topics(topics::Command),
    /// Write records.
    Produce(produce::Produce),
    /// Show records.
    Consume(consume::Consume),
    /// Measure how fast records are written and read.
    #[command(subcommand)]
    Perf(perf::Perf),
    /// List, describe, reset and delete consumer groups.
    #[command(subcommand)]
    Groups(groups::Command),
    /// Describe, set and unset configs of topics, brokers and groups.
    #[command(subcommand)]
    Configs(configs::Command),
    /// Move partitions to other brokers.
    #[command(subcommand)]
    Reassign(partitions::ReassignCommand),
    /// Elect leaders of partitions.
    Elect(partitions::ElectArguments),
    /// Show the metadata quorum.
    Quorum(brokers::QuorumArguments),
    /// List the brokers of a cluster, or empty some that are to go.
    Brokers(brokers::BrokersArguments),
    /// Show the log directories of brokers and what lies in them.
    LogDirs(partitions::LogDirsArguments),
    /// Show the producers that partitions remember.
    Producers(partitions::ProducersArguments),
    /// Show the first and the next offset of partitions.
    Offsets(partitions::OffsetsArguments),
    /// Make links by the names of Kafka's tools (kafka-topics.sh and so on) in a directory.
    InstallLinks(InstallLinks),
}

/// Where the cluster is, and how to show what it says.
#[derive(Debug, Args)]
pub struct Common {
    /// Brokers to begin with, host:port, separated by commas.
    #[arg(short, long, env = "VLTAVA_BOOTSTRAP_SERVER", default_value = "localhost:9092", value_name = "HOST:PORT")]
    bootstrap_server: String,
    /// A properties file with settings of the client.
    #[arg(long, value_name = "FILE")]
    command_config: Option<String>,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    timeout: u64,
    /// How to show results.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Why a command failed, for people.
pub type Outcome = anyhow::Result<()>;

/// Runs a command to its exit code.
pub async fn run(command: Command, console: &mut Console<'_>) -> u8 {
    let outcome = match command {
        Command::Topics(command) => topics::run(command, console).await,
        Command::Produce(arguments) => produce::run(arguments, console).await,
        Command::Consume(arguments) => consume::run(arguments, console).await,
        Command::Perf(command) => perf::run(command, console).await,
        Command::Groups(command) => groups::run(command, console).await,
        Command::Configs(command) => configs::run(command, console).await,
        Command::Reassign(command) => partitions::reassign(command, console).await,
        Command::Elect(arguments) => partitions::elect(arguments, console).await,
        Command::Quorum(arguments) => brokers::quorum(arguments, console).await,
        Command::Brokers(arguments) => brokers::brokers(arguments, console).await,
        Command::LogDirs(arguments) => partitions::log_dirs(arguments, console).await,
        Command::Producers(arguments) => partitions::producers(arguments, console).await,
        Command::Offsets(arguments) => partitions::offsets(arguments, console).await,
        Command::InstallLinks(arguments) => install_links::run(&arguments, console),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => 0,
        Err(error) => {
            let _ = console.complain(format_args!("vltava: {error:#}"));
            1
        }
    }
}

impl Common {
    async fn admin(&self) -> anyhow::Result<Admin> {
        let mut settings: BTreeMap<String, String> = match &self.command_config {
            Some(file) => connect::read_settings(file)?,
            None => BTreeMap::new(),
        };
        settings.insert("default.api.timeout.ms".to_owned(), (self.timeout.saturating_mul(1000)).to_string());
        let connection = Connection::from_settings(&self.bootstrap_server, &settings)?;
        let mut options = connection.options;
        options.connect_timeout = options.connect_timeout.min(Duration::from_secs(3));
        let mut admin = Admin::new(&connection.bootstrap, options, connection.limit);
        // A broker that is starting is waited for a moment; people do not want to wait for one that is not there.
        admin.reach_within(connection.limit.min(Duration::from_secs(3))).await.map_err(|error| {
            anyhow::anyhow!(
                "no broker answered at {} ({error}); is one running? try `vltava serve`",
                self.bootstrap_server
            )
        })?;
        Ok(admin)
    }

    /// Settings of a producer or consumer: those of the file, then these `NAME=VALUE` pairs.
    fn client_settings(&self, pairs: &[String]) -> anyhow::Result<Settings> {
        let mut settings: Settings = match &self.command_config {
            Some(file) => connect::read_settings(file)?.into_iter().collect(),
            None => Settings::default(),
        };
        settings.set("bootstrap.servers", self.bootstrap_server.as_str());
        for pair in pairs {
            let (name, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not written NAME=VALUE"))?;
            settings.set(name, value);
        }
        Ok(settings)
    }

    fn show(&self, report: &Report, console: &mut Console<'_>) -> Outcome {
        let text = report.show(self.output, console.colours);
        Ok(console.text(text)?)
    }
}

/// An error with what was wanted.
fn cannot(what: impl std::fmt::Display) -> impl FnOnce(AdminError) -> anyhow::Error {
    move |error| anyhow::anyhow!("cannot {what}: {error}")
}

/// All partitions of these topics, or of all topics if none is named.
async fn partitions(admin: &mut Admin, topics: &[String]) -> anyhow::Result<Vec<Partition>> {
    let wanted = (!topics.is_empty()).then_some(topics);
    let mut partitions = vec![];
    for topic in admin.topics(wanted).await.map_err(cannot("list topics"))? {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        ApiError::check(topic.error_code, None).map_err(|error| cannot(format!("look up {name}"))(error.into()))?;
        partitions.extend(topic.partitions.iter().map(|partition| (name.clone(), partition.partition_index)));
    }
    partitions.sort();
    Ok(partitions)
}

/// All outcomes, or the first failure.
fn all<T>(outcomes: ByPartition<T>) -> anyhow::Result<BTreeMap<Partition, T>> {
    let each = outcomes.into_iter().map(|((topic, index), outcome)| match outcome {
        Ok(value) => Ok(((topic, index), value)),
        Err(error) => Err(anyhow::anyhow!("{topic}-{index}: {error}")),
    });
    each.collect()
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write it NAME=VALUE".to_owned()),
    }
}
