//! The log under a coordinator, and how its state is read back from it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use vltava_coordinator::{Coordinator, LogRecord};
use vltava_protocol::batch::{self, BatchBuilder, BatchError, Origin, RecordError};
use vltava_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs};

use crate::partition::{Acks, AppendOptions, Isolation, Partition, ReadRequest, Subscription};

/// How large a batch becomes before a decision's records are split: below the default `message.max.bytes`.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// How far a batch of the coordinators' topics may decompress.
const MAX_UNCOMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// Why a coordinator's state could not be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the log cannot be read: {0}")]
    Log(ErrorCode),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a coordinator needs of its partition. [`Partition`] is the one implementation besides that of the tests.
pub(crate) trait CoordinatorLog: Send + Sync + 'static {
    /// Keeps a waiter registered.
    type Subscription: Send;

    /// Topic and index, for the process's own log.
    fn name(&self) -> String;
    /// The epoch under which this broker leads the partition, if it does.
    fn leader_epoch(&self) -> Option<LeaderEpoch>;
    /// Whether no other broker can lead in our place, of which this one has not heard yet (trap 15).
    fn is_serving(&self) -> bool;
    fn log_start_offset(&self) -> Offset;
    fn log_end_offset(&self) -> Offset;
    fn high_watermark(&self) -> Offset;
    /// Whole batches below the high watermark from `offset` on; the first may begin below it. Blocks on the disk.
    fn read(&self, offset: Offset, max_bytes: usize) -> Result<Bytes, ErrorCode>;
    /// Appends one batch under this epoch and no other, and returns its last offset.
    fn append(self: &Arc<Self>, batch: &Bytes, leader_epoch: LeaderEpoch) -> Result<Offset, ErrorCode>;
    /// Has `waiter` woken whenever the high watermark or the leadership changes.
    fn subscribe(self: &Arc<Self>, waiter: &Arc<Notify>) -> Self::Subscription;
}

impl CoordinatorLog for Partition {
    type Subscription = Subscription;

    fn name(&self) -> String {
        Self::name(self).to_string()
    }

    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        Self::leader_epoch(self)
    }

    fn is_serving(&self) -> bool {
        Self::is_serving(self)
    }

    fn log_start_offset(&self) -> Offset {
        Self::log_start_offset(self)
    }

    fn log_end_offset(&self) -> Offset {
        Self::log_end_offset(self)
    }

    fn high_watermark(&self) -> Offset {
        Self::high_watermark(self)
    }

    fn read(&self, offset: Offset, max_bytes: usize) -> Result<Bytes, ErrorCode> {
        let request = ReadRequest {
            offset,
            max_bytes,
            max_copied_bytes: max_bytes,
            at_least_one_batch: true,
            isolation: Isolation::ReadUncommitted,
            current_leader_epoch: None,
            last_fetched_epoch: None,
            allow_follower: false,
        };
        Self::read(self, &request).map(|result| result.records)
    }

    fn append(self: &Arc<Self>, batch: &Bytes, leader_epoch: LeaderEpoch) -> Result<Offset, ErrorCode> {
        let options = AppendOptions { origin: Origin::Coordinator, acks: Acks::All, leader_epoch: Some(leader_epoch) };
        self.append_as_leader(batch, &options).map(|appended| appended.last_offset).map_err(|error| error.code())
    }

    fn subscribe(self: &Arc<Self>, waiter: &Arc<Notify>) -> Subscription {
        Self::subscribe(self, waiter)
    }
}

/// A decision's records as batches, split where one would become too large.
pub(super) fn to_batches(records: &[LogRecord], timestamp: TimestampMs) -> Vec<(Bytes, &[LogRecord])> {
    let mut batches = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut builder = BatchBuilder::new();
        let mut count = 0;
        for record in rest {
            let size = BatchBuilder::record_size_bound(Some(&record.key), record.value.as_deref(), &[]);
            if count > 0 && builder.uncompressed_size() + size > MAX_BATCH_BYTES {
                break;
            }
            builder.append(timestamp, Some(&record.key), record.value.as_deref(), &[]);
            count += 1;
        }
        let (batch, others) = rest.split_at(count);
        batches.push((builder.build(), batch));
        rest = others;
    }
    batches
}

/// Replays whole batches from `next_offset` on, and returns where the next read begins.
///
/// A record that cannot be understood is skipped with an error in the log: the other groups of the partition must not
/// be held hostage by it. A batch that cannot be read ends the load.
pub(super) fn replay_batches<C: Coordinator>(
    coordinator: &mut C,
    bytes: &Bytes,
    mut next_offset: Offset,
) -> Result<Offset, LoadError> {
    for view in batch::batches(bytes) {
        let view = match view {
            Err(BatchError::Incomplete { .. }) => break,
            view => view?,
        };
        // Markers end transactions, which do not reach this topic yet.
        if !view.header.is_control() {
            let whole = bytes.slice(view.position..view.position + view.header.size());
            for record in batch::records(&whole, MAX_UNCOMPRESSED_BYTES)? {
                let record = record?;
                if record.offset >= next_offset {
                    replay_record(coordinator, record);
                }
            }
        }
        next_offset = next_offset.max(view.header.next_offset());
    }
    Ok(next_offset)
}

fn replay_record<C: Coordinator>(coordinator: &mut C, record: batch::Record) {
    let offset = record.offset;
    let record = LogRecord { key: record.key.unwrap_or_default(), value: record.value };
    if let Err(error) = coordinator.replay(&record) {
        tracing::error!(%offset, "skipped a record of a coordinator's log: {error}");
    }
}
