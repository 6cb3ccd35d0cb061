//! Where a pass writes what stays.

use std::ops::Range;

use vltava_protocol::batch::BatchHeader;

use super::{CleaningError, PassLog};
use crate::StorageError;
use crate::error::AtPath;
use crate::segment::Segment;

/// Positions within a segment are 32-bit signed in Kafka's index files.
const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

/// A cleaned segment that is being written.
#[derive(Debug)]
pub(super) struct Output {
    pub segment: Segment,
    pub bytes_since_index_entry: u64,
    /// Whether anything was left out or written otherwise than it was.
    pub is_changed: bool,
}

impl Output {
    pub(super) fn create(log: &PassLog, group: &Range<usize>) -> Result<Self, StorageError> {
        let segment = Segment::create_cleaned(&log.directory, log.segments[group.start].base_offset)?;
        Ok(Self { segment, bytes_since_index_entry: 0, is_changed: false })
    }

    pub(super) fn write(
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
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.segment.complete_time_index()?;
        for file in self.segment.files() {
            file.handle()?.sync_data().unless_full(file.path())?;
        }
        Ok(())
    }
}
