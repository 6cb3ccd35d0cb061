use std::sync::Arc;

use expect_test::expect;
use vltava_storage::{LogConfig, ReadLimits, StorageError};
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

use crate::batch::{append, batch, config, create, everything, list, read_all, show, show_batches, show_segments};

#[test]
fn batches_come_back_byte_for_byte_across_segments() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    let mut expected = Vec::new();
    for _ in 0..30 {
        let batch = batch(log.log_end_offset().value(), 3, 5);
        let appended = log.append_as_leader(&batch).expect("appended");
        assert_eq!(appended.last_offset, appended.base_offset.plus(2));
        assert_eq!(appended.max_timestamp, TimestampMs(1000 + appended.last_offset.value()));
        expected.extend_from_slice(&batch);
    }
    assert_eq!(read_all(&log.reader(), Offset(0)), expected);
    assert_eq!(log.size_bytes(), expected.len() as u64);
    expect!["0:944 27:954 54:954 81:318"].assert_eq(&show_segments(&log));
    expect![[r#"
        00000000000000000000.index
        00000000000000000000.log
        00000000000000000000.timeindex
        00000000000000000027.index
        00000000000000000027.log
        00000000000000000027.snapshot
        00000000000000000027.timeindex
        00000000000000000054.index
        00000000000000000054.log
        00000000000000000054.snapshot
        00000000000000000054.timeindex
        00000000000000000081.index
        00000000000000000081.log
        00000000000000000081.snapshot
        00000000000000000081.timeindex
        leader-epoch-checkpoint
        partition.metadata
    "#]]
    .assert_eq(&(list(&path).join("\n") + "\n"));
}

#[test]
fn a_read_begins_with_the_batch_that_contains_the_offset() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    for _ in 0..30 {
        append(&mut log, 3, 0);
    }
    let reader = log.reader();
    for offset in 0..90 {
        let read = reader.read(Offset(offset), everything()).expect("in range");
        let shown = show_batches(&read);
        let base = offset / 3 * 3;
        assert!(shown.starts_with(&format!("{base}..={}@0", base + 2)), "{offset}: {shown}");
    }
    assert!(reader.read(Offset(90), everything()).expect("the end").is_empty());
    assert!(matches!(reader.read(Offset(91), everything()), Err(StorageError::OffsetOutOfRange { .. })));
}

#[test]
fn reads_keep_to_their_limits() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), LogConfig::default());
    for _ in 0..4 {
        append(&mut log, 2, 0);
    }
    let size = log.size_bytes() as usize / 4;
    let check = |offset: i64, max_bytes: usize, end_offset: i64, at_least_one_batch: bool| {
        let limits = ReadLimits { max_bytes, end_offset: Offset(end_offset), at_least_one_batch };
        show_batches(&log.reader().read(Offset(offset), limits).expect("in range"))
    };
    assert_eq!(check(0, 2 * size, 8, false), "0..=1@0 2..=3@0");
    assert_eq!(check(0, 3 * size - 1, 8, false), "0..=1@0 2..=3@0");
    assert_eq!(check(1, 1 << 20, 6, false), "0..=1@0 2..=3@0 4..=5@0");
    assert_eq!(check(1, 1 << 20, 5, false), "0..=1@0 2..=3@0", "a batch beyond the end offset is left out");
    assert_eq!(check(4, 1, 8, true), "4..=5@0");
    assert_eq!(check(4, 1, 8, false), "");
    assert_eq!(check(4, 1, 5, true), "");
    assert_eq!(check(6, 1 << 20, 6, true), "");
}

#[test]
fn a_leader_refuses_gaps_and_a_follower_keeps_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    append(&mut log, 2, 3);
    assert!(matches!(log.append_as_leader(&batch(3, 1, 3)), Err(StorageError::InvalidAppend { .. })));
    assert!(matches!(log.append_as_follower(&batch(1, 1, 3)), Err(StorageError::InvalidAppend { .. })));
    assert!(matches!(log.append_as_follower(&batch(2, 1, 2)), Err(StorageError::InvalidAppend { .. })));
    let cut = batch(2, 1, 3);
    assert!(matches!(log.append_as_follower(&cut[..cut.len() - 1]), Err(StorageError::InvalidAppend { .. })));
    assert!(matches!(log.append_as_follower(&[]), Err(StorageError::InvalidAppend { .. })));
    expect!["0..=1@3"].assert_eq(&show(&log));
    log.append_as_follower(&batch(7, 2, 3)).expect("appended");
    log.append_as_leader(&[batch(9, 1, 3), batch(10, 1, 4)].concat()).expect("appended");
    expect!["0..=1@3 7..=8@3 9..=9@3 10..=10@4"].assert_eq(&show(&log));
    let read = log.reader().read(Offset(4), everything()).expect("in range");
    assert!(show_batches(&read).starts_with("7..=8@3"), "a read within a gap goes on after it");
}

