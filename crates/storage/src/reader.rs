//! Reading a log without its owner's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vltava_host::fs::FileExt;
use vltava_protocol::batch::{batches, records};
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

use crate::StorageError;
use crate::error::AtPath;
use crate::index::TimeEntry;
use crate::scan::{Scan, ScannedBatch};
use crate::segment::Segment;

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    pub max_bytes: usize,
    /// Only batches that end below this offset are returned (a high watermark, last stable offset or log end offset).
    pub end_offset: Offset,
    /// Return the first batch even if it is larger than `max_bytes` (KIP-74).
    pub at_least_one_batch: bool,
}

/// An answer to a lookup by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub offset: Offset,
    pub timestamp: TimestampMs,
    /// Of the batch that holds the record.
    pub leader_epoch: LeaderEpoch,
}

/// The log as it was when [`crate::Log::reader`] was called. Cheap to take and to clone; deleting segments does not
/// disturb it, and a truncation makes its reads fail with [`StorageError::Truncated`] rather than return other bytes.
#[derive(Clone, Debug)]
pub struct LogReader {
    segments: Arc<Vec<Arc<Segment>>>,
    log_start_offset: Offset,
    log_end_offset: Offset,
    /// How much of the last segment may be seen.
    active_size: u64,
    active_largest_timestamp: Option<TimeEntry>,
    /// The log's count, and what it was.
    truncations: Arc<AtomicU64>,
    truncations_seen: u64,
}

/// Where batches to read lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readable {
    /// Of the segment.
    pub index: usize,
    pub first: ScannedBatch,
    /// From the first batch on; the last batch in it need not be whole.
    pub max_length: usize,
    pub end_offset: Offset,
}

impl LogReader {
    /// Called by the writer, so that sizes and offsets belong together.
    pub(crate) fn new(
        segments: Arc<Vec<Arc<Segment>>>,
        log_start_offset: Offset,
        log_end_offset: Offset,
        truncations: Arc<AtomicU64>,
    ) -> Self {
        let active = segments.last().expect("a log has a segment at all times");
        Self {
            active_size: active.size(),
            active_largest_timestamp: active.largest_timestamp(),
            log_start_offset,
            log_end_offset,
            truncations_seen: truncations.load(Ordering::Acquire),
            truncations,
            segments,
        }
    }

    #[must_use]
    pub const fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    #[must_use]
    pub const fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Whole batches, beginning with the one that contains `offset` (so that the first may begin below it), from one
    /// segment. Empty at the end, and if the first batch does not fit the limits. Every batch's CRC is checked
    /// (trap 26).
    pub fn read(&self, offset: Offset, limits: ReadLimits) -> Result<Bytes, StorageError> {
        self.check_range(offset)?;
        let bytes = self.read_in_range(offset, limits);
        self.unless_truncated(bytes)
    }

