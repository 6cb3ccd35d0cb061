//! The records within a batch.

use std::io::{self, BufRead};

use bytes::{Buf, Bytes};
use vltava_types::{Offset, TimestampMs};

use super::header::{BatchError, BatchHeader, HEADER_SIZE, TimestampType};
use crate::compression::{Compression, DecompressError};

/// A record with everything the batch says about it. Byte fields share the batch's (or the decompressed) memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// When the producer made it, or when the leader appended it if the batch says so.
    pub timestamp: TimestampMs,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In the producer's order; a key may appear more than once.
    pub headers: Vec<RecordHeader>,
}

/// A record's header. Kafka's keys are UTF-8, but nobody checks that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// What a control record means, by the type in its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    Abort,
    Commit,
    /// Others, of the Raft log, and those to come.
    Other(i16),
}

/// Records that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    #[error("codec {id} is not defined")]
    UnknownCompression { id: i16 },
    #[error("record {index} ends beyond the batch")]
    Truncated { index: usize },
    #[error("record {index} is malformed: {what}")]
    Malformed { index: usize, what: &'static str },
    #[error("{count} records are announced, and the batch has more bytes than they need")]
    TrailingBytes { count: i32 },
    #[error("record count {count} is negative")]
    NegativeCount { count: i32 },
}

impl ControlKind {
    /// Reads the key of a control record; `None` if it is too short.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let kind = key.get(2..4)?;
        Some(match i16::from_be_bytes([kind[0], kind[1]]) {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }

    #[must_use]
    pub fn to_key(self) -> [u8; 4] {
        let kind: i16 = match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::Other(other) => other,
        };
        let [high, low] = kind.to_be_bytes();
        [0, 0, high, low]
    }
}

/// Iterates over the records of one whole batch, which is decompressed into at most `max_uncompressed` bytes first. The
/// CRC is the caller's business. Ends after the first error.
pub fn records(batch: &Bytes, max_uncompressed: usize) -> Result<Records, RecordError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() < header.size() {
        return Err(BatchError::Incomplete { needed: header.size(), available: batch.len() }.into());
    }
    if header.record_count < 0 {
        return Err(RecordError::NegativeCount { count: header.record_count });
    }
    let compression = known_compression(&header)?;
    let body = compression.decompress(&batch.slice(HEADER_SIZE..header.size()), max_uncompressed)?;
    Ok(Records { header, body, next_index: 0, failed: false })
}

/// The codec, or an error that names the unknown number.
pub(super) fn known_compression(header: &BatchHeader) -> Result<Compression, RecordError> {
    header.compression().ok_or(RecordError::UnknownCompression { id: header.attributes.0 & 0x07 })
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    body: Bytes,
    next_index: usize,
    failed: bool,
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = usize::try_from(self.header.record_count).unwrap_or(0);
        if self.failed {
            return None;
        }
        if self.next_index == count {
            if self.body.is_empty() {
                return None;
            }
            self.failed = true;
            return Some(Err(RecordError::TrailingBytes { count: self.header.record_count }));
        }
        let record = read_record(&self.header, &mut self.body, self.next_index);
        self.next_index += 1;
        self.failed = record.is_err();
        Some(record)
    }
}

pub(super) fn read_record(header: &BatchHeader, body: &mut Bytes, index: usize) -> Result<Record, RecordError> {
    let malformed = |what| RecordError::Malformed { index, what };
    let length = get_varint(body).ok_or(malformed("length"))?;
    let length = usize::try_from(length).map_err(|_| malformed("negative length"))?;
    if body.len() < length {
        return Err(RecordError::Truncated { index });
    }
    let mut fields = body.split_to(length);
    if !fields.has_remaining() {
        return Err(malformed("no attributes"));
    }
    let _attributes = fields.get_i8();
    let timestamp_delta = get_varlong(&mut fields).ok_or(malformed("timestamp delta"))?;
    let offset_delta = get_varint(&mut fields).ok_or(malformed("offset delta"))?;
    let key = get_nullable(&mut fields).ok_or(malformed("key"))?;
    let value = get_nullable(&mut fields).ok_or(malformed("value"))?;
    let header_count = get_varint(&mut fields).ok_or(malformed("header count"))?;
    let header_count = usize::try_from(header_count).map_err(|_| malformed("negative header count"))?;
    // A header takes two bytes at least.
    if header_count > fields.len() / 2 {
        return Err(malformed("more headers than bytes for them"));
    }
    let mut headers = Vec::with_capacity(header_count);
    for _ in 0..header_count {
        let key = get_nullable(&mut fields).flatten().ok_or(malformed("header key"))?;
        let value = get_nullable(&mut fields).ok_or(malformed("header value"))?;
        headers.push(RecordHeader { key, value });
    }
    if fields.has_remaining() {
        return Err(malformed("bytes after the last header"));
    }
    let timestamp = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => TimestampMs(header.base_timestamp.0.wrapping_add(timestamp_delta)),
    };
    let offset = Offset(header.base_offset.0.saturating_add(i64::from(offset_delta)));
    Ok(Record { offset, timestamp, key, value, headers })
}

