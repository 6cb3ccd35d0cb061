//! A directory's checkpoint files: offsets of its partitions.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_types::Offset;

use super::LogDir;
use crate::log::{LogOptions, RecoveryCheckpoint, RecoveryPoints};
use crate::{CleanedUpTo, LogCheckpoint, PartitionName, StorageError};

impl LogDir {
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

    pub(super) fn forget(&self, partition: &PartitionName) -> Result<(), StorageError> {
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
}

/// Looks when it is asked, which is under the lock of the file that is to be written. Nobody's else may be taken there: a
/// truncation comes here with its own.
fn unless_void<P>(offsets: impl IntoIterator<Item = (P, LogCheckpoint)>) -> impl Iterator<Item = (P, Offset)> {
    offsets
        .into_iter()
        .filter(|(_, checkpoint)| !checkpoint.is_void())
        .map(|(name, checkpoint)| (name, checkpoint.offset))
}
