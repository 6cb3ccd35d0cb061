//! One cleaning of one log, step by step: read the dirty part into an offset map, then write every segment from the log's
//! start to the end of what was mapped anew, without the records that are superseded.
//!
//! A pass works on a snapshot of the log's segments, without the owner's lock; only putting a cleaned segment in the place
//! of its sources ([`crate::Log::replace_segments`]) needs it. A step reads about one buffer, so that the caller can pause
//! between steps. A truncation makes the pass void.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vltava_host::fs::{self, FileExt};
use vltava_protocol::batch::{
    BatchError, BatchHeader, ControlKind, RecordError, batches, empty_batch, records, retain_records,
};
use vltava_replication::LastRecord;
use vltava_types::{Offset, ProducerId, TimestampMs};

use super::groups::{GroupLimits, SegmentSizes, group_segments};
use super::offset_map::{OffsetMap, OffsetMapLimits};
use super::range::CleanableRange;
use super::retention::{BatchContext, RecordFacts, RecordsFate, batch_fate, is_retained, new_delete_horizon};
use super::swap::{CleanedSegment, remove_cleaned};
use super::transactions::{AbortedTransaction, AbortedTransactions, CleanedTransactions};
use crate::error::AtPath;
use crate::presence::Presence;
use crate::segment::Segment;
use crate::{LogConfig, StorageError};

/// No batch may unfold to more bytes than this: it is held in memory while it is filtered.
const MAX_UNCOMPRESSED_BYTES: usize = 128 << 20;
/// Positions within a segment are 32-bit signed in Kafka's index files.
const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

/// What a cleaner may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerOptions {
    pub map: OffsetMapLimits,
    /// `log.cleaner.io.buffer.size`: how much a step reads. A larger batch is read whole.
    pub io_buffer_bytes: usize,
}

/// Why a pass did not get to its end. What it has replaced so far stays.
#[derive(Debug, thiserror::Error)]
pub enum CleaningError {
    /// The log was truncated under the pass: begin again later.
    #[error("the log was truncated during its cleaning")]
    Truncated,
    /// There is nothing left to clean.
    #[error("the log was deleted during its cleaning")]
    Deleted,
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Intact, and still not readable: more than can be held in memory when decompressed, or not what a record is.
    #[error("the batch at offset {offset} cannot be cleaned: {error}")]
    Batch { offset: Offset, error: RecordError },
    #[error(
        "the batch at offset {offset} has more keys than the {keys} that fit into a cleaner's share of \
         log.cleaner.dedupe.buffer.size"
    )]
    MapTooSmall { offset: Offset, keys: usize },
    #[error("the segment at offset {base_offset} would outgrow 2 GiB with the delete horizons of its tombstones")]
    SegmentTooLarge { base_offset: Offset },
}

/// What a step did, or wants.
#[derive(Debug)]
pub enum CleaningStep {
    /// So many bytes were read and written.
    Worked { bytes: u64 },
    /// Hand this to [`crate::Log::replace_segments`]; if that refuses, the pass is over.
    Replace(CleanedSegment),
    /// Everything was replaced: write the checkpoint.
    Done(CleanedUpTo),
}

/// Where a pass ended, on its way into `cleaner-offset-checkpoint`.
#[derive(Debug)]
pub struct CleanedUpTo {
    offset: Offset,
    truncations: Arc<AtomicU64>,
    truncations_seen: u64,
}

impl CleanedUpTo {
    /// The end of the part that is clean, exclusive; `None` if the log was truncated since.
    #[must_use]
    pub fn offset_unless_void(&self) -> Option<Offset> {
        (self.truncations.load(Ordering::Acquire) == self.truncations_seen).then_some(self.offset)
    }
}

/// What a pass read and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleaningStats {
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Distinct keys in the part that was mapped.
    pub keys: usize,
    /// Of the segments before and after.
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// See the module. Begun by [`crate::Log::begin_cleaning`].
#[derive(Debug)]
pub struct CleaningPass {
    pub(super) log: PassLog,
    range: CleanableRange,
    options: CleanerOptions,
    now: TimestampMs,
    map: OffsetMap,
    /// Where the mapped part ends.
    mapped_end: Offset,
    /// Looked for when the first transactional batch is met.
    aborted: Option<Vec<AbortedTransaction>>,
    phase: Phase,
    /// What is left to be cleaned, once everything is mapped.
    groups: Option<VecDeque<Range<usize>>>,
    /// The cleaned segment that is being written, for whoever gives the pass up.
    writing: Option<Offset>,
    /// A segment was replaced, and the directory has not been flushed since.
    has_replaced: bool,
    stats: CleaningStats,
}