#[test]
fn one_append_may_fill_several_segments() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), LogConfig { segment_bytes: 250, ..config() });
    let batches: Vec<_> = (0..7).map(|i| batch(i * 2, 2, 0)).collect();
    let appended = log.append_as_leader(&batches.concat()).expect("appended");
    assert!(appended.rolled);
    assert_eq!(read_all(&log.reader(), Offset(0)), batches.concat());
    expect!["0:178 4:178 8:180 12:91"].assert_eq(&show_segments(&log));
}

#[test]
fn segments_roll_by_the_time_between_batches_and_by_offset_range() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = LogConfig { segment_ms: 100, ..LogConfig::default() };
    let mut log = create(&directory.path().join("orders-0"), config);
    append(&mut log, 101, 0);
    append(&mut log, 100, 0);
    append(&mut log, 1, 0);
    let far = i64::from(i32::MAX) * 2;
    log.append_as_follower(&batch(far, 1, 0)).expect("appended");
    let bases: Vec<_> = log.segments().iter().map(|segment| segment.base_offset.value()).collect();
    assert_eq!(bases, [0, 201, far]);
}

#[test]
fn a_full_index_rolls_the_segment() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = LogConfig { segment_index_bytes: 60, index_interval_bytes: 0, ..LogConfig::default() };
    let mut log = create(&directory.path().join("orders-0"), config);
    for _ in 0..12 {
        append(&mut log, 1, 0);
    }
    let bases: Vec<_> = log.segments().iter().map(|segment| segment.base_offset.value()).collect();
    assert_eq!(bases, [0, 5, 10]);
}

#[test]
fn lookups_by_time_find_the_first_record_that_is_not_older() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    assert_eq!(log.reader().max_timestamp().expect("readable"), None);
    for _ in 0..30 {
        append(&mut log, 3, 7);
    }
    let reader = log.reader();
    for offset in 0..90 {
        let found = reader.offset_for_timestamp(TimestampMs(1000 + offset), Offset(90)).expect("readable");
        let found = found.expect("there is one");
        assert_eq!((found.offset, found.leader_epoch), (Offset(offset), LeaderEpoch(7)));
    }
    let at = |timestamp, end| reader.offset_for_timestamp(TimestampMs(timestamp), Offset(end)).expect("readable");
    assert_eq!(at(0, 90).map(|found| found.offset), Some(Offset(0)));
    assert_eq!(at(1090, 90), None);
    assert_eq!(at(1050, 50), None, "the record is not below the end offset");
    let largest = reader.max_timestamp().expect("readable").expect("not empty");
    assert_eq!((largest.offset, largest.timestamp), (Offset(89), TimestampMs(1089)));
}

#[test]
fn an_offsets_time_is_that_of_its_batchs_first_record() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    for _ in 0..30 {
        append(&mut log, 3, 7);
    }
    log.advance_log_start_offset(Offset(10)).expect("advanced");
    let reader = log.reader();
    let at = |offset, end| reader.timestamp_at(Offset(offset), Offset(end)).expect("readable").map(TimestampMs::value);
    assert_eq!([at(12, 90), at(13, 90), at(14, 90), at(15, 90)], [Some(1012), Some(1012), Some(1012), Some(1015)]);
    assert_eq!(at(0, 90), Some(1009), "what was deleted waits for nobody");
    assert_eq!(at(30, 30), None, "not below the end offset");
    assert_eq!(at(90, 91), None, "nothing is there yet");
}

#[test]
fn a_reader_sees_the_log_as_it_was() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    append(&mut log, 3, 0);
    let reader = log.reader();
    for _ in 0..30 {
        append(&mut log, 3, 0);
    }
    assert_eq!(show_batches(&read_all(&reader, Offset(0))), "0..=2@0");
    assert_eq!(reader.log_end_offset(), Offset(3));
}

#[test]
fn trap_26_a_changed_bit_is_not_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, LogConfig::default());
    append(&mut log, 3, 0);
    let first_size = log.size_bytes() as usize;
    append(&mut log, 3, 0);
    let file = path.join("00000000000000000000.log");
    let mut bytes = vltava_host::fs::read(&file).expect("readable");
    bytes[first_size + 70] ^= 1;
    vltava_host::fs::write(&file, bytes).expect("written");
    assert!(matches!(log.reader().read(Offset(3), everything()), Err(StorageError::Corrupt { .. })));
    // What lies before it is sound, however much is asked for.
    let limits = ReadLimits { max_bytes: first_size, ..everything() };
    for limits in [limits, everything()] {
        assert_eq!(show_batches(&log.reader().read(Offset(0), limits).expect("intact")), "0..=2@0");
    }
}

#[test]
fn a_log_of_another_kind_leaves_no_trace_in_epochs_and_producers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("__cluster_metadata-0"), config());
    append(&mut log, 1, -1);
    log.flush().expect("flushed");
    assert_eq!(log.recovery_point(), Offset(1));
    assert!(log.epochs().entries().is_empty());
    assert!(log.producers().is_empty());
    assert_eq!(Arc::strong_count(log.config()), 1);
}
