//! Names of topics, and patterns for them.

use regex::Regex;

use super::Failure;

/// The topics that Kafka keeps its own state in.
const INTERNAL_TOPICS: &[&str] = &["__consumer_offsets", "__transaction_state", "__share_group_state"];

pub fn is_internal(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

/// A regular expression that must match a whole name; a comma stands for "or".
pub struct Filter(Option<Regex>);

impl Filter {
    /// Without a pattern every name passes.
    pub fn new(pattern: Option<&str>) -> Result<Self, Failure> {
        let Some(pattern) = pattern else { return Ok(Self(None)) };
        let alternatives = pattern.trim().replace(',', "|").replace(' ', "");
        let alternatives = alternatives.trim_matches(|character| character == '"' || character == '\'');
        let anchored = Regex::new(&format!("^(?:{alternatives})$"));
        let bad = |_| Failure::Message(format!("{alternatives} is an invalid regex."));
        Ok(Self(Some(anchored.map_err(bad)?)))
    }

    pub fn allows(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }
}

/// The values that appear more than once.
pub fn repeated<T: Clone + Ord>(values: &[T]) -> Vec<T> {
    let mut sorted = values.to_vec();
    sorted.sort();
    let mut repeated: Vec<T> =
        sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    repeated.dedup();
    repeated
}

#[cfg(test)]
mod tests {
    use super::{Filter, repeated};

    #[test]
    fn patterns_match_whole_names() {
        let allows = |pattern: &str, name: &str| Filter::new(Some(pattern)).expect("a pattern").allows(name);
        assert!(allows("a.*", "abc"));
        assert!(!allows("a", "abc"));
        assert!(allows("a,b", "b"));
        assert!(allows("'a, b'", "b"));
        assert!(Filter::new(None).expect("nothing").allows("x"));
        assert_eq!(Filter::new(Some("(")).err().map(|e| e.to_string()), Some("( is an invalid regex.".to_owned()));
    }

    #[test]
    fn repeated_values_are_named_once() {
        assert_eq!(repeated(&[3, 1, 3, 2, 1, 3]), [1, 3]);
    }
}
