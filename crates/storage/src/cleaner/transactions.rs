//! What is left of transactions in the part of a log that is cleaned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vltava_protocol::batch::{BatchHeader, ControlKind};
use vltava_types::{Offset, ProducerId};

/// A transaction that was aborted, as `.txnindex` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbortedTransaction {
    /// Of its first batch.
    pub first_offset: Offset,
    /// Of its marker.
    pub last_offset: Offset,
    pub producer_id: ProducerId,
}

/// Tells, batch after batch in the order of the log, which data were aborted and which markers have no data left (Kafka's
/// `CleanedTransactionMetadata`). Every batch of the cleaned part passes through, whether its records are kept or not.
#[derive(Clone, Debug, Default)]
pub struct CleanedTransactions {
    /// By first offset: those that have not begun yet.
    aborted: VecDeque<AbortedTransaction>,
    /// Aborted transactions whose marker has not passed: whether any of their batches is still in the log.
    aborted_under_way: BTreeMap<ProducerId, HasData>,
    /// Transactions with a batch that was not aborted, and whose marker has not passed.
    committed_under_way: BTreeSet<ProducerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HasData(bool);

impl CleanedTransactions {
    /// For the batches from `start_offset` on. `aborted` are at least those transactions that end there or later.
    #[must_use]
    pub fn new(aborted: &[AbortedTransaction], start_offset: Offset) -> Self {
        let mut aborted: Vec<_> =
            aborted.iter().filter(|transaction| transaction.last_offset >= start_offset).copied().collect();
        aborted.sort_unstable();
        Self { aborted: aborted.into(), ..Self::default() }
    }

    /// Takes in a data batch. Returns whether its records were aborted, and so are nobody's.
    pub fn on_data(&mut self, batch: &BatchHeader) -> bool {
        self.begin_aborted_up_to(batch.last_offset());
        if !batch.is_transactional() {
            return false;
        }
        match self.aborted_under_way.get_mut(&batch.producer_id) {
            Some(has_data) => {
                *has_data = HasData(true);
                true
            }
            None => {
                self.committed_under_way.insert(batch.producer_id);
                false
            }
        }
    }

    /// Takes in a marker. Returns whether nothing is left of the transaction that it ends, so that it has done its work.
    pub fn on_marker(&mut self, batch: &BatchHeader, kind: ControlKind) -> bool {
        self.begin_aborted_up_to(batch.last_offset());
        match kind {
            ControlKind::Abort => {
                !self.aborted_under_way.remove(&batch.producer_id).is_some_and(|HasData(has_data)| has_data)
            }
            ControlKind::Commit => !self.committed_under_way.remove(&batch.producer_id),
            // Nobody's here; never to be dropped.
            ControlKind::Other(_) => false,
        }
    }

    fn begin_aborted_up_to(&mut self, offset: Offset) {
        while let Some(transaction) = self.aborted.front()
            && transaction.first_offset <= offset
        {
            self.aborted_under_way.entry(transaction.producer_id).or_insert(HasData(false));
            self.aborted.pop_front();
        }
    }
}

/// Finds the aborted transactions of a log by reading it, which takes the place of `.txnindex` until there is one.
#[derive(Clone, Debug, Default)]
pub struct AbortedTransactions {
    first_offsets: BTreeMap<ProducerId, Offset>,
    aborted: Vec<AbortedTransaction>,
}

impl AbortedTransactions {
    pub fn on_data(&mut self, batch: &BatchHeader) {
        if batch.is_transactional() {
            self.first_offsets.entry(batch.producer_id).or_insert(batch.base_offset);
        }
    }

    pub fn on_marker(&mut self, batch: &BatchHeader, kind: ControlKind) {
        let first_offset = match kind {
            ControlKind::Other(_) => None,
            ControlKind::Abort | ControlKind::Commit => self.first_offsets.remove(&batch.producer_id),
        };
        if let (ControlKind::Abort, Some(first_offset)) = (kind, first_offset) {
            let last_offset = batch.last_offset();
            self.aborted.push(AbortedTransaction { first_offset, last_offset, producer_id: batch.producer_id });
        }
    }

