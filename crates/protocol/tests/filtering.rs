//! Batches that lose some of their records to compaction.

use bytes::Bytes;
use proptest::prelude::*;
use vltava_protocol::batch::{
    BatchBuilder, BatchHeader, HEADER_SIZE, Record, TimestampType, batches, empty_batch, records, retain_records,
};
use vltava_protocol::compression::Compression;
use vltava_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
const HORIZON: TimestampMs = TimestampMs(1_800_000_000_000);

#[derive(Clone, Debug)]
struct Written {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    is_kept: bool,
}

fn written() -> impl Strategy<Value = Written> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    (1_700_000_000_000..1_700_000_900_000i64, bytes(), bytes(), any::<bool>())
        .prop_map(|(timestamp, key, value, is_kept)| Written { timestamp, key, value, is_kept })
}

fn batch(codec: Compression, timestamp_type: TimestampType, contents: &[Written]) -> Bytes {
    let mut builder = BatchBuilder::new()
        .compression(codec)
        .timestamp_type(timestamp_type)
        .base_offset(Offset(4_000_000_000))
        .leader_epoch(LeaderEpoch(7))
        .producer(ProducerId(9), ProducerEpoch(2), Sequence(30));
    for record in contents {
        let timestamp = TimestampMs(record.timestamp);
        builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &[(b"h", Some(b"v")), (b"n", None)]);
    }
    builder.build()
}

fn read(batch: &Bytes) -> Vec<Record> {
    records(batch, 1 << 20).expect("a readable batch").map(|record| record.expect("a readable record")).collect()
}

fn check_header(before: &BatchHeader, after: &Bytes) -> BatchHeader {
    let view = batches(after).next().expect("a batch").expect("a whole batch");
    view.verify_crc().expect("an intact batch");
    let after = view.header;
    assert_eq!((after.base_offset, after.last_offset()), (before.base_offset, before.last_offset()));
    assert_eq!(after.partition_leader_epoch, before.partition_leader_epoch);
    assert_eq!((after.producer_id, after.producer_epoch), (before.producer_id, before.producer_epoch));
    assert_eq!((after.base_sequence, after.last_sequence()), (before.base_sequence, before.last_sequence()));
    assert_eq!(after.timestamp_type(), before.timestamp_type());
    after
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_as_it_was(
        contents in prop::collection::vec(written(), 1..20),
        codec in prop::sample::select(&CODECS),
        append_time in any::<bool>(),
        with_horizon in any::<bool>(),
    ) {
        let timestamp_type = if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        let batch = batch(codec, timestamp_type, &contents);
        let header = BatchHeader::parse(&batch).expect("a header");
        let before = read(&batch);
        let is_kept = |record: &Record| contents[(record.offset.value() - 4_000_000_000) as usize].is_kept;
        let expected: Vec<_> = before.iter().filter(|record| is_kept(record)).cloned().collect();
        let retained = retain_records(&batch, 1 << 20, is_kept).expect("readable");
        prop_assert_eq!(retained.is_empty(), expected.is_empty());
        prop_assert_eq!(retained.record_count(), expected.len());
        prop_assert_eq!(retained.has_tombstones(), expected.iter().any(|record| record.value.is_none()));
        let filtered = if retained.is_empty() {
            empty_batch(&header)
        } else {
            retained.into_batch(with_horizon.then_some(HORIZON))
        };
        let after = check_header(&header, &filtered);
        prop_assert_eq!(read(&filtered), expected.clone());
        if expected.is_empty() {
            prop_assert_eq!(filtered.len(), HEADER_SIZE);
            prop_assert_eq!((after.max_timestamp, after.delete_horizon()), (header.max_timestamp, None));
        } else {
            prop_assert_eq!(after.delete_horizon(), with_horizon.then_some(HORIZON));
            let newest = expected.iter().map(|record| record.timestamp).max().expect("some");
            prop_assert_eq!(after.max_timestamp, newest);
            if expected.len() == before.len() && !with_horizon {
                prop_assert_eq!(&filtered, &batch);
            }
            // A second pass keeps the horizon, and nothing changes if nothing goes.
            let again = retain_records(&filtered, 1 << 20, |_| true).expect("readable").into_batch(None);
            prop_assert_eq!(&again, &filtered);
        }
    }
}

#[test]
fn kept_records_are_the_same_bytes() {
    let contents: Vec<_> = (0..3u8)
        .map(|i| Written {
            timestamp: 1_700_000_000_000 + i64::from(i),
            key: Some(vec![i; 5]),
            value: Some(vec![b'a' + i; 50]),
            is_kept: true,
        })
        .collect();
    let batch = batch(Compression::None, TimestampType::CreateTime, &contents);
    let filtered = retain_records(&batch, 1 << 20, |record| record.offset.value() % 2 == 0).expect("readable");
    let filtered = filtered.into_batch(None);
    let record_size = (batch.len() - HEADER_SIZE) / 3;
    let expected = [&batch[HEADER_SIZE..][..record_size], &batch[HEADER_SIZE..][2 * record_size..]].concat();
    assert_eq!(filtered[HEADER_SIZE..], expected);
}
