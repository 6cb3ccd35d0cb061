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
    /// What a consumer read from the first offset to the high watermark.
    pub read: Vec<(Offset, String)>,
}

/// A broken promise. Names are those of Jepsen's Kafka tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged value is not where it was acknowledged.
    LostWrite { value: String, offset: Offset, found: Option<String> },
    /// A value of an idempotent producer stands at more than one offset.
    Duplicate { value: String, offsets: Vec<Offset> },
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
        lost.chain(duplicates).chain(disorder).collect()
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
        History { acknowledged, read }.violations()
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
    fn a_later_send_at_an_earlier_offset_is_disorder() {
        let disorder = Violation::NonmonotonicSend { earlier: "b".into(), later: "a".into() };
        assert_eq!(history(&[("b", 1), ("a", 0)], &["a", "b"]), [disorder]);
    }
}
