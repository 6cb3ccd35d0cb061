//! One segment: a `.log` file and its two indexes.

use vltava_types::{Offset, TimestampMs};

/// A segment, for tools, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base_offset: Offset,
    pub size_bytes: u64,
    pub largest_timestamp: TimestampMs,
}
