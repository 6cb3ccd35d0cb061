//! A partition's log under the cleaner: what may be compacted, and putting the result in place. Leaders and followers
//! compact alike, each its own log, and only what is committed.

use vltava_storage::{
    CleanableRange, CleanedSegment, CleanedUpTo, CleanerOptions, CleaningError, CleaningPass, Log, StorageError,
    cleanable_range,
};
use vltava_types::TimestampMs;

use super::read::last_stable_offset;
use super::{Partition, State};
use crate::disk::Writer;

/// What a failed pass means for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Nothing: the log was truncated or deleted, its disk is full, or has failed and is being given up.
    TryLater,
    /// It would fail again.
    Uncleanable,
}

impl Partition {
    /// What may be cleaned now, and `min.cleanable.dirty.ratio`. `None` if the topic is not compacted, or the log is out of
    /// use. A disk that is nearly full has no room for a segment's new copy.
    pub(crate) fn cleanable_range(&self, now: TimestampMs) -> Option<(CleanableRange, f64)> {
        let state = self.state.lock();
        self.compacted_log(&state).and_then(|log| self.range_of(&state, log, now))
    }

    /// Whether the log is in use, and of a topic that is compacted.
    pub(crate) fn is_compacted(&self) -> bool {
        self.state.lock().log.as_ref().is_some_and(|log| log.config().is_compacted && !self.is_unusable())
    }

    /// Begins to clean what may be cleaned now.
    pub(crate) fn begin_cleaning(&self, options: CleanerOptions, now: TimestampMs) -> Option<CleaningPass> {
        let state = self.state.lock();
        let log = self.compacted_log(&state)?;
        let (range, min_ratio) = self.range_of(&state, log, now)?;
        let last_stable_offset = last_stable_offset(log, state.role.offsets().high_watermark);
        range.is_due(min_ratio).then(|| log.begin_cleaning(range, last_stable_offset, options, now))
    }

    /// Puts a cleaned segment in the place of its sources. False if the log has changed, so that the pass is over.
    pub(crate) fn replace_segments(&self, cleaned: &CleanedSegment, now: TimestampMs) -> Result<bool, StorageError> {
        let mut state = self.state.lock();
        match &mut state.log {
            Some(log) if !self.is_unusable() => {
                // Half of a swap leaves memory and disk different: any failure is the disk's.
                log.replace_segments(cleaned, now).inspect_err(|error| self.disk.read().on_error(error))
            }
            _ => Ok(false),
        }
    }

    /// A pass got to its end.
    pub(crate) fn on_cleaned(&self, cleaned: &CleanedUpTo) {
        // The checkpoints of a log that was given up were forgotten.
        let state = self.state.lock();
        if state.log.is_some()
            && let Err(error) = self.disk.read().log_dir.checkpoint_cleaned(&self.name, cleaned)
        {
            self.disk.read().on_error(&error);
        }
    }

    /// A pass failed. Damage and failed disks are dealt with as a read or write by anybody would find them.
    pub(crate) fn on_cleaning_failed(&self, error: &CleaningError) -> AfterFailure {
        // A deletion renames the directory under the pass, whose files then cannot be found; and so does a move.
        let is_elsewhere = |log: &Log| match error {
            CleaningError::Storage(StorageError::Io { path, .. }) => !path.starts_with(log.directory()),
            _ => false,
        };
        if self.state.lock().log.as_ref().is_none_or(is_elsewhere) {
            return AfterFailure::TryLater;
        }
        match error {
            CleaningError::Truncated | CleaningError::Deleted => AfterFailure::TryLater,
            CleaningError::Storage(error) if error.is_full() => {
                self.disk.read().on_error(error);
                tracing::warn!(partition = %self.name, %error, "no room to compact the log; trying again later");
                AfterFailure::TryLater
            }
            CleaningError::Storage(error) => {
                self.on_read_error(error);
                if error.is_io() { AfterFailure::TryLater } else { AfterFailure::Uncleanable }
            }
            CleaningError::Batch { .. } | CleaningError::MapTooSmall { .. } | CleaningError::SegmentTooLarge { .. } => {
                AfterFailure::Uncleanable
            }
        }
    }

    /// Changes whenever something is taken back from the log; what was uncleanable may be gone then.
    pub(crate) fn truncation_count(&self) -> u64 {
        self.state.lock().log.as_ref().map_or(0, Log::truncation_count)
    }

    /// Removes the files of segments that were deleted or replaced long enough ago.
    pub(crate) fn remove_deleted_files(&self, now: TimestampMs) {
        if let Some(log) = &mut self.state.lock().log
            && let Err(error) = log.remove_deleted_files(now)
        {
            self.disk.read().on_error(&error);
            tracing::error!(partition = %self.name, %error, "removing deleted files failed");
        }
    }

    fn compacted_log<'a>(&self, state: &'a State) -> Option<&'a Log> {
        let log = state.log.as_ref().filter(|log| log.config().is_compacted && !self.is_unusable())?;
        let copy_bytes = log.size_bytes().min(u64::from(log.config().segment_bytes));
        self.disk.read().room.admits(Writer::Client, usize::try_from(copy_bytes).unwrap_or(usize::MAX)).then_some(log)
    }

    fn range_of(&self, state: &State, log: &Log, now: TimestampMs) -> Option<(CleanableRange, f64)> {
        let cleaned_up_to = self.disk.read().log_dir.cleaned_up_to(&self.name);
        let last_stable_offset = last_stable_offset(log, state.role.offsets().high_watermark);
        match log.cleaning_facts(last_stable_offset, cleaned_up_to) {
            Ok(facts) => Some((cleanable_range(&facts, cleaned_up_to, now), facts.min_cleanable_dirty_ratio)),
            Err(error) => {
                self.on_read_error(&error);
                None
            }
        }
    }
}
