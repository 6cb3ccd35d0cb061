//! What an append asks for, and what it comes to.

use vltava_protocol::batch::{InvalidBatch, Origin};
use vltava_replication::{FencingError, NotEnoughReplicas, SequenceError};
use vltava_storage::StorageError;
use vltava_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs};

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
