//! Replicas on their way from one log directory to another (AlterReplicaLogDirs).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use vltava_host::task;
use vltava_storage::{Copied, FutureLog};
use vltava_types::{ErrorCode, TopicPartition};

use super::ReplicaManager;
use crate::disk::{Disk, Writer};
use crate::partition::{COPY_BYTES, Partition, RelocationError};

/// The pause before it is looked again whether there is room for more.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// A move that is slowed down looks this often whether it is cancelled, or its limit another.
const THROTTLE_PAUSE: Duration = Duration::from_millis(100);

/// One replica on its way.
pub(super) struct Relocation {
    pub(super) target: Arc<Disk>,
    is_cancelled: AtomicBool,
    size_bytes: AtomicU64,
    log_end_offset: AtomicI64,
}

/// A replica on its way, as DescribeLogDirs shows it among those of the directory that it goes to.
pub struct FutureReplica {
    pub partition: Arc<Partition>,
    pub size_bytes: u64,
    /// How far it is behind the log that it will replace.
    pub offset_lag: i64,
}

impl ReplicaManager {
    /// Moves a replica to another directory, from now on and beside its work. Asked to where it is, it stays there.
    pub fn alter_log_dir(self: &Arc<Self>, id: TopicPartition, path: &Path) -> Result<(), ErrorCode> {
        let Some(target) = self.disks.iter().find(|disk| disk.log_dir.path() == path) else {
            let is_configured = self.config.log_dirs.iter().any(|configured| configured == path);
            return Err(if is_configured { ErrorCode::KafkaStorageError } else { ErrorCode::LogDirNotFound });
        };
        if target.has_failed.load(Ordering::Acquire) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let partition = self.partition(id).ok_or(ErrorCode::ReplicaNotAvailable)?;
        if !partition.is_online() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let mut relocations = self.relocations.lock();
        if relocations.get(&id).is_some_and(|under_way| Arc::ptr_eq(&under_way.target, target)) {
            return Ok(());
        }
        if let Some(superseded) = relocations.remove(&id) {
            superseded.is_cancelled.store(true, Ordering::Release);
        }
        if Arc::ptr_eq(&partition.disk(), target) {
            return Ok(());
        }
        let relocation = Arc::new(Relocation {
            target: Arc::clone(target),
            is_cancelled: AtomicBool::new(false),
            size_bytes: AtomicU64::new(0),
            log_end_offset: AtomicI64::new(partition.log_start_offset().value()),
        });
        relocations.insert(id, Arc::clone(&relocation));
        drop(relocations);
        tracing::info!(partition = %partition.name(), to = %path.display(), "moving the replica");
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task::spawn(run(Arc::downgrade(self), partition, relocation)));
        Ok(())
    }

    /// How long moves have to wait by the limit of the moment.
    fn move_pause(&self) -> Duration {
        self.move_quota.pause(self.rate("replica.alter.log.dirs.io.max.bytes.per.second", self.config.node_id))
    }

    /// The replicas that are on their way to this disk.
    pub(super) fn futures_on(&self, disk: &Arc<Disk>) -> Vec<FutureReplica> {
        let relocations = self.relocations.lock();
        let to_disk = relocations.iter().filter(|(_, relocation)| Arc::ptr_eq(&relocation.target, disk));
        let future = |(id, relocation): (&TopicPartition, &Arc<Relocation>)| {
            let partition = self.partition(*id)?;
            if Arc::ptr_eq(&partition.disk(), disk) {
                // It has just arrived.
                return None;
            }
            let copied = relocation.log_end_offset.load(Ordering::Acquire);
            Some(FutureReplica {
                size_bytes: relocation.size_bytes.load(Ordering::Acquire),
                offset_lag: (partition.log_end_offset().value() - copied).max(0),
                partition,
            })
        };
        to_disk.filter_map(future).collect()
    }

    /// Goes on with what a restart has interrupted.
    pub(super) fn resume_relocations(self: &Arc<Self>) {
        for disk in &self.disks {
            for name in disk.log_dir.take_interrupted_moves() {
                let hosted = self.partitions().into_iter().find(|partition| *partition.name() == name);
                let resumed = hosted.map(|partition| self.alter_log_dir(partition.id(), disk.log_dir.path()));
                if !matches!(resumed, Some(Ok(()))) {
                    tracing::info!(partition = %name, "a move that a restart interrupted is given up");
                }
            }
        }
    }
}

