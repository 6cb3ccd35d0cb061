//! What can go wrong, and whether trying again makes sense.

use std::io;

use vltava_protocol::batch::RecordError;
use vltava_protocol::messages::{DecodeError, EncodeError};
use vltava_types::ErrorCode;

/// A request without a usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("address {0:?} is not written host:port")]
    BadAddress(String),
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// After this the connection is of no use any more: the answer may come when another one is expected.
    #[error("no answer in time")]
    TimedOut,
    #[error("the broker closed the connection")]
    Closed,
    #[error("answer of {length} bytes exceeds the limit of {limit}")]
    AnswerTooLarge { length: usize, limit: usize },
    #[error("answer to request {found} where the one to {expected} was due")]
    WrongCorrelation { expected: i32, found: i32 },
    #[error("request cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    #[error("malformed answer: {0}")]
    Decode(#[from] DecodeError),
    #[error("malformed records: {0}")]
    Records(#[from] RecordError),
    #[error("answer lacks what was asked for")]
    Incomplete,
    #[error("no broker of the cluster is reachable")]
    NoBroker,
    #[error("too many requests wait for the broker")]
    Busy,
    #[error("the broker answered {0}")]
    Refused(ErrorCode),
    #[error("the broker answered with unknown error code {0}")]
    UnknownErrorCode(i16),
}

impl ClientError {
    /// Whether the same request may succeed later. The outcome of this one may be unknown.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Io(_) | Self::TimedOut | Self::Closed | Self::NoBroker | Self::Busy | Self::Incomplete => true,
            Self::Refused(code) => is_retriable(*code),
            Self::BadAddress(_)
            | Self::AnswerTooLarge { .. }
            | Self::WrongCorrelation { .. }
            | Self::Encode(_)
            | Self::Decode(_)
            | Self::Records(_)
            | Self::UnknownErrorCode(_) => false,
        }
    }
}

/// Kafka's `RetriableException`s, as far as a client without transactions meets them.
pub(crate) const fn is_retriable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CorruptMessage
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::RequestTimedOut
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::NetworkException
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::NotController
            | ErrorCode::KafkaStorageError
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::PreferredLeaderNotAvailable
            | ErrorCode::EligibleLeadersNotAvailable
            | ErrorCode::ListenerNotFound
    )
}

/// Success, or the code as an error.
pub(crate) fn check(error_code: i16) -> Result<(), ClientError> {
    match ErrorCode::from_code(error_code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(ClientError::Refused(code)),
        None => Err(ClientError::UnknownErrorCode(error_code)),
    }
}
