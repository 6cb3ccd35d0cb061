//! Requests carry the leader epoch that their sender believes in (KIP-320).

use vltava_types::{ErrorCode, LeaderEpoch};

/// Sender and receiver live in different leader epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FencingError {
    /// The sender has to refresh its metadata.
    #[error("leader epoch {requested} is older than {current}")]
    FencedLeaderEpoch { requested: LeaderEpoch, current: LeaderEpoch },
    /// The receiver has yet to hear of the election; the sender may try again.
    #[error("leader epoch {requested} is newer than {current}")]
    UnknownLeaderEpoch { requested: LeaderEpoch, current: LeaderEpoch },
}

impl FencingError {
    /// The error under Kafka's number.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
            Self::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        }
    }
}

/// Refuses a request from another epoch, in both directions (trap 3). `None`, or -1 on the wire, does not ask.
pub fn check_leader_epoch(requested: Option<LeaderEpoch>, current: LeaderEpoch) -> Result<(), FencingError> {
    let Some(requested) = requested.filter(|epoch| *epoch != LeaderEpoch::NONE) else { return Ok(()) };
    match requested.cmp(&current) {
        std::cmp::Ordering::Less => Err(FencingError::FencedLeaderEpoch { requested, current }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(FencingError::UnknownLeaderEpoch { requested, current }),
    }
}
