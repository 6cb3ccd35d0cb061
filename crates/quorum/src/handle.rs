//! What the rest of the process holds of the quorum.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vltava_host::task;
use vltava_metadata::controller::{Controller, ControllerRequest, ControllerResponse};
use vltava_metadata::{ClusterImage, Endpoint, codec};
use vltava_peer::controller::{ControllerCall, ControllerClient, ControllerReply};
use vltava_peer::raft::RaftClient;
use vltava_peer::server::{PlaneServer, Routes};
use vltava_peer::{Plane, controller, raft, server};
use vltava_types::{BrokerId, DirectoryId, IncarnationId};

use crate::active_controller::{ActiveController, LeaderContact, MAX_QUEUED_REQUESTS, Request};
use crate::formation;
use crate::identity::Identity;
use crate::log_store::LogStore;
use crate::membership::{self, MAX_QUEUED_JOINS};
use crate::network::Network;
use crate::pre_vote::Backing;
use crate::retained::{self, MAX_RETAINED_BYTES};
use crate::service::Service;
use crate::session::{self, MAX_QUEUED_HEARTBEATS, SessionCall};
use crate::standing::{self, Standing};
use crate::state_machine::StateMachine;
use crate::status::{self, QuorumStatus};
use crate::types::{Raft, RaftMetrics};
use crate::voters::{self, Voters};

/// Threads of the quorum's own runtime.
const THREADS: usize = 2;

/// So many heartbeats of Raft's leader go into an election timeout.
const HEARTBEATS: u64 = 5;

/// The pause before a request is sent to the controller again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The longest a single attempt to reach the controller may take; a caller's deadline may allow several.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a node that is taken for the leader may take to describe the quorum.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);

/// How long an orderly shutdown waits for another leader.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(2);

/// The default of [`QuorumConfig::election_timeout`]. Kafka's is 1000 ms.
pub const DEFAULT_ELECTION_TIMEOUT: Duration = Duration::from_millis(500);

/// The default of [`QuorumConfig::snapshot_every`].
pub const DEFAULT_SNAPSHOT_EVERY: u64 = 5000;

/// What the quorum has to know of its node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    pub node_id: BrokerId,
    /// This run of the process, as it is also given when the broker registers.
    pub incarnation_id: IncarnationId,
    /// Where this node's control-plane server answers other nodes.
    pub peer: Endpoint,
    /// `controller.quorum.voters`. A node that is not among them follows as a learner. Empty, and without bootstrap
    /// servers: this node alone.
    pub voters: BTreeMap<BrokerId, Endpoint>,
    /// `controller.quorum.bootstrap.servers`: nodes to ask for the leader besides the voters.
    pub bootstrap_servers: Vec<Endpoint>,
    /// `metadata.log.dir`; the log is `__cluster_metadata-0` in it.
    pub metadata_log_dir: PathBuf,
    /// `vltava.metadata.reserve.bytes`: room kept for the metadata log while its disk is full.
    pub reserve_bytes: u64,
    /// `cluster.id`, if configured: refused if the quorum has another one.
    pub cluster_id: Option<String>,
    /// `controller.quorum.election.timeout.ms`: a follower that hears nothing for so long lets others be elected, and
    /// stands for election itself after between one and a half times and twice this time.
    pub election_timeout: Duration,
    /// Entries after which a snapshot is taken and the log before it may go.
    pub snapshot_every: u64,
}

/// A running quorum member. Cheap to clone; the member stops when [`Handle::shutdown`] is called or the last clone
/// is dropped.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<Identity>,
    raft: Raft,
    control_plane: Mutex<Option<Arc<PlaneServer>>>,
    images: watch::Receiver<Arc<ClusterImage>>,
    standing: watch::Receiver<Standing>,
    leader: watch::Receiver<Option<BrokerId>>,
    requests: mpsc::Sender<Request>,
    session: mpsc::Sender<SessionCall>,
    /// Clients of nodes that have led, by id, with the endpoint each was made for.
    clients: Mutex<BTreeMap<u64, (Endpoint, ControllerClient)>>,
    runtime: Mutex<Option<task::Isolated>>,
    stop: watch::Sender<bool>,
}

