//! Whole batches out of the segments, checked.

use bytes::Bytes;
use vltava_host::fs::FileExt;
use vltava_protocol::batch::{BatchError, BatchHeader, ControlKind, batches, records};
use vltava_types::Offset;

use super::{CleaningError, CleaningPass, MAX_UNCOMPRESSED_BYTES, PassLog};
use crate::StorageError;
use crate::error::AtPath;
use crate::scan::ScannedBatch;
use crate::segment::Segment;

/// Where the next batch to read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    pub segment: usize,
    pub position: u64,
}

/// Whole batches of one segment.
pub(super) struct Chunk {
    pub start: Cursor,
    pub bytes: Bytes,
}

/// A batch that is as its writer left it.
pub(super) struct ReadBatch {
    pub header: BatchHeader,
    pub bytes: Bytes,
    pub end: Cursor,
}

impl Chunk {
    /// The batches, with their CRC and their order checked: damage is not to be written anew as if it were sound (trap 26).
    pub(super) fn batches(&self, log: &PassLog) -> Result<Vec<ReadBatch>, StorageError> {
        let segment = &log.segments[self.start.segment];
        let corrupt = |reason: String| StorageError::corrupt(segment.path(), self.start.position, reason);
        let end_offset = log.segments.get(self.start.segment + 1).map_or(Offset(i64::MAX), |next| next.base_offset);
        let mut next_offset = segment.base_offset;
        let mut found = Vec::new();
        for view in batches(&self.bytes) {
            let checked = view.and_then(|view| view.verify_crc().map(|()| view));
            let view = checked.map_err(|error| corrupt(error.to_string()))?;
            let batch = ScannedBatch { position: self.start.position + view.position as u64, header: view.header };
            let is_last = view.position + view.bytes.len() == self.bytes.len();
            if view.header.base_offset < next_offset
                || end_offset < view.header.next_offset()
                || is_last && !segment.is_in_place(&batch, segment.size())?
            {
                return Err(segment.order_error(&batch));
            }
            next_offset = view.header.next_offset();
            let bytes = self.bytes.slice(view.position..view.position + view.bytes.len());
            let end = Cursor { position: batch.end(), ..self.start };
            found.push(ReadBatch { header: view.header, bytes, end });
        }
        Ok(found)
    }
}

impl ReadBatch {
    /// What a control batch says; `None` for an empty one.
    pub(super) fn control_kind(&self) -> Result<Option<ControlKind>, CleaningError> {
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

impl CleaningPass {
    /// Whole batches from the cursor on, which moves behind them; `None` before the segment `end`.
    pub(super) fn read_chunk(&mut self, cursor: &mut Cursor, end: usize) -> Result<Option<Chunk>, CleaningError> {
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
