//! Histories that random ones have found, each on many disks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vltava_host::disk::{Faults, SimDisk, SyncSite};
use vltava_host::fs;
use vltava_protocol::batch::{BatchBuilder, batches, records};
use vltava_storage::{
    CleanerOptions, CleaningError, CleaningStep, Copied, LoadedLog, Log, LogConfig, LogDir, OffsetMapLimits,
    PartitionName, ReadLimits, RecoveryReport, StorageError, cleanable_range,
};
use vltava_types::{
    BrokerEpoch, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicId,
};

/// Disks that differ in what survives.
const DISKS: u64 = 200;

const DIRECTORY: &str = "/disk/data";

/// All of them, for who leaves out a sync and wants to see it missed.
pub const ALL: &[fn()] = &[
    what_recovery_removed_does_not_come_back_after_a_clean_shutdown,
    trap_27_what_a_failed_flush_lost_is_not_believed_by_the_next_process,
    what_a_start_has_found_in_memory_is_on_disk_afterwards,
    a_clean_shutdown_spares_the_next_start_a_scan,
    an_index_that_was_torn_misleads_no_lookup,
    an_index_that_was_rebuilt_and_torn_misleads_no_lookup,
    damage_that_was_cut_off_leaves_no_hole,
    a_swap_of_compaction_keeps_the_last_record_of_each_key,
    what_was_truncated_does_not_come_back_under_what_was_appended,
    a_producer_is_known_after_its_records_are_deleted,
    a_move_leaves_one_log_whenever_the_power_fails,
];

thread_local! {
    static WATCHED: RefCell<Watched> = RefCell::default();
}

/// What becomes of the syncs of all disks.
#[derive(Default)]
struct Watched {
    last: Option<SimDisk>,
    seen: BTreeSet<SyncSite>,
    left_out: Option<SyncSite>,
}

fn mount(seed: u64) -> SimDisk {
    let disk = SimDisk::mount("/disk", seed);
    WATCHED.with_borrow_mut(|watched| {
        disk.watch_syncs();
        watched.left_out.iter().for_each(|site| disk.leave_out_syncs_of(site.clone()));
        let before = watched.last.replace(disk.clone());
        watched.seen.extend(before.iter().flat_map(SimDisk::sync_sites));
    });
    disk
}

/// Who syncs in a script.
pub fn sites(script: fn()) -> BTreeSet<SyncSite> {
    WATCHED.take();
    script();
    let Watched { last, seen, .. } = WATCHED.take();
    seen.into_iter().chain(last.iter().flat_map(SimDisk::sync_sites)).collect()
}

/// Runs a script without one of the syncs. Returns whether it fails.
pub fn misses(script: fn(), site: &SyncSite) -> bool {
    WATCHED.with_borrow_mut(|watched| watched.left_out = Some(site.clone()));
    let outcome = std::panic::catch_unwind(script);
    WATCHED.with_borrow_mut(|watched| watched.left_out = None);
    outcome.is_err()
}

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
    // Without power nothing is there.
    match failures.into_iter().next() {
        Some(failure) => Err(failure.error),
        None if loaded.is_empty() => Err(StorageError::Foreign { path: DIRECTORY.into(), reason: "no log".to_owned() }),
        None => Ok((log_dir, loaded.remove(0))),
    }
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
        let disk = mount(seed);
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
        let disk = mount(seed);
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

