//! Compaction of logs: what stays, what goes, and what a crash or a change of the log on the way leaves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vltava_host::fs;
use vltava_protocol::batch::{BatchBuilder, BatchHeader, ControlKind, batches, records};
use vltava_protocol::compression::Compression;
use vltava_storage::{
    CleanedSegment, CleanerOptions, CleaningError, CleaningPass, CleaningStep, Log, LogConfig, LogOptions,
    OffsetMapLimits, StorageError, cleanable_range,
};
use vltava_types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::batch::{copy_directory, create, create_checkpointed, list, read_all, show_segments};

const DAY: i64 = 24 * 60 * 60 * 1000;
const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 100,
        is_compacted: true,
        delete_by_retention: false,
        delete_retention_ms: DAY,
        ..LogConfig::default()
    }
}

fn options(keys: usize) -> CleanerOptions {
    // A load factor of one leaves one slot free.
    CleanerOptions { map: OffsetMapLimits { bytes: (keys + 1) * 24, load_factor: 1.0 }, io_buffer_bytes: 1 }
}

/// Appends a batch of `key=value` and `key=` (a tombstone) words.
fn append(log: &mut Log, words: &str) {
    append_with(log, words, |builder| builder);
}

fn append_with(log: &mut Log, words: &str, with: impl FnOnce(BatchBuilder) -> BatchBuilder) {
    let mut builder = with(BatchBuilder::new().base_offset(log.log_end_offset()));
    for (i, word) in words.split_whitespace().enumerate() {
        let (key, value) = word.split_once('=').expect("key=value");
        let timestamp = TimestampMs(1000 + log.log_end_offset().value() + i as i64);
        let value = Some(value.as_bytes()).filter(|value| !value.is_empty());
        builder.append(timestamp, Some(key.as_bytes()), value, &[(b"trace", Some(b"1"))]);
    }
    log.append_as_leader(&builder.build()).expect("appended");
}

fn append_marker(log: &mut Log, producer_id: i64, kind: ControlKind) {
    let mut builder = BatchBuilder::new()
        .base_offset(log.log_end_offset())
        .producer(ProducerId(producer_id), ProducerEpoch(0), Sequence::NONE)
        .transactional()
        .control();
    builder.append_control(TimestampMs(1000), kind, &[0; 6]);
    log.append_as_leader(&builder.build()).expect("appended");
}

/// Has the next batch begin a segment, so that everything before it can be cleaned.
fn roll(log: &mut Log) {
    let config = LogConfig::clone(log.config());
    log.set_config(Arc::new(LogConfig { segment_bytes: 1, ..config.clone() }));
    append(log, "~=end");
    log.set_config(Arc::new(config));
}

fn begin(log: &Log, cleaned_up_to: Option<Offset>, keys: usize, now: TimestampMs) -> CleaningPass {
    let end = log.log_end_offset();
    let facts = log.cleaning_facts(end, cleaned_up_to).expect("readable");
    log.begin_cleaning(cleanable_range(&facts, cleaned_up_to, now), end, options(keys), now)
}

fn run(log: &mut Log, mut pass: CleaningPass, now: TimestampMs) -> Result<Offset, CleaningError> {
    loop {
        match pass.step()? {
            CleaningStep::Worked { .. } => {}
            CleaningStep::Replace(cleaned) => assert!(log.replace_segments(&cleaned, now).expect("replaced")),
            CleaningStep::Done(cleaned) => return Ok(cleaned.offset_unless_void().expect("nobody truncated")),
        }
    }
}

/// Cleans everything but the active segment.
fn compact(log: &mut Log, cleaned_up_to: Option<Offset>, now: TimestampMs) -> Offset {
    let pass = begin(log, cleaned_up_to, 1000, now);
    run(log, pass, now).expect("cleaned")
}

