//! Reading a log without its owner's lock.

use bytes::Bytes;
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

use crate::StorageError;

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
#[derive(Clone)]
pub struct LogReader {}

impl LogReader {
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        unimplemented!()
    }

    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        unimplemented!()
    }

    /// Whole batches, beginning with the one that contains `offset` (so that the first may begin below it), from one
    /// segment. Empty at the end, and if the first batch does not fit the limits. Every batch's CRC is checked
    /// (trap 26).
    pub fn read(&self, offset: Offset, limits: ReadLimits) -> Result<Bytes, StorageError> {
        let _ = (offset, limits);
        unimplemented!()
    }

    /// The first record, below `end_offset`, whose timestamp is at least `timestamp`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        end_offset: Offset,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        let _ = (timestamp, end_offset);
        unimplemented!()
    }

    /// The first record that carries the largest timestamp of the log (KIP-734). `None` for an empty log.
    pub fn max_timestamp(&self) -> Result<Option<TimestampedOffset>, StorageError> {
        unimplemented!()
    }
}
