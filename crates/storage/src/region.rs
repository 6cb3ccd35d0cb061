//! Whole batches where they lie in their file, to be sent without passing through our memory.
//!
//! A region is given away only if its bytes were checked by CRC in this process: they were appended by it, or read and
//! checked before. A first read of anything else goes through memory, and checks it (trap 26).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vltava_host::fs::{self, File};
use vltava_types::Offset;

use crate::index::OffsetEntry;
use crate::reader::{LogReader, ReadLimits, Readable};
use crate::scan::Scan;
use crate::segment::Segment;
use crate::{StorageError, scan::ScannedBatch};

/// Whole batches in a segment's file. Holds the file open, so that deleting the segment does not disturb it; a truncation
/// voids it.
#[derive(Clone, Debug)]
pub struct FileRegion {
    file: Arc<File>,
    position: u64,
    length: usize,
    truncations: Arc<AtomicU64>,
    truncations_seen: u64,
}

impl FileRegion {
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first `count` bytes are done with.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.length, "no more than the region has");
        self.position += count as u64;
        self.length -= count;
    }

    /// Whether the log was not truncated since: only then do these bytes belong to what was read. Committed records are
    /// truncated by an unclean election only, and by a corrupt log that begins anew.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.truncations.load(Ordering::Acquire) == self.truncations_seen
    }

    /// Whether reading it is not likely to wait for the disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        fs::is_in_memory(&self.file, self.position, self.length)
    }
}

/// What of a segment's file was checked by CRC in this process.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Everything from here on was appended by this process.
    appended_from: u64,
    /// What was read last.
    read: Range<u64>,
}

impl Default for Checked {
    fn default() -> Self {
        Self { appended_from: u64::MAX, read: 0..0 }
    }
}

impl Checked {
    pub fn on_append(&mut self, position: u64) {
        self.appended_from = self.appended_from.min(position);
    }

    /// Neighbours grow together; of others, the later one is kept: a consumer goes forward.
    pub fn on_read(&mut self, region: Range<u64>) {
        let touches = region.start <= self.read.end && self.read.start <= region.end;
        self.read = if touches && !self.read.is_empty() {
            self.read.start.min(region.start)..self.read.end.max(region.end)
        } else {
            region
        };
    }

    pub fn covers(&self, region: &Range<u64>) -> bool {
        let start = if self.read.contains(&region.start) { self.read.end } else { region.start };
        region.end <= start || self.appended_from <= start
    }
}

/// What [`LogReader::read_warm`] found.
#[derive(Clone, Debug)]
pub enum WarmRead {
    /// As [`LogReader::read`] returns them.
    Bytes(Bytes),
    /// The same batches, where they lie. Not empty.
    Region(FileRegion),
    /// Reading would have to wait for the disk: call [`LogReader::read`] where that may block.
    Cold,
}

impl LogReader {
    /// As [`LogReader::read`], but does not wait for a disk to read records, and leaves them in their file if they are at
    /// least `min_region_bytes` and were checked. Of others, at most `max_copied_bytes` are read.
    pub fn read_warm(
        &self,
        offset: Offset,
        limits: ReadLimits,
        min_region_bytes: usize,
        max_copied_bytes: usize,
    ) -> Result<WarmRead, StorageError> {
        self.check_range(offset)?;
        let found = self.read_warm_in_range(offset, limits, min_region_bytes, max_copied_bytes);
        self.unless_truncated(found)
    }

    fn read_warm_in_range(
        &self,
        offset: Offset,
        limits: ReadLimits,
        min_region_bytes: usize,
        max_copied_bytes: usize,
    ) -> Result<WarmRead, StorageError> {
        let Some(readable) = self.find_readable(offset, limits)? else { return Ok(WarmRead::Bytes(Bytes::new())) };
        let Readable { index, first, max_length, end_offset } = readable;
        let segment = self.segment(index);
        let mut region = FileRegion {
            file: segment.file().handle()?,
            position: first.position,
            length: max_length,
            truncations: Arc::clone(self.truncations()),
            truncations_seen: self.truncations_seen(),
        };
        if !region.is_in_memory() {
            return Ok(WarmRead::Cold);
        }
        if max_length >= min_region_bytes.max(1) {
            let (size, segment_end) = (self.size_of(index), self.end_of(index));
            let end = end_of_batches(segment, &first, max_length, size, segment_end, end_offset)?;
            let range = end.map(|end| first.position..end).filter(|range| segment.checked().covers(range));
            if let Some(length) = range.and_then(|range| usize::try_from(range.end - range.start).ok())
                && length >= min_region_bytes
            {
                region.length = length;
                return Ok(WarmRead::Region(region));
            }
        }
        let copied = if max_copied_bytes < max_length {
            self.read_in_range(offset, ReadLimits { max_bytes: max_copied_bytes, ..limits })
        } else {
            self.read_found(&readable)
        };
        copied.map(WarmRead::Bytes)
    }
}

/// Where the last batch ends that lies below both `max_end` and `end_offset`. `None` if that would take reading through
/// the file: the index may be missing or wrong.
fn end_of_batches(
    segment: &Segment,
    first: &ScannedBatch,
    max_length: usize,
    size: u64,
    segment_end_offset: Offset,
    end_offset: Offset,
) -> Result<Option<u64>, StorageError> {
    let max_end = first.position + max_length as u64;
    if max_end == size && segment_end_offset <= end_offset {
        return Ok(Some(size));
    }
    let is_inside = |entry: &OffsetEntry| u64::from(entry.position) < max_end && entry.offset < end_offset.value();
    let entry = segment.offset_index.last_where(is_inside)?.filter(|entry| u64::from(entry.position) > first.position);
    let mut end = first.end();
    let mut scan = segment.scan(entry.map_or(end, |entry| u64::from(entry.position)), size, Scan::SHORT);
    // A batch of the index's interval is followed by an entry, so that this ends soon.
    const MAX_BATCHES: usize = 512;
    for step in 0..MAX_BATCHES {
        let batch = match scan.next() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Some(end)),
            Err(StorageError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_at_entry = |entry: OffsetEntry| batch.header.last_offset() == Offset(entry.offset);
        if step == 0 && !entry.is_none_or(is_at_entry) {
            return Ok(None);
        }
        if batch.end() > max_end || batch.header.next_offset() > end_offset {
            // The entry's batch begins inside, and so a batch ends there.
            return Ok(Some(end.max(batch.position)));
        }
        end = batch.end();
    }
    Ok(None)
}
