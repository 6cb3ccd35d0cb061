//! What a log's owner does, one after another.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_storage::{Appended, Log, LogConfig, StorageError};
use vltava_types::{BrokerEpoch, LeaderEpoch, Offset, TimestampMs, TopicId};

use super::{Outcome, Run, Trouble};
use crate::model::{Allowed, Model};

impl Run {
    pub(super) fn create(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: create", driven.name));
        let is_compacted = self.config.is_compacted;
        driven.model = Model { epoch: driven.model.epoch, is_compacted, ..Model::default() };
        driven.under_way = Some(Allowed { may_be_missing: true, ..Allowed::after(&driven.model) });
        driven.topics += 1;
        let topic_id = TopicId::from_random([driven.topics; 16]);
        driven.log = Some(self.log_dirs[driven.home].create(&driven.name, topic_id, Arc::clone(&self.config))?);
        Ok(())
    }

    pub(super) fn append(&mut self, index: usize) -> Outcome {
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

    pub(super) fn append_after_gap(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let base = driven.model.end + 1 + random.below(20) as i64;
        let bytes = driven.model.append(random, base, 1);
        self.story.lines.push(format!("{}: append {base}..{} after a gap", driven.name, driven.model.end));
        let log = driven.log.as_mut().expect("a log");
        let appended = log.append_as_follower(&bytes);
        take_back_if_full(appended, log, &mut driven.model)
    }

    pub(super) fn flush(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: flush", driven.name));
        let log = driven.log.as_mut().expect("a log");
        log.flush()?;
        driven.model.durable_end = log.recovery_point().value();
        assert_eq!(driven.model.durable_end, driven.model.end);
        Ok(())
    }

    /// As the flusher does it: what comes between the beginning and the end of a flush is not flushed.
    pub(super) fn flush_while_appending(&mut self, index: usize) -> Outcome {
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

    pub(super) fn truncate(&mut self, index: usize) -> Outcome {
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

    pub(super) fn start_over(&mut self, index: usize) -> Outcome {
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
    pub(super) fn advance_start(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let offset = driven.model.draw_offset(random).min(driven.model.durable_end);
        self.story.lines.push(format!("{}: advance the start to {offset}", driven.name));
        driven.log.as_mut().expect("a log").advance_log_start_offset(Offset(offset))?;
        driven.model.start = driven.model.start.max(offset);
        Ok(())
    }

    pub(super) fn delete_old_segments(&mut self, index: usize) -> Outcome {
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

    /// A segment that is young and small is sealed by a change of settings.
    pub(super) fn roll(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        let log = driven.log.as_mut().expect("a log");
        log.set_config(Arc::new(LogConfig { segment_bytes: 1, ..LogConfig::clone(&self.config) }));
        let appended = self.append(index);
        self.logs[index].log.as_mut().expect("a log").set_config(Arc::clone(&self.config));
        appended
    }

    /// Writes all checkpoints, as a broker does from time to time.
    pub(super) fn checkpoint(&mut self) -> Outcome {
        self.tell("checkpoint");
        (0..self.log_dirs.len()).try_for_each(|directory| self.checkpoint_directory(directory))
    }

    fn checkpoint_directory(&mut self, directory: usize) -> Outcome {
        let mut recovery_points = BTreeMap::new();
        let mut starts = BTreeMap::new();
        let mut high_watermarks = BTreeMap::new();
        for driven in self.logs.iter_mut().filter(|driven| driven.home == directory) {
            let Some(log) = &driven.log else { continue };
            // Nothing to say if that was said before.
            recovery_points.extend(log.recovery_checkpoint().map(|point| (driven.name.clone(), point)));
            starts.insert(driven.name.clone(), log.checkpoint_at(log.log_start_offset()));
            high_watermarks.insert(driven.name.clone(), log.checkpoint_at(Offset(driven.model.durable_end)));
            driven.model.checkpointed_high_watermark =
                driven.model.checkpointed_high_watermark.max(driven.model.durable_end);
        }
        let log_dir = &self.log_dirs[directory];
        log_dir.checkpoint_recovery_points(recovery_points)?;
        log_dir.checkpoint_log_start_offsets(starts)?;
        for driven in self.logs.iter_mut().filter(|driven| driven.home == directory && driven.log.is_some()) {
            driven.model.durable_start = driven.model.start;
        }
        log_dir.checkpoint_high_watermarks(high_watermarks)
    }

    /// A clean shutdown and a start.
    pub(super) fn restart(&mut self) -> Outcome {
        self.tell("close");
        for driven in &mut self.logs {
            if let Some(log) = &mut driven.log {
                log.close()?;
                driven.model.durable_end = driven.model.end;
                assert_eq!(log.recovery_point().value(), driven.model.end);
            }
        }
        self.checkpoint()?;
        for log_dir in &self.log_dirs {
            log_dir.write_clean_shutdown_marker(BrokerEpoch(7))?;
        }
        let power_fails = self.random.below(2) == 0;
        if power_fails && self.trouble != Trouble::LyingDisk {
            self.tell("the power fails after that");
            self.disk.lose_power();
        }
        self.reopen(self.trouble != Trouble::LyingDisk);
        Ok(())
    }

    /// Deletes the log, and creates one for another topic of the same name.
    pub(super) fn recreate(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: delete", driven.name));
        driven.under_way =
            Some(Allowed { may_be_missing: true, starts: (0, driven.model.start), ..Allowed::after(&driven.model) });
        let log = driven.log.take().expect("a log");
        let log_dir = &self.log_dirs[driven.home];
        log_dir.delete(log, TimestampMs(0))?;
        if let Some(future) = driven.future.take() {
            self.log_dirs[1 - driven.home].remove_future(future)?;
        }
        driven.model = Model { epoch: driven.model.epoch, ..Model::default() };
        driven.topics = 0;
        driven.under_way = None;
        driven.decayed = None;
        if self.random.below(2) == 0 {
            // What is open stays open, in a directory of another name.
            return self.create(index);
        }
        log_dir.remove_deleted(TimestampMs(0), 0)?;
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
