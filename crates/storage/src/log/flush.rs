//! What is appended becomes durable, and what is durable is told to checkpoints.

use std::sync::Arc;

use vltava_types::Offset;

use super::{Log, unless_full};
use crate::lazy_file::LazyFile;
use crate::segment::Segment;
use crate::{Flush, LogCheckpoint, StorageError};

/// A recovery point on its way into the checkpoint file: see [`crate::LogDir::checkpoint_recovery_points`].
#[derive(Debug)]
pub struct RecoveryCheckpoint {
    pub(crate) checkpoint: LogCheckpoint,
    /// Recovery trusts index entries below the recovery point, so that they are flushed before it is written.
    pub(crate) indexes: [Arc<LazyFile>; 2],
}

impl Log {
    /// The recovery point, to be checkpointed without the log's lock; `None` if that was done already.
    #[must_use]
    pub fn recovery_checkpoint(&self) -> Option<RecoveryCheckpoint> {
        let known = self.recovery_points.as_ref().and_then(|points| points.checkpoint.get(&points.partition));
        let below = |segment: &&Arc<Segment>| segment.base_offset < self.recovery_point;
        (known != Some(self.recovery_point)).then(|| RecoveryCheckpoint {
            checkpoint: self.checkpoint_at(self.recovery_point),
            // It may have been sealed since, and its last index entries with it.
            indexes: self.segments.iter().rfind(below).unwrap_or_else(|| self.active_segment()).indexes(),
        })
    }

    /// An offset of this log (its start, a high watermark), to be checkpointed without the log's lock.
    #[must_use]
    pub fn checkpoint_at(&self, offset: Offset) -> LogCheckpoint {
        LogCheckpoint::new(offset, &self.presence, &self.truncations)
    }

    /// Lets go of the descriptors of files that were not used since the last call, if everything is on disk. Whoever needs
    /// one opens it again.
    pub fn close_unused_files(&self) {
        if self.begin_flush().is_none() {
            self.segments.iter().for_each(|segment| segment.close_if_unused());
        }
    }

    /// Lets go of all descriptors. Only when everything is on disk.
    pub(crate) fn close_files(&self) {
        self.segments.iter().for_each(|segment| segment.close());
    }

    /// What has to be flushed so that all that was appended so far is durable; `None` if everything is.
    #[must_use]
    pub fn begin_flush(&self) -> Option<Flush> {
        let has_new_data = self.recovery_point < self.log_end_offset;
        let has_new_entries = self.directory_flushed < self.directory_version;
        let has_new_epochs = self.epochs_written < self.epochs_version;
        if !has_new_data && !has_new_entries && !has_new_epochs && self.unflushed.is_empty() {
            return None;
        }
        let mut files: Vec<_> = self.unflushed.iter().map(|unflushed| Arc::clone(&unflushed.file)).collect();
        if has_new_data {
            files.push(Arc::clone(self.active_segment().file()));
        }
        Some(Flush {
            up_to: self.log_end_offset,
            truncations: self.truncation_count(),
            presence: self.presence.clone(),
            files,
            directory: has_new_entries.then(|| self.directory.clone()),
            directory_version: self.directory_version,
            epochs: has_new_epochs.then(|| (Arc::clone(&self.epoch_checkpoint), self.epochs_at_present())),
        })
    }

    /// A flush has run. Returns the new recovery point. A truncation since makes it count for nothing.
    pub fn end_flush(&mut self, flush: &Flush) -> Offset {
        if flush.truncations == self.truncation_count() {
            self.recovery_point = self.recovery_point.max(flush.up_to);
            self.directory_flushed = self.directory_flushed.max(flush.directory_version);
            self.unflushed.retain(|unflushed| unflushed.version > flush.directory_version);
            if let Some((_, epochs)) = &flush.epochs {
                self.epochs_written = self.epochs_written.max(epochs.version);
            }
        }
        self.recovery_point
    }

    /// Blocks until everything appended so far is durable.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        if let Some(flush) = self.begin_flush() {
            flush.run()?;
            self.end_flush(&flush);
        }
        Ok(())
    }

    /// Flushes everything and writes what makes the next opening quick. For a clean shutdown.
    pub fn close(&mut self) -> Result<(), StorageError> {
        if self.is_complete && self.begin_flush().is_none() {
            return Ok(());
        }
        // Both make the next opening quicker, and are not worth more room than there is.
        unless_full(self.take_snapshot())?;
        let active = Arc::clone(self.active_segment());
        unless_full(active.complete_time_index())?;
        for index in active.indexes() {
            index.sync_data()?;
        }
        self.flush()?;
        self.is_complete = true;
        Ok(())
    }
}
