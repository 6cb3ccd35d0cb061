use std::path::Path;
use std::sync::Arc;

use expect_test::expect;
use vltava_host::fs;
use vltava_protocol::batch::batches;
use vltava_storage::{Log, LogConfig, LogOptions, OffsetCheckpoint, RecoveryReport};
use vltava_types::{LeaderEpoch, Offset};

use crate::batch::{
    append, batch, config, copy_directory, create, create_checkpointed, everything, idempotent, read_all, show,
    show_batches, show_epochs,
};

fn open(directory: &Path, recovery_point: i64, clean_shutdown: bool) -> (Log, RecoveryReport) {
    let options = LogOptions { recovery_point: Offset(recovery_point), clean_shutdown, ..LogOptions::default() };
    Log::open(directory, Arc::new(config()), options).expect("opened")
}

/// Every file that can be derived from the batches.
fn derived_files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    crate::batch::list(directory)
        .into_iter()
        .filter(|name| name.ends_with("index"))
        .map(|name| {
            let contents = fs::read(directory.join(&name)).expect("readable");
            (name, contents)
        })
        .collect()
}

#[test]
fn trap_28_torn_tail_is_cut_at_the_first_invalid_crc() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let original = directory.path().join("original");
    let mut log = create(&original, config());
    for i in 0..12 {
        append(&mut log, 3, i / 5);
    }
    drop(log);
    let segment = "00000000000000000027.log";
    let contents = fs::read(original.join(segment)).expect("readable");
    let ends: Vec<usize> =
        batches(&contents).map(|batch| batch.map(|batch| batch.position + batch.bytes.len()).expect("whole")).collect();
    assert_eq!(ends.len(), 3);
    let check = |torn: &[u8], description: String| {
        let path = directory.path().join("torn");
        copy_directory(&original, &path);
        fs::write(path.join(segment), torn).expect("written");
        let valid = contents.iter().zip(torn).take_while(|(a, b)| a == b).count();
        let batches_left = ends.iter().filter(|end| **end <= valid).count();
        for recovery_point in [0, 27] {
            let (mut log, report) = open(&path, recovery_point, false);
            let end = 27 + 3 * batches_left as i64;
            assert_eq!(log.log_end_offset(), Offset(end), "{description}");
            if recovery_point == 0 {
                let kept = if batches_left == 0 { 0 } else { ends[batches_left - 1] };
                assert_eq!(report.bytes_cut, (torn.len() - kept) as u64, "{description}");
            } else {
                assert_eq!(report.bytes_cut, 0, "the first opening has cut it");
            }
            assert_eq!(read_all(&log.reader(), Offset(27)), contents[..end_of(&ends, batches_left)], "{description}");
            if recovery_point == 27 {
                append(&mut log, 5, 9);
                assert!(show(&log).ends_with(&format!("{end}..={}@9", end + 4)), "{description}");
            }
        }
        fs::remove_dir_all(&path).expect("removed");
    };
    for length in 0..=contents.len() {
        check(&contents[..length], format!("cut to {length}"));
    }
    for position in 0..contents.len() {
        let within_batch = position - ends.iter().rfind(|end| **end <= position).unwrap_or(&0);
        // The CRC covers neither the base offset nor the leader epoch.
        if !(0..8).contains(&within_batch) && !(12..16).contains(&within_batch) {
            let mut changed = contents.clone();
            changed[position] ^= 0x10;
            check(&changed, format!("changed at {position}"));
        }
    }
    let zeros = [&contents[..ends[0]], &[0; 5000]].concat();
    check(&zeros, "zeros after the first batch".to_owned());
}

fn end_of(ends: &[usize], batches: usize) -> usize {
    if batches == 0 { 0 } else { ends[batches - 1] }
}

#[test]
fn trap_28_segments_behind_a_bad_batch_are_dropped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for _ in 0..30 {
        append(&mut log, 3, 0);
    }
    drop(log);
    let second = path.join("00000000000000000027.log");
    let mut contents = fs::read(&second).expect("readable");
    contents[300] ^= 1;
    fs::write(&second, contents).expect("written");
    let (log, report) = open(&path, 0, false);
    assert_eq!(log.log_end_offset(), Offset(33));
    assert_eq!(log.segments().len(), 2);
    assert_eq!(report.lost_below, None, "nothing beyond was known to be there");
    drop(log);
    // Nor do they come back.
    let (log, again) = open(&path, 0, false);
    assert_eq!((log.log_end_offset(), again.bytes_cut), (Offset(33), 0));
}

