//! Bits that change on the platter, of what was flushed.

use vltava_host::fs;
use vltava_protocol::batch::{HEADER_SIZE, batches};
use vltava_sim::is_noticeable;
use vltava_storage::{
    CleanerOptions, CleaningError, CleaningStep, Copied, OffsetMapLimits, StorageError, cleanable_range,
};
use vltava_types::{Offset, TimestampMs};

use super::{DAY_MS, Outcome, Run};
use crate::check::check_decayed;

impl Run {
    /// A bit decays, which is found in one way or another, before anybody is served what it is part of. The replica then begins
    /// anew, as the broker has it do.
    pub(super) fn decay(&mut self, index: usize) -> Outcome {
        let Some((path, length)) = self.decay_bit(index)? else { return Ok(()) };
        match self.random.below(5) {
            0 => {
                self.tell("the power fails");
                self.disk.lose_power();
                self.reopen(false);
                return Ok(());
            }
            1 => {
                self.tell("the process is killed");
                self.reopen(false);
                return Ok(());
            }
            2 => return self.restart(),
            3 => self.scrub_decayed(index)?,
            _ => {
                fs::drop_from_cache(&fs::File::open(&path).expect("there"), 0, length).expect("the disk works");
                self.read_decayed(index)?;
            }
        }
        self.recreate(index)
    }

    /// Of a batch that can be read and was flushed; nothing tells of its leader epoch, which no CRC covers. Returns the file
    /// and its length.
    fn decay_bit(&mut self, index: usize) -> Result<Option<(std::path::PathBuf, u64)>, StorageError> {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let log = driven.log.as_ref().expect("a log");
        let candidates: Vec<_> = driven.model.between(driven.model.start, driven.model.durable_end).collect();
        if candidates.is_empty() {
            return Ok(None);
        }
        let batch = candidates[random.below(candidates.len() as u64) as usize];
        let segments = log.segments();
        let segment = segments.iter().rfind(|segment| segment.base_offset.value() <= batch.base()).expect("a segment");
        let path = log.directory().join(format!("{:020}.log", segment.base_offset.value()));
        let bytes = fs::read(&path).map_err(|source| StorageError::Io { path: path.clone(), source })?;
        let found = batches(&bytes).flatten().find(|found| found.header.base_offset.value() == batch.base());
        let position = found.expect("the batch is there").position as u64;
        // What leads readers from one batch to the next is a small part, and the worst.
        let length = [HEADER_SIZE, batch.bytes.len()][random.below(2) as usize] as u64;
        let at = random.below(length - 4);
        let at = position + if at < 12 { at } else { at + 4 };
        let bit = random.below(8) as u8;
        if !is_noticeable(&path, &bytes, at, bit) || !self.disk.decay_bit(&path, at, bit).expect("the file is there") {
            return Ok(None);
        }
        driven.decayed = Some((batch.base(), batch.end()));
        // Whoever is at work on it already may meet it, and is right to say so.
        driven.readers.clear();
        driven.scrubs.clear();
        self.story.lines.push(format!("{}: a bit of {}..{} decays", driven.name, batch.base(), batch.end()));
        Ok(Some((path, bytes.len() as u64)))
    }

    /// The scrub finds it, if the segment is closed.
    fn scrub_decayed(&mut self, index: usize) -> Outcome {
        let driven = &self.logs[index];
        let (log, decayed) = (driven.log.as_ref().expect("a log"), driven.decayed.expect("decayed"));
        self.story.lines.push("  scrub".to_owned());
        crate::check::scrub_decayed(log, driven.model.durable_end, decayed)
    }

    /// Nobody who reads it takes it for sound: not readers, and neither what copies nor what compacts.
    fn read_decayed(&mut self, index: usize) -> Outcome {
        self.story.lines.push("  read, copy and compact".to_owned());
        let driven = &mut self.logs[index];
        let log = driven.log.as_ref().expect("a log");
        let decayed = driven.decayed.expect("decayed");
        check_decayed(log, &driven.model, decayed, true)?;
        let target = &self.log_dirs[1 - driven.home];
        let mut future = target.create_future(&driven.name, log)?;
        let outcome = loop {
            match future.copy(&log.reader(), log.truncation_count(), 500) {
                Ok(Copied::Bytes(_)) => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Err(StorageError::Corrupt { .. }) => target.remove_future(future)?,
            Err(error) => return Err(error),
            Ok(_) => panic!("damage was copied"),
        }
        if !self.config.is_compacted {
            return Ok(());
        }
        let committed = Offset(driven.model.durable_end);
        let now = TimestampMs(self.now + DAY_MS);
        let cleaned_up_to = self.log_dirs[driven.home].cleaned_up_to(&driven.name);
        let range = match log.cleaning_facts(committed, cleaned_up_to) {
            Ok(facts) => cleanable_range(&facts, cleaned_up_to, now),
            Err(StorageError::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let map = OffsetMapLimits { bytes: 101 * 24, load_factor: 1.0 };
        let mut pass = log.begin_cleaning(range, committed, CleanerOptions { map, io_buffer_bytes: 4000 }, now);
        let log = driven.log.as_mut().expect("a log");
        loop {
            match pass.step() {
                Ok(CleaningStep::Worked { .. }) => {}
                Ok(CleaningStep::Replace(cleaned)) => _ = log.replace_segments(&cleaned, now)?,
                Ok(CleaningStep::Done(_)) => break,
                Err(CleaningError::Storage(StorageError::Corrupt { .. })) => return pass.abandon(),
                Err(CleaningError::Storage(error)) => return Err(error),
                Err(error) => panic!("{error}"),
            }
        }
        // It was not in what was compacted, and is what it was.
        let at = Offset(decayed.0).max(log.log_start_offset());
        let read = log.reader().read(at, crate::check::everything());
        assert!(matches!(read, Err(StorageError::Corrupt { .. })), "damage was compacted: {read:?}");
        Ok(())
    }
}
