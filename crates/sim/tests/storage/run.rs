//! Random histories of the logs of one directory, with crashes in the middle of operations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vltava_host::disk::{Faults, SimDisk};
use vltava_host::random::Generator;
use vltava_protocol::batch::batches;
use vltava_storage::{
    Appended, CleanerOptions, CleaningError, CleaningPass, CleaningStep, Flush, Log, LogConfig, LogDir, LogReader,
    OffsetMapLimits, PartitionName, ReadLimits, StorageError, cleanable_range,
};
use vltava_types::{BrokerEpoch, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

use crate::check::{check, check_recovered, take_in_cleaned};
use crate::model::{Allowed, Cleaning, Model};

const MOUNT: &str = "/disk";

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What a history goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process ends, or the power fails, in the middle of operations.
    Crashes,
    /// The disk fails writes and syncs too. A log directory is not used after that.
    FailingDisk,
    /// The disk fills up too, until something is refused.
    FullDisk,
    /// Syncs do nothing. For the checks' own sake: they must notice.
    LyingDisk,
}

/// One log and what it should be.
struct Driven {
    name: PartitionName,
    model: Model,
    /// `None` before it was created and after it was deleted.
    log: Option<Log>,
    topics: u8,
    /// A compaction under way, and what it may do. It may outlive the log.
    pass: Option<(CleaningPass, Cleaning)>,
    /// A flush under way, likewise.
    flush: Option<Flush>,
    /// Readers, and what they saw when they began.
    readers: Vec<(LogReader, Vec<u8>)>,
    /// Set while an operation is under way, if a crash now allows more than what was before and after it.
    under_way: Option<Allowed>,
}

pub struct Run {
    random: Generator,
    trouble: Trouble,
    disk: SimDisk,
    log_dir: Arc<LogDir>,
    logs: Vec<Driven>,
    config: Arc<LogConfig>,
    runtime: tokio::runtime::Runtime,
    /// Of the cleaner's clock.
    now: i64,
    /// What was done, to be shown if a check fails.
    story: Story,
    pub recoveries: usize,
}

/// Tells itself if it ends with a panic.
struct Story {
    seed: u64,
    lines: Vec<String>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("VLTAVA_QUIET").is_none() {
            eprintln!("seed {}:\n{}\n", self.seed, self.lines.join("\n"));
        }
    }
}

type Outcome = Result<(), StorageError>;

impl Run {
    pub fn new(seed: u64, trouble: Trouble) -> Self {
        let mut random = Generator::new(seed);
        vltava_host::random::seed(random.u64());
        let disk = SimDisk::mount(MOUNT, random.u64());
        let log_dir = Arc::new(LogDir::open(&directory()).expect("an empty disk works"));
        let config = LogConfig {
            segment_bytes: [600, 1500, 6000][random.below(3) as usize],
            index_interval_bytes: [0, 100, 1000][random.below(3) as usize],
            retention_ms: [-1, -1, 300][random.below(3) as usize],
            retention_bytes: [-1, 2500][random.below(2) as usize],
            file_delete_delay_ms: 0,
            is_compacted: random.below(3) > 0,
            delete_by_retention: random.below(2) == 0,
            delete_retention_ms: DAY_MS,
            ..LogConfig::default()
        };
        let logs = (0..1 + random.below(2)).map(|index| Driven {
            name: PartitionName::new("orders", PartitionIndex(index as i32)),
            model: Model::default(),
            log: None,
            topics: 0,
            pass: None,
            flush: None,
            readers: vec![],
            under_way: None,
        });
        let logs = logs.collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
        let story = Story { seed, lines: vec![format!("{trouble:?} with {config:?}")] };
        let config = Arc::new(config);
        Self { random, trouble, disk, log_dir, logs, config, runtime, now: DAY_MS, story, recoveries: 0 }
    }

