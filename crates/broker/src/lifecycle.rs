//! This broker's standing with the controller: registration, heartbeats, fencing, controlled shutdown.
//!
//! A broker registers once its logs are open, and is fenced until the controller knows that it has applied its own
//! registration. From then on heartbeats keep its session. When none is answered for the session's length, the
//! controller may have given its partitions to others, so it stops serving by itself (trap 15). When the controller does
//! not know it any more, it registers again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use vltava_host::task::{self, JoinHandle};
use vltava_metadata::controller::{
    ControllerError, ControllerRequest, ControllerResponse, Heartbeat, HeartbeatReply, RegisterBroker,
};
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_types::{BrokerEpoch, DirectoryId, ErrorCode, IncarnationId, TopicPartition};

use crate::config::{BrokerConfig, LifecycleSettings, Listener};
use crate::controller::Controller;
use crate::replica_manager::ReplicaManager;

/// The pause before a refused registration is repeated: an earlier run of this broker may still count as alive.
const REGISTRATION_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How long one attempt to register may take.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(5);

/// Heartbeats come faster while something is waited for: to be unfenced, or to be allowed to go.
const IMPATIENT_INTERVAL: Duration = Duration::from_millis(50);

/// Where a broker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Not registered yet.
    Starting,
    /// Registered; clients are not sent here.
    Fenced,
    Running,
    /// Leadership is moving away.
    ShuttingDown,
    /// The controller expects nothing more of this broker.
    Stopped,
}

/// Keeps this broker's standing until it is dropped.
pub struct Lifecycle {
    settings: LifecycleSettings,
    wants_shutdown: watch::Sender<bool>,
    state: watch::Receiver<BrokerState>,
    task: JoinHandle<()>,
}

impl Lifecycle {
    /// Registers the broker and keeps it registered, on the current runtime. Its logs must be open.
    #[must_use]
    pub fn start(
        config: &Arc<BrokerConfig>,
        controller: &Arc<dyn Controller>,
        replicas: &Arc<ReplicaManager>,
        incarnation_id: IncarnationId,
    ) -> Self {
        let registration = RegisterBroker {
            broker_id: config.node_id,
            cluster_id: String::new(),
            incarnation_id,
            listeners: config.listeners.iter().map(|listener| (listener.name.clone(), endpoint(listener))).collect(),
            peer: endpoint(&config.peer),
            rack: config.rack.clone(),
            log_dirs: replicas.log_dirs().iter().map(|log_dir| log_dir.directory_id).collect(),
            is_broker: true,
            previous_broker_epoch: replicas.previous_broker_epoch(),
        };
        Self::start_with(config.lifecycle.clone(), Arc::clone(controller), Arc::clone(replicas), registration)
    }

    fn start_with<R: Replicas>(
        settings: LifecycleSettings,
        controller: Arc<dyn Controller>,
        replicas: R,
        registration: RegisterBroker,
    ) -> Self {
        let (wants_shutdown, shutdown_wanted) = watch::channel(false);
        let (state_sender, state) = watch::channel(BrokerState::Starting);
        let session = Session {
            settings: settings.clone(),
            controller,
            replicas,
            registration,
            shutdown_wanted,
            state: state_sender,
            is_serving: false,
            heard_at: Instant::now(),
        };
        Self { settings, wants_shutdown, state, task: task::spawn(session.run()) }
    }

    /// Where this broker stands, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }

    /// Moves leadership away and waits until the controller lets this broker go (trap 30), as long as the settings
    /// allow. Returns whether it did.
    pub async fn shut_down(&self) -> bool {
        if !self.settings.controlled_shutdown {
            return false;
        }
        let mut state = self.state.clone();
        if *state.borrow() == BrokerState::Starting {
            return false;
        }
        self.wants_shutdown.send_replace(true);
        let stopped = state.wait_for(|state| *state == BrokerState::Stopped);
        let is_released = matches!(timeout(self.settings.controlled_shutdown_timeout, stopped).await, Ok(Ok(_)));
        if !is_released {
            tracing::warn!("leadership has not moved away in time; the broker leaves without waiting any longer");
        }
        is_released
    }
}

