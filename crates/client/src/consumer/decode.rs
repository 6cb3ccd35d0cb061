//! From the bytes of a Fetch answer to records.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::batch::{self, ControlKind, RecordError, RecordHeader, TimestampType};
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

use super::IsolationLevel;
use crate::MAX_UNCOMPRESSED_BYTES;

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub timestamp: TimestampMs,
    pub timestamp_type: TimestampType,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// A transaction that was aborted, by its producer and its first offset in the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
}

/// What a fetch of one partition gave.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) records: Vec<ConsumerRecord>,
    /// Behind the last whole batch.
    pub(super) next_offset: Option<Offset>,
}

/// Reads the records from `from` on. Control records are left out, and with `ReadCommitted` those of aborted
/// transactions. The last batch may be cut off; it comes again.
pub(super) fn decode(
    topic: &Arc<str>,
    partition: i32,
    bytes: &Bytes,
    from: Offset,
    isolation_level: IsolationLevel,
    mut aborted: Vec<Aborted>,
) -> Result<Decoded, RecordError> {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut aborting: BTreeSet<i64> = BTreeSet::new();
    let mut decoded = Decoded::default();
    let mut position = 0;
    for view in batch::batches(bytes) {
        let Ok(view) = view else { break };
        let size = view.bytes.len();
        view.verify_crc()?;
        let header = view.header;
        let batch = bytes.slice(position..position + size);
        position += size;
        decoded.next_offset = decoded.next_offset.max(Some(header.next_offset()));
        while let Some(next) = aborted.pop_if(|next| next.first_offset <= header.last_offset().0) {
            aborting.insert(next.producer_id);
        }
        if header.is_control() {
            let mut records = batch::records(&batch, MAX_UNCOMPRESSED_BYTES)?;
            let kind = records.next().transpose()?.and_then(|record| ControlKind::from_key(&record.key?));
            if kind == Some(ControlKind::Abort) {
                aborting.remove(&header.producer_id.0);
            }
            continue;
        }
        if isolation_level == IsolationLevel::ReadCommitted
            && header.is_transactional()
            && aborting.contains(&header.producer_id.0)
        {
            continue;
        }
        for record in batch::records(&batch, MAX_UNCOMPRESSED_BYTES)? {
            let record = record?;
            if record.offset >= from {
                decoded.records.push(ConsumerRecord {
                    topic: Arc::clone(topic),
                    partition,
                    offset: record.offset,
                    leader_epoch: header.partition_leader_epoch,
                    timestamp: record.timestamp,
                    timestamp_type: header.timestamp_type(),
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::batch::BatchBuilder;
    use vltava_types::{ProducerEpoch, ProducerId, Sequence};

    use super::*;

    /// A batch of a transaction, of `count` records, or its marker.
    fn batch(base_offset: i64, producer: i64, count: usize, marker: Option<ControlKind>) -> Bytes {
        let mut builder = BatchBuilder::new()
            .base_offset(Offset(base_offset))
            .producer(ProducerId(producer), ProducerEpoch(0), Sequence(0))
            .transactional();
        if let Some(kind) = marker {
            builder = builder.control();
            builder.append_control(TimestampMs(1), kind, b"");
        } else {
            (0..count).for_each(|_| builder.append(TimestampMs(1), None, Some(b"v"), &[]));
        }
        builder.build()
    }

    fn offsets(bytes: &[Bytes], from: i64, isolation_level: IsolationLevel, aborted: &[(i64, i64)]) -> Vec<i64> {
        let aborted = aborted
            .iter()
            .map(|(producer_id, first_offset)| Aborted { producer_id: *producer_id, first_offset: *first_offset });
        let bytes = Bytes::from(bytes.concat());
        let decoded =
            decode(&"t".into(), 0, &bytes, Offset(from), isolation_level, aborted.collect()).expect("readable");
        decoded.records.iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn records_before_the_position_markers_and_cut_off_batches_are_left_out() {
        let cut_off = batch(6, 1, 1, None).slice(..40);
        let log = [batch(0, 1, 3, None), batch(3, 1, 0, Some(ControlKind::Commit)), batch(4, 1, 2, None), cut_off];
        assert_eq!(offsets(&log, 1, IsolationLevel::ReadUncommitted, &[]), [1, 2, 4, 5]);
    }

    #[test]
    fn aborted_transactions_are_left_out_and_their_producers_next_ones_are_not() {
        let log = [
            batch(0, 1, 2, None),
            batch(2, 2, 1, None),
            batch(3, 1, 0, Some(ControlKind::Abort)),
            batch(4, 2, 0, Some(ControlKind::Commit)),
            batch(5, 1, 1, None),
            batch(6, 1, 0, Some(ControlKind::Commit)),
        ];
        assert_eq!(offsets(&log, 0, IsolationLevel::ReadCommitted, &[(1, 0)]), [2, 5]);
        assert_eq!(offsets(&log, 0, IsolationLevel::ReadUncommitted, &[(1, 0)]), [0, 1, 2, 5]);
    }
}