#[test]
fn trap_28_missing_short_and_wrong_indexes_are_rebuilt() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for _ in 0..30 {
        append(&mut log, 3, 0);
    }
    let batches = read_all(&log.reader(), Offset(0));
    log.close().expect("closed");
    drop(log);
    let expected = derived_files(&path);
    assert_eq!(expected.len(), 8);
    for (name, contents) in &expected {
        let file = path.join(name);
        let mut swapped = contents.clone();
        if let Some(last) = swapped.last_mut() {
            *last ^= 4;
        }
        let damages = [None, Some(&contents[..0]), Some(&contents[..contents.len() / 2]), Some(&swapped[..])];
        for (damage, clean_shutdown) in damages.into_iter().flat_map(|damage| [(damage, true), (damage, false)]) {
            match damage {
                None => fs::remove_file(&file).expect("removed"),
                Some(damaged) => fs::write(&file, damaged).expect("written"),
            }
            let (mut log, report) = open(&path, 0, clean_shutdown);
            assert_eq!(read_all(&log.reader(), Offset(0)), batches);
            assert_eq!((report.bytes_cut, report.lost_below), (0, None));
            log.close().expect("closed");
            drop(log);
            for ((name, contents), (_, expected)) in derived_files(&path).iter().zip(&expected) {
                assert_eq!(contents, expected, "{name} after {file:?}, clean: {clean_shutdown}");
            }
        }
    }
}

#[test]
fn recovery_reads_what_lies_beyond_the_recovery_point() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, LogConfig { segment_bytes: 1 << 20, ..config() });
    for _ in 0..1000 {
        append(&mut log, 3, 0);
    }
    let batch_size = log.size_bytes() / 1000;
    let check = |recovery_point: i64, clean_shutdown: bool| {
        let (log, report) = open(&path, recovery_point, clean_shutdown);
        assert_eq!(log.log_end_offset(), Offset(3000));
        assert_eq!(log.recovery_point(), Offset(3000), "what was recovered is on disk");
        let reader = log.reader();
        for offset in [0, 1499, 2990, 2999] {
            let read = reader.read(Offset(offset), everything()).expect("in range");
            assert!(show_batches(&read).starts_with(&format!("{}..", offset / 3 * 3)));
        }
        report.bytes_scanned / batch_size
    };
    assert!(check(0, false) >= 990);
    assert!((10..15).contains(&check(2970, false)));
    assert!(check(3000, false) < 5);
    let (mut log, _) = open(&path, 3000, false);
    log.close().expect("closed");
    drop(log);
    assert_eq!(check(0, true), 0);
}

#[test]
fn trap_12_a_log_that_ends_below_what_was_durable_is_reported() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    append(&mut log, 3, 0);
    append(&mut log, 3, 0);
    drop(log);
    let check = |recovery_point: i64, high_watermark: i64| {
        let options = LogOptions {
            recovery_point: Offset(recovery_point),
            high_watermark: Offset(high_watermark),
            ..LogOptions::default()
        };
        Log::open(&path, Arc::new(config()), options).expect("opened").1.lost_below
    };
    assert_eq!(check(6, 6), None);
    assert_eq!(check(6, 7), Some(Offset(7)));
    assert_eq!(check(9, 6), Some(Offset(9)));
}

#[test]
fn trap_01_the_epoch_file_is_not_trusted_beyond_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for epoch in [1, 1, 2, 4] {
        append(&mut log, 10, epoch);
    }
    drop(log);
    let check = |file: Option<&str>, recovery_point: i64| {
        let checkpoint = path.join("leader-epoch-checkpoint");
        match file {
            Some(text) => fs::write(checkpoint, text).expect("written"),
            None => fs::remove_file(checkpoint).expect("removed"),
        }
        show_epochs(&open(&path, recovery_point, false).0)
    };
    expect!["1@0 2@20 4@30"].assert_eq(&check(Some("0\n0\n"), 0));
    expect!["1@0 2@20 4@30"].assert_eq(&check(None, 40));
    expect!["1@0 2@20 4@30"].assert_eq(&check(Some("torn"), 40));
    expect!["1@0 2@20 4@30"].assert_eq(&check(Some("0\n3\n1 0\n2 20\n7 60\n"), 30));
    expect!["1@0 2@20 4@30"].assert_eq(&check(Some("0\n3\n1 0\n2 20\n3 25\n"), 20));
}

