//! The project's tasks: `cargo xtask <task>`.
#![allow(clippy::disallowed_methods, reason = "tasks run on the real machine and are never simulated")]

mod chaos;
mod cluster;
mod fuzz;
mod image;
mod install;
mod suites;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use crate::suites::Suite;

#[derive(Parser)]
#[command(about = "Tasks of the project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test: the workspace's, the simulator's, real broker processes under faults, and real clients.
    Test {
        /// Run only these suites.
        #[arg(value_enum)]
        suites: Vec<Suite>,
    },
    /// Check format and lints. Changes no file.
    Check,
    /// Run whole clusters in one process on a simulated clock, network and disk: without options, the simulator's tests.
    Sim {
        #[command(flatten)]
        long_runs: LongRuns,
        /// Only single faults and power losses at random moments, from so many seeds.
        #[arg(long, conflicts_with = "arguments")]
        scenario_seeds: Option<u64>,
        /// Only logs on a disk that fails, from so many seeds.
        #[arg(long, conflicts_with_all = ["arguments", "scenario_seeds"])]
        storage_seeds: Option<u64>,
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run three real brokers and real clients under faults, and check what the clients saw. Takes root.
    Chaos {
        /// Passed on to `tests/chaos`, as in `--minutes 10 --seed 7`. `-- --help` lists them all.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz with cargo-fuzz on a nightly toolchain.
    Fuzz {
        /// All of them, if none is named.
        targets: Vec<String>,
        /// For each of them.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Build the container image without a registry.
    Image,
    /// Run the compose files and the image in containers. Needs a docker engine and docker-compose.
    Containers,
    /// Build kubectl, and run the Kubernetes manifests through its kustomize and its client dry runs.
    Kubectl,
    /// Half an hour of steady load on three brokers, past retention and compaction: nothing may grow.
    Soak {
        /// Passed on: `--minutes`, `--rate`, `--history`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure start, memory and size beside Apache Kafka's, on this machine in the same run.
    BesideKafka {
        /// Passed on to the script: --rounds 5, --directory DIR.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Start the README's cluster, produce and consume as its quick start does, and stop it; then run the failover demo.
    Smoke,
}

/// Minutes of a cluster's life under faults, workloads and administration.
#[derive(Default, clap::Args)]
pub struct LongRuns {
    /// So many long runs, each from a seed of its own.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of these seeds.
    #[arg(long)]
    first: Option<u64>,
    /// One long run.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Simulated minutes of each.
    #[arg(long)]
    minutes: Option<f64>,
    /// Show what happens in the run of `--seed`, and what RUST_LOG asks for.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Where a run fails, spend so many more on finding the shortest plan that does.
    #[arg(long)]
    shorten: Option<u64>,
    /// Switch the rules of replication off, one at a time, and tell after how many seeds it was noticed.
    #[arg(long)]
    mutations: bool,
    /// Build for speed, which is worth it from a thousand seeds on: it takes longer, a run half as long, and assertions
    /// within libraries are off.
    #[arg(long)]
    optimized: bool,
}

impl LongRuns {
    /// What every change has to survive, within ten minutes on two cores.
    pub fn of_each_change() -> Self {
        Self { seeds: Some(50), minutes: Some(3.0), ..Self::default() }
    }

    const fn are_asked_for(&self) -> bool {
        self.seeds.is_some() || self.seed.is_some() || self.mutations
    }

    pub fn run(&self) -> anyhow::Result<()> {
        let mut command = sim_cargo();
        command.args(["run", "--quiet", "--bin", "vltava-sim"]).args(self.optimized.then_some("--profile=many-seeds"));
        command.arg("--");
        let numbers =
            [("--seeds", self.seeds), ("--first", self.first), ("--seed", self.seed), ("--shorten", self.shorten)];
        for (name, number) in numbers {
            command.args(number.map(|number| format!("{name}={number}")));
        }
        command.args(self.minutes.map(|minutes| format!("--minutes={minutes}")));
        command.args(self.trace.then_some("--trace")).args(self.mutations.then_some("--mutations"));
        run(&mut command)
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test { suites } => test(&suites),
        Task::Check => check(),
        Task::Sim { long_runs, .. } if long_runs.are_asked_for() => long_runs.run(),
        Task::Sim { scenario_seeds: Some(seeds), .. } => scenario_seeds(seeds),
        Task::Sim { storage_seeds: Some(seeds), .. } => storage_seeds(seeds),
        Task::Sim { arguments, .. } => sim(&arguments),
        Task::Chaos { arguments } => chaos::chaos(&arguments),
        Task::Fuzz { targets, minutes } => fuzz::fuzz(&targets, minutes),
        Task::Image => image::build(),
        Task::Containers => containers(),
        Task::Kubectl => suites::kubectl(),
        Task::Soak { arguments } => soak(&arguments),
        Task::BesideKafka { arguments } => beside_kafka(&arguments),
        Task::Smoke => smoke(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs suites one after another, all of them even if some fail, and sums up.
fn test(chosen: &[Suite]) -> anyhow::Result<()> {
    let suites = if chosen.is_empty() { Suite::ALL } else { chosen };
    let mut results = Vec::new();
    for suite in suites {
        headline(&suite.title());
        let started = Instant::now();
        let outcome = suite.run();
        if let Err(error) = &outcome {
            eprintln!("{}: {error:#}", suite.title());
        }
        results.push((suite, outcome, started.elapsed()));
    }
    headline("Summary");
    for (suite, outcome, elapsed) in &results {
        let word = if outcome.is_ok() { "passed" } else { "FAILED" };
        println!("{word}  {:>4} s  {}", elapsed.as_secs(), suite.title());
    }
    let failed = results.iter().filter(|(_, outcome, _)| outcome.is_err()).count();
    println!("{} suites passed, {failed} failed", results.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} suites failed", results.len());
    }
    Ok(())
}

fn check() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(sim_cargo().args(["fmt", "--check"]))?;
    run(sim_cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]))
}

fn sim(arguments: &[String]) -> anyhow::Result<()> {
    run(sim_cargo().arg("test").args(arguments))
}

fn scenario_seeds(count: u64) -> anyhow::Result<()> {
    let test =
        ["--test", "three_brokers", "--", "--nocapture", "any_fault_at_any_moment", "several_brokers_lose_power"];
    run(sim_cargo().env("VLTAVA_SEEDS", format!("0..{count}")).arg("test").args(test))
}

fn storage_seeds(count: u64) -> anyhow::Result<()> {
    let test = ["--test", "storage", "--", "--nocapture"];
    run(sim_cargo().env("VLTAVA_STORAGE_SEEDS", format!("0..{count}")).arg("test").args(test))
}

/// The simulator is a workspace of its own, because it is built with `--cfg vltava_sim`; see its `.cargo/config.toml`.
fn sim_cargo() -> Command {
    let mut command = cargo();
    // The simulator's own configuration counts only if these do not override it.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("CARGO_TARGET_DIR", target().join("sim"));
    command.current_dir(root().join("crates/sim"));
    command
}

fn soak(arguments: &[String]) -> anyhow::Result<()> {
    let binary = cluster::build_release()?;
    let python = install::python("confluent-kafka", install::NEWEST_CONFLUENT)?;
    run(Command::new(python).arg(root().join("tests/performance/soak.py")).args(arguments).env("VLTAVA_BINARY", binary))
}

fn containers() -> anyhow::Result<()> {
    image::build()?;
    let python = install::python("confluent-kafka", install::NEWEST_CONFLUENT)?;
    run(Command::new(python)
        .args(["-m", "pytest"])
        .current_dir(root().join("tests/containers"))
        .env("PYTHONDONTWRITEBYTECODE", "1"))
}

fn beside_kafka(arguments: &[String]) -> anyhow::Result<()> {
    run(Command::new("python3")
        .arg(root().join("tests/performance/beside_kafka.py"))
        .arg(cluster::build_release()?)
        .arg(install::kafka_tools()?)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1"))
}

fn smoke() -> anyhow::Result<()> {
    let python = install::python("kafka-python", install::NEWEST_KAFKA_PYTHON)?;
    let cluster = cluster::LocalCluster::start_with_cargo()?;
    run(Command::new(python)
        .arg(root().join("tests/clients/python/quickstart.py"))
        .env("BOOTSTRAP_SERVERS", &cluster.bootstrap))?;
    cluster.stop()?;
    // Fails by itself if a record is lost.
    run(cargo().args(["run", "--release", "--", "demo", "failover", "--plain", "--kills", "2"]))
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// Where everything that is generated goes.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// The same cargo that runs this task, without what it set for this task.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// Shows a command and runs it; an exit code other than 0 is an error.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    println!("$ {program} {}", arguments.join(" "));
    let status = command.status().with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}

/// The tests in a directory of Python files.
fn pytest(python: PathBuf, directory: &str, files: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pytest"]).args(files).current_dir(root().join(directory));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn headline(title: &str) {
    println!("\n==== {title}");
}
