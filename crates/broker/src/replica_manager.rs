//! All hosted partitions, kept in step with the cluster image.
//!
//! One task applies images, one after another, and is the only one that creates, deletes or changes the role of
//! partitions. Others see to time: lagging followers, retention, checkpoints, failed disks.

mod absent;
mod apply;
mod cleaner;
mod cut_off;
mod relocation;
mod scrub;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Duration, Instant};
use vltava_host::clock;
use vltava_host::task::{self, JoinHandle};
use vltava_metadata::configs::Configs;
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_peer::CallError;
use vltava_peer::positions::{Position, PositionsHandler, Question, Standing};
use vltava_peer::replica::{FollowerFrames, Hello, LeaderFrame, ReplicaHandler};
use vltava_storage::{Flusher, LoadFailure, LoadedLog, LogDir, LogManager, PartitionName, StorageError, is_newer};
use vltava_types::{BrokerEpoch, BrokerId, DirectoryId, ErrorCode, TopicId, TopicPartition};

use absent::Absent;
pub use cleaner::CleanerStatus;
pub use relocation::FutureReplica;
use relocation::Relocation;

use crate::config::BrokerConfig;
use crate::controller::Controller;
use crate::disk::{Disk, Room};
use crate::isr;
use crate::metrics::{FlushDurations, LogDirLabel, duration_histogram};
use crate::partition::{Partition, Surroundings};
use crate::partition_config::PartitionConfig;
use crate::quota::Quota;
use crate::replica_fetcher::{FetcherContext, Fetchers};
use crate::replica_stream::{self, Rates, Throttle};

/// Threads that flush the logs of one directory.
const FLUSH_THREADS: usize = 16;

/// All partitions that this broker hosts.
pub struct ReplicaManager {
    config: Arc<BrokerConfig>,
    controller: Arc<dyn Controller>,
    surroundings: Arc<Surroundings>,
    logs: LogManager,
    disks: Vec<Arc<Disk>>,
    flush_durations: FlushDurations,
    /// Rung by disks that fail.
    disk_failure: Arc<Notify>,
    offline: Mutex<BTreeSet<DirectoryId>>,
    /// Why the broker cannot go on, once it cannot.
    failure: watch::Sender<Option<String>>,
    /// Logs that were found at start-up and that no image has claimed yet.
    found: Mutex<BTreeMap<PartitionName, LoadedLog>>,
    /// Logs that should have been found at start-up and were not, or could not be opened.
    absent: Mutex<BTreeMap<PartitionName, Absent>>,
    partitions: RwLock<BTreeMap<TopicPartition, Arc<Partition>>>,
    /// Partitions that the image wants here and that have no log that can be opened or created.
    not_opened: Mutex<BTreeMap<TopicPartition, NotOpened>>,
    /// Replicas on their way to another directory.
    relocations: Mutex<BTreeMap<TopicPartition, Arc<Relocation>>>,
    cleaner_status: Arc<Mutex<CleanerStatus>>,
    /// Of moves between log directories.
    move_quota: Quota,
    /// Of what is sent to replicas that are not in sync.
    leader_quota: Quota,
    fetchers: Fetchers,
    /// -1 until registered.
    broker_epoch: Arc<AtomicI64>,
    previous_broker_epoch: BrokerEpoch,
    applied: watch::Sender<Arc<ClusterImage>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Why a replica that the image wants here has no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotOpened {
    /// There was no room for it. Tried again until there is.
    NoRoom,
    /// What was here is gone, and the controller counts on it yet.
    Absent,
    /// No directory could be created for it.
    Unusable,
}

/// A log directory as DescribeLogDirs shows it.
pub struct LogDirStatus {
    pub path: PathBuf,
    pub directory_id: DirectoryId,
    pub online: bool,
    /// Bytes of the file system and how many are free, if it tells.
    pub total_bytes: Option<u64>,
    pub usable_bytes: Option<u64>,
    pub partitions: Vec<Arc<Partition>>,
    /// On their way here from another directory.
    pub futures: Vec<FutureReplica>,
}

/// Changes of ISRs that the controller accepted from this broker since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsrChanges {
    pub shrinks: u64,
    pub expansions: u64,
}

