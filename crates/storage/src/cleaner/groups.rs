//! Which neighbouring segments become one when they are cleaned, so that compaction leaves no heap of small files.

use std::ops::Range;

use vltava_types::Offset;

/// What counts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentSizes {
    pub base_offset: Offset,
    pub bytes: u64,
    pub offset_index_bytes: u64,
    pub time_index_bytes: u64,
}

/// What one segment may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupLimits {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.index.bytes`.
    pub index_bytes: u64,
}

/// Runs of segments, given oldest first, that fit into one even if nothing is cleaned from them. `end_offset` is where the
/// last of them ends. A segment that exceeds the limits by itself is a group by itself.
pub(crate) fn group_segments(segments: &[SegmentSizes], end_offset: Offset, limits: GroupLimits) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < segments.len() {
        let first = segments[start];
        let (mut bytes, mut offset_index_bytes, mut time_index_bytes) =
            (first.bytes, first.offset_index_bytes, first.time_index_bytes);
        let mut end = start + 1;
        while let Some(next) = segments.get(end) {
            bytes += next.bytes;
            offset_index_bytes += next.offset_index_bytes;
            time_index_bytes += next.time_index_bytes;
            let next_end = segments.get(end + 1).map_or(end_offset, |after| after.base_offset);
            let last_relative_offset = next_end.value() - 1 - first.base_offset.value();
            if bytes > limits.segment_bytes
                || offset_index_bytes > limits.index_bytes
                || time_index_bytes > limits.index_bytes
                || last_relative_offset > i64::from(i32::MAX)
            {
                break;
            }
            end += 1;
        }
        groups.push(start..end);
        start = end;
    }
    groups
}

#[cfg(test)]
mod tests {
    use vltava_types::Offset;

    use super::{GroupLimits, SegmentSizes, group_segments};

    fn check(segments: &[(i64, u64, u64)], end_offset: i64, expected: &str) {
        let segments: Vec<_> = segments
            .iter()
            .map(|&(base_offset, bytes, index)| SegmentSizes {
                base_offset: Offset(base_offset),
                bytes,
                offset_index_bytes: index,
                time_index_bytes: index / 2,
            })
            .collect();
        let limits = GroupLimits { segment_bytes: 100, index_bytes: 50 };
        assert_eq!(format!("{:?}", group_segments(&segments, Offset(end_offset), limits)), expected);
    }

    #[test]
    fn small_neighbours_are_grouped_up_to_the_size_of_a_segment() {
        check(&[], 0, "[]");
        check(&[(0, 40, 0), (10, 60, 0), (20, 1, 0)], 30, "[0..2, 2..3]");
        check(&[(0, 300, 0), (10, 60, 0), (20, 40, 0)], 30, "[0..1, 1..3]");
    }

    #[test]
    fn indexes_must_fit_too() {
        check(&[(0, 1, 30), (10, 1, 20), (20, 1, 1)], 30, "[0..2, 2..3]");
    }

    #[test]
    fn relative_offsets_must_fit_in_31_bits() {
        let far = i64::from(i32::MAX);
        check(&[(5, 1, 0), (10, 1, 0), (far, 1, 0)], far + 6, "[0..3]");
        check(&[(5, 1, 0), (10, 1, 0), (far, 1, 0)], far + 7, "[0..2, 2..3]");
    }
}
