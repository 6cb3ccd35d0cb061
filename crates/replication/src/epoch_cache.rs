//! Which leader epoch wrote which part of the log (KIP-101, KIP-279).

use vltava_types::{LeaderEpoch, Offset};

/// Records from `start_offset` on were written under `epoch`, up to the next entry's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: LeaderEpoch,
    pub start_offset: Offset,
}

/// Where the records of `epoch` end. The answer of OffsetsForLeaderEpoch and of a diverging fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub epoch: LeaderEpoch,
    /// Exclusive.
    pub end_offset: Offset,
}

/// The epochs of one log, oldest first.
///
/// Invariant: epochs and start offsets both increase strictly from entry to entry. Epochs without records are
/// not kept, except the latest one, which a leader assigns at its log end before it has written anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// A cache with these entries, as read from a checkpoint. Entries that contradict a later one are dropped, since
    /// the later one was written with more knowledge.
    #[must_use]
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> Self {
        let mut cache = Self::default();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset);
        }
        cache
    }

    /// Oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The epoch of the last record, or of the leadership that began at the log end.
    #[must_use]
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Records that everything from `start_offset` on is written under `epoch`. Returns whether anything changed, that
    /// is, whether the checkpoint has to be written. A known epoch with an earlier start is left as it is.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if let Some(latest) = self.entries.last()
            && latest.epoch == epoch
            && latest.start_offset <= start_offset
        {
            return false;
        }
        // An older assignment that reaches into this one never got a record that survived.
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The epoch under which the record at `offset` was written, if the offset lies in the log.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries[after.checked_sub(1)?].epoch)
    }

    /// The start offset of exactly this epoch.
    #[must_use]
    pub fn start_offset_of(&self, epoch: LeaderEpoch) -> Option<Offset> {
        let index = self.entries.binary_search_by_key(&epoch, |entry| entry.epoch).ok()?;
        Some(self.entries[index].start_offset)
    }

    /// The largest epoch known that is not above `requested`, and where it ends (KIP-279). `None` if `requested` is
    /// newer than everything known here or nothing is known.
    ///
    /// If every known epoch is newer, the answer is `requested` itself, ending where the oldest known one starts:
    /// whatever the asker has under it beyond that offset is not in this log.
    #[must_use]
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end_offset: Offset) -> Option<EpochEndOffset> {
        let latest = self.entries.last()?;
        if requested < LeaderEpoch(0) || requested > latest.epoch {
            return None;
        }
        if requested == latest.epoch {
            return Some(EpochEndOffset { epoch: requested, end_offset: log_end_offset });
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= requested);
        let epoch = next.checked_sub(1).map_or(requested, |floor| self.entries[floor].epoch);
        Some(EpochEndOffset { epoch, end_offset: self.entries[next].start_offset })
    }

    /// Forgets what began at `end_offset` or later. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Forgets what ended before `start_offset`; the epoch in force there then starts there. Returns whether anything
    /// changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(in_force) = after.checked_sub(1) else { return false };
        if in_force == 0 && self.entries[0].start_offset == start_offset {
            return false;
        }
        self.entries.drain(..in_force);
        self.entries[0].start_offset = start_offset;
        true
    }

    /// Forgets everything, as when the log is emptied.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use vltava_types::{LeaderEpoch, Offset};

    use super::{EpochCache, EpochEntry};

    /// Builds a cache from "epoch@start" words.
    fn cache(words: &str) -> EpochCache {
        EpochCache::from_entries(words.split_whitespace().map(|word| {
            let (epoch, start) = word.split_once('@').expect("epoch@start");
            EpochEntry {
                epoch: LeaderEpoch(epoch.parse().expect("an epoch")),
                start_offset: Offset(start.parse().expect("an offset")),
            }
        }))
    }

    fn show(cache: &EpochCache) -> String {
        let words: Vec<_> =
            cache.entries().iter().map(|entry| format!("{}@{}", entry.epoch, entry.start_offset)).collect();
        words.join(" ")
    }

    fn check_end_offsets(words: &str, requested: &[i32], expected: Expect) {
        let cache = cache(words);
        let answers: Vec<_> = requested
            .iter()
            .map(|&epoch| match cache.end_offset_for(LeaderEpoch(epoch), Offset(100)) {
                Some(end) => format!("{epoch} -> {}:{}\n", end.epoch, end.end_offset),
                None => format!("{epoch} -> none\n"),
            })
            .collect();
        expected.assert_eq(&answers.concat());
    }

    #[test]
    fn end_offset_is_that_of_the_largest_epoch_not_above_the_requested() {
        check_end_offsets(
            "2@10 4@20 7@50",
            &[-1, 0, 2, 3, 4, 6, 7, 8],
            expect![[r#"
                -1 -> none
                0 -> 0:10
                2 -> 2:20
                3 -> 2:20
                4 -> 4:50
                6 -> 4:50
                7 -> 7:100
                8 -> none
            "#]],
        );
    }

    #[test]
    fn an_empty_cache_knows_no_end_offset() {
        check_end_offsets(
            "",
            &[0],
            expect![[r#"
            0 -> none
        "#]],
        );
    }

    #[test]
    fn assigning_drops_epochs_that_never_got_a_record() {
        expect!["1@0 3@10"].assert_eq(&show(&cache("1@0 2@10 3@10")));
        expect!["1@0 2@5"].assert_eq(&show(&cache("1@0 2@10 3@10 2@5")));
        expect!["1@0 2@5"].assert_eq(&show(&cache("1@0 2@5 2@7")));
    }

    #[test]
    fn truncation_from_the_end_drops_epochs_that_began_there() {
        let mut cache = cache("1@0 2@10 5@20");
        assert!(cache.truncate_from_end(Offset(10)));
        expect!["1@0"].assert_eq(&show(&cache));
        assert!(!cache.truncate_from_end(Offset(10)));
    }

    #[test]
    fn truncation_from_the_start_keeps_the_epoch_in_force() {
        let mut cache = cache("1@0 2@10 5@20");
        assert!(cache.truncate_from_start(Offset(15)));
        expect!["2@15 5@20"].assert_eq(&show(&cache));
        assert!(!cache.truncate_from_start(Offset(15)));
        assert!(!cache.truncate_from_start(Offset(3)));
        assert!(cache.truncate_from_start(Offset(90)));
        expect!["5@90"].assert_eq(&show(&cache));
    }

    #[test]
    fn the_epoch_of_an_offset_is_that_of_the_last_entry_not_above() {
        let cache = cache("1@5 2@10");
        assert_eq!(cache.epoch_of(Offset(4)), None);
        assert_eq!(cache.epoch_of(Offset(5)), Some(LeaderEpoch(1)));
        assert_eq!(cache.epoch_of(Offset(12)), Some(LeaderEpoch(2)));
        assert_eq!(cache.start_offset_of(LeaderEpoch(2)), Some(Offset(10)));
        assert_eq!(cache.start_offset_of(LeaderEpoch(3)), None);
    }
}