    #[must_use]
    pub fn into_list(self) -> Vec<AbortedTransaction> {
        self.aborted
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use expect_test::{Expect, expect};
    use vltava_protocol::batch::{BatchBuilder, BatchHeader, ControlKind};
    use vltava_types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

    use super::{AbortedTransactions, CleanedTransactions};

    fn header(word: &str, offset: i64) -> (BatchHeader, Option<ControlKind>) {
        let (kind, id) = word.split_at(1);
        let builder = BatchBuilder::new().base_offset(Offset(offset)).producer(
            ProducerId(id.parse().expect("a producer")),
            ProducerEpoch(0),
            Sequence(0),
        );
        let mut builder = if kind == "p" { builder } else { builder.transactional() };
        let control = match kind {
            "c" => Some(ControlKind::Commit),
            "a" => Some(ControlKind::Abort),
            _ => None,
        };
        builder = match control {
            Some(_) => builder.control(),
            None => builder,
        };
        match control {
            Some(kind) => builder.append_control(TimestampMs(0), kind, &[]),
            None => builder.append(TimestampMs(0), Some(b"k"), None, &[]),
        }
        let batch: Bytes = builder.build();
        (BatchHeader::parse(&batch).expect("a header"), control)
    }

    /// Words: `t1` data of producer 1's transaction, `p1` plain data, `c1` and `a1` its markers, `-` a batch that is gone.
    /// Aborted transactions are found in `whole`; what is cleaned is `cleaned`, at the same offsets.
    fn check(whole: &str, cleaned: &str, expected: Expect) {
        let words = |text: &str| {
            let words: Vec<_> = text.split_whitespace().map(str::to_owned).enumerate().collect();
            words.into_iter().filter(|(_, word)| word != "-")
        };
        let mut aborted = AbortedTransactions::default();
        for (offset, word) in words(whole) {
            match header(&word, offset as i64) {
                (header, Some(kind)) => aborted.on_marker(&header, kind),
                (header, None) => aborted.on_data(&header),
            }
        }
        let start_offset = words(cleaned).next().map_or(0, |(offset, _)| offset as i64);
        let mut transactions = CleanedTransactions::new(&aborted.into_list(), Offset(start_offset));
        let told: Vec<_> = words(cleaned)
            .map(|(offset, word)| match header(&word, offset as i64) {
                (header, Some(kind)) if transactions.on_marker(&header, kind) => format!("{word}:empty"),
                (header, None) if transactions.on_data(&header) => format!("{word}:aborted"),
                _ => word,
            })
            .collect();
        expected.assert_eq(&told.join(" "));
    }

    #[test]
    fn aborted_data_is_told_from_committed() {
        let log = "t1 p2 t3 a1 t1 c3 c1 t3 a3";
        check(log, log, expect!["t1:aborted p2 t3 a1 t1 c3 c1 t3:aborted a3"]);
    }

    #[test]
    fn a_marker_without_data_has_done_its_work() {
        check("t1 a1 t1 c1", "- a1 - c1", expect!["a1:empty c1:empty"]);
        // Each marker speaks for the transaction before it.
        check("t1 a1 t1 a1", "- a1 t1 a1", expect!["a1:empty t1:aborted a1"]);
        check("t1 c1 t1 c1", "t1 c1 - c1", expect!["t1 c1 c1:empty"]);
    }

    #[test]
    fn a_transaction_that_ended_before_says_nothing_about_the_next() {
        check("t1 a1 t1 c1", "- - t1 c1", expect!["t1 c1"]);
        check("t1 t1 a1 t1 c1", "- t1 a1 t1 c1", expect!["t1:aborted a1 t1 c1"]);
    }

    #[test]
    fn a_marker_beyond_the_cleaned_part_counts() {
        check("t1 t2 p3 a1", "t1 t2 p3", expect!["t1:aborted t2 p3"]);
    }
}