/// The log as it was when the pass began.
#[derive(Debug)]
pub(super) struct PassLog {
    pub directory: PathBuf,
    pub config: Arc<LogConfig>,
    pub segments: Arc<Vec<Arc<Segment>>>,
    /// How much of the active segment there was.
    pub active_size: u64,
    pub last_stable_offset: Offset,
    pub producers: BTreeMap<ProducerId, LastRecord>,
    pub truncations: Arc<AtomicU64>,
    pub truncations_seen: u64,
    pub presence: Presence,
}

#[derive(Debug)]
enum Phase {
    Map {
        cursor: Cursor,
        transactions: CleanedTransactions,
    },
    FindAborted {
        cursor: Cursor,
        found: AbortedTransactions,
    },
    /// The first of the groups that are left.
    Clean {
        cursor: Cursor,
        transactions: CleanedTransactions,
        output: Option<Box<Output>>,
    },
    Done,
}

/// Where the next batch to read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    segment: usize,
    position: u64,
}

/// A cleaned segment that is being written.
#[derive(Debug)]
struct Output {
    segment: Segment,
    bytes_since_index_entry: u64,
    /// Whether anything was left out or written otherwise than it was.
    is_changed: bool,
}

/// Why a step did not do what it was about to.
enum Stop {
    /// A transactional batch was met, and nobody has looked for aborted transactions yet.
    NeedsAborted,
    Error(CleaningError),
}

impl<E: Into<CleaningError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl CleaningPass {
    pub(super) fn new(
        log: PassLog,
        range: CleanableRange,
        options: CleanerOptions,
        now: TimestampMs,
        seeds: [u64; 2],
    ) -> Self {
        let dirty_offsets = range.end_offset.value() - range.first_dirty_offset.value();
        let map = OffsetMap::new(options.map, u64::try_from(dirty_offsets).unwrap_or(0), seeds);
        let mut pass = Self {
            log,
            range,
            options,
            now,
            map,
            mapped_end: range.end_offset,
            aborted: None,
            phase: Phase::Done,
            groups: None,
            writing: None,
            has_replaced: false,
            stats: CleaningStats::default(),
        };
        pass.phase = pass.begin_mapping();
        pass
    }

    #[must_use]
    pub const fn stats(&self) -> CleaningStats {
        self.stats
    }

    /// Goes on. Blocks on the disk.
    pub fn step(&mut self) -> Result<CleaningStep, CleaningError> {
        let before = self.stats.bytes_read + self.stats.bytes_written;
        let presence = self.log.presence.clone();
        let step = presence.hold(|| self.try_step()).ok_or(CleaningError::Deleted)?;
        // What was read while the log was truncated proves nothing, be it bytes or an error.
        if self.log.truncations.load(Ordering::Acquire) != self.log.truncations_seen {
            return Err(CleaningError::Truncated);
        }
        Ok(step?.unwrap_or(CleaningStep::Worked { bytes: self.stats.bytes_read + self.stats.bytes_written - before }))
    }

    /// Ends a pass early, and removes what it has not put in place.
    pub fn abandon(self) -> Result<(), StorageError> {
        let Some(base_offset) = self.writing else { return Ok(()) };
        self.log.presence.hold(|| remove_cleaned(&self.log.directory, base_offset)).unwrap_or(Ok(()))
    }

