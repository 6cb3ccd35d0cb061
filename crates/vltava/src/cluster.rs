//! `vltava cluster`: several real broker processes on this machine, under one parent.
//!
//! The parent never touches data. It writes each broker's properties file, starts this same binary on it, waits until
//! every broker serves, and then only watches. Brokers run in process groups of their own, so that Ctrl-C reaches the
//! parent alone and stops them in an orderly way; should the parent be killed, the kernel tells them (see `serve`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use vltava_host::{fs, net};

use crate::ClusterArguments;
use crate::settings::split_override;
use crate::signals::Signals;

/// How long brokers may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

pub fn run(arguments: &ClusterArguments) -> anyhow::Result<()> {
    let plans = plan(arguments)?;
    // One thread: the kernel ties "the parent died" to the thread that started the child.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        check_ports(arguments).await?;
        let mut brokers = Vec::with_capacity(plans.len());
        for plan in plans {
            brokers.push(Broker::start(plan).await?);
        }
        let outcome = supervise(arguments, &mut brokers, &mut signals).await;
        stop(&mut brokers, &mut signals).await;
        outcome
    })
}

/// What one broker is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    node_id: u16,
    client_port: u16,
    properties: String,
    directory: PathBuf,
    log_file: PathBuf,
}

/// Node ids from 1; client ports from the base port; the ports of the quorum after those of the clients, and
/// then those for probes and metrics.
pub fn plan(arguments: &ClusterArguments) -> anyhow::Result<Vec<Plan>> {
    let count = arguments.brokers;
    let host = match arguments.host {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let last_port = u32::from(arguments.base_port) + 3 * u32::from(count) - 1;
    ensure!(
        arguments.base_port > 0 && last_port <= u32::from(u16::MAX),
        "ports {} to {last_port} are needed, which is out of range: choose another --base-port",
        arguments.base_port
    );
    let mut overrides = Vec::new();
    for pair in &arguments.overrides {
        overrides.push(split_override(pair)?);
    }
    let data_dir = std::path::absolute(&arguments.data_dir)?;
    let peer_port = |index: u16| arguments.base_port + count + index;
    let http_port = |index: u16| arguments.base_port + 2 * count + index;
    let voters: Vec<String> = (0..count).map(|index| format!("{}@{host}:{}", index + 1, peer_port(index))).collect();
    let plans = (0..count).map(|index| {
        let node_id = index + 1;
        let client_port = arguments.base_port + index;
        let directory = data_dir.join(format!("broker-{node_id}"));
        let mut settings = vec![
            ("node.id", node_id.to_string()),
            ("process.roles", "broker,controller".to_owned()),
            ("listeners", format!("PLAINTEXT://{host}:{client_port},CONTROLLER://{host}:{}", peer_port(index))),
            ("advertised.listeners", format!("PLAINTEXT://{host}:{client_port}")),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
            ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("controller.quorum.voters", voters.join(",")),
            ("log.dirs", directory.join("data").display().to_string()),
            ("vltava.http.listener", format!("{host}:{}", http_port(index))),
            ("default.replication.factor", count.min(3).to_string()),
            // When all stop at once, the last ones have nobody left to hand over to.
            ("vltava.controlled.shutdown.timeout.ms", "5000".to_owned()),
            // An acknowledged record is on two brokers at least, wherever there are three.
            ("min.insync.replicas", if count >= 3 { "2" } else { "1" }.to_owned()),
        ];
        settings.retain(|(name, _)| !overrides.iter().any(|(other, _)| other == name));
        let mut properties = String::from("# Written by `vltava cluster` at each start; change it with --override.\n");
        for (name, value) in settings.iter().map(|(name, value)| (*name, value.as_str())) {
            properties.push_str(&format!("{name}={}\n", escape(value)));
        }
        for (name, value) in &overrides {
            properties.push_str(&format!("{name}={}\n", escape(value)));
        }
        let log_file = data_dir.join("logs").join(format!("broker-{node_id}.log"));
        Plan { node_id, client_port, properties, directory, log_file }
    });
    Ok(plans.collect())
}

/// Someone else's broker on one of our ports would answer in the place of ours.
pub async fn check_ports(arguments: &ClusterArguments) -> anyhow::Result<()> {
    for port in arguments.base_port..arguments.base_port + 3 * arguments.brokers {
        if let Err(error) = net::bind(&arguments.host.to_string(), port).await {
            bail!("port {port} cannot be used ({error}): choose another --base-port");
        }
    }
    Ok(())
}

/// Backslashes are the only characters of our values that the format would take for something else.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\")
}