impl Drop for Lifecycle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the lifecycle has to know of and tell to the broker's replicas.
trait Replicas: Send + Sync + 'static {
    fn on_registered(&self, broker_epoch: BrokerEpoch);
    fn set_serving(&self, serving: bool);
    fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>>;
    fn offline_log_dirs(&self) -> Vec<DirectoryId>;
    /// Whether the partition has a working log here.
    fn hosts(&self, partition: TopicPartition) -> bool;
}

impl Replicas for Arc<ReplicaManager> {
    fn on_registered(&self, broker_epoch: BrokerEpoch) {
        ReplicaManager::on_registered(self, broker_epoch);
    }

    fn set_serving(&self, serving: bool) {
        ReplicaManager::set_serving(self, serving);
    }

    fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        ReplicaManager::applied_images(self)
    }

    fn offline_log_dirs(&self) -> Vec<DirectoryId> {
        ReplicaManager::offline_log_dirs(self)
    }

    fn hosts(&self, partition: TopicPartition) -> bool {
        self.partition(partition).is_some_and(|replica| replica.is_online())
    }
}

/// The task of a [`Lifecycle`].
struct Session<R> {
    settings: LifecycleSettings,
    controller: Arc<dyn Controller>,
    replicas: R,
    registration: RegisterBroker,
    shutdown_wanted: watch::Receiver<bool>,
    state: watch::Sender<BrokerState>,
    is_serving: bool,
    /// When the last answered heartbeat was sent. The controller's clock for this session started no earlier.
    heard_at: Instant,
}

/// Why heartbeats ended.
enum Ended {
    /// The controller does not know this registration.
    Unknown,
    /// Controlled shutdown is complete.
    Released,
}

impl<R: Replicas> Session<R> {
    async fn run(mut self) {
        loop {
            let broker_epoch = self.register().await;
            self.replicas.on_registered(broker_epoch);
            // Within this process nothing is lost, so a later registration continues this one.
            self.registration.previous_broker_epoch = broker_epoch;
            self.set_state(BrokerState::Fenced);
            match self.keep(broker_epoch).await {
                Ended::Unknown => tracing::warn!(%broker_epoch, "the controller does not know this broker any more"),
                Ended::Released => {
                    self.set_state(BrokerState::Stopped);
                    return;
                }
            }
        }
    }

    async fn register(&mut self) -> BrokerEpoch {
        let mut last_refusal = None;
        loop {
            let cluster_id = self.controller.images().borrow().cluster_id.clone();
            let request = RegisterBroker { cluster_id, ..self.registration.clone() };
            let sent_at = Instant::now();
            let request = ControllerRequest::RegisterBroker(request);
            match self.controller.call(request, sent_at + REGISTRATION_DEADLINE).await {
                Ok(ControllerResponse::RegisterBroker(Ok(broker_epoch))) => {
                    tracing::info!(%broker_epoch, "registered with the controller");
                    self.heard_at = sent_at;
                    return broker_epoch;
                }
                Ok(ControllerResponse::RegisterBroker(Err(refusal))) => {
                    if last_refusal.as_ref() != Some(&refusal) {
                        let ControllerError { code, message } = &refusal;
                        tracing::warn!(%code, message, "the controller refuses the registration for now");
                    }
                    last_refusal = Some(refusal);
                }
                Ok(other) => tracing::error!(?other, "the controller answered another question"),
                Err(unavailable) => tracing::info!(%unavailable, "not registered yet"),
            }
            sleep(REGISTRATION_RETRY_INTERVAL).await;
        }
    }