async fn run(manager: Weak<ReplicaManager>, partition: Arc<Partition>, relocation: Arc<Relocation>) {
    let source = partition.disk();
    let outcome = relocate(&manager, &partition, &relocation).await;
    let (from, to) = (source.log_dir.path().display(), relocation.target.log_dir.path().display());
    match outcome {
        Ok(true) => tracing::info!(partition = %partition.name(), %from, %to, "moved the replica"),
        Ok(false) => tracing::info!(partition = %partition.name(), %to, "the move was cancelled"),
        Err(error) => {
            tracing::error!(partition = %partition.name(), %to, %error, "the replica stays where it is");
            match &error {
                RelocationError::Offline => {}
                RelocationError::Source(error) => drop(partition.on_read_error(error)),
                RelocationError::Target(error) => relocation.target.on_error(error),
            }
        }
    }
    if let Some(manager) = manager.upgrade() {
        let mut relocations = manager.relocations.lock();
        if relocations.get(&partition.id()).is_some_and(|under_way| Arc::ptr_eq(under_way, &relocation)) {
            relocations.remove(&partition.id());
        }
    }
}

/// Returns whether it was moved, rather than cancelled.
async fn relocate(
    manager: &Weak<ReplicaManager>,
    partition: &Arc<Partition>,
    relocation: &Arc<Relocation>,
) -> Result<bool, RelocationError> {
    let mut future = on_disk(partition, relocation, |partition, target| partition.begin_relocation(target)).await?;
    loop {
        if relocation.is_cancelled.load(Ordering::Acquire) {
            remove(relocation, future).await;
            return Ok(false);
        }
        if !relocation.target.room.admits(Writer::Follower, COPY_BYTES) {
            sleep(ROOM_PAUSE).await;
            continue;
        }
        if let Some(pause) = manager.upgrade().map(|manager| manager.move_pause()).filter(|pause| !pause.is_zero()) {
            sleep(pause.min(THROTTLE_PAUSE)).await;
            continue;
        }
        let copied;
        (future, copied) = on_disk(partition, relocation, move |partition, _| {
            let mut future = future;
            let copied = partition.copy_to(&mut future);
            (future, copied)
        })
        .await;
        relocation.size_bytes.store(future.size_bytes(), Ordering::Release);
        relocation.log_end_offset.store(future.log_end_offset().value(), Ordering::Release);
        match copied {
            // Nearly there: the rest is copied while nothing is appended.
            Ok(copied) if is_nearly_all(copied) => {
                return on_disk(partition, relocation, move |partition, target| partition.relocate(future, target))
                    .await
                    .map(|()| true);
            }
            Ok(Copied::Bytes(bytes)) => {
                relocation.target.room.on_appended(usize::try_from(bytes).unwrap_or(usize::MAX));
                if let Some(manager) = manager.upgrade() {
                    manager.move_quota.record(bytes);
                }
            }
            Ok(Copied::Everything) => unreachable!("that is all"),
            Err(RelocationError::Target(error)) if error.is_full() => relocation.target.on_error(&error),
            Err(error) => {
                remove(relocation, future).await;
                return Err(error);
            }
        }
    }
}

const fn is_nearly_all(copied: Copied) -> bool {
    match copied {
        Copied::Everything => true,
        Copied::Bytes(bytes) => bytes > 0 && bytes < COPY_BYTES as u64 / 4,
    }
}

async fn on_disk<T: Send + 'static>(
    partition: &Arc<Partition>,
    relocation: &Arc<Relocation>,
    work: impl FnOnce(&Arc<Partition>, &Arc<Disk>) -> T + Send + 'static,
) -> T {
    let (partition, target) = (Arc::clone(partition), Arc::clone(&relocation.target));
    task::blocking(move || work(&partition, &target)).await
}

async fn remove(relocation: &Arc<Relocation>, future: FutureLog) {
    let target = Arc::clone(&relocation.target);
    task::blocking(move || {
        if let Err(error) = target.log_dir.remove_future(future) {
            target.on_error(&error);
        }
    })
    .await;
}
