//! What clients were told, held against what the partition holds in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use vltava_types::Offset;

/// An acknowledged value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub value: String,
    pub offset: Offset,
    /// Simulated time of the acknowledgement.
    pub at: Duration,
}

/// One producer's unique values on one partition, and one read of the whole partition after healing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In the order of acknowledgement.
    pub acknowledged: Vec<Acknowledged>,
    /// What a consumer read all the while, as it became visible.
    pub consumed: Vec<(Offset, String)>,
    /// What a consumer read in the end, from the first offset to the high watermark.
    pub read: Vec<(Offset, String)>,
}

/// A broken promise. Names are those of Jepsen's Kafka tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged value is not where it was acknowledged.
    LostWrite { value: String, offset: Offset, found: Option<String> },
    /// A value of an idempotent producer stands at more than one offset.
    Duplicate { value: String, offsets: Vec<Offset> },
    /// A consumer saw a value that is not there in the end.
    LostRead { value: String, offset: Offset, found: Option<String> },
    /// A consumer saw offsets out of order.
    NonmonotonicPoll { earlier: Offset, later: Offset },
    /// A later value was acknowledged at an earlier offset.
    NonmonotonicSend { earlier: String, later: String },
}

impl History {
    /// Every broken promise. Empty is what we want.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let by_offset: BTreeMap<Offset, &String> = self.read.iter().map(|(offset, value)| (*offset, value)).collect();
        let lost = self.acknowledged.iter().filter(|a| by_offset.get(&a.offset) != Some(&&a.value)).map(|a| {
            let found = by_offset.get(&a.offset).map(|value| (*value).clone());
            Violation::LostWrite { value: a.value.clone(), offset: a.offset, found }
        });
        let unread = self.consumed.iter().filter(|(offset, value)| by_offset.get(offset) != Some(&value));
        let unread = unread.map(|(offset, value)| {
            let found = by_offset.get(offset).map(|value| (*value).clone());
            Violation::LostRead { value: value.clone(), offset: *offset, found }
        });
        let backwards = self
            .consumed
            .windows(2)
            .filter(|pair| pair[1].0 <= pair[0].0)
            .map(|pair| Violation::NonmonotonicPoll { earlier: pair[0].0, later: pair[1].0 });
        let mut offsets: BTreeMap<&String, Vec<Offset>> = BTreeMap::new();
        for (offset, value) in &self.read {
            offsets.entry(value).or_default().push(*offset);
        }
        let duplicates = offsets
            .into_iter()
            .filter(|(_, offsets)| offsets.len() > 1)
            .map(|(value, offsets)| Violation::Duplicate { value: value.clone(), offsets });
        let disorder =
            self.acknowledged.windows(2).filter(|pair| pair[1].offset <= pair[0].offset).map(|pair| {
                Violation::NonmonotonicSend { earlier: pair[0].value.clone(), later: pair[1].value.clone() }
            });
        lost.chain(unread).chain(backwards).chain(duplicates).chain(disorder).collect()
    }

    /// The longest time between two acknowledgements.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        self.acknowledged.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(acknowledged: &[(&str, i64)], read: &[&str]) -> Vec<Violation> {
        let acknowledged = acknowledged
            .iter()
            .map(|(value, offset)| Acknowledged {
                value: (*value).to_owned(),
                offset: Offset(*offset),
                at: Duration::ZERO,
            })
            .collect();
        let read = read.iter().enumerate().map(|(at, value)| (Offset(at as i64), (*value).to_owned())).collect();
        History { acknowledged, consumed: vec![], read }.violations()
    }

    #[test]
    fn a_clean_history_has_no_violation() {
        assert_eq!(history(&[("a", 0), ("c", 2)], &["a", "b", "c"]), []);
    }

    #[test]
    fn a_missing_or_changed_value_is_a_lost_write() {
        assert_eq!(
            history(&[("a", 0), ("b", 1)], &["x"]),
            [
                Violation::LostWrite { value: "a".into(), offset: Offset(0), found: Some("x".into()) },
                Violation::LostWrite { value: "b".into(), offset: Offset(1), found: None },
            ]
        );
    }

    #[test]
    fn a_value_at_two_offsets_is_a_duplicate() {
        let offsets = vec![Offset(0), Offset(1)];
        assert_eq!(history(&[("a", 0)], &["a", "a"]), [Violation::Duplicate { value: "a".into(), offsets }]);
    }

    #[test]
    fn a_consumer_must_see_what_stays_in_the_order_in_which_it_stays() {
        let consumed = vec![(Offset(1), "b".to_owned()), (Offset(0), "x".to_owned())];
        let read = vec![(Offset(0), "a".to_owned()), (Offset(1), "b".to_owned())];
        assert_eq!(
            History { acknowledged: vec![], consumed, read }.violations(),
            [
                Violation::LostRead { value: "x".into(), offset: Offset(0), found: Some("a".into()) },
                Violation::NonmonotonicPoll { earlier: Offset(1), later: Offset(0) },
            ]
        );
    }

    #[test]
    fn a_later_send_at_an_earlier_offset_is_disorder() {
        let disorder = Violation::NonmonotonicSend { earlier: "b".into(), later: "a".into() };
        assert_eq!(history(&[("b", 1), ("a", 0)], &["a", "b"]), [disorder]);
    }
}
