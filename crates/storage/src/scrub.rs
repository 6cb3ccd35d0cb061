//! Reading again what lies closed on disk, so that damage is found while there is another copy.

use std::sync::Arc;

use vltava_host::fs;
use vltava_types::Offset;

use crate::scan::Scan;
use crate::segment::Segment;
use crate::{Log, StorageError};

/// A closed segment on its way through a scrub, batch by batch.
///
/// Works without the log's lock. The segment may be deleted or replaced meanwhile, or the log truncated and appended to: what
/// is found then says nothing about the log, see [`Log::holds`].
#[derive(Clone, Debug)]
pub struct SegmentScrub {
    segment: Arc<Segment>,
    /// [`Log::truncation_count`] when it began.
    truncations: u64,
    position: u64,
    /// The next batch begins here or later.
    next_offset: Offset,
    /// Where the next segment begins.
    end_offset: Offset,
}

impl Log {
    /// The segments that are written to no more and end at or below `committed`, oldest first.
    #[must_use]
    pub fn scrub_closed_segments(&self, committed: Offset) -> Vec<SegmentScrub> {
        let durable = committed.min(self.recovery_point());
        let pairs = self.segments.windows(2).filter(|pair| pair[1].base_offset <= durable);
        let scrub = |pair: &[Arc<Segment>]| SegmentScrub {
            segment: Arc::clone(&pair[0]),
            truncations: self.truncation_count(),
            position: 0,
            next_offset: pair[0].base_offset,
            end_offset: pair[1].base_offset,
        };
        pairs.map(scrub).collect()
    }

    /// Whether the segment is still part of the log, as it was when its scrub began.
    #[must_use]
    pub fn holds(&self, scrub: &SegmentScrub) -> bool {
        self.truncation_count() == scrub.truncations
            && self.segments.iter().any(|segment| Arc::ptr_eq(segment, &scrub.segment))
    }
}

impl SegmentScrub {
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segment.size()
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.position >= self.segment.size()
    }

    /// Reads and checks whole batches, from the disk and not from its cache, until at least `bytes` were read or the
    /// segment ends. Returns how many were. [`StorageError::Corrupt`] tells of damage.
    pub fn advance(&mut self, bytes: u64) -> Result<u64, StorageError> {
        let start = self.position;
        let size = self.segment.size();
        let file = self.segment.file().handle()?;
        // Only a hint; a cached page proves nothing about the disk, and one read for this is not worth keeping.
        let _ = fs::drop_from_cache(&file, start, bytes);
        let mut scan = self.segment.scan(start, size, Scan::LONG).in_order_from(self.next_offset);
        while self.position - start < bytes {
            let Some(batch) = scan.next()? else { break };
            if batch.header.next_offset() > self.end_offset {
                return Err(self.segment.order_error(&batch));
            }
            if !scan.crc_is_valid(&batch)? {
                return Err(self.segment.crc_error(&batch));
            }
            self.next_offset = batch.header.next_offset();
            self.position = batch.end();
        }
        let _ = fs::drop_from_cache(&file, start, self.position - start);
        Ok(self.position - start)
    }
}
