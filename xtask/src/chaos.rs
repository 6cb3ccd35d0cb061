//! Real brokers and real clients under faults: `tests/chaos`.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cluster::build_release;
use crate::{install, pytest, root, run, target};

/// Runs the program with these arguments, after the tests of its checker.
pub fn chaos(arguments: &[String]) -> anyhow::Result<()> {
    let python = install::python("confluent-kafka", install::NEWEST_CONFLUENT)?;
    run(&mut pytest(python.clone(), "tests/chaos", &[]))?;
    let output = output()?;
    let mut command = std::process::Command::new(python);
    command.args(["-m", "chaos", "--output"]).arg(&output).args(arguments);
    command.current_dir(root().join("tests")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("VLTAVA_BINARY", build_release()?).env("TOOLS_CLASS_PATH", install::kafka_tools()?);
    run(&mut command).with_context(|| format!("report, histories and the brokers' logs are in {}", output.display()))
}

/// An empty directory. What the last run left is replaced.
fn output() -> anyhow::Result<PathBuf> {
    let output = target().join("chaos");
    if output.exists() {
        std::fs::remove_dir_all(&output).with_context(|| format!("cannot empty {}", output.display()))?;
    }
    Ok(output)
}