/// No controller answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no active controller answered in time")]
pub struct Unavailable;

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("metadata log directory: {0}")]
    Io(#[from] std::io::Error),
    #[error("the metadata directory belongs to node {found}, and this is node {configured}")]
    OtherNode { found: BrokerId, configured: BrokerId },
    #[error("the metadata directory belongs to cluster {found}, and cluster.id is {configured}")]
    OtherCluster { found: String, configured: String },
    #[error("node id {0} is negative")]
    InvalidNodeId(BrokerId),
    #[error("consensus failed to start: {0}")]
    Consensus(String),
}

impl Handle {
    /// Starts this node's member of the quorum on a runtime of its own, and returns once its log is open. Forming or
    /// joining the quorum goes on in the background. `controller` decides while this node leads.
    ///
    /// Control-plane connections must be offered to [`Handle::control_plane`] from now on.
    pub async fn start(config: QuorumConfig, controller: Controller) -> Result<Self, StartError> {
        let (started, start) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        let member = run(config, controller, started, stopped);
        let runtime = task::spawn_isolated("quorum", THREADS, member)?;
        let parts = start.await.map_err(|_| StartError::Consensus("the quorum's runtime ended".to_owned()))??;
        let Parts { identity, raft, control_plane, images, standing, leader, requests, session } = parts;
        let inner = Inner {
            identity,
            raft,
            control_plane: Mutex::new(Some(control_plane)),
            images,
            standing,
            leader,
            requests,
            session,
            clients: Mutex::default(),
            runtime: Mutex::new(Some(runtime)),
            stop,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The control-plane server (Raft and controller calls), running on the quorum's own runtime. `None` after
    /// [`Handle::shutdown`].
    #[must_use]
    pub fn control_plane(&self) -> Option<Arc<PlaneServer>> {
        self.inner.control_plane.lock().clone()
    }

    /// Every committed image, newest last. A receiver may skip images but never sees them out of order.
    #[must_use]
    pub fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.inner.images.clone()
    }

    /// The quorum's leader as this node knows it.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<BrokerId>> {
        self.inner.leader.clone()
    }

    /// The identity of this node's metadata directory.
    #[must_use]
    pub fn directory_id(&self) -> DirectoryId {
        self.inner.identity.directory_id
    }