/// A broker process.
pub struct Broker {
    plan: Plan,
    process: Child,
    /// Set once it ended.
    ended: Option<ExitStatus>,
}

impl Broker {
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let data = |path: &Path| format!("cannot write {}", path.display());
        fs::create_dir_all(&plan.directory).with_context(|| data(&plan.directory))?;
        if let Some(logs) = plan.log_file.parent() {
            fs::create_dir_all(logs).with_context(|| data(logs))?;
        }
        let file = plan.directory.join("server.properties");
        fs::write(&file, &plan.properties).with_context(|| data(&file))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&plan.log_file)
            .with_context(|| data(&plan.log_file))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(&file)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        if std::env::var_os("VLTAVA_LOG_FORMAT").is_none() {
            command.env("VLTAVA_LOG_FORMAT", "human");
        }
        // The cluster's settings are on the command line; KAFKA_* variables are for single nodes.
        for (name, _) in std::env::vars_os() {
            if name == "CLUSTER_ID" || name.to_string_lossy().starts_with("KAFKA_") {
                command.env_remove(name);
            }
        }
        let process = command.spawn().context("cannot start a broker process")?;
        tracing::info!(
            node_id = plan.node_id,
            pid = process.id(),
            port = plan.client_port,
            log = %plan.log_file.display(),
            "broker started"
        );
        Ok(Self { plan, process, ended: None })
    }

    pub fn node_id(&self) -> u16 {
        self.plan.node_id
    }

    /// Whether the process runs, as far as it was looked at.
    pub fn runs(&self) -> bool {
        self.ended.is_none()
    }

    /// SIGKILL; returns the process's id once the kernel has closed its sockets.
    pub async fn kill(&mut self) -> anyhow::Result<u32> {
        let pid = self.process.id().context("the broker has ended by itself")?;
        self.process.start_kill()?;
        self.ended = Some(self.process.wait().await?);
        Ok(pid)
    }

    /// Starts it again after its end, with the data that it has.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        *self = Self::start(self.plan.clone()).await?;
        Ok(())
    }

    /// Notes that the process ended, once.
    fn newly_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = self.process.try_wait().ok().flatten();
        self.ended
    }

    fn signal(&self, signal: rustix::process::Signal) {
        // `id` is `None` once the process was waited for, so a recycled pid is never signalled.
        if let Some(pid) = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Where clients reach the brokers.
pub fn bootstrap(arguments: &ClusterArguments, brokers: &[Broker]) -> Vec<String> {
    let address = |broker: &Broker| std::net::SocketAddr::new(arguments.host, broker.plan.client_port).to_string();
    brokers.iter().map(address).collect()
}

/// Waits for readiness, announces it, and then watches until a signal, or until no broker is left.
async fn supervise(arguments: &ClusterArguments, brokers: &mut [Broker], signals: &mut Signals) -> anyhow::Result<()> {
    let bootstrap = bootstrap(arguments, brokers);
    let deadline = Instant::now() + Duration::from_secs(arguments.start_timeout);
    tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "stopping before the cluster was ready");
            return Ok(());
        }
        ready = wait_until_ready(brokers, &bootstrap, deadline) => ready?,
    }
    println!("bootstrap.servers={}", bootstrap.join(","));
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                tracing::info!(signal, "stopping the cluster");
                return Ok(());
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        for broker in brokers.iter_mut() {
            if let Some(status) = broker.newly_ended() {
                tracing::error!(
                    node_id = broker.plan.node_id,
                    %status,
                    log = %broker.plan.log_file.display(),
                    "a broker ended by itself; the others go on without it"
                );
            }
        }
        ensure!(brokers.iter().any(|broker| broker.ended.is_none()), "every broker has ended");
    }
}

