//! The first half of a pass: the latest offset of each key in the dirty part, and what was aborted.

use vltava_protocol::batch::records;

use super::reading::{Cursor, ReadBatch};
use super::{CleaningError, CleaningPass, CleaningStep, MAX_UNCOMPRESSED_BYTES, Phase, Stop};
use crate::cleaner::transactions::{AbortedTransactions, CleanedTransactions};

impl CleaningPass {
    pub(super) fn begin_mapping(&self) -> Phase {
        let first_dirty = self.range.first_dirty_offset;
        let segment = self.log.segments.partition_point(|segment| segment.base_offset <= first_dirty);
        let cursor = Cursor { segment: segment.saturating_sub(1), position: 0 };
        Phase::Map { cursor, transactions: self.transactions_from(first_dirty) }
    }

    pub(super) fn map_step(
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
    pub(super) fn map_batch(&mut self, batch: &ReadBatch) -> Result<bool, CleaningError> {
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

    pub(super) fn find_aborted_step(
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
    pub(super) fn begin_again(&mut self) -> Phase {
        self.map.clear();
        self.mapped_end = self.range.end_offset;
        self.begin_mapping()
    }
}
