//! Random histories of a log, held against a list of batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vltava_protocol::batch::{BatchBuilder, BatchHeader, Record, batches, records};
use vltava_storage::{CleanerOptions, CleaningStep, Log, LogConfig, LogOptions, OffsetMapLimits, cleanable_range};
use vltava_types::{LeaderEpoch, Offset, TimestampMs, TopicId};

use crate::batch::{everything, read_all};

#[derive(Clone, Debug)]
enum Step {
    /// Some batches of these numbers of records; a new leader epoch first, if so.
    Append {
        counts: Vec<i64>,
        new_epoch: bool,
    },
    /// As a follower, after a gap.
    AppendAfterGap {
        gap: i64,
        count: i64,
    },
    Flush,
    /// To this share of the log, in percent.
    Truncate(i64),
    AdvanceStart(i64),
    Delete,
    Compact,
    StartOver(i64),
    Restart {
        clean: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(1..20i64, 1..6), prop::bool::weighted(0.3))
            .prop_map(|(counts, new_epoch)| Step::Append { counts, new_epoch }),
        1 => (1..50i64, 1..5i64).prop_map(|(gap, count)| Step::AppendAfterGap { gap, count }),
        2 => Just(Step::Flush),
        2 => (0..=100i64).prop_map(Step::Truncate),
        2 => (0..=100i64).prop_map(Step::AdvanceStart),
        2 => Just(Step::Delete),
        3 => Just(Step::Compact),
        1 => (0..30i64).prop_map(Step::StartOver),
        3 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    batches: Vec<Batch>,
    start: i64,
    end: i64,
    epoch: i32,
    /// The leader epochs that ever wrote something.
    epochs: BTreeSet<LeaderEpoch>,
}

#[derive(Clone, Debug)]
struct Batch {
    header: BatchHeader,
    bytes: Bytes,
    records: Vec<Record>,
}

impl Batch {
    fn of(bytes: Bytes) -> Self {
        let header = BatchHeader::parse(&bytes).expect("a batch");
        let records = records(&bytes, 1 << 20).expect("records");
        Self { header, bytes, records: records.map(|record| record.expect("a record")).collect() }
    }
}

