//! What happens by time: lag, retention, checkpoints, space, and failed disks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use vltava_host::{clock, task};
use vltava_metadata::configs::Configs;
use vltava_storage::{LogCheckpoint, PartitionName, StorageError};
use vltava_types::{BrokerEpoch, DirectoryId};

use super::ReplicaManager;
use crate::disk::Disk;
use crate::partition::{Partition, Surroundings};

/// How often followers are looked at, at most and at least.
const MIN_TICK: Duration = Duration::from_millis(50);
const MAX_TICK: Duration = Duration::from_millis(500);

/// How many logs are closed at the same time.
const CLOSE_THREADS: usize = 4;

/// How often free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at followers that lag or caught up, at records that wait to be flushed, and at corrupt logs. Partitions that are
/// at rest are not among those it looks at.
pub(super) async fn tick(manager: Weak<ReplicaManager>) {
    let Some(interval) = manager.upgrade().map(|manager| {
        let lag_time_max = manager.config.replication.replica_lag_time_max;
        (lag_time_max / 2).clamp(MIN_TICK, MAX_TICK)
    }) else {
        return;
    };
    every(manager, interval, |manager| async move {
        let image = manager.applied.borrow().clone();
        for partition in manager.surroundings.take_restless() {
            partition.on_tick();
            partition.reconsider_damage();
            if !partition.is_online() {
                manager.repair(&image, &partition);
            }
        }
    })
    .await;
}

/// Deletes what retention allows, and the files of what was deleted long enough ago.
pub(super) async fn clean_up(manager: Weak<ReplicaManager>) {
    let Some(interval) = manager.upgrade().map(|manager| manager.config.storage.retention_check_interval) else {
        return;
    };
    every(manager, interval, |manager| async move {
        let expiration = manager.config.producers.producer_id_expiration.as_millis();
        let expiration_ms = i64::try_from(expiration).unwrap_or(i64::MAX);
        task::blocking(move || {
            let now = clock::now();
            for partition in manager.partitions() {
                if let Err(error) = partition.clean_up(now, expiration_ms) {
                    tracing::error!(partition = %partition.name(), %error, "retention failed");
                }
            }
            for disk in working_disks(&manager) {
                note(disk, &disk.log_dir.remove_deleted(now, delete_delay_ms(&manager)));
            }
        })
        .await;
    })
    .await;
}

/// A restarted replica serves reads from its checkpointed high watermark on.
pub(super) async fn checkpoint_high_watermarks(manager: Weak<ReplicaManager>) {
    let Some(interval) = manager.upgrade().map(|manager| manager.config.storage.high_watermark_checkpoint_interval)
    else {
        return;
    };
    every(manager, interval, |manager| async move {
        task::blocking(move || {
            let partitions = manager.partitions();
            for disk in working_disks(&manager) {
                let (high_watermarks, _) = offsets_of(&partitions, disk);
                note(disk, &disk.log_dir.checkpoint_high_watermarks(high_watermarks));
            }
        })
        .await;
    })
    .await;
}

/// Recovery after a crash begins at the checkpointed recovery point, and nothing before the checkpointed log start is
/// served again.
pub(super) async fn checkpoint_logs(manager: Weak<ReplicaManager>) {
    let Some(interval) = manager.upgrade().map(|manager| {
        let storage = &manager.config.storage;
        storage.recovery_point_checkpoint_interval.min(storage.log_start_offset_checkpoint_interval)
    }) else {
        return;
    };
    every(manager, interval, |manager| async move {
        task::blocking(move || manager.checkpoint_logs()).await;
    })
    .await;
}

/// A log start that somebody waits for does not wait for the next round.
pub(super) async fn checkpoint_log_starts(manager: Weak<ReplicaManager>, surroundings: Arc<Surroundings>) {
    loop {
        surroundings.log_starts_moved.notified().await;
        let Some(manager) = manager.upgrade() else { return };
        let checkpoint_all = move || {
            let written: Vec<bool> = working_disks(&manager).map(|disk| manager.checkpoint_log_starts(disk)).collect();
            written.into_iter().all(|written| written)
        };
        if !task::blocking(checkpoint_all).await {
            // A disk that is full may have room by then; one that has failed does not work any more.
            tokio::time::sleep(SPACE_INTERVAL).await;
            surroundings.log_starts_moved.notify_one();
        }
    }
}

