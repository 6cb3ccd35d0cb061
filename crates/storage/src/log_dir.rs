//! One entry of `log.dirs`: the partitions' directories and the checkpoint files beside them.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_host::{fs, random, task};
use vltava_types::{BrokerEpoch, DirectoryId, LeaderEpoch, Offset, TimestampMs, TopicId, Uuid};

use crate::error::AtPath;
use crate::log::{LogOptions, RecoveryCheckpoint, RecoveryPoints};
use crate::relocation::{self, Rival};
use crate::segment::LOG_SUFFIX;
use crate::{
    CleanedUpTo, Flush, LoadProgress, Log, LogCheckpoint, LogConfig, MetaProperties, OffsetCheckpoint, PartitionName,
    RecoveryReport, StorageError, partition_metadata,
};

const LOCK_FILE: &str = ".lock";
pub(crate) const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// Stands in a directory that has failed, until everything in it was read from the disk again. It need not be durable: it
/// tells of what is in the page cache, and lasts as long.
pub(crate) const FAILED_FILE: &str = "vltava-failed";
pub(crate) const DELETE_SUFFIX: &str = "-delete";
pub(crate) const STRAY_SUFFIX: &str = "-stray";
pub(crate) const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
pub(crate) const HIGH_WATERMARK_CHECKPOINT: &str = "replication-offset-checkpoint";
pub(crate) const LOG_START_CHECKPOINT: &str = "log-start-offset-checkpoint";
pub(crate) const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";

/// A log that was found at start-up.
pub struct LoadedLog {
    pub partition: PartitionName,
    pub log: Log,
    pub recovery: RecoveryReport,
    /// From the checkpoint, clamped to the log.
    pub high_watermark: Offset,
    pub log_dir: Arc<LogDir>,
}

impl LoadedLog {
    /// How it stands to another log of the same partition.
    #[must_use]
    pub fn rival(&self) -> Rival {
        Rival {
            directory_id: self.log_dir.directory_id(),
            replaces: relocation::replaces(self.log.directory()),
            latest_epoch: self.log.epochs().latest().map_or(LeaderEpoch::NONE, |latest| latest.epoch),
            log_end_offset: self.log.log_end_offset(),
        }
    }
}

/// A log that could not be opened: corruption costs this replica only.
#[derive(Debug)]
pub struct LoadFailure {
    pub partition: PartitionName,
    pub directory: PathBuf,
    pub error: StorageError,
}

/// A log directory, locked against other processes as long as this value lives.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    _lock: Lock,
    meta_properties: Mutex<Option<MetaProperties>>,
    recovery_points: Arc<OffsetCheckpoint>,
    high_watermarks: Arc<OffsetCheckpoint>,
    log_start_offsets: Arc<OffsetCheckpoint>,
    cleaned: Arc<OffsetCheckpoint>,
    /// A write or flush has failed here, and the machine has not been restarted since.
    distrusts_cache: bool,
    /// A checkpoint could not be read and begins anew: what was committed and flushed here is not known.
    has_lost_checkpoint: bool,
    progress: LoadProgress,
    /// Partitions that were being moved here when the last run ended.
    interrupted_moves: Mutex<Vec<PartitionName>>,
    /// Directories that were renamed for deletion, and when. Those left from an earlier run are removed at loading.
    deleted: Mutex<Vec<(TimestampMs, PathBuf)>>,
}

