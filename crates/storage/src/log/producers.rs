//! What a batch of the log says about its producer.

use vltava_protocol::batch::{BatchHeader, ControlKind, records};
use vltava_replication::{ProducerBatch, ProducerStates, TransactionMarker};

/// Takes in what a batch of the log says about its producer. `batch` is the whole batch, which only control batches need.
pub(crate) fn replay_producer(producers: &mut ProducerStates, header: &BatchHeader, batch: &[u8]) {
    if !header.has_producer_id() {
        return;
    }
    if header.is_control() {
        if let Some(coordinator_epoch) = transaction_marker_epoch(batch) {
            producers.apply_marker(&TransactionMarker {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                coordinator_epoch,
                offset: header.last_offset(),
                timestamp: header.max_timestamp,
            });
        }
        return;
    }
    producers.apply(&ProducerBatch {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        timestamp: header.max_timestamp,
        is_transactional: header.is_transactional(),
    });
}

/// The coordinator epoch of a transaction marker: the value is a version (i16) and the epoch (i32). `None` for other
/// control records.
fn transaction_marker_epoch(batch: &[u8]) -> Option<i32> {
    const MAX_MARKER_BYTES: usize = 1024;
    let mut records = records(&bytes::Bytes::copy_from_slice(batch), MAX_MARKER_BYTES).ok()?;
    let record = records.next()?.ok()?;
    match ControlKind::from_key(&record.key?)? {
        ControlKind::Abort | ControlKind::Commit => {}
        ControlKind::Other(_) => return None,
    }
    let value = record.value?;
    Some(i32::from_be_bytes(value.get(2..6)?.try_into().expect("four bytes")))
}