/// The first segment that wants to be put in place.
fn first_replacement(pass: &mut CleaningPass) -> CleanedSegment {
    loop {
        match pass.step().expect("cleaned") {
            CleaningStep::Worked { .. } => {}
            CleaningStep::Replace(cleaned) => return cleaned,
            CleaningStep::Done(_) => panic!("there is something to clean"),
        }
    }
}

/// "offset:key=value" of each record, "[first..=last]" of each batch without any, "!" for a marker.
fn show(log: &Log) -> String {
    show_bytes(&read_all(&log.reader(), log.log_start_offset()))
}

fn show_bytes(bytes: &[u8]) -> String {
    let mut words = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.expect("whole batches");
        batch.verify_crc().expect("intact batches");
        if batch.header.record_count == 0 {
            words.push(format!("[{}..={}]", batch.header.base_offset, batch.header.last_offset()));
        }
        for record in records(&Bytes::copy_from_slice(batch.bytes), 1 << 20).expect("readable") {
            let record = record.expect("readable");
            let text = |bytes: Option<Bytes>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            if batch.header.is_control() {
                words.push(format!("{}!", record.offset));
                continue;
            }
            assert_eq!(record.timestamp.value(), 1000 + record.offset.value(), "timestamps stay");
            words.push(format!("{}:{}={}", record.offset, text(record.key), text(record.value)));
        }
    }
    words.join(" ")
}

fn open(path: &Path, log_end_offset: Offset) -> Log {
    let options = LogOptions { recovery_point: log_end_offset, ..LogOptions::default() };
    Log::open(path, Arc::new(config()), options).expect("opened").0
}

struct Fixture {
    directory: tempfile::TempDir,
    log: Log,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = create(&directory.path().join("orders-0"), config());
    Fixture { directory, log }
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    let Fixture { directory: _directory, mut log } = fixture();
    append(&mut log, "a=1 b=1 c=1");
    append(&mut log, "a=2 a=3");
    append(&mut log, "b=2");
    roll(&mut log);
    assert_eq!(compact(&mut log, None, NOW), Offset(6));
    assert_eq!(show(&log), "2:c=1 4:a=3 5:b=2 6:~=end");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(7)));
}

#[test]
fn the_next_pass_reads_only_what_is_new_into_its_map() {
    let Fixture { directory: _directory, mut log } = fixture();
    append(&mut log, "a=1 b=1");
    roll(&mut log);
    let cleaned = compact(&mut log, None, NOW);
    append(&mut log, "a=2");
    roll(&mut log);
    let pass = begin(&log, Some(cleaned), 1000, NOW);
    assert_eq!(run(&mut log, pass, NOW).expect("cleaned"), Offset(4));
    assert_eq!(show(&log), "1:b=1 2:~=end 3:a=2 4:~=end");
}

#[test]
fn a_tombstone_stays_for_delete_retention_after_its_first_cleaning() {
    let Fixture { directory: _directory, mut log } = fixture();
    append(&mut log, "a=1 b=1");
    append(&mut log, "a=");
    append(&mut log, "c=1");
    roll(&mut log);
    let cleaned = compact(&mut log, None, NOW);
    assert_eq!(show(&log), "1:b=1 2:a= 3:c=1 4:~=end");
    compact(&mut log, Some(cleaned), TimestampMs(NOW.value() + DAY - 1));
    assert_eq!(show(&log), "1:b=1 2:a= 3:c=1 4:~=end");
    compact(&mut log, Some(cleaned), TimestampMs(NOW.value() + DAY));
    assert_eq!(show(&log), "1:b=1 3:c=1 4:~=end");
}

#[test]
fn records_without_keys_go() {
    let Fixture { directory: _directory, mut log } = fixture();
    let mut builder = BatchBuilder::new();
    builder.append(TimestampMs(1000), None, Some(b"from before the topic was compacted"), &[]);
    builder.append(TimestampMs(1001), Some(b"a"), Some(b"1"), &[]);
    log.append_as_leader(&builder.build()).expect("appended");
    roll(&mut log);
    compact(&mut log, None, NOW);
    assert_eq!(show(&log), "1:a=1 2:~=end");
}

