//! Which part of a compacted log may be cleaned now, and which log needs it most. Values in, values out.

use vltava_types::{Offset, TimestampMs};

/// A compacted log at one moment, as far as the decision needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFacts {
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    /// Nothing from here on is cleaned: it may not be committed, or belong to a transaction under way.
    pub last_stable_offset: Offset,
    /// Oldest first, never empty; the last one is the active segment.
    pub segments: Vec<SegmentFacts>,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    pub base_offset: Offset,
    pub size_bytes: u64,
    pub largest_timestamp: TimestampMs,
    /// Of its first batch; `None` for an empty segment, and where `max.compaction.lag.ms` has no need of it.
    pub first_timestamp: Option<TimestampMs>,
}

/// What may be cleaned of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanableRange {
    /// Everything below was cleaned before.
    pub first_dirty_offset: Offset,
    /// Where the first segment begins that must not be touched.
    pub end_offset: Offset,
    /// Bytes of the segments below the first dirty offset.
    pub clean_bytes: u64,
    /// Bytes of the segments in the range.
    pub dirty_bytes: u64,
    /// A record in the range has waited for longer than `max.compaction.lag.ms`.
    pub is_overdue: bool,
    /// The checkpoint lies outside of the log, so that it was passed over: all of the log counts as dirty.
    pub checkpoint_is_void: bool,
}

impl CleanableRange {
    /// The share of what would be read that was never cleaned.
    #[must_use]
    pub fn dirty_ratio(&self) -> f64 {
        let total = self.clean_bytes + self.dirty_bytes;
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }

    /// Whether the log should be cleaned.
    #[must_use]
    pub fn is_due(&self, min_cleanable_dirty_ratio: f64) -> bool {
        (self.is_overdue && self.dirty_bytes > 0) || self.dirty_ratio() > min_cleanable_dirty_ratio
    }
}

/// The cleanable range, as Kafka's `LogCleanerManager.cleanableOffsets` has it. `cleaned_up_to` is from the checkpoint.
///
/// Cleaning ends before the active segment, before the segment that holds the last stable offset, and before the first
/// dirty segment with a record younger than `min.compaction.lag.ms`.
#[must_use]
pub fn cleanable_range(log: &LogFacts, cleaned_up_to: Option<Offset>, now: TimestampMs) -> CleanableRange {
    let checkpoint_is_void =
        cleaned_up_to.is_some_and(|offset| offset < log.log_start_offset || log.log_end_offset < offset);
    let first_dirty_offset = cleaned_up_to.filter(|_| !checkpoint_is_void).unwrap_or(log.log_start_offset);

    let (active, sealed) = log.segments.split_last().expect("a log has a segment at all times");
    // The segment that holds an offset begins at or below it.
    let segment_of = |offset: Offset| sealed.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1);
    let dirty = sealed.get(segment_of(first_dirty_offset)..).unwrap_or_default();
    let lags = |segment: &&SegmentFacts| {
        let youngest_cleanable = now.value().saturating_sub(log.min_compaction_lag_ms);
        log.min_compaction_lag_ms > 0 && segment.largest_timestamp.value() > youngest_cleanable
    };
    let limit = [Some(log.last_stable_offset), Some(active.base_offset)]
        .into_iter()
        .chain([dirty.iter().find(lags).map(|segment| segment.base_offset)])
        .flatten()
        .min()
        .expect("there are two limits at least")
        .max(first_dirty_offset);
    let end_offset = match sealed.get(segment_of(limit)) {
        Some(segment) if limit < active.base_offset => segment.base_offset,
        _ => active.base_offset,
    };

    let is_clean =
        |segment: &SegmentFacts, next: Offset| next <= first_dirty_offset && segment.base_offset < end_offset;
    let mut range = CleanableRange {
        first_dirty_offset,
        end_offset,
        clean_bytes: 0,
        dirty_bytes: 0,
        is_overdue: false,
        checkpoint_is_void,
    };
    let overdue_before = now.value().saturating_sub(log.max_compaction_lag_ms.max(0));
    for (index, segment) in sealed.iter().enumerate() {
        let next = sealed.get(index + 1).unwrap_or(active).base_offset;
        if is_clean(segment, next) {
            range.clean_bytes += segment.size_bytes;
        } else if segment.base_offset < end_offset {
            range.dirty_bytes += segment.size_bytes;
        }
        // As in Kafka, also what may not be cleaned yet counts as waiting.
        let first_timestamp = segment.first_timestamp.map_or(-1, TimestampMs::value);
        range.is_overdue |= next > first_dirty_offset && first_timestamp > 0 && first_timestamp < overdue_before;
    }
    range
}