    fn try_step(&mut self) -> Result<Option<CleaningStep>, CleaningError> {
        if std::mem::take(&mut self.has_replaced) {
            // Until here, a crash leaves the files under their names of the swap, and recovery finishes it.
            fs::sync_dir(&self.log.directory).at(&self.log.directory)?;
        }
        let step = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Map { cursor, transactions } => self.map_step(cursor, transactions),
            Phase::FindAborted { cursor, found } => self.find_aborted_step(cursor, found),
            Phase::Clean { cursor, transactions, output } => self.clean_step(cursor, transactions, output),
            Phase::Done => {
                let PassLog { truncations, truncations_seen, .. } = &self.log;
                let (truncations, truncations_seen) = (Arc::clone(truncations), *truncations_seen);
                let cleaned = CleanedUpTo { offset: self.mapped_end, truncations, truncations_seen };
                Ok(Some(CleaningStep::Done(cleaned)))
            }
        };
        match step {
            Ok(step) => Ok(step),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::NeedsAborted) => {
                let cursor = Cursor { segment: 0, position: 0 };
                self.phase = Phase::FindAborted { cursor, found: AbortedTransactions::default() };
                Ok(None)
            }
        }
    }

    fn begin_mapping(&self) -> Phase {
        let first_dirty = self.range.first_dirty_offset;
        let segment = self.log.segments.partition_point(|segment| segment.base_offset <= first_dirty);
        let cursor = Cursor { segment: segment.saturating_sub(1), position: 0 };
        Phase::Map { cursor, transactions: self.transactions_from(first_dirty) }
    }

    fn begin_cleaning(&mut self) -> Phase {
        self.stats.keys = self.map.key_count();
        let sources = &self.log.segments[..self.segments_below(self.mapped_end)];
        let sizes: Vec<_> = sources
            .iter()
            .map(|segment| SegmentSizes {
                base_offset: segment.base_offset,
                bytes: segment.size(),
                offset_index_bytes: segment.offset_index.len() * 8,
                time_index_bytes: segment.time_index.len() * 12,
            })
            .collect();
        let end_offset = self.log.segments[sources.len()].base_offset;
        let limits = GroupLimits {
            segment_bytes: u64::from(self.log.config.segment_bytes),
            index_bytes: u64::from(self.log.config.segment_index_bytes),
        };
        let mut groups: VecDeque<_> = group_segments(&sizes, end_offset, limits).into();
        // Without a batch there is nothing to tell by which segments the cleaned one replaces.
        groups.retain(|group| sizes[group.clone()].iter().any(|segment| segment.bytes > 0));
        self.groups = Some(groups);
        self.clean_first_group(self.transactions_from(self.log.segments[0].base_offset))
    }

    fn clean_first_group(&self, transactions: CleanedTransactions) -> Phase {
        let segment = self.first_group().map_or(0, |group| group.start);
        Phase::Clean { cursor: Cursor { segment, position: 0 }, transactions, output: None }
    }

    fn first_group(&self) -> Option<Range<usize>> {
        self.groups.as_ref()?.front().cloned()
    }

    fn transactions_from(&self, offset: Offset) -> CleanedTransactions {
        CleanedTransactions::new(self.aborted.as_deref().unwrap_or_default(), offset)
    }

    /// How many segments begin below the offset. Never the active one, where cleaning does not get.
    fn segments_below(&self, offset: Offset) -> usize {
        let below = self.log.segments.partition_point(|segment| segment.base_offset < offset);
        below.min(self.log.segments.len() - 1)
    }

    fn map_step(
        &mut self,
        mut cursor: Cursor,
        mut transactions: CleanedTransactions,
    ) -> Result<Option<CleaningStep>, Stop> {
        let end = self.segments_below(self.range.end_offset);
        let Some(chunk) = self.read_chunk(&mut cursor, end)? else {
            self.phase = self.begin_cleaning();
            return Ok(None);
        };
        for batch in chunk.batches(&self.log)? {
            if batch.header.last_offset() < self.range.first_dirty_offset {
                continue;
            }
            let is_discardable = self.is_discardable(&mut transactions, &batch)?;
            if !is_discardable && !batch.header.is_control() && !self.map_batch(&batch)? {
                self.mapped_end = batch.header.base_offset;
                self.phase = self.begin_cleaning();
                return Ok(None);
            }
        }
        self.phase = Phase::Map { cursor, transactions };
        Ok(None)
    }

    /// Returns false if the map has no room for all keys of the batch.
    fn map_batch(&mut self, batch: &ReadBatch) -> Result<bool, CleaningError> {
        if batch.header.record_count == 0 {
            return Ok(true);
        }
        let offset = batch.header.base_offset;
        let failed = |error| CleaningError::Batch { offset, error };
        for record in records(&batch.bytes, MAX_UNCOMPRESSED_BYTES).map_err(failed)? {
            let record = record.map_err(failed)?;
            let Some(key) = record.key else { continue };
            if record.offset < self.range.first_dirty_offset {
                continue;
            }
            if self.map.put(&key, record.offset).is_err() {
                // Keys of this batch that were mapped already do no harm: their records lie beyond the mapped part and stay.
                let is_progress = self.range.first_dirty_offset < offset;
                let too_small = CleaningError::MapTooSmall { offset, keys: self.map.capacity() };
                return if is_progress { Ok(false) } else { Err(too_small) };
            }
        }
        Ok(true)
    }

    fn find_aborted_step(
        &mut self,
        mut cursor: Cursor,
        mut found: AbortedTransactions,
    ) -> Result<Option<CleaningStep>, Stop> {
        // A marker may stand beyond what is cleaned, in the active segment too.
        let chunk = self.read_chunk(&mut cursor, self.log.segments.len())?;
        let mut is_at_end = chunk.is_none();
        if let Some(chunk) = chunk {
            for batch in chunk.batches(&self.log)? {
                if batch.header.base_offset >= self.log.last_stable_offset {
                    is_at_end = true;
                } else if !batch.header.is_control() {
                    found.on_data(&batch.header);
                } else if let Some(kind) = batch.control_kind()? {
                    found.on_marker(&batch.header, kind);
                }
            }
        }
        if is_at_end {
            self.aborted = Some(found.into_list());
            self.phase = match self.first_group() {
                // Nothing of a transaction stood before: what was mapped and cleaned so far is right.
                Some(group) => {
                    self.clean_first_group(self.transactions_from(self.log.segments[group.start].base_offset))
                }
                None => self.begin_again(),
            };
        } else {
            self.phase = Phase::FindAborted { cursor, found };
        }
        Ok(None)
    }

    /// With the aborted transactions known, everything is mapped again: aborted records may be in the map.
    fn begin_again(&mut self) -> Phase {
        self.map.clear();
        self.mapped_end = self.range.end_offset;
        self.begin_mapping()
    }

    fn clean_step(
        &mut self,
        mut cursor: Cursor,
        mut transactions: CleanedTransactions,
        output: Option<Box<Output>>,
    ) -> Result<Option<CleaningStep>, Stop> {
        let Some(group) = self.first_group() else { return Ok(None) };
        let mut output = match output {
            Some(output) => output,
            None => {
                self.writing = Some(self.log.segments[group.start].base_offset);
                Box::new(Output::create(&self.log, &group)?)
            }
        };
        let Some(chunk) = self.read_chunk(&mut cursor, group.end)? else {
            let step = self.finish_group(&group, &output)?;
            self.groups.as_mut().and_then(VecDeque::pop_front);
            self.phase = self.clean_first_group(transactions);
            return Ok(step);
        };
        let last_batch_end = last_batch_end(&self.log.segments, &group);
        let mut cleaned = Vec::with_capacity(chunk.bytes.len());
        let mut headers = Vec::new();
        for batch in chunk.batches(&self.log)? {
            let is_discardable = self.is_discardable(&mut transactions, &batch)?;
            let context = BatchContext { is_discardable, is_last_of_group: batch.end == last_batch_end, now: self.now };
            let kept = self.clean_batch(&batch, context)?;
            output.is_changed |= kept.as_ref() != Some(&batch.bytes);
            if let Some(kept) = kept {
                let header = BatchHeader::parse(&kept).expect("the batch was written or checked here");
                headers.push((cleaned.len() as u64, header));
                cleaned.extend_from_slice(&kept);
            }
        }
        output.write(&cleaned, &headers, self.log.config.index_interval_bytes)?;
        self.stats.bytes_written += cleaned.len() as u64;
        self.phase = Phase::Clean { cursor, transactions, output: Some(output) };
        Ok(None)
    }

    /// The bytes that a batch is replaced by; `None` if it goes.
    fn clean_batch(&self, batch: &ReadBatch, context: BatchContext) -> Result<Option<Bytes>, CleaningError> {
        let header = &batch.header;
        if header.base_offset >= self.mapped_end {
            // It shares a segment with what was mapped.
            return Ok(Some(batch.bytes.clone()));
        }
        let fate = batch_fate(header, context, &self.log.producers);
        let retained = match fate.records {
            RecordsFate::DropAll => None,
            RecordsFate::KeepAll | RecordsFate::ByKey => {
                let retained = retain_records(&batch.bytes, MAX_UNCOMPRESSED_BYTES, |record| {
                    let facts = RecordFacts {
                        offset: record.offset,
                        has_key: record.key.is_some(),
                        has_value: record.value.is_some(),
                        latest_of_key: record.key.as_ref().and_then(|key| self.map.get(key)),
                    };
                    fate.records == RecordsFate::KeepAll
                        || is_retained(&facts, self.mapped_end, header.delete_horizon(), self.now)
                });
                let retained = retained.map_err(|error| CleaningError::Batch { offset: header.base_offset, error })?;
                Some(retained).filter(|retained| !retained.is_empty())
            }
        };
        Ok(match retained {
            Some(retained) => {
                let delete_retention_ms = self.log.config.delete_retention_ms;
                let has_tombstones = retained.has_tombstones();
                let horizon = new_delete_horizon(header, has_tombstones, fate, delete_retention_ms, self.now);
                Some(retained.into_batch(horizon))
            }
            None => fate.stays_empty.then(|| empty_batch(header)),
        })
    }

    fn finish_group(&mut self, group: &Range<usize>, output: &Output) -> Result<Option<CleaningStep>, CleaningError> {
        let sources = self.log.segments[group.clone()].to_vec();
        let before: u64 = sources.iter().map(|segment| segment.size()).sum();
        let after = output.segment.size();
        self.stats.bytes_before += before;
        self.stats.bytes_after += after;
        // From here on the files are removed here, or belong to whoever puts them in place.
        self.writing = None;
        if sources.len() == 1 && !output.is_changed {
            remove_cleaned(&self.log.directory, output.segment.base_offset)?;
            return Ok(None);
        }
        output.flush()?;
        self.has_replaced = true;
        Ok(Some(CleaningStep::Replace(CleanedSegment { sources, truncations_seen: self.log.truncations_seen })))
    }

    /// Passes a batch through what is known of transactions: aborted data, or a marker without data, may go.
    fn is_discardable(&self, transactions: &mut CleanedTransactions, batch: &ReadBatch) -> Result<bool, Stop> {
        if batch.header.is_transactional() && self.aborted.is_none() {
            return Err(Stop::NeedsAborted);
        }
        if !batch.header.is_control() {
            return Ok(transactions.on_data(&batch.header));
        }
        Ok(match batch.control_kind()? {
            Some(kind) => transactions.on_marker(&batch.header, kind),
            // Its marker was dropped before, and only its place was kept.
            None => true,
        })
    }

    /// Whole batches from the cursor on, which moves behind them; `None` before the segment `end`.
    fn read_chunk(&mut self, cursor: &mut Cursor, end: usize) -> Result<Option<Chunk>, CleaningError> {
        loop {
            if cursor.segment >= end {
                return Ok(None);
            }
            let segment = &self.log.segments[cursor.segment];
            let is_active = cursor.segment + 1 == self.log.segments.len();
            let size = if is_active { self.log.active_size } else { segment.size() };
            if cursor.position >= size {
                *cursor = Cursor { segment: cursor.segment + 1, position: 0 };
                continue;
            }
            let bytes = read_batches(segment, cursor.position, size, self.options.io_buffer_bytes)?;
            self.stats.bytes_read += bytes.len() as u64;
            let start = *cursor;
            cursor.position += bytes.len() as u64;
            return Ok(Some(Chunk { start, bytes }));
        }
    }
}

