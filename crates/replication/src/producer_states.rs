//! What each idempotent producer last wrote to one partition (KIP-98, KIP-360).
//!
//! Every replica derives this from the log, so that it survives a change of leader. Snapshots only shorten the replay
//! after a restart. To truncate: [`ProducerStates::clear`], load the newest snapshot at or below the new end, and
//! replay the log from there; an entry cannot be rolled back by itself, since the epoch it had before is forgotten.

use std::collections::{BTreeMap, VecDeque};

use vltava_types::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// How many batches of each producer are remembered: a producer has at most this many in flight, so that any of
/// them may be sent again (trap 20).
pub const RETAINED_BATCHES: usize = 5;

/// The header fields of a batch that identify it to its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: Sequence,
    /// `base_sequence.plus(record_count - 1)`.
    pub last_sequence: Sequence,
    /// Ignored by [`ProducerStates::check`], since it is not assigned yet.
    pub base_offset: Offset,
    /// Inclusive. Ignored by [`ProducerStates::check`].
    pub last_offset: Offset,
    /// The batch's largest timestamp.
    pub timestamp: TimestampMs,
    pub is_transactional: bool,
}

/// What a leader does with a batch that passed the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Append it.
    New,
    /// It is in the log already: answer as the first time.
    Duplicate(Duplicate),
}

/// Where a batch that was sent again went the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp: TimestampMs,
}

/// Why a leader refuses a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    #[error("batch begins at sequence {found} where {expected} was expected")]
    OutOfOrderSequence { expected: Sequence, found: Sequence },
    #[error("producer epoch {found} is older than {current}")]
    InvalidProducerEpoch { current: ProducerEpoch, found: ProducerEpoch },
}

impl SequenceError {
    /// The error as a client sees it. Since KIP-360 an unknown producer is not an error: its first batch is taken with
    /// any sequence, and UNKNOWN_PRODUCER_ID is never answered.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        }
    }
}

/// One batch of one producer in the fields and meanings of Kafka's `.snapshot` file.
///
/// Kafka writes one entry per producer. We write one per retained batch, oldest first; a reader that keeps the last
/// entry of each producer, as Kafka's does, gets exactly what Kafka would have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSnapshotEntry {
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    /// -1 if the producer has no batch under this epoch.
    pub last_sequence: Sequence,
    /// Inclusive; -1 if the producer has no batch under this epoch.
    pub last_offset: Offset,
    /// `last_offset - base_offset`.
    pub offset_delta: i32,
    pub timestamp: TimestampMs,
    /// -1 if no transaction marker was seen.
    pub coordinator_epoch: i32,
    /// The first offset of the transaction under way, if any (-1 in the file).
    pub current_txn_first_offset: Option<Offset>,
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    /// -1 if the producer has no batch under this epoch.
    pub last_sequence: Sequence,
    pub last_timestamp: TimestampMs,
    pub coordinator_epoch: i32,
    pub current_txn_first_offset: Option<Offset>,
}

/// By which batch a producer's state can be read back from the log. Compaction keeps that batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// The last offset of its last data batch under the present epoch; `None` if only a marker was written under it.
    pub last_data_offset: Option<Offset>,
    pub producer_epoch: ProducerEpoch,
}

/// The end of a transaction, as found in a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionMarker {
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub coordinator_epoch: i32,
    /// Where the marker itself stands.
    pub offset: Offset,
    pub timestamp: TimestampMs,
}

/// A transaction that a marker ended: what the aborted-transaction index needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTransaction {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
    /// The marker's offset.
    pub last_offset: Offset,
}