/// The log to clean next: among those that are due, the one with the largest dirty ratio; the first of equals.
pub fn dirtiest<T>(candidates: impl IntoIterator<Item = (T, CleanableRange, f64)>) -> Option<(T, CleanableRange)> {
    let due = candidates.into_iter().filter(|(_, range, min_ratio)| range.is_due(*min_ratio));
    let best = due.reduce(|best, next| if next.1.dirty_ratio() > best.1.dirty_ratio() { next } else { best });
    best.map(|(log, range, _)| (log, range))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use vltava_types::{Offset, TimestampMs};

    use super::{LogFacts, SegmentFacts, cleanable_range, dirtiest};

    const NOW: TimestampMs = TimestampMs(100_000);

    /// "base:size@first..largest", the last one active.
    fn log(segments: &str) -> LogFacts {
        let number = |text: &str| text.parse::<i64>().expect("a number");
        let segments: Vec<_> = segments
            .split_whitespace()
            .map(|segment| {
                let (base, rest) = segment.split_once(':').expect("base:rest");
                let (size, times) = rest.split_once('@').expect("size@times");
                let (first, largest) = times.split_once("..").expect("first..largest");
                SegmentFacts {
                    base_offset: Offset(number(base)),
                    size_bytes: number(size).unsigned_abs(),
                    largest_timestamp: TimestampMs(number(largest)),
                    first_timestamp: Some(TimestampMs(number(first))),
                }
            })
            .collect();
        LogFacts {
            log_start_offset: Offset(0),
            log_end_offset: Offset(1000),
            last_stable_offset: Offset(1000),
            segments,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
        }
    }

    const FOUR: &str = "0:40@1000..2000 10:30@2000..3000 20:20@3000..4000 30:10@4000..5000";

    fn check(log: &LogFacts, cleaned_up_to: Option<i64>, expected: Expect) {
        let range = cleanable_range(log, cleaned_up_to.map(Offset), NOW);
        let mut told = format!(
            "[{}, {}) clean {} dirty {} ratio {:.2}",
            range.first_dirty_offset,
            range.end_offset,
            range.clean_bytes,
            range.dirty_bytes,
            range.dirty_ratio()
        );
        if range.is_due(log.min_cleanable_dirty_ratio) {
            told.push_str(" due");
        }
        if range.checkpoint_is_void {
            told.push_str(", checkpoint void");
        }
        expected.assert_eq(&told);
    }

    #[test]
    fn a_log_without_a_checkpoint_is_dirty_up_to_its_active_segment() {
        check(&log(FOUR), None, expect!["[0, 30) clean 0 dirty 90 ratio 1.00 due"]);
    }

    #[test]
    fn what_was_cleaned_counts_against_cleaning_again() {
        check(&log(FOUR), Some(10), expect!["[10, 30) clean 40 dirty 50 ratio 0.56 due"]);
        check(&log(FOUR), Some(20), expect!["[20, 30) clean 70 dirty 20 ratio 0.22"]);
        check(&log(FOUR), Some(30), expect!["[30, 30) clean 90 dirty 0 ratio 0.00"]);
        // A full offset map ended the last pass within a segment.
        check(&log(FOUR), Some(15), expect!["[15, 30) clean 40 dirty 50 ratio 0.56 due"]);
    }

    #[test]
    fn a_ratio_of_zero_still_needs_something_dirty() {
        let log = LogFacts { min_cleanable_dirty_ratio: 0.0, ..log(FOUR) };
        check(&log, Some(30), expect!["[30, 30) clean 90 dirty 0 ratio 0.00"]);
        check(&log, Some(20), expect!["[20, 30) clean 70 dirty 20 ratio 0.22 due"]);
    }

    #[test]
    fn the_segment_of_the_last_stable_offset_is_not_touched() {
        for (stable, expected) in [
            (1000, expect!["[0, 30) clean 0 dirty 90 ratio 1.00 due"]),
            (30, expect!["[0, 30) clean 0 dirty 90 ratio 1.00 due"]),
            (29, expect!["[0, 20) clean 0 dirty 70 ratio 1.00 due"]),
            (20, expect!["[0, 20) clean 0 dirty 70 ratio 1.00 due"]),
            (9, expect!["[0, 0) clean 0 dirty 0 ratio 0.00"]),
        ] {
            check(&LogFacts { last_stable_offset: Offset(stable), ..log(FOUR) }, None, expected);
        }
    }

    #[test]
    fn young_records_wait_for_the_minimum_lag() {
        let log = |lag| LogFacts { min_compaction_lag_ms: lag, ..log(FOUR) };
        check(&log(96_000), None, expect!["[0, 30) clean 0 dirty 90 ratio 1.00 due"]);
        check(&log(96_001), None, expect!["[0, 20) clean 0 dirty 70 ratio 1.00 due"]);
        check(&log(99_000), None, expect!["[0, 0) clean 0 dirty 0 ratio 0.00"]);
        check(&log(i64::MAX), None, expect!["[0, 0) clean 0 dirty 0 ratio 0.00"]);
        // What was cleaned before may be read again.
        check(&log(99_000), Some(10), expect!["[10, 10) clean 40 dirty 0 ratio 0.00"]);
    }

    #[test]
    fn old_records_do_not_wait_for_the_ratio() {
        let log = |lag| LogFacts { max_compaction_lag_ms: lag, ..log(FOUR) };
        check(&log(97_000), Some(20), expect!["[20, 30) clean 70 dirty 20 ratio 0.22"]);
        check(&log(96_999), Some(20), expect!["[20, 30) clean 70 dirty 20 ratio 0.22 due"]);
        check(&log(1), Some(30), expect!["[30, 30) clean 90 dirty 0 ratio 0.00"]);
    }

    #[test]
    fn a_checkpoint_outside_of_the_log_is_passed_over() {
        let started = LogFacts { log_start_offset: Offset(12), ..log(FOUR) };
        check(&started, Some(5), expect!["[12, 30) clean 40 dirty 50 ratio 0.56 due, checkpoint void"]);
        let cut = LogFacts { log_end_offset: Offset(35), ..log(FOUR) };
        check(&cut, Some(36), expect!["[0, 30) clean 0 dirty 90 ratio 1.00 due, checkpoint void"]);
    }

    #[test]
    fn a_log_of_one_segment_has_nothing_to_clean() {
        check(&log("0:40@1000..2000"), None, expect!["[0, 0) clean 0 dirty 0 ratio 0.00"]);
        check(&log("5:40@1000..2000"), Some(7), expect!["[7, 5) clean 0 dirty 0 ratio 0.00"]);
    }

    #[test]
    fn the_dirtiest_log_that_is_due_goes_first() {
        let candidate = |name, cleaned_up_to, min_ratio| {
            (name, cleanable_range(&log(FOUR), Some(Offset(cleaned_up_to)), NOW), min_ratio)
        };
        let chosen = |candidates: Vec<_>| dirtiest(candidates).map(|(name, _)| name);
        assert_eq!(chosen(vec![candidate("a", 10, 0.5), candidate("b", 0, 0.5), candidate("c", 0, 0.5)]), Some("b"));
        assert_eq!(chosen(vec![candidate("a", 10, 0.5), candidate("b", 0, 1.0)]), Some("a"));
        assert_eq!(chosen(vec![candidate("a", 20, 0.5)]), None);
    }
}