impl ReplicaManager {
    /// Opens and recovers all logs. Nothing is served until [`ReplicaManager::on_registered`].
    ///
    /// `logs` are locked directories with `meta.properties` written.
    pub async fn open(
        config: Arc<BrokerConfig>,
        controller: Arc<dyn Controller>,
        logs: LogManager,
    ) -> Result<Arc<Self>, StorageError> {
        let surroundings = Surroundings::new(config.node_id);
        let broker_epoch = Arc::new(AtomicI64::new(BrokerEpoch::NONE.value()));
        let disk_failure = Arc::new(Notify::new());
        let loaded = load_all(&config, &controller, &logs).await?;
        let reserve_bytes = config.storage.disk_reserve_bytes;
        let flush_durations = FlushDurations::new_with_constructor(duration_histogram);
        let open_disk = |log_dir| open_disk(log_dir, reserve_bytes, &disk_failure, &flush_durations);
        let disks = logs.online().into_iter().map(open_disk).collect();
        let fetchers = Fetchers::new(Arc::new(Context {
            config: Arc::clone(&config),
            images: controller.images(),
            broker_epoch: Arc::clone(&broker_epoch),
        }));
        let manager = Self {
            surroundings,
            logs,
            disks,
            flush_durations,
            disk_failure,
            offline: Mutex::new(loaded.offline),
            failure: watch::Sender::new(None),
            found: Mutex::new(loaded.found),
            absent: Mutex::new(loaded.absent),
            partitions: RwLock::default(),
            not_opened: Mutex::default(),
            relocations: Mutex::default(),
            cleaner_status: Arc::new(Mutex::new(CleanerStatus::new())),
            move_quota: Quota::default(),
            leader_quota: Quota::default(),
            fetchers,
            broker_epoch,
            previous_broker_epoch: loaded.previous_broker_epoch,
            applied: watch::Sender::new(Arc::default()),
            tasks: Mutex::default(),
            config,
            controller,
        };
        Ok(Arc::new(manager))
    }

    /// The epoch in the clean-shutdown markers that were found, or [`BrokerEpoch::NONE`] if any directory was not shut
    /// down cleanly or has lost data: what to register with (trap 12).
    #[must_use]
    pub const fn previous_broker_epoch(&self) -> BrokerEpoch {
        self.previous_broker_epoch
    }

    /// The broker was registered (again) under this epoch. The first call starts serving: images are applied from the
    /// one on that holds the registration, since an older one may name this broker the leader of logs as they were
    /// before it restarted.
    pub fn on_registered(self: &Arc<Self>, broker_epoch: BrokerEpoch) {
        let before = self.broker_epoch.swap(broker_epoch.value(), Ordering::AcqRel);
        if before == BrokerEpoch::NONE.value() {
            self.start();
        } else {
            self.fetchers.on_registered();
        }
    }

