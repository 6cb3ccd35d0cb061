//! One cleaning of one log, step by step: read the dirty part into an offset map, then write every segment from the log's
//! start to the end of what was mapped anew, without the records that are superseded.
//!
//! A pass works on a snapshot of the log's segments, without the owner's lock; only putting a cleaned segment in the place
//! of its sources ([`crate::Log::replace_segments`]) needs it. A step reads about one buffer, so that the caller can pause
//! between steps. A truncation makes the pass void.

mod mapping;
mod output;
mod reading;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vltava_host::fs;
use vltava_protocol::batch::{BatchHeader, RecordError, empty_batch, retain_records};
use vltava_replication::LastRecord;
use vltava_types::{Offset, ProducerId, TimestampMs};

use output::Output;
use reading::{Cursor, ReadBatch};

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
}

/// Where the last batch of a group ends.
fn last_batch_end(segments: &[Arc<Segment>], group: &Range<usize>) -> Cursor {
    let segment = group.clone().rev().find(|index| segments[*index].size() > 0).expect("groups have batches");
    Cursor { segment, position: segments[segment].size() }
}
