//! One node's parts, wired together.
//!
//! The order of starting: directories are locked first, so that a second process on the same data stops before it does
//! anything; then the quorum's member and the listeners, which is all that other nodes need to form or find the
//! cluster; then, once the cluster has an identity, the replicas; and clients are let in last. Stopping goes the other
//! way.

mod directories;
mod late_replicas;
pub mod metrics;
mod quorum_controller;
mod view;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use vltava_broker::Broker;
use vltava_broker::config::{BrokerConfig, HostPort, Listener, SecurityProtocol};
use vltava_broker::controller::Controller;
use vltava_broker::lifecycle::{BrokerState, Lifecycle};
use vltava_broker::replica_manager::ReplicaManager;
use vltava_broker::server::Server;
use vltava_host::task::JoinHandle;
use vltava_host::{net, random, task};
use vltava_metadata::Endpoint;
use vltava_metadata::controller::{self, ControllerConfig};
use vltava_peer::server::{Acceptor, Routes};
use vltava_peer::{Plane, positions, replica, server};
use vltava_quorum::{DEFAULT_SNAPSHOT_EVERY, Handle, QuorumConfig};
use vltava_storage::{LoadProgress, LogDir};
use vltava_types::{BrokerId, IncarnationId};

use directories::Directories;
use late_replicas::LateReplicas;
use quorum_controller::QuorumController;
use view::BrokerView;
pub use view::{NodeView, Unready};

/// A running node.
pub struct Node {
    node_id: BrokerId,
    quorum: Handle,
    listeners: Listeners,
    broker: Option<RunningBroker>,
    /// Held for its lock, where the metadata has a directory of its own.
    _metadata_directory: Option<LogDir>,
}

/// What accepts connections.
struct Listeners {
    clients: Arc<Server>,
    /// The listener that only other nodes use, where there is one.
    peers: Option<JoinHandle<()>>,
}

/// What a node with the broker role runs besides its member of the quorum.
struct RunningBroker {
    broker: Arc<Broker>,
    replicas: Arc<ReplicaManager>,
    lifecycle: Lifecycle,
    /// Lets clients in.
    opening: JoinHandle<()>,
}

impl Node {
    /// Returns once the node is on its way to serving; a broker serves when the controller has let it in.
    pub async fn start(config: BrokerConfig) -> anyhow::Result<Self> {
        Self::start_observed(config, LoadProgress::default()).await
    }

    /// The same; `progress` counts the logs that are opened.
    pub async fn start_observed(config: BrokerConfig, progress: LoadProgress) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let incarnation_id = IncarnationId::from_random(random::bytes());
        let directories = Directories::open(Arc::clone(&config), progress).await?;
        let decisions = controller::Controller::new(controller_config(&config, incarnation_id));
        let quorum = Handle::start(quorum_config(&config, incarnation_id), decisions)
            .await
            .context("the metadata quorum cannot start")?;
        let replicas = Arc::new(LateReplicas::default());
        let routes = replica::add_routes(Routes::new(), Arc::clone(&replicas));
        let routes = positions::add_routes(routes, Arc::clone(&replicas));
        let data_plane = Arc::new(server::serve(Plane::Data, routes));
        let acceptor = Acceptor::new(quorum.control_plane(), Some(data_plane));
        let listeners = Listeners::bind(&config, acceptor).await?;
        let directories = claim_directories(&config, &quorum, directories).await?;
        let Directories { logs, metadata } = directories;
        let mut node = Self { node_id: config.node_id, quorum, listeners, broker: None, _metadata_directory: metadata };
        if config.roles.broker {
            let controller: Arc<dyn Controller> = Arc::new(QuorumController::new(node.quorum.clone()));
            let manager = ReplicaManager::open(Arc::clone(&config), Arc::clone(&controller), logs)
                .await
                .context("the logs cannot be opened")?;
            replicas.set(Arc::clone(&manager));
            let lifecycle = Lifecycle::start(&config, &controller, &manager, incarnation_id);
            let broker = Broker::new(config, controller, Arc::clone(&manager));
            let clients = Arc::clone(&node.listeners.clients);
            let opening = task::spawn(open_when_running(lifecycle.state(), clients, Arc::clone(&broker)));
            node.broker = Some(RunningBroker { broker, replicas: manager, lifecycle, opening });
        }
        Ok(node)
    }
}

impl Node {
    /// Waits until a part of the node has failed for good.
    pub async fn failed(&mut self) -> anyhow::Error {
        let logs_failed = async {
            match &self.broker {
                None => std::future::pending().await,
                Some(broker) => broker.replicas.failed().await,
            }
        };
        tokio::select! {
            biased;
            reason = self.quorum.failed() => anyhow::anyhow!("the metadata quorum's member failed: {reason}"),
            reason = logs_failed => anyhow::anyhow!("{reason}"),
        }
    }