/// A full disk refuses records before the file system does. Between two looks, appends are counted.
pub(super) async fn watch_space(manager: Weak<ReplicaManager>) {
    every(manager, SPACE_INTERVAL, |manager| async move {
        working_disks(&manager).for_each(|disk| disk.look());
    })
    .await;
}

/// Gives up the replicas of disks that fail, and goes on with the others.
pub(super) async fn take_failed_disks_offline(manager: Weak<ReplicaManager>, failure: Arc<Notify>) {
    loop {
        {
            let Some(manager) = manager.upgrade() else { return };
            for disk in manager.disks.iter().filter(|disk| disk.has_failed.load(Ordering::Acquire)) {
                if manager.logs.take_offline(&disk.log_dir) {
                    manager.offline.lock().insert(disk.log_dir.directory_id());
                    give_up(&manager, disk);
                    manager.surroundings.offline_changed.notify_one();
                }
            }
            let has_failed = |disk: &&Arc<Disk>| disk.has_failed.load(Ordering::Acquire);
            let mut failed = manager.disks.iter().filter(has_failed).map(|disk| disk.log_dir.path());
            if manager.logs.online().is_empty() {
                manager.failure.send_replace(Some("no log directory works any more".to_owned()));
            } else if let Some(path) = failed.find(|path| *path == manager.config.metadata_log_dir) {
                let reason = format!("the log directory {} failed, and the metadata is in it", path.display());
                manager.failure.send_replace(Some(reason));
            }
        }
        failure.notified().await;
    }
}

/// What a checkpoint file is to say.
type Checkpoints = Vec<(PartitionName, LogCheckpoint)>;

impl ReplicaManager {
    /// Closes everything in the order that a crash in between allows: data, then checkpoints, then the marker (trap 12).
    pub(super) async fn close_all(self: &Arc<Self>) -> bool {
        let manager = Arc::clone(self);
        let (unclaimed_are_closed, offsets) = task::blocking(move || {
            let unclaimed_are_closed = manager.close_unclaimed();
            manager.checkpoint_logs();
            (unclaimed_are_closed, manager.last_offsets())
        })
        .await;
        // Closing a log mostly waits for the disk, which can do several at a time.
        let close = |partition: Arc<Partition>| (partition.close(), partition.disk().log_dir.directory_id());
        let closed = task::blocking_each(CLOSE_THREADS, self.partitions(), close).await;
        let unclosed: BTreeSet<DirectoryId> =
            closed.into_iter().filter(|(is_closed, _)| !is_closed).map(|(_, log_dir)| log_dir).collect();
        let manager = Arc::clone(self);
        task::blocking(move || {
            let mut is_clean = true;
            for (disk, (high_watermarks, log_starts)) in manager.disks.iter().zip(offsets) {
                let log_dir = &disk.log_dir;
                let written = log_dir
                    .checkpoint_high_watermarks(high_watermarks)
                    .and_then(|()| log_dir.checkpoint_log_start_offsets(log_starts));
                note(disk, &written);
                // Without a registration of this run, the one before is still the last that wrote anything.
                let epoch = manager.broker_epoch().max(manager.previous_broker_epoch());
                let has_failed = disk.has_failed.load(Ordering::Acquire);
                let is_closed = unclaimed_are_closed && !unclosed.contains(&log_dir.directory_id());
                let may_mark = is_closed && written.is_ok() && !has_failed;
                let marked = may_mark && epoch != BrokerEpoch::NONE && {
                    let marked = log_dir.write_clean_shutdown_marker(epoch);
                    note(disk, &marked);
                    marked.is_ok()
                };
                is_clean &= marked;
            }
            is_clean
        })
        .await
    }