/// Of few keys, so that most records are superseded soon.
fn keyed(base_offset: i64, count: i64, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(Offset(base_offset)).leader_epoch(LeaderEpoch(epoch));
    for offset in base_offset..base_offset + count {
        let (key, value) = (format!("key {}", offset * offset % 11), format!("value {offset}"));
        builder.append(TimestampMs(1000 + offset), Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

impl Model {
    fn append(&mut self, base_offset: i64, count: i64) -> Bytes {
        let bytes = keyed(base_offset, count, self.epoch);
        self.batches.push(Batch::of(bytes.clone()));
        self.epochs.insert(LeaderEpoch(self.epoch));
        self.end = base_offset + count;
        bytes
    }

    /// `first_base` is where the first segment that there is begins.
    fn truncate(&mut self, offset: i64, first_base: i64) {
        if offset >= self.end {
            return;
        }
        self.batches.retain(|batch| batch.header.next_offset().value() <= offset);
        let end = self.batches.last().map_or(first_base, |batch| batch.header.next_offset().value());
        self.end = end.max(first_base);
        self.start = self.start.min(self.end);
    }

    fn at(&self, percent: i64) -> i64 {
        self.start + (self.end - self.start) * percent / 100
    }

    /// The bytes from the batch on that holds the start offset or follows it.
    fn readable(&self) -> Vec<u8> {
        self.held().flat_map(|batch| batch.bytes.to_vec()).collect()
    }

    fn held(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.header.last_offset().value() >= self.start)
    }

    /// Of the records below `end`, those stay that are the last of their key there. What lies before the start, in the batch
    /// that holds it, supersedes nothing. A batch without records stays only as the last one of a segment, of which `bases`
    /// tells where they begin.
    fn compact(&mut self, end: i64, bases: &[i64]) {
        let mut last: BTreeMap<Bytes, i64> = BTreeMap::new();
        let range = self.start..end;
        let records = self.batches.iter().flat_map(|batch| &batch.records);
        for record in records.filter(|record| range.contains(&record.offset.value())) {
            last.insert(record.key.clone().expect("a key"), record.offset.value());
        }
        let is_last = |record: &Record| {
            last.get(record.key.as_ref().expect("a key")).is_none_or(|last| *last <= record.offset.value())
        };
        for batch in self.batches.iter_mut().filter(|batch| batch.header.next_offset().value() <= end) {
            batch.records.retain(is_last);
        }
        let ends_segment = |header: &BatchHeader| bases.contains(&header.next_offset().value());
        self.batches.retain(|batch| !batch.records.is_empty() || ends_segment(&batch.header));
    }

    /// The bytes of batches that lost records are the log's.
    fn take_bytes(&mut self, read: &[u8]) {
        let found: Vec<_> = batches(read).map(|batch| Bytes::copy_from_slice(batch.expect("whole").bytes)).collect();
        let start = self.start;
        let held = self.batches.iter_mut().filter(|batch| batch.header.last_offset().value() >= start);
        let mut found = found.into_iter().map(Batch::of);
        for batch in held {
            let cleaned = found.next().expect("no batch is missing");
            let place =
                |header: &BatchHeader| (header.base_offset, header.last_offset(), header.partition_leader_epoch);
            assert_eq!(place(&batch.header), place(&cleaned.header));
            assert_eq!(batch.records, cleaned.records);
            *batch = cleaned;
        }
        assert!(found.next().is_none(), "no batch is there that was to go");
    }
}

/// A pass to its end.
fn compact(log: &mut Log) -> Option<i64> {
    let (now, committed) = (TimestampMs(1 << 40), log.log_end_offset());
    let range = cleanable_range(&log.cleaning_facts(committed, None).expect("readable"), None, now);
    if range.dirty_bytes == 0 {
        return None;
    }
    let end = range.end_offset.value();
    let options = CleanerOptions { map: OffsetMapLimits { bytes: 1 << 16, load_factor: 0.9 }, io_buffer_bytes: 100 };
    let mut pass = log.begin_cleaning(range, committed, options, now);
    loop {
        match pass.step().expect("the disk works") {
            CleaningStep::Worked { .. } => {}
            CleaningStep::Replace(cleaned) => assert!(log.replace_segments(&cleaned, now).expect("the disk works")),
            CleaningStep::Done(_) => return Some(end),
        }
    }
}

fn config(delete_by_retention: bool) -> LogConfig {
    LogConfig {
        is_compacted: true,
        delete_by_retention,
        segment_bytes: 600,
        index_interval_bytes: 100,
        retention_ms: -1,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn check(steps: &[Step], delete_by_retention: bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let config = Arc::new(config(delete_by_retention));
    let created = Log::create(&path, TopicId::ZERO, Arc::clone(&config), LogOptions::default()).expect("created");
    let mut log = created;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append { counts, new_epoch } => {
                model.epoch += i32::from(*new_epoch);
                let batches: Vec<_> =
                    counts.iter().flat_map(|count| model.append(model.end, *count).to_vec()).collect();
                log.append_as_leader(&batches).expect("appended");
            }
            Step::AppendAfterGap { gap, count } => {
                let bytes = model.append(model.end + gap, *count);
                log.append_as_follower(&bytes).expect("appended");
            }
            Step::Flush => log.flush().expect("flushed"),
            Step::Truncate(percent) => {
                let offset = model.at(*percent);
                model.truncate(offset, log.segments()[0].base_offset.value());
                assert_eq!(log.truncate_to(Offset(offset)).expect("truncated"), Offset(model.end));
            }
            Step::AdvanceStart(percent) => {
                let offset = model.at(*percent);
                log.advance_log_start_offset(Offset(offset)).expect("in range");
                model.start = offset;
            }
            Step::Delete => {
                let deleted = log.delete_old_segments(TimestampMs(0), Offset(model.end)).expect("deleted");
                assert_eq!(deleted.log_start_offset, Offset(model.start));
                assert!(log.segments().get(1).is_none_or(|second| second.base_offset > Offset(model.start)));
                log.remove_deleted_files(TimestampMs(0)).expect("removed");
            }
            Step::Compact => {
                if let Some(end) = compact(&mut log) {
                    let bases: Vec<i64> = log.segments().iter().map(|segment| segment.base_offset.value()).collect();
                    model.compact(end, &bases);
                    model.take_bytes(&read_all(&log.reader(), Offset(model.start)));
                }
            }
            Step::StartOver(beyond) => {
                let start = model.end + beyond;
                model = Model { start, end: start, batches: vec![], ..model };
                log.truncate_fully_and_start_at(Offset(model.end)).expect("emptied");
            }
            Step::Restart { clean } => {
                if *clean {
                    log.close().expect("closed");
                }
                let options = LogOptions {
                    log_start_offset: Offset(model.start),
                    recovery_point: log.recovery_point(),
                    high_watermark: Offset(model.end),
                    clean_shutdown: *clean,
                    ..LogOptions::default()
                };
                drop(log);
                let report;
                (log, report) = Log::open(&path, Arc::clone(&config), options).expect("opened");
                assert_eq!((report.bytes_cut, report.lost_below), (0, None));
                assert!(!clean || report.bytes_scanned == 0, "{report:?}");
            }
        }
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(model.start), Offset(model.end)));
        assert!((log.log_start_offset()..=log.log_end_offset()).contains(&log.recovery_point()));
        let reader = log.reader();
        assert_eq!(read_all(&reader, Offset(model.start)), model.readable());
        if model.start < model.end {
            for Batch { header, .. } in &model.batches {
                let expected =
                    Some(header.partition_leader_epoch).filter(|_| header.last_offset() >= log.log_start_offset());
                assert!(expected.is_none() || log.epochs().epoch_of(header.last_offset()) == expected);
            }
            assert!(log.epochs().entries().iter().all(|entry| model.epochs.contains(&entry.epoch)));
            let middle = Offset(model.at(50));
            let expected = model.batches.iter().find(|batch| batch.header.last_offset() >= middle);
            let read = reader.read(middle, everything()).expect("in range");
            assert_eq!(read.get(..8), expected.map(|batch| &batch.bytes[..8]));
            let timestamp = TimestampMs(1000 + middle.value());
            let found = reader.offset_for_timestamp(timestamp, Offset(model.end)).expect("readable");
            let mut records = model.batches.iter().flat_map(|batch| &batch.records);
            let expected = records.find(|record| record.offset >= middle).map(|record| record.offset);
            assert_eq!(found.map(|found| found.offset), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list_of_batches(steps in prop::collection::vec(step(), 1..40), delete_by_retention: bool) {
        check(&steps, delete_by_retention);
    }
}