/// Whole batches from `position` on: as many as fit the buffer, and one at least.
fn read_batches(segment: &Segment, position: u64, size: u64, buffer_bytes: usize) -> Result<Bytes, StorageError> {
    const SMALLEST_BUFFER: usize = 4096;
    let corrupt = |error: BatchError| StorageError::corrupt(segment.path(), position, error.to_string());
    let left = usize::try_from(size - position).unwrap_or(usize::MAX);
    let mut wanted = buffer_bytes.max(SMALLEST_BUFFER).min(left);
    loop {
        let mut buffer = vec![0; wanted];
        segment.file().handle()?.read_exact_at(&mut buffer, position).at(segment.path())?;
        let mut walk = batches(&buffer);
        let failure = walk.find_map(Result::err);
        let whole = walk.position();
        match failure {
            Some(BatchError::Incomplete { needed, .. }) if whole == 0 && wanted < needed && needed <= left => {
                wanted = needed;
            }
            Some(BatchError::Incomplete { .. }) if whole > 0 && wanted < left => {
                buffer.truncate(whole);
                return Ok(Bytes::from(buffer));
            }
            Some(error) => return Err(corrupt(error)),
            None => return Ok(Bytes::from(buffer)),
        }
    }
}

/// Where the last batch of a group ends.
fn last_batch_end(segments: &[Arc<Segment>], group: &Range<usize>) -> Cursor {
    let segment = group.clone().rev().find(|index| segments[*index].size() > 0).expect("groups have batches");
    Cursor { segment, position: segments[segment].size() }
}