    /// Runs `steps` operations, and ends with a loss of power.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.random.below(6) == 0 {
                self.arm();
            }
            let index = self.random.below(self.logs.len() as u64) as usize;
            let outcome = self.step(index);
            self.finish(outcome);
        }
        self.tell("the power fails");
        self.disk.lose_power();
        self.reopen(false);
    }

    /// Has one of the next changes of the disk fail.
    fn arm(&mut self) {
        let within = [3, 12, 40][self.random.below(3) as usize];
        let soon = Some(1 + self.random.below(within));
        let mut faults = Faults { syncs_lie: self.trouble == Trouble::LyingDisk, ..Faults::default() };
        match (self.trouble, self.random.below(3)) {
            (Trouble::FailingDisk, 0) => faults.write_fails_at = soon,
            (Trouble::FailingDisk, 1) => faults.sync_fails_at = soon,
            _ => faults.power_fails_at = soon,
        }
        self.tell(format!("{faults:?}"));
        self.disk.set_faults(faults);
        if self.trouble == Trouble::FullDisk {
            self.disk.set_capacity(2000 + self.random.below(20_000));
        }
    }

    /// After an operation: the log is as the model says, or the directory has failed and is opened anew.
    fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Ok(()) if !self.disk.is_without_power() => {
                for driven in &mut self.logs {
                    driven.under_way = None;
                    if let Some(log) = &driven.log {
                        check(log, &driven.model);
                    }
                }
            }
            // An operation that has nothing to say about the disk may have come to its end.
            Ok(()) => self.reopen(false),
            Err(error) if error.is_full() && !self.disk.is_without_power() => {
                self.tell(format!("  {error}"));
                assert!(self.trouble == Trouble::FullDisk, "{error}");
                self.finish_refused();
            }
            Err(error) => {
                self.tell(format!("  {error}"));
                let is_expected = self.disk.is_without_power() || error.is_io() && self.trouble != Trouble::Crashes;
                assert!(is_expected, "{error}");
                // As the broker does. After a failed sync the page cache holds what the disk does not, and calls it clean.
                self.log_dir.mark_failed();
                if self.random.below(2) == 0 {
                    self.tell("  and the power fails");
                    self.disk.lose_power();
                }
                self.reopen(false);
            }
        }
    }

    /// What a full disk refuses has not begun, or is taken back. A crash may bring taken back batches to light again, as it
    /// may any that were not acknowledged; so that the model need not know them, the process ends first.
    fn finish_refused(&mut self) {
        self.disk.set_faults(Faults::default());
        self.end_process();
        self.try_reopen(false).expect("the disk works");
    }

    /// Everything that was open is gone; what is on the disk is opened again. Power may fail meanwhile.
    fn reopen(&mut self, clean: bool) {
        self.end_process();
        loop {
            self.disk.restore_power();
            if self.random.below(4) == 0 {
                let power_fails_at = Some(1 + self.random.below(30));
                self.disk.set_faults(Faults { power_fails_at, ..Faults::default() });
            }
            match self.try_reopen(clean) {
                Ok(()) => break,
                Err(error) => {
                    self.tell(format!("  reopening: {error}"));
                    assert!(self.disk.is_without_power(), "{error}");
                    assert!(!clean, "no power failure was asked for");
                }
            }
        }
        // The power may have failed when nobody looked.
        self.disk.restore_power();
        self.disk.set_faults(Faults { syncs_lie: self.trouble == Trouble::LyingDisk, ..Faults::default() });
    }

    fn end_process(&mut self) {
        for driven in &mut self.logs {
            driven.log = None;
            driven.pass = None;
            driven.flush = None;
            driven.readers.clear();
        }
        self.disk.end_process();
        self.disk.set_capacity(u64::MAX >> 1);
    }

    fn try_reopen(&mut self, clean: bool) -> Outcome {
        if clean {
            self.disk.set_faults(Faults::default());
        }
        let log_dir = Arc::new(LogDir::open(&directory())?);
        let marker = log_dir.take_clean_shutdown_marker()?;
        assert!(!clean || marker == Some(BrokerEpoch(7)), "the marker is {marker:?}");
        let config = Arc::clone(&self.config);
        let is_clean = marker.is_some();
        let (loaded, failures) = self.runtime.block_on(log_dir.load(1, is_clean, move |_| Arc::clone(&config)))?;
        if let Some(failure) = failures.into_iter().next() {
            return Err(failure.error);
        }
        if self.disk.is_without_power() {
            return Err(StorageError::Io { path: directory(), source: std::io::Error::other("the power failed") });
        }
        self.log_dir = log_dir;
        let mut loaded: BTreeMap<PartitionName, _> =
            loaded.into_iter().map(|log| (log.partition.clone(), log)).collect();
        for driven in &mut self.logs {
            let allowed = driven
                .under_way
                .take()
                .unwrap_or_else(|| Allowed { may_be_missing: driven.topics == 0, ..Allowed::after(&driven.model) });
            let Some(loaded) = loaded.remove(&driven.name) else {
                assert!(allowed.may_be_missing, "{} is missing", driven.name);
                driven.topics = 0;
                driven.model = Model { epoch: driven.model.epoch, ..Model::default() };
                continue;
            };
            let (report, log) = (loaded.recovery, loaded.log);
            self.story.lines.push(format!(
                "  {}: {}..{} of {}..{}, durable {}, {report:?}",
                driven.name,
                log.log_start_offset(),
                log.log_end_offset(),
                allowed.model.start,
                allowed.model.end,
                allowed.min_end
            ));
            driven.model = check_recovered(&log, &allowed);
            assert!(report.lost_below.is_none() || allowed.may_have_lost, "{report:?}");
            assert!(!is_clean || report.bytes_scanned == 0, "a clean log was scanned: {report:?}");
            driven.topics = driven.topics.max(1);
            driven.log = Some(log);
        }
        assert!(loaded.is_empty(), "a deleted log has come back");
        self.recoveries += 1;
        Ok(())
    }

    fn tell(&mut self, line: impl Into<String>) {
        self.story.lines.push(line.into());
    }

    /// One operation on one log, or on all of them.
    fn step(&mut self, index: usize) -> Outcome {
        if self.logs[index].log.is_none() {
            return self.create(index);
        }
        match self.random.below(100) {
            0..28 => self.append(index),
            28..31 => self.append_after_gap(index),
            31..39 if self.config.is_compacted => self.compact(index),
            31..40 => self.append(index),
            40..50 => self.flush(index),
            50..52 => self.hold_on(index),
            52..54 => self.come_late(index),
            54..58 => self.flush_while_appending(index),
            58..66 => self.truncate(index),
            66..72 => self.advance_start(index),
            72..78 => self.delete_old_segments(index),
            78..80 => self.start_over(index),
            80..88 => self.checkpoint(),
            88..90 => self.roll(index),
            90..94 => self.restart(),
            94..96 => self.recreate(index),
            96..98 => {
                self.tell("the process is killed");
                self.reopen(false);
                Ok(())
            }
            _ => {
                self.tell("the power fails");
                self.disk.lose_power();
                self.reopen(false);
                Ok(())
            }
        }
    }

    fn create(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: create", driven.name));
        let is_compacted = self.config.is_compacted;
        driven.model = Model { epoch: driven.model.epoch, is_compacted, ..Model::default() };
        driven.under_way = Some(Allowed { may_be_missing: true, ..Allowed::after(&driven.model) });
        driven.topics += 1;
        let topic_id = TopicId::from_random([driven.topics; 16]);
        driven.log = Some(self.log_dir.create(&driven.name, topic_id, Arc::clone(&self.config))?);
        Ok(())
    }

    fn append(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let log = driven.log.as_mut().expect("a log");
        if random.below(4) == 0 {
            driven.model.epoch += 1;
            log.begin_leader_epoch(LeaderEpoch(driven.model.epoch));
        }
        let count = 1 + random.below(4);
        let bytes = driven.model.append(random, driven.model.end, count);
        self.story.lines.push(format!("{}: append up to {}", driven.name, driven.model.end));
        let appended = log.append_as_leader(&bytes);
        take_back_if_full(appended, log, &mut driven.model)
    }

    fn append_after_gap(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let base = driven.model.end + 1 + random.below(20) as i64;
        let bytes = driven.model.append(random, base, 1);
        self.story.lines.push(format!("{}: append {base}..{} after a gap", driven.name, driven.model.end));
        let log = driven.log.as_mut().expect("a log");
        let appended = log.append_as_follower(&bytes);
        take_back_if_full(appended, log, &mut driven.model)
    }

    fn flush(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: flush", driven.name));
        let log = driven.log.as_mut().expect("a log");
        log.flush()?;
        driven.model.durable_end = log.recovery_point().value();
        assert_eq!(driven.model.durable_end, driven.model.end);
        Ok(())
    }

    /// As the flusher does it: what comes between the beginning and the end of a flush is not flushed.
    fn flush_while_appending(&mut self, index: usize) -> Outcome {
        let Some(flush) = self.logs[index].log.as_ref().expect("a log").begin_flush() else { return Ok(()) };
        let (up_to, before) = (flush.up_to().value(), self.random.below(2) == 0);
        self.tell(format!("{}: flush up to {up_to}, and meanwhile", self.logs[index].name));
        if before {
            flush.run()?;
        }
        match self.random.below(4) {
            0 => self.truncate(index)?,
            1 => self.delete_old_segments(index)?,
            _ => self.append(index)?,
        }
        if !before {
            match flush.run() {
                // Its files may be gone by now.
                Err(error) if error.is_io() && !self.disk.is_without_power() && self.trouble == Trouble::Crashes => {
                    return Err(error);
                }
                other => other?,
            }
        }
        let driven = &mut self.logs[index];
        let durable = driven.log.as_mut().expect("a log").end_flush(&flush).value();
        // What nobody may read is not acknowledged.
        driven.model.durable_end = driven.model.durable_end.max(durable.min(up_to));
        Ok(())
    }

    fn truncate(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let lowest = driven.model.batches.first().map_or(driven.model.start, |batch| batch.base());
        let offset = match random.below(12) {
            0 => lowest,
            _ => driven.model.draw_offset(random),
        };
        self.story.lines.push(format!("{}: truncate to {offset}", driven.name));
        let before = driven.model.clone();
        let log = driven.log.as_mut().expect("a log");
        let first_base = log.segments()[0].base_offset.value();
        let is_below_all = offset < first_base;
        if is_below_all {
            driven.model.start_over(offset);
        } else {
            driven.model.truncate(offset, first_base);
        }
        // What a compaction has left below the start is not known, and neither then is where a batch ends.
        let is_unknown = before.batches.iter().any(|batch| batch.may_be_cleaned);
        driven.under_way = Some(Allowed {
            min_end: if is_unknown { first_base } else { before.durable_end.min(driven.model.end) },
            starts: (
                if is_unknown { 0 } else { before.durable_start.min(driven.model.start) },
                if is_below_all { before.end } else { before.start },
            ),
            may_be_empty: offset < before.start,
            may_have_lost: true,
            ..Allowed::after(&before)
        });
        let end = log.truncate_to(Offset(offset))?.value();
        if is_unknown && end < driven.model.end {
            driven.model.truncate(end, first_base);
        }
        assert_eq!(end, driven.model.end);
        Ok(())
    }

    fn start_over(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let offset = driven.model.draw_offset(random) + random.below(30) as i64;
        self.story.lines.push(format!("{}: start over at {offset}", driven.name));
        let before = driven.model.clone();
        driven.model.start_over(offset);
        driven.under_way = Some(Allowed {
            min_end: 0,
            // What is dropped may be gone from any of its segments on.
            starts: (before.durable_start.min(offset), before.end),
            may_be_empty: true,
            may_have_lost: true,
            ..Allowed::after(&before)
        });
        driven.log.as_mut().expect("a log").truncate_fully_and_start_at(Offset(offset))
    }

    /// As DeleteRecords and a leader's start offset do: never beyond what is committed.
    fn advance_start(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let offset = driven.model.draw_offset(random).min(driven.model.durable_end);
        self.story.lines.push(format!("{}: advance the start to {offset}", driven.name));
        driven.log.as_mut().expect("a log").advance_log_start_offset(Offset(offset))?;
        driven.model.start = driven.model.start.max(offset);
        Ok(())
    }

    fn delete_old_segments(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: delete old segments", driven.name));
        let log = driven.log.as_mut().expect("a log");
        // A crash may come when some are gone.
        let after = Model { start: driven.model.durable_end.max(driven.model.start), ..driven.model.clone() };
        driven.under_way = Some(Allowed::after(&after));
        let high_watermark = Offset(driven.model.durable_end);
        let now = 1000 + 10 * driven.model.end;
        let deleted = log.delete_old_segments(TimestampMs(now), high_watermark)?;
        let (before, start) = (driven.model.start, deleted.log_start_offset.value());
        let config = &self.config;
        let goes_by_age_only = !config.delete_by_retention || config.retention_bytes < 0;
        let keeps_all = !config.delete_by_retention || config.retention_ms < 0;
        for record in driven.model.between(before, start).flat_map(|batch| &batch.records) {
            let is_old = !keeps_all && record.timestamp.value() < now - config.retention_ms;
            assert!(is_old || record.offset.value() < before || !goes_by_age_only, "{record:?} is not due");
        }
        driven.model.start = start;
        self.story.lines.push(format!("  up to {}", driven.model.start));
        if self.random.below(2) == 0 {
            log.remove_deleted_files(TimestampMs(0))?;
        }
        Ok(())
    }

    /// Begins a compaction, or goes on with one, and may leave it in the middle.
    fn compact(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let log = driven.log.as_mut().expect("a log");
        let (mut pass, cleaning) = match driven.pass.take() {
            Some(under_way) => under_way,
            None => {
                self.now += random.below(DAY_MS as u64) as i64;
                let (now, committed) = (TimestampMs(self.now), Offset(driven.model.durable_end));
                let cleaned_up_to = self.log_dir.cleaned_up_to(&driven.name);
                let facts = log.cleaning_facts(committed, cleaned_up_to)?;
                let range = cleanable_range(&facts, cleaned_up_to, now);
                if range.dirty_bytes == 0 {
                    return Ok(());
                }
                let slots = [4, 100][random.below(2) as usize];
                let map = OffsetMapLimits { bytes: (slots + 1) * 24, load_factor: 1.0 };
                let io_buffer_bytes = [1, 4000][random.below(2) as usize];
                let options = CleanerOptions { map, io_buffer_bytes };
                let pass = log.begin_cleaning(range, committed, options, now);
                (pass, Cleaning { end: range.end_offset.value(), now: self.now })
            }
        };
        self.story.lines.push(format!("{}: compact below {}", driven.name, cleaning.end));
        for _ in 0..random.below(30) {
            match pass.step() {
                Ok(CleaningStep::Worked { .. }) => {}
                Ok(CleaningStep::Replace(cleaned)) => {
                    self.story.lines.push("  a segment is replaced".to_owned());
                    driven.under_way = Some(Allowed { cleaned_by: Some(cleaning), ..Allowed::after(&driven.model) });
                    if !log.replace_segments(&cleaned, TimestampMs(cleaning.now))? {
                        driven.under_way = None;
                        return pass.abandon();
                    }
                    take_in_cleaned(log, &mut driven.model, cleaning);
                    driven.under_way = None;
                }
                Ok(CleaningStep::Done(cleaned)) => {
                    self.story.lines.push("  compacted".to_owned());
                    return self.log_dir.checkpoint_cleaned(&driven.name, &cleaned);
                }
                Err(CleaningError::Truncated | CleaningError::Deleted) => return pass.abandon(),
                Err(CleaningError::Storage(error)) => return Err(error),
                // A batch may have more keys than four.
                Err(CleaningError::MapTooSmall { .. }) => return pass.abandon(),
                Err(error) => panic!("{error}"),
            }
        }
        driven.pass = Some((pass, cleaning));
        Ok(())
    }

    /// Begins a read and a flush that will be at work when other things happen.
    fn hold_on(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: a reader and a flush begin", driven.name));
        let log = driven.log.as_ref().expect("a log");
        driven.flush = log.begin_flush();
        if driven.readers.len() < 3 {
            let bytes = driven.model.between(driven.model.start, driven.model.end).flat_map(|b| b.bytes.to_vec());
            driven.readers.push((log.reader(), bytes.collect()));
        }
        Ok(())
    }

    /// They go on, whatever has become of the log: deleted, truncated, moved on, compacted, or another of its name.
    fn come_late(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: a reader and a flush come late", driven.name));
        for (reader, expected) in std::mem::take(&mut driven.readers) {
            match try_read_all(&reader) {
                Ok(read) => assert!(read == expected, "a reader sees something else"),
                Err(StorageError::Truncated) => {}
                Err(error) => return Err(error),
            }
        }
        driven.flush.take().map_or(Ok(()), |flush| flush.run())?;
        driven.log.as_ref().expect("a log").close_unused_files();
        Ok(())
    }

    /// A segment that is young and small is sealed by a change of settings.
    fn roll(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        let log = driven.log.as_mut().expect("a log");
        log.set_config(Arc::new(LogConfig { segment_bytes: 1, ..LogConfig::clone(&self.config) }));
        let appended = self.append(index);
        self.logs[index].log.as_mut().expect("a log").set_config(Arc::clone(&self.config));
        appended
    }

    /// Writes all checkpoints, as a broker does from time to time.
    fn checkpoint(&mut self) -> Outcome {
        self.tell("checkpoint");
        let mut recovery_points = BTreeMap::new();
        let mut starts = BTreeMap::new();
        let mut high_watermarks = BTreeMap::new();
        for driven in &mut self.logs {
            let Some(log) = &driven.log else { continue };
            // Nothing to say if that was said before.
            recovery_points.extend(log.recovery_checkpoint().map(|point| (driven.name.clone(), point)));
            starts.insert(driven.name.clone(), log.checkpoint_at(log.log_start_offset()));
            high_watermarks.insert(driven.name.clone(), log.checkpoint_at(Offset(driven.model.durable_end)));
            driven.model.checkpointed_high_watermark =
                driven.model.checkpointed_high_watermark.max(driven.model.durable_end);
        }
        self.log_dir.checkpoint_recovery_points(recovery_points)?;
        self.log_dir.checkpoint_log_start_offsets(starts)?;
        for driven in self.logs.iter_mut().filter(|driven| driven.log.is_some()) {
            driven.model.durable_start = driven.model.start;
        }
        self.log_dir.checkpoint_high_watermarks(high_watermarks)
    }

    /// A clean shutdown and a start.
    fn restart(&mut self) -> Outcome {
        self.tell("close");
        for driven in &mut self.logs {
            if let Some(log) = &mut driven.log {
                log.close()?;
                driven.model.durable_end = driven.model.end;
                assert_eq!(log.recovery_point().value(), driven.model.end);
            }
        }
        self.checkpoint()?;
        self.log_dir.write_clean_shutdown_marker(BrokerEpoch(7))?;
        let power_fails = self.random.below(2) == 0;
        if power_fails && self.trouble != Trouble::LyingDisk {
            self.tell("the power fails after that");
            self.disk.lose_power();
        }
        self.reopen(self.trouble != Trouble::LyingDisk);
        Ok(())
    }

    /// Deletes the log, and creates one for another topic of the same name.
    fn recreate(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: delete", driven.name));
        driven.under_way =
            Some(Allowed { may_be_missing: true, starts: (0, driven.model.start), ..Allowed::after(&driven.model) });
        let log = driven.log.take().expect("a log");
        self.log_dir.delete(log, TimestampMs(0))?;
        driven.model = Model { epoch: driven.model.epoch, ..Model::default() };
        driven.topics = 0;
        driven.under_way = None;
        if self.random.below(2) == 0 {
            // What is open stays open, in a directory of another name.
            return self.create(index);
        }
        self.log_dir.remove_deleted(TimestampMs(0), 0)?;
        self.create(index)
    }
}

/// Of an append that found no room, whole batches from its beginning on may be there.
fn take_back_if_full(appended: Result<Appended, StorageError>, log: &Log, model: &mut Model) -> Outcome {
    if appended.as_ref().is_err_and(StorageError::is_full) {
        let end = log.log_end_offset().value();
        model.batches.retain(|batch| batch.end() <= end);
        model.end = end;
        model.note_sequences();
    }
    appended.map(drop)
}

/// All bytes that a reader sees. Every CRC is checked on the way.
fn try_read_all(reader: &LogReader) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    let mut offset = reader.log_start_offset();
    loop {
        let limits = ReadLimits { max_bytes: 2000, end_offset: Offset(i64::MAX), at_least_one_batch: true };
        let read = reader.read(offset, limits)?;
        let Some(last) = batches(&read).last() else { return Ok(bytes) };
        offset = last.expect("reads return whole batches").header.next_offset();
        bytes.extend_from_slice(&read);
    }
}

fn directory() -> PathBuf {
    Path::new(MOUNT).join("data")
}
