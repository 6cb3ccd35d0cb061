//! Taking back what was appended: a follower whose log diverges from its leader's, a Raft log with a conflict.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vltava_host::fs;
use vltava_replication::EpochCache;
use vltava_types::Offset;

use crate::epoch_checkpoint::EpochsVersion;
use crate::error::AtPath;
use crate::log::ActiveSegment;
use crate::recovery::load_producers;
use crate::segment::{SNAPSHOT_SUFFIX, Segment, file_path};
use crate::{Log, StorageError};

impl Log {
    /// Drops everything from `offset` on; if it lies within a batch, the whole batch, and if it lies in a gap, the gap.
    /// Epochs and producers follow. Returns the new log end offset. From the log end on there are no records to drop, but
    /// there may be an epoch that never got one. Below the log start offset, the log start offset comes down with it. Durable
    /// on return, so that what was dropped cannot come back under records appended later.
    ///
    /// A crash on the way leaves either a longer log, with all of its end scanned at the next opening, or the
    /// truncated one: the recovery point is lowered first, and segments go from the last one down. Without room for the
    /// checkpoints nothing is dropped.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Offset, StorageError> {
        if offset >= self.log_end_offset {
            // A leadership that ended before it wrote anything has left its epoch at the log end. The new leader has never
            // heard of it, so that a follower which kept it would diverge for ever (trap 2).
            let mut epochs = self.epochs.clone();
            if epochs.truncate_from_end(self.log_end_offset) {
                self.replace_epochs(epochs)?;
            }
            return Ok(self.log_end_offset);
        }
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let Some(index) = after.checked_sub(1) else {
            self.truncate_fully_and_start_at(offset)?;
            return Ok(offset);
        };
        let segment = Arc::clone(&self.segments[index]);
        let batch = segment.find(offset, segment.size())?;
        let position = batch.map_or(segment.size(), |batch| batch.position);
        let new_end = segment.end_below(offset)?;

        self.begin_truncation(new_end, new_end)?;
        let mut epochs = self.epochs.clone();
        epochs.truncate_from_end(new_end);
        self.replace_epochs(epochs)?;
        self.finish_truncation(index, &segment, position, new_end).map_err(StorageError::or_failed)?;
        Ok(new_end)
    }

    /// Everything after the checkpoints: from here on the log must get there, or not be used any more.
    fn finish_truncation(
        &mut self,
        index: usize,
        segment: &Segment,
        position: u64,
        new_end: Offset,
    ) -> Result<(), StorageError> {
        self.remove_segments_from(index + 1)?;
        segment.keep_open()?;
        segment.truncate(position, new_end)?;
        segment.file().sync_data()?;

        let tail = segment.walk_tail(self.config.index_interval_bytes)?;
        self.active = ActiveSegment {
            bytes_since_index_entry: tail.bytes_since_index_entry,
            first_timestamp: segment.first_timestamp()?,
            ..ActiveSegment::new(&self.config)
        };
        self.log_end_offset = new_end;
        self.log_start_offset = self.log_start_offset.min(new_end);
        self.recovery_point = self.recovery_point.min(new_end);
        self.producers = load_producers(&self.directory, &mut self.snapshots, &self.segments, new_end)?;
        assert!(tail.end_offset == new_end, "a log ends where its last batch does");
        fs::sync_dir(&self.directory).at(&self.directory)
    }

    /// Drops everything; the next record gets `offset`, which is also the new log start offset. For a follower whose
    /// leader's log begins beyond its own end. Durable on return.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), StorageError> {
        // None of the segments may be trusted if only some of them are gone after a crash.
        let first = self.segments[0].base_offset;
        self.begin_truncation(offset.min(first), offset)?;
        self.replace_epochs(EpochCache::default())?;
        self.start_over(offset).map_err(StorageError::or_failed)
    }

    fn start_over(&mut self, offset: Offset) -> Result<(), StorageError> {
        self.remove_segments_from(0)?;
        for snapshot in std::mem::take(&mut self.snapshots) {
            let path = file_path(&self.directory, snapshot, SNAPSHOT_SUFFIX);
            self.unflushed.retain(|unflushed| unflushed.file.path() != path);
            fs::remove_file(&path).at(&path)?;
        }
        self.segments = Arc::new(vec![Arc::new(Segment::open(&self.directory, offset)?)]);
        fs::sync_dir(&self.directory).at(&self.directory)?;
        self.active = ActiveSegment::new(&self.config);
        self.log_start_offset = offset;
        self.recovery_point = offset;
        self.log_end_offset = offset;
        self.producers.clear();
        Ok(())
    }

    /// Makes readers and flushes under way void, and makes sure that the next opening scans what comes after
    /// `recovery_point` and does not pass over records that come after `start_offset`. Without room for the checkpoints the
    /// log stays as it was.
    fn begin_truncation(&mut self, recovery_point: Offset, start_offset: Offset) -> Result<(), StorageError> {
        self.truncations.fetch_add(1, Ordering::AcqRel);
        self.is_complete = false;
        if let Some(checkpoints) = &self.recovery_points {
            checkpoints.checkpoint.lower(&checkpoints.partition, recovery_point)?;
            checkpoints.log_start_offsets.lower(&checkpoints.partition, start_offset)?;
            // What is given up on purpose is not to be missed.
            checkpoints.high_watermarks.lower(&checkpoints.partition, recovery_point)?;
            // What comes after the new end was never cleaned, whatever is appended there.
            checkpoints.cleaner_checkpoint.lower(&checkpoints.partition, recovery_point)?;
        }
        Ok(())
    }

    /// On disk first: without room for them, the log keeps those that it has.
    pub(crate) fn replace_epochs(&mut self, epochs: EpochCache) -> Result<(), StorageError> {
        let version = self.epochs_version + 1;
        self.epoch_checkpoint.write(&EpochsVersion { version, entries: epochs.entries().to_vec() })?;
        self.epochs = epochs;
        self.epochs_version = version;
        self.epochs_written = version;
        self.has_empty_epoch = false;
        Ok(())
    }

    fn remove_segments_from(&mut self, index: usize) -> Result<(), StorageError> {
        let segments = Arc::clone(&self.segments);
        for segment in segments[index..].iter().rev() {
            segment.keep_open()?;
            self.remove_files(segment)?;
        }
        self.segments = Arc::new(segments[..index].to_vec());
        Ok(())
    }
}
