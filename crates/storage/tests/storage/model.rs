//! Random histories of a log, held against a list of batches.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vltava_protocol::batch::BatchHeader;
use vltava_storage::{Log, LogConfig, LogOptions};
use vltava_types::{Offset, TimestampMs, TopicId};

use crate::batch::{batch, everything, read_all};

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
        1 => (0..30i64).prop_map(Step::StartOver),
        3 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    batches: Vec<(BatchHeader, Bytes)>,
    start: i64,
    end: i64,
    epoch: i32,
}

impl Model {
    fn append(&mut self, base_offset: i64, count: i64) -> Bytes {
        let bytes = batch(base_offset, count, self.epoch);
        self.batches.push((BatchHeader::parse(&bytes).expect("a batch"), bytes.clone()));
        self.end = base_offset + count;
        bytes
    }

    /// `first_base` is where the first segment that there is begins.
    fn truncate(&mut self, offset: i64, first_base: i64) {
        if offset >= self.end {
            return;
        }
        self.batches.retain(|(header, _)| header.next_offset().value() <= offset);
        self.end = self.batches.last().map_or(first_base, |(header, _)| header.next_offset().value().max(first_base));
        self.start = self.start.min(self.end);
    }

    fn at(&self, percent: i64) -> i64 {
        self.start + (self.end - self.start) * percent / 100
    }

    /// The bytes from the batch on that holds the start offset or follows it.
    fn readable(&self) -> Vec<u8> {
        let batches = self.batches.iter().filter(|(header, _)| header.last_offset().value() >= self.start);
        batches.flat_map(|(_, bytes)| bytes.to_vec()).collect()
    }
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 100,
        retention_ms: -1,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn check(steps: &[Step]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let config = Arc::new(config());
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
            for (header, _) in &model.batches {
                let expected =
                    Some(header.partition_leader_epoch).filter(|_| header.last_offset() >= log.log_start_offset());
                assert!(expected.is_none() || log.epochs().epoch_of(header.last_offset()) == expected);
            }
            let written: BTreeSet<_> = model.batches.iter().map(|(header, _)| header.partition_leader_epoch).collect();
            assert!(log.epochs().entries().iter().all(|entry| written.contains(&entry.epoch)));
            let middle = Offset(model.at(50));
            let expected = model.batches.iter().find(|(header, _)| header.last_offset() >= middle);
            let read = reader.read(middle, everything()).expect("in range");
            assert_eq!(read.get(..8), expected.map(|(_, bytes)| &bytes[..8]));
            let timestamp = TimestampMs(1000 + middle.value());
            let found = reader.offset_for_timestamp(timestamp, Offset(model.end)).expect("readable");
            let expected = expected.map(|(header, _)| header.base_offset.max(middle));
            assert_eq!(found.map(|found| found.offset), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list_of_batches(steps in prop::collection::vec(step(), 1..40)) {
        check(&steps);
    }
}
