//! What becomes of each batch and record of a compacted log. Values in, values out.

use std::collections::BTreeMap;

use vltava_protocol::batch::BatchHeader;
use vltava_replication::LastRecord;
use vltava_types::{Offset, ProducerId, TimestampMs};

/// What becomes of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordsFate {
    /// Those that are still the latest of their key stay: see [`is_retained`].
    ByKey,
    /// A marker stays as it is.
    KeepAll,
    /// Aborted data, or a marker that has done its work.
    DropAll,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFate {
    pub records: RecordsFate,
    /// Whether the batch stays without records when none is left.
    pub stays_empty: bool,
    /// A marker without data gets a delete horizon (KIP-534), as a batch with tombstones does.
    pub needs_horizon: bool,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchContext {
    /// Aborted data, or a marker without data left: what [`super::CleanedTransactions`] says.
    pub is_discardable: bool,
    /// The last one of the segments that are made into one. It stays, if need be without records: recovery tells by it
    /// which segments the new one replaces, and a reader that it gets there (Kafka keeps the last batch of a pass so).
    pub is_last_of_group: bool,
    pub now: TimestampMs,
}

/// Decides on a batch before its records are looked at. `producers` are the last records of the producers that are
/// still known: sequence numbers and epochs are read back from the batches that hold them (KIP-98).
#[must_use]
pub fn batch_fate(
    batch: &BatchHeader,
    context: BatchContext,
    producers: &BTreeMap<ProducerId, LastRecord>,
) -> BatchFate {
    let is_past_horizon = batch.delete_horizon().is_some_and(|horizon| horizon <= context.now);
    let records = match (batch.is_control(), context.is_discardable) {
        (true, true) if is_past_horizon => RecordsFate::DropAll,
        (true, _) => RecordsFate::KeepAll,
        (false, true) => RecordsFate::DropAll,
        (false, false) => RecordsFate::ByKey,
    };
    let is_last_of_producer = producers.get(&batch.producer_id).is_some_and(|last| match last.last_data_offset {
        Some(offset) => batch.last_offset() == offset,
        // Only a marker was written under the present epoch, which fences older ones.
        None => batch.is_control() && batch.producer_epoch == last.producer_epoch,
    });
    BatchFate {
        records,
        stays_empty: context.is_last_of_group || (batch.has_producer_id() && is_last_of_producer),
        needs_horizon: batch.is_control() && context.is_discardable,
    }
}

/// A record, as far as the decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFacts {
    pub offset: Offset,
    pub has_key: bool,
    /// False for a tombstone.
    pub has_value: bool,
    /// The latest offset of its key in the dirty part, as far as that was mapped.
    pub latest_of_key: Option<Offset>,
}

/// Whether a record stays. `mapped_end` is where the mapped part of the log ends; `delete_horizon` is its batch's.
#[must_use]
pub fn is_retained(
    record: &RecordFacts,
    mapped_end: Offset,
    delete_horizon: Option<TimestampMs>,
    now: TimestampMs,
) -> bool {
    if record.offset >= mapped_end {
        return true;
    }
    if !record.has_key {
        // Written before the topic was compacted: there is nothing that it could be the latest of.
        return false;
    }
    let is_latest = record.latest_of_key.is_none_or(|latest| latest <= record.offset);
    let is_past_horizon = delete_horizon.is_some_and(|horizon| horizon <= now);
    is_latest && (record.has_value || !is_past_horizon)
}

