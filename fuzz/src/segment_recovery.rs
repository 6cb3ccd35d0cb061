//! The files of a partition's directory in any state, then recovery: whatever it keeps is sound, can be read, appended to,
//! truncated, and opened again.
//!
//! Input: a byte of modes, three offsets (recovery point, log start, high watermark), then files: kind, base offset,
//! contents with their length.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use vltava_storage::{Log, LogDir, LogOptions, StorageError};
use vltava_types::{Offset, TimestampMs};

use crate::input::{Input, mend_crcs};
use crate::stored_log::{batch, check_lookups, check_reads, check_reopening, config, directory};

const CLEAN_SHUTDOWN: u8 = 1;
const MEND_BATCHES: u8 = 2;
const MEND_SNAPSHOTS: u8 = 4;
/// No more files than this, so that a run stays short.
const MAX_FILES: usize = 24;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    // Never negative: whoever reads checkpoints has to see to that (it does not yet).
    let mut offset = || Offset(input.i64() & i64::MAX);
    let options = LogOptions {
        recovery_point: offset(),
        log_start_offset: offset(),
        high_watermark: offset(),
        clean_shutdown: mode & CLEAN_SHUTDOWN != 0,
        ..LogOptions::default()
    };
    let home = directory();
    let log_directory = home.path().join("topic-0");
    fs::create_dir(&log_directory).expect("created");
    let mut files = 0;
    while !input.is_empty() && files < MAX_FILES {
        write_file(&mut input, mode, home.path(), &log_directory);
        files += 1;
    }
    drop(LogDir::open(home.path()));
    match Log::open(&log_directory, config(), options) {
        Ok((log, _)) => check(log, &log_directory, mode),
        Err(StorageError::Corrupt { .. } | StorageError::Foreign { .. }) => {}
        Err(error) => panic!("opening fails with {error}"),
    }
}

fn write_file(input: &mut Input<'_>, mode: u8, home: &Path, log_directory: &Path) {
    let (kind, base_offset, contents) = (input.byte(), input.i64() & i64::MAX, input.chunk());
    let mut contents = contents.to_vec();
    let segment_file = |suffix: &str| log_directory.join(format!("{base_offset:020}.{suffix}"));
    let path = match kind % 16 {
        0 | 1 => segment_file("log"),
        2 => segment_file("index"),
        3 => segment_file("timeindex"),
        4 => segment_file("snapshot"),
        5 => segment_file("txnindex"),
        6 => log_directory.join("leader-epoch-checkpoint"),
        7 => log_directory.join("partition.metadata"),
        8 => segment_file("log.swap"),
        9 => segment_file("log.cleaned"),
        10 => segment_file("index.swap"),
        11 => segment_file("log.deleted"),
        12 => home.join("recovery-point-offset-checkpoint"),
        13 => home.join("meta.properties"),
        14 => home.join("cleaner-offset-checkpoint"),
        _ => segment_file("timeindex.swap"),
    };
    match kind % 16 {
        0 | 1 | 8 | 9 if mode & MEND_BATCHES != 0 => contents = mend_crcs(&contents).to_vec(),
        4 if mode & MEND_SNAPSHOTS != 0 && contents.len() > 6 => {
            let crc = crc32c::crc32c(&contents[6..]);
            contents[2..6].copy_from_slice(&crc.to_be_bytes());
        }
        _ => {}
    }
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(&contents).expect("written");
}

fn check(mut log: Log, log_directory: &Path, mode: u8) {
    check_lookups(&log);
    // Segments that recovery trusts are checked when they are read.
    let Ok(mut found) = check_reads(&log) else { return };
    let end = log.log_end_offset();
    if end.value() < i64::MAX - 10 {
        let more = batch(end, 3);
        let appended = log.append_as_leader(&more).expect("a log takes a batch at its end");
        assert_eq!((appended.base_offset, log.log_end_offset()), (end, Offset(end.value() + 3)));
        found.push((end, more));
        assert_eq!(check_reads(&log).expect("readable"), found, "what was there stays, and what came is there");
    }
    if mode & 8 != 0 {
        let middle = Offset(log.log_start_offset().value().midpoint(log.log_end_offset().value()));
        let Ok(end) = log.truncate_to(middle) else { return };
        assert!(end <= middle && log.log_end_offset() == end, "cut at the offset or before");
        found.retain(|(base_offset, _)| *base_offset < end);
        assert_eq!(check_reads(&log).expect("readable"), found, "what lies below the cut stays");
    }
    if mode & 16 != 0 {
        let _ = log.delete_old_segments(TimestampMs(1_760_000_000_000), log.log_end_offset());
        let Ok(left) = check_reads(&log) else { return };
        found = left;
    }
    check_reopening(log, log_directory, &found);
}