#[test]
fn batches_keep_their_codec() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let Fixture { directory: _directory, mut log } = fixture();
        append_with(&mut log, "a=1 b=1", |builder| builder.compression(codec));
        append_with(&mut log, "a=2", |builder| builder.compression(codec));
        roll(&mut log);
        compact(&mut log, None, NOW);
        assert_eq!(show(&log), "1:b=1 2:a=2 3:~=end");
        let bytes = read_all(&log.reader(), Offset(0));
        for batch in batches(&bytes).take(2) {
            assert_eq!(batch.expect("whole").header.compression(), Some(codec));
        }
    }
}

#[test]
fn small_segments_are_made_into_one() {
    let Fixture { directory: _directory, mut log } = fixture();
    for _ in 0..60 {
        append(&mut log, "a=1 b=1");
    }
    append(&mut log, "c=1");
    roll(&mut log);
    assert!(log.segments().len() > 12, "{}", show_segments(&log));
    let mut cleaned = compact(&mut log, None, NOW);
    for _ in 0..3 {
        roll(&mut log);
        cleaned = compact(&mut log, Some(cleaned), NOW);
    }
    assert!(log.segments().len() <= 3, "{}", show_segments(&log));
    assert!(show(&log).contains("118:a=1 119:b=1 120:c=1"), "{}", show(&log));
}

#[test]
fn the_end_of_what_was_cleaned_can_still_be_reached() {
    let Fixture { directory: _directory, mut log } = fixture();
    append(&mut log, "a=1");
    append(&mut log, "a=2 b=1");
    append(&mut log, "b=2");
    roll(&mut log);
    append(&mut log, "a=3 b=3");
    roll(&mut log);
    compact(&mut log, None, NOW);
    // The last batch of each new segment stays; what is gone leaves gaps.
    assert_eq!(show(&log).split_whitespace().last(), Some("7:~=end"));
    let mut next = Offset(0);
    for batch in batches(&read_all(&log.reader(), Offset(0))) {
        let header = batch.expect("whole").header;
        assert!(next <= header.base_offset);
        next = header.next_offset();
    }
    assert_eq!(next, log.log_end_offset());
}

#[test]
fn a_producer_is_known_by_the_batch_that_stays_without_records() {
    let Fixture { directory, mut log } = fixture();
    let producer =
        |sequence| move |builder: BatchBuilder| builder.producer(ProducerId(7), ProducerEpoch(2), Sequence(sequence));
    append_with(&mut log, "a=1 a=2", producer(0));
    append_with(&mut log, "a=3", producer(2));
    append(&mut log, "a=4");
    append(&mut log, "b=1");
    roll(&mut log);
    compact(&mut log, None, NOW);
    assert_eq!(show(&log), "[2..=2] 3:a=4 4:b=1 5:~=end");
    log.flush().expect("flushed");
    let path = directory.path().join("orders-0");
    for name in list(&path).into_iter().filter(|name| name.ends_with(".snapshot")) {
        fs::remove_file(path.join(name)).expect("removed");
    }
    let reopened = open(&path, log.log_end_offset());
    let last = |log: &Log| log.producers().last_records();
    assert_eq!(last(&reopened), last(&log));
    assert_eq!(last(&log)[&ProducerId(7)].last_data_offset, Some(Offset(2)));
}

