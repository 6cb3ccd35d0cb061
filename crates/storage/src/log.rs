//! One partition's log: what Kafka calls `UnifiedLog`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vltava_host::fs;
use vltava_protocol::batch::{BatchHeader, ControlKind, batches, records};
use vltava_replication::{EpochCache, ProducerBatch, ProducerStates, TransactionMarker};
use vltava_types::{LeaderEpoch, Offset, TimestampMs, TopicId};

use crate::epoch_checkpoint::{EpochCheckpoint, EpochsVersion};
use crate::error::AtPath;
use crate::lazy_file::LazyFile;
use crate::presence::Presence;
use crate::segment::{SNAPSHOT_SUFFIX, Segment, SegmentEnd, file_path};
use crate::{
    Flush, LoadProgress, LogCheckpoint, LogConfig, LogReader, OffsetCheckpoint, PartitionName, SegmentInfo,
    StorageError, partition_metadata, producer_snapshot,
};

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

/// A recovery point on its way into the checkpoint file: see [`crate::LogDir::checkpoint_recovery_points`].
#[derive(Debug)]
pub struct RecoveryCheckpoint {
    pub(crate) checkpoint: LogCheckpoint,
    /// Recovery trusts index entries below the recovery point, so that they are flushed before it is written.
    pub(crate) indexes: [Arc<LazyFile>; 2],
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

/// Whose batches are appended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Leader,
    Follower,
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

    /// Appends batches that were checked and stamped: base offsets (exactly from the log end on, without gaps), leader
    /// epoch, timestamps, CRC. Readable at once, durable after the next flush. All of them or none; but if the file system
    /// is full ([`StorageError::Full`]) those that fit into the active segment may be in the log, as its end tells.
    pub fn append_as_leader(&mut self, batches: &[u8]) -> Result<Appended, StorageError> {
        self.append(batches, Origin::Leader)
    }

