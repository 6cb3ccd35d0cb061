//! Whether anything was lost: a function from what was seen to a judgement. It knows nothing of brokers or time.

use std::collections::BTreeMap;

/// Everything that the demo saw. Records carry numbers, given in the order in which they were produced.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Number and offset of each acknowledged record.
    pub acknowledged: BTreeMap<u64, i64>,
    /// Records whose producer was told that they failed. They may have been written all the same.
    pub refused: Vec<u64>,
    /// The whole log as read back at the end: offsets and numbers.
    pub log: Vec<(i64, u64)>,
    /// What the consumer was given while brokers died, in its order.
    pub consumed: Vec<(i64, u64)>,
}

/// What is wrong, with the numbers of the records concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub acknowledged: usize,
    pub refused: usize,
    /// Acknowledged, and nowhere in the log.
    pub lost: Vec<u64>,
    /// More than once in the log.
    pub duplicated: Vec<u64>,
    /// In the log behind a record that was produced later.
    pub reordered: Vec<u64>,
    /// Acknowledged at an offset where there is another record now, or none.
    pub misplaced: Vec<u64>,
    /// Given to the consumer at an offset where the log has another record, or none.
    pub contradicted: Vec<u64>,
    /// Acknowledged, and not given to the consumer exactly once.
    pub not_consumed_once: Vec<u64>,
}

impl Verdict {
    /// Whether the cluster kept its promises.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems().iter().all(|(_, numbers)| numbers.is_empty())
    }

    /// Each kind of problem with the records that have it.
    #[must_use]
    pub fn problems(&self) -> [(&'static str, &[u64]); 6] {
        [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("out of order", &self.reordered),
            ("not at their offset", &self.misplaced),
            ("shown to the consumer but not in the log", &self.contradicted),
            ("not shown to the consumer exactly once", &self.not_consumed_once),
        ]
    }
}

#[must_use]
pub fn judge(history: &History) -> Verdict {
    let by_offset: BTreeMap<i64, u64> = history.log.iter().copied().collect();
    let times_in = |records: &[(i64, u64)]| {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        records.iter().for_each(|(_, number)| *times.entry(*number).or_default() += 1);
        times
    };
    let (times_logged, times_consumed) = (times_in(&history.log), times_in(&history.consumed));
    let acknowledged = || history.acknowledged.keys().copied();
    let mut reordered = Vec::new();
    let mut latest = None;
    for number in by_offset.values() {
        if latest.is_some_and(|latest| *number < latest) {
            reordered.push(*number);
        }
        latest = latest.max(Some(*number));
    }
    Verdict {
        acknowledged: history.acknowledged.len(),
        refused: history.refused.len(),
        lost: acknowledged().filter(|number| !times_logged.contains_key(number)).collect(),
        duplicated: times_logged.iter().filter(|(_, times)| **times > 1).map(|(number, _)| *number).collect(),
        reordered,
        misplaced: history
            .acknowledged
            .iter()
            .filter(|(number, offset)| by_offset.get(offset) != Some(number))
            .map(|(number, _)| *number)
            .collect(),
        contradicted: history
            .consumed
            .iter()
            .filter(|(offset, number)| by_offset.get(offset) != Some(number))
            .map(|(_, number)| *number)
            .collect(),
        not_consumed_once: acknowledged().filter(|number| times_consumed.get(number) != Some(&1)).collect(),
    }
}

/// One acknowledgement: when it came, and when its record was produced. Milliseconds on one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub at_ms: u64,
    pub produced_ms: u64,
}

