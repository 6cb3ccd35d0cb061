//! Which segments go, by time, size and log start offset; and how their files are removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vltava_host::fs;
use vltava_types::{Offset, TimestampMs};

use crate::error::AtPath;
use crate::segment::{DELETED_SUFFIX, SNAPSHOT_SUFFIX, Segment, file_path};
use crate::{Log, StorageError};

/// Clocks differ a little, and that is not worth a warning.
const CLOCK_SKEW_MS: i64 = 60 * 60 * 1000;

/// What [`Log::delete_old_segments`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedSegments {
    pub segments: usize,
    pub bytes: u64,
    /// The log start offset afterwards. A leader tells its followers (trap 19).
    pub log_start_offset: Offset,
}

impl Log {
    /// Deletes whole segments that retention (`retention.ms`, `retention.bytes`) or the log start offset no longer
    /// protects, oldest first, and never one that reaches beyond `high_watermark`. Their files are renamed to `.deleted`
    /// and stay for `file.delete.delay.ms`: see [`Log::remove_deleted_files`].
    pub fn delete_old_segments(
        &mut self,
        now: TimestampMs,
        high_watermark: Offset,
    ) -> Result<DeletedSegments, StorageError> {
        let mut count = self.count_deletable(now, high_watermark)?;
        if count > 0 && count == self.segments.len() {
            // A log always has a segment to append to. Without room for a new one, the last one makes it for the others.
            match self.roll(self.log_end_offset) {
                Err(error) if error.is_full() => count -= 1,
                outcome => outcome?,
            }
        }
        let mut deleted = DeletedSegments { segments: count, bytes: 0, log_start_offset: self.log_start_offset };
        if count == 0 {
            return Ok(deleted);
        }
        // The start moves first: readers taken from here on do not look for what goes.
        self.advance_log_start_offset(self.segments[count].base_offset)?;
        let segments = Arc::clone(&self.segments);
        for segment in &segments[..count] {
            // Oldest first, and after what the log goes on with, on disk too: whatever a crash leaves has no hole and ends
            // where the log did.
            if self.directory_flushed < self.directory_version {
                fs::sync_dir(&self.directory).at(&self.directory)?;
            }
            deleted.bytes += segment.size();
            self.rename_deleted(segment, now)?;
            self.rename_deleted_snapshot(segment.base_offset, now)?;
        }
        self.segments = Arc::new(segments[count..].to_vec());
        deleted.log_start_offset = self.log_start_offset;
        Ok(deleted)
    }

    /// Removes files that were renamed to `.deleted` long enough ago.
    pub fn remove_deleted_files(&mut self, now: TimestampMs) -> Result<(), StorageError> {
        let delay_ms = self.config.file_delete_delay_ms;
        let is_due = |deleted_at: &TimestampMs| now.value().saturating_sub(deleted_at.value()) >= delay_ms;
        for (deleted_at, path) in &self.deleted {
            if is_due(deleted_at) {
                fs::remove_file(path).at(path)?;
            }
        }
        self.deleted.retain(|(deleted_at, _)| !is_due(deleted_at));
        Ok(())
    }

    /// How many of the oldest segments may go. The active one goes too if all of its records are too old, or if nothing is to
    /// be kept at all (`retention.bytes=0`).
    fn count_deletable(&self, now: TimestampMs, high_watermark: Offset) -> Result<usize, StorageError> {
        let by_retention = self.config.delete_by_retention;
        let mut excess_bytes = match u64::try_from(self.config.retention_bytes) {
            Ok(limit) if by_retention => self.size_bytes().saturating_sub(limit),
            _ => 0,
        };
        let mut count = 0;
        for (i, segment) in self.segments.iter().enumerate() {
            let next_base_offset = self.segments.get(i + 1).map(|next| next.base_offset);
            let end_offset = next_base_offset.unwrap_or(self.log_end_offset);
            if end_offset > high_watermark {
                break;
            }
            let is_below_start = next_base_offset.is_some_and(|next| next <= self.log_start_offset);
            let is_removable = next_base_offset.is_some() || segment.size() > 0;
            let is_excess = is_removable && excess_bytes > 0 && segment.size() <= excess_bytes;
            let is_old = by_retention && is_removable && self.is_older_than_retention(segment, now)?;
            if !is_below_start && !is_excess && !is_old {
                break;
            }
            excess_bytes = excess_bytes.saturating_sub(segment.size());
            count += 1;
        }
        Ok(count)
    }

    /// By its largest timestamp; if its records have none, by when the file was last written.
    fn is_older_than_retention(&self, segment: &Segment, now: TimestampMs) -> Result<bool, StorageError> {
        if self.config.retention_ms < 0 {
            return Ok(false);
        }
        let largest_timestamp = match segment.largest_timestamp() {
            Some(largest) => largest.timestamp,
            None => {
                let modified =
                    fs::metadata(segment.path()).and_then(|metadata| metadata.modified()).at(segment.path())?;
                let since_epoch = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
            }
        };
        if largest_timestamp.saturating_sub(now.value()) > CLOCK_SKEW_MS {
            tracing::warn!(
                segment = %segment.path().display(), largest_timestamp,
                "a record's timestamp lies in the future and keeps its segment from being deleted by age"
            );
        }
        Ok(now.value().saturating_sub(largest_timestamp) > self.config.retention_ms)
    }

    /// Renames a segment's files to `.deleted`. Readers may look it up for a while yet.
    pub(crate) fn rename_deleted(&mut self, segment: &Segment, now: TimestampMs) -> Result<(), StorageError> {
        segment.keep_open()?;
        segment.paths().into_iter().try_for_each(|path| self.rename_deleted_file(path, now))
    }

    /// The same for the producer snapshot at a segment's start, if there is one.
    pub(crate) fn rename_deleted_snapshot(&mut self, offset: Offset, now: TimestampMs) -> Result<(), StorageError> {
        if self.snapshots.remove(&offset) {
            self.rename_deleted_file(&file_path(&self.directory, offset, SNAPSHOT_SUFFIX), now)?;
        }
        Ok(())
    }

    fn rename_deleted_file(&mut self, path: &Path, now: TimestampMs) -> Result<(), StorageError> {
        let mut renamed = path.to_owned().into_os_string();
        renamed.push(".");
        renamed.push(DELETED_SUFFIX);
        let renamed = PathBuf::from(renamed);
        match fs::rename(path, &renamed).unless_full(path) {
            Ok(()) => {
                // Compaction may have deleted a file of this name before, which the rename has replaced.
                self.deleted.retain(|(_, deleted)| *deleted != renamed);
                self.deleted.push((now, renamed));
            }
            // The directory has no room for another name. Readers have the file open.
            Err(error) if error.is_full() => fs::remove_file(path).at(path)?,
            Err(error) => return Err(error),
        }
        self.unflushed.retain(|unflushed| unflushed.file.path() != path);
        self.directory_version += 1;
        Ok(())
    }
}
