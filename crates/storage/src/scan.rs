//! Walking the batches of a segment file by their headers.

use std::sync::Arc;

use vltava_host::fs::{File, FileExt};
use vltava_protocol::batch::{BatchHeader, HEADER_SIZE};
use vltava_types::Offset;

use crate::StorageError;
use crate::error::AtPath;
use crate::lazy_file::LazyFile;

/// Where the CRC's coverage begins within a batch.
const CRC_COVERS_FROM: u64 = 21;

/// Reads one batch header after the other, up to `end`. Memory is bounded by `read_ahead`, whatever lengths the file
/// claims.
pub(crate) struct Scan<'a> {
    file: &'a LazyFile,
    /// From the first read on: what is walked stays there, whatever happens to its name.
    handle: Option<Arc<File>>,
    position: u64,
    end: u64,
    /// The next batch begins here or later. `None` if that is not to be checked.
    next_offset: Option<Offset>,
    buffer: Vec<u8>,
    buffer_position: u64,
    read_ahead: usize,
    /// Whether the last batch was too large to be worth reading ahead.
    skipping: bool,
}

/// A batch's place in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedBatch {
    pub position: u64,
    pub header: BatchHeader,
}

impl ScannedBatch {
    pub const fn size(&self) -> u64 {
        self.header.size() as u64
    }

    pub const fn end(&self) -> u64 {
        self.position + self.size()
    }
}

impl<'a> Scan<'a> {
    /// For finding one batch near an index entry.
    pub const SHORT: usize = 8 << 10;
    /// For reading everything.
    pub const LONG: usize = 256 << 10;

    pub const fn new(file: &'a LazyFile, position: u64, end: u64, read_ahead: usize) -> Self {
        Self {
            file,
            handle: None,
            position,
            end,
            next_offset: None,
            buffer: Vec::new(),
            buffer_position: 0,
            read_ahead,
            skipping: false,
        }
    }

    /// A batch that begins below `base_offset`, or below the end of the one before, counts as corrupt: no CRC covers where a
    /// batch begins.
    pub const fn in_order_from(mut self, base_offset: Offset) -> Self {
        self.next_offset = Some(base_offset);
        self
    }

    /// The next batch; `None` at the end. An error of kind [`StorageError::Corrupt`] tells where valid batches end.
    pub fn next(&mut self) -> Result<Option<ScannedBatch>, StorageError> {
        let position = self.position;
        let left = self.end - position;
        if left == 0 {
            return Ok(None);
        }
        let needed = left.min(HEADER_SIZE as u64) as usize;
        let read_ahead = if self.skipping { needed } else { self.read_ahead };
        let header = BatchHeader::parse(self.bytes(position, needed, read_ahead)?)
            .map_err(|error| StorageError::corrupt(self.file.path(), position, error.to_string()))?;
        let batch = ScannedBatch { position, header };
        if batch.size() > left {
            let reason = format!("the batch needs {} bytes and {left} are there", batch.size());
            return Err(StorageError::corrupt(self.file.path(), position, reason));
        }
        if let Some(next_offset) = &mut self.next_offset {
            if header.base_offset < *next_offset {
                let reason = format!("the batch begins at offset {}, below {next_offset}", header.base_offset);
                return Err(StorageError::corrupt(self.file.path(), position, reason));
            }
            *next_offset = header.next_offset();
        }
        self.skipping = batch.size() > self.read_ahead as u64;
        self.position = batch.end();
        Ok(Some(batch))
    }

    /// Whether the batch's bytes are what its CRC says.
    pub fn crc_is_valid(&mut self, batch: &ScannedBatch) -> Result<bool, StorageError> {
        let mut crc = 0;
        let mut position = batch.position + CRC_COVERS_FROM;
        while position < batch.end() {
            let count = usize::try_from(batch.end() - position).map_or(self.read_ahead, |n| n.min(self.read_ahead));
            crc = crc32c::crc32c_append(crc, self.bytes(position, count, self.read_ahead)?);
            position += count as u64;
        }
        Ok(crc == batch.header.crc || vltava_types::mutation::is_off("trap-28"))
    }

    /// `count` bytes from `position` on, which lie before the end.
    fn bytes(&mut self, position: u64, count: usize, read_ahead: usize) -> Result<&[u8], StorageError> {
        let buffer_end = self.buffer_position + self.buffer.len() as u64;
        if position < self.buffer_position || position + count as u64 > buffer_end {
            let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
            self.buffer.resize(read_ahead.max(count).min(left), 0);
            self.buffer_position = position;
            let handle = match &self.handle {
                Some(handle) => handle,
                None => self.handle.insert(self.file.handle()?),
            };
            handle.read_exact_at(&mut self.buffer, position).at(self.file.path())?;
        }
        let start = (position - self.buffer_position) as usize;
        Ok(&self.buffer[start..start + count])
    }
}