    /// Sends heartbeats as long as this registration stands.
    async fn keep(&mut self, broker_epoch: BrokerEpoch) -> Ended {
        let mut applied = self.replicas.applied_images();
        loop {
            let wants_shutdown = *self.shutdown_wanted.borrow_and_update();
            if wants_shutdown {
                self.set_state(BrokerState::ShuttingDown);
            }
            let image = applied.borrow_and_update().clone();
            let heartbeat = self.heartbeat(broker_epoch, &image, wants_shutdown);
            match self.send(heartbeat).await {
                Some(Ok(reply)) => {
                    if wants_shutdown && reply.should_shut_down {
                        return Ended::Released;
                    }
                    if !wants_shutdown {
                        self.set_state(if reply.is_fenced { BrokerState::Fenced } else { BrokerState::Running });
                    }
                }
                Some(Err(ControllerError { code, .. }))
                    if matches!(code, ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered) =>
                {
                    return if wants_shutdown { Ended::Released } else { Ended::Unknown };
                }
                Some(Err(ControllerError { code, message })) => {
                    tracing::warn!(%code, message, "a heartbeat was refused");
                }
                None => {}
            }
            let is_impatient = *self.state.borrow() != BrokerState::Running;
            let pause = if is_impatient { IMPATIENT_INTERVAL } else { self.settings.heartbeat_interval };
            tokio::select! {
                biased;
                // An error means that this broker is being dropped.
                _ = self.shutdown_wanted.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn heartbeat(&self, broker_epoch: BrokerEpoch, image: &ClusterImage, want_shutdown: bool) -> Heartbeat {
        let broker_id = self.registration.broker_id;
        // The image's partitions are all in force here, so one without a log has lost it.
        let offline_partitions = image
            .partitions_hosted_by(broker_id)
            .map(|(partition, _)| partition)
            .filter(|partition| !self.replicas.hosts(*partition))
            .collect();
        Heartbeat {
            broker_id,
            broker_epoch,
            applied: image.offset,
            want_fence: false,
            want_shutdown,
            offline_log_dirs: self.replicas.offline_log_dirs(),
            offline_partitions,
        }
    }

    /// Sends a heartbeat and waits for its answer, not without noticing that the session has run out. `None` if there
    /// was no answer.
    async fn send(&mut self, heartbeat: Heartbeat) -> Option<Result<HeartbeatReply, ControllerError>> {
        let sent_at = Instant::now();
        let patience = self.settings.heartbeat_interval.max(self.settings.session_timeout / 3);
        let controller = Arc::clone(&self.controller);
        let mut call = controller.call(ControllerRequest::Heartbeat(heartbeat), sent_at + patience);
        let response = loop {
            let runs_out_at = self.heard_at + self.settings.session_timeout;
            tokio::select! {
                biased;
                response = &mut call => break response,
                () = sleep_until(runs_out_at), if self.is_serving => self.lose_session(),
            }
        };
        match response {
            Ok(ControllerResponse::Heartbeat(reply)) => {
                if reply.is_ok() {
                    self.heard_at = sent_at;
                    self.serve(true);
                }
                Some(reply)
            }
            Ok(other) => {
                tracing::error!(?other, "the controller answered another question");
                None
            }
            Err(_unavailable) => {
                if self.is_serving && self.heard_at.elapsed() >= self.settings.session_timeout {
                    self.lose_session();
                }
                None
            }
        }
    }

    fn lose_session(&mut self) {
        tracing::warn!("no heartbeat was answered for the length of the session: clients are not served");
        self.serve(false);
        if *self.state.borrow() == BrokerState::Running {
            self.set_state(BrokerState::Fenced);
        }
    }

    fn serve(&mut self, serving: bool) {
        if self.is_serving != serving {
            self.is_serving = serving;
            self.replicas.set_serving(serving);
        }
    }

    fn set_state(&self, state: BrokerState) {
        let changed = self.state.send_if_modified(|current| std::mem::replace(current, state) != state);
        if changed {
            tracing::info!(?state, "the broker's standing changed");
        }
    }
}

fn endpoint(listener: &Listener) -> Endpoint {
    Endpoint {
        host: listener.advertised.host.clone(),
        port: listener.advertised.port,
        security_protocol: listener.security_protocol.name().to_owned(),
    }
}