    /// The epoch of this broker's registration, once it has one.
    #[must_use]
    pub fn broker_epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.broker_epoch.load(Ordering::Acquire))
    }

    /// The partition, if it is hosted here.
    #[must_use]
    pub fn partition(&self, id: TopicPartition) -> Option<Arc<Partition>> {
        self.partitions.read().get(&id).cloned()
    }

    /// All hosted partitions.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// Images, each after its leaderships and followings are in force here. Coordinators follow this one, so that they
    /// find the partitions as the image says. The first one is empty.
    #[must_use]
    pub fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.applied.subscribe()
    }

    #[must_use]
    pub fn log_dirs(&self) -> Vec<LogDirStatus> {
        let partitions = self.partitions();
        let status = |disk: &Arc<Disk>| {
            let space = vltava_host::fs::space(disk.log_dir.path()).ok();
            LogDirStatus {
                path: disk.log_dir.path().to_owned(),
                directory_id: disk.log_dir.directory_id(),
                online: !disk.has_failed.load(Ordering::Acquire),
                total_bytes: space.map(|space| space.total_bytes),
                usable_bytes: space.map(|space| space.available_bytes),
                partitions: partitions.iter().filter(|p| Arc::ptr_eq(&p.disk(), disk)).cloned().collect(),
                futures: self.futures_on(disk),
            }
        };
        let works_no_more = |path: &&PathBuf| !self.disks.iter().any(|disk| disk.log_dir.path() == path.as_path());
        let failed_at_start = self.config.log_dirs.iter().filter(works_no_more).map(|path| LogDirStatus {
            path: path.clone(),
            directory_id: DirectoryId::ZERO,
            online: false,
            total_bytes: None,
            usable_bytes: None,
            partitions: vec![],
            futures: vec![],
        });
        self.disks.iter().map(status).chain(failed_at_start).collect()
    }

    #[must_use]
    pub const fn flush_durations(&self) -> &FlushDurations {
        &self.flush_durations
    }

    #[must_use]
    pub fn isr_changes(&self) -> IsrChanges {
        IsrChanges {
            shrinks: self.surroundings.isr_shrinks.load(Ordering::Relaxed),
            expansions: self.surroundings.isr_expansions.load(Ordering::Relaxed),
        }
    }

    #[must_use]
    pub fn cleaner_status(&self) -> CleanerStatus {
        *self.cleaner_status.lock()
    }

    /// Directories that failed since start-up, for heartbeats.
    #[must_use]
    pub fn offline_log_dirs(&self) -> Vec<DirectoryId> {
        self.offline.lock().iter().copied().collect()
    }

    /// Partitions whose replica here does not work, for heartbeats: its directory failed, or its log is corrupt or could
    /// not be opened.
    #[must_use]
    pub fn offline_partitions(&self) -> Vec<TopicPartition> {
        let partitions = self.partitions.read();
        let offline = partitions.values().filter(|partition| !partition.is_online()).map(|partition| partition.id());
        offline.chain(self.not_opened.lock().keys().copied()).collect()
    }

    /// Rung when [`ReplicaManager::offline_partitions`] may have changed.
    #[must_use]
    pub fn offline_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.surroundings.offline_changed)
    }

    /// Waits until the broker cannot go on, and says why: no log directory works any more, or the one with the metadata
    /// does not.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let failure = failure.wait_for(Option::is_some).await.expect("its sender lives as long as its borrower");
        failure.clone().unwrap_or_default()
    }

    /// The controller said whether this broker is fenced: while it is, it serves neither produces nor fetches, since
    /// another one may lead (trap 15).
    pub fn set_fenced(&self, fenced: bool) {
        if self.surroundings.is_fenced.swap(fenced, Ordering::AcqRel) != fenced {
            tracing::info!(fenced, "the controller changed whether clients may be served");
        }
    }

    /// A heartbeat was answered: the session with the controller lasts until `end`, and clients are served no longer than
    /// that, since another broker may lead then (trap 15).
    pub fn extend_lease(&self, end: Instant) {
        self.surroundings.extend_lease(end);
    }

    /// Stops replication, flushes and closes all logs, writes checkpoints and then the clean-shutdown markers. Returns
    /// whether the shutdown was clean.
    pub async fn shut_down(self: &Arc<Self>) -> bool {
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.abort();
        }
        self.fetchers.stop();
        self.close_all().await
    }

    /// What a broker without logs to serve does not need: tasks begin with the first registration.
    fn start(self: &Arc<Self>) {
        let tasks = [
            task::spawn(apply::run(Arc::downgrade(self))),
            task::spawn(run_isr(Arc::clone(&self.surroundings), Arc::downgrade(self), Arc::clone(&self.controller))),
            task::spawn(cut_off::watch(Arc::downgrade(self))),
            task::spawn(upkeep::tick(Arc::downgrade(self))),
            task::spawn(upkeep::clean_up(Arc::downgrade(self))),
            task::spawn(cleaner::run(Arc::downgrade(self), Arc::clone(&self.cleaner_status))),
            task::spawn(upkeep::checkpoint_high_watermarks(Arc::downgrade(self))),
            task::spawn(upkeep::checkpoint_logs(Arc::downgrade(self))),
            task::spawn(upkeep::checkpoint_log_starts(Arc::downgrade(self), Arc::clone(&self.surroundings))),
            task::spawn(upkeep::watch_space(Arc::downgrade(self))),
            task::spawn(scrub::run(Arc::downgrade(self))),
            task::spawn(upkeep::take_failed_disks_offline(Arc::downgrade(self), Arc::clone(&self.disk_failure))),
        ];
        self.tasks.lock().extend(tasks);
    }

    fn disk(&self, log_dir: &Arc<LogDir>) -> Option<&Arc<Disk>> {
        self.disks.iter().find(|disk| Arc::ptr_eq(&disk.log_dir, log_dir))
    }

    /// A limit in bytes per second as it is now for this broker.
    fn rate(&self, name: &str, broker_id: BrokerId) -> u64 {
        let image = self.applied.borrow().clone();
        let configs = Configs { image: &image, broker_id, properties: &self.config.properties };
        configs.broker_number(name).unwrap_or(i64::MAX).max(0).unsigned_abs()
    }

    fn partition_config(&self, image: &ClusterImage, topic_id: TopicId) -> Arc<PartitionConfig> {
        let configs = Configs { image, broker_id: self.config.node_id, properties: &self.config.properties };
        Arc::new(PartitionConfig::new(configs.topic(topic_id), &self.config))
    }
}

