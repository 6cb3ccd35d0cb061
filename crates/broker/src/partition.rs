//! One hosted replica: the owner of its log and of its role.
//!
//! Everything that changes a partition goes through one lock, so that its order needs no argument. What takes long
//! happens outside of it: reads work on a snapshot of the log, flushes on file handles. Decisions are those of
//! [`vltava_replication`]; this file executes them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use vltava_protocol::batch::{InvalidBatch, Origin};
use vltava_replication::{ActiveProducer, EpochEndOffset, FencingError, NotEnoughReplicas, SequenceError};
use vltava_storage::{PartitionName, StorageError, TimestampedOffset};
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, TimestampMs, TopicPartition};

/// Which replicas must have a record before its produce is answered (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// 0: the client does not even wait for an answer.
    None,
    /// 1.
    Leader,
    /// -1.
    All,
}

/// How to append.
#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    pub origin: Origin,
    /// [`Acks::All`] asks for `min.insync.replicas` before anything is written (trap 16).
    pub acks: Acks,
    /// Append only under this leader epoch. Coordinators pass the epoch that they loaded their state under, clients none.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Where records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// When the topic stamps records with the time of their append, else [`TimestampMs::NONE`].
    pub log_append_time: TimestampMs,
    pub log_start_offset: Offset,
    /// The epoch of the leadership that appended. Acknowledgements are waited for under this one only.
    pub leader_epoch: LeaderEpoch,
    /// The producer sent this batch before; these are the offsets of the first time (trap 20).
    pub duplicate: bool,
}

/// Why nothing was appended, or, for [`AppendError::Storage`], perhaps something.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Fenced(#[from] FencingError),
    #[error(transparent)]
    NotEnoughReplicas(#[from] NotEnoughReplicas),
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error("the log directory is full")]
    DiskFull,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the log directory is offline")]
    Offline,
}

impl AppendError {
    /// The error under Kafka's number.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::Fenced(error) => error.code(),
            Self::NotEnoughReplicas(_) => ErrorCode::NotEnoughReplicas,
            Self::Invalid(error) => error.error_code(),
            Self::Sequence(error) => error.code(),
            // Retriable, and true: this replica cannot take more for now.
            Self::DiskFull | Self::Storage(_) | Self::Offline => ErrorCode::KafkaStorageError,
        }
    }
}

/// Up to where a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The high watermark.
    ReadUncommitted,
    /// The last stable offset: nothing of a transaction that is under way.
    ReadCommitted,
}

/// One partition of a Fetch.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: Offset,
    pub max_bytes: usize,
    /// Return the first batch even if it is larger than `max_bytes` (KIP-74).
    pub at_least_one_batch: bool,
    pub isolation: Isolation,
    /// The epoch that the reader believes in (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the reader has, to detect truncation (KIP-320, KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Whether a follower may answer (KIP-392).
    pub allow_follower: bool,
}

/// What one partition of a Fetch gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadResult {
    /// Whole batches; the first may begin below the requested offset. Empty if there is nothing to see, or if the
    /// reader's log diverges.
    pub records: Bytes,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// The reader has records that this log has not: it truncates to here and asks again.
    pub diverging: Option<EpochEndOffset>,
    pub leader_epoch: LeaderEpoch,
}

/// Who leads, as this replica knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// Whether this replica is the leader.
    pub is_local: bool,
}

/// One hosted replica.
pub struct Partition {
    id: TopicPartition,
    name: PartitionName,
}

impl Partition {
    #[must_use]
    pub const fn id(&self) -> TopicPartition {
        self.id
    }

    /// Topic name and index.
    #[must_use]
    pub const fn name(&self) -> &PartitionName {
        &self.name
    }

    #[must_use]
    pub fn leadership(&self) -> Leadership {
        unimplemented!()
    }

    /// The epoch under which this replica leads, if it does.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        let leadership = self.leadership();
        leadership.is_local.then_some(leadership.leader_epoch)
    }

    /// Appends one batch of a client or coordinator: routing, fencing, validation, stamping, append. Blocks for a write
    /// to the page cache. `records` holds exactly one batch (see `validate_produce_format`).
    pub fn append_as_leader(&self, records: &Bytes, options: &AppendOptions) -> Result<Appended, AppendError> {
        let _ = (records, options);
        unimplemented!()
    }

    /// Waits until `appended` is as safe as `acks` asks: [`Acks::Leader`] for the leader's own log in the sense of its durability
    /// mode, [`Acks::All`] for the high watermark. The caller bounds the wait. Fails with NOT_LEADER_OR_FOLLOWER when
    /// the leadership that appended ends (trap 15), and with NOT_ENOUGH_REPLICAS_AFTER_APPEND (trap 16).
    pub async fn wait_for_acks(&self, acks: Acks, appended: &Appended) -> Result<(), ErrorCode> {
        let _ = (acks, appended);
        unimplemented!()
    }

    /// Reads for a client.
    pub fn read(&self, request: &ReadRequest) -> Result<ReadResult, ErrorCode> {
        let _ = request;
        unimplemented!()
    }

    /// Has `waiter` woken (`notify_one`) whenever high watermark, last stable offset, log start or leadership change,
    /// until the subscription is dropped. Subscribe first and check then, and no change is missed.
    pub fn subscribe(self: &Arc<Self>, waiter: &Arc<Notify>) -> Subscription {
        let _ = waiter;
        unimplemented!()
    }

    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        unimplemented!()
    }

    /// As this replica knows it; a new leader's may lie behind (see [`Partition::latest_offset`]).
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        unimplemented!()
    }

    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        unimplemented!()
    }

    /// The first offset that may be read (ListOffsets with timestamp -2).
    pub fn earliest_offset(
        &self,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let _ = current_leader_epoch;
        unimplemented!()
    }

    /// The end of what may be read (ListOffsets with timestamp -1). OFFSET_NOT_AVAILABLE while a new leader's high
    /// watermark may lie behind what was committed (trap 5).
    pub fn latest_offset(
        &self,
        isolation: Isolation,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let _ = (isolation, current_leader_epoch);
        unimplemented!()
    }

    /// The first readable record at or after a time (ListOffsets).
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        isolation: Isolation,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<TimestampedOffset>, ErrorCode> {
        let _ = (timestamp, isolation, current_leader_epoch);
        unimplemented!()
    }

    /// The record with the largest timestamp (ListOffsets with timestamp -3, KIP-734).
    pub fn max_timestamp(
        &self,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<TimestampedOffset>, ErrorCode> {
        let _ = current_leader_epoch;
        unimplemented!()
    }

    /// The largest epoch not above `requested` and its end (OffsetsForLeaderEpoch). `None` is "undefined".
    pub fn end_offset_for_epoch(
        &self,
        requested: LeaderEpoch,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<EpochEndOffset>, ErrorCode> {
        let _ = (requested, current_leader_epoch);
        unimplemented!()
    }

    /// DeleteRecords: moves the log start to `offset`, or to the high watermark if `None`. Returns the new log start.
    pub fn delete_records_before(&self, offset: Option<Offset>) -> Result<Offset, ErrorCode> {
        let _ = offset;
        unimplemented!()
    }

    /// The lowest log start among the live replicas, which DeleteRecords waits for.
    #[must_use]
    pub fn low_watermark(&self) -> Offset {
        unimplemented!()
    }

    /// For DescribeProducers.
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, ErrorCode> {
        unimplemented!()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }
}

/// A waiter's registration with a partition; ends when dropped.
pub struct Subscription {
    partition: Arc<Partition>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = (&self.partition, self.id);
    }
}
