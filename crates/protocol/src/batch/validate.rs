//! Whether a leader may append a produced batch: the checks of Kafka's `LogValidator`, as pure functions.
//!
//! Every record is looked at, but none is kept: a compressed batch is read in memory that does not grow with it.

use bytes::{Bytes, BytesMut};
use vltava_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs};

use super::header::{ATTRIBUTES_AT, BatchError, BatchHeader, HEADER_SIZE, LOG_OVERHEAD, TimestampType, batches};
use super::records::{RecordError, Skimmer, known_compression};
use crate::compression::Compression;

/// No batch may unfold to more bytes than this while it is checked.
const MAX_SKIMMED_BYTES: u64 = 1 << 30;
/// A batch that must be compressed anew is held in memory, so it may unfold to less.
const MAX_RECOMPRESSED_BYTES: usize = 128 << 20;
/// How many bad records of one batch are listed.
const MAX_LISTED_RECORDS: usize = 100;

/// What a partition asks of the batches appended to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationRules {
    pub origin: Origin,
    pub now: TimestampMs,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`.
    pub is_compacted: bool,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    pub compression: CompressionPolicy,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A Produce request.
    Client,
    /// This broker's group or transaction coordinator, which may write control records.
    Coordinator,
}

/// `compression.type` of a topic, with the level of its codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionPolicy {
    /// As the producer sent it.
    Producer,
    Codec {
        codec: Compression,
        level: Option<i32>,
    },
}

/// Why a batch may not be appended. The messages are those that Kafka sends.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    #[error("Produce requests with version {version} must have exactly one record batch per partition")]
    NotOneBatch { version: i16 },
    #[error("Produce requests with version {version} are only allowed to contain record batches with magic version 2")]
    OldFormat { version: i16 },
    #[error("Produce requests with version {version} are not allowed to use ZStandard compression")]
    ZstdTooEarly { version: i16 },
    #[error("Record is corrupt: {0}")]
    Corrupt(BatchError),
    #[error(
        "The record batch size in the append is {size} bytes which exceeds the maximum configured value of {maximum}."
    )]
    TooLarge { size: usize, maximum: usize },
    #[error("The baseOffset of the record batch in the append should be 0, but it is {base_offset}")]
    NonZeroBaseOffset { base_offset: Offset },
    #[error("Clients are not allowed to write control records")]
    ControlFromClient,
    #[error("Invalid reported count for record batch: {count}")]
    InvalidCount { count: i32 },
    #[error("Inconsistent batch offset range [0, {last_offset_delta}] and count of records {count}")]
    InconsistentCount { last_offset_delta: i32, count: i32 },
    #[error("Invalid sequence number {base_sequence} in record batch with producerId {producer_id}")]
    InvalidSequence { base_sequence: i32, producer_id: i64 },
    #[error("Invalid record in the batch: {0}")]
    InvalidRecord(RecordError),
    #[error("One or more records have been rejected due to invalid timestamp")]
    InvalidTimestamps { records: Vec<Rejection> },
    #[error("One or more records have been rejected due to {} record errors in total", .records.len())]
    InvalidRecords { records: Vec<Rejection> },
}

/// A record that a batch was refused for, as in Produce's `record_errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The record's index in the batch.
    pub batch_index: i32,
    pub message: String,
}

impl InvalidBatch {
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        match self {
            Self::NotOneBatch { .. }
            | Self::OldFormat { .. }
            | Self::NonZeroBaseOffset { .. }
            | Self::ControlFromClient
            | Self::InvalidCount { .. }
            | Self::InconsistentCount { .. }
            | Self::InvalidSequence { .. }
            | Self::InvalidRecord(_)
            | Self::InvalidRecords { .. } => ErrorCode::InvalidRecord,
            Self::ZstdTooEarly { .. } => ErrorCode::UnsupportedCompressionType,
            Self::Corrupt(_) => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::InvalidTimestamps { .. } => ErrorCode::InvalidTimestamp,
        }
    }

    /// The records at fault, where single ones are.
    #[must_use]
    pub fn record_errors(&self) -> &[Rejection] {
        match self {
            Self::InvalidTimestamps { records } | Self::InvalidRecords { records } => records,
            _ => &[],
        }
    }
}

