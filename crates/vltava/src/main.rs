//! The `vltava` binary: reads the command line and runs nodes.

mod cluster;
mod demo;
mod environment;
mod health;
mod http;
mod log_command;
mod logging;
mod ready;
mod serve;
mod settings;
mod signals;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use vltava_cli::console::Console;
use vltava_cli::{kafka, people};

/// A Kafka-compatible event streaming cluster in one binary.
#[derive(Parser)]
#[command(name = "vltava", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node. Without a file it is a single broker on localhost:9092 with its data in ./vltava-data.
    Serve(ServeArguments),
    /// Ask a node on this machine whether it lives (the default) or is ready; the exit code tells.
    Health(HealthArguments),
    /// Run a cluster of several broker processes on this machine, until Ctrl-C.
    Cluster(ClusterArguments),
    /// Show what happens when brokers die.
    #[command(subcommand)]
    Demo(Demo),
    /// Look into log directories without a broker.
    #[command(subcommand)]
    Log(log_command::LogCommand),
    #[command(flatten)]
    People(people::Command),
    /// Write a completion script for a shell to standard output.
    Completions { shell: clap_complete::Shell },
    /// Write man pages into a directory.
    ManPages { directory: PathBuf },
}

#[derive(Subcommand)]
enum Demo {
    /// Kill brokers of a cluster of its own while records are written and read, and prove that none is lost.
    Failover(demo::FailoverArguments),
}

#[derive(clap::Args)]
pub struct ServeArguments {
    /// A properties file with Kafka's names of settings. KAFKA_* variables override it.
    file: Option<PathBuf>,
    /// Set one property, over file and environment. May be repeated.
    #[arg(long = "override", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// End when this process, which must be the parent, ends.
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

#[derive(clap::Args)]
pub struct HealthArguments {
    /// Whether the node serves and all its replicas are in sync.
    #[arg(long, conflicts_with = "live")]
    ready: bool,
    /// Whether the process is alive; it is while it recovers its logs.
    #[arg(long)]
    live: bool,
    /// The node's vltava.http.listener.
    #[arg(long, env = "KAFKA_VLTAVA_HTTP_LISTENER", default_value = "localhost:9644", value_name = "HOST:PORT")]
    address: String,
}

#[derive(clap::Args)]
pub struct ClusterArguments {
    /// How many brokers to run. Each votes in the metadata quorum.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    brokers: u16,
    /// Where data and logs are kept. Started again on the same directory, the cluster has the same data.
    #[arg(long, default_value = "vltava-cluster")]
    data_dir: PathBuf,
    /// The first broker's port. The others follow, and after them the ports that brokers use among themselves.
    #[arg(long, default_value_t = 9092)]
    base_port: u16,
    /// The address that brokers listen on and are reached at.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Set one property on every broker. May be repeated.
    #[arg(long = "override", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// How long to wait for all brokers to be ready.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    start_timeout: u64,
}

fn main() -> ExitCode {
    let command_line: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some((tool, arguments)) = kafka::Tool::requested(&command_line) {
        return talk(async |console| kafka::run(tool, arguments, console).await);
    }
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => {
            logging::init();
            serve::run(&arguments)
        }
        Command::Health(arguments) => health::run(&arguments),
        Command::Cluster(arguments) => {
            logging::init();
            cluster::run(&arguments)
        }
        // It has the terminal to itself; the brokers log to files.
        Command::Demo(Demo::Failover(arguments)) => demo::run(&arguments),
        Command::Log(command) => match log_command::run(&command, &mut Console::of_process()) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Command::People(command) => return talk(async |console| people::run(command, console).await),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Arguments::command(), "vltava", &mut script);
            std::io::stdout().write_all(&script).map_err(Into::into)
        }
        Command::ManPages { directory } => man_pages(&directory),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Plain text and not a log line: whoever started us by hand reads this first.
            eprintln!("vltava: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what talks to brokers, on one thread.
fn talk(command: impl AsyncFnOnce(&mut Console<'static>) -> u8) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(command(&mut Console::of_process()))),
        Err(error) => {
            eprintln!("vltava: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One page for each command.
fn man_pages(directory: &std::path::Path) -> anyhow::Result<()> {
    vltava_host::fs::create_dir_all(directory)?;
    Ok(clap_mangen::generate_to(Arguments::command(), directory)?)
}