/// A follower that knew of an epoch whose records the leader had compacted away, and forgotten when it was started again,
/// went back below its high watermark (long run 6).
#[test]
fn trap_01_epochs_of_what_compaction_took_away_outlast_a_scan() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for (base_offset, epoch) in [(0, 1), (20, 4), (30, 4), (45, 6)] {
        log.append_as_follower(&batch(base_offset, 10, epoch)).expect("appended");
    }
    drop(log);
    let check = |file: &str| {
        fs::write(path.join("leader-epoch-checkpoint"), file).expect("written");
        show_epochs(&open(&path, 0, false).0)
    };
    expect!["1@0 2@10 3@12 4@20 6@45"].assert_eq(&check("0\n4\n1 0\n2 10\n3 12\n4 20\n"));
    expect!["1@0 4@15 5@40 6@43"].assert_eq(&check("0\n4\n1 0\n4 15\n5 40\n6 43\n"));
    // What the batches say counts more, and what comes after them nothing.
    expect!["1@0 4@20 6@45"].assert_eq(&check("0\n3\n1 0\n3 5\n4 20\n"));
    expect!["1@0 4@20 6@45"].assert_eq(&check("0\n3\n1 0\n5 12\n7 55\n"));
}

#[test]
fn trap_20_producers_are_rebuilt_from_snapshots_and_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for i in 0..40 {
        let batch = idempotent(log.log_end_offset().value(), 2, 7 + i % 3, i as i32 / 3 * 2);
        log.append_as_leader(&batch).expect("appended");
    }
    let expected = log.producers().clone();
    drop(log);
    assert_eq!(open(&path, 0, false).0.producers(), &expected, "after a crash");
    for name in crate::batch::list(&path).into_iter().filter(|name| name.ends_with(".snapshot")) {
        fs::write(path.join(name), b"torn").expect("written");
    }
    let (mut log, _) = open(&path, 0, false);
    assert_eq!(log.producers(), &expected, "with torn snapshots");
    log.close().expect("closed");
    drop(log);
    assert_eq!(open(&path, 0, true).0.producers(), &expected, "after a clean shutdown");
}

#[test]
fn a_truncation_lowers_the_checkpointed_recovery_point_and_high_watermark_first() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut log, points) = create_checkpointed(directory.path(), config());
    let path = log.directory().to_owned();
    for _ in 0..30 {
        append(&mut log, 3, 1);
    }
    log.flush().expect("flushed");
    for checkpoint in [&points.checkpoint, &points.high_watermarks] {
        checkpoint.update([(points.partition.clone(), log.recovery_point())]).expect("written");
    }
    log.truncate_to(Offset(61)).expect("truncated");
    for checkpoint in [&points.checkpoint, &points.high_watermarks] {
        let on_disk = OffsetCheckpoint::open(checkpoint.path().to_owned()).expect("readable");
        assert_eq!(on_disk.get(&points.partition), Some(Offset(60)), "{}", checkpoint.path().display());
    }
    // Written over the truncated region, but not flushed: the next opening checks it.
    append(&mut log, 100, 2);
    drop(log);
    let (log, report) = open(&path, 60, false);
    assert!(report.bytes_scanned > 0);
    assert_eq!(
        log.epochs().latest().map(|entry| (entry.epoch, entry.start_offset)),
        Some((LeaderEpoch(2), Offset(60)))
    );
}

#[test]
fn a_log_below_its_start_offset_starts_over() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    append(&mut log, 3, 0);
    drop(log);
    let options = LogOptions { log_start_offset: Offset(50), ..LogOptions::default() };
    let (mut log, _) = Log::open(&path, Arc::new(config()), options).expect("opened");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(50), Offset(50)));
    log.append_as_leader(&batch(50, 1, 3)).expect("appended");
    expect!["50..=50@3"].assert_eq(&show(&log));
}

/// Segments of nine records in three batches: 0, 27, 54, 81.
fn four_segments(path: &Path, epochs: impl Fn(i64) -> i32) {
    let mut log = create(path, config());
    for i in 0..30 {
        append(&mut log, 3, epochs(i));
    }
    log.flush().expect("flushed");
}