/// Checks what a Produce request of `version` may carry for a partition: exactly one batch, of format 2, in a codec that
/// the version knows. Returns that batch; an incomplete one after it is dropped, as Kafka does.
pub fn validate_produce_format(version: i16, records: &Bytes) -> Result<Bytes, InvalidBatch> {
    let mut found = None;
    for batch in batches(records) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(BatchError::Incomplete { .. }) => break,
            Err(BatchError::UnsupportedMagic { .. }) => return Err(InvalidBatch::OldFormat { version }),
            Err(error @ BatchError::InvalidOffsets { .. }) => {
                return Err(InvalidBatch::InvalidRecord(RecordError::Batch(error)));
            }
            Err(error) => return Err(InvalidBatch::Corrupt(error)),
        };
        if version < 7 && batch.header.compression() == Some(Compression::Zstd) {
            return Err(InvalidBatch::ZstdTooEarly { version });
        }
        if found.replace(batch.bytes.len()).is_some() {
            return Err(InvalidBatch::NotOneBatch { version });
        }
    }
    found.map(|size| records.slice(..size)).ok_or(InvalidBatch::NotOneBatch { version })
}

/// A batch that may be appended, with what the leader writes into it. The body is still the producer's bytes, unless the
/// topic's compression differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedBatch {
    /// Complete: CRC, timestamps and, after [`ValidatedBatch::stamp`], the offset and epoch are those to be written.
    pub header: BatchHeader,
    /// The records, after the header.
    pub body: Bytes,
    /// Which record has the largest timestamp, as a delta to the base offset.
    pub max_timestamp_offset_delta: i32,
}

impl ValidatedBatch {
    /// Sets what only the appending leader knows. The CRC covers neither.
    pub const fn stamp(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch;
    }

    /// The whole batch in one piece; copies the body.
    #[must_use]
    pub fn to_bytes(&self) -> BytesMut {
        let mut batch = BytesMut::with_capacity(HEADER_SIZE + self.body.len());
        batch.extend_from_slice(&self.header.to_bytes());
        batch.extend_from_slice(&self.body);
        batch
    }

    fn seal(&mut self) {
        self.header.length =
            i32::try_from(HEADER_SIZE - LOG_OVERHEAD + self.body.len()).expect("a batch stays far below 2 GiB");
        let crc = crc32c::crc32c(&self.header.to_bytes()[ATTRIBUTES_AT..]);
        self.header.crc = crc32c::crc32c_append(crc, &self.body);
    }
}

/// Checks one whole batch by `rules` and says what to append.
pub fn validate(batch: &Bytes, rules: &ValidationRules) -> Result<ValidatedBatch, InvalidBatch> {
    let header = BatchHeader::parse(batch).map_err(InvalidBatch::Corrupt)?;
    let size = header.size();
    if batch.len() < size {
        let error = BatchError::Incomplete { needed: size, available: batch.len() };
        return Err(InvalidBatch::Corrupt(error));
    }
    if rules.origin == Origin::Client && header.base_offset != Offset(0) {
        return Err(InvalidBatch::NonZeroBaseOffset { base_offset: header.base_offset });
    }
    if size > rules.max_message_bytes {
        return Err(InvalidBatch::TooLarge { size, maximum: rules.max_message_bytes });
    }
    let batch = batch.slice(..size);
    let computed = super::header::compute_crc(&batch);
    if computed != header.crc {
        return Err(InvalidBatch::Corrupt(BatchError::CorruptCrc { stored: header.crc, computed }));
    }
    validate_header(&header, rules)?;

    let body = batch.slice(HEADER_SIZE..);
    let compression = known_compression(&header).map_err(InvalidBatch::InvalidRecord)?;
    let newest = match compression {
        Compression::None => check_records(&header, rules, &body[..]),
        codec => match codec.reader(&body) {
            Ok(reader) => check_records(&header, rules, reader),
            Err(_) => Err(InvalidBatch::InvalidRecord(RecordError::Truncated { index: 0 })),
        },
    }?;

    let mut validated = ValidatedBatch { header, body, max_timestamp_offset_delta: newest.offset_delta };
    let (timestamp_type, max_timestamp) = match rules.timestamp_type {
        TimestampType::CreateTime => (TimestampType::CreateTime, newest.timestamp),
        TimestampType::LogAppendTime => (TimestampType::LogAppendTime, rules.now),
    };
    if rules.timestamp_type == TimestampType::LogAppendTime {
        // All records share the timestamp; the last of them stands for all, as in Kafka's index.
        validated.max_timestamp_offset_delta = header.last_offset_delta;
    }
    let mut changed = false;
    if header.timestamp_type() != timestamp_type || header.max_timestamp != max_timestamp {
        validated.header.attributes = header.attributes.with_timestamp_type(timestamp_type);
        validated.header.max_timestamp = max_timestamp;
        changed = true;
    }
    if let CompressionPolicy::Codec { codec, level } = rules.compression
        && codec != compression
        && !header.is_control()
    {
        let records = compression
            .decompress(&validated.body, MAX_RECOMPRESSED_BYTES)
            .map_err(|error| InvalidBatch::InvalidRecord(error.into()))?;
        validated.body = match codec {
            Compression::None => records,
            codec => Bytes::from(codec.compress(level, &records)),
        };
        validated.header.attributes = validated.header.attributes.with_compression(codec);
        let size = HEADER_SIZE + validated.body.len();
        if size > rules.max_message_bytes {
            return Err(InvalidBatch::TooLarge { size, maximum: rules.max_message_bytes });
        }
        changed = true;
    }
    if changed {
        validated.seal();
    }
    Ok(validated)
}