    /// What probes and metrics see of the node.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let broker = self
            .broker
            .as_ref()
            .map(|running| BrokerView { broker: Arc::clone(&running.broker), state: running.lifecycle.state() });
        NodeView { node_id: self.node_id, quorum: self.quorum.clone(), broker }
    }

    /// Moves leadership away, then closes everything in order.
    pub async fn stop(mut self) {
        if let Some(broker) = &self.broker {
            broker.lifecycle.shut_down().await;
        }
        if let Some(broker) = &mut self.broker {
            broker.opening.abort();
            // Cancelled or done: either way it has let go of the listeners.
            let _ = (&mut broker.opening).await;
        }
        let clients = Arc::into_inner(self.listeners.clients).expect("nobody else holds the listeners any more");
        clients.stop().await;
        if let Some(broker) = &self.broker
            && !broker.replicas.shut_down().await
        {
            tracing::warn!("the logs were not closed in order: the next start recovers them");
        }
        self.quorum.shutdown().await;
        if let Some(peers) = self.listeners.peers {
            peers.abort();
        }
    }
}

impl Listeners {
    async fn bind(config: &BrokerConfig, acceptor: Acceptor) -> anyhow::Result<Self> {
        if config.peer_shares_client_port() {
            return Ok(Self { clients: Arc::new(Server::bind(config, Some(acceptor)).await?), peers: None });
        }
        let Listener { name, bind, .. } = &config.peer;
        let host = if bind.host.is_empty() { "0.0.0.0" } else { &bind.host };
        let socket = net::bind(host, bind.port)
            .await
            .with_context(|| format!("cannot bind listener {name} to {}", bind.bind_address()))?;
        let peers = task::spawn(server::accept_peers(socket, acceptor));
        Ok(Self { clients: Arc::new(Server::bind(config, None).await?), peers: Some(peers) })
    }
}

/// A broker that has just started knows the cluster as it was when it stopped: what it would tell clients could be long
/// out of date. So they wait until the controller has seen it catch up.
async fn open_when_running(mut state: watch::Receiver<BrokerState>, clients: Arc<Server>, broker: Arc<Broker>) {
    if state.wait_for(|state| *state == BrokerState::Running).await.is_ok() {
        clients.open(broker);
    }
}

/// Waits until the cluster has an identity, and marks new log directories with it.
async fn claim_directories(
    config: &Arc<BrokerConfig>,
    quorum: &Handle,
    directories: Directories,
) -> anyhow::Result<Directories> {
    let mut images = quorum.images();
    let cluster_id = images
        .wait_for(|image| !image.cluster_id.is_empty())
        .await
        .context("the metadata quorum ended")?
        .cluster_id
        .clone();
    tracing::info!(cluster_id, "this node is part of a cluster");
    directories.claim(Arc::clone(config), cluster_id).await
}

fn quorum_config(config: &BrokerConfig, incarnation_id: IncarnationId) -> QuorumConfig {
    QuorumConfig {
        node_id: config.node_id,
        incarnation_id,
        peer: peer_endpoint(&config.peer.advertised),
        voters: config.quorum.voters.iter().map(|(id, address)| (*id, peer_endpoint(address))).collect(),
        bootstrap_servers: config.quorum.bootstrap_servers.iter().map(peer_endpoint).collect(),
        metadata_log_dir: config.metadata_log_dir.clone(),
        reserve_bytes: config.quorum.metadata_reserve_bytes,
        cluster_id: config.cluster_id.clone(),
        election_timeout: config.quorum.election_timeout,
        snapshot_every: DEFAULT_SNAPSHOT_EVERY,
    }
}

fn peer_endpoint(address: &HostPort) -> Endpoint {
    Endpoint {
        host: address.host.clone(),
        port: address.port,
        security_protocol: SecurityProtocol::Plaintext.name().to_owned(),
    }
}

fn controller_config(config: &BrokerConfig, incarnation_id: IncarnationId) -> ControllerConfig {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    ControllerConfig {
        local_node: config.roles.broker.then_some((config.node_id, incarnation_id)),
        session_timeout_ms: millis(config.lifecycle.session_timeout),
        default_partition_count: config.topics.default_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        min_insync_replicas: config.replication.min_insync_replicas,
        unclean_leader_election_enable: config.replication.unclean_leader_election,
        auto_leader_rebalance_enable: config.replication.auto_leader_rebalance,
        leader_imbalance_check_interval_ms: millis(config.replication.leader_imbalance_check_interval),
        leader_imbalance_per_broker_percentage: config.replication.leader_imbalance_per_broker_percentage,
        ..ControllerConfig::default()
    }
}