/// All producers of one partition.
///
/// Invariant: the retained batches of an entry have its epoch and increasing offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<ProducerId, ProducerEntry>,
    /// Transactions without a marker, by first offset.
    ongoing_transactions: BTreeMap<Offset, ProducerId>,
    /// Transactions with a marker that is not below the high watermark yet: first offset to marker offset.
    unreplicated_transactions: BTreeMap<Offset, Offset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProducerEntry {
    epoch: ProducerEpoch,
    /// Oldest first, at most [`RETAINED_BATCHES`].
    batches: VecDeque<RetainedBatch>,
    last_timestamp: TimestampMs,
    coordinator_epoch: i32,
    current_txn_first_offset: Option<Offset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RetainedBatch {
    base_sequence: Sequence,
    last_sequence: Sequence,
    base_offset: Offset,
    last_offset: Offset,
    timestamp: TimestampMs,
}

impl ProducerStates {
    /// Whether a client's batch is new, was sent before, or has to be refused. Changes nothing.
    pub fn check(&self, batch: &ProducerBatch) -> Result<SequenceCheck, SequenceError> {
        // An unknown producer may have been forgotten by expiry or retention; its next batch is taken as it is.
        let Some(entry) = self.producers.get(&batch.producer_id) else { return Ok(SequenceCheck::New) };
        if batch.producer_epoch < entry.epoch {
            return Err(SequenceError::InvalidProducerEpoch { current: entry.epoch, found: batch.producer_epoch });
        }
        if batch.producer_epoch > entry.epoch {
            return expect_sequence(Sequence(0), batch);
        }
        if let Some(first) = entry.batches.iter().find(|retained| {
            retained.base_sequence == batch.base_sequence && retained.last_sequence == batch.last_sequence
        }) {
            return Ok(SequenceCheck::Duplicate(Duplicate {
                base_offset: first.base_offset,
                last_offset: first.last_offset,
                timestamp: first.timestamp,
            }));
        }
        // Without a batch under this epoch, a marker made the entry, and the producer starts from 0.
        let expected = entry.batches.back().map_or(Sequence(0), |last| last.last_sequence.plus(1));
        expect_sequence(expected, batch)
    }

    /// Takes in a batch that stands in the log. Used alike by the leader after its append, by followers and by
    /// recovery, and therefore never fails: the log is the truth.
    pub fn apply(&mut self, batch: &ProducerBatch) {
        let entry = self.producers.entry(batch.producer_id).or_insert_with(|| ProducerEntry::new(batch.producer_epoch));
        if batch.producer_epoch < entry.epoch {
            return;
        }
        entry.move_to_epoch(batch.producer_epoch);
        if entry.batches.len() == RETAINED_BATCHES {
            entry.batches.pop_front();
        }
        entry.batches.push_back(RetainedBatch {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence,
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            timestamp: batch.timestamp,
        });
        entry.last_timestamp = batch.timestamp;
        if batch.is_transactional && entry.current_txn_first_offset.is_none() {
            entry.current_txn_first_offset = Some(batch.base_offset);
            self.ongoing_transactions.insert(batch.base_offset, batch.producer_id);
        }
    }

    /// Takes in a transaction marker that stands in the log. Returns the transaction it ended, if one was under way.
    pub fn apply_marker(&mut self, marker: &TransactionMarker) -> Option<CompletedTransaction> {
        let entry =
            self.producers.entry(marker.producer_id).or_insert_with(|| ProducerEntry::new(marker.producer_epoch));
        if marker.producer_epoch > entry.epoch {
            entry.move_to_epoch(marker.producer_epoch);
        }
        entry.last_timestamp = marker.timestamp;
        entry.coordinator_epoch = entry.coordinator_epoch.max(marker.coordinator_epoch);
        let first_offset = entry.current_txn_first_offset.take()?;
        self.ongoing_transactions.remove(&first_offset);
        self.unreplicated_transactions.insert(first_offset, marker.offset);
        Some(CompletedTransaction { producer_id: marker.producer_id, first_offset, last_offset: marker.offset })
    }

    /// Ended transactions become stable once their markers are below the high watermark.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.unreplicated_transactions.retain(|_, marker| high_watermark <= *marker);
    }

    /// The first offset of a transaction that is under way, or whose marker may still be lost. The last stable offset
    /// is this or the high watermark, whichever is less.
    #[must_use]
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let ongoing = self.ongoing_transactions.keys().next();
        let unreplicated = self.unreplicated_transactions.keys().next();
        ongoing.into_iter().chain(unreplicated).min().copied()
    }

    /// Forgets producers that wrote nothing for `expiration_ms` (`producer.id.expiration.ms`). Those with a
    /// transaction under way stay. Log retention alone never forgets a producer (KIP-360).
    pub fn expire(&mut self, now: TimestampMs, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            entry.current_txn_first_offset.is_some()
                || now.value().saturating_sub(entry.last_timestamp.value()) < expiration_ms
        });
    }

    /// Everything as snapshot entries: by producer, oldest batch first.
    pub fn snapshot(&self) -> impl Iterator<Item = ProducerSnapshotEntry> + '_ {
        self.producers.iter().flat_map(|(&producer_id, entry)| entry.snapshot(producer_id))
    }

    /// Takes in one snapshot entry. Entries of a producer must come in the order in which [`Self::snapshot`] gave them.
    pub fn load(&mut self, loaded: &ProducerSnapshotEntry) {
        let entry =
            self.producers.entry(loaded.producer_id).or_insert_with(|| ProducerEntry::new(loaded.producer_epoch));
        entry.move_to_epoch(loaded.producer_epoch);
        if loaded.last_sequence != Sequence::NONE {
            if entry.batches.len() == RETAINED_BATCHES {
                entry.batches.pop_front();
            }
            entry.batches.push_back(RetainedBatch {
                base_sequence: minus(loaded.last_sequence, loaded.offset_delta),
                last_sequence: loaded.last_sequence,
                base_offset: loaded.last_offset.plus(-i64::from(loaded.offset_delta)),
                last_offset: loaded.last_offset,
                timestamp: loaded.timestamp,
            });
        }
        entry.last_timestamp = loaded.timestamp;
        entry.coordinator_epoch = loaded.coordinator_epoch;
        if let Some(first_offset) = entry.current_txn_first_offset.take() {
            self.ongoing_transactions.remove(&first_offset);
        }
        entry.current_txn_first_offset = loaded.current_txn_first_offset;
        if let Some(first_offset) = loaded.current_txn_first_offset {
            self.ongoing_transactions.insert(first_offset, loaded.producer_id);
        }
    }

    /// Forgets everything, before a reload.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// How many producers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// What compaction must keep of each known producer.
    #[must_use]
    pub fn last_records(&self) -> BTreeMap<ProducerId, LastRecord> {
        let last_record = |entry: &ProducerEntry| LastRecord {
            last_data_offset: entry.batches.back().map(|batch| batch.last_offset),
            producer_epoch: entry.epoch,
        };
        self.producers.iter().map(|(&producer_id, entry)| (producer_id, last_record(entry))).collect()
    }

    /// Every known producer, by id.
    pub fn active_producers(&self) -> impl Iterator<Item = ActiveProducer> + '_ {
        self.producers.iter().map(|(&producer_id, entry)| ActiveProducer {
            producer_id,
            producer_epoch: entry.epoch,
            last_sequence: entry.batches.back().map_or(Sequence::NONE, |batch| batch.last_sequence),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            current_txn_first_offset: entry.current_txn_first_offset,
        })
    }
}