    /// Appends a leader's batches as they came, CRC checked by the caller. The first one may begin beyond the log end, and
    /// gaps between them are kept: the leader's log has the same ones, from compaction.
    pub fn append_as_follower(&mut self, batches: &[u8]) -> Result<Appended, StorageError> {
        self.append(batches, Origin::Follower)
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

    fn append(&mut self, bytes: &[u8], origin: Origin) -> Result<Appended, StorageError> {
        let headers = self.check_append(bytes, origin)?;
        let (first, last) = (&headers[0].0, &headers[headers.len() - 1].0);
        let appended = Appended {
            base_offset: first.base_offset,
            last_offset: last.last_offset(),
            max_timestamp: headers.iter().map(|(header, _)| header.max_timestamp).max().expect("there is a batch"),
            rolled: false,
        };
        // One write for each segment that is touched, which is nearly always one.
        let mut rolled = false;
        let mut run_start = 0;
        let mut run_bytes = 0;
        for (i, (header, _)) in headers.iter().enumerate() {
            if self.must_roll(header, run_bytes, run_start < i) {
                self.append_run(bytes, &headers[run_start..i])?;
                self.roll(self.base_offset_for(header))?;
                rolled = true;
                run_start = i;
                run_bytes = 0;
            }
            run_bytes += header.size() as u64;
        }
        self.append_run(bytes, &headers[run_start..])?;
        Ok(Appended { rolled, ..appended })
    }

    /// The headers of the batches with their positions, if all of them may be appended.
    fn check_append(&self, bytes: &[u8], origin: Origin) -> Result<Vec<(BatchHeader, usize)>, StorageError> {
        let refuse = |reason: String| Err(StorageError::InvalidAppend { log_end_offset: self.log_end_offset, reason });
        let mut headers = Vec::with_capacity(1);
        let mut next_offset = self.log_end_offset;
        let mut epoch = self.epochs.epoch_of(next_offset.plus(-1)).unwrap_or(LeaderEpoch::NONE);
        for batch in batches(bytes) {
            let (header, position) = match batch {
                Ok(batch) => (batch.header, batch.position),
                Err(error) => return refuse(error.to_string()),
            };
            let continues = match origin {
                Origin::Leader => header.base_offset == next_offset,
                Origin::Follower => header.base_offset >= next_offset,
            };
            if !continues || header.last_offset_delta < 0 {
                return refuse(format!("a batch begins at {} where {next_offset} was expected", header.base_offset));
            }
            if header.size() > MAX_SEGMENT_BYTES as usize {
                return refuse(format!("a batch of {} bytes fits no segment", header.size()));
            }
            if header.partition_leader_epoch > LeaderEpoch::NONE {
                if header.partition_leader_epoch < epoch {
                    return refuse(format!(
                        "leader epoch {} follows {epoch} in the log",
                        header.partition_leader_epoch
                    ));
                }
                epoch = header.partition_leader_epoch;
            }
            next_offset = header.next_offset();
            headers.push((header, position));
        }
        if headers.is_empty() { refuse("there is no batch".to_owned()) } else { Ok(headers) }
    }

    /// Appends batches to the active segment, where they fit. All of them or none, if only the room was lacking.
    fn append_run(&mut self, bytes: &[u8], headers: &[(BatchHeader, usize)]) -> Result<(), StorageError> {
        let (Some((_, start)), Some((last, last_position))) = (headers.first(), headers.last()) else {
            return Ok(());
        };
        let active = Arc::clone(self.active_segment());
        let segment_position = active.size();
        let run = &bytes[*start..last_position + last.size()];
        let end = active.end();
        let mut bytes_since_index_entry = self.active.bytes_since_index_entry;
        let written = active.write(run).and_then(|()| {
            headers.iter().try_for_each(|(header, position)| {
                let position = segment_position + (position - start) as u64;
                let interval = self.config.index_interval_bytes;
                active.index_batch(position, header, &mut bytes_since_index_entry, interval)
            })
        });
        if let Err(error) = written {
            return Err(take_back(&active, &end, error));
        }
        // From here on nothing fails.
        self.is_complete = false;
        self.active.bytes_since_index_entry = bytes_since_index_entry;
        for (header, position) in headers {
            self.active.first_timestamp.get_or_insert(header.max_timestamp.value());
            self.replay(header, &bytes[*position..position + header.size()]);
        }
        active.set_size(segment_position + run.len() as u64);
        self.log_end_offset = last.next_offset();
        self.epochs_version += u64::from(std::mem::take(&mut self.has_empty_epoch));
        Ok(())
    }

    /// Whether a batch needs a new segment, when `run_bytes` are to be written to the active one before it.
    fn must_roll(&self, header: &BatchHeader, run_bytes: u64, has_run: bool) -> bool {
        let active = self.active_segment();
        let size = active.size() + run_bytes;
        let has_batches = size > 0 || has_run;
        let relative_end = header.last_offset().value().saturating_sub(active.base_offset.value());
        if relative_end > i64::from(i32::MAX) {
            return true;
        }
        let is_old = self.active.first_timestamp.is_some_and(|first| {
            header.max_timestamp.value().saturating_sub(first) > self.config.max_segment_ms() - self.active.jitter_ms
        });
        let limit = u64::from(self.config.segment_bytes.min(MAX_SEGMENT_BYTES));
        has_batches
            && (size + header.size() as u64 > limit || is_old || active.index_is_full(self.config.segment_index_bytes))
    }

    /// Where the segment of a batch begins: at the log end, unless a gap before the batch is too wide for that.
    fn base_offset_for(&self, header: &BatchHeader) -> Offset {
        let distance = header.last_offset().value().saturating_sub(self.log_end_offset.value());
        if distance > i64::from(i32::MAX) { header.base_offset } else { self.log_end_offset }
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

/// Positions are 32-bit signed in Kafka's index files.
const MAX_SEGMENT_BYTES: u32 = i32::MAX as u32;

impl ActiveSegment {
    pub fn new(config: &LogConfig) -> Self {
        let jitter_ms = match u64::try_from(config.segment_jitter_ms) {
            Ok(0) | Err(_) => 0,
            Ok(limit) => i64::try_from(vltava_host::random::u64() % limit).expect("less than an i64"),
        };
        Self { bytes_since_index_entry: 0, first_timestamp: None, jitter_ms }
    }
}

/// Takes in what a batch of the log says about its producer. `batch` is the whole batch, which only control batches need.
pub(crate) fn replay_producer(producers: &mut ProducerStates, header: &BatchHeader, batch: &[u8]) {
    if !header.has_producer_id() {
        return;
    }
    if header.is_control() {
        if let Some(coordinator_epoch) = transaction_marker_epoch(batch) {
            producers.apply_marker(&TransactionMarker {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                coordinator_epoch,
                offset: header.last_offset(),
                timestamp: header.max_timestamp,
            });
        }
        return;
    }
    producers.apply(&ProducerBatch {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        timestamp: header.max_timestamp,
        is_transactional: header.is_transactional(),
    });
}

/// The coordinator epoch of a transaction marker: the value is a version (i16) and the epoch (i32). `None` for other
/// control records.
fn transaction_marker_epoch(batch: &[u8]) -> Option<i32> {
    const MAX_MARKER_BYTES: usize = 1024;
    let mut records = records(&bytes::Bytes::copy_from_slice(batch), MAX_MARKER_BYTES).ok()?;
    let record = records.next()?.ok()?;
    match ControlKind::from_key(&record.key?)? {
        ControlKind::Abort | ControlKind::Commit => {}
        ControlKind::Other(_) => return None,
    }
    let value = record.value?;
    Some(i32::from_be_bytes(value.get(2..6)?.try_into().expect("four bytes")))
}
