//! Writing new batches: for coordinators, transaction markers, tests and clients.

use bytes::{BufMut, Bytes, BytesMut};
use vltava_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use super::header::{Attributes, BatchHeader, HEADER_SIZE, LOG_OVERHEAD, MAGIC, TimestampType};
use super::records::{ControlKind, RecordHeader};
use super::stamp;
use crate::compression::Compression;

/// Collects records and writes them as one batch.
///
/// ```
/// use vltava_protocol::batch::{BatchBuilder, records};
/// use vltava_types::TimestampMs;
///
/// let mut builder = BatchBuilder::new();
/// builder.append(TimestampMs(1_700_000_000_000), Some(b"key"), Some(b"value"), &[]);
/// let batch = builder.build();
/// assert_eq!(records(&batch, 1024).unwrap().count(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    level: Option<i32>,
    timestamp_type: TimestampType,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: Sequence,
    is_transactional: bool,
    is_control: bool,
    /// The records so far, uncompressed.
    body: BytesMut,
    record_count: i32,
    last_offset_delta: i32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    #[must_use]
    pub fn new() -> Self {
        Self {
            compression: Compression::None,
            level: None,
            timestamp_type: TimestampType::CreateTime,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::NONE,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            is_transactional: false,
            is_control: false,
            body: BytesMut::new(),
            record_count: 0,
            last_offset_delta: -1,
            base_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
        }
    }

    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The codec's level; its default if `None`.
    #[must_use]
    pub fn compression_level(mut self, level: Option<i32>) -> Self {
        self.level = level;
        self
    }

    #[must_use]
    pub fn timestamp_type(mut self, timestamp_type: TimestampType) -> Self {
        self.timestamp_type = timestamp_type;
        self
    }

    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> Self {
        self.base_offset = base_offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: LeaderEpoch) -> Self {
        self.leader_epoch = leader_epoch;
        self
    }

    /// Marks the batch as an idempotent producer's.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.is_transactional = true;
        self
    }

    /// The batch holds control records: append them with [`BatchBuilder::append_control`].
    #[must_use]
    pub fn control(mut self) -> Self {
        self.is_control = true;
        self
    }

    /// Adds a record. Its offset is the base offset plus the number of records before it.
    pub fn append(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let offset_delta = self.last_offset_delta + 1;
        self.put_record(offset_delta, timestamp, key, value, headers.iter().copied());
    }

    /// Adds a record with headers as [`super::records`] gives them.
    pub fn append_record(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) {
        let offset_delta = self.last_offset_delta + 1;
        let headers = headers.iter().map(|header| (&header.key[..], header.value.as_deref()));
        self.put_record(offset_delta, timestamp, key, value, headers);
    }

    /// Adds a control record, such as a transaction marker.
    pub fn append_control(&mut self, timestamp: TimestampMs, kind: ControlKind, value: &[u8]) {
        assert!(self.is_control, "control records stand in control batches only");
        self.append(timestamp, Some(&kind.to_key()), Some(value), &[]);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    #[must_use]
    pub fn record_count(&self) -> usize {
        self.record_count.unsigned_abs() as usize
    }

    /// The size of the batch if it were built now without compression.
    #[must_use]
    pub fn uncompressed_size(&self) -> usize {
        HEADER_SIZE + self.body.len()
    }

    /// What a record would add, at most.
    #[must_use]
    pub fn record_size_bound(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], Option<&[u8]>)]) -> usize {
        let length = |bytes: Option<&[u8]>| 5 + bytes.map_or(0, <[u8]>::len);
        let headers: usize = headers.iter().map(|(key, value)| length(Some(key)) + length(*value)).sum();
        5 + 1 + 10 + 5 + length(key) + length(value) + 5 + headers
    }

    /// Writes the batch.
    #[must_use]
    pub fn build(self) -> Bytes {
        self.build_mut().freeze()
    }

    /// Writes the batch into memory that can be stamped.
    #[must_use]
    pub fn build_mut(self) -> BytesMut {
        let compressed;
        let body = match self.compression {
            Compression::None => &self.body[..],
            codec => {
                compressed = codec.compress(self.level, &self.body);
                &compressed
            }
        };
        let attributes = Attributes::new(self.compression, self.timestamp_type, self.is_transactional, self.is_control);
        let size = HEADER_SIZE + body.len();
        let header = BatchHeader {
            base_offset: self.base_offset,
            length: i32::try_from(size - LOG_OVERHEAD).expect("a batch stays far below 2 GiB"),
            partition_leader_epoch: self.leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes,
            last_offset_delta: self.last_offset_delta.max(0),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        };
        let mut batch = BytesMut::with_capacity(size);
        batch.put_bytes(0, HEADER_SIZE);
        batch.put_slice(body);
        stamp::set_header(&mut batch, &header);
        batch
    }

    fn put_record<'a>(
        &mut self,
        offset_delta: i32,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        if self.is_empty() {
            self.base_timestamp = timestamp;
        }
        let mut record = BytesMut::with_capacity(32 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
        record.put_i8(0);
        put_varlong(&mut record, timestamp.0.wrapping_sub(self.base_timestamp.0));
        put_varint(&mut record, offset_delta);
        put_nullable(&mut record, key);
        put_nullable(&mut record, value);
        put_varint(&mut record, i32::try_from(headers.len()).expect("headers are counted in 31 bits"));
        for (key, value) in headers {
            put_nullable(&mut record, Some(key));
            put_nullable(&mut record, value);
        }
        put_varint(&mut self.body, i32::try_from(record.len()).expect("a record stays far below 2 GiB"));
        self.body.put_slice(&record);
        self.record_count += 1;
        self.last_offset_delta = offset_delta;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }
}

fn put_nullable(buffer: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(buffer, -1),
        Some(bytes) => {
            put_varint(buffer, i32::try_from(bytes.len()).expect("fields stay far below 2 GiB"));
            buffer.put_slice(bytes);
        }
    }
}

pub(super) fn put_varint(buffer: &mut BytesMut, value: i32) {
    put_unsigned(buffer, u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()));
}

pub(super) fn put_varlong(buffer: &mut BytesMut, value: i64) {
    put_unsigned(buffer, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_unsigned(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}