/// What was written and not flushed when the process was killed counts as durable once it was recovered.
#[test]
fn what_a_start_has_found_in_memory_is_on_disk_afterwards() {
    for seed in 0..DISKS {
        let disk = mount(seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        // With another log to recover, the file system is flushed as a whole.
        let neighbour = PartitionName::new("orders", PartitionIndex(1));
        let mut neighbour = log_dir.create(&neighbour, TopicId::from_random([1; 16]), config()).expect("created");
        (0..2).for_each(|_| append(&mut log).expect("appended"));
        append(&mut neighbour).expect("appended");
        drop((log, neighbour, log_dir));
        let (_, loaded) = load(&disk);
        assert_eq!(loaded.log.recovery_point(), Offset(2));
        drop(loaded);
        disk.lose_power();
        let (_, loaded) = load(&disk);
        assert_eq!(loaded.log.log_end_offset(), Offset(2), "disk {seed}");
    }
}

#[test]
fn a_clean_shutdown_spares_the_next_start_a_scan() {
    for seed in 0..DISKS {
        let disk = mount(seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        for offset in 0..4 {
            log.append_as_leader(&batch_of(offset, 1000 + offset, 40)).expect("appended");
        }
        close(&log_dir, &mut log);
        drop((log, log_dir));
        disk.lose_power();
        let (_, loaded) = load(&disk);
        assert_eq!(
            (loaded.recovery, loaded.log.log_end_offset()),
            (RecoveryReport::default(), Offset(4)),
            "disk {seed}"
        );
    }
}

/// Where the next start believes index entries, they are on disk.
#[test]
fn an_index_that_was_torn_misleads_no_lookup() {
    for seed in 0..DISKS {
        // Never, in one start.
        check_torn_rebuild(seed, u64::MAX, None);
    }
}

/// Recovery cuts the log at damage below the recovery point, and the power fails meanwhile. If the cut stayed and what comes
/// after it came back, nobody would miss what was in between (seed 2991 of the decaying disk).
#[test]
fn damage_that_was_cut_off_leaves_no_hole() {
    for (seed, power_fails_at) in (0..DISKS).flat_map(|seed| (1..32).map(move |change| (seed, change))) {
        let disk = mount(seed);
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
        let disk = mount(room);
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
        let disk = mount(seed);
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
    let disk = mount(seed);
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

fn checkpoint(log_dir: &LogDir, log: &Log) {
    if let Some(point) = log.recovery_checkpoint() {
        log_dir.checkpoint_recovery_points([(name(), point)].into()).expect("written");
    }
}

/// What a reader of all records takes for the value of each key.
fn values(log: &Log) -> BTreeMap<Bytes, Bytes> {
    let limits = ReadLimits { max_bytes: 1 << 20, end_offset: Offset(i64::MAX), at_least_one_batch: true };
    let mut values = BTreeMap::new();
    let mut offset = log.log_start_offset();
    loop {
        let read = log.reader().read(offset, limits).expect("readable");
        let Some(last) = batches(&read).last() else { return values };
        offset = last.expect("whole batches").header.next_offset();
        for batch in batches(&read) {
            let batch = Bytes::copy_from_slice(batch.expect("whole batches").bytes);
            for record in records(&batch, 1 << 20).expect("records") {
                let record = record.expect("a record");
                values.insert(record.key.expect("a key"), record.value.expect("a value"));
            }
        }
    }
}

/// Whenever the power fails, during the swap or when the next start finishes it.
#[test]
fn a_swap_of_compaction_keeps_the_last_record_of_each_key() {
    for (seed, power_fails_at) in (0..30).flat_map(|seed| (1..80).map(move |change| (seed, change))) {
        let disk = mount(seed);
        let log_dir = open();
        let large = LogConfig { is_compacted: true, ..LogConfig::clone(&config()) };
        let small = LogConfig { segment_bytes: 250, ..large.clone() };
        let mut log = log_dir.create(&name(), TopicId::from_random([1; 16]), Arc::new(small)).expect("created");
        for offset in 0..14i64 {
            let mut builder = BatchBuilder::new().base_offset(Offset(offset)).leader_epoch(LeaderEpoch(0));
            // The keys of the first segments come once, those of the later ones again and again.
            let key = [b'a' + offset.min(6 + offset % 2) as u8];
            builder.append(TimestampMs(1000 + offset), Some(&key), Some(&[b'0' + offset as u8; 40]), &[]);
            log.append_as_leader(&builder.build()).expect("appended");
        }
        log.flush().expect("flushed");
        checkpoint(&log_dir, &log);
        let expected = values(&log);
        // So that several segments become one.
        log.set_config(Arc::new(large));
        disk.set_faults(Faults { power_fails_at: Some(power_fails_at), ..Faults::default() });
        let _ = compact(&mut log);
        drop((log, log_dir));
        disk.lose_power();
        disk.restore_power();
        disk.set_faults(Faults { power_fails_at: Some(1 + seed % 15), ..Faults::default() });
        drop(try_load());
        disk.lose_power();
        let (_, loaded) = load(&disk);
        assert!(values(&loaded.log) == expected, "disk {seed}, power failure {power_fails_at}");
        assert_eq!(loaded.log.log_end_offset(), Offset(14), "disk {seed}, power failure {power_fails_at}");
    }
}

fn compact(log: &mut Log) -> Result<(), CleaningError> {
    let (now, committed) = (TimestampMs(2000), log.log_end_offset());
    let range = cleanable_range(&log.cleaning_facts(committed, None)?, None, now);
    let map = OffsetMapLimits { bytes: 101 * 24, load_factor: 1.0 };
    let mut pass = log.begin_cleaning(range, committed, CleanerOptions { map, io_buffer_bytes: 4000 }, now);
    loop {
        match pass.step()? {
            CleaningStep::Worked { .. } => {}
            CleaningStep::Replace(cleaned) => assert!(log.replace_segments(&cleaned, now)?),
            CleaningStep::Done(_) => return Ok(()),
        }
    }
}

/// What is appended after a truncation and acknowledged stands, and nothing of what was there before comes back instead.
#[test]
fn what_was_truncated_does_not_come_back_under_what_was_appended() {
    for (seed, power_fails_at) in (0..40).flat_map(|seed| (1..75).map(move |change| (seed, change))) {
        let disk = mount(seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        (0..8).for_each(|_| append(&mut log).expect("appended"));
        log.flush().expect("flushed");
        checkpoint(&log_dir, &log);
        if seed % 2 == 0 {
            // The start comes down again with a truncation below it.
            log.advance_log_start_offset(Offset(4)).expect("in range");
            log_dir.checkpoint_log_start_offsets([(&name(), log.checkpoint_at(Offset(4)))]).expect("written");
        }
        disk.set_faults(Faults { power_fails_at: Some(power_fails_at), ..Faults::default() });
        let kept = [1, 3, 4][seed as usize % 3];
        let acknowledged = rewrite(&mut log, kept);
        drop((log, log_dir));
        disk.lose_power();
        let (_, loaded) = load(&disk);
        let found = loaded.log.reader();
        let (start, end) = (loaded.log.log_start_offset().value(), loaded.log.log_end_offset().value());
        assert!(start <= kept || acknowledged.is_err(), "disk {seed}, power failure {power_fails_at}: {start}..{end}");
        for offset in start..end {
            let limits = ReadLimits { max_bytes: 1, end_offset: Offset(i64::MAX), at_least_one_batch: true };
            let read = found.read(Offset(offset), limits).expect("readable");
            let (old, new) = (batch(offset), batch_of(offset, 3000, 90));
            let is_new = read == new && offset >= kept;
            let told = format!("disk {seed}, power failure {power_fails_at}, offset {offset}");
            assert!(is_new || read == old, "{told}: something else");
            assert!(is_new || offset < kept || acknowledged.is_err(), "{told}: a truncated record");
        }
        let least = if acknowledged.is_ok() { 8 } else { kept };
        assert!(end >= least, "disk {seed}, power failure {power_fails_at}: {start}..{end}");
    }
}

fn rewrite(log: &mut Log, kept: i64) -> Result<(), StorageError> {
    log.truncate_to(Offset(kept))?;
    for offset in kept..8 {
        log.append_as_leader(&batch_of(offset, 3000, 90))?;
    }
    log.flush()
}

/// Its records are gone and its state is in a snapshot only.
#[test]
fn a_producer_is_known_after_its_records_are_deleted() {
    for seed in 0..DISKS {
        let disk = mount(seed);
        let log_dir = open();
        let mut log = create(&log_dir);
        let first = BatchBuilder::new().base_offset(Offset(0)).leader_epoch(LeaderEpoch(0));
        let mut first = first.producer(ProducerId(7), ProducerEpoch(0), Sequence(0));
        first.append(TimestampMs(1000), None, Some(&[b'a'; 100]), &[]);
        log.append_as_leader(&first.build()).expect("appended");
        (0..8).for_each(|_| append(&mut log).expect("appended"));
        log.flush().expect("flushed");
        log.advance_log_start_offset(Offset(4)).expect("in range");
        log_dir.checkpoint_log_start_offsets([(&name(), log.checkpoint_at(Offset(4)))]).expect("written");
        log.delete_old_segments(TimestampMs(1000), log.log_end_offset()).expect("deleted");
        log.flush().expect("flushed");
        checkpoint(&log_dir, &log);
        drop((log, log_dir));
        disk.lose_power();
        let (_, loaded) = load(&disk);
        let known = loaded.log.producers().snapshot().any(|entry| entry.producer_id == ProducerId(7));
        assert!(known, "disk {seed}");
    }
}

/// The copy says whose place it has taken, before it takes it, as long as the other may come back.
#[test]
fn a_move_leaves_one_log_whenever_the_power_fails() {
    for (seed, power_fails_at) in (0..30).flat_map(|seed| (1..100).map(move |change| (seed, change))) {
        let disk = mount(seed);
        let (log_dir, other) = (open(), open_other().expect("the disk works"));
        let mut log = create(&log_dir);
        (0..4).for_each(|_| append(&mut log).expect("appended"));
        log.flush().expect("flushed");
        disk.set_faults(Faults { power_fails_at: Some(power_fails_at), ..Faults::default() });
        let moved = relocate(&log_dir, &other, log);
        drop((log_dir, other));
        disk.lose_power();
        disk.restore_power();
        let here = try_load().ok();
        let other = open_other().expect("the disk works");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
        let (there, _) = runtime.block_on(other.load(1, false, |_| config())).expect("loaded");
        let told = format!("disk {seed}, power failure {power_fails_at}");
        let ends: Vec<_> =
            here.iter().map(|(_, loaded)| loaded).chain(&there).map(|l| l.log.log_end_offset()).collect();
        assert!(ends.contains(&Offset(4)), "{told}: records are lost, {ends:?}");
        assert!(moved.is_err() || here.is_none(), "{told}: what was deleted is back");
        if here.is_some() && !there.is_empty() {
            assert!(there[0].rival().replaces.is_some(), "{told}: nobody knows which of the two logs counts");
        }
    }
}

fn open_other() -> Result<Arc<LogDir>, StorageError> {
    Ok(Arc::new(LogDir::open(Path::new("/disk/other"))?))
}

fn relocate(from: &LogDir, to: &LogDir, log: Log) -> Result<(), StorageError> {
    let mut future = to.create_future(&name(), &log)?;
    while future.copy(&log.reader(), log.truncation_count(), 200)? != Copied::Everything {}
    let moved = to.take_over(future, &name(), &log, from.directory_id(), log.log_end_offset())?;
    from.delete(log, TimestampMs(0))?;
    to.forget_replaced(&name())?;
    drop(moved);
    Ok(())
}
