//! The header of a batch, and walking a run of batches by their headers.

use bytes::Buf;
use vltava_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::compression::Compression;

/// Bytes from the start of a batch to its first record.
pub const HEADER_SIZE: usize = 61;
/// The base offset and the length, which the length does not count.
pub const LOG_OVERHEAD: usize = 12;
/// The record format.
pub const MAGIC: i8 = 2;

pub(super) const LEADER_EPOCH_AT: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;
/// The CRC covers everything from here on, and so neither the base offset nor the leader epoch, which brokers write.
pub(super) const ATTRIBUTES_AT: usize = 21;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
/// Producer id, epoch and base sequence.
pub(super) const PRODUCER_AT: usize = 43;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// A batch's header, field by field as on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes after this field.
    pub length: i32,
    pub partition_leader_epoch: LeaderEpoch,
    pub magic: i8,
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    pub base_timestamp: TimestampMs,
    pub max_timestamp: TimestampMs,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: Sequence,
    pub record_count: i32,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

/// Who gave a batch its timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// Bytes that are not a batch of format 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The last batch continues beyond the end of the buffer (or file).
    #[error("the batch needs {needed} bytes and {available} are there")]
    Incomplete { needed: usize, available: usize },
    #[error("batch length {length} is too small for a batch")]
    TooSmall { length: i32 },
    #[error("record format {magic} is not supported")]
    UnsupportedMagic { magic: i8 },
    #[error("crc is {computed:#010x}, and the batch says {stored:#010x}")]
    CorruptCrc { stored: u32, computed: u32 },
    #[error("last offset delta {last_offset_delta} is negative")]
    InvalidOffsets { last_offset_delta: i32 },
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Checks length and magic, but neither the CRC nor that the rest of the
    /// batch is there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < HEADER_SIZE {
            // A message of format 0 or 1 may be shorter than our header: its magic decides first.
            if let Some(&magic) = bytes.get(MAGIC_AT)
                && magic as i8 != MAGIC
            {
                return Err(BatchError::UnsupportedMagic { magic: magic as i8 });
            }
            return Err(BatchError::Incomplete { needed: HEADER_SIZE, available: bytes.len() });
        }
        let mut fields = &bytes[..HEADER_SIZE];
        let header = Self {
            base_offset: Offset(fields.get_i64()),
            length: fields.get_i32(),
            partition_leader_epoch: LeaderEpoch(fields.get_i32()),
            magic: fields.get_i8(),
            crc: fields.get_u32(),
            attributes: Attributes(fields.get_i16()),
            last_offset_delta: fields.get_i32(),
            base_timestamp: TimestampMs(fields.get_i64()),
            max_timestamp: TimestampMs(fields.get_i64()),
            producer_id: ProducerId(fields.get_i64()),
            producer_epoch: ProducerEpoch(fields.get_i16()),
            base_sequence: Sequence(fields.get_i32()),
            record_count: fields.get_i32(),
        };
        if header.magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic: header.magic });
        }
        if header.length < (HEADER_SIZE - LOG_OVERHEAD) as i32 {
            return Err(BatchError::TooSmall { length: header.length });
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::InvalidOffsets { last_offset_delta: header.last_offset_delta });
        }
        Ok(header)
    }

    /// The whole batch's size, header included.
    #[must_use]
    pub const fn size(&self) -> usize {
        LOG_OVERHEAD + self.length as usize
    }

    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(self.last_offset_delta as i64))
    }

    /// The offset after the last one.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Whether an idempotent or transactional producer wrote this batch.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }

    /// The sequence of the last record; [`Sequence::NONE`] where there is none.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        if self.base_sequence.0 < 0 { Sequence::NONE } else { self.base_sequence.plus(self.last_offset_delta) }
    }

    /// The codec of the records; `None` for a number that Kafka does not define.
    #[must_use]
    pub const fn compression(&self) -> Option<Compression> {
        self.attributes.compression()
    }

    #[must_use]
    pub const fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    /// Whether the batch holds a transaction marker or another control record instead of data.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    /// When the first record was written, or the batch was appended. In a compacted batch that keeps its delete horizon in
    /// place of that, when the last one was. `None` without a time.
    #[must_use]
    pub fn first_timestamp(&self) -> Option<TimestampMs> {
        let has_base = self.timestamp_type() == TimestampType::CreateTime && self.delete_horizon().is_none();
        let timestamp = if has_base { self.base_timestamp } else { self.max_timestamp };
        (timestamp >= TimestampMs(0)).then_some(timestamp)
    }

    /// When a compacted batch's tombstones may go (KIP-534). The base timestamp holds it then.
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<TimestampMs> {
        if self.attributes.0 & DELETE_HORIZON != 0 { Some(self.base_timestamp) } else { None }
    }

    /// Writes the header's 61 bytes, CRC as stored in `self`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.base_offset.0.to_be_bytes());
        put(&self.length.to_be_bytes());
        put(&self.partition_leader_epoch.0.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.0.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.0.to_be_bytes());
        put(&self.max_timestamp.0.to_be_bytes());
        put(&self.producer_id.0.to_be_bytes());
        put(&self.producer_epoch.0.to_be_bytes());
        put(&self.base_sequence.0.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        bytes
    }
}

