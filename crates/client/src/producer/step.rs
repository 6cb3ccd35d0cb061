//! What the answer to a batch means for what happens to it next.

use vltava_types::{ErrorCode, Offset, TimestampMs};

use crate::error::is_retriable;

/// How one attempt to have a batch written ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Written(Written),
    Refused(ErrorCode),
    /// No answer came. The batch may have been written.
    Unanswered,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// `None` where the broker does not tell: acks=0, or a duplicate of a batch that it does not remember exactly.
    pub base_offset: Option<Offset>,
    /// [`TimestampMs::NONE`] unless the topic's timestamps are the broker's.
    pub log_append_time: TimestampMs,
}

/// What is known of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    pub is_idempotent: bool,
    /// No batch before it waits for its outcome.
    pub is_first: bool,
    pub has_one_record: bool,
    pub has_retries_left: bool,
    /// An earlier attempt was not answered: it may still be on its way to the broker.
    pub may_come_late: bool,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Done(Written),
    /// Again, under the same sequence number: should the batch be there already, the broker finds out.
    Retry,
    /// Again, with the partition's batches numbered from 0 in the next epoch. The broker lacks the batch's predecessor,
    /// and so it has none of the successors either.
    Renumber,
    /// Again, in two halves.
    Split,
    Fail,
    /// Given up: it may be written or not, and sending it under another number could write it twice.
    Unknown,
}

#[must_use]
pub fn next_step(outcome: Outcome, batch: BatchFacts) -> Step {
    let retry = if batch.has_retries_left { Step::Retry } else { Step::Fail };
    let code = match outcome {
        Outcome::Written(written) => return Step::Done(written),
        Outcome::Unanswered => return retry,
        Outcome::Refused(code) => code,
    };
    match code {
        ErrorCode::DuplicateSequenceNumber if batch.is_idempotent => {
            Step::Done(Written { base_offset: None, log_append_time: TimestampMs::NONE })
        }
        // A gap before the batch closes by itself while a predecessor is still to be written.
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId
            if batch.is_idempotent && !batch.is_first =>
        {
            retry
        }
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId if batch.is_idempotent => {
            match batch.has_retries_left {
                _ if batch.may_come_late => Step::Unknown,
                true => Step::Renumber,
                false => Step::Fail,
            }
        }
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge if !batch.has_one_record => Step::Split,
        code if is_retriable(code) => retry,
        _ => Step::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: BatchFacts = BatchFacts {
        is_idempotent: true,
        is_first: true,
        has_one_record: false,
        has_retries_left: true,
        may_come_late: false,
    };

    #[test]
    fn each_error_has_its_next_step() {
        let later = BatchFacts { is_first: false, ..FACTS };
        let single = BatchFacts { has_one_record: true, ..FACTS };
        let last = BatchFacts { has_retries_left: false, ..FACTS };
        let plain = BatchFacts { is_idempotent: false, ..FACTS };
        let unanswered = BatchFacts { may_come_late: true, ..FACTS };
        let unknown_place = Step::Done(Written { base_offset: None, log_append_time: TimestampMs::NONE });
        let cases = [
            (ErrorCode::NotLeaderOrFollower, FACTS, Step::Retry),
            (ErrorCode::NotLeaderOrFollower, last, Step::Fail),
            (ErrorCode::NotEnoughReplicasAfterAppend, FACTS, Step::Retry),
            (ErrorCode::DuplicateSequenceNumber, FACTS, unknown_place),
            (ErrorCode::OutOfOrderSequenceNumber, later, Step::Retry),
            (ErrorCode::OutOfOrderSequenceNumber, FACTS, Step::Renumber),
            (ErrorCode::OutOfOrderSequenceNumber, unanswered, Step::Unknown),
            (ErrorCode::OutOfOrderSequenceNumber, plain, Step::Fail),
            (ErrorCode::UnknownProducerId, FACTS, Step::Renumber),
            (ErrorCode::InvalidProducerEpoch, FACTS, Step::Fail),
            (ErrorCode::MessageTooLarge, FACTS, Step::Split),
            (ErrorCode::MessageTooLarge, single, Step::Fail),
            (ErrorCode::TopicAuthorizationFailed, FACTS, Step::Fail),
            (ErrorCode::InvalidRecord, FACTS, Step::Fail),
        ];
        for (code, facts, step) in cases {
            assert_eq!(next_step(Outcome::Refused(code), facts), step, "{code} {facts:?}");
        }
        assert_eq!(next_step(Outcome::Unanswered, FACTS), Step::Retry);
        assert_eq!(next_step(Outcome::Unanswered, last), Step::Fail);
    }
}
