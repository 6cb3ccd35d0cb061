//! One partition's log: what Kafka calls `UnifiedLog`.

mod append;
mod flush;
mod producers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vltava_host::fs;
use vltava_protocol::batch::BatchHeader;
use vltava_replication::{EpochCache, ProducerStates};
use vltava_types::{LeaderEpoch, Offset, TimestampMs, TopicId};

use crate::epoch_checkpoint::{EpochCheckpoint, EpochsVersion};
use crate::error::AtPath;
use crate::lazy_file::LazyFile;
use crate::presence::Presence;
use crate::segment::{SNAPSHOT_SUFFIX, Segment, SegmentEnd, file_path};
use crate::{
    LoadProgress, LogConfig, LogReader, OffsetCheckpoint, PartitionName, SegmentInfo, StorageError, partition_metadata,
    producer_snapshot,
};

pub use append::Appended;
pub use flush::RecoveryCheckpoint;
pub(crate) use producers::replay_producer;

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
    /// What was recovered is made durable by the caller, who opens many logs: see [`Log::begin_flush`].
    pub defer_flush: bool,
    /// A flush has failed here: what the page cache says may not be on the disk, though it counts as clean (trap 27). It is
    /// read from the disk again.
    pub distrusts_cache: bool,
    pub progress: LoadProgress,
    /// Where the recovery point, the high watermark, the start and the cleaned part are checkpointed, so that a truncation
    /// below them can lower them first.
    pub recovery_points: Option<RecoveryPoints>,
}

/// A log's place in its directory's checkpoints of what a truncation takes back: `recovery-point-offset-checkpoint`,
/// `replication-offset-checkpoint`, `log-start-offset-checkpoint` and `cleaner-offset-checkpoint`.
#[derive(Clone, Debug)]
pub struct RecoveryPoints {
    pub checkpoint: Arc<OffsetCheckpoint>,
    pub high_watermarks: Arc<OffsetCheckpoint>,
    pub log_start_offsets: Arc<OffsetCheckpoint>,
    pub cleaner_checkpoint: Arc<OffsetCheckpoint>,
    pub partition: PartitionName,
}

/// A partition's log. The owner serialises its use; what takes long ([`LogReader`], [`Flush`]) works outside of the
/// owner's lock.
///
/// Batches with a partition leader epoch of -1 leave no trace in the epoch cache, and those with a producer id of -1 none
/// in the producer states, so that a log of another kind (Raft's) can use neither.
///
/// After an I/O error the state in memory and on disk may differ: the log must not be used any more.
#[derive(Debug)]
pub struct Log {
    pub(crate) directory: PathBuf,
    pub(crate) topic_id: TopicId,
    pub(crate) config: Arc<LogConfig>,
    /// Oldest first, never empty. Replaced as a whole when a segment comes or goes, because readers hold on to it.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) active: ActiveSegment,
    /// Invariant: `log_start_offset <= recovery_point <= log_end_offset`.
    pub(crate) log_start_offset: Offset,
    pub(crate) recovery_point: Offset,
    pub(crate) log_end_offset: Offset,
    pub(crate) epochs: EpochCache,
    pub(crate) epoch_checkpoint: Arc<EpochCheckpoint>,
    /// Counts the changes of `epochs`.
    pub(crate) epochs_version: u64,
    pub(crate) epochs_written: u64,
    /// The latest epoch has no records. Opening a log drops such an epoch, so that it need not be on disk.
    pub(crate) has_empty_epoch: bool,
    /// Everything is on disk that makes the next opening quick.
    pub(crate) is_complete: bool,
    pub(crate) producers: ProducerStates,
    /// The offsets of the producer snapshots on disk.
    pub(crate) snapshots: BTreeSet<Offset>,
    /// Counts truncations. Readers compare it to notice that bytes which they saw are gone.
    pub(crate) truncations: Arc<AtomicU64>,
    /// Ends when its directory is renamed to be deleted.
    pub(crate) presence: Presence,
    /// Files that were finished since the last flush: all of a sealed segment's, and snapshots.
    pub(crate) unflushed: Vec<UnflushedFile>,
    /// Counts changes of the directory's entries.
    pub(crate) directory_version: u64,
    pub(crate) directory_flushed: u64,
    /// Files renamed to `.deleted`, and when.
    pub(crate) deleted: Vec<(TimestampMs, PathBuf)>,
    pub(crate) recovery_points: Option<RecoveryPoints>,
}