    /// High watermarks and log starts of each disk, before the logs are closed.
    fn last_offsets(&self) -> Vec<(Checkpoints, Checkpoints)> {
        let partitions = self.partitions();
        self.disks.iter().map(|disk| offsets_of(&partitions, disk)).collect()
    }

    /// Closes logs that no image has claimed.
    fn close_unclaimed(&self) -> bool {
        let mut all_closed = true;
        for (partition, mut found) in std::mem::take(&mut *self.found.lock()) {
            if let Err(error) = found.log.close() {
                tracing::error!(%partition, %error, "closing the log failed");
                all_closed = false;
            }
        }
        all_closed
    }

    fn checkpoint_logs(&self) {
        let partitions = self.partitions();
        for disk in working_disks(self) {
            let points = partitions
                .iter()
                .filter(|partition| Arc::ptr_eq(&partition.disk(), disk))
                .filter_map(|partition| Some((partition.name().clone(), partition.recovery_checkpoint()?)));
            let written = disk.log_dir.checkpoint_recovery_points(points.collect());
            note(disk, &written);
            self.checkpoint_log_starts(disk);
        }
        for partition in &partitions {
            partition.close_unused_files();
        }
    }

    /// Returns whether the file is up to date.
    fn checkpoint_log_starts(&self, disk: &Arc<Disk>) -> bool {
        let _in_order = disk.log_start_checkpoint.lock();
        let partitions = self.partitions();
        let mut written = vec![];
        for partition in partitions.iter().filter(|partition| Arc::ptr_eq(&partition.disk(), disk)) {
            if let Some(checkpoint) = partition.log_start_to_checkpoint() {
                written.push((partition, checkpoint));
            }
        }
        // Nothing is asked of a partition under the file's lock: a truncation takes the two the other way round.
        let starts = written.iter().map(|(partition, checkpoint)| (partition.name(), checkpoint.clone()));
        let outcome = disk.log_dir.checkpoint_log_start_offsets(starts);
        note(disk, &outcome);
        if outcome.is_ok() {
            for (partition, checkpoint) in written {
                partition.on_log_start_checkpointed(&checkpoint);
            }
        }
        outcome.is_ok()
    }
}

/// `log.segment.delete.delay.ms`: a deleted topic has no settings of its own any more.
fn delete_delay_ms(manager: &ReplicaManager) -> i64 {
    let image = manager.applied.borrow().clone();
    let (broker_id, properties) = (manager.config.node_id, &manager.config.properties);
    let configs = Configs { image: &image, broker_id, properties };
    configs.broker_number("log.segment.delete.delay.ms").unwrap_or(60_000)
}

fn working_disks(manager: &ReplicaManager) -> impl Iterator<Item = &Arc<Disk>> {
    manager.disks.iter().filter(|disk| !disk.has_failed.load(Ordering::Acquire))
}

/// High watermarks and log starts of the partitions of a disk.
fn offsets_of(partitions: &[Arc<Partition>], disk: &Arc<Disk>) -> (Checkpoints, Checkpoints) {
    let of_disk = partitions.iter().filter(|partition| Arc::ptr_eq(&partition.disk(), disk));
    let offsets = of_disk.filter_map(|partition| {
        let (high_watermark, log_start) = partition.offsets_to_checkpoint()?;
        Some(((partition.name().clone(), high_watermark), (partition.name().clone(), log_start)))
    });
    offsets.unzip()
}

fn note(disk: &Disk, outcome: &Result<(), StorageError>) {
    if let Err(error) = outcome {
        disk.on_error(error);
    }
}

fn give_up(manager: &ReplicaManager, disk: &Arc<Disk>) {
    for partition in manager.partitions() {
        if Arc::ptr_eq(&partition.disk(), disk) {
            manager.fetchers.unfollow(partition.id());
            drop(partition.take_log());
        }
    }
}

/// Runs `work` again and again, until the manager is gone.
async fn every<F: Future<Output = ()>>(
    manager: Weak<ReplicaManager>,
    interval: Duration,
    work: impl Fn(Arc<ReplicaManager>) -> F,
) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(manager) = manager.upgrade() else { return };
        work(manager).await;
    }
}