/// The delete horizon that a batch gets when it is written again: its tombstones, or its marker, may go once
/// `delete.retention.ms` has passed since their first cleaning. `None` if it needs none or has one.
#[must_use]
pub fn new_delete_horizon(
    batch: &BatchHeader,
    has_tombstones: bool,
    fate: BatchFate,
    delete_retention_ms: i64,
    now: TimestampMs,
) -> Option<TimestampMs> {
    let is_needed = (has_tombstones || fate.needs_horizon) && batch.delete_horizon().is_none();
    is_needed.then(|| TimestampMs(now.value().saturating_add(delete_retention_ms)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vltava_protocol::batch::{BatchBuilder, BatchHeader, ControlKind, retain_records};
    use vltava_replication::LastRecord;
    use vltava_types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

    use super::{BatchContext, RecordFacts, RecordsFate, batch_fate, is_retained, new_delete_horizon};

    const NOW: TimestampMs = TimestampMs(5_000);
    const PLAIN: BatchContext = BatchContext { is_discardable: false, is_last_of_group: false, now: NOW };

    fn batch(kind: Option<ControlKind>, horizon: Option<i64>) -> BatchHeader {
        let builder =
            BatchBuilder::new().base_offset(Offset(20)).producer(ProducerId(7), ProducerEpoch(3), Sequence(0));
        let bytes = match kind {
            Some(kind) => {
                let mut builder = builder.transactional().control();
                builder.append_control(TimestampMs(1), kind, &[0; 6]);
                builder.build()
            }
            None => {
                let mut builder = builder;
                builder.append(TimestampMs(1), Some(b"k"), None, &[]);
                builder.build()
            }
        };
        let kept = retain_records(&bytes, 1024, |_| true).expect("readable");
        BatchHeader::parse(&kept.into_batch(horizon.map(TimestampMs))).expect("a header")
    }

    fn fate_of(kind: Option<ControlKind>, horizon: Option<i64>, context: BatchContext) -> RecordsFate {
        batch_fate(&batch(kind, horizon), context, &BTreeMap::new()).records
    }

    #[test]
    fn data_stays_by_key_unless_it_was_aborted() {
        assert_eq!(fate_of(None, None, PLAIN), RecordsFate::ByKey);
        assert_eq!(fate_of(None, None, BatchContext { is_discardable: true, ..PLAIN }), RecordsFate::DropAll);
    }

    #[test]
    fn a_marker_stays_until_its_data_is_gone_and_its_horizon_has_passed() {
        let marker = Some(ControlKind::Commit);
        let discardable = BatchContext { is_discardable: true, ..PLAIN };
        assert_eq!(fate_of(marker, None, PLAIN), RecordsFate::KeepAll);
        assert_eq!(fate_of(marker, Some(1), PLAIN), RecordsFate::KeepAll);
        assert_eq!(fate_of(marker, None, discardable), RecordsFate::KeepAll);
        assert_eq!(fate_of(marker, Some(5_001), discardable), RecordsFate::KeepAll);
        assert_eq!(fate_of(marker, Some(5_000), discardable), RecordsFate::DropAll);
    }

    #[test]
    fn a_marker_without_data_gets_its_horizon_once() {
        let horizon = |kind, old, context| {
            let batch = batch(kind, old);
            let fate = batch_fate(&batch, context, &BTreeMap::new());
            new_delete_horizon(&batch, false, fate, 100, NOW).map(TimestampMs::value)
        };
        let marker = Some(ControlKind::Abort);
        let discardable = BatchContext { is_discardable: true, ..PLAIN };
        assert_eq!(horizon(marker, None, discardable), Some(5_100));
        assert_eq!(horizon(marker, Some(5_050), discardable), None);
        assert_eq!(horizon(marker, None, PLAIN), None);
        assert_eq!(horizon(None, None, discardable), None);
    }

    #[test]
    fn tombstones_get_their_horizon_once() {
        let horizon = |old, has_tombstones| {
            let batch = batch(None, old);
            let fate = batch_fate(&batch, PLAIN, &BTreeMap::new());
            new_delete_horizon(&batch, has_tombstones, fate, 100, NOW).map(TimestampMs::value)
        };
        assert_eq!(horizon(None, true), Some(5_100));
        assert_eq!(horizon(Some(5_050), true), None);
        assert_eq!(horizon(None, false), None);
    }

    #[test]
    fn the_batch_that_a_producer_is_known_by_stays() {
        let stays = |kind, last: Option<LastRecord>, context| {
            let producers = last.map(|last| (ProducerId(7), last)).into_iter().collect();
            batch_fate(&batch(kind, None), context, &producers).stays_empty
        };
        let last = |offset: Option<i64>, epoch| {
            Some(LastRecord { last_data_offset: offset.map(Offset), producer_epoch: ProducerEpoch(epoch) })
        };
        assert!(stays(None, last(Some(20), 3), PLAIN));
        assert!(!stays(None, last(Some(21), 3), PLAIN), "a later batch has the sequence");
        assert!(!stays(None, last(None, 3), PLAIN), "the marker has the epoch");
        assert!(!stays(None, None, PLAIN), "the producer is forgotten");
        assert!(stays(Some(ControlKind::Abort), last(None, 3), PLAIN));
        assert!(!stays(Some(ControlKind::Abort), last(None, 4), PLAIN), "another marker has the epoch");
        assert!(stays(None, None, BatchContext { is_last_of_group: true, ..PLAIN }));
    }

    #[test]
    fn only_the_latest_record_of_a_key_stays() {
        let is_retained = |has_key, has_value, latest: Option<i64>, horizon: Option<i64>| {
            let record = RecordFacts { offset: Offset(20), has_key, has_value, latest_of_key: latest.map(Offset) };
            is_retained(&record, Offset(100), horizon.map(TimestampMs), NOW)
        };
        assert!(is_retained(true, true, None, None), "the key is not in the dirty part");
        assert!(is_retained(true, true, Some(20), Some(1)));
        assert!(is_retained(true, true, Some(19), None), "what was mapped last was below");
        assert!(!is_retained(true, true, Some(21), None));
        assert!(!is_retained(false, true, None, None));
        // Tombstones.
        assert!(is_retained(true, false, Some(20), None));
        assert!(is_retained(true, false, Some(20), Some(5_001)));
        assert!(!is_retained(true, false, Some(20), Some(5_000)));
        assert!(!is_retained(true, false, Some(21), None));
    }

    #[test]
    fn what_was_not_mapped_stays_whatever_it_is() {
        let record = RecordFacts { offset: Offset(20), has_key: false, has_value: false, latest_of_key: None };
        assert!(is_retained(&record, Offset(20), Some(TimestampMs(1)), NOW));
        assert!(!is_retained(&record, Offset(21), Some(TimestampMs(1)), NOW));
    }
}
