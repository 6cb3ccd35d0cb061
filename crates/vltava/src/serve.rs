//! `vltava serve`: one node, from its settings to its orderly end.

use std::time::Duration;

use anyhow::Context as _;
use vltava_broker::config::{BrokerConfig, Durability};

use crate::ServeArguments;
use crate::http::{self, Phase};
use crate::settings;
use crate::signals::Signals;
use tokio::sync::watch;
use vltava::node::Node;
use vltava_storage::LoadProgress;

/// Beyond the time that controlled shutdown may take, what closing logs may take before the process ends anyway.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

pub fn run(arguments: &ServeArguments) -> anyhow::Result<()> {
    if let Some(parent) = arguments.parent {
        end_with(parent)?;
    }
    let read = settings::read(arguments)?;
    announce(&read.config);
    // Half of them for logs that are in use, the others for connections.
    tracing::info!("may have {} files and connections open", vltava_host::fs::raise_max_open_files());
    for warning in &read.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("broker").enable_all().build()?;
    let outcome = runtime.block_on(serve(read.config));
    // Tasks that still wait, such as long polls, are not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: BrokerConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let limit = config.lifecycle.controlled_shutdown_timeout + CLOSE_TIMEOUT;
    let progress = LoadProgress::default();
    let (phase, phases) = watch::channel(Phase::Starting(progress.clone()));
    http::start(config.http.as_ref(), phases).await?;
    let mut node = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the node was up");
            return Ok(());
        }
        node = Node::start_observed(config, progress) => node?,
    };
    phase.send_replace(Phase::Up(node.view()));
    let failure = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "shutting down; a second signal ends the process at once");
            None
        }
        failure = node.failed() => Some(failure),
    };
    // Nobody looks at a node that goes: it is to be closed, and for that let go of.
    phase.send_replace(Phase::Stopping);
    tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::warn!(signal, "ending at once: the next start recovers the logs");
            std::process::exit(1);
        }
        stopped = tokio::time::timeout(limit, node.stop()) => match stopped {
            Ok(()) => tracing::info!("shut down"),
            Err(_) => tracing::warn!("shutdown did not finish in time: the next start recovers the logs"),
        },
    }
    failure.map_or(Ok(()), Err)
}

/// What the operator should see of a node before it does anything.
fn announce(config: &BrokerConfig) {
    let roles = match (config.roles.broker, config.roles.controller) {
        (true, true) => "broker,controller",
        (true, false) => "broker",
        (false, _) => "controller",
    };
    tracing::info!("vltava {} starts as node {} ({roles})", env!("CARGO_PKG_VERSION"), config.node_id);
    for listener in &config.listeners {
        tracing::info!(
            "listener {} ({}) on {}: clients of listener {} will be told {}",
            listener.name,
            listener.security_protocol.name(),
            listener.bind.bind_address(),
            listener.name,
            listener.advertised
        );
    }
    let sharing = if config.peer_shares_client_port() { ", the same port as clients" } else { "" };
    tracing::info!("other nodes reach this one at {} (listener {}{sharing})", config.peer.advertised, config.peer.name);
    let voters: Vec<String> = config.quorum.voters.iter().map(|(id, address)| format!("{id}@{address}")).collect();
    tracing::info!("metadata quorum: {}", voters.join(", "));
    match config.durability {
        Durability::Flush => tracing::info!("durability flush: a record is acknowledged once it is on disk"),
        Durability::PageCache => tracing::info!(
            "durability page-cache: a record is acknowledged once it is in memory of the operating system; \
             replication alone protects it from power loss"
        ),
    }
    let directories: Vec<String> = config.log_dirs.iter().map(|directory| directory.display().to_string()).collect();
    tracing::info!("data in {}, metadata in {}", directories.join(", "), config.metadata_log_dir.display());
}

/// Asks the kernel for SIGTERM once the parent is gone, however it went.
fn end_with(parent: i32) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("cannot follow the parent process")?;
    let current = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
    // The parent may have gone before the kernel was asked.
    anyhow::ensure!(current == Some(parent), "the parent process {parent} is gone");
    Ok(())
}