#[test]
fn aborted_data_goes_and_markers_go_after_it() {
    let Fixture { directory: _directory, mut log } = fixture();
    let transaction = |id, sequence| {
        move |builder: BatchBuilder| {
            builder.producer(ProducerId(id), ProducerEpoch(0), Sequence(sequence)).transactional()
        }
    };
    // One segment, of which one batch only is the last.
    log.set_config(Arc::new(LogConfig { segment_bytes: 1 << 20, ..config() }));
    append(&mut log, "a=committed");
    append_with(&mut log, "a=aborted x=aborted", transaction(1, 0));
    append_with(&mut log, "b=1", transaction(2, 0));
    append_marker(&mut log, 1, ControlKind::Abort);
    append_marker(&mut log, 2, ControlKind::Commit);
    append_with(&mut log, "b=2", transaction(2, 1));
    append_marker(&mut log, 2, ControlKind::Commit);
    append_with(&mut log, "c=1", transaction(1, 2));
    append_marker(&mut log, 1, ControlKind::Abort);
    roll(&mut log);
    let cleaned = compact(&mut log, None, NOW);
    // Aborted records never shadow committed ones. Markers stay while they may be needed, and so do the last batches of
    // the two producers.
    assert_eq!(show(&log), "0:a=committed 4! 5! 6:b=2 7! [8..=8] 9! 10:~=end");
    let cleaned = compact(&mut log, Some(cleaned), TimestampMs(NOW.value() + 1));
    assert_eq!(show(&log), "0:a=committed 4! 5! 6:b=2 7! [8..=8] 9! 10:~=end");
    // From then on the markers without data have a horizon, and it passes.
    compact(&mut log, Some(cleaned), TimestampMs(NOW.value() + 1 + DAY));
    assert_eq!(show(&log), "0:a=committed 6:b=2 7! [8..=8] 9! 10:~=end");
}

#[test]
fn a_lost_time_index_is_noticed_before_a_batch_without_records() {
    let Fixture { directory, mut log } = fixture();
    append(&mut log, &format!("x={}", "1".repeat(200)));
    for _ in 0..3 {
        roll(&mut log);
    }
    compact(&mut log, None, NOW);
    assert!(show(&log).ends_with("[1..=1] 2:~=end 3:~=end"), "{}", show(&log));
    log.close().expect("closed");
    let path = directory.path().join("orders-0");
    fs::remove_file(path.join("00000000000000000000.timeindex")).expect("there");
    let reopened = open(&path, log.log_end_offset());
    let found = reopened.reader().offset_for_timestamp(TimestampMs(1000), Offset(4)).expect("readable");
    assert_eq!(found.map(|found| found.offset), Some(Offset(0)));
}

#[test]
fn a_map_that_is_too_small_takes_more_passes() {
    let Fixture { directory: _directory, mut log } = fixture();
    for i in 0..10 {
        append(&mut log, &format!("a={i} k{i}=1 k{i}=2"));
    }
    roll(&mut log);
    let mut cleaned = Offset(0);
    let mut passes = 0;
    while cleaned < Offset(30) {
        let pass = begin(&log, Some(cleaned), 4, NOW);
        let end = run(&mut log, pass, NOW).expect("cleaned");
        assert!(cleaned < end);
        cleaned = end;
        passes += 1;
    }
    assert_eq!(passes, 4, "three new batches a pass: one key that all share, and one of each");
    let expected: Vec<_> = (0..9).map(|i| format!("{}:k{i}=2", 3 * i + 2)).collect();
    assert_eq!(show(&log), format!("{} 27:a=9 29:k9=2 30:~=end", expected.join(" ")));

    append(&mut log, "p=1 q=1 r=1");
    roll(&mut log);
    let pass = begin(&log, Some(Offset(31)), 2, NOW);
    let error = run(&mut log, pass, NOW).expect_err("no batch fits");
    assert!(matches!(error, CleaningError::MapTooSmall { offset: Offset(31), keys: 2 }), "{error}");
}

#[test]
fn readers_go_on_with_the_segments_they_began_with() {
    let Fixture { directory, mut log } = fixture();
    for i in 0..30 {
        append(&mut log, &format!("a={i} b={i}"));
    }
    let reader = log.reader();
    let before = read_all(&reader, Offset(0));
    roll(&mut log);
    let cleaned = compact(&mut log, None, NOW);
    assert_eq!(read_all(&reader, Offset(0)), before);
    // A second swap of the same names, before and after the files of the first are removed.
    append(&mut log, "a=last");
    roll(&mut log);
    compact(&mut log, Some(cleaned), NOW);
    log.remove_deleted_files(TimestampMs(NOW.value() + 60_000)).expect("removed");
    assert_eq!(read_all(&reader, Offset(0)), before);
    let path = directory.path().join("orders-0");
    let stray: Vec<_> = list(&path).into_iter().filter(|name| !name.starts_with("0000") || name.len() > 30).collect();
    assert_eq!(stray, ["leader-epoch-checkpoint", "partition.metadata"]);
}