/// Whole batches of one segment.
struct Chunk {
    start: Cursor,
    bytes: Bytes,
}

/// A batch that is as its writer left it.
struct ReadBatch {
    header: BatchHeader,
    bytes: Bytes,
    end: Cursor,
}

impl Chunk {
    /// The batches, with their CRC checked: damage is not to be written anew with a CRC that hides it (trap 26).
    fn batches(&self, log: &PassLog) -> Result<Vec<ReadBatch>, StorageError> {
        batches(&self.bytes)
            .map(|view| {
                let checked = view.and_then(|view| view.verify_crc().map(|()| view));
                let view = checked.map_err(|error| {
                    let path = log.segments[self.start.segment].path();
                    StorageError::corrupt(path, self.start.position, error.to_string())
                })?;
                let end = view.position + view.bytes.len();
                let position = self.start.position + end as u64;
                let bytes = self.bytes.slice(view.position..end);
                Ok(ReadBatch { header: view.header, bytes, end: Cursor { position, ..self.start } })
            })
            .collect()
    }
}

impl ReadBatch {
    /// What a control batch says; `None` for an empty one.
    fn control_kind(&self) -> Result<Option<ControlKind>, CleaningError> {
        if self.header.record_count == 0 {
            return Ok(None);
        }
        let failed = |error| CleaningError::Batch { offset: self.header.base_offset, error };
        let record = records(&self.bytes, MAX_UNCOMPRESSED_BYTES).map_err(failed)?.next();
        let key = record.transpose().map_err(failed)?.and_then(|record| record.key);
        // Without a key it is nobody's marker.
        Ok(Some(key.and_then(|key| ControlKind::from_key(&key)).unwrap_or(ControlKind::Other(-1))))
    }
}

