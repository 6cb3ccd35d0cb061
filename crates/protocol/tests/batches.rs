//! Stories about record batches: those of real clients, those that a leader must refuse, and those made to harm.

use bytes::{Bytes, BytesMut};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use vltava_protocol::batch::{
    BatchBuilder, BatchError, BatchHeader, CompressionPolicy, ControlKind, HEADER_SIZE, Origin, Record, TimestampType,
    ValidationRules, batches, records, stamp, validate, validate_produce_format,
};
use vltava_protocol::compression::Compression;
use vltava_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

const NOW: TimestampMs = TimestampMs(1_700_000_000_500);
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn captured() -> Vec<(&'static str, Bytes)> {
    include_str!("captured_batches.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.split_once(": ").expect("name: hex");
            let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            (name, (0..hex.len()).step_by(2).map(digit).collect())
        })
        .collect()
}

fn rules() -> ValidationRules {
    ValidationRules {
        origin: Origin::Client,
        now: NOW,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        is_compacted: false,
        max_message_bytes: 1_048_588,
        compression: CompressionPolicy::Producer,
    }
}

fn read(batch: &Bytes) -> Vec<Record> {
    records(batch, 1 << 20).expect("a readable batch").map(|record| record.expect("a readable record")).collect()
}

fn text(bytes: Option<&Bytes>) -> String {
    bytes.map_or("null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

#[test]
fn batches_of_real_clients_read_the_same_in_every_codec() {
    for (name, batch) in captured() {
        let header = BatchHeader::parse(&batch).expect("a header");
        assert_eq!(header.compression().expect("a codec").name(), name.rsplit(' ').next().expect("a codec"), "{name}");
        let mut told = String::new();
        for record in read(&batch) {
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|header| format!("{}={}", text(Some(&header.key)), text(header.value.as_ref())))
                .collect();
            let value = text(record.value.as_ref());
            told += &format!(
                "{} {} {} ..{} {headers:?}\n",
                record.offset,
                record.timestamp,
                text(record.key.as_ref()),
                &value[value.len() - 7..]
            );
        }
        expect![[r#"
            0 1700000000000 key-0 ..value 0 []
            1 1700000000001 key-1 ..value 1 ["h=1", "h=null"]
            2 1700000000002 key-2 ..value 2 []
        "#]]
        .assert_eq(&told);
    }
}

#[test]
fn batches_of_real_clients_are_appended_as_they_came() {
    for (name, batch) in captured() {
        let format = validate_produce_format(9, &batch).expect(name);
        let mut validated = validate(&format, &rules()).expect(name);
        assert_eq!(validated.max_timestamp_offset_delta, 2, "{name}");
        assert_eq!(validated.to_bytes(), batch, "{name}");
        validated.stamp(Offset(40), LeaderEpoch(7));
        let appended = validated.to_bytes().freeze();
        assert_eq!(appended[16..], batch[16..], "{name}");
        let view = batches(&appended).next().expect("a batch").expect("a whole batch");
        view.verify_crc().expect("the crc does not cover what the leader writes");
        assert_eq!((view.header.last_offset(), view.header.partition_leader_epoch), (Offset(42), LeaderEpoch(7)));
    }
}

#[test]
fn an_idempotent_producer_s_batch_says_so() {
    let (_, batch) = captured().into_iter().find(|(name, _)| *name == "librdkafka none").expect("captured");
    let header = BatchHeader::parse(&batch).expect("a header");
    assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(4000), ProducerEpoch(0)));
    assert_eq!((header.base_sequence, header.last_sequence()), (Sequence(0), Sequence(2)));
    assert!(header.has_producer_id() && !header.is_transactional() && !header.is_control());
}

#[test]
fn log_append_time_replaces_timestamps_and_the_crc_follows() {
    for (name, batch) in captured() {
        let rules = ValidationRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let appended = validate(&batch, &rules).expect(name).to_bytes().freeze();
        batches(&appended).next().expect("a batch").expect("whole").verify_crc().expect(name);
        assert!(read(&appended).iter().all(|record| record.timestamp == NOW), "{name}");

        let mut in_place = BytesMut::from(&batch[..]);
        stamp::set_max_timestamp(&mut in_place, TimestampType::LogAppendTime, NOW);
        assert_eq!(in_place, appended, "{name}");
    }
}

#[test]
fn a_topic_s_own_codec_compresses_anew_and_keeps_the_records() {
    for (name, batch) in captured() {
        for codec in CODECS {
            let rules = ValidationRules { compression: CompressionPolicy::Codec { codec, level: None }, ..rules() };
            let appended = validate(&batch, &rules).expect(name).to_bytes().freeze();
            let view = batches(&appended).next().expect("a batch").expect("whole");
            view.verify_crc().expect(name);
            assert_eq!(view.header.compression(), Some(codec));
            assert_eq!(read(&appended), read(&batch), "{name} as {}", codec.name());
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for (name, batch) in captured() {
        // What the CRC does not cover is checked by value.
        for position in (0..8).chain(17..batch.len()) {
            let mut damaged = BytesMut::from(&batch[..]);
            damaged[position] ^= 0x10;
            assert!(validate(&damaged.freeze(), &rules()).is_err(), "{name} at {position}");
        }
    }
}

fn batch_of(builder: BatchBuilder, keys: &[Option<&str>]) -> Bytes {
    let mut builder = builder;
    for key in keys {
        builder.append(NOW, key.map(str::as_bytes), Some(b"value"), &[]);
    }
    builder.build()
}

/// Overwrites bytes of the header and sets the CRC that belongs to them.
fn patched(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut patched = BytesMut::from(&batch[..]);
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    stamp::set_crc(&mut patched);
    patched.freeze()
}

fn check(batch: &Bytes, rules: &ValidationRules, expected: Expect) {
    let told = match validate_produce_format(9, batch).and_then(|batch| validate(&batch, rules)) {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let records: Vec<_> = error.record_errors().iter().map(|record| record.batch_index).collect();
            format!("{}: {error} {records:?}", error.error_code())
        }
    };
    expected.assert_eq(&told);
}

#[test]
fn a_leader_refuses_what_kafka_refuses() {
    let plain = batch_of(BatchBuilder::new(), &[Some("a"), None, Some("b"), None]);
    check(&plain, &rules(), expect!["ok"]);
    check(
        &plain,
        &ValidationRules { is_compacted: true, ..rules() },
        expect!["INVALID_RECORD: One or more records have been rejected due to 2 record errors in total [1, 3]"],
    );
    check(
        &plain,
        &ValidationRules { now: TimestampMs(NOW.0 - 3_600_001), ..rules() },
        expect!["INVALID_TIMESTAMP: One or more records have been rejected due to invalid timestamp [0, 1, 2, 3]"],
    );
    check(
        &plain,
        &ValidationRules { now: TimestampMs(NOW.0 + 1001), timestamp_before_max_ms: 1000, ..rules() },
        expect!["INVALID_TIMESTAMP: One or more records have been rejected due to invalid timestamp [0, 1, 2, 3]"],
    );
    check(
        &plain,
        &ValidationRules { max_message_bytes: 80, ..rules() },
        expect![
            "MESSAGE_TOO_LARGE: The record batch size in the append is 111 bytes which exceeds the maximum configured value of 80. []"
        ],
    );
    check(
        &patched(&plain, 0, &5i64.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: The baseOffset of the record batch in the append should be 0, but it is 5 []"],
    );
    check(
        &patched(&plain, 57, &3i32.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Inconsistent batch offset range [0, 3] and count of records 3 []"],
    );
    check(
        &patched(&patched(&plain, 57, &5i32.to_be_bytes()), 23, &4i32.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Invalid record in the batch: record 4 ends beyond the batch []"],
    );
    check(
        &patched(&patched(&plain, 57, &3i32.to_be_bytes()), 23, &2i32.to_be_bytes()),
        &rules(),
        expect![
            "INVALID_RECORD: Invalid record in the batch: 3 records are announced, and the batch has more bytes than they need []"
        ],
    );
    check(
        &patched(&plain, 57, &0i32.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Invalid reported count for record batch: 0 []"],
    );
    check(
        &patched(&plain, 23, &(-1i32).to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Invalid record in the batch: last offset delta -1 is negative []"],
    );
    check(
        &patched(&plain, 43, &7i64.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Invalid sequence number -1 in record batch with producerId 7 []"],
    );
    check(
        &patched(&plain, 21, &0x08i16.to_be_bytes()),
        &rules(),
        expect!["INVALID_TIMESTAMP: One or more records have been rejected due to invalid timestamp [0, 1, 2, 3]"],
    );
    check(
        &patched(&plain, 21, &0x05i16.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Invalid record in the batch: codec 5 is not defined []"],
    );
    check(
        &patched(&plain, 21, &0x04i16.to_be_bytes()),
        &rules(),
        expect!["INVALID_RECORD: Invalid record in the batch: record 0 ends beyond the batch []"],
    );
    check(
        &patched(&plain, 16, &[1]),
        &rules(),
        expect![
            "INVALID_RECORD: Produce requests with version 9 are only allowed to contain record batches with magic version 2 []"
        ],
    );
    let two = Bytes::from([&plain[..], &plain[..]].concat());
    check(
        &two,
        &rules(),
        expect!["INVALID_RECORD: Produce requests with version 9 must have exactly one record batch per partition []"],
    );
    check(
        &Bytes::new(),
        &rules(),
        expect!["INVALID_RECORD: Produce requests with version 9 must have exactly one record batch per partition []"],
    );
    check(
        &patched(&plain, 8, &3i32.to_be_bytes()),
        &rules(),
        expect!["CORRUPT_MESSAGE: Record is corrupt: batch length 3 is too small for a batch []"],
    );
    let mut damaged = BytesMut::from(&plain[..]);
    damaged[70] ^= 1;
    let told = validate(&damaged.freeze(), &rules()).expect_err("a wrong crc").error_code();
    assert_eq!(told, vltava_types::ErrorCode::CorruptMessage);
}

#[test]
fn zstd_needs_produce_7_and_control_records_a_coordinator() {
    let zstd = batch_of(BatchBuilder::new().compression(Compression::Zstd), &[Some("a")]);
    let refused = validate_produce_format(6, &zstd).expect_err("too early");
    assert_eq!(refused.error_code(), vltava_types::ErrorCode::UnsupportedCompressionType);
    validate_produce_format(7, &zstd).expect("zstd");

    let mut marker =
        BatchBuilder::new().control().transactional().producer(ProducerId(9), ProducerEpoch(1), Sequence::NONE);
    marker.append_control(NOW, ControlKind::Commit, &[0, 0, 0, 0, 0, 3]);
    let marker = marker.build();
    check(&marker, &rules(), expect!["INVALID_RECORD: Clients are not allowed to write control records []"]);
    validate(&marker, &ValidationRules { origin: Origin::Coordinator, is_compacted: true, ..rules() })
        .expect("a coordinator may");
    let key = read(&marker)[0].key.clone().expect("a key");
    assert_eq!(ControlKind::from_key(&key), Some(ControlKind::Commit));
}

#[test]
fn a_bomb_is_read_in_bounded_memory() {
    let zeros = vec![0u8; 32 << 20];
    let mut builder = BatchBuilder::new().compression(Compression::Zstd);
    builder.append(NOW, None, Some(&zeros), &[]);
    let bomb = builder.build();
    assert!(bomb.len() < 64 * 1024);
    validate(&bomb, &rules()).expect("large, but sound");
    assert!(records(&bomb, 1 << 20).is_err(), "a reader says how much it will hold");
}

#[test]
fn a_walk_ends_where_the_buffer_cuts_a_batch() {
    let one = batch_of(BatchBuilder::new(), &[Some("a")]);
    let two = batch_of(BatchBuilder::new().base_offset(Offset(1)), &[Some("b"), Some("c")]);
    let both = [&one[..], &two[..]].concat();
    for end in 0..=both.len() {
        let mut walk = batches(&both[..end]);
        let whole: Vec<_> = walk.by_ref().filter_map(Result::ok).map(|batch| batch.header.base_offset.0).collect();
        let expected: &[i64] = if end == both.len() {
            &[0, 1]
        } else if end >= one.len() {
            &[0]
        } else {
            &[]
        };
        assert_eq!(whole, expected, "cut at {end}");
        assert_eq!(walk.position(), whole.iter().map(|&i| [one.len(), two.len()][i as usize]).sum::<usize>());
        assert!(walk.next().is_none());
    }
    let cut = batches(&one[..HEADER_SIZE - 1]).next().expect("something").expect_err("cut");
    assert_eq!(cut, BatchError::Incomplete { needed: HEADER_SIZE, available: HEADER_SIZE - 1 });
}

prop_compose! {
    fn any_record()(
        timestamp in 0i64..2_000_000_000_000,
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        headers in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..8),
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8))),
            0..4,
        ),
    ) -> (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        (timestamp, key, value, headers)
    }
}

proptest! {
    #[test]
    fn what_is_built_reads_back(
        made in proptest::collection::vec(any_record(), 1..20),
        codec in 0usize..5,
        base_offset in 0i64..i64::MAX / 2,
    ) {
        let mut builder = BatchBuilder::new().compression(CODECS[codec]).base_offset(Offset(base_offset));
        for (timestamp, key, value, headers) in &made {
            let headers: Vec<_> = headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            builder.append(TimestampMs(*timestamp), key.as_deref(), value.as_deref(), &headers);
        }
        let batch = builder.build();
        let view = batches(&batch).next().expect("a batch").expect("whole");
        view.verify_crc().expect("a sound crc");
        prop_assert_eq!(&view.header.to_bytes()[..], &batch[..HEADER_SIZE]);
        let read = read(&batch);
        prop_assert_eq!(read.len(), made.len());
        for (i, (record, (timestamp, key, value, headers))) in read.iter().zip(&made).enumerate() {
            prop_assert_eq!(record.offset, Offset(base_offset + i as i64));
            prop_assert_eq!(record.timestamp.0, *timestamp);
            prop_assert_eq!(record.key.as_deref(), key.as_deref());
            prop_assert_eq!(record.value.as_deref(), value.as_deref());
            let headers_read: Vec<_> =
                record.headers.iter().map(|header| (header.key.to_vec(), header.value.as_deref().map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(&headers_read, headers);
        }
        let coordinator = ValidationRules {
            origin: Origin::Coordinator, timestamp_after_max_ms: i64::MAX, ..rules()
        };
        let validated = validate(&batch, &coordinator).expect("a sound batch");
        let newest = made.iter().map(|record| record.0).max().expect("a record");
        prop_assert_eq!(validated.header.max_timestamp.0, newest);
        let at = validated.max_timestamp_offset_delta as usize;
        prop_assert_eq!(made[at].0, newest);
        prop_assert!(made[..at].iter().all(|record| record.0 < newest));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        for batch in batches(&bytes) {
            let _ = batch.map(|batch| batch.verify_crc());
        }
        let _ = records(&bytes, 1 << 16).map(|records| records.count());
        let _ = validate_produce_format(9, &bytes);
        for codec in CODECS {
            let _ = codec.decompress(&bytes, 1 << 16);
        }
    }

    #[test]
    fn random_bodies_with_a_sound_crc_never_panic(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        attributes in 0i16..64,
        count in -2i32..40,
    ) {
        let mut batch = BytesMut::from(&batch_of(BatchBuilder::new(), &[])[..]);
        batch.extend_from_slice(&body);
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
        batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        stamp::set_crc(&mut batch);
        let batch = batch.freeze();
        let _ = validate(&batch, &rules());
        let _ = validate(&batch, &ValidationRules { origin: Origin::Coordinator, ..rules() });
        let _ = records(&batch, 1 << 16).map(|records| records.count());
    }

    #[test]
    fn mutated_batches_of_real_clients_never_panic(
        which in 0usize..10, position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let (_, batch) = captured().swap_remove(which);
        let mut damaged = BytesMut::from(&batch[..]);
        let position = position.index(damaged.len());
        damaged[position] = byte;
        stamp::set_crc(&mut damaged);
        let damaged = damaged.freeze();
        let _ = validate(&damaged, &rules());
        let _ = records(&damaged, 1 << 20).map(|records| records.count());
        let cut = damaged.slice(..cut.index(damaged.len()));
        let _ = validate(&cut, &rules());
        let _ = records(&cut, 1 << 20).map(|records| records.count());
    }
}
