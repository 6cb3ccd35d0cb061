//! One partition's log: what Kafka calls `UnifiedLog`.

use std::path::Path;
use std::sync::Arc;

use vltava_replication::{EpochCache, ProducerStates};
use vltava_types::{LeaderEpoch, Offset, TimestampMs, TopicId};

use crate::{Flush, LogConfig, LogReader, OffsetCheckpoint, PartitionName, RecoveryReport, SegmentInfo, StorageError};

/// What the log directory knows about a log that is opened.
#[derive(Clone, Default)]
pub struct LogOptions {
    /// From `log-start-offset-checkpoint`.
    pub log_start_offset: Offset,
    /// From `recovery-point-offset-checkpoint`: everything below was flushed.
    pub recovery_point: Offset,
    /// From `replication-offset-checkpoint`; only to notice that committed data are missing.
    pub high_watermark: Offset,
    /// All logs were flushed before the process ended: nothing needs to be scanned.
    pub clean_shutdown: bool,
    /// Where the recovery point is checkpointed, so that a truncation below it can lower it first.
    pub recovery_points: Option<RecoveryPoints>,
}

/// A log's place in its directory's `recovery-point-offset-checkpoint`.
#[derive(Clone)]
pub struct RecoveryPoints {
    pub checkpoint: Arc<OffsetCheckpoint>,
    pub partition: PartitionName,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// The largest timestamp of the appended batches.
    pub max_timestamp: TimestampMs,
    /// Whether a new segment was begun.
    pub rolled: bool,
}

/// A partition's log. The owner serialises its use; what takes long ([`LogReader`], [`Flush`]) works outside of the
/// owner's lock.
///
/// Batches with a partition leader epoch of -1 leave no trace in the epoch cache, and those with a producer id of -1 none
/// in the producer states, so that a log of another kind (Raft's) can use neither.
///
/// After an I/O error the state in memory and on disk may differ: the log must not be used any more.
pub struct Log {}

impl Log {
    /// Creates the directory, an empty first segment and `partition.metadata`, all durable on return.
    pub fn create(
        directory: &Path,
        topic_id: TopicId,
        config: Arc<LogConfig>,
        options: LogOptions,
    ) -> Result<Self, StorageError> {
        let _ = (directory, topic_id, config, options);
        unimplemented!()
    }

    /// Opens an existing log, recovering it as far as `options` require.
    pub fn open(
        directory: &Path,
        config: Arc<LogConfig>,
        options: LogOptions,
    ) -> Result<(Self, RecoveryReport), StorageError> {
        let _ = (directory, config, options);
        unimplemented!()
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        unimplemented!()
    }

    /// From `partition.metadata`; zero if there is none.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        unimplemented!()
    }

    #[must_use]
    pub fn config(&self) -> &Arc<LogConfig> {
        unimplemented!()
    }

    /// Takes effect from the next append and retention run on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        let _ = config;
        unimplemented!()
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        unimplemented!()
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        unimplemented!()
    }

    /// Everything below is on disk.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        unimplemented!()
    }

    /// Bytes of all segments, without indexes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Oldest first; the last one is the active segment.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        unimplemented!()
    }

    /// Which epoch wrote which offsets.
    #[must_use]
    pub fn epochs(&self) -> &EpochCache {
        unimplemented!()
    }

    /// What each idempotent producer last wrote. A leader checks a batch against it before it appends.
    #[must_use]
    pub fn producers(&self) -> &ProducerStates {
        unimplemented!()
    }

    /// For expiry, high watermark changes and transaction markers; appends keep it up to date by themselves.
    pub fn producers_mut(&mut self) -> &mut ProducerStates {
        unimplemented!()
    }

    /// A new leader's epoch begins at the log end (KIP-101). Does nothing if the epoch is known.
    pub fn begin_leader_epoch(&mut self, epoch: LeaderEpoch) {
        let _ = epoch;
        unimplemented!()
    }

    /// Appends batches that were checked and stamped: base offsets (exactly from the log end on, without gaps), leader
    /// epoch, timestamps, CRC. All of them or none; readable at once, durable after the next flush.
    pub fn append_as_leader(&mut self, batches: &[u8]) -> Result<Appended, StorageError> {
        let _ = batches;
        unimplemented!()
    }

    /// Appends a leader's batches as they came, CRC checked by the caller. The first one may begin beyond the log end, and gaps
    /// between them are kept: the leader's log has the same ones, from compaction.
    pub fn append_as_follower(&mut self, batches: &[u8]) -> Result<Appended, StorageError> {
        let _ = batches;
        unimplemented!()
    }

    /// The log as it is now, to be read without a lock.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        unimplemented!()
    }

    /// Drops everything from `offset` on; if it lies within a batch, the whole batch. Epochs and producers follow.
    /// Returns the new log end offset. Durable before any later append.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Offset, StorageError> {
        let _ = offset;
        unimplemented!()
    }

    /// Drops everything; the next record gets `offset`, which is also the new log start offset. For a follower whose
    /// leader's log begins beyond its own end.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), StorageError> {
        let _ = offset;
        unimplemented!()
    }

    /// Moves the log start offset up; a lower one than the present changes nothing (trap 19). Returns whether it moved.
    /// The files go with the next [`Log::delete_old_segments`].
    pub fn advance_log_start_offset(&mut self, offset: Offset) -> Result<bool, StorageError> {
        let _ = offset;
        unimplemented!()
    }

    /// What has to be flushed so that all that was appended so far is durable; `None` if everything is.
    pub fn begin_flush(&mut self) -> Option<Flush> {
        unimplemented!()
    }

    /// A flush has run. Returns the new recovery point. A truncation since makes it count for nothing.
    pub fn end_flush(&mut self, flush: &Flush) -> Offset {
        let _ = flush;
        unimplemented!()
    }

    /// Blocks until everything appended so far is durable.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        unimplemented!()
    }

    /// Flushes everything and writes what makes the next opening quick. For a clean shutdown.
    pub fn close(&mut self) -> Result<(), StorageError> {
        unimplemented!()
    }
}