/// What only the writer needs to know about the last segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveSegment {
    pub bytes_since_index_entry: u64,
    /// The largest timestamp of its first batch, from which `segment.ms` counts.
    pub first_timestamp: Option<i64>,
    /// Subtracted from `segment.ms`.
    pub jitter_ms: i64,
}

#[derive(Debug)]
pub(crate) struct UnflushedFile {
    pub file: Arc<LazyFile>,
    /// The directory version under which it was added.
    pub version: u64,
}

impl Log {
    /// Creates the directory, an empty first segment that begins at `options.log_start_offset`, and
    /// `partition.metadata`, all durable on return.
    pub fn create(
        directory: &Path,
        topic_id: TopicId,
        config: Arc<LogConfig>,
        options: LogOptions,
    ) -> Result<Self, StorageError> {
        if fs::metadata(directory).is_ok() {
            return Err(StorageError::Exists { path: directory.to_owned() });
        }
        let start = options.log_start_offset;
        let epoch_checkpoint = Arc::new(EpochCheckpoint::new(directory));
        let segment = Self::create_files(directory, topic_id, start, &epoch_checkpoint).inspect_err(|_| {
            // What there was no room for takes none. What stays has no identity, and is removed at the next start.
            let _ = fs::remove_dir_all(directory);
        })?;
        // Most logs rest after they are created.
        segment.close();
        let active = ActiveSegment::new(&config);
        Ok(Self {
            directory: directory.to_owned(),
            topic_id,
            config,
            segments: Arc::new(vec![Arc::new(segment)]),
            active,
            log_start_offset: start,
            recovery_point: start,
            log_end_offset: start,
            epochs: EpochCache::default(),
            epoch_checkpoint,
            epochs_version: 1,
            epochs_written: 1,
            has_empty_epoch: false,
            is_complete: true,
            producers: ProducerStates::default(),
            snapshots: BTreeSet::new(),
            truncations: Arc::new(AtomicU64::new(0)),
            presence: Presence::default(),
            unflushed: Vec::new(),
            directory_version: 0,
            directory_flushed: 0,
            deleted: Vec::new(),
            recovery_points: options.recovery_points,
        })
    }

    fn create_files(
        directory: &Path,
        topic_id: TopicId,
        start: Offset,
        epoch_checkpoint: &EpochCheckpoint,
    ) -> Result<Segment, StorageError> {
        fs::create_dir_all_durably(directory).unless_full(directory)?;
        let segment = Segment::open(directory, start)?;
        epoch_checkpoint.create()?;
        // Last, and it flushes the directory: a directory with this file holds a whole log.
        partition_metadata::write(directory, topic_id)?;
        Ok(segment)
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// From `partition.metadata`; zero if there is none.
    #[must_use]
    pub const fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    #[must_use]
    pub const fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Takes effect from the next append and retention run on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// The first offset that may be read.
    #[must_use]
    pub const fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The offset that the next record gets.
    #[must_use]
    pub const fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Everything below is on disk.
    #[must_use]
    pub const fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// Bytes of all segments, without indexes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size()).sum()
    }