impl ReplicaHandler for ReplicaManager {
    async fn follow(&self, hello: Hello, frames: FollowerFrames, updates: mpsc::Sender<LeaderFrame>) {
        let cluster_id = self.controller.images().borrow().cluster_id.clone();
        if hello.leader != self.config.node_id || hello.cluster_id != cluster_id {
            tracing::warn!(?hello, "refused a replica stream that is meant for another broker");
            return;
        }
        tracing::debug!(follower = %hello.follower, "a follower opened its stream");
        let rates = || Rates {
            leader: self.rate("leader.replication.throttled.rate", self.config.node_id),
            follower: self.rate("follower.replication.throttled.rate", hello.follower),
        };
        let throttle = Throttle { leader: &self.leader_quota, follower: Quota::default(), rates: &rates };
        replica_stream::serve(&hello, frames, updates, |id| self.partition(id), throttle).await;
    }
}

impl PositionsHandler for ReplicaManager {
    async fn find(&self, question: Question) -> Result<Vec<Result<Standing, ErrorCode>>, CallError> {
        let cluster_id = self.controller.images().borrow().cluster_id.clone();
        if question.leader != self.config.node_id || question.cluster_id != cluster_id {
            return Err(CallError::Refused("the question is meant for another broker".to_owned()));
        }
        let asked: Vec<(Position, Option<Arc<Partition>>)> =
            question.positions.into_iter().map(|position| (position, self.partition(position.partition))).collect();
        let answer = |(position, partition): (Position, Option<Arc<Partition>>)| {
            let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
            partition.standing(position.offset, position.with_timestamp)
        };
        Ok(task::blocking(move || asked.into_iter().map(answer).collect()).await)
    }
}

