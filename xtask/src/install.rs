//! Clients under test, each with pinned versions in a directory of its own under `target/`. Repeating costs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{root, run, target};

pub const NEWEST_KAFKA_PYTHON: &[&str] =
    &["pytest==9.2.0", "kafka-python==3.0.12", "crc32c", "lz4==4.4.5", "zstandard==0.25.0", "python-snappy==0.7.3"];
pub const OLD_KAFKA_PYTHON: &[&str] = &[
    "pytest==9.2.0",
    "kafka-python==2.0.2",
    "crc32c",
    "lz4==4.4.5",
    "zstandard==0.25.0",
    "python-snappy==0.7.3",
    "six==1.17.0",
];
pub const NEWEST_CONFLUENT: &[&str] = &["pytest==9.2.0", "confluent-kafka==2.16.1", "PyYAML==6.0.3"];
/// Everything that the suite in `tests/deploy` needs from PyPI; the schemas of Kubernetes are in kubernetes-validate.
pub const DEPLOYMENT: &[&str] =
    &["pytest==9.2.0", "confluent-kafka==2.16.1", "PyYAML==6.0.3", "kubernetes-validate==1.34.1"];
pub const OLD_CONFLUENT: &[&str] = &["pytest==9.2.0", "confluent-kafka==2.6.1"];
pub const AIOKAFKA: &[&str] = &["pytest==9.2.0", "aiokafka==0.14.0", "cramjam==2.14.0"];

const KUSTOMIZE: &str = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1";

/// A virtual environment with these packages; returns its interpreter.
pub fn python(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = target().join("clients").join(name);
    let interpreter = directory.join("bin/python");
    once(&directory, &packages.join("\n"), || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory))
            .context("a python3 with its venv module is needed (on Debian: apt-get install python3-venv)")?;
        run(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet"]).args(packages))
    })?;
    Ok(interpreter)
}

/// The tests for kafkajs beside their installed packages, where node looks for them; returns the directory.
pub fn kafkajs() -> anyhow::Result<PathBuf> {
    let source = root().join("tests/clients/node");
    let directory = target().join("clients/kafkajs");
    std::fs::create_dir_all(&directory)?;
    for file in ["package.json", "package-lock.json", "kafkajs.test.js"] {
        std::fs::copy(source.join(file), directory.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let wanted = std::fs::read_to_string(source.join("package-lock.json"))?;
    once(&directory, &wanted, || {
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&directory))
            .context("node 20 or later with npm is needed (on Debian: apt-get install nodejs npm)")
    })?;
    Ok(directory)
}

/// Kafka's own command line tools; returns a file with their class path.
pub fn kafka_tools() -> anyhow::Result<PathBuf> {
    let source = root().join("tests/cli/pom.xml");
    let directory = target().join("clients/kafka-tools");
    std::fs::create_dir_all(&directory)?;
    let class_path = directory.join("classpath.txt");
    once(&directory, &std::fs::read_to_string(&source)?, || {
        run(Command::new("mvn")
            .args(["--batch-mode", "--no-transfer-progress", "--quiet", "--file"])
            .arg(&source)
            .arg("dependency:build-classpath")
            .arg(format!("-Dmdep.outputFile={}", class_path.display())))
        .context("Maven with a JDK 17 or later is needed (on Debian: apt-get install maven default-jdk-headless)")
    })?;
    Ok(class_path)
}

/// kustomize, which kubectl has built in; returns the program.
pub fn kustomize() -> anyhow::Result<PathBuf> {
    let directory = target().join("clients/kustomize");
    std::fs::create_dir_all(&directory)?;
    once(&directory, KUSTOMIZE, || {
        run(Command::new("go").args(["install", KUSTOMIZE]).env("GOBIN", &directory))
            .context("Go is needed (on Debian: apt-get install golang-go)")
    })?;
    Ok(directory.join("kustomize"))
}

/// kubectl; returns the program.
pub fn kubectl() -> anyhow::Result<PathBuf> {
    let source = root().join("tests/deploy/kubectl");
    let directory = target().join("clients/kubectl");
    std::fs::create_dir_all(&directory)?;
    let program = directory.join("kubectl");
    once(&directory, &std::fs::read_to_string(source.join("go.mod"))?, || {
        run(Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(&source))
            .context("Go is needed (on Debian: apt-get install golang-go)")
    })?;
    Ok(program)
}

/// Runs `install` unless it succeeded before for the same contents.
fn once(directory: &Path, contents: &str, install: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let marker = directory.join(".installed");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == contents) {
        return Ok(());
    }
    println!("installing into {}", directory.display());
    install()?;
    ensure!(directory.is_dir(), "{} was not made", directory.display());
    std::fs::write(&marker, contents)?;
    Ok(())
}