    /// Oldest first; the last one is the active segment.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.segments.iter().map(|segment| segment.info()).collect()
    }

    /// Which epoch wrote which offsets.
    #[must_use]
    pub const fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// What each idempotent producer last wrote. A leader checks a batch against it before it appends.
    #[must_use]
    pub const fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// For expiry and high watermark changes; appends keep it up to date by themselves. After opening and truncation,
    /// tell it the high watermark: until then, transactions that ended are taken for unstable.
    pub const fn producers_mut(&mut self) -> &mut ProducerStates {
        &mut self.producers
    }

    /// A new leader's epoch begins at the log end (KIP-101). Does nothing if the epoch is known.
    pub fn begin_leader_epoch(&mut self, epoch: LeaderEpoch) {
        if self.epochs.latest().is_none_or(|latest| latest.epoch < epoch) {
            self.has_empty_epoch |= self.epochs.assign(epoch, self.log_end_offset);
        }
    }

    /// The log as it is now, to be read without a lock.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(
            Arc::clone(&self.segments),
            self.log_start_offset,
            self.log_end_offset,
            Arc::clone(&self.truncations),
        )
    }

    /// Moves the log start offset up; a lower one than the present changes nothing (trap 19). Returns whether it moved.
    /// The files go with the next [`Log::delete_old_segments`].
    pub fn advance_log_start_offset(&mut self, offset: Offset) -> Result<bool, StorageError> {
        if offset > self.log_end_offset {
            return Err(self.out_of_range(offset));
        }
        if offset <= self.log_start_offset {
            return Ok(false);
        }
        self.log_start_offset = offset;
        // What nobody may read needs no flush.
        self.recovery_point = self.recovery_point.max(offset);
        if self.epochs.truncate_from_start(offset) {
            self.epochs_version += 1;
        }
        Ok(true)
    }

    pub(crate) fn active_segment(&self) -> &Arc<Segment> {
        self.segments.last().expect("a log has a segment at all times")
    }

    /// How often something was taken back from the log.
    #[must_use]
    pub fn truncation_count(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    pub(crate) fn out_of_range(&self, offset: Offset) -> StorageError {
        StorageError::OffsetOutOfRange {
            offset,
            log_start_offset: self.log_start_offset,
            log_end_offset: self.log_end_offset,
        }
    }

    pub(crate) fn epochs_at_present(&self) -> EpochsVersion {
        EpochsVersion { version: self.epochs_version, entries: self.epochs.entries().to_vec() }
    }

    pub(crate) fn assign_epoch(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if self.epochs.assign(epoch, start_offset) {
            self.epochs_version += 1;
        }
    }

    /// Seals the active segment and begins another one at `base_offset`. Without room for it the active one stays.
    pub(crate) fn roll(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        let sealed = Arc::clone(self.active_segment());
        if sealed.base_offset == base_offset {
            assert!(sealed.size() == 0, "two segments cannot begin at the same offset");
            return Ok(());
        }
        // What needs room comes first.
        self.take_snapshot()?;
        let segment = Arc::new(Segment::create(&self.directory, base_offset)?);
        let end = sealed.end();
        if let Err(error) = sealed.complete_time_index() {
            Segment::remove_files_of(&self.directory, base_offset);
            return Err(take_back(&sealed, &end, error));
        }
        self.directory_version += 1;
        let version = self.directory_version;
        self.unflushed.extend(sealed.files().map(|file| UnflushedFile { file: Arc::clone(file), version }));
        sealed.seal()?;
        let mut segments = Vec::clone(&self.segments);
        segments.push(segment);
        self.segments = Arc::new(segments);
        self.active = ActiveSegment::new(&self.config);
        Ok(())
    }

    /// Writes the producers' state as of the log end; flushed with the log.
    pub(crate) fn take_snapshot(&mut self) -> Result<(), StorageError> {
        let path = file_path(&self.directory, self.log_end_offset, SNAPSHOT_SUFFIX);
        self.unflushed.retain(|unflushed| unflushed.file.path() != path);
        if let Err(error) = producer_snapshot::write(&path, &self.producers) {
            self.snapshots.remove(&self.log_end_offset);
            return Err(error);
        }
        self.snapshots.insert(self.log_end_offset);
        self.directory_version += 1;
        let file = Arc::new(LazyFile::open_and_keep(path)?);
        self.unflushed.push(UnflushedFile { file, version: self.directory_version });
        Ok(())
    }

    /// Removes a segment's files at once.
    pub(crate) fn remove_files(&mut self, segment: &Segment) -> Result<(), StorageError> {
        self.directory_version += 1;
        for path in segment.paths() {
            fs::remove_file(path).at(path)?;
            self.unflushed.retain(|unflushed| unflushed.file.path() != path);
        }
        Ok(())
    }

    /// Takes in what a batch of the log says about epochs and producers.
    pub(crate) fn replay(&mut self, header: &BatchHeader, batch: &[u8]) {
        if header.partition_leader_epoch > LeaderEpoch::NONE {
            self.assign_epoch(header.partition_leader_epoch, header.base_offset);
        }
        replay_producer(&mut self.producers, header, batch);
    }
}

/// Takes back what was written before the room ran out. If that fails too, the disk has failed: what is on it is no
/// longer known.
fn take_back(segment: &Segment, end: &SegmentEnd, error: StorageError) -> StorageError {
    if !error.is_full() {
        return error;
    }
    match segment.take_back(end) {
        Ok(()) => error,
        Err(failure) => failure.or_failed(),
    }
}

/// Goes on without what there is no room for.
pub(crate) fn unless_full(outcome: Result<(), StorageError>) -> Result<(), StorageError> {
    match outcome {
        Err(error) if error.is_full() => Ok(()),
        outcome => outcome,
    }
}

impl ActiveSegment {
    pub fn new(config: &LogConfig) -> Self {
        let jitter_ms = match u64::try_from(config.segment_jitter_ms) {
            Ok(0) | Err(_) => 0,
            Ok(limit) => i64::try_from(vltava_host::random::u64() % limit).expect("less than an i64"),
        };
        Self { bytes_since_index_entry: 0, first_timestamp: None, jitter_ms }
    }
}
