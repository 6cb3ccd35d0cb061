//! A partition's directory, and what must hold of a log that was opened from one.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use vltava_protocol::batch::{BatchBuilder, batches};
use vltava_storage::{Log, LogConfig, LogOptions, ReadLimits, StorageError};
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

/// In memory where the machine offers that: a run would otherwise wait for a disk, and wear it.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

/// Small, so that little input makes indexes and several segments.
pub fn config() -> Arc<LogConfig> {
    Arc::new(LogConfig { segment_bytes: 2048, index_interval_bytes: 100, ..LogConfig::default() })
}

pub fn batch(base_offset: Offset, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(base_offset).leader_epoch(LeaderEpoch(i32::MAX));
    for _ in 0..records {
        builder.append(TimestampMs(1_750_000_000_000), Some(b"key"), Some(b"value"), &[]);
    }
    builder.build()
}

/// Reads the log from its start to its end. Every batch is sound, and comes after the one before; or the log says that
/// it is corrupt.
pub fn check_reads(log: &Log) -> Result<Vec<(Offset, Bytes)>, StorageError> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(Offset(0) <= start && start <= log.recovery_point() && log.recovery_point() <= end, "offsets in order");
    let reader = log.reader();
    let limits = ReadLimits { max_bytes: 256, end_offset: end, at_least_one_batch: true };
    let mut found = Vec::new();
    let mut next = start;
    while next < end {
        let bytes = reader.read(next, limits)?;
        if bytes.is_empty() {
            // A gap that compaction left at the end.
            break;
        }
        for batch in batches(&bytes) {
            let batch = batch.expect("reads end with a whole batch");
            batch.verify_crc().expect("no record leaves unchecked");
            let header = batch.header;
            assert!(header.last_offset() >= next && header.next_offset() <= end, "a batch at or after what was asked");
            assert!(found.last().is_none_or(|(last, _)| *last < header.base_offset), "offsets increase");
            next = header.next_offset();
            let position = batch.position;
            found.push((header.base_offset, bytes.slice(position..position + batch.bytes.len())));
        }
    }
    Ok(found)
}

/// Asks by time, and whatever comes is within the log.
pub fn check_lookups(log: &Log) {
    let reader = log.reader();
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    for timestamp in [i64::MIN, -1, 0, 1, 1_750_000_000_000, i64::MAX] {
        if let Ok(Some(found)) = reader.offset_for_timestamp(TimestampMs(timestamp), end) {
            assert!(start <= found.offset && found.offset < end, "found in the log");
        }
    }
    let _ = reader.max_timestamp();
}

/// Opens it again as after a clean shutdown: it is the same log.
pub fn check_reopening(mut log: Log, directory: &Path, before: &[(Offset, Bytes)]) {
    log.close().expect("closed");
    let options = LogOptions {
        log_start_offset: log.log_start_offset(),
        recovery_point: log.recovery_point(),
        high_watermark: log.log_end_offset(),
        clean_shutdown: true,
        ..LogOptions::default()
    };
    let (again, _) = Log::open(directory, config(), options).expect("what was closed can be opened");
    assert_eq!(again.log_start_offset(), log.log_start_offset(), "the start stays");
    assert_eq!(again.log_end_offset(), log.log_end_offset(), "the end stays");
    assert_eq!(check_reads(&again).expect("readable"), before, "the records stay");
}