impl Attributes {
    #[must_use]
    pub const fn new(
        compression: Compression,
        timestamp_type: TimestampType,
        is_transactional: bool,
        is_control: bool,
    ) -> Self {
        let mut bits = compression as i16;
        if matches!(timestamp_type, TimestampType::LogAppendTime) {
            bits |= LOG_APPEND_TIME;
        }
        if is_transactional {
            bits |= TRANSACTIONAL;
        }
        if is_control {
            bits |= CONTROL;
        }
        Self(bits)
    }

    #[must_use]
    pub const fn compression(self) -> Option<Compression> {
        Compression::from_id(self.0 & COMPRESSION_MASK)
    }

    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & LOG_APPEND_TIME != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    pub(super) const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Self(self.0 | LOG_APPEND_TIME),
        }
    }

    pub(super) const fn with_delete_horizon(self) -> Self {
        Self(self.0 | DELETE_HORIZON)
    }

    pub(super) const fn with_compression(self, compression: Compression) -> Self {
        Self((self.0 & !COMPRESSION_MASK) | compression as i16)
    }
}

/// One whole batch within a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchView<'a> {
    pub header: BatchHeader,
    /// Where the batch starts in the buffer.
    pub position: usize,
    /// The batch, header included.
    pub bytes: &'a [u8],
}

impl BatchView<'_> {
    /// Whether the batch is as its writer left it.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = compute_crc(self.bytes);
        if computed == self.header.crc || vltava_types::mutation::is_off("trap-26") {
            Ok(())
        } else {
            Err(BatchError::CorruptCrc { stored: self.header.crc, computed })
        }
    }
}

/// CRC-32C of a whole batch. `batch` must hold at least a header.
#[must_use]
pub(super) fn compute_crc(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES_AT..])
}

/// Walks the batches of `buffer` by their headers, without looking at the CRC. Ends after the first error;
/// [`BatchError::Incomplete`] means that the buffer ends within a batch, which is normal for a read of limited size.
#[must_use]
pub fn batches(buffer: &[u8]) -> Batches<'_> {
    Batches { buffer, position: 0 }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    buffer: &'a [u8],
    position: usize,
}

impl Batches<'_> {
    /// Where the next batch starts: after an error, the end of the last whole batch.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.buffer.get(self.position..)?;
        if rest.is_empty() {
            return None;
        }
        let step = BatchHeader::parse(rest).and_then(|header| match rest.get(..header.size()) {
            Some(bytes) => Ok(BatchView { header, position: self.position, bytes }),
            None => Err(BatchError::Incomplete { needed: header.size(), available: rest.len() }),
        });
        match step {
            Ok(batch) => self.position += batch.bytes.len(),
            // Nothing follows an error, but `position` must stay where it is.
            Err(_) => self.buffer = &self.buffer[..self.position],
        }
        Some(step)
    }
}
