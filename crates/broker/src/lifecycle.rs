//! This broker's standing with the controller: registration, heartbeats, fencing, controlled shutdown.
//!
//! A broker registers once its logs are open, and is fenced until the controller knows that it has applied its own
//! registration. From then on heartbeats keep its session: each one that is answered lets it last a session's length
//! from when the heartbeat was sent, since the controller's clock for it started no earlier. When the session runs out,
//! the controller may have given the partitions to others, so that the broker stops serving by itself (trap 15). When the
//! controller does not know it any more, it registers again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
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
const REGISTRATION_RETRY_INTERVAL: Duration = Duration::from_millis(100);

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
            log_dirs: working_log_dirs(replicas),
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
    fn set_fenced(&self, fenced: bool);
    fn extend_lease(&self, end: Instant);
    fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>>;
    fn offline_log_dirs(&self) -> Vec<DirectoryId>;
    /// Rung when a replica stops working, or works again.
    fn offline_changed(&self) -> Arc<Notify>;
    /// Partitions of the applied image that have no working log here.
    fn offline_partitions(&self) -> Vec<TopicPartition>;
}

impl Replicas for Arc<ReplicaManager> {
    fn on_registered(&self, broker_epoch: BrokerEpoch) {
        ReplicaManager::on_registered(self, broker_epoch);
    }

    fn set_fenced(&self, fenced: bool) {
        ReplicaManager::set_fenced(self, fenced);
    }

    fn extend_lease(&self, end: Instant) {
        ReplicaManager::extend_lease(self, end);
    }

    fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        ReplicaManager::applied_images(self)
    }

    fn offline_log_dirs(&self) -> Vec<DirectoryId> {
        ReplicaManager::offline_log_dirs(self)
    }

    fn offline_changed(&self) -> Arc<Notify> {
        ReplicaManager::offline_changed(self)
    }

    fn offline_partitions(&self) -> Vec<TopicPartition> {
        ReplicaManager::offline_partitions(self)
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
    /// The last answer said that clients may be served, and the session has not run out since.
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
                    // A registration begins fenced.
                    self.heard(sent_at, true);
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
        let offline_changed = self.replicas.offline_changed();
        let mut leader = self.controller.leader();
        loop {
            leader.mark_unchanged();
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
                Some(Err(ControllerError {
                    code: ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered,
                    ..
                })) => {
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
                // Leadership has to move. Others may fail with it: they are told together.
                () = async { offline_changed.notified().await; sleep(IMPATIENT_INTERVAL).await } => {}
                // A new controller knows nothing of this broker yet, and may have given it little time.
                Ok(()) = leader.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn heartbeat(&self, broker_epoch: BrokerEpoch, image: &ClusterImage, want_shutdown: bool) -> Heartbeat {
        let broker_id = self.registration.broker_id;
        Heartbeat {
            broker_id,
            broker_epoch,
            applied: image.offset,
            want_fence: false,
            want_shutdown,
            offline_log_dirs: self.replicas.offline_log_dirs(),
            offline_partitions: self.replicas.offline_partitions(),
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
                if let Ok(reply) = &reply {
                    self.heard(sent_at, reply.is_fenced);
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

    /// The controller answered what was sent at `sent_at`: the session lasts from there, here and for whoever serves.
    fn heard(&mut self, sent_at: Instant, is_fenced: bool) {
        // Whom the controller has fenced leads nothing any more, whatever the last image said (trap 15). Said first, so
        // that a session which had run out does not serve for a moment.
        self.replicas.set_fenced(is_fenced);
        self.is_serving = !is_fenced;
        self.heard_at = sent_at;
        self.replicas.extend_lease(sent_at + self.settings.session_timeout);
    }

    /// Those who serve know by the end of the lease.
    fn lose_session(&mut self) {
        tracing::warn!("no heartbeat was answered for the length of the session: clients are not served");
        self.is_serving = false;
        if *self.state.borrow() == BrokerState::Running {
            self.set_state(BrokerState::Fenced);
        }
    }

    fn set_state(&self, state: BrokerState) {
        let changed = self.state.send_if_modified(|current| std::mem::replace(current, state) != state);
        if changed {
            tracing::info!(?state, "the broker's standing changed");
        }
    }
}

fn working_log_dirs(replicas: &ReplicaManager) -> Vec<DirectoryId> {
    let log_dirs = replicas.log_dirs();
    log_dirs.iter().filter(|log_dir| log_dir.online).map(|log_dir| log_dir.directory_id).collect()
}

fn endpoint(listener: &Listener) -> Endpoint {
    Endpoint {
        host: listener.advertised.host.clone(),
        port: listener.advertised.port,
        security_protocol: listener.security_protocol.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use parking_lot::Mutex;
    use vltava_types::{BrokerId, MetadataOffset};

    use super::*;
    use crate::controller::{ControllerUnavailable, QuorumStatus};

    /// Answers as the script says, one answer a request; silent once it has ended.
    struct Scripted {
        script: Mutex<Vec<Answer>>,
        log: Arc<Mutex<String>>,
        started_at: Instant,
        images: watch::Receiver<Arc<ClusterImage>>,
        leader: watch::Receiver<Option<BrokerId>>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Epoch(i64),
        Fenced,
        Unfenced,
        Release,
        Error(ErrorCode),
        /// Unfenced, so many milliseconds later.
        Late(u64),
        Silence,
    }

    impl Controller for Scripted {
        fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
            self.images.clone()
        }

        fn call(
            &self,
            request: ControllerRequest,
            deadline: Instant,
        ) -> BoxFuture<'_, Result<ControllerResponse, ControllerUnavailable>> {
            let answer = {
                let mut script = self.script.lock();
                if script.is_empty() { Answer::Silence } else { script.remove(0) }
            };
            let at = self.started_at.elapsed().as_millis();
            let refused = |code| ControllerError { code, message: String::new() };
            let reply = |is_fenced, should_shut_down| {
                let reply = HeartbeatReply { is_caught_up: true, is_fenced, should_shut_down };
                ControllerResponse::Heartbeat(Ok(reply))
            };
            let (text, response) = match (&request, answer) {
                (ControllerRequest::RegisterBroker(registration), answer) => {
                    let text = format!("register, epoch before {}", registration.previous_broker_epoch);
                    let response = match answer {
                        Answer::Epoch(epoch) => Ok(BrokerEpoch(epoch)),
                        Answer::Error(code) => Err(refused(code)),
                        other => panic!("{other:?} does not answer a registration"),
                    };
                    (text, ControllerResponse::RegisterBroker(response))
                }
                (ControllerRequest::Heartbeat(heartbeat), answer) => {
                    let leaving = if heartbeat.want_shutdown { ", leaving" } else { "" };
                    let text = format!("heartbeat of epoch {}{leaving}", heartbeat.broker_epoch);
                    let response = match answer {
                        Answer::Fenced => reply(true, false),
                        Answer::Unfenced | Answer::Late(_) | Answer::Epoch(_) | Answer::Silence => reply(false, false),
                        Answer::Release => reply(true, true),
                        Answer::Error(code) => ControllerResponse::Heartbeat(Err(refused(code))),
                    };
                    (text, response)
                }
                other => panic!("not asked by a lifecycle: {other:?}"),
            };
            let _ = writeln!(self.log.lock(), "{at:>5} {text} -> {answer:?}");
            async move {
                match answer {
                    Answer::Silence => {
                        sleep_until(deadline).await;
                        return Err(ControllerUnavailable);
                    }
                    Answer::Late(ms) => sleep(Duration::from_millis(ms)).await,
                    _ => {}
                }
                Ok(response)
            }
            .boxed()
        }

        fn leader(&self) -> watch::Receiver<Option<BrokerId>> {
            self.leader.clone()
        }

        fn quorum_status(&self) -> QuorumStatus {
            unreachable!("a lifecycle does not ask")
        }
    }

    struct Logged {
        log: Arc<Mutex<String>>,
        started_at: Instant,
        images: watch::Receiver<Arc<ClusterImage>>,
    }

    impl Replicas for Logged {
        fn on_registered(&self, broker_epoch: BrokerEpoch) {
            let _ = writeln!(self.log.lock(), "      registered as {broker_epoch}");
        }

        fn set_fenced(&self, fenced: bool) {
            let word = if fenced { "fenced" } else { "unfenced" };
            let _ = write!(self.log.lock(), "      {word}");
        }

        fn extend_lease(&self, end: Instant) {
            let end = end.duration_since(self.started_at).as_millis();
            let _ = writeln!(self.log.lock(), ", session until {end}");
        }

        fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>> {
            self.images.clone()
        }

        fn offline_log_dirs(&self) -> Vec<DirectoryId> {
            vec![]
        }

        fn offline_changed(&self) -> Arc<Notify> {
            Arc::default()
        }

        fn offline_partitions(&self) -> Vec<TopicPartition> {
            vec![]
        }
    }

    /// How a broker becomes one that runs.
    const BEGINNING: [Answer; 2] = [Answer::Epoch(7), Answer::Unfenced];

    const BEGINNING_SHOWN: &str = "    0 register, epoch before -1 -> Epoch(7)
      fenced, session until 3000
      registered as 7
    0 heartbeat of epoch 7 -> Unfenced
      unfenced, session until 3000
";

    /// Lets a lifecycle run against the script for some milliseconds, then asks it to leave if told so.
    async fn run(script: &[Answer], run_ms: u64, leave: bool) -> String {
        run_under(watch::channel(None).1, script, run_ms, leave).await
    }

    async fn run_under(
        leader: watch::Receiver<Option<BrokerId>>,
        script: &[Answer],
        run_ms: u64,
        leave: bool,
    ) -> String {
        let settings = LifecycleSettings {
            heartbeat_interval: Duration::from_millis(500),
            session_timeout: Duration::from_millis(3000),
            controlled_shutdown: true,
            controlled_shutdown_timeout: Duration::from_secs(5),
        };
        let log = Arc::new(Mutex::new(String::new()));
        let started_at = Instant::now();
        let image = ClusterImage { offset: MetadataOffset(5), ..ClusterImage::default() };
        let (_image_sender, images) = watch::channel(Arc::new(image));
        let script = Mutex::new(script.to_vec());
        let controller = Scripted { script, log: Arc::clone(&log), started_at, images: images.clone(), leader };
        let replicas = Logged { log: Arc::clone(&log), started_at, images };
        let endpoint = Endpoint { host: "a".to_owned(), port: 1, security_protocol: "PLAINTEXT".to_owned() };
        let registration = RegisterBroker {
            broker_id: BrokerId(1),
            cluster_id: String::new(),
            incarnation_id: IncarnationId::ZERO,
            listeners: BTreeMap::new(),
            peer: endpoint,
            rack: None,
            log_dirs: vec![],
            is_broker: true,
            previous_broker_epoch: BrokerEpoch::NONE,
        };
        let lifecycle = Lifecycle::start_with(settings, Arc::new(controller), replicas, registration);
        sleep(Duration::from_millis(run_ms)).await;
        if leave {
            let is_released = lifecycle.shut_down().await;
            let _ = writeln!(log.lock(), "released: {is_released}");
        }
        let _ = writeln!(log.lock(), "{:?}", *lifecycle.state().borrow());
        std::mem::take(&mut log.lock())
    }

    /// What a broker that runs does, for as long as the script has answers or `run_ms`.
    async fn check(script: &[Answer], run_ms: u64, leave: bool, expected: Expect) {
        let shown = run(&[&BEGINNING, script].concat(), run_ms, leave).await;
        expected.assert_eq(shown.strip_prefix(BEGINNING_SHOWN).expect("all begin alike"));
    }

    #[tokio::test(start_paused = true)]
    async fn registers_until_taken_and_beats_faster_while_fenced() {
        use Answer::*;
        let script =
            [Error(ErrorCode::DuplicateBrokerRegistration), Epoch(7), Fenced, Fenced, Unfenced, Unfenced, Unfenced];
        let shown = run(&script, 1200, false).await;
        expect![[r#"
                0 register, epoch before -1 -> Error(DuplicateBrokerRegistration)
              100 register, epoch before -1 -> Epoch(7)
                  fenced, session until 3100
                  registered as 7
              100 heartbeat of epoch 7 -> Fenced
                  fenced, session until 3100
              150 heartbeat of epoch 7 -> Fenced
                  fenced, session until 3150
              200 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3200
              700 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3700
            Running
        "#]]
        .assert_eq(&shown);
    }

    #[tokio::test(start_paused = true)]
    async fn beats_at_once_for_a_new_controller() {
        use Answer::*;
        let (leader_sender, leader) = watch::channel(Some(BrokerId(1)));
        let election = async {
            sleep(Duration::from_millis(650)).await;
            leader_sender.send_replace(Some(BrokerId(2)));
        };
        let script = [Epoch(7), Unfenced, Unfenced, Unfenced, Unfenced];
        let (shown, ()) = tokio::join!(run_under(leader, &script, 1600, false), election);
        expect![[r#"
              500 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3500
              650 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3650
             1150 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 4150
            Running
        "#]]
        .assert_eq(shown.strip_prefix(BEGINNING_SHOWN).expect("all begin alike"));
    }

    #[tokio::test(start_paused = true)]
    async fn registers_again_when_forgotten_and_claims_to_continue() {
        use Answer::*;
        let script = [Error(ErrorCode::StaleBrokerEpoch), Epoch(9), Unfenced];
        check(
            &script,
            700,
            false,
            expect![[r#"
              500 heartbeat of epoch 7 -> Error(StaleBrokerEpoch)
              500 register, epoch before 7 -> Epoch(9)
                  fenced, session until 3500
                  registered as 9
              500 heartbeat of epoch 9 -> Unfenced
                  unfenced, session until 3500
            Running
        "#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_extends_the_session_from_when_the_heartbeat_was_sent() {
        use Answer::*;
        check(
            &[Unfenced, Late(400), Unfenced],
            2000,
            false,
            expect![[r#"
              500 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3500
             1000 heartbeat of epoch 7 -> Late(400)
                  unfenced, session until 4000
             1900 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 4900
            Running
        "#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_refusal_extend_nothing() {
        use Answer::*;
        check(
            &[Silence, Error(ErrorCode::UnknownServerError), Unfenced],
            2900,
            false,
            expect![[r#"
              500 heartbeat of epoch 7 -> Silence
             2000 heartbeat of epoch 7 -> Error(UnknownServerError)
             2500 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 5500
            Running
        "#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn trap_15_stops_serving_when_the_session_has_run_out() {
        use Answer::*;
        check(
            &[Unfenced, Silence, Silence, Silence, Unfenced],
            4500,
            false,
            expect![[r#"
              500 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3500
             1000 heartbeat of epoch 7 -> Silence
             2500 heartbeat of epoch 7 -> Silence
             3550 heartbeat of epoch 7 -> Silence
            Fenced
        "#]],
        )
        .await;
    }

    /// As after a long stop: others lead by now, and the images that say so are still on their way.
    #[tokio::test(start_paused = true)]
    async fn trap_15_does_not_serve_while_it_is_fenced() {
        use Answer::*;
        check(
            &[Fenced, Fenced, Unfenced],
            700,
            false,
            expect![[r#"
              500 heartbeat of epoch 7 -> Fenced
                  fenced, session until 3500
              550 heartbeat of epoch 7 -> Fenced
                  fenced, session until 3550
              600 heartbeat of epoch 7 -> Unfenced
                  unfenced, session until 3600
            Running
        "#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn trap_30_waits_until_the_controller_lets_it_go() {
        use Answer::*;
        check(
            &[Unfenced, Fenced, Release],
            400,
            true,
            expect![[r#"
              400 heartbeat of epoch 7, leaving -> Unfenced
                  unfenced, session until 3400
              450 heartbeat of epoch 7, leaving -> Fenced
                  fenced, session until 3450
              500 heartbeat of epoch 7, leaving -> Release
                  fenced, session until 3500
            released: true
            Stopped
        "#]],
        )
        .await;
        check(
            &[Silence],
            400,
            true,
            expect![[r#"
              400 heartbeat of epoch 7, leaving -> Silence
             1450 heartbeat of epoch 7, leaving -> Silence
             2500 heartbeat of epoch 7, leaving -> Silence
             3550 heartbeat of epoch 7, leaving -> Silence
             4600 heartbeat of epoch 7, leaving -> Silence
            released: false
            ShuttingDown
        "#]],
        )
        .await;
    }
}