    /// Empty until this node has become part of a cluster.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.inner.identity.cluster_id()
    }

    /// Sends a request to the active controller, wherever it is, and retries changes of leader until `deadline`.
    /// An error leaves the outcome unknown: the records may commit later.
    pub async fn call(&self, request: ControllerRequest, deadline: Instant) -> Result<ControllerResponse, Unavailable> {
        let encoded = Bytes::from(codec::encode_request(&request));
        loop {
            let attempt_deadline = deadline.min(Instant::now() + ATTEMPT_DEADLINE);
            let attempt = self.inner.attempt(&request, &encoded, attempt_deadline);
            if let Ok(Some(response)) = timeout_at(attempt_deadline, attempt).await {
                return Ok(response);
            }
            if Instant::now() + RETRY_INTERVAL >= deadline {
                return Err(Unavailable);
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// What this node knows of the quorum.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        status::current(self.inner.identity.node_id, &self.inner.raft.metrics().borrow_watched().clone())
    }

    /// Who may vote, as far as this node knows.
    #[must_use]
    pub fn voters(&self) -> Voters {
        voters::current(&self.inner.identity, &self.inner.raft.metrics().borrow_watched().clone())
    }

    /// What the leader knows of the quorum, asked of it wherever it is, until `deadline`.
    pub async fn leader_status(&self, deadline: Instant) -> Result<QuorumStatus, Unavailable> {
        loop {
            let attempt_deadline = deadline.min(Instant::now() + STATUS_DEADLINE);
            if let Some(status) = self.inner.leader_status(attempt_deadline).await {
                return Ok(status);
            }
            if Instant::now() + RETRY_INTERVAL >= deadline {
                return Err(Unavailable);
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Waits until this member has failed for good, as when its disk does, and says why. Whoever runs it should end the
    /// process: a node without metadata serves nobody.
    pub async fn failed(&self) -> String {
        let mut standing = self.inner.standing.clone();
        loop {
            if let Err(fatal) = &self.inner.raft.metrics().borrow_watched().running_state {
                return fatal.to_string();
            }
            if standing.changed().await.is_err() {
                return "raft has ended".to_owned();
            }
        }
    }

    /// Leaves in order: hands leadership over if this node leads, then stops.
    pub async fn shutdown(&self) {
        self.inner.hand_over().await;
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end in order");
        }
        self.inner.control_plane.lock().take();
        self.inner.stop.send_replace(true);
        let runtime = self.inner.runtime.lock().take();
        if let Some(runtime) = runtime {
            runtime.join().await;
        }
    }
}

impl Inner {
    /// One attempt; `None` means that it should be repeated.
    async fn attempt(
        &self,
        request: &ControllerRequest,
        encoded: &Bytes,
        deadline: Instant,
    ) -> Option<ControllerResponse> {
        let leader_id = self.raft.metrics().borrow_watched().current_leader?;
        let mut leader = self.leader.clone();
        tokio::select! {
            biased;
            response = self.ask(leader_id, request, encoded, deadline) => response,
            // A leader that vanished silently never answers. An error means that the member has stopped.
            _ = leader.wait_for(|leader| *leader != Some(broker_id(leader_id))) => None,
        }
    }

    async fn ask(
        &self,
        leader_id: u64,
        request: &ControllerRequest,
        encoded: &Bytes,
        deadline: Instant,
    ) -> Option<ControllerResponse> {
        if leader_id == self.identity.node_id {
            let (reply, answer) = oneshot::channel();
            let request = Request { request: request.clone(), reply };
            self.requests.send(request).await.ok()?;
            return answer.await.ok().flatten();
        }
        let reply = if matches!(request, ControllerRequest::Heartbeat(_)) {
            let (reply, answer) = oneshot::channel();
            self.session.send(SessionCall { request: encoded.clone(), reply }).await.ok()?;
            answer.await.ok()?
        } else {
            let call = ControllerCall {
                cluster_id: self.identity.cluster_id(),
                node_id: self.identity.node_id,
                request: encoded.clone(),
            };
            let client = self.client(leader_id)?;
            client.call(call, deadline.saturating_duration_since(Instant::now())).await
        };
        match reply {
            Ok(ControllerReply::Response(response)) => match codec::decode_response(&response) {
                Ok(response) => Some(response),
                Err(error) => {
                    tracing::warn!(leader_id, %error, "the controller's answer cannot be read");
                    None
                }
            },
            Ok(ControllerReply::NotController { .. }) => None,
            Err(error) => {
                tracing::debug!(leader_id, %error, "the controller did not answer");
                None
            }
        }
    }

    /// What the leader says of itself, if the node that this one takes for the leader agrees that it is.
    async fn leader_status(&self, deadline: Instant) -> Option<QuorumStatus> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leader_id = metrics.current_leader?;
        let status = if leader_id == self.identity.node_id {
            status::current(leader_id, &metrics)
        } else {
            let client = RaftClient::new(&self.identity.endpoint_of(leader_id)?);
            let answer = client.status(deadline.saturating_duration_since(Instant::now())).await;
            status::from_wire(answer.ok()?).ok()?
        };
        (status.leader == Some(broker_id(leader_id))).then_some(status)
    }

    fn client(&self, node_id: u64) -> Option<ControllerClient> {
        let endpoint = self.identity.endpoint_of(node_id)?;
        let mut clients = self.clients.lock();
        match clients.get(&node_id) {
            Some((known, client)) if *known == endpoint => Some(client.clone()),
            _ => {
                let client = ControllerClient::new(&endpoint);
                clients.insert(node_id, (endpoint, client.clone()));
                Some(client)
            }
        }
    }

    /// Lets the voter that is furthest along take over, so that nobody has to wait for an election timeout.
    async fn hand_over(&self) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state != ServerState::Leader {
            return;
        }
        let Some(successor) = successor(&metrics) else {
            return;
        };
        if self.raft.trigger().transfer_leader(successor).await.is_err() {
            return;
        }
        let mut leader = self.leader.clone();
        let own_id = broker_id(self.identity.node_id);
        let changed = leader.wait_for(|leader| leader.is_some_and(|leader| leader != own_id));
        if timeout(HANDOVER_DEADLINE, changed).await.is_err() {
            tracing::info!("nobody has taken over from this node as leader of the quorum");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Everything that has not ended by itself ends with the runtime.
        self.stop.send_replace(true);
    }
}

/// What a started member hands to its [`Handle`].
struct Parts {
    identity: Arc<Identity>,
    raft: Raft,
    control_plane: Arc<PlaneServer>,
    images: watch::Receiver<Arc<ClusterImage>>,
    standing: watch::Receiver<Standing>,
    leader: watch::Receiver<Option<BrokerId>>,
    requests: mpsc::Sender<Request>,
    session: mpsc::Sender<SessionCall>,
}

/// The member's life, on its own runtime.
async fn run(
    config: QuorumConfig,
    controller: Controller,
    started: oneshot::Sender<Result<Parts, StartError>>,
    mut stopped: watch::Receiver<bool>,
) {
    // Aborts all tasks when dropped.
    let mut tasks = JoinSet::new();
    let result = start(config, controller, &mut tasks).await;
    if started.send(result).is_err() {
        return;
    }
    // An error means that the handle is gone, which stops the member too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn start(config: QuorumConfig, controller: Controller, tasks: &mut JoinSet<()>) -> Result<Parts, StartError> {
    let node_id = node_id(config.node_id)?;
    let log_store = LogStore::open(&config.metadata_log_dir, node_id, config.reserve_bytes).await?;
    let identity = Arc::new(identity(&config, node_id, &log_store)?);
    let (image_sender, images) = watch::channel(Arc::new(ClusterImage::default()));
    let state_machine =
        StateMachine::open(&config.metadata_log_dir, image_sender, Arc::clone(log_store.reserve())).await?;
    let raft_config = Arc::new(raft_config(&config)?);
    let patience = Duration::from_millis(raft_config.election_timeout_min);
    let backing = Arc::new(Mutex::new(Backing::new(node_id, patience)));
    let leader_contact = Arc::<LeaderContact>::default();
    let network =
        Network { identity: identity.clone(), backing: backing.clone(), leader_contact: Arc::clone(&leader_contact) };
    let raft = Raft::new(node_id, raft_config, network, log_store.clone(), state_machine)
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))?;
    identity.set_raft(raft.clone());

    let (requests, request_queue) = mpsc::channel(MAX_QUEUED_REQUESTS);
    let (events, event_queue) = mpsc::channel(MAX_QUEUED_REQUESTS);
    let (joins, join_queue) = mpsc::channel(MAX_QUEUED_JOINS);
    let (session, session_queue) = mpsc::channel(MAX_QUEUED_HEARTBEATS);
    let (standing_sender, standing) = watch::channel(Standing::of(&raft.metrics().borrow_watched()));
    let (leader_sender, leader) = watch::channel(None);
    let service = Arc::new(Service {
        identity: identity.clone(),
        log_store: log_store.clone(),
        raft: raft.clone(),
        joins,
        requests: requests.clone(),
        events: events.clone(),
        leader_contact: Arc::clone(&leader_contact),
        backing,
    });
    let routes = controller::add_routes(raft::add_routes(Routes::new(), service.clone()), service);
    let control_plane = Arc::new(server::serve(Plane::Control, routes));
    let active_controller = ActiveController {
        identity: identity.clone(),
        leader_contact,
        raft: raft.clone(),
        standing: standing.clone(),
        controller,
        images: images.clone(),
        requests: request_queue,
        events: event_queue,
        event_sender: events,
        lease: config.election_timeout / 2,
        started_at: Instant::now(),
    };
    tasks.spawn(active_controller.run());
    tasks.spawn(membership::run(identity.clone(), raft.clone(), join_queue));
    tasks.spawn(session::run(identity.clone(), raft.clone(), standing.clone(), session_queue));
    tasks.spawn(standing::follow(raft.clone(), standing_sender, leader_sender));
    tasks.spawn(hold_elections(identity.clone(), raft.clone(), standing.clone()));
    tasks.spawn(retained::run(raft.clone(), log_store.clone(), MAX_RETAINED_BYTES));
    tasks.spawn(formation::run(identity.clone(), raft.clone(), log_store, config.cluster_id));
    Ok(Parts { identity, raft, control_plane, images, standing, leader, requests, session })
}

