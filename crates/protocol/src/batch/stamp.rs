//! What a leader writes into a batch that it appends, in place, and what a producer writes before it sends one again
//! under another number. A follower writes nothing: it keeps the leader's bytes.
//!
//! Every function expects a whole batch whose header has been parsed before.

use vltava_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use super::header::{
    ATTRIBUTES_AT, Attributes, BatchHeader, CRC_AT, HEADER_SIZE, LEADER_EPOCH_AT, MAX_TIMESTAMP_AT, PRODUCER_AT,
    TimestampType, compute_crc,
};

/// Sets the offset of the first record. The CRC does not cover it.
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    batch[..8].copy_from_slice(&base_offset.0.to_be_bytes());
}

/// Sets the epoch of the leader that appends the batch (KIP-101). The CRC does not cover it.
pub fn set_partition_leader_epoch(batch: &mut [u8], leader_epoch: LeaderEpoch) {
    batch[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Sets the batch's largest timestamp and who gave it, and the CRC, which covers both.
pub fn set_max_timestamp(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp: TimestampMs) {
    let bits = i16::from_be_bytes([batch[ATTRIBUTES_AT], batch[ATTRIBUTES_AT + 1]]);
    let attributes = Attributes(bits).with_timestamp_type(timestamp_type);
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.0.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.0.to_be_bytes());
    set_crc(batch);
}

/// Sets whose batch it is and its place among the producer's batches, and the CRC, which covers them.
pub fn set_producer(batch: &mut [u8], id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) {
    let fields = &mut batch[PRODUCER_AT..PRODUCER_AT + 14];
    fields[..8].copy_from_slice(&id.0.to_be_bytes());
    fields[8..10].copy_from_slice(&epoch.0.to_be_bytes());
    fields[10..].copy_from_slice(&base_sequence.0.to_be_bytes());
    set_crc(batch);
}

/// Computes the CRC anew.
pub fn set_crc(batch: &mut [u8]) {
    let crc = compute_crc(batch);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Replaces the header, then sets the CRC of the whole.
pub(super) fn set_header(batch: &mut [u8], header: &BatchHeader) {
    batch[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
    set_crc(batch);
}