impl Drop for ReplicaManager {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

async fn run_isr(surroundings: Arc<Surroundings>, manager: Weak<ReplicaManager>, controller: Arc<dyn Controller>) {
    let broker_epoch = {
        let manager = Weak::clone(&manager);
        move || manager.upgrade().map_or(BrokerEpoch::NONE, |manager| manager.broker_epoch())
    };
    let partition = move |id| manager.upgrade()?.partition(id);
    isr::send_proposals(&surroundings.isr_proposals, controller, surroundings.node_id, broker_epoch, partition).await;
}

fn open_disk(
    log_dir: Arc<LogDir>,
    reserve_bytes: u64,
    failure: &Arc<Notify>,
    flush_durations: &FlushDurations,
) -> Arc<Disk> {
    let label = LogDirLabel { log_dir: log_dir.path().display().to_string() };
    let flush_duration = flush_durations.get_or_create(&label).clone();
    let disk = Arc::new_cyclic(|disk: &Weak<Disk>| {
        let disk = Weak::clone(disk);
        let on_failure = move |error: StorageError| {
            if let Some(disk) = disk.upgrade() {
                disk.on_error(&error);
            }
        };
        let on_flushed = move |took: Duration| flush_duration.observe(took.as_secs_f64());
        Disk {
            log_dir,
            flusher: Flusher::start(FLUSH_THREADS, on_flushed, on_failure),
            room: Room::new(reserve_bytes),
            has_failed: AtomicBool::new(false),
            failure: Arc::clone(failure),
            log_start_checkpoint: Mutex::default(),
        }
    });
    disk.look();
    disk
}

/// What start-up found on the disks.
struct Loaded {
    found: BTreeMap<PartitionName, LoadedLog>,
    absent: BTreeMap<PartitionName, Absent>,
    offline: BTreeSet<DirectoryId>,
    previous_broker_epoch: BrokerEpoch,
}

async fn load_all(
    config: &Arc<BrokerConfig>,
    controller: &Arc<dyn Controller>,
    logs: &LogManager,
) -> Result<Loaded, StorageError> {
    let mut loaded = Loaded {
        found: BTreeMap::new(),
        absent: BTreeMap::new(),
        offline: BTreeSet::new(),
        previous_broker_epoch: BrokerEpoch::NONE,
    };
    let mut epochs = BTreeSet::new();
    let mut last_error = None;
    let load = |log_dir: Arc<LogDir>| {
        let (config, controller) = (Arc::clone(config), Arc::clone(controller));
        let of_directory = Arc::clone(&log_dir);
        (log_dir, task::spawn(async move { load_one(&config, &controller, &of_directory).await }))
    };
    // All directories at once, and taken in in their order.
    let loads: Vec<_> = logs.online().into_iter().map(load).collect();
    for (log_dir, load) in loads {
        match joined(load).await {
            Ok((epoch, found, failures)) => {
                epochs.insert(epoch);
                for log in &found {
                    if let Some(lost_below) = log.recovery.lost_below {
                        tracing::error!(partition = %log.partition, %lost_below, "the disk has lost records");
                        epochs.insert(BrokerEpoch::NONE);
                    }
                }
                for log in found {
                    take_in(&mut loaded.found, log);
                }
                for failure in failures {
                    tracing::error!(partition = %failure.partition, error = %failure.error, "log cannot be opened");
                    epochs.insert(BrokerEpoch::NONE);
                    loaded.absent.insert(failure.partition.clone(), Absent::Damaged(failure));
                }
                for partition in log_dir.lost_partitions() {
                    loaded.absent.entry(partition).or_insert(Absent::Lost);
                }
            }
            Err(error) => {
                tracing::error!(log_dir = %log_dir.path().display(), %error, "log directory failed");
                epochs.insert(BrokerEpoch::NONE);
                log_dir.mark_failed();
                logs.take_offline(&log_dir);
                loaded.offline.insert(log_dir.directory_id());
                last_error = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (logs.online().is_empty(), last_error) {
        return Err(error);
    }
    // It may have been moved to another directory.
    loaded
        .absent
        .retain(|partition, absent| matches!(absent, Absent::Damaged(_)) || !loaded.found.contains_key(partition));
    for partition in loaded.absent.iter().filter(|(_, absent)| matches!(absent, Absent::Lost)).map(|(name, _)| name) {
        tracing::error!(%partition, "the directory of a replica is gone");
    }
    // All directories must tell of the same run: one that was left out of it may have lost what it held before.
    if epochs.len() == 1 {
        loaded.previous_broker_epoch = epochs.pop_first().expect("there is one");
    }
    tracing::info!(
        partitions = loaded.found.len(), previous_broker_epoch = %loaded.previous_broker_epoch, "logs are open"
    );
    Ok(loaded)
}

/// What a task has returned. It is not cancelled, unless the whole runtime is.
async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// A log that was being moved when the last run ended may be there twice.
fn take_in(found: &mut BTreeMap<PartitionName, LoadedLog>, log: LoadedLog) {
    let name = log.partition.clone();
    let Some(other) = found.remove(&name) else {
        found.insert(name, log);
        return;
    };
    let (newer, older) = if is_newer(&log.rival(), &other.rival()) { (log, other) } else { (other, log) };
    tracing::warn!(
        partition = %name, used = %newer.log.directory().display(), left = %older.log.directory().display(),
        "there are two logs of a partition"
    );
    let cleared = if newer.rival().replaces == Some(older.log_dir.directory_id()) {
        older.log_dir.delete(older.log, clock::now()).and_then(|()| newer.log_dir.forget_replaced(&name))
    } else {
        let directory = older.log.directory().to_owned();
        older.log_dir.set_aside(&directory).map(|_| ())
    };
    if let Err(error) = cleared {
        tracing::error!(partition = %name, %error, "the other log cannot be removed");
    }
    found.insert(name, newer);
}

async fn load_one(
    config: &Arc<BrokerConfig>,
    controller: &Arc<dyn Controller>,
    log_dir: &Arc<LogDir>,
) -> Result<(BrokerEpoch, Vec<LoadedLog>, Vec<LoadFailure>), StorageError> {
    let marker = log_dir.take_clean_shutdown_marker()?;
    let image = controller.images().borrow().clone();
    let broker = Arc::clone(config);
    // Topics that the image does not know yet get their own settings when an image claims them.
    let log_config = move |partition: &PartitionName| {
        let configs = Configs { image: &image, broker_id: broker.node_id, properties: &broker.properties };
        let topic_id = image.topic_by_name(&partition.topic).map_or(TopicId::ZERO, |topic| topic.topic_id);
        PartitionConfig::new(configs.topic(topic_id), &broker).log
    };
    let threads = config.storage.recovery_threads_per_data_dir;
    let (found, failures) = log_dir.load(threads, marker.is_some(), log_config).await?;
    Ok((marker.unwrap_or(BrokerEpoch::NONE), found, failures))
}

/// What fetchers ask.
struct Context {
    config: Arc<BrokerConfig>,
    images: watch::Receiver<Arc<ClusterImage>>,
    broker_epoch: Arc<AtomicI64>,
}

impl FetcherContext for Context {
    fn node_id(&self) -> BrokerId {
        self.config.node_id
    }

    fn cluster_id(&self) -> String {
        self.images.borrow().cluster_id.clone()
    }

    fn broker_epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.broker_epoch.load(Ordering::Acquire))
    }

    fn peer(&self, broker: BrokerId) -> Option<Endpoint> {
        self.images.borrow().broker(broker).map(|registration| registration.peer.clone())
    }

    fn credit_bytes(&self) -> u64 {
        self.config.replication.replica_fetch_response_max_bytes as u64
    }
}

#[cfg(test)]
mod tests;