#[test]
fn a_compacted_segment_spans_no_more_than_the_maximum_lag() {
    let segments = |is_compacted, max_compaction_lag_ms| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = LogConfig { is_compacted, max_compaction_lag_ms, segment_bytes: 1 << 20, ..config() };
        let mut log = create(&directory.path().join("orders-0"), config);
        // A millisecond each.
        for _ in 0..30 {
            append(&mut log, "a=1");
        }
        log.segments().len()
    };
    assert_eq!((segments(true, 9), segments(true, i64::MAX), segments(false, 9)), (3, 1, 1));
}

#[test]
fn a_truncation_ends_a_pass() {
    let Fixture { directory, mut log } = fixture();
    for i in 0..30 {
        append(&mut log, &format!("a={i} b={i}"));
    }
    roll(&mut log);
    let mut pass = begin(&log, None, 1000, NOW);
    let cleaned = first_replacement(&mut pass);
    log.truncate_to(Offset(41)).expect("truncated");
    let before = show(&log);
    assert!(!log.replace_segments(&cleaned, NOW).expect("refused"));
    assert!(matches!(pass.step(), Err(CleaningError::Truncated)));
    pass.abandon().expect("nothing is left");
    assert_eq!(show(&log), before);
    let path = directory.path().join("orders-0");
    assert!(list(&path).iter().all(|name| !name.ends_with("cleaned")), "{:?}", list(&path));
}

#[test]
fn retention_under_a_pass_ends_it() {
    let Fixture { directory: _directory, mut log } = fixture();
    for i in 0..30 {
        append(&mut log, &format!("a={i} b={i}"));
    }
    roll(&mut log);
    let mut pass = begin(&log, None, 1000, NOW);
    let cleaned = first_replacement(&mut pass);
    let start = log.segments()[1].base_offset;
    log.advance_log_start_offset(start).expect("in range");
    assert_eq!(log.delete_old_segments(NOW, log.log_end_offset()).expect("deleted").segments, 1);
    assert!(!log.replace_segments(&cleaned, NOW).expect("refused"));
    assert_eq!(log.segments()[0].base_offset, start);
}

#[test]
fn damage_is_found_and_not_written_anew() {
    let Fixture { directory, mut log } = fixture();
    append(&mut log, "a=1 b=1");
    append(&mut log, "a=2 b=2");
    roll(&mut log);
    log.flush().expect("flushed");
    let file = directory.path().join("orders-0/00000000000000000000.log");
    let bytes = fs::read(&file).expect("readable");
    let second = batches(&bytes).nth(1).expect("two batches").expect("whole").position;
    // A record; then where a batch begins, which no CRC covers: into the next one, into the one before, out of the segment.
    for (position, bits) in [(70, 1), (7, 1), (second + 7, 2), (second + 7, 8)] {
        let mut damaged = bytes.clone();
        damaged[position] ^= bits;
        fs::write(&file, &damaged).expect("written");
        let pass = begin(&log, None, 1000, NOW);
        let error = run(&mut log, pass, NOW).expect_err("damaged");
        assert!(matches!(error, CleaningError::Storage(StorageError::Corrupt { .. })), "{error}");
    }
}

#[test]
fn a_truncation_lowers_the_cleaner_checkpoint() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut log, points) = create_checkpointed(directory.path(), config());
    let (cleaned, partition) = (points.cleaner_checkpoint, points.partition);
    append(&mut log, "a=1");
    append(&mut log, "a=2");
    cleaned.update([(partition.clone(), Offset(2))]).expect("written");
    log.truncate_to(Offset(1)).expect("truncated");
    assert_eq!(cleaned.get(&partition), Some(Offset(1)));
}