impl ProducerEntry {
    fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            last_timestamp: TimestampMs::NONE,
            coordinator_epoch: -1,
            current_txn_first_offset: None,
        }
    }

    /// A new epoch starts its sequences anew, so that batches of the old one can no longer be duplicates.
    fn move_to_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    fn snapshot(&self, producer_id: ProducerId) -> impl Iterator<Item = ProducerSnapshotEntry> + '_ {
        let without_batches = self.batches.is_empty().then_some(ProducerSnapshotEntry {
            producer_id,
            producer_epoch: self.epoch,
            last_sequence: Sequence::NONE,
            last_offset: Offset(-1),
            offset_delta: 0,
            timestamp: self.last_timestamp,
            coordinator_epoch: self.coordinator_epoch,
            current_txn_first_offset: self.current_txn_first_offset,
        });
        let last = self.batches.len().saturating_sub(1);
        let batches = self.batches.iter().enumerate().map(move |(i, batch)| ProducerSnapshotEntry {
            producer_id,
            producer_epoch: self.epoch,
            last_sequence: batch.last_sequence,
            last_offset: batch.last_offset,
            offset_delta: i32::try_from(batch.last_offset.value() - batch.base_offset.value())
                .expect("a batch holds fewer than 2^31 records"),
            // A marker may be younger than the last batch.
            timestamp: if i == last { self.last_timestamp } else { batch.timestamp },
            coordinator_epoch: self.coordinator_epoch,
            current_txn_first_offset: self.current_txn_first_offset,
        });
        without_batches.into_iter().chain(batches)
    }
}