fn validate_header(header: &BatchHeader, rules: &ValidationRules) -> Result<(), InvalidBatch> {
    if rules.origin == Origin::Client && header.is_control() {
        return Err(InvalidBatch::ControlFromClient);
    }
    if header.record_count <= 0 {
        return Err(InvalidBatch::InvalidCount { count: header.record_count });
    }
    // In this form a delta of `i32::MAX` cannot overflow.
    if header.record_count - 1 != header.last_offset_delta {
        return Err(InvalidBatch::InconsistentCount {
            last_offset_delta: header.last_offset_delta,
            count: header.record_count,
        });
    }
    if rules.origin == Origin::Client && header.has_producer_id() && header.base_sequence.0 < 0 {
        return Err(InvalidBatch::InvalidSequence {
            base_sequence: header.base_sequence.0,
            producer_id: header.producer_id.0,
        });
    }
    Ok(())
}

struct Newest {
    timestamp: TimestampMs,
    offset_delta: i32,
}

fn check_records(
    header: &BatchHeader,
    rules: &ValidationRules,
    reader: impl std::io::BufRead,
) -> Result<Newest, InvalidBatch> {
    let mut skimmer = Skimmer::new(reader, MAX_SKIMMED_BYTES);
    let mut newest = Newest { timestamp: TimestampMs::NONE, offset_delta: 0 };
    let mut without_key = Vec::new();
    let mut out_of_time = Vec::new();
    for index in 0..header.record_count {
        let record = skimmer.next().map_err(InvalidBatch::InvalidRecord)?;
        if record.offset_delta != index {
            let what = "offsets are not consecutive";
            return Err(InvalidBatch::InvalidRecord(RecordError::Malformed {
                index: index.unsigned_abs() as usize,
                what,
            }));
        }
        let timestamp = TimestampMs(header.base_timestamp.0.wrapping_add(record.timestamp_delta));
        if timestamp > newest.timestamp {
            newest = Newest { timestamp, offset_delta: record.offset_delta };
        }
        if rules.is_compacted && !record.has_key && !header.is_control() {
            let message = "Compacted topic cannot accept message without key.".to_owned();
            reject(&mut without_key, index, message);
        } else if let Err(message) = check_timestamp(header, rules, timestamp) {
            reject(&mut out_of_time, index, message);
        }
    }
    skimmer.finish(header.record_count).map_err(InvalidBatch::InvalidRecord)?;
    if !out_of_time.is_empty() {
        return Err(InvalidBatch::InvalidTimestamps { records: out_of_time });
    }
    if !without_key.is_empty() {
        return Err(InvalidBatch::InvalidRecords { records: without_key });
    }
    Ok(newest)
}

fn reject(records: &mut Vec<Rejection>, batch_index: i32, message: String) {
    if records.len() < MAX_LISTED_RECORDS {
        records.push(Rejection { batch_index, message });
    }
}

fn check_timestamp(header: &BatchHeader, rules: &ValidationRules, timestamp: TimestampMs) -> Result<(), String> {
    if rules.timestamp_type == TimestampType::CreateTime && timestamp != TimestampMs::NONE {
        let earliest = rules.now.0.saturating_sub(rules.timestamp_before_max_ms);
        let latest = rules.now.0.saturating_add(rules.timestamp_after_max_ms);
        if timestamp.0 < earliest || timestamp.0 > latest {
            return Err(format!(
                "Timestamp {timestamp} of message is out of range. The timestamp should be within \
                 [{earliest}, {latest}]"
            ));
        }
    }
    if rules.origin == Origin::Client && header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(
            "Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.".to_owned()
        );
    }
    Ok(())
}
