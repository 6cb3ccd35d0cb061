//! A local cluster, started as a user starts one.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{cargo, run, target};

/// Three brokers that were told to stop within this are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

pub struct LocalCluster {
    process: Child,
    pub bootstrap: String,
}

/// Builds the broker as users run it; returns the program.
pub fn build_release() -> anyhow::Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "vltava"]))?;
    Ok(target().join("release/vltava"))
}

impl LocalCluster {
    pub fn start(binary: &Path) -> anyhow::Result<Self> {
        Self::start_command(Command::new(binary))
    }

    /// By the README's main command.
    pub fn start_with_cargo() -> anyhow::Result<Self> {
        let mut command = cargo();
        command.args(["run", "--release", "--"]);
        Self::start_command(command)
    }

    fn start_command(mut command: Command) -> anyhow::Result<Self> {
        let data = target().join("test-cluster");
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
        }
        let port = free_ports(9).context("no nine free ports in a row")?;
        command
            .args(["cluster", "--brokers", "3", "--base-port", &port.to_string(), "--data-dir"])
            .arg(&data)
            // Suites start many groups one after another; each would wait for Kafka's default of three seconds.
            .args(["--override", "group.initial.rebalance.delay.ms=200"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start the cluster")?;
        let mut line = String::new();
        let output = process.stdout.take().expect("standard output is piped");
        BufReader::new(output).read_line(&mut line)?;
        match line.trim().strip_prefix("bootstrap.servers=") {
            Some(bootstrap) => Ok(Self { process, bootstrap: bootstrap.to_owned() }),
            None => {
                let _ = process.kill();
                let _ = process.wait();
                bail!("the cluster did not start; its logs are in {}", data.join("logs").display())
            }
        }
    }

    /// As Ctrl-C does, and expects an orderly end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the cluster ended by itself ({status})");
        }
        let pid = Pid::from_raw(self.process.id().cast_signed()).expect("a process has an id");
        kill_process(pid, Signal::INT)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "the cluster did not stop in order ({status})");
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the cluster did not stop within {} s", STOP_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // Brokers end with their parent.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first of `count` free ports in a row, below those that the kernel gives to outgoing connections.
fn free_ports(count: u16) -> Option<u16> {
    let first = 21_000 + u16::try_from(std::process::id() % 5_000).unwrap_or(0);
    (first..32_000)
        .step_by(usize::from(count))
        .find(|port| (*port..*port + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
}
