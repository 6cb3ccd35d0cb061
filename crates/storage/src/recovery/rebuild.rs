//! Reading what may not have been flushed, and writing its indexes anew.
//!
//! The next start believes the index entries below the recovery point, and this one may not get to the point where what it
//! has written is flushed. A crash then keeps any part of it, and where an entry of the offset index is kept and the one of
//! the time index is not, the largest timestamp up to there is unknown: a lookup by time would pass over records. So
//! - behind an anchor, the entries up to it stay as they are;
//! - without one, the offset index is emptied on disk before anything else is changed: without an entry nothing is believed;
//! - an entry of the offset index below the recovery point is written after the time index up to there is on disk.

use vltava_protocol::batch::BatchHeader;
use vltava_types::Offset;

use super::Recovery;
use crate::StorageError;
use crate::index::OffsetEntry;
use crate::scan::{Scan, ScannedBatch};
use crate::segment::Segment;

impl Recovery<'_> {
    /// Checks every batch that may not have been flushed, and rebuilds the indexes. Returns where the first bad batch begins.
    pub(super) fn scan(&mut self, segment: &Segment, is_flushed: bool) -> Result<Option<u64>, StorageError> {
        // A flushed segment is scanned because its indexes are not what they were: none of their entries can be relied on.
        let anchor = if self.epochs_are_missing || is_flushed { None } else { self.anchor(segment)? };
        let (start, mut end_offset) = match &anchor {
            Some(batch) => (batch.position, batch.header.base_offset),
            None => (0, segment.base_offset.max(self.end_offset)),
        };
        let mut indexes = IndexRebuild::begin(segment, anchor.as_ref(), self.interval, self.recovery_point)?;
        self.trust_epochs_below(end_offset);
        self.report.indexes_rebuilt += 1;
        let size = segment.size();
        let mut scan = segment.scan(start, size, Scan::LONG).in_order_from(end_offset);
        let mut valid_end = start;
        loop {
            let batch = match scan.next() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(StorageError::Corrupt { .. }) => break,
                Err(error) => return Err(error),
            };
            let header = &batch.header;
            let is_in_order = (header.base_offset == end_offset || segment.is_in_place(&batch, size)?)
                && header.last_offset().value() - segment.base_offset.value() <= i64::from(i32::MAX)
                && batch.end() <= u64::from(u32::MAX);
            if !is_in_order || !scan.crc_is_valid(&batch)? {
                break;
            }
            indexes.take_in(batch.position, header)?;
            self.trust_epochs_between(end_offset, header);
            self.note_epoch(header);
            end_offset = header.next_offset();
            valid_end = batch.end();
            self.progress.on_scanned(batch.size());
        }
        self.bytes_since_index_entry = indexes.finish()?;
        self.report.bytes_scanned += valid_end - start;
        self.report.bytes_cut += size - valid_end;
        self.end_offset = end_offset;
        Ok((valid_end < size).then_some(valid_end))
    }

    /// The batch at the last index entry below the recovery point, if it and the indexes up to it are in order.
    fn anchor(&self, segment: &Segment) -> Result<Option<ScannedBatch>, StorageError> {
        if self.clean_shutdown || self.recovery_point <= segment.base_offset || segment.base_offset < self.end_offset {
            return Ok(None);
        }
        let is_sane = segment.offset_index.is_sane(segment.size())? && segment.time_index.is_sane()?;
        // Both indexes get their entries together.
        if !is_sane || segment.time_index.last()?.is_none() {
            return Ok(None);
        }
        let Some(OffsetEntry { offset, position }) = segment.offset_index.floor(self.recovery_point.value() - 1)?
        else {
            return Ok(None);
        };
        let mut scan = segment.scan(u64::from(position), segment.size(), Scan::LONG);
        match scan.next() {
            Ok(Some(batch)) if batch.header.last_offset() == Offset(offset) && scan.crc_is_valid(&batch)? => {
                Ok(Some(batch))
            }
            Ok(_) | Err(StorageError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The indexes of a segment that is being scanned.
struct IndexRebuild<'a> {
    segment: &'a Segment,
    interval: u32,
    bytes_since_index_entry: u64,
    /// The next start believes what it finds below.
    recovery_point: Offset,
    /// Entries of the offset index below the recovery point whose time index is not on disk yet.
    held_back: Vec<OffsetEntry>,
    /// Nothing more is indexed after there was no room for an entry: reads take longer, and the next start tries again.
    has_room: bool,
}

/// Half a megabyte, and the entries of more than a hundred megabytes of log at the default interval.
const MAX_HELD_BACK: usize = 1 << 15;

impl<'a> IndexRebuild<'a> {
    /// Forgets the entries after the anchor, or all.
    fn begin(
        segment: &'a Segment,
        anchor: Option<&ScannedBatch>,
        interval: u32,
        recovery_point: Offset,
    ) -> Result<Self, StorageError> {
        // A segment this small has entries only if they are wrong.
        let may_be_believed = segment.size() > u64::from(interval) || segment.offset_index.len() > 0;
        if anchor.is_none() && segment.base_offset < recovery_point && may_be_believed {
            segment.offset_index.truncate(0)?;
            segment.offset_index.file().sync_data()?;
        }
        segment.truncate_indexes(anchor.map_or(segment.base_offset, |batch| batch.header.next_offset()))?;
        let held_back = Vec::new();
        Ok(Self { segment, interval, bytes_since_index_entry: 0, recovery_point, held_back, has_room: true })
    }

    fn take_in(&mut self, position: u64, header: &BatchHeader) -> Result<(), StorageError> {
        let due = self.segment.note_batch(position, header, &mut self.bytes_since_index_entry, self.interval);
        match due.filter(|_| self.has_room) {
            Some(entry) => self.unless_full(|indexes| indexes.append(entry)),
            None => Ok(()),
        }
    }

    /// Returns the bytes since the last entry.
    fn finish(mut self) -> Result<u64, StorageError> {
        self.unless_full(Self::append_held_back)?;
        Ok(self.bytes_since_index_entry)
    }

    fn append(&mut self, entry: OffsetEntry) -> Result<(), StorageError> {
        self.segment.complete_time_index()?;
        if entry.offset < self.recovery_point.value() {
            self.held_back.push(entry);
            return if self.held_back.len() < MAX_HELD_BACK { Ok(()) } else { self.append_held_back() };
        }
        self.append_held_back()?;
        self.segment.offset_index.append(entry)
    }

    fn append_held_back(&mut self) -> Result<(), StorageError> {
        if self.held_back.is_empty() {
            return Ok(());
        }
        self.segment.time_index.file().sync_data()?;
        self.held_back.drain(..).try_for_each(|entry| self.segment.offset_index.append(entry))
    }

    /// Does what there is room for.
    fn unless_full(&mut self, write: impl FnOnce(&mut Self) -> Result<(), StorageError>) -> Result<(), StorageError> {
        match write(self) {
            Err(error) if error.is_full() => {
                tracing::warn!(segment = %self.segment.path().display(), "no room for the indexes");
                self.held_back.clear();
                self.has_room = false;
                Ok(())
            }
            outcome => outcome,
        }
    }
}