fn identity(config: &QuorumConfig, node_id: u64, log_store: &LogStore) -> Result<Identity, StartError> {
    let state = log_store.state();
    if state.node_id != node_id {
        return Err(StartError::OtherNode { found: broker_id(state.node_id), configured: config.node_id });
    }
    if let Some(configured) = &config.cluster_id
        && !state.cluster_id.is_empty()
        && state.cluster_id != *configured
    {
        return Err(StartError::OtherCluster { found: state.cluster_id, configured: configured.clone() });
    }
    let mut voters = BTreeMap::new();
    for (voter, endpoint) in &config.voters {
        voters.insert(self::node_id(*voter)?, endpoint.clone());
    }
    if voters.is_empty() && config.bootstrap_servers.is_empty() {
        voters.insert(node_id, config.peer.clone());
    }
    let cluster_id =
        if state.cluster_id.is_empty() { config.cluster_id.clone().unwrap_or_default() } else { state.cluster_id };
    let bootstrap_servers = config.bootstrap_servers.clone();
    let (directory_id, incarnation_id) = (state.directory_id, config.incarnation_id);
    Ok(Identity::new(node_id, directory_id, incarnation_id, config.peer.clone(), voters, bootstrap_servers, cluster_id))
}

fn raft_config(config: &QuorumConfig) -> Result<openraft::Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election_timeout = millis(config.election_timeout);
    let raft_config = openraft::Config {
        cluster_name: "vltava".to_owned(),
        heartbeat_interval: (election_timeout / HEARTBEATS).max(1),
        // OpenRaft takes the larger one for the lease of a leader, and waits for that to run out before it waits for a
        // time drawn from between the two. The smaller one is also how long a request for a vote may take.
        election_timeout_min: election_timeout / 2,
        election_timeout_max: election_timeout,
        install_snapshot_timeout: 30_000,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.snapshot_every / 5,
        enable_pre_vote: Some(true),
        // A restarted leader's sessions and queues are gone: it must be elected again like any other.
        enable_leader_restore: Some(false),
        // Switched on once this node's own log says that it may vote.
        enable_elect: false,
        backoff: "50ms".to_owned(),
        ..openraft::Config::default()
    };
    raft_config.validate().map_err(|error| StartError::Consensus(error.to_string()))
}

/// Lets Raft start elections exactly while this node's own log records its directory as a voter.
async fn hold_elections(identity: Arc<Identity>, raft: Raft, mut standing: watch::Receiver<Standing>) {
    let mut is_enabled = false;
    loop {
        let may_stand = identity.may_stand_for_election();
        if may_stand != is_enabled {
            is_enabled = may_stand;
            raft.runtime_config().elect(may_stand);
            let is_alone = raft.metrics().borrow_watched().membership_config.voter_ids().count() == 1;
            if may_stand && is_alone && raft.trigger().elect(false).await.is_err() {
                return;
            }
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

fn successor(metrics: &RaftMetrics) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    metrics
        .membership_config
        .voter_ids()
        .filter(|voter| *voter != metrics.id)
        .filter_map(|voter| replication.get(&voter)?.as_ref().map(|matched| (matched.index, voter)))
        .max()
        .map(|(_, voter)| voter)
}

fn node_id(broker_id: BrokerId) -> Result<u64, StartError> {
    u64::try_from(broker_id.value()).map_err(|_| StartError::InvalidNodeId(broker_id))
}

pub(crate) fn broker_id(node_id: u64) -> BrokerId {
    BrokerId(i32::try_from(node_id).expect("node ids come from broker ids"))
}