/// A write that never reached the disk leaves no trace if it was the segment's last.
#[test]
fn trap_28_a_segment_that_does_not_continue_the_one_before_is_dropped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    four_segments(&path, |_| 0);
    let second = path.join("00000000000000000027.log");
    let contents = fs::read(&second).expect("readable");
    let last = batches(&contents).last().expect("batches").expect("whole").position;
    fs::write(&second, &contents[..last]).expect("written");
    // Below the recovery point it would be a gap that compaction has left.
    let (log, report) = open(&path, 40, false);
    assert_eq!((log.log_end_offset(), log.segments().len()), (Offset(51), 2));
    assert!(report.bytes_cut > 0);
}

/// A crash in the middle of starting over, whose removals were lost and whose new segment was not.
#[test]
fn trap_28_a_segment_within_another_ones_offsets_is_dropped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    four_segments(&path, |_| 0);
    fs::write(path.join("00000000000000000040.log"), b"").expect("written");
    let (log, _) = open(&path, 0, false);
    assert_eq!(log.log_end_offset(), Offset(54));
    let read = log.reader().read(Offset(45), everything()).expect("in range");
    assert!(show_batches(&read).starts_with("45..=47"));
}

#[test]
fn trap_01_a_damaged_index_costs_no_epochs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    four_segments(&path, |batch| batch as i32 / 7);
    let expected = show_epochs(&open(&path, 0, false).0);
    fs::remove_file(path.join("00000000000000000000.timeindex")).expect("removed");
    assert_eq!(show_epochs(&open(&path, 90, false).0), expected);
}

/// DeleteRecords has moved the start up, and the power failed before that was checkpointed.
#[test]
fn trap_01_epochs_come_back_with_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    four_segments(&path, |batch| batch as i32 / 7);
    let expected = show_epochs(&open(&path, 0, false).0);
    for start in [30, 90] {
        let (mut log, _) = open(&path, 90, false);
        log.advance_log_start_offset(Offset(start)).expect("in range");
        log.flush().expect("flushed");
        drop(log);
        assert_eq!(show_epochs(&open(&path, 90, false).0), expected, "after a start at {start}");
    }
}

/// The same, and the first segment has lost an index, so that it is scanned and the next one is trusted (seed 9119 of the
/// decaying disk).
#[test]
fn trap_01_epochs_come_back_with_the_start_where_the_first_segment_is_scanned() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let original = directory.path().join("original");
    four_segments(&original, |batch| batch as i32 / 7);
    expect!["0@0 1@21 2@42 3@63 4@84"].assert_eq(&show_epochs(&open(&original, 0, false).0));
    for start in [22, 30, 42, 60, 90] {
        for index in ["index", "timeindex"] {
            let path = directory.path().join(format!("orders-{start}"));
            copy_directory(&original, &path);
            let (mut log, _) = open(&path, 90, false);
            log.advance_log_start_offset(Offset(start)).expect("in range");
            log.flush().expect("flushed");
            drop(log);
            fs::remove_file(path.join(format!("00000000000000000000.{index}"))).expect("removed");
            let (log, report) = open(&path, 90, false);
            assert_eq!(report.indexes_rebuilt, 2, "of the first segment and the active one");
            assert_eq!(show_epochs(&log), "0@0 1@21 2@42 3@63 4@84", "{index} lost, after a start at {start}");
            drop(log);
            fs::remove_dir_all(&path).expect("removed");
        }
    }
}

#[test]
fn trap_28_a_short_time_index_of_a_flushed_segment_is_rebuilt_as_a_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    four_segments(&path, |_| 0);
    let expected = derived_files(&path);
    let file = path.join("00000000000000000027.timeindex");
    fs::write(&file, b"").expect("written");
    let (mut log, _) = open(&path, 90, false);
    log.close().expect("closed");
    let rebuilt = derived_files(&path);
    let time_index = |files: &[(String, Vec<u8>)]| {
        files.iter().find(|(name, _)| name == "00000000000000000027.timeindex").map(|(_, contents)| contents.clone())
    };
    assert_eq!(time_index(&rebuilt), time_index(&expected));
}

#[test]
fn a_truncation_below_the_start_lowers_the_checkpointed_start_first() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut log, points) = create_checkpointed(directory.path(), config());
    let (starts, partition) = (points.log_start_offsets, points.partition);
    for _ in 0..10 {
        append(&mut log, 3, 1);
    }
    log.advance_log_start_offset(Offset(25)).expect("in range");
    starts.update([(partition.clone(), Offset(25))]).expect("written");
    assert_eq!(log.truncate_to(Offset(11)).expect("truncated"), Offset(9));
    assert_eq!(starts.get(&partition), Some(Offset(9)));
}
