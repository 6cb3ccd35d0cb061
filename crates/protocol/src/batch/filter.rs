//! A batch without some of its records, as log compaction writes it.
//!
//! What stays keeps its offset, its timestamp and its bytes; the batch keeps its range of offsets, its producer and its
//! sequences, so that followers, consumers and producer states see gaps and nothing else (KIP-98, KIP-534).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_types::TimestampMs;

use super::builder::{put_varint, put_varlong};
use super::header::{Attributes, BatchError, BatchHeader, HEADER_SIZE, LOG_OVERHEAD, TimestampType};
use super::records::{Record, RecordError, get_varint, get_varlong, known_compression, read_record};
use super::stamp;
use crate::compression::Compression;

/// What is left of a batch; see [`retain_records`].
#[derive(Debug)]
pub struct RetainedRecords {
    batch: Bytes,
    header: BatchHeader,
    kept: Vec<KeptRecord>,
    /// Whether all records are.
    is_whole: bool,
    has_tombstones: bool,
}

/// A record as it stands in the (uncompressed) batch, its length included.
#[derive(Debug)]
struct KeptRecord {
    bytes: Bytes,
    timestamp: TimestampMs,
}

/// Asks of each record of one whole batch whether to keep it. The batch is decompressed into at most `max_uncompressed`
/// bytes; its CRC is the caller's business.
pub fn retain_records(
    batch: &Bytes,
    max_uncompressed: usize,
    mut keep: impl FnMut(&Record) -> bool,
) -> Result<RetainedRecords, RecordError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() < header.size() {
        return Err(BatchError::Incomplete { needed: header.size(), available: batch.len() }.into());
    }
    let count =
        usize::try_from(header.record_count).map_err(|_| RecordError::NegativeCount { count: header.record_count })?;
    let compression = known_compression(&header)?;
    let body = batch.slice(HEADER_SIZE..header.size());
    // The batch that is left when all records are gone has no body, whatever its codec.
    let mut rest = if count == 0 { body } else { compression.decompress(&body, max_uncompressed)? };
    let mut retained = RetainedRecords {
        batch: batch.slice(..header.size()),
        header,
        kept: Vec::new(),
        is_whole: true,
        has_tombstones: false,
    };
    for index in 0..count {
        let before = rest.clone();
        let record = read_record(&header, &mut rest, index)?;
        if keep(&record) {
            retained.has_tombstones |= record.value.is_none();
            let bytes = before.slice(..before.len() - rest.len());
            retained.kept.push(KeptRecord { bytes, timestamp: record.timestamp });
        } else {
            retained.is_whole = false;
        }
    }
    if rest.has_remaining() {
        return Err(RecordError::TrailingBytes { count: header.record_count });
    }
    Ok(retained)
}

impl RetainedRecords {
    /// Whether no record is left (or there never was one).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether a record that is kept has no value.
    #[must_use]
    pub const fn has_tombstones(&self) -> bool {
        self.has_tombstones
    }

    #[must_use]
    pub const fn record_count(&self) -> usize {
        self.kept.len()
    }

    /// The batch of what is kept: the very bytes that were given if that is everything. `delete_horizon` is when its
    /// tombstones, or its marker, may go; it takes the place of the base timestamp, so that the records' timestamps are
    /// then written as differences to it. `None` leaves a horizon that the batch has.
    ///
    /// Asserts that something is kept: see [`empty_batch`] for nothing.
    #[must_use]
    pub fn into_batch(self, delete_horizon: Option<TimestampMs>) -> Bytes {
        assert!(!self.is_empty(), "a batch without records is written by its header alone");
        if self.is_whole && delete_horizon.is_none() {
            return self.batch;
        }
        let mut header = self.header;
        let mut body = BytesMut::new();
        for record in &self.kept {
            match delete_horizon {
                // Where the broker gave the timestamps, they stand in the header alone.
                Some(horizon) if header.timestamp_type() == TimestampType::CreateTime => {
                    put_with_timestamp_delta(&mut body, &record.bytes, record.timestamp.0.wrapping_sub(horizon.0));
                }
                _ => body.put_slice(&record.bytes),
            }
        }
        let compression = header.compression().expect("the codec was known when the batch was read");
        let body = match compression {
            Compression::None => body.freeze(),
            codec => Bytes::from(codec.compress(None, &body)),
        };
        header.length = i32::try_from(HEADER_SIZE - LOG_OVERHEAD + body.len()).expect("a batch stays far below 2 GiB");
        header.record_count = i32::try_from(self.kept.len()).expect("no more than there were");
        if header.timestamp_type() == TimestampType::CreateTime {
            let newest = self.kept.iter().map(|record| record.timestamp).max();
            header.max_timestamp = newest.expect("there is a record");
        }
        if let Some(horizon) = delete_horizon {
            header.attributes = header.attributes.with_delete_horizon();
            header.base_timestamp = horizon;
        }
        let mut batch = BytesMut::with_capacity(HEADER_SIZE + body.len());
        batch.put_bytes(0, HEADER_SIZE);
        batch.put_slice(&body);
        stamp::set_header(&mut batch, &header);
        batch.freeze()
    }
}

/// The batch without its records: it keeps the range of offsets and the producer's sequences.
#[must_use]
pub fn empty_batch(header: &BatchHeader) -> Bytes {
    let empty = BatchHeader {
        length: (HEADER_SIZE - LOG_OVERHEAD) as i32,
        attributes: Attributes::new(
            Compression::None,
            header.timestamp_type(),
            header.is_transactional(),
            header.is_control(),
        ),
        base_timestamp: TimestampMs::NONE,
        record_count: 0,
        ..*header
    };
    let mut batch = BytesMut::zeroed(HEADER_SIZE);
    stamp::set_header(&mut batch, &empty);
    batch.freeze()
}

/// Copies a record that was read before, with another timestamp delta.
fn put_with_timestamp_delta(body: &mut BytesMut, record: &Bytes, timestamp_delta: i64) {
    let mut fields = record.clone();
    let read = "the record was read before";
    get_varint(&mut fields).expect(read);
    let attributes = fields.get_i8();
    get_varlong(&mut fields).expect(read);
    let mut start = BytesMut::with_capacity(11);
    start.put_i8(attributes);
    put_varlong(&mut start, timestamp_delta);
    put_varint(body, i32::try_from(start.len() + fields.len()).expect("a record stays far below 2 GiB"));
    body.put_slice(&start);
    body.put_slice(&fields);
}
