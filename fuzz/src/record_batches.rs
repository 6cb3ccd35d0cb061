//! Record batches: what a leader validates, what consumers and tools look into, what compaction takes out.
//!
//! The first byte says what to do with the rest, so that mutations reach beyond CRC and codecs: take it as it is, mend
//! the CRCs of a run of batches, or take a header and records and compress these. The second byte is the topic's rules.

use bytes::{Bytes, BytesMut};
use vltava_protocol::batch::{
    BatchHeader, CompressionPolicy, HEADER_SIZE, InvalidBatch, Origin, Record, RecordError, TimestampType,
    ValidationRules, batches, empty_batch, records, retain_records, validate,
};
use vltava_protocol::compression::Compression;
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

use crate::input::{Input, mend_batch, mend_crcs};

/// No batch may unfold to more than this here.
const MAX_UNCOMPRESSED: usize = 4 << 20;
const NOW: TimestampMs = TimestampMs(1_750_000_000_000);
const HORIZON: TimestampMs = TimestampMs(1_760_000_000_000);

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mode, rules) = (input.byte(), input.byte());
    let run = match mode & 0x0f {
        1 => mend_crcs(input.rest()).freeze(),
        2 => mend_batch(input.rest()).freeze(),
        3 => compressed(input.rest(), Compression::from_id(i16::from(mode >> 4) % 5).expect("a codec")),
        _ => Bytes::copy_from_slice(input.rest()),
    };
    for batch in batches(&run) {
        let Ok(batch) = batch else { break };
        let bytes = run.slice(batch.position..batch.position + batch.bytes.len());
        let is_sound = batch.verify_crc().is_ok();
        check_produced(&bytes, rules);
        check_stored(&bytes, is_sound);
    }
}

/// A header, then records that are not compressed yet.
fn compressed(bytes: &[u8], codec: Compression) -> Bytes {
    let (header, body) = bytes.split_at(bytes.len().min(HEADER_SIZE));
    let mut batch = BytesMut::from(header);
    batch.resize(HEADER_SIZE, 0);
    batch.extend_from_slice(&codec.compress(None, body));
    batch[22] = batch[22] & !7 | codec as u8;
    mend_batch(&batch).freeze()
}

/// What may be appended is a sound batch with as many records as it says.
pub fn check_produced(batch: &Bytes, rules: u8) {
    let rules = ValidationRules {
        origin: if rules & 1 == 0 { Origin::Client } else { Origin::Coordinator },
        now: NOW,
        timestamp_type: if rules & 2 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime },
        timestamp_before_max_ms: if rules & 4 == 0 { i64::MAX } else { 86_400_000 },
        timestamp_after_max_ms: if rules & 4 == 0 { i64::MAX } else { 3_600_000 },
        is_compacted: rules & 8 != 0,
        max_message_bytes: 1 << 20,
        compression: match Compression::from_id(i16::from(rules >> 4) % 8) {
            Some(codec) if unfolds_to_little(batch) => CompressionPolicy::Codec { codec, level: None },
            _ => CompressionPolicy::Producer,
        },
    };
    let Ok(mut validated) = validate(batch, &rules) else { return };
    validated.stamp(Offset(1 << 40), LeaderEpoch(7));
    let bytes = validated.to_bytes().freeze();
    let header = BatchHeader::parse(&bytes).expect("a validated batch has a header");
    assert_eq!(header, validated.header, "the header is what was stamped");
    let view = batches(&bytes).next().expect("a batch").expect("a whole batch");
    view.verify_crc().expect("a validated batch has the CRC of its bytes");
    match all_records(&bytes) {
        Ok(found) => {
            assert_eq!(found.len(), header.record_count as usize, "all records are there");
            assert!((1 << 40..).zip(&found).all(|(offset, record)| record.offset == Offset(offset)), "no gaps");
        }
        Err(RecordError::Decompress(_)) if !unfolds_to_little(&bytes) => {}
        Err(error) => panic!("a validated batch cannot be read: {error}"),
    }
    let by_a_follower =
        ValidationRules { origin: Origin::Coordinator, compression: CompressionPolicy::Producer, ..rules };
    match validate(&bytes, &by_a_follower) {
        Ok(_) | Err(InvalidBatch::TooLarge { .. }) => {}
        Err(error) => panic!("what was validated is refused: {error}"),
    }
}

/// Whatever is on disk: it is read or refused, and compaction keeps what it is told to.
fn check_stored(batch: &Bytes, is_sound: bool) {
    let found = all_records(batch);
    let retained = retain_records(batch, MAX_UNCOMPRESSED, |record| record.offset.value() % 2 == 0);
    let (Ok(found), Ok(retained)) = (found, retained) else { return };
    let kept: Vec<Record> = found.into_iter().filter(|record| record.offset.value() % 2 == 0).collect();
    assert_eq!(retained.record_count(), kept.len(), "compaction keeps what it was told to");
    let header = BatchHeader::parse(batch).expect("it was parsed before");
    if retained.is_empty() {
        let empty = empty_batch(&header);
        assert!(all_records(&empty).expect("an empty batch can be read").is_empty());
        return;
    }
    let horizon = (header.delete_horizon().is_none() && retained.has_tombstones()).then_some(HORIZON);
    let rewritten = retained.into_batch(horizon);
    if is_sound || horizon.is_some() {
        assert_eq!(all_records(&rewritten).expect("a rewritten batch can be read"), kept, "records stay as they were");
    }
}

fn all_records(batch: &Bytes) -> Result<Vec<Record>, RecordError> {
    records(batch, MAX_UNCOMPRESSED)?.collect()
}

fn unfolds_to_little(batch: &Bytes) -> bool {
    let Ok(header) = BatchHeader::parse(batch) else { return false };
    let Some(codec) = header.compression() else { return false };
    codec.decompress(&batch.slice(HEADER_SIZE..), MAX_UNCOMPRESSED).is_ok()
}
