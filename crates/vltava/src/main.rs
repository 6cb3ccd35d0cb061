//! The `vltava` binary: reads the command line and runs nodes.

mod cluster;
mod environment;
mod logging;
mod properties;
mod ready;
mod serve;
mod settings;
mod signals;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Run a cluster of several broker processes on this machine, until Ctrl-C.
    Cluster(ClusterArguments),
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
    let arguments = Arguments::parse();
    logging::init();
    let outcome = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
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