    /// The first record, below `end_offset`, whose timestamp is at least `timestamp`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        end_offset: Offset,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        let found = self.first_record_since(timestamp, end_offset);
        self.unless_truncated(found)
    }

    /// The first record that carries the largest timestamp of the log (KIP-734). `None` for an empty log.
    pub fn max_timestamp(&self) -> Result<Option<TimestampedOffset>, StorageError> {
        let mut largest: Option<(usize, TimeEntry)> = None;
        for index in 0..self.segments.len() {
            if let Some(candidate) = self.largest_timestamp(index)
                && largest.is_none_or(|(_, largest)| largest.timestamp < candidate.timestamp)
            {
                largest = Some((index, candidate));
            }
        }
        let Some((index, largest)) = largest else { return Ok(None) };
        let found = self
            .find_in(index, Offset(largest.offset))
            .and_then(|batch| batch.map(|batch| self.record_since(index, &batch, largest.timestamp)).transpose());
        self.unless_truncated(found.map(Option::flatten))
    }

    /// When the batch was written that holds `offset`, or the next one below `end_offset`: the time of its first record,
    /// or of its append where the topic says so. Reads headers only. `None` if there is no such batch, or if it carries no
    /// time.
    pub fn timestamp_at(&self, offset: Offset, end_offset: Offset) -> Result<Option<TimestampMs>, StorageError> {
        let found = self.find(offset.max(self.log_start_offset));
        let batch = self.unless_truncated(found)?.filter(|(_, batch)| batch.header.base_offset < end_offset);
        Ok(batch.and_then(|(_, batch)| batch.header.first_timestamp()))
    }

    pub(crate) fn check_range(&self, offset: Offset) -> Result<(), StorageError> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            return Err(StorageError::OffsetOutOfRange {
                offset,
                log_start_offset: self.log_start_offset,
                log_end_offset: self.log_end_offset,
            });
        }
        Ok(())
    }

    pub(crate) fn read_in_range(&self, offset: Offset, limits: ReadLimits) -> Result<Bytes, StorageError> {
        match self.find_readable(offset, limits)? {
            Some(readable) => self.read_found(&readable),
            None => Ok(Bytes::new()),
        }
    }

    /// Where a read begins and how far it may go; `None` if there is nothing that fits the limits.
    pub(crate) fn find_readable(&self, offset: Offset, limits: ReadLimits) -> Result<Option<Readable>, StorageError> {
        let end_offset = limits.end_offset.min(self.log_end_offset);
        if offset >= end_offset {
            return Ok(None);
        }
        let found = self.find(offset)?;
        if found.is_none_or(|(_, first)| first.header.base_offset > offset) {
            self.check_passed_over(offset, found)?;
        }
        let Some((index, first)) = found else { return Ok(None) };
        self.check_place(index, &first)?;
        if first.header.next_offset() > end_offset {
            let mut scan = self.segments[index].scan(first.position, self.size_of(index), Scan::SHORT);
            // If this is damage, nothing would be read here for ever.
            return match scan.next()? {
                Some(first) if !scan.crc_is_valid(&first)? => Err(self.segments[index].crc_error(&first)),
                _ => Ok(None),
            };
        }
        let available = self.size_of(index) - first.position;
        let limit = match (first.header.size() <= limits.max_bytes, limits.at_least_one_batch) {
            (true, _) => limits.max_bytes,
            (false, true) => first.header.size(),
            (false, false) => return Ok(None),
        };
        let max_length = usize::try_from(available).map_or(limit, |available| available.min(limit));
        Ok(Some(Readable { index, first, max_length, end_offset }))
    }

    pub(crate) fn read_found(&self, readable: &Readable) -> Result<Bytes, StorageError> {
        let Readable { index, first, max_length, end_offset } = *readable;
        let segment = &self.segments[index];
        let mut buffer = vec![0; max_length];
        segment.file().handle()?.read_exact_at(&mut buffer, first.position).at(segment.path())?;
        let mut length = 0;
        let mut expected_offset = first.header.base_offset;
        let mut walk = batches(&buffer).peekable();
        while let Some(batch) = walk.next() {
            // The last one need not be whole. A malformed one is told when the next read begins with it.
            let Ok(batch) = batch else { break };
            if batch.header.next_offset() > end_offset {
                break;
            }
            // Out of order, or after a gap without one that tells that it is in its place: the next read begins with it, and
            // looks.
            let is_followed = walk
                .peek()
                .is_some_and(|next| matches!(next, Ok(next) if batch.header.next_offset() <= next.header.base_offset));
            let base_offset = batch.header.base_offset;
            if base_offset < expected_offset || base_offset > expected_offset && !is_followed {
                break;
            }
            expected_offset = batch.header.next_offset();
            if let Err(error) = batch.verify_crc() {
                if length > 0 {
                    // What comes before it is sound. The next read begins with it.
                    break;
                }
                let position = first.position + batch.position as u64;
                return Err(StorageError::corrupt(segment.path(), position, error.to_string()));
            }
            length += batch.bytes.len();
        }
        segment.checked().on_read(first.position..first.position + length as u64);
        buffer.truncate(length);
        Ok(Bytes::from(buffer))
    }

    fn first_record_since(
        &self,
        timestamp: TimestampMs,
        end_offset: Offset,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        let target = timestamp.value();
        for index in 0..self.segments.len() {
            if self.largest_timestamp(index).is_none_or(|largest| largest.timestamp < target) {
                continue;
            }
            let segment = &self.segments[index];
            let older = segment.time_index.last_before(target)?;
            let start = match older {
                Some(older) => segment.offset_index.floor(older.offset)?.map_or(0, |entry| u64::from(entry.position)),
                None => 0,
            };
            let size = self.size_of(index);
            let mut scan = segment.scan(if start < size { start } else { 0 }, size, Scan::LONG);
            while let Some(batch) = scan.next()? {
                if batch.header.base_offset >= end_offset {
                    return Ok(None);
                }
                if batch.header.max_timestamp < timestamp || batch.header.last_offset() < self.log_start_offset {
                    continue;
                }
                if let Some(found) = self.record_since(index, &batch, target)? {
                    return Ok(Some(found).filter(|found| found.offset < end_offset));
                }
            }
        }
        Ok(None)
    }

    /// The first readable record of the batch that is not older than `timestamp`. If the batch cannot be decompressed
    /// within bounds, its first offset: a consumer that starts there misses nothing.
    fn record_since(
        &self,
        index: usize,
        batch: &ScannedBatch,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        const MAX_UNCOMPRESSED: usize = 64 << 20;
        self.check_place(index, batch)?;
        let segment = &self.segments[index];
        let mut bytes = vec![0; batch.header.size()];
        segment.file().handle()?.read_exact_at(&mut bytes, batch.position).at(segment.path())?;
        let leader_epoch = batch.header.partition_leader_epoch;
        let whole_batch = TimestampedOffset {
            offset: batch.header.base_offset.max(self.log_start_offset),
            timestamp: batch.header.max_timestamp,
            leader_epoch,
        };
        let Ok(records) = records(&Bytes::from(bytes), MAX_UNCOMPRESSED) else { return Ok(Some(whole_batch)) };
        for record in records {
            let Ok(record) = record else { return Ok(Some(whole_batch)) };
            if record.timestamp.value() >= timestamp && record.offset >= self.log_start_offset {
                return Ok(Some(TimestampedOffset {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    leader_epoch,
                }));
            }
        }
        Ok(None)
    }

    /// The batch that contains `offset`, or the next one, with the index of its segment.
    fn find(&self, offset: Offset) -> Result<Option<(usize, ScannedBatch)>, StorageError> {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        for index in after.saturating_sub(1)..self.segments.len() {
            if let Some(batch) = self.find_in(index, offset)? {
                return Ok(Some((index, batch)));
            }
        }
        Ok(None)
    }

    /// There is no batch with `offset`: compaction leaves such gaps, and so does damage, which must not pass for one.
    fn check_passed_over(&self, offset: Offset, found: Option<(usize, ScannedBatch)>) -> Result<(), StorageError> {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let (last, end) = found.map_or((self.segments.len() - 1, None), |(last, first)| (last, Some(first.position)));
        (after.saturating_sub(1)..=last).try_for_each(|index| {
            let end = end.filter(|_| index == last).unwrap_or_else(|| self.size_of(index));
            self.segments[index].check_passed_over(offset, end)
        })
    }

    /// No CRC covers where a batch begins. If that is damaged, the batch reaches into the next one, or begins below the end of
    /// the one before, which whoever walks to it finds.
    fn check_place(&self, index: usize, batch: &ScannedBatch) -> Result<(), StorageError> {
        let segment = &self.segments[index];
        if batch.header.next_offset() > self.end_of(index) || !segment.is_in_place(batch, self.size_of(index))? {
            return Err(segment.order_error(batch));
        }
        Ok(())
    }

    fn find_in(&self, index: usize, offset: Offset) -> Result<Option<ScannedBatch>, StorageError> {
        self.segments[index].find(offset, self.size_of(index))
    }

    pub(crate) fn segment(&self, index: usize) -> &Segment {
        &self.segments[index]
    }

    /// The offset after the segment's last one.
    pub(crate) fn end_of(&self, index: usize) -> Offset {
        self.segments.get(index + 1).map_or(self.log_end_offset, |next| next.base_offset)
    }

    pub(crate) const fn truncations(&self) -> &Arc<AtomicU64> {
        &self.truncations
    }

    pub(crate) const fn truncations_seen(&self) -> u64 {
        self.truncations_seen
    }

    pub(crate) fn size_of(&self, index: usize) -> u64 {
        if index + 1 == self.segments.len() { self.active_size } else { self.segments[index].size() }
    }

    fn largest_timestamp(&self, index: usize) -> Option<TimeEntry> {
        if index + 1 == self.segments.len() {
            self.active_largest_timestamp
        } else {
            self.segments[index].largest_timestamp()
        }
    }

    /// What was read while the log was truncated proves nothing, be it bytes or an error.
    pub(crate) fn unless_truncated<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if self.truncations.load(Ordering::Acquire) == self.truncations_seen {
            result
        } else {
            Err(StorageError::Truncated)
        }
    }
}