/// How long writes paused after a fault at `fault_ms`: the longest time without an acknowledgement until a record that
/// was produced after the fault is acknowledged. `None` if none was.
#[must_use]
pub fn pause_after(fault_ms: u64, acknowledgements: &[Acknowledgement]) -> Option<u64> {
    let mut last = fault_ms;
    let mut longest = 0;
    for acknowledgement in acknowledgements.iter().filter(|acknowledgement| fault_ms < acknowledgement.at_ms) {
        longest = longest.max(acknowledgement.at_ms.saturating_sub(last));
        last = acknowledgement.at_ms;
        if fault_ms < acknowledgement.produced_ms {
            return Some(longest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records 0 to 3, acknowledged, read back and consumed as they should be.
    fn good() -> History {
        let log: Vec<(i64, u64)> = (0..4).map(|number| (number as i64, number)).collect();
        History {
            acknowledged: log.iter().map(|(offset, number)| (*number, *offset)).collect(),
            refused: vec![],
            consumed: log.clone(),
            log,
        }
    }

    fn problems(history: &History) -> Vec<(&'static str, Vec<u64>)> {
        let verdict = judge(history);
        let problems = verdict.problems().into_iter().filter(|(_, numbers)| !numbers.is_empty());
        let problems: Vec<_> = problems.map(|(problem, numbers)| (problem, numbers.to_vec())).collect();
        assert_eq!(verdict.is_good(), problems.is_empty());
        problems
    }

    #[test]
    fn a_history_without_a_fault_is_good() {
        assert_eq!(problems(&good()), []);
    }

    #[test]
    fn an_acknowledged_record_that_is_not_in_the_log_is_lost() {
        let mut history = good();
        history.log.retain(|(_, number)| *number != 2);
        history.consumed.retain(|(_, number)| *number != 2);
        assert_eq!(
            problems(&history),
            [("lost", vec![2]), ("not at their offset", vec![2]), ("not shown to the consumer exactly once", vec![2]),]
        );
    }

    #[test]
    fn a_lost_tail_that_was_overwritten_is_lost() {
        let mut history = good();
        history.log[3] = (3, 4);
        history.acknowledged.insert(4, 3);
        history.consumed.push((3, 4));
        assert_eq!(
            problems(&history),
            [
                ("lost", vec![3]),
                ("not at their offset", vec![3]),
                ("shown to the consumer but not in the log", vec![3]),
            ]
        );
    }

    #[test]
    fn a_record_that_is_there_twice_is_duplicated() {
        let mut history = good();
        history.log.push((4, 3));
        history.consumed.push((4, 3));
        assert_eq!(problems(&history), [("duplicated", vec![3]), ("not shown to the consumer exactly once", vec![3]),]);
    }

    #[test]
    fn a_record_behind_a_later_one_is_out_of_order() {
        let mut history = good();
        history.log = vec![(0, 0), (1, 2), (2, 1), (3, 3)];
        history.acknowledged = BTreeMap::from([(0, 0), (2, 1), (1, 2), (3, 3)]);
        history.consumed = history.log.clone();
        assert_eq!(problems(&history), [("out of order", vec![1])]);
    }

    #[test]
    fn a_consumer_that_was_given_a_record_twice_or_not_at_all_counts() {
        let mut history = good();
        history.consumed = vec![(0, 0), (1, 1), (1, 1), (3, 3)];
        assert_eq!(problems(&history), [("not shown to the consumer exactly once", vec![1, 2])]);
    }

    #[test]
    fn a_refused_record_may_be_there_or_not() {
        let mut history = good();
        history.acknowledged.remove(&3);
        history.refused.push(3);
        assert_eq!(problems(&history), []);
        history.log.pop();
        history.consumed.pop();
        assert_eq!(problems(&history), []);
    }

    #[test]
    fn a_pause_ends_with_the_first_record_produced_after_the_fault() {
        let at = |at_ms, produced_ms| Acknowledgement { at_ms, produced_ms };
        let acknowledgements = [at(90, 80), at(110, 95), at(400, 99), at(405, 150), at(900, 800)];
        assert_eq!(pause_after(100, &acknowledgements), Some(290));
        assert_eq!(pause_after(850, &acknowledgements), None);
    }
}
