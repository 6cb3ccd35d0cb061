//! `<topic>-<partition>`: the name of a partition's directory, and its key in Kafka's checkpoint files.

use std::fmt;
use std::str::FromStr;

use vltava_types::PartitionIndex;

/// A partition by the name of its topic. Names only files: a deleted and recreated topic has the same one, so whoever
/// opens a directory also compares the topic id in `partition.metadata` (trap 31).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionName {
    pub topic: String,
    pub partition: PartitionIndex,
}

/// Not of the form `<topic>-<partition>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a partition: <topic>-<partition> is expected")]
pub struct ParsePartitionNameError;

impl PartitionName {
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: PartitionIndex) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.topic, self.partition)
    }
}

impl FromStr for PartitionName {
    type Err = ParsePartitionNameError;

    fn from_str(text: &str) -> Result<Self, ParsePartitionNameError> {
        let (topic, partition) = text.rsplit_once('-').ok_or(ParsePartitionNameError)?;
        if topic.is_empty() || !partition.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParsePartitionNameError);
        }
        let partition = partition.parse().map_err(|_| ParsePartitionNameError)?;
        Ok(Self { topic: topic.to_owned(), partition: PartitionIndex(partition) })
    }
}

#[cfg(test)]
mod tests {
    use vltava_types::PartitionIndex;

    use super::PartitionName;

    #[test]
    fn the_last_hyphen_separates_topic_and_partition() {
        assert_eq!("a-b-7".parse(), Ok(PartitionName::new("a-b", PartitionIndex(7))));
        assert_eq!(PartitionName::new("a-b", PartitionIndex(7)).to_string(), "a-b-7");
        for text in ["", "a", "-1", "a-", "a--", "a-x", "a-99999999999", "a-+1"] {
            assert!(text.parse::<PartitionName>().is_err(), "{text}");
        }
    }
}
