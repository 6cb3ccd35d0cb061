//! The core that every log-backed coordinator shares: decide, append, replay, answer.

use bytes::Bytes;
use vltava_types::{ErrorCode, TimestampMs};

/// A state machine whose replicated state lives in one partition of an internal topic.
///
/// The shell drives it like this, one step at a time: an event is decided; the decision's records are appended to the
/// log and, once appended, replayed here; its replies that need no record are sent at once; when the high watermark
/// has passed the records, [`Coordinator::complete`] is called and decides what follows. So nothing that a client
/// was told can be forgotten by a failover (trap 24).
///
/// Invariant: the replicated part of the state changes in [`Coordinator::replay`] alone. What is volatile (sessions,
/// a rebalance under way) is lost on failover and built anew by [`Coordinator::loaded`].
pub trait Coordinator: Send + 'static {
    /// A client's request, or news from the cluster.
    type Event: Send + 'static;
    /// The answer to a request.
    type Response: Send + 'static;
    /// What is to be done once a decision's records are durable, or have failed.
    type Completion: Send + 'static;

    /// Applies one record of the log. Records of unknown kinds, which a newer release may have written, are ignored.
    fn replay(&mut self, record: &LogRecord) -> Result<(), crate::records::RecordError>;

    /// The whole log has been replayed: sessions start afresh.
    fn loaded(&mut self, now: Now) -> Decision<Self>;

    /// Decides an event.
    fn handle(&mut self, event: Self::Event, now: Now) -> Decision<Self>;

    /// The records of an earlier decision became durable, or failed; called in the order of the decisions.
    fn complete(&mut self, completion: Self::Completion, result: Result<(), ErrorCode>, now: Now) -> Decision<Self>;

    /// When [`Coordinator::expire`] next has something to do, in the shell's monotonic milliseconds.
    fn next_deadline_ms(&self) -> Option<u64>;

    /// Decides one timer that has run out, the earliest first; `None` if there is none.
    fn expire(&mut self, now: Now) -> Option<Decision<Self>>;

    /// Leadership is lost: everyone who waits is sent to the new coordinator.
    fn unload(&mut self) -> Vec<Reply<Self::Response>>;
}

/// The two clocks as of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Drives timers. Its origin is the shell's affair.
    pub monotonic_ms: u64,
    /// Written into records.
    pub wall_clock: TimestampMs,
}

/// A client that waits for an answer; unique within one shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An answer, or the error that stands for the whole request.
pub type Outcome<R> = Result<R, ErrorCode>;

/// An answer and who gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<R> {
    pub token: Token,
    pub outcome: Outcome<R>,
}

/// A record of an internal topic, encoded. No value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// What a coordinator wants done.
pub struct Decision<C: Coordinator + ?Sized> {
    /// To be appended in this order, then replayed.
    pub records: Vec<LogRecord>,
    /// Answers that depend on nothing uncommitted.
    pub replies: Vec<Reply<C::Response>>,
    /// To be handed back once `records` are durable. Without records, it waits only for earlier records under `key`.
    pub completion: Option<C::Completion>,
    /// The group (or transactional id) whose records these are, or whose earlier records the completion waits for.
    pub key: Option<String>,
}

impl<C: Coordinator + ?Sized> Decision<C> {
    /// Nothing to do.
    #[must_use]
    pub fn nothing() -> Self {
        Self { records: Vec::new(), replies: Vec::new(), completion: None, key: None }
    }
}

/// What a client is told when the log refuses or loses a coordinator's records: try again here, or find the new
/// coordinator. Other codes pass through.
#[must_use]
pub fn client_error_of_failed_append(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch
        | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}
