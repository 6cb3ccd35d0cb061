//! One entry of `log.dirs`: the partitions' directories and the checkpoint files beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vltava_types::{BrokerEpoch, DirectoryId, Offset, TimestampMs, TopicId};

use crate::{Log, LogConfig, MetaProperties, PartitionName, RecoveryReport, StorageError};

/// A log that was found at start-up.
pub struct LoadedLog {
    pub partition: PartitionName,
    pub log: Log,
    pub recovery: RecoveryReport,
    /// From the checkpoint, clamped to the log.
    pub high_watermark: Offset,
    pub log_dir: Arc<LogDir>,
}

/// A log that could not be opened. An I/O error takes the directory offline; corruption costs this replica only.
pub struct LoadFailure {
    pub partition: PartitionName,
    pub directory: PathBuf,
    pub error: StorageError,
}

/// A log directory, locked against other processes as long as this value lives.
pub struct LogDir {}

impl LogDir {
    /// Creates the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let _ = path;
        unimplemented!()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// What `meta.properties` says; `None` before the first [`LogDir::write_meta_properties`].
    #[must_use]
    pub fn meta_properties(&self) -> Option<MetaProperties> {
        unimplemented!()
    }

    /// Zero before the first [`LogDir::write_meta_properties`].
    #[must_use]
    pub fn directory_id(&self) -> DirectoryId {
        unimplemented!()
    }

    pub fn write_meta_properties(&self, properties: &MetaProperties) -> Result<(), StorageError> {
        let _ = properties;
        unimplemented!()
    }

    /// The broker epoch of the last run if it ended with a clean shutdown. The marker is durably gone on return, so
    /// that a crash during loading counts as unclean (KAFKA-10471). Call once, before [`LogDir::load`].
    pub fn take_clean_shutdown_marker(&self) -> Result<Option<BrokerEpoch>, StorageError> {
        unimplemented!()
    }

    /// Marks a clean shutdown. Only after [`Log::close`] has succeeded for every log of the directory and the checkpoints
    /// are written (trap 12).
    pub fn write_clean_shutdown_marker(&self, broker_epoch: BrokerEpoch) -> Result<(), StorageError> {
        let _ = broker_epoch;
        unimplemented!()
    }

    /// Opens all partitions, `threads` at a time (`num.recovery.threads.per.data.dir`), and removes what was being
    /// deleted. `config` gives a topic's settings.
    pub async fn load(
        self: &Arc<Self>,
        threads: usize,
        clean_shutdown: bool,
        config: impl Fn(&PartitionName) -> Arc<LogConfig> + Send + Sync + 'static,
    ) -> Result<(Vec<LoadedLog>, Vec<LoadFailure>), StorageError> {
        let _ = (threads, clean_shutdown, config);
        unimplemented!()
    }

    /// Creates an empty log. Durable on return.
    pub fn create(
        &self,
        partition: &PartitionName,
        topic_id: TopicId,
        config: Arc<LogConfig>,
    ) -> Result<Log, StorageError> {
        let _ = (partition, topic_id, config);
        unimplemented!()
    }

    /// Renames the log's directory to `<topic>-<partition>.<uuid>-delete` and forgets its checkpoints, durably. Its
    /// files go with [`LogDir::remove_deleted`]. Readers taken before keep working.
    pub fn delete(&self, log: Log, now: TimestampMs) -> Result<(), StorageError> {
        let _ = (log, now);
        unimplemented!()
    }

    /// The same for a directory that is not open: a stray one, whose topic is gone or has another id.
    pub fn delete_directory(&self, directory: &Path, now: TimestampMs) -> Result<(), StorageError> {
        let _ = (directory, now);
        unimplemented!()
    }

    /// Removes directories that were deleted at least `delay_ms` ago (`file.delete.delay.ms`).
    pub fn remove_deleted(&self, now: TimestampMs, delay_ms: i64) -> Result<(), StorageError> {
        let _ = (now, delay_ms);
        unimplemented!()
    }

    /// Writes `recovery-point-offset-checkpoint`. The offsets are [`Log::recovery_point`]s; partitions that are
    /// not named keep theirs.
    pub fn checkpoint_recovery_points(&self, offsets: BTreeMap<PartitionName, Offset>) -> Result<(), StorageError> {
        let _ = offsets;
        unimplemented!()
    }

    /// Writes `replication-offset-checkpoint`: high watermarks.
    pub fn checkpoint_high_watermarks(&self, offsets: BTreeMap<PartitionName, Offset>) -> Result<(), StorageError> {
        let _ = offsets;
        unimplemented!()
    }

    /// Writes `log-start-offset-checkpoint`.
    pub fn checkpoint_log_start_offsets(&self, offsets: BTreeMap<PartitionName, Offset>) -> Result<(), StorageError> {
        let _ = offsets;
        unimplemented!()
    }
}