fn expect_sequence(expected: Sequence, batch: &ProducerBatch) -> Result<SequenceCheck, SequenceError> {
    if batch.base_sequence == expected {
        Ok(SequenceCheck::New)
    } else {
        Err(SequenceError::OutOfOrderSequence { expected, found: batch.base_sequence })
    }
}

/// The sequence `count` records earlier, wrapping from 0 to `i32::MAX`.
fn minus(sequence: Sequence, count: i32) -> Sequence {
    if sequence.value() >= count {
        Sequence(sequence.value() - count)
    } else {
        Sequence(i32::MAX - (count - sequence.value()) + 1)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use vltava_types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

    use super::{ProducerBatch, ProducerStates, SequenceCheck, TransactionMarker};

    fn batch(producer_id: i64, epoch: i16, base_sequence: i32, count: i32, base_offset: i64) -> ProducerBatch {
        ProducerBatch {
            producer_id: ProducerId(producer_id),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(base_sequence),
            last_sequence: Sequence(base_sequence).plus(count - 1),
            base_offset: Offset(base_offset),
            last_offset: Offset(base_offset + i64::from(count) - 1),
            timestamp: TimestampMs(1000 + base_offset),
            is_transactional: false,
        }
    }

    /// Plays "epoch:sequence+count" words of producer 1: each is checked, and appended if it is new.
    fn check(words: &str, expected: Expect) {
        let mut states = ProducerStates::default();
        let mut end = 0;
        let mut story = String::new();
        for word in words.split_whitespace() {
            let (epoch, rest) = word.split_once(':').expect("epoch:sequence+count");
            let (sequence, count) = rest.split_once('+').expect("epoch:sequence+count");
            let count = count.parse().expect("a count");
            let batch = batch(1, epoch.parse().expect("an epoch"), sequence.parse().expect("a sequence"), count, end);
            let outcome = match states.check(&batch) {
                Ok(SequenceCheck::New) => {
                    states.apply(&batch);
                    end += i64::from(count);
                    format!("appended at {}", batch.base_offset)
                }
                Ok(SequenceCheck::Duplicate(first)) => {
                    format!("duplicate of {}..={}", first.base_offset, first.last_offset)
                }
                Err(error) => format!("{}: {error}", error.code()),
            };
            story.push_str(&format!("{word} -> {outcome}\n"));
        }
        expected.assert_eq(&story);
    }

    #[test]
    fn trap_20_duplicates_among_the_last_five_batches_get_the_original_offset() {
        check(
            "0:0+3 0:3+1 0:4+1 0:5+1 0:6+2 0:0+3 0:8+1 0:3+1 0:0+3",
            expect![[r#"
                0:0+3 -> appended at 0
                0:3+1 -> appended at 3
                0:4+1 -> appended at 4
                0:5+1 -> appended at 5
                0:6+2 -> appended at 6
                0:0+3 -> duplicate of 0..=2
                0:8+1 -> appended at 8
                0:3+1 -> duplicate of 3..=3
                0:0+3 -> OUT_OF_ORDER_SEQUENCE_NUMBER: batch begins at sequence 0 where 9 was expected
            "#]],
        );
    }

    #[test]
    fn a_gap_is_refused() {
        check(
            "0:0+2 0:3+1 0:1+1",
            expect![[r#"
                0:0+2 -> appended at 0
                0:3+1 -> OUT_OF_ORDER_SEQUENCE_NUMBER: batch begins at sequence 3 where 2 was expected
                0:1+1 -> OUT_OF_ORDER_SEQUENCE_NUMBER: batch begins at sequence 1 where 2 was expected
            "#]],
        );
    }

    #[test]
    fn a_new_epoch_starts_from_sequence_0_and_fences_the_old_one() {
        check(
            "0:0+1 1:1+1 1:0+1 0:1+1",
            expect![[r#"
                0:0+1 -> appended at 0
                1:1+1 -> OUT_OF_ORDER_SEQUENCE_NUMBER: batch begins at sequence 1 where 0 was expected
                1:0+1 -> appended at 1
                0:1+1 -> INVALID_PRODUCER_EPOCH: producer epoch 0 is older than 1
            "#]],
        );
    }

    #[test]
    fn trap_21_an_unknown_producer_may_go_on_with_any_sequence() {
        check(
            "3:17+2 3:19+1",
            expect![[r#"
            3:17+2 -> appended at 0
            3:19+1 -> appended at 2
        "#]],
        );
    }

    #[test]
    fn sequences_wrap_to_zero() {
        check(
            "0:2147483646+4 0:2+1 0:2147483646+4",
            expect![[r#"
            0:2147483646+4 -> appended at 0
            0:2+1 -> appended at 4
            0:2147483646+4 -> duplicate of 0..=3
        "#]],
        );
    }

    #[test]
    fn trap_20_snapshots_keep_all_retained_batches() {
        let mut states = ProducerStates::default();
        for i in 0..7 {
            states.apply(&batch(1, 0, 2 * i, 2, 2 * i64::from(i)));
        }
        states.apply(&batch(2, 4, i32::MAX, 3, 14));
        states.apply_marker(&TransactionMarker {
            producer_id: ProducerId(3),
            producer_epoch: ProducerEpoch(1),
            coordinator_epoch: 9,
            offset: Offset(17),
            timestamp: TimestampMs(1),
        });
        let mut loaded = ProducerStates::default();
        for entry in states.snapshot() {
            loaded.load(&entry);
        }
        assert_eq!(loaded, states);
    }

    #[test]
    fn trap_21_only_idle_producers_expire() {
        let mut states = ProducerStates::default();
        states.apply(&batch(1, 0, 0, 1, 0));
        states.apply(&ProducerBatch { is_transactional: true, ..batch(2, 0, 0, 1, 1) });
        states.apply(&batch(3, 0, 0, 1, 500));
        states.expire(TimestampMs(1_600), 600);
        let left: Vec<_> = states.active_producers().map(|producer| producer.producer_id.value()).collect();
        assert_eq!(left, [2, 3]);
    }

    #[test]
    fn a_transaction_is_unstable_until_its_marker_is_replicated() {
        let mut states = ProducerStates::default();
        states.apply(&ProducerBatch { is_transactional: true, ..batch(1, 0, 0, 2, 10) });
        assert_eq!(states.first_unstable_offset(), Some(Offset(10)));
        let completed = states.apply_marker(&TransactionMarker {
            producer_id: ProducerId(1),
            producer_epoch: ProducerEpoch(0),
            coordinator_epoch: 0,
            offset: Offset(12),
            timestamp: TimestampMs(5),
        });
        assert_eq!(completed.map(|transaction| transaction.first_offset), Some(Offset(10)));
        states.on_high_watermark(Offset(12));
        assert_eq!(states.first_unstable_offset(), Some(Offset(10)));
        states.on_high_watermark(Offset(13));
        assert_eq!(states.first_unstable_offset(), None);
    }
}
