//! Compaction.

use vltava_storage::{CleanerOptions, CleaningError, CleaningStep, OffsetMapLimits, cleanable_range};
use vltava_types::{Offset, TimestampMs};

use super::{DAY_MS, Outcome, Run};
use crate::check::take_in_cleaned;
use crate::model::{Allowed, Cleaning};

impl Run {
    /// Begins a compaction, or goes on with one, and may leave it in the middle.
    pub(super) fn compact(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let log = driven.log.as_mut().expect("a log");
        let (mut pass, cleaning) = match driven.pass.take() {
            Some(under_way) => under_way,
            None => {
                self.now += random.below(DAY_MS as u64) as i64;
                let (now, committed) = (TimestampMs(self.now), Offset(driven.model.durable_end));
                let cleaned_up_to = self.log_dirs[driven.home].cleaned_up_to(&driven.name);
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
                    return self.log_dirs[driven.home].checkpoint_cleaned(&driven.name, &cleaned);
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
}
