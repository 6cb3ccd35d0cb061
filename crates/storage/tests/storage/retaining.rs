use std::sync::Arc;

use expect_test::expect;
use vltava_storage::{Log, LogConfig, LogOptions, StorageError};
use vltava_types::{Offset, TimestampMs};

use crate::batch::{append, config, create, everything, list, read_all, show_epochs, show_segments};

/// Ten segments of 9 records and 329 bytes each, under `change`d settings.
fn log(directory: &std::path::Path, change: impl FnOnce(&mut LogConfig)) -> Log {
    let mut config = LogConfig { segment_bytes: 400, retention_ms: -1, ..config() };
    change(&mut config);
    let mut log = create(&directory.join("orders-0"), config);
    for i in 0..30 {
        append(&mut log, 3, i / 10);
    }
    log
}

#[test]
fn retention_by_time_counts_from_the_youngest_record_of_a_segment() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = log(directory.path(), |config| config.retention_ms = 50);
    let mut delete = |now: i64, high_watermark: i64| {
        log.delete_old_segments(TimestampMs(now), Offset(high_watermark)).expect("deleted").log_start_offset.value()
    };
    assert_eq!(delete(1058, 90), 0);
    assert_eq!(delete(1059, 90), 9);
    assert_eq!(delete(1090, 90), 36);
    assert_eq!(delete(1200, 50), 45, "never beyond the high watermark");
    assert_eq!(delete(1200, 90), 90, "not even the active segment is kept for its age");
    assert_eq!(show_segments(&log), "90:0");
    append(&mut log, 1, 5);
    assert_eq!(log.log_end_offset(), Offset(91));
}

#[test]
fn retention_by_size_keeps_at_least_what_it_says() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = log(directory.path(), |config| config.retention_bytes = 1000);
    log.delete_old_segments(TimestampMs(0), Offset(90)).expect("deleted");
    assert!((1000..1400).contains(&log.size_bytes()), "{}", show_segments(&log));
    log.set_config(Arc::new(LogConfig { retention_bytes: 0, ..LogConfig::clone(log.config()) }));
    log.delete_old_segments(TimestampMs(0), Offset(90)).expect("deleted");
    assert_eq!(show_segments(&log), "90:0", "nothing is to be kept");
    log.delete_old_segments(TimestampMs(0), Offset(90)).expect("deleted");
    assert_eq!(show_segments(&log), "90:0", "an empty active segment stays");
}

#[test]
fn without_bounds_nothing_is_deleted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = log(directory.path(), |config| config.retention_bytes = -1);
    let deleted = log.delete_old_segments(TimestampMs(i64::MAX), Offset(90)).expect("deleted");
    assert_eq!((deleted.segments, log.segments().len()), (0, 10));
    // At run time, and back: what may go next time goes then.
    log.set_config(Arc::new(LogConfig { retention_ms: 0, ..LogConfig::clone(log.config()) }));
    assert_eq!(log.delete_old_segments(TimestampMs(1059), Offset(90)).expect("deleted").segments, 6);
    log.set_config(Arc::new(LogConfig { retention_ms: -1, ..LogConfig::clone(log.config()) }));
    assert_eq!(log.delete_old_segments(TimestampMs(i64::MAX), Offset(90)).expect("deleted").segments, 0);
}

#[test]
fn a_timestamp_in_the_future_keeps_its_segment_and_all_after_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = log(directory.path(), |config| config.retention_ms = 50);
    // All records are from the future of this clock.
    assert_eq!(log.delete_old_segments(TimestampMs(10), Offset(90)).expect("deleted").segments, 0);
    // Size counts all the same.
    log.set_config(Arc::new(LogConfig { retention_bytes: 1000, ..LogConfig::clone(log.config()) }));
    assert!(log.delete_old_segments(TimestampMs(10), Offset(90)).expect("deleted").segments > 0);
}

#[test]
fn trap_19_the_log_start_offset_only_moves_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = log(directory.path(), |config| config.delete_by_retention = false);
    assert!(log.advance_log_start_offset(Offset(40)).expect("in range"));
    assert!(!log.advance_log_start_offset(Offset(20)).expect("ignored"));
    assert!(matches!(log.advance_log_start_offset(Offset(91)), Err(StorageError::OffsetOutOfRange { .. })));
    assert_eq!(log.log_start_offset(), Offset(40));
    assert!(matches!(log.reader().read(Offset(39), everything()), Err(StorageError::OffsetOutOfRange { .. })));
    expect!["1@40 2@60"].assert_eq(&show_epochs(&log));
    let deleted = log.delete_old_segments(TimestampMs(0), Offset(90)).expect("deleted");
    assert_eq!((deleted.segments, deleted.log_start_offset), (4, Offset(40)));
    assert_eq!(log.segments()[0].base_offset, Offset(36));
    log.close().expect("closed");
    drop(log);
    // Without its checkpoint the start offset is only as exact as the segments; with it, it is the old one.
    for (log_start_offset, expected) in [(0, 36), (40, 40)] {
        let options = LogOptions { log_start_offset: Offset(log_start_offset), ..LogOptions::default() };
        let (log, _) = Log::open(&path, Arc::new(config()), options).expect("opened");
        assert_eq!(log.log_start_offset(), Offset(expected));
    }
}

#[test]
fn deleted_files_stay_for_their_readers_and_go_after_the_delay() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = log(directory.path(), |config| config.file_delete_delay_ms = 1000);
    let reader = log.reader();
    let before = read_all(&reader, Offset(0));
    log.advance_log_start_offset(Offset(30)).expect("in range");
    log.delete_old_segments(TimestampMs(5000), Offset(90)).expect("deleted");
    let deleted = |path| list(path).into_iter().filter(|name| name.ends_with(".deleted")).count();
    assert_eq!(deleted(&path), 3 * 3 + 2);
    log.remove_deleted_files(TimestampMs(5999)).expect("too early");
    assert_eq!(deleted(&path), 3 * 3 + 2);
    log.remove_deleted_files(TimestampMs(6000)).expect("removed");
    assert_eq!(deleted(&path), 0);
    assert_eq!(read_all(&reader, Offset(0)), before);
}