fn get_nullable(buffer: &mut Bytes) -> Option<Option<Bytes>> {
    let length = get_varint(buffer)?;
    if length < 0 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    (length <= buffer.len()).then(|| Some(buffer.split_to(length)))
}

pub(super) fn get_varint(buffer: &mut Bytes) -> Option<i32> {
    read_unsigned(5, || buffer.has_remaining().then(|| buffer.get_u8()))
        .and_then(|raw| u32::try_from(raw).ok())
        .map(zigzag_32)
}

pub(super) fn get_varlong(buffer: &mut Bytes) -> Option<i64> {
    read_unsigned(10, || buffer.has_remaining().then(|| buffer.get_u8())).map(zigzag_64)
}

/// Seven bits a byte, lowest first. `None` if the bytes end, are too many, or carry more than 64 bits.
fn read_unsigned(max_bytes: u32, mut next: impl FnMut() -> Option<u8>) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..max_bytes {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const fn zigzag_32(raw: u32) -> i32 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}

const fn zigzag_64(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}

/// What validation needs to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordShape {
    pub(super) offset_delta: i32,
    pub(super) timestamp_delta: i64,
    pub(super) has_key: bool,
}

/// Reads only the shapes of records, in memory that does not grow with the records: a batch may be far larger
/// uncompressed than anyone should hold.
pub(super) struct Skimmer<R> {
    reader: R,
    /// Bytes taken so far, and the most that may be.
    taken: u64,
    limit: u64,
    index: usize,
}

impl<R: BufRead> Skimmer<R> {
    pub(super) const fn new(reader: R, limit: u64) -> Self {
        Self { reader, taken: 0, limit, index: 0 }
    }

    pub(super) fn next(&mut self) -> Result<RecordShape, RecordError> {
        let index = self.index;
        self.index += 1;
        let malformed = |what| RecordError::Malformed { index, what };
        let length = self.varint().map_err(|_| RecordError::Truncated { index })?;
        let length = u64::try_from(length).map_err(|_| malformed("negative length"))?;
        let end = self.taken + length;
        if end > self.limit {
            return Err(malformed("the batch is too large uncompressed"));
        }
        self.fields(end).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RecordError::Truncated { index },
            _ => malformed("fields do not fit the record's length"),
        })
    }

    /// After the last record, nothing may follow.
    pub(super) fn finish(mut self, count: i32) -> Result<(), RecordError> {
        match self.reader.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) | Err(_) => Err(RecordError::TrailingBytes { count }),
        }
    }

    fn fields(&mut self, end: u64) -> io::Result<RecordShape> {
        self.skip(1)?;
        let timestamp_delta = self.varlong()?;
        let offset_delta = self.varint()?;
        let has_key = self.skip_nullable(end)?;
        self.skip_nullable(end)?;
        let headers = self.varint()?;
        if i64::from(headers) < 0 || u64::from(headers.unsigned_abs()) > end.saturating_sub(self.taken) / 2 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        for _ in 0..headers {
            if !self.skip_nullable(end)? {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.skip_nullable(end)?;
        }
        if self.taken != end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(RecordShape { offset_delta, timestamp_delta, has_key })
    }

    /// Skips bytes with their length before them; false for null.
    fn skip_nullable(&mut self, end: u64) -> io::Result<bool> {
        let length = self.varint()?;
        let Ok(length) = u64::try_from(length) else {
            return Ok(false);
        };
        if self.taken + length > end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.skip(length)?;
        Ok(true)
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let available = self.reader.fill_buf()?.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = count.min(available as u64);
            self.reader.consume(step as usize);
            self.taken += step;
            count -= step;
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let Some(&byte) = self.reader.fill_buf()?.first() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        self.reader.consume(1);
        self.taken += 1;
        Ok(byte)
    }

    fn unsigned(&mut self, max_bytes: u32) -> io::Result<u64> {
        let mut failure = None;
        let value = read_unsigned(max_bytes, || self.byte().map_err(|error| failure = Some(error)).ok());
        value.ok_or_else(|| failure.unwrap_or(io::ErrorKind::InvalidData.into()))
    }

    fn varint(&mut self) -> io::Result<i32> {
        let raw = u32::try_from(self.unsigned(5)?).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(zigzag_32(raw))
    }

    fn varlong(&mut self) -> io::Result<i64> {
        self.unsigned(10).map(zigzag_64)
    }
}