/// What [`Log::replace_segments`] renames, step by step, with a flush of the directory after each. Within a step, a
/// machine that loses power may keep any of the renames.
fn steps_of_a_swap(base_offset: i64, sources: &[i64]) -> Vec<Vec<(String, String)>> {
    let file = |offset: i64, suffix: &str| format!("{offset:020}.{suffix}");
    let all = ["timeindex", "index", "log"];
    let rename = |from: String, to: String| (from, to);
    vec![
        all.iter()
            .map(|suffix| file(base_offset, suffix))
            .map(|name| rename(format!("{name}.cleaned"), format!("{name}.swap")))
            .collect(),
        sources
            .iter()
            .flat_map(|source| all.iter().map(|suffix| file(*source, suffix)))
            .map(|name| rename(name.clone(), format!("{name}.deleted")))
            .chain(sources[1..].iter().map(|source| {
                let name = file(*source, "snapshot");
                rename(name.clone(), format!("{name}.deleted"))
            }))
            .collect(),
        all.iter().map(|suffix| file(base_offset, suffix)).map(|name| rename(format!("{name}.swap"), name)).collect(),
    ]
}

#[test]
fn a_crash_anywhere_in_a_swap_leaves_the_old_or_the_new() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, LogConfig { segment_bytes: 300, ..config() });
    // The last source loses all of its records to the ones before... and after it, so that its end is told by an empty batch.
    for i in 0..3 {
        append(&mut log, &format!("a={i} b={i}"));
        append(&mut log, &format!("c{i}=1 b={i}"));
    }
    append(&mut log, "a=9 b=9");
    roll(&mut log);
    append(&mut log, "~=end");
    log.flush().expect("flushed");
    log.set_config(Arc::new(LogConfig { segment_bytes: 1 << 20, ..config() }));
    let old = show(&log);
    let mut pass = begin(&log, None, 1000, NOW);
    let cleaned = first_replacement(&mut pass);
    let sources: Vec<_> = log.segments().iter().map(|segment| segment.base_offset.value()).collect();
    let (active, sources) = sources.split_last().expect("there are segments");
    assert!(sources.len() >= 3, "{sources:?}");
    let before = directory.path().join("before");
    copy_directory(&path, &before);
    assert!(log.replace_segments(&cleaned, NOW).expect("replaced"));
    let new = show(&log);
    assert_ne!(old, new);
    let log_end_offset = log.log_end_offset();

    let apply = |target: &Path, renames: &[&(String, String)]| {
        for (from, to) in renames {
            fs::rename(target.join(from), target.join(to)).expect("the file is there");
        }
    };
    let steps = steps_of_a_swap(0, sources);
    let mut states = 0;
    for (index, step) in steps.iter().enumerate() {
        for kept in 0..1u32 << step.len() {
            // Of the many, those that keep nearly all or nearly none, and a spread of the others.
            let ones = kept.count_ones() as usize;
            if step.len() > 6 && ones > 2 && ones + 2 < step.len() && kept % 37 != 0 {
                continue;
            }
            let target = directory.path().join("crashed");
            copy_directory(&before, &target);
            let done: Vec<_> = steps[..index].iter().flatten().collect();
            apply(&target, &done);
            let part: Vec<_> =
                step.iter().enumerate().filter(|(i, _)| kept & (1 << i) != 0).map(|(_, rename)| rename).collect();
            apply(&target, &part);
            let log = open(&target, log_end_offset);
            let is_decided = index > 0 || part.iter().any(|(from, _)| from.ends_with("log.cleaned"));
            assert_eq!(show(&log), if is_decided { new.clone() } else { old.clone() }, "{index} {part:?}");
            assert_eq!(log.log_end_offset(), log_end_offset);
            let timestamp = log.reader().offset_for_timestamp(TimestampMs(1000), log_end_offset);
            assert!(timestamp.expect("readable").is_some());
            drop(log);
            let stray: Vec<_> = list(&target).into_iter().filter(|name| name.split('.').count() > 2).collect();
            assert!(stray.is_empty(), "{stray:?}");
            fs::remove_dir_all(&target).expect("removed");
            states += 1;
        }
    }
    assert!(states > 60, "{states}");
    // The list above is what the code does.
    let target = directory.path().join("crashed");
    copy_directory(&before, &target);
    apply(&target, &steps.iter().flatten().collect::<Vec<_>>());
    assert_eq!(list(&target), list(&path));
    assert_eq!(log.segments().last().map(|segment| segment.base_offset.value()), Some(*active));
}