impl Output {
    fn create(log: &PassLog, group: &Range<usize>) -> Result<Self, StorageError> {
        let segment = Segment::create_cleaned(&log.directory, log.segments[group.start].base_offset)?;
        Ok(Self { segment, bytes_since_index_entry: 0, is_changed: false })
    }

    fn write(
        &mut self,
        bytes: &[u8],
        headers: &[(u64, BatchHeader)],
        index_interval_bytes: u32,
    ) -> Result<(), CleaningError> {
        let start = self.segment.size();
        let end = start + bytes.len() as u64;
        if end > MAX_SEGMENT_BYTES {
            return Err(CleaningError::SegmentTooLarge { base_offset: self.segment.base_offset });
        }
        self.segment.write(bytes)?;
        for (position, header) in headers {
            self.segment.index_batch(
                start + position,
                header,
                &mut self.bytes_since_index_entry,
                index_interval_bytes,
            )?;
        }
        self.segment.set_size(end);
        Ok(())
    }

    /// The contents are on disk on return. The names are when they get the next ones, and need not be before.
    fn flush(&self) -> Result<(), StorageError> {
        self.segment.complete_time_index()?;
        for file in self.segment.files() {
            file.handle()?.sync_data().unless_full(file.path())?;
        }
        Ok(())
    }
}
