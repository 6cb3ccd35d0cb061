//! One entry of `log.dirs`: the partitions' directories and the checkpoint files beside them.

mod checkpoints;
mod loading;
mod lock;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_host::{fs, random};
use vltava_types::{BrokerEpoch, DirectoryId, TimestampMs, TopicId, Uuid};

use crate::error::AtPath;
use crate::log::LogOptions;
use crate::{LoadProgress, Log, LogConfig, MetaProperties, OffsetCheckpoint, PartitionName, StorageError};

pub use loading::{LoadFailure, LoadedLog};
pub(crate) use lock::Lock;

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

    /// Partitions that were being moved to this directory when the last run ended, once. What was copied is gone.
    #[must_use]
    pub fn take_interrupted_moves(&self) -> Vec<PartitionName> {
        std::mem::take(&mut *self.interrupted_moves.lock())
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