#[derive(Clone, Debug)]
enum Step {
    /// Keys, with a value or a tombstone; the codec; whether from an idempotent producer.
    Append {
        records: Vec<(u8, bool)>,
        codec: u8,
        is_idempotent: bool,
    },
    /// Whether there is room for all keys, and how much time passes before.
    Compact {
        has_room: bool,
        hours: i64,
    },
    Restart {
        clean: bool,
    },
    Truncate(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec((0..6u8, prop::bool::weighted(0.7)), 1..6), 0..5u8, any::<bool>())
            .prop_map(|(records, codec, is_idempotent)| Step::Append { records, codec, is_idempotent }),
        4 => (prop::bool::weighted(0.7), 0..20i64).prop_map(|(has_room, hours)| Step::Compact { has_room, hours }),
        1 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
        1 => (80..=100i64).prop_map(Step::Truncate),
    ]
}

/// What was ever appended, by offset.
#[derive(Default)]
struct Model {
    records: BTreeMap<i64, (u8, Option<String>)>,
    end: i64,
    /// When a tombstone was first cleaned.
    cleaned_at: BTreeMap<i64, i64>,
    sequence: i32,
    cleaned_up_to: i64,
}

impl Model {
    fn values(records: &BTreeMap<i64, (u8, Option<String>)>) -> BTreeMap<u8, String> {
        let mut values = BTreeMap::new();
        for (key, value) in records.values() {
            match value {
                Some(value) => values.insert(*key, value.clone()),
                None => values.remove(key),
            };
        }
        values
    }
}

fn stored(log: &Log) -> BTreeMap<i64, (u8, Option<String>)> {
    let mut stored = BTreeMap::new();
    for batch in batches(&read_all(&log.reader(), Offset(0))) {
        let batch = batch.expect("whole");
        for record in records(&Bytes::copy_from_slice(batch.bytes), 1 << 20).expect("readable") {
            let record = record.expect("readable");
            assert_eq!(record.timestamp.value(), 1000 + record.offset.value());
            let value = record.value.map(|value| String::from_utf8(value.to_vec()).expect("text"));
            let key = record.key.expect("all have keys")[0];
            assert!(stored.insert(record.offset.value(), (key, value)).is_none(), "offset {} twice", record.offset);
        }
    }
    stored
}

