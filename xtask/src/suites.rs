//! The suites of `cargo xtask test`. Each ends with its runner's own summary line.

use std::process::Command;

use clap::ValueEnum;

use crate::cluster::{LocalCluster, build_release};
use crate::{LongRuns, cargo, chaos, install, pytest, root, run, sim, target};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Unit, property and story tests of all crates, and every input that the fuzzers keep.
    Workspace,
    /// Whole clusters on a simulated clock, network and disk.
    Sim,
    /// Real broker processes that are killed, stopped, wiped, starved and fed bad input.
    Cluster,
    /// Real brokers and real clients under faults from a seed, for a few minutes.
    Chaos,
    /// The command line tools, beside Kafka's own on the same cluster.
    Cli,
    /// The Kubernetes manifests and the monitoring of the compose file.
    Deploy,
    KafkaPython,
    #[value(name = "kafka-python-2.0.2")]
    KafkaPython2,
    Confluent,
    #[value(name = "confluent-2.6.1")]
    Confluent2_6,
    Aiokafka,
    Kafkajs,
    Java,
    FranzGo,
}

impl Suite {
    pub const ALL: &[Self] = &[
        Self::Workspace,
        Self::Sim,
        Self::KafkaPython,
        Self::KafkaPython2,
        Self::Confluent,
        Self::Confluent2_6,
        Self::Aiokafka,
        Self::Kafkajs,
        Self::Java,
        Self::FranzGo,
        Self::Cli,
        Self::Deploy,
        Self::Cluster,
        Self::Chaos,
    ];

    pub fn title(self) -> String {
        match self {
            Self::Workspace => "Workspace",
            Self::Sim => "Simulator",
            Self::Cluster => "Faults on real broker processes",
            Self::Chaos => "Chaos with a checked history",
            Self::Cli => "Command line beside Kafka's tools 4.3.1",
            Self::Deploy => "Deployment: manifests and monitoring",
            Self::KafkaPython => "kafka-python 3.0.12",
            Self::KafkaPython2 => "kafka-python 2.0.2",
            Self::Confluent => "confluent-kafka 2.16.1",
            Self::Confluent2_6 => "confluent-kafka 2.6.1",
            Self::Aiokafka => "aiokafka 0.14.0",
            Self::Kafkajs => "kafkajs 2.2.4",
            Self::Java => "Java kafka-clients 4.3.1",
            Self::FranzGo => "franz-go 1.22.2",
        }
        .to_owned()
    }

    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Workspace => run(cargo().args(["test", "--workspace", "--no-fail-fast"])),
            Self::Sim => sim(&[]).and_then(|()| LongRuns::of_each_change().run()),
            Self::Cluster => {
                let python = install::python("confluent-kafka", install::NEWEST_CONFLUENT)?;
                let binary = build_release()?;
                run(pytest(python, "tests/cluster", &[])
                    .arg("--basetemp")
                    .arg(target().join("cluster-tests"))
                    .env("VLTAVA_BINARY", binary))
            }
            Self::Chaos => chaos::chaos(&["--minutes", "3"].map(str::to_owned)),
            Self::Cli => {
                let python = install::python("confluent-kafka", install::NEWEST_CONFLUENT)?;
                let class_path = install::kafka_tools()?;
                let mut tests = pytest(python, "tests/cli", &[]);
                tests.arg("--basetemp").arg(target().join("cli-tests"));
                with_cluster(tests.env("TOOLS_CLASS_PATH", class_path).env("VLTAVA_BINARY", build_release()?))
            }
            Self::Deploy => {
                let python = install::python("deployment", install::DEPLOYMENT)?;
                let mut tests = pytest(python, "tests/deploy", &[]);
                tests.arg("--basetemp").arg(target().join("deploy-tests"));
                run(tests.env("KUSTOMIZE", install::kustomize()?).env("VLTAVA_BINARY", build_release()?))
            }
            Self::KafkaPython => python("kafka-python", install::NEWEST_KAFKA_PYTHON, "test_kafka_python.py"),
            Self::KafkaPython2 => python("kafka-python-2.0.2", install::OLD_KAFKA_PYTHON, "test_kafka_python.py"),
            Self::Confluent => python("confluent-kafka", install::NEWEST_CONFLUENT, "test_confluent.py"),
            Self::Confluent2_6 => python("confluent-kafka-2.6.1", install::OLD_CONFLUENT, "test_confluent.py"),
            Self::Aiokafka => python("aiokafka", install::AIOKAFKA, "test_aiokafka.py"),
            Self::Kafkajs => {
                let directory = install::kafkajs()?;
                with_cluster(Command::new("node").args(["--test", "--test-concurrency=1"]).current_dir(directory))
            }
            Self::Java => with_cluster(
                Command::new("mvn")
                    .args(["--batch-mode", "--no-transfer-progress", "test"])
                    .arg(format!("-Doutput={}", target().join("clients/java").display()))
                    .current_dir(root().join("tests/clients/java")),
            ),
            Self::FranzGo => with_cluster(
                Command::new("go")
                    .args(["test", "-count=1", "-v", "./..."])
                    .current_dir(root().join("tests/clients/go")),
            ),
        }
    }
}

/// The manifests through kubectl itself, which takes minutes to build.
pub fn kubectl() -> anyhow::Result<()> {
    let python = install::python("deployment", install::DEPLOYMENT)?;
    let mut tests = pytest(python, "tests/deploy", &["test_kubectl.py"]);
    tests.arg("--basetemp").arg(target().join("kubectl-tests"));
    run(tests.env("KUBECTL", install::kubectl()?))
}

fn python(name: &str, packages: &[&str], file: &str) -> anyhow::Result<()> {
    let python = install::python(name, packages)?;
    with_cluster(&mut pytest(python, "tests/clients/python", &[file]))
}

/// Runs a client's tests against three fresh brokers.
fn with_cluster(tests: &mut Command) -> anyhow::Result<()> {
    let cluster = LocalCluster::start(&build_release()?)?;
    let outcome = run(tests.env("BOOTSTRAP_SERVERS", &cluster.bootstrap));
    let stopped = cluster.stop();
    outcome.and(stopped)
}