impl LogDir {
    /// Creates the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_observed(path, LoadProgress::default())
    }

    /// The same, with who counts what [`LogDir::load`] does.
    pub(crate) fn open_observed(path: &Path, progress: LoadProgress) -> Result<Self, StorageError> {
        fs::create_dir_all_durably(path).at(path)?;
        let lock = Lock::take(path)?;
        let mut has_lost_checkpoint = false;
        // Without it everything is scanned, no record is missed, the log starts at its first segment.
        let mut checkpoint = |name: &str| {
            let (checkpoint, was_malformed) = OffsetCheckpoint::open_or_begin_anew(path.join(name))?;
            has_lost_checkpoint |= was_malformed;
            Ok(Arc::new(checkpoint))
        };
        Ok(Self {
            _lock: lock,
            meta_properties: Mutex::new(read_meta_properties(path)?),
            recovery_points: checkpoint(RECOVERY_POINT_CHECKPOINT)?,
            high_watermarks: checkpoint(HIGH_WATERMARK_CHECKPOINT)?,
            log_start_offsets: checkpoint(LOG_START_CHECKPOINT)?,
            has_lost_checkpoint,
            // Without it, what was compacted before is compacted again.
            cleaned: Arc::new(OffsetCheckpoint::open_or_begin_anew(path.join(CLEANER_CHECKPOINT))?.0),
            distrusts_cache: fs::metadata(path.join(FAILED_FILE)).is_ok(),
            progress,
            interrupted_moves: Mutex::default(),
            deleted: Mutex::default(),
            path: path.to_owned(),
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `meta.properties` says; `None` before the first [`LogDir::write_meta_properties`].
    #[must_use]
    pub fn meta_properties(&self) -> Option<MetaProperties> {
        self.meta_properties.lock().clone()
    }

    /// Zero before the first [`LogDir::write_meta_properties`].
    #[must_use]
    pub fn directory_id(&self) -> DirectoryId {
        self.meta_properties.lock().as_ref().map_or(DirectoryId::ZERO, |properties| properties.directory_id)
    }

    /// Durable on return.
    pub fn write_meta_properties(&self, properties: &MetaProperties) -> Result<(), StorageError> {
        let path = self.path.join(MetaProperties::FILE_NAME);
        fs::write_atomically(&path, properties.print().as_bytes()).at(&path)?;
        *self.meta_properties.lock() = Some(properties.clone());
        Ok(())
    }

    /// The broker epoch of the last run if it ended with a clean shutdown. The marker is durably gone on return, so
    /// that a crash during loading counts as unclean (KAFKA-10471). Call once, before [`LogDir::load`].
    pub fn take_clean_shutdown_marker(&self) -> Result<Option<BrokerEpoch>, StorageError> {
        let path = self.path.join(CLEAN_SHUTDOWN_FILE);
        let contents = match fs::read(&path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at(&path),
        };
        fs::remove_file(&path).at(&path)?;
        fs::sync_dir(&self.path).at(&self.path)?;
        Ok(parse_clean_shutdown_marker(&contents).filter(|_| !self.distrusts_cache && !self.has_lost_checkpoint))
    }

    /// Marks a clean shutdown. Only after [`Log::close`] has succeeded for every log of the directory and the checkpoints
    /// are written (trap 12).
    pub fn write_clean_shutdown_marker(&self, broker_epoch: BrokerEpoch) -> Result<(), StorageError> {
        let path = self.path.join(CLEAN_SHUTDOWN_FILE);
        let contents = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
        fs::write_atomically(&path, contents.as_bytes()).at(&path)
    }

    /// A write or flush has failed: the next process must not believe what it finds in the page cache (trap 27).
    pub fn mark_failed(&self) {
        // The disk may refuse this too. Then it does not take a start's writes either.
        let _ = fs::write(self.path.join(FAILED_FILE), b"");
    }

    /// Opens all partitions, `threads` at a time (`num.recovery.threads.per.data.dir`), and removes what was being
    /// deleted. `config` gives a topic's settings. Directories whose names are no partition's are left alone. An I/O error
    /// on any log is the directory's.
    pub async fn load(
        self: &Arc<Self>,
        threads: usize,
        clean_shutdown: bool,
        config: impl Fn(&PartitionName) -> Arc<LogConfig> + Send + Sync + 'static,
    ) -> Result<(Vec<LoadedLog>, Vec<LoadFailure>), StorageError> {
        let log_dir = Arc::clone(self);
        let found = task::blocking(move || log_dir.find_partitions()).await?;
        if self.distrusts_cache {
            tracing::warn!(
                log_dir = %self.path.display(),
                "a write or flush has failed here: everything is read from the disk again"
            );
        }
        self.progress.on_found(found.len());
        let found = Arc::new(Mutex::new(found.into_iter()));
        let config = Arc::new(config);
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                let (log_dir, found, config) = (Arc::clone(self), Arc::clone(&found), Arc::clone(&config));
                task::spawn(task::blocking(move || {
                    let mut loaded = Vec::new();
                    let mut failures = Vec::new();
                    loop {
                        // A statement of its own, so that the lock is not held while a log is opened.
                        let next = found.lock().next();
                        let Some((partition, directory)) = next else { break };
                        match log_dir.load_one(&partition, &directory, clean_shutdown, config(&partition)) {
                            Ok(log) => loaded.push(log),
                            Err(error) => failures.push(LoadFailure { partition, directory, error }),
                        }
                        log_dir.progress.on_opened();
                    }
                    (loaded, failures)
                }))
            })
            .collect();
        let mut loaded = Vec::new();
        let mut failures = Vec::new();
        for worker in workers {
            match worker.await {
                Ok((more_loaded, more_failures)) => {
                    loaded.extend(more_loaded);
                    failures.extend(more_failures);
                }
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {
                    let cancelled = std::io::Error::other("the process is shutting down");
                    return Err(cancelled).at(&self.path);
                }
            }
        }
        if let Some(failed) = failures.iter().position(|failure| failure.error.is_io()) {
            return Err(failures.swap_remove(failed).error);
        }
        let log_dir = Arc::clone(self);
        let mut loaded = task::blocking(move || {
            log_dir.flush_loaded(&mut loaded)?;
            log_dir.forget_failure().map(|()| loaded)
        })
        .await?;
        loaded.sort_by(|a, b| a.partition.cmp(&b.partition));
        failures.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok((loaded, failures))
    }

    /// Partitions that were being moved to this directory when the last run ended, once. What was copied is gone.
    #[must_use]
    pub fn take_interrupted_moves(&self) -> Vec<PartitionName> {
        std::mem::take(&mut *self.interrupted_moves.lock())
    }

    /// Makes durable what was recovered. Of a few logs, file by file; of many, all of the file system at once.
    fn flush_loaded(&self, loaded: &mut [LoadedLog]) -> Result<(), StorageError> {
        /// The simulator's directories are small, and have to be flushed either way.
        const FEW: usize = if cfg!(vltava_sim) { 1 } else { 20 };
        let flushes: Vec<_> = loaded
            .iter_mut()
            .filter_map(|loaded| {
                let flush = loaded.log.begin_flush()?;
                Some((&mut loaded.log, flush))
            })
            .collect();
        let is_flushed = flushes.len() > FEW && self.flush_together(flushes.iter().map(|(_, flush)| flush))?;
        for (log, flush) in flushes {
            match if is_flushed { Ok(()) } else { flush.run() } {
                Ok(()) => {
                    log.end_flush(&flush);
                    log.close_files();
                }
                // The next flush tries again, when there may be room.
                Err(error) if error.is_full() => {
                    tracing::warn!(log = %log.directory().display(), %error, "what was recovered is not flushed yet");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What was read is on the disk.
    fn forget_failure(&self) -> Result<(), StorageError> {
        if self.distrusts_cache {
            let path = self.path.join(FAILED_FILE);
            fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }

    /// Returns whether that was possible.
    fn flush_together<'a>(&self, flushes: impl Iterator<Item = &'a Flush>) -> Result<bool, StorageError> {
        for flush in flushes {
            match flush.write_epochs_unflushed() {
                Ok(()) => {}
                Err(error) if error.is_full() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        fs::sync_file_system(&self.path).at(&self.path)
    }

    /// Partitions that were here when the recovery points were last written, and whose directories are gone though nobody
    /// deleted them here. After a clean shutdown, or a minute of life, every partition is among those written.
    #[must_use]
    pub fn lost_partitions(&self) -> Vec<PartitionName> {
        let is_gone = |partition: &PartitionName| {
            let found = fs::metadata(self.path.join(partition.to_string()));
            found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        self.recovery_points.partitions().into_iter().filter(is_gone).collect()
    }

    /// Renames a directory whose log cannot be opened to `<topic>-<partition>.<uuid>-stray`, where it is left alone: what
    /// is in it may be of use to somebody. Durable on return.
    pub fn set_aside(&self, directory: &Path) -> Result<PathBuf, StorageError> {
        self.rename_with_uuid(directory, STRAY_SUFFIX)
    }

    /// Creates an empty log. Durable on return.
    pub fn create(
        &self,
        partition: &PartitionName,
        topic_id: TopicId,
        config: Arc<LogConfig>,
    ) -> Result<Log, StorageError> {
        // Offsets of an earlier topic of this name must not be taken for the new one's (trap 31).
        self.forget(partition)?;
        Log::create(
            &self.path.join(partition.to_string()),
            topic_id,
            config,
            LogOptions { recovery_points: Some(self.recovery_points_of(partition)), ..LogOptions::default() },
        )
    }

    /// Renames the log's directory to `<topic>-<partition>.<uuid>-delete` and forgets its checkpoints, durably. Its
    /// files go with [`LogDir::remove_deleted`]. Readers taken before keep working.
    pub fn delete(&self, log: Log, now: TimestampMs) -> Result<(), StorageError> {
        for segment in log.segments.iter() {
            segment.keep_open()?;
        }
        log.presence.end();
        self.delete_directory(&log.directory, now)
    }

    /// The same for a directory that is not open: a stray one, whose topic is gone or has another id.
    pub fn delete_directory(&self, directory: &Path, now: TimestampMs) -> Result<(), StorageError> {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let renamed = self.rename_with_uuid(directory, DELETE_SUFFIX)?;
        self.deleted.lock().push((now, renamed));
        match name.parse().map(|partition| self.forget(&partition)) {
            // A log of this name is created only after they are forgotten.
            Ok(Err(error)) if error.is_full() => Ok(()),
            Ok(outcome) => outcome,
            Err(_) => Ok(()),
        }
    }

    fn rename_with_uuid(&self, directory: &Path, suffix: &str) -> Result<PathBuf, StorageError> {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let uuid = Uuid::from_random(random::bytes());
        // Kafka prints the 32 hexadecimal digits here, since the usual text may begin with a hyphen.
        let renamed = self.path.join(format!("{name}.{:032x}{suffix}", u128::from_be_bytes(uuid.0)));
        fs::rename(directory, &renamed).at(directory)?;
        fs::sync_dir(&self.path).at(&self.path)?;
        Ok(renamed)
    }

    /// Removes directories that were deleted at least `delay_ms` ago (`file.delete.delay.ms`).
    pub fn remove_deleted(&self, now: TimestampMs, delay_ms: i64) -> Result<(), StorageError> {
        let due: Vec<_> = {
            let mut deleted = self.deleted.lock();
            let is_due = |at: TimestampMs| now.value().saturating_sub(at.value()) >= delay_ms;
            let due = deleted.iter().filter(|(at, _)| is_due(*at)).map(|(_, path)| path.clone()).collect();
            deleted.retain(|(at, _)| !is_due(*at));
            due
        };
        due.iter().try_for_each(|path| fs::remove_dir_all(path).at(path))
    }

    /// Writes `recovery-point-offset-checkpoint`, after the index entries that recovery will rely on. Partitions that are
    /// not named keep theirs, and so do those that were truncated meanwhile: a truncation first voids checkpoints under way
    /// and then lowers the file's offset, so that the file never claims too much.
    pub fn checkpoint_recovery_points(
        &self,
        checkpoints: BTreeMap<PartitionName, RecoveryCheckpoint>,
    ) -> Result<(), StorageError> {
        for index in checkpoints.values().flat_map(|checkpoint| &checkpoint.indexes) {
            index.sync_data()?;
        }
        // Filtered under the file's lock, which the truncation takes after it has made the checkpoint void.
        self.recovery_points.update(unless_void(checkpoints.into_iter().map(|(name, point)| (name, point.checkpoint))))
    }

    /// Writes `replication-offset-checkpoint`: high watermarks. Partitions that are not named keep theirs, and so do those
    /// that were truncated or deleted since.
    pub fn checkpoint_high_watermarks<P: Borrow<PartitionName>>(
        &self,
        offsets: impl IntoIterator<Item = (P, LogCheckpoint)>,
    ) -> Result<(), StorageError> {
        self.high_watermarks.update(unless_void(offsets))
    }

    /// Writes `log-start-offset-checkpoint`, for the same partitions. A truncation that lowers a start first voids
    /// checkpoints under way, as with [`LogDir::checkpoint_recovery_points`].
    pub fn checkpoint_log_start_offsets<P: Borrow<PartitionName>>(
        &self,
        offsets: impl IntoIterator<Item = (P, LogCheckpoint)>,
    ) -> Result<(), StorageError> {
        self.log_start_offsets.update(unless_void(offsets))
    }

    /// Up to where the partition's log is compacted, from `cleaner-offset-checkpoint`.
    #[must_use]
    pub fn cleaned_up_to(&self, partition: &PartitionName) -> Option<Offset> {
        self.cleaned.get(partition)
    }

    /// Writes `cleaner-offset-checkpoint`. A truncation since then keeps the offset from being written, as with
    /// [`LogDir::checkpoint_recovery_points`].
    pub fn checkpoint_cleaned(&self, partition: &PartitionName, cleaned: &CleanedUpTo) -> Result<(), StorageError> {
        let valid = std::iter::once_with(|| cleaned.offset_unless_void()).flatten();
        self.cleaned.update(valid.map(|offset| (partition.clone(), offset)))
    }

    fn forget(&self, partition: &PartitionName) -> Result<(), StorageError> {
        self.recovery_points.remove(partition)?;
        self.high_watermarks.remove(partition)?;
        self.cleaned.remove(partition)?;
        self.log_start_offsets.remove(partition)
    }

    /// For a log that comes from another directory. Durable on return.
    pub(crate) fn write_checkpoints(
        &self,
        partition: &PartitionName,
        options: &LogOptions,
    ) -> Result<(), StorageError> {
        self.log_start_offsets.update([(partition.clone(), options.log_start_offset)])?;
        self.high_watermarks.update([(partition.clone(), options.high_watermark)])?;
        self.recovery_points.update([(partition.clone(), options.recovery_point)])
    }

    pub(crate) fn recovery_points_of(&self, partition: &PartitionName) -> RecoveryPoints {
        RecoveryPoints {
            checkpoint: Arc::clone(&self.recovery_points),
            high_watermarks: Arc::clone(&self.high_watermarks),
            log_start_offsets: Arc::clone(&self.log_start_offsets),
            cleaner_checkpoint: Arc::clone(&self.cleaned),
            partition: partition.clone(),
        }
    }

    /// The directories of partitions. Removes those whose creation or deletion was under way.
    fn find_partitions(&self) -> Result<Vec<(PartitionName, PathBuf)>, StorageError> {
        // A directory that the last run has renamed to be deleted may get its old name back, unless that is on disk: it must
        // not then be half empty.
        fs::sync_dir(&self.path).at(&self.path)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).at(&self.path)? {
            let path = entry.at(&self.path)?.path();
            if !fs::metadata(&path).at(&path)?.is_dir() {
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(DELETE_SUFFIX) && name.contains('.') {
                fs::remove_dir_all(&path).at(&path)?;
            } else if let Some(partition) = relocation::future_of(&path) {
                fs::remove_dir_all(&path).at(&path)?;
                self.interrupted_moves.lock().push(partition);
            } else if name == crate::METADATA_TOPIC_DIRECTORY {
                // The Raft log's, which the quorum opens by itself.
            } else if let Ok(partition) = name.parse() {
                if is_unfinished(&path)? {
                    fs::remove_dir_all(&path).at(&path)?;
                } else {
                    found.push((partition, path));
                }
            } else {
                tracing::warn!(path = %path.display(), "not a partition's directory, left alone");
            }
        }
        found.sort();
        Ok(found)
    }

    fn load_one(
        self: &Arc<Self>,
        partition: &PartitionName,
        directory: &Path,
        clean_shutdown: bool,
        config: Arc<LogConfig>,
    ) -> Result<LoadedLog, StorageError> {
        let high_watermark = self.high_watermarks.get(partition).unwrap_or_default();
        let (log, recovery) = Log::open(
            directory,
            config,
            LogOptions {
                log_start_offset: self.log_start_offsets.get(partition).unwrap_or_default(),
                recovery_point: self.recovery_points.get(partition).unwrap_or_default(),
                high_watermark,
                clean_shutdown,
                defer_flush: true,
                distrusts_cache: self.distrusts_cache,
                progress: self.progress.clone(),
                recovery_points: Some(self.recovery_points_of(partition)),
            },
        )?;
        if recovery != RecoveryReport::default() {
            tracing::info!(
                %partition,
                bytes_scanned = recovery.bytes_scanned,
                bytes_cut = recovery.bytes_cut,
                indexes_rebuilt = recovery.indexes_rebuilt,
                log_end_offset = %log.log_end_offset(),
                "recovered a log"
            );
        }
        if let Some(lost_below) = recovery.lost_below {
            tracing::error!(%partition, log_end_offset = %log.log_end_offset(), %lost_below, "the disk lost records");
        }
        // What is appended over a part that was lost was never cleaned.
        self.cleaned.lower(partition, log.log_end_offset())?;
        let high_watermark = high_watermark.clamp(log.log_start_offset(), log.log_end_offset());
        Ok(LoadedLog { partition: partition.clone(), log, recovery, high_watermark, log_dir: Arc::clone(self) })
    }
}

/// Looks when it is asked, which is under the lock of the file that is to be written. Nobody's else may be taken there: a
/// truncation comes here with its own.
fn unless_void<P>(offsets: impl IntoIterator<Item = (P, LogCheckpoint)>) -> impl Iterator<Item = (P, Offset)> {
    offsets
        .into_iter()
        .filter(|(_, checkpoint)| !checkpoint.is_void())
        .map(|(name, checkpoint)| (name, checkpoint.offset))
}

/// Whether a crash interrupted the creation of a log: it has no identity yet, and no records.
fn is_unfinished(directory: &Path) -> Result<bool, StorageError> {
    if partition_metadata::read(directory).is_ok_and(|topic_id| topic_id.is_some()) {
        return Ok(false);
    }
    for entry in fs::read_dir(directory).at(directory)? {
        let path = entry.at(directory)?.path();
        let is_log = path.extension().is_some_and(|extension| extension == LOG_SUFFIX);
        if is_log && fs::metadata(&path).at(&path)?.len() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) fn read_meta_properties(directory: &Path) -> Result<Option<MetaProperties>, StorageError> {
    let path = directory.join(MetaProperties::FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => match MetaProperties::parse(&text) {
            Ok(properties) => Ok(Some(properties)),
            Err(reason) => Err(StorageError::Foreign { path, reason }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at(&path),
    }
}

/// A marker that cannot be read counts as none.
pub(crate) fn parse_clean_shutdown_marker(contents: &[u8]) -> Option<BrokerEpoch> {
    let marker: serde_json::Value = serde_json::from_slice(contents).ok()?;
    if marker.get("version")?.as_i64()? != 0 {
        return None;
    }
    marker.get("brokerEpoch")?.as_i64().map(BrokerEpoch)
}

/// An exclusive lock on `.lock`, released by the operating system when the process ends, however it ends. Simulated
/// hosts have disks of their own and need none.
#[derive(Debug)]
pub(crate) struct Lock {
    #[cfg(not(vltava_sim))]
    _file: fs::File,
}

impl Lock {
    #[cfg(not(vltava_sim))]
    fn take(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(LOCK_FILE);
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at(&path)?;
        Self::take_file(file, directory)
    }

    /// `None` if nobody has ever locked the directory. Creates nothing.
    pub(crate) fn take_if_there(directory: &Path) -> Result<Option<Self>, StorageError> {
        match fs::OpenOptions::new().read(true).open(directory.join(LOCK_FILE)) {
            Ok(file) => Self::take_file(file, directory).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at(directory),
        }
    }

    #[cfg(not(vltava_sim))]
    fn take_file(file: fs::File, directory: &Path) -> Result<Self, StorageError> {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::Locked { path: directory.to_owned() }),
            Err(error) => Err(std::io::Error::from(error)).at(&directory.join(LOCK_FILE)),
        }
    }

    #[cfg(vltava_sim)]
    fn take_file(_file: fs::File, _directory: &Path) -> Result<Self, StorageError> {
        Ok(Self {})
    }

    #[cfg(vltava_sim)]
    fn take(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(LOCK_FILE);
        fs::write(&path, b"").at(&path)?;
        Ok(Self {})
    }
}
