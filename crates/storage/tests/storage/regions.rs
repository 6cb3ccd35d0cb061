use std::sync::Arc;

use vltava_host::fs::FileExt as _;
use vltava_protocol::batch::batches;
use vltava_storage::{FileRegion, Log, LogConfig, LogOptions, LogReader, ReadLimits, WarmRead};
use vltava_types::Offset;

use crate::batch::{append, config, create, everything, show_batches};

fn bytes_of(region: &FileRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.len()];
    region.file().read_exact_at(&mut bytes, region.position()).expect("the region lies in the file");
    bytes
}

fn region(reader: &LogReader, offset: i64, limits: ReadLimits, min_bytes: usize) -> Option<FileRegion> {
    match reader.read_warm(Offset(offset), limits, min_bytes, usize::MAX).expect("in range") {
        WarmRead::Region(region) => Some(region),
        WarmRead::Bytes(bytes) => {
            let read = reader.read(Offset(offset), limits).expect("in range");
            assert_eq!(bytes, read, "from {offset} with {limits:?}");
            None
        }
        // The system may evict anything at any time.
        WarmRead::Cold => panic!("what was written just now is cold"),
    }
}

/// The region, after it was held against what a read returns.
fn check(reader: &LogReader, offset: i64, limits: ReadLimits) -> Option<FileRegion> {
    let read = reader.read(Offset(offset), limits).expect("in range");
    let region = region(reader, offset, limits, 1)?;
    assert_eq!(show_batches(&bytes_of(&region)), show_batches(&read), "from {offset} with {limits:?}");
    Some(region)
}

#[test]
fn a_region_is_what_a_read_returns() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    for count in [1, 3, 1, 7, 2, 2, 2, 20, 9, 20, 1, 1, 1, 5, 30, 3, 3, 20, 1] {
        append(&mut log, count, 0);
    }
    assert!(log.segments().len() > 3);
    let reader = log.reader();
    let end = log.log_end_offset().value();
    let mut found = 0;
    for offset in 0..end {
        for end_offset in (offset..=end).step_by(5).chain([i64::MAX]) {
            for max_bytes in [0, 1, 100, 200, 500, 1000, 1 << 20] {
                for at_least_one_batch in [false, true] {
                    let limits = ReadLimits { max_bytes, end_offset: Offset(end_offset), at_least_one_batch };
                    let read = reader.read(Offset(offset), limits).expect("in range");
                    let region = check(&reader, offset, limits);
                    assert_eq!(region.is_some(), !read.is_empty(), "from {offset} with {limits:?}");
                    found += usize::from(region.is_some());
                }
            }
        }
    }
    assert!(found > 1000);
    assert!(region(&reader, 0, everything(), 5000).is_none(), "shorter than asked for");
}

#[test]
fn what_nobody_has_checked_is_not_given_away() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, LogConfig::default());
    for _ in 0..20 {
        append(&mut log, 3, 0);
    }
    log.close().expect("closed");
    let options = LogOptions { clean_shutdown: true, ..LogOptions::default() };
    let (mut log, _) = Log::open(&path, Arc::new(LogConfig::default()), options).expect("opened");
    // What is read through memory is checked on the way, so that the second answer may differ from the first.
    let region = |log: &Log, offset: i64, end_offset: i64| {
        let limits = ReadLimits { end_offset: Offset(end_offset), ..everything() };
        matches!(log.reader().read_warm(Offset(offset), limits, 1, usize::MAX), Ok(WarmRead::Region(_)))
    };
    assert!(!region(&log, 0, 30), "it was written by an earlier process");
    assert!(region(&log, 0, 30), "it was read and checked");
    assert!(!region(&log, 0, 33), "one batch more was not");
    assert!(!region(&log, 33, 45));
    assert!(region(&log, 0, 45), "neighbours make a whole");
    append(&mut log, 3, 0);
    assert!(region(&log, 60, 63), "it was appended by this process");
    assert!(!region(&log, 57, 63), "the batch before it was not");
    assert!(!region(&log, 48, 51), "a distant one was read meanwhile");
    assert!(region(&log, 60, 63));
}

#[test]
fn of_what_is_read_through_memory_no_more_is_taken_than_is_allowed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, LogConfig::default());
    for _ in 0..20 {
        append(&mut log, 3, 0);
    }
    let all = log.reader().read(Offset(0), everything()).expect("in range");
    let seven: usize = batches(&all).take(7).map(|batch| batch.expect("whole").bytes.len()).sum();
    let taken = |log: &Log, max_copied_bytes: usize, at_least_one_batch: bool| {
        let limits = ReadLimits { at_least_one_batch, ..everything() };
        match log.reader().read_warm(Offset(0), limits, 1, max_copied_bytes).expect("in range") {
            WarmRead::Bytes(bytes) => ("copied", batches(&bytes).count()),
            WarmRead::Region(region) => ("sent", batches(&bytes_of(&region)).count()),
            WarmRead::Cold => panic!("what was written just now is cold"),
        }
    };
    assert_eq!(taken(&log, 0, false), ("sent", 20), "it was appended by this process");
    log.close().expect("closed");
    let options = LogOptions { clean_shutdown: true, ..LogOptions::default() };
    let (log, _) = Log::open(&path, Arc::new(LogConfig::default()), options).expect("opened");
    assert_eq!(taken(&log, 0, false), ("copied", 0));
    assert_eq!(taken(&log, 0, true), ("copied", 1), "a consumer always gets on");
    assert_eq!(taken(&log, seven + 1, false), ("copied", 7));
    assert_eq!(taken(&log, usize::MAX, false), ("copied", 20));
    assert_eq!(taken(&log, 0, false), ("sent", 20), "it was read and checked");
}

#[test]
fn a_truncation_voids_regions_and_a_deletion_does_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(&directory.path().join("orders-0"), config());
    for _ in 0..30 {
        append(&mut log, 3, 0);
    }
    let first = check(&log.reader(), 0, everything()).expect("appended by this process");
    let last = check(&log.reader(), 85, everything()).expect("appended by this process");
    let bytes = bytes_of(&first);
    log.advance_log_start_offset(Offset(60)).expect("moved");
    let now = vltava_types::TimestampMs(i64::MAX);
    log.delete_old_segments(now, Offset(60)).expect("deleted");
    log.remove_deleted_files(now).expect("removed");
    assert!(first.is_intact());
    assert_eq!(bytes_of(&first), bytes, "the descriptor keeps the file");
    log.truncate_to(Offset(84)).expect("truncated");
    assert!(!last.is_intact());
}