fn check(steps: &[Step]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    let mut model = Model::default();
    let mut now = NOW.value();
    for step in steps {
        match step {
            Step::Append { records, codec, is_idempotent } => {
                let mut builder = BatchBuilder::new()
                    .base_offset(Offset(model.end))
                    .compression(Compression::from_id(i16::from(*codec)).expect("a codec"));
                if *is_idempotent {
                    builder = builder.producer(ProducerId(5), ProducerEpoch(0), Sequence(model.sequence));
                    model.sequence += records.len() as i32;
                }
                for (key, has_value) in records {
                    let value = has_value.then(|| format!("{key}@{}", model.end));
                    builder.append(
                        TimestampMs(1000 + model.end),
                        Some(&[*key]),
                        value.as_deref().map(str::as_bytes),
                        &[],
                    );
                    model.records.insert(model.end, (*key, value));
                    model.end += 1;
                }
                log.append_as_leader(&builder.build()).expect("appended");
            }
            Step::Compact { has_room, hours } => {
                now += hours * 60 * 60 * 1000;
                let pass =
                    begin(&log, Some(Offset(model.cleaned_up_to)), if *has_room { 100 } else { 6 }, TimestampMs(now));
                let before = stored(&log);
                let end = run(&mut log, pass, TimestampMs(now)).expect("six keys always fit").value();
                for (offset, (_, value)) in before.range(..end) {
                    if value.is_none() {
                        model.cleaned_at.entry(*offset).or_insert(now);
                    }
                }
                let after = stored(&log);
                assert!(before.range(end..).eq(after.range(end..)), "what was not mapped stays");
                let mut keys = std::collections::BTreeSet::new();
                assert!(after.range(..end).all(|(_, (key, _))| keys.insert(*key)), "one record of a key: {after:?}");
                for (offset, (key, value)) in before.range(..end) {
                    let is_latest = before.range(offset + 1..end).all(|(_, (other, _))| other != key);
                    let may_go = !is_latest || (value.is_none() && model.cleaned_at[offset] + DAY <= now);
                    assert!(may_go || after.contains_key(offset), "{key}@{offset} is gone");
                }
                model.cleaned_up_to = end;
            }
            Step::Restart { clean } => {
                if *clean {
                    log.close().expect("closed");
                }
                let producers = log.producers().last_records();
                let options = LogOptions {
                    recovery_point: log.recovery_point(),
                    clean_shutdown: *clean,
                    ..LogOptions::default()
                };
                drop(log);
                let (reopened, report) = Log::open(&path, Arc::new(config()), options).expect("opened");
                assert_eq!((report.bytes_cut, report.lost_below), (0, None));
                log = reopened;
                assert_eq!(log.producers().last_records(), producers);
            }
            Step::Truncate(percent) => {
                model.end = log.truncate_to(Offset(model.end * percent / 100)).expect("truncated").value();
                model.records.split_off(&model.end);
                model.cleaned_up_to = model.cleaned_up_to.min(model.end);
            }
        }
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(model.end)));
        let stored = stored(&log);
        assert!(stored.iter().all(|(offset, record)| model.records.get(offset) == Some(record)), "{stored:?}");
        // A truncation may take back the record that another was compacted for, as it does in Kafka.
        if !steps.iter().any(|step| matches!(step, Step::Truncate(_))) {
            assert_eq!(Model::values(&stored), Model::values(&model.records));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compaction_never_changes_the_value_of_a_key(steps in prop::collection::vec(step(), 1..40)) {
        check(&steps);
    }

    #[test]
    fn without_truncations_values_are_those_of_a_map(
        steps in prop::collection::vec(step().prop_filter("no truncation", |step| !matches!(step, Step::Truncate(_))), 1..40)
    ) {
        check(&steps);
    }
}

#[test]
fn headers_of_batches_that_stay_are_what_followers_expect() {
    let Fixture { directory: _directory, mut log } = fixture();
    append(&mut log, "a=1 b=1 c=1 d=1");
    append(&mut log, "b=2 c=2");
    roll(&mut log);
    let before = BatchHeader::parse(&read_all(&log.reader(), Offset(0))).expect("a batch");
    compact(&mut log, None, NOW);
    let after = BatchHeader::parse(&read_all(&log.reader(), Offset(0))).expect("a batch");
    assert_eq!((after.base_offset, after.last_offset()), (before.base_offset, before.last_offset()));
    assert_eq!((after.record_count, after.partition_leader_epoch), (2, before.partition_leader_epoch));
    // A follower takes the gaps as they are.
    let other = tempfile::tempdir().expect("a temporary directory");
    let mut follower = create(&other.path().join("orders-0"), config());
    follower.append_as_follower(&read_all(&log.reader(), Offset(0))).expect("appended");
    assert_eq!(show(&follower), show(&log));
}