/// Ready means that every broker, asked for itself, knows all of them as live.
pub async fn wait_until_ready(brokers: &mut [Broker], bootstrap: &[String], deadline: Instant) -> anyhow::Result<()> {
    loop {
        for broker in brokers.iter_mut() {
            if let Some(status) = broker.newly_ended() {
                bail!(
                    "broker {} ended during start-up ({status}); the end of {}:\n{}",
                    broker.plan.node_id,
                    broker.plan.log_file.display(),
                    last_lines(&broker.plan.log_file, 15)
                );
            }
        }
        let mut behind = None;
        for address in bootstrap {
            let live = crate::ready::live_brokers(address).await;
            if live != Some(brokers.len()) {
                behind = Some((address, live));
                break;
            }
        }
        let Some((address, live)) = behind else { return Ok(()) };
        if Instant::now() >= deadline {
            let known = live.map_or_else(
                || "does not answer".to_owned(),
                |live| format!("knows {live} of {} brokers as live", brokers.len()),
            );
            bail!("the cluster was not ready in time: the broker at {address} {known}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks all brokers to stop at once, and kills those that do not within the limit, or at the next signal.
pub async fn stop(brokers: &mut [Broker], signals: &mut Signals) {
    for broker in brokers.iter() {
        broker.signal(rustix::process::Signal::TERM);
    }
    let all_ended = async {
        for broker in brokers.iter_mut() {
            if broker.ended.is_none() {
                broker.ended = broker.process.wait().await.ok();
            }
        }
    };
    tokio::select! {
        biased;
        _ = signals.next() => tracing::warn!("second signal: killing what still runs"),
        () = all_ended => return,
        () = tokio::time::sleep(STOP_TIMEOUT) => tracing::warn!("brokers did not stop in time: killing them"),
    }
    for broker in brokers.iter_mut().filter(|broker| broker.ended.is_none()) {
        let _ = broker.process.kill().await;
    }
}

/// The end of a log file, for an error message.
fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::plan;
    use crate::ClusterArguments;

    fn arguments(brokers: u16, base_port: u16, overrides: &[&str]) -> ClusterArguments {
        ClusterArguments {
            brokers,
            data_dir: "/d".into(),
            base_port,
            host: [127, 0, 0, 1].into(),
            overrides: overrides.iter().map(|pair| (*pair).to_owned()).collect(),
            start_timeout: 1,
        }
    }

    #[test]
    fn ports_of_the_quorum_follow_those_of_the_clients() {
        let plans = plan(&arguments(3, 9092, &["min.insync.replicas=1", "log.retention.hours=1"])).expect("valid");
        expect![[r#"
            # Written by `vltava cluster` at each start; change it with --override.
            node.id=3
            process.roles=broker,controller
            listeners=PLAINTEXT://127.0.0.1:9094,CONTROLLER://127.0.0.1:9097
            advertised.listeners=PLAINTEXT://127.0.0.1:9094
            listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
            inter.broker.listener.name=PLAINTEXT
            controller.listener.names=CONTROLLER
            controller.quorum.voters=1@127.0.0.1:9095,2@127.0.0.1:9096,3@127.0.0.1:9097
            log.dirs=/d/broker-3/data
            vltava.http.listener=127.0.0.1:9100
            default.replication.factor=3
            vltava.controlled.shutdown.timeout.ms=5000
            min.insync.replicas=1
            log.retention.hours=1
        "#]]
        .assert_eq(&plans[2].properties);
    }

    #[test]
    fn ports_out_of_range_are_refused() {
        expect!["ports 65533 to 65541 are needed, which is out of range: choose another --base-port"]
            .assert_eq(&plan(&arguments(3, 65533, &[])).expect_err("out of range").to_string());
    }
}
