//! Histories that random ones have found, each on many disks.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vltava_host::disk::{Faults, SimDisk};
use vltava_host::fs;
use vltava_protocol::batch::BatchBuilder;
use vltava_storage::{LoadedLog, Log, LogConfig, LogDir, PartitionName, StorageError};
use vltava_types::{BrokerEpoch, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

/// Disks that differ in what survives.
const DISKS: u64 = 200;

const DIRECTORY: &str = "/disk/data";

fn name() -> PartitionName {
    PartitionName::new("orders", PartitionIndex(0))
}

fn config() -> Arc<LogConfig> {
    Arc::new(LogConfig { segment_bytes: 600, index_interval_bytes: 100, retention_ms: -1, ..LogConfig::default() })
}

fn open() -> Arc<LogDir> {
    Arc::new(LogDir::open(Path::new(DIRECTORY)).expect("the disk works"))
}

fn create(log_dir: &LogDir) -> Log {
    log_dir.create(&name(), TopicId::from_random([1; 16]), config()).expect("created")
}

/// A batch of one record.
fn batch(base_offset: i64) -> Bytes {
    batch_of(base_offset, 1000, 100)
}

fn batch_of(base_offset: i64, timestamp: i64, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(Offset(base_offset)).leader_epoch(LeaderEpoch(0));
    builder.append(TimestampMs(timestamp), None, Some(&vec![b'a'; size]), &[]);
    builder.build()
}

fn append(log: &mut Log) -> Result<(), StorageError> {
    log.append_as_leader(&batch(log.log_end_offset().value())).map(drop)
}

/// Opens what is on the disk, as the marker allows.
fn load(disk: &SimDisk) -> (Arc<LogDir>, LoadedLog) {
    disk.end_process();
    disk.restore_power();
    try_load().expect("loaded")
}

fn try_load() -> Result<(Arc<LogDir>, LoadedLog), StorageError> {
    let log_dir = Arc::new(LogDir::open(Path::new(DIRECTORY))?);
    let is_clean = log_dir.take_clean_shutdown_marker()?.is_some();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
    let (mut loaded, failures) = runtime.block_on(log_dir.load(1, is_clean, |_| config()))?;
    assert!(failures.is_empty(), "{failures:?}");
    Ok((log_dir, loaded.remove(0)))
}

fn close(log_dir: &LogDir, log: &mut Log) {
    log.close().expect("closed");
    log_dir.write_clean_shutdown_marker(BrokerEpoch(1)).expect("written");
}

/// A clean start believes what it finds. So whatever an unclean start before it did not find, or has removed, must be off
/// the disk before the marker is written.
#[test]
fn what_recovery_removed_does_not_come_back_after_a_clean_shutdown() {
    for seed in 0..DISKS {
        let disk = SimDisk::mount("/disk", seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        for _ in 0..4 {
            append(&mut log).expect("appended");
        }
        assert!(log.segments().len() > 1);
        drop(log);
        disk.lose_power();
        let (log_dir, mut loaded) = load(&disk);
        let end = loaded.log.log_end_offset();
        close(&log_dir, &mut loaded.log);
        drop(loaded);
        disk.lose_power();
        let (_, loaded) = load(&disk);
        assert_eq!(loaded.log.log_end_offset(), end, "disk {seed}");
    }
}

#[test]
fn what_a_full_disk_took_back_does_not_come_back_after_a_clean_shutdown() {
    for seed in 0..DISKS {
        let disk = SimDisk::mount("/disk", seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        append(&mut log).expect("appended");
        log.flush().expect("flushed");
        let point = log.recovery_checkpoint().expect("never checkpointed");
        log_dir.checkpoint_recovery_points([(name(), point)].into()).expect("written");
        // Room for one of two batches.
        let space = fs::space(Path::new(DIRECTORY)).expect("there is a disk");
        disk.set_capacity(space.total_bytes - space.available_bytes + batch(0).len() as u64 + 20);
        let two = [batch(1), batch(2)].concat();
        assert!(log.append_as_leader(&two).expect_err("no room").is_full());
        drop(log);
        disk.set_capacity(u64::MAX >> 1);
        // The machine goes on.
        let (log_dir, mut loaded) = load(&disk);
        assert_eq!(loaded.log.log_end_offset(), Offset(1));
        close(&log_dir, &mut loaded.log);
        drop(loaded);
        disk.lose_power();
        let (_, loaded) = load(&disk);
        assert_eq!(loaded.log.log_end_offset(), Offset(1), "disk {seed}");
    }
}

/// Recovery cuts the log at damage below the recovery point, and the power fails meanwhile. If the cut stayed and what comes
/// after it came back, nobody would miss what was in between (seed 2991 of the decaying disk).
#[test]
fn damage_that_was_cut_off_leaves_no_hole() {
    for (seed, power_fails_at) in (0..DISKS).flat_map(|seed| (1..16).map(move |change| (seed, change))) {
        let disk = SimDisk::mount("/disk", seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        (0..8).for_each(|_| append(&mut log).expect("appended"));
        log.flush().expect("flushed");
        assert_eq!(log.segments()[1].base_offset, Offset(3));
        let point = log.recovery_checkpoint().expect("never checkpointed");
        log_dir.checkpoint_recovery_points([(name(), point)].into()).expect("written");
        // The third batch says that it ends eight offsets later.
        let last_offset_delta = 2 * batch(0).len() as u64 + 26;
        let first = log.directory().join(format!("{:020}.log", 0));
        drop(log);
        disk.lose_power();
        disk.restore_power();
        assert!(disk.decay_bit(&first, last_offset_delta, 3).expect("there"));
        disk.lose_power();
        disk.restore_power();
        disk.set_faults(Faults { power_fails_at: Some(power_fails_at), ..Faults::default() });
        drop(try_load());
        disk.lose_power();
        let (_, loaded) = load(&disk);
        let told = (loaded.log.log_end_offset(), loaded.recovery.lost_below);
        assert_eq!(told, (Offset(2), Some(Offset(8))), "disk {seed}, power failure {power_fails_at}");
    }
}

/// Indexes make reads quick, and nothing is lost without them.
#[test]
fn a_log_opens_on_a_full_disk_without_room_for_its_indexes() {
    for room in 0..60 {
        let disk = SimDisk::mount("/disk", room);
        let log_dir = open();
        let mut log = create(&log_dir);
        for offset in 0..4 {
            log.append_as_leader(&batch_of(offset, 1000 + offset, 40)).expect("appended");
        }
        assert_eq!(log.segments().len(), 1);
        let directory = log.directory().to_owned();
        drop(log);
        for suffix in ["index", "timeindex"] {
            fs::write(directory.join(format!("{:020}.{suffix}", 0)), b"").expect("emptied");
        }
        let space = fs::space(Path::new(DIRECTORY)).expect("there is a disk");
        disk.set_capacity(space.total_bytes - space.available_bytes + room);
        let (_, mut loaded) = load(&disk);
        for offset in 0..4 {
            let end = loaded.log.log_end_offset();
            let found = loaded.log.reader().offset_for_timestamp(TimestampMs(1000 + offset), end).expect("readable");
            assert_eq!(found.map(|found| found.offset), Some(Offset(offset)), "room for {room} bytes");
        }
        disk.set_capacity(u64::MAX >> 1);
        append(&mut loaded.log).expect("there is room");
    }
}

/// After a failed flush the page cache shows what the disk has not got, and calls it clean. A process that only starts
/// again must not take it for durable.
#[test]
fn trap_27_what_a_failed_flush_lost_is_not_believed_by_the_next_process() {
    for seed in 0..DISKS {
        let disk = SimDisk::mount("/disk", seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        append(&mut log).expect("appended");
        disk.set_faults(Faults { sync_fails_at: Some(1), ..Faults::default() });
        log.flush().expect_err("the disk fails");
        log_dir.mark_failed();
        drop(log);
        let (log_dir, mut loaded) = load(&disk);
        let durable = loaded.log.recovery_point();
        assert_eq!(durable, loaded.log.log_end_offset(), "everything that was kept is on disk");
        close(&log_dir, &mut loaded.log);
        drop(loaded);
        disk.lose_power();
        let (_, loaded) = load(&disk);
        assert_eq!(loaded.log.log_end_offset(), durable, "disk {seed}");
    }
}

/// Recovery writes indexes below the recovery point, where the next one believes them, and the power fails before that is
/// flushed. Of an entry of the offset index and its neighbour of the time index, one may be there and the other not: then
/// nobody knows any more that the record in between is younger than all others (seed 3513 of the full disk).
#[test]
fn an_index_that_was_rebuilt_and_torn_misleads_no_lookup() {
    for seed in 0..DISKS {
        for power_fails_at in 1..20 {
            let removed = [None, Some("index"), Some("timeindex")][seed as usize % 3];
            check_torn_rebuild(seed, power_fails_at, removed);
        }
    }
}

fn check_torn_rebuild(seed: u64, power_fails_at: u64, removed: Option<&str>) {
    /// One before the last that has an index entry below the recovery point, where the next recovery begins to read.
    const YOUNGEST: i64 = 2;
    const FLUSHED: i64 = YOUNGEST + 2;
    let disk = SimDisk::mount("/disk", seed);
    let log_dir = open();
    let mut log = create(&log_dir);
    let append = |log: &mut Log, offset| {
        let timestamp = if offset == YOUNGEST { 9000 } else { 1000 + offset };
        log.append_as_leader(&batch_of(offset, timestamp, 40)).expect("appended");
    };
    (0..FLUSHED).for_each(|offset| append(&mut log, offset));
    log.flush().expect("flushed");
    let point = log.recovery_checkpoint().expect("never checkpointed");
    log_dir.checkpoint_recovery_points([(name(), point)].into()).expect("written");
    append(&mut log, FLUSHED);
    assert_eq!(log.segments().len(), 1);
    drop(log);
    disk.lose_power();
    disk.restore_power();
    if let Some(suffix) = removed {
        let directory = Path::new(DIRECTORY).join("orders-0");
        fs::remove_file(directory.join(format!("{:020}.{suffix}", 0))).expect("there");
        fs::sync_dir(&directory).expect("the disk works");
    }
    disk.set_faults(Faults { power_fails_at: Some(power_fails_at), ..Faults::default() });
    drop(try_load());
    disk.lose_power();
    let (_, loaded) = load(&disk);
    let log = loaded.log;
    let end = log.log_end_offset();
    for (timestamp, expected) in [(1000, 0), (1001, 1), (1002, YOUNGEST), (9000, YOUNGEST)] {
        let found = log.reader().offset_for_timestamp(TimestampMs(timestamp), end).expect("readable");
        let found = found.map(|found| found.offset.value());
        assert_eq!(found, Some(expected), "disk {seed}, power failure {power_fails_at}, since {timestamp}");
    }
}
