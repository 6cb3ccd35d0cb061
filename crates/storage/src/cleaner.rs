//! Compaction: of each key, the last record stays (Kafka's log cleaner).
//!
//! What is decided is decided by functions from values to values: [`cleanable_range`] and [`dirtiest`] say what to clean,
//! [`batch_fate`](retention::batch_fate) and its neighbours what becomes of batches and records,
//! [`CleanedTransactions`](transactions::CleanedTransactions) what was aborted. A [`CleaningPass`] reads and writes;
//! [`Log::replace_segments`] puts the result in place. Whoever owns the logs chooses among them, runs passes, and keeps
//! `cleaner-offset-checkpoint`.
//!
//! Invariants: offsets, timestamps and bytes of the records that stay do not change, nor do the offset ranges of batches.
//! Segments are cleaned oldest first, and a pass that is interrupted is repeated from the same first dirty offset, so that a
//! tombstone never goes before the records that it deletes.

mod groups;
mod offset_map;
mod pass;
mod range;
mod retention;
mod swap;
mod throttle;
mod transactions;

use std::sync::Arc;

use vltava_types::{Offset, TimestampMs};

pub use offset_map::OffsetMapLimits;
pub use pass::{CleanedUpTo, CleanerOptions, CleaningError, CleaningPass, CleaningStats, CleaningStep};
pub use range::{CleanableRange, LogFacts, SegmentFacts, cleanable_range, dirtiest};
pub use swap::CleanedSegment;
pub(crate) use swap::finish_interrupted_swaps;
pub use throttle::Throttle;

use crate::{Log, StorageError};
use pass::PassLog;

impl Log {
    /// What [`cleanable_range`] needs to know. `cleaned_up_to` spares looking into segments that were cleaned.
    pub fn cleaning_facts(
        &self,
        last_stable_offset: Offset,
        cleaned_up_to: Option<Offset>,
    ) -> Result<LogFacts, StorageError> {
        let config = &self.config;
        // Only this setting asks for what is inside of the segments.
        let has_max_lag = config.max_compaction_lag_ms < i64::MAX;
        let mut segments = Vec::with_capacity(self.segments.len());
        for (index, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(index + 1).map(|next| next.base_offset);
            let is_dirty = next.is_some_and(|next| cleaned_up_to.is_none_or(|cleaned| cleaned < next));
            let info = segment.info();
            let first_timestamp = if has_max_lag && is_dirty { segment.first_timestamp()? } else { None };
            segments.push(SegmentFacts {
                base_offset: info.base_offset,
                size_bytes: info.size_bytes,
                largest_timestamp: info.largest_timestamp,
                first_timestamp: first_timestamp.map(TimestampMs),
            });
        }
        Ok(LogFacts {
            log_start_offset: self.log_start_offset,
            log_end_offset: self.log_end_offset,
            last_stable_offset,
            segments,
            min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: config.min_compaction_lag_ms,
            max_compaction_lag_ms: config.max_compaction_lag_ms,
        })
    }

    /// Begins to clean `range`, as [`cleanable_range`] gave it for the log as it is now.
    #[must_use]
    pub fn begin_cleaning(
        &self,
        range: CleanableRange,
        last_stable_offset: Offset,
        options: CleanerOptions,
        now: TimestampMs,
    ) -> CleaningPass {
        let log = PassLog {
            directory: self.directory.clone(),
            config: Arc::clone(&self.config),
            segments: Arc::clone(&self.segments),
            active_size: self.active_segment().size(),
            last_stable_offset,
            producers: self.producers.last_records(),
            truncations: Arc::clone(&self.truncations),
            truncations_seen: self.truncation_count(),
            presence: self.presence.clone(),
        };
        let seeds = [vltava_host::random::u64(), vltava_host::random::u64()];
        CleaningPass::new(log, range, options, now, seeds)
    }
}
