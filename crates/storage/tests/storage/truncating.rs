use std::sync::Arc;

use expect_test::expect;
use vltava_replication::ProducerStates;
use vltava_storage::{Log, LogConfig, LogOptions, StorageError};
use vltava_types::{LeaderEpoch, Offset};

use crate::batch::{append, batch, config, create, everything, idempotent, read_all, show, show_epochs, show_segments};

#[test]
fn truncation_drops_the_whole_batch_that_contains_the_offset() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (offset, end) in [(90, 90), (89, 87), (88, 87), (87, 87), (61, 60), (60, 60), (57, 57), (1, 0), (0, 0)] {
        let path = directory.path().join(format!("orders-{offset}"));
        let mut log = create(&path, config());
        for _ in 0..30 {
            append(&mut log, 3, 0);
        }
        log.flush().expect("flushed");
        let before = read_all(&log.reader(), Offset(0));
        assert_eq!(log.truncate_to(Offset(offset)).expect("truncated"), Offset(end));
        assert_eq!((log.log_end_offset(), log.recovery_point()), (Offset(end), Offset(end)));
        let after = read_all(&log.reader(), Offset(0));
        assert!(before.starts_with(&after));
        // The log goes on, and lookups still work.
        for _ in 0..30 {
            append(&mut log, 3, 1);
        }
        let reader = log.reader();
        for offset in (0..end + 90).step_by(3) {
            let read = reader.read(Offset(offset), everything()).expect("in range");
            assert_eq!(i64::from_be_bytes(read[..8].try_into().expect("8 bytes")), offset);
        }
        drop(log);
        let (log, report) = Log::open(&path, Arc::new(config()), LogOptions::default()).expect("opened");
        assert_eq!((log.log_end_offset(), report.bytes_cut), (Offset(end + 90), 0));
    }
}

#[test]
fn trap_01_epochs_are_truncated_with_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for epoch in [1, 1, 2, 4, 4, 7] {
        append(&mut log, 10, epoch);
    }
    log.begin_leader_epoch(LeaderEpoch(9));
    expect!["1@0 2@20 4@30 7@50 9@60"].assert_eq(&show_epochs(&log));
    log.truncate_to(Offset(40)).expect("truncated");
    expect!["1@0 2@20 4@30"].assert_eq(&show_epochs(&log));
    drop(log);
    let (log, _) = Log::open(&path, Arc::new(config()), LogOptions::default()).expect("opened");
    expect!["1@0 2@20 4@30"].assert_eq(&show_epochs(&log));
}

/// A leadership that wrote nothing leaves its epoch at the log end, where no record goes.
#[test]
fn trap_02_an_epoch_without_records_is_truncated_too() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    append(&mut log, 10, 1);
    append(&mut log, 10, 4);
    log.begin_leader_epoch(LeaderEpoch(9));
    log.flush().expect("flushed");
    let reader = log.reader();
    assert_eq!(log.truncate_to(Offset(20)).expect("truncated"), Offset(20));
    expect!["1@0 4@10"].assert_eq(&show_epochs(&log));
    assert_eq!(log.recovery_point(), Offset(20));
    assert_eq!(read_all(&reader, Offset(0)), read_all(&log.reader(), Offset(0)));
    drop(log);
    let (log, _) = Log::open(&path, Arc::new(config()), LogOptions::default()).expect("opened");
    expect!["1@0 4@10"].assert_eq(&show_epochs(&log));
}

#[test]
fn trap_20_producers_are_truncated_with_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    let mut states: Vec<(Offset, ProducerStates)> = Vec::new();
    for i in 0..40 {
        states.push((log.log_end_offset(), log.producers().clone()));
        let batch = idempotent(log.log_end_offset().value(), 2, 7 + i % 3, i as i32 / 3 * 2);
        log.append_as_leader(&batch).expect("appended");
    }
    for (offset, expected) in states.into_iter().rev() {
        log.truncate_to(offset).expect("truncated");
        assert_eq!(log.producers(), &expected, "at {offset}");
    }
}

#[test]
fn a_log_can_start_over_at_any_offset() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for _ in 0..30 {
        append(&mut log, 3, 2);
    }
    log.truncate_fully_and_start_at(Offset(500)).expect("emptied");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(500), Offset(500)));
    expect![""].assert_eq(&show_epochs(&log));
    append(&mut log, 3, 6);
    expect!["500..=502@6"].assert_eq(&show(&log));
    expect!["500:109"].assert_eq(&show_segments(&log));
    assert_eq!(log.truncate_to(Offset(20)).expect("truncated"), Offset(20));
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(20), Offset(20)));
}

#[test]
fn a_reader_notices_a_truncation() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), LogConfig::default());
    for _ in 0..3 {
        append(&mut log, 3, 1);
    }
    let reader = log.reader();
    log.truncate_to(Offset(3)).expect("truncated");
    log.append_as_leader(&batch(3, 6, 2)).expect("appended");
    assert!(matches!(reader.read(Offset(0), everything()), Err(StorageError::Truncated)));
    expect!["0..=2@1 3..=8@2"].assert_eq(&show(&log));
}

#[test]
fn a_flush_under_way_proves_nothing_after_a_truncation() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), LogConfig::default());
    append(&mut log, 9, 1);
    let flush = log.begin_flush().expect("dirty");
    log.truncate_to(Offset(0)).expect("truncated");
    append(&mut log, 9, 2);
    flush.run().expect("flushed");
    assert_eq!(log.end_flush(&flush), Offset(0));
    log.flush().expect("flushed");
    assert_eq!(log.recovery_point(), Offset(9));
    assert!(log.begin_flush().is_none());
}
