//! Typed access to properties that notes problems instead of stopping at the first.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use vltava_metadata::configs;

pub(super) struct Reader<'a> {
    properties: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(properties: &'a BTreeMap<String, String>) -> Self {
        Self { properties, problems: Vec::new() }
    }

    /// The problems and the warnings, one line each. Names and values are held against the table of all configs here,
    /// which also covers those that are read later and elsewhere, such as the defaults of topics.
    pub(super) fn finish(mut self) -> (Vec<String>, Vec<String>) {
        let mut warnings = Vec::new();
        for (name, value) in self.properties {
            let Some(config) = configs::broker_config(name) else {
                let nearest = configs::nearest_broker_config(name);
                let suggestion = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
                self.problem(format!("{name} is no setting of Kafka's or of Vltava's{suggestion}"));
                continue;
            };
            if !config.is_honoured {
                warnings.push(format!("{name} is a setting of Kafka's that is not honoured yet: it has no effect"));
            } else if !self.problems.iter().any(|problem| problem.starts_with(name.as_str()))
                && let Err(error) = config.parse(value.trim())
            {
                self.problem(error.to_string());
            }
        }
        (self.problems, warnings)
    }

    pub(super) fn problem(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// What is read here must be told as honoured there.
    fn honours(name: &str) {
        debug_assert!(configs::broker_config(name).is_some_and(|config| config.is_honoured), "{name} is honoured");
    }

    /// The value as written, without noting the name.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.properties.get(name).map(|value| value.trim())
    }

    /// A value that is not empty.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        Self::honours(name);
        self.raw(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// A comma-separated list, without empty elements.
    pub(super) fn list(&mut self, name: &str, default: &str) -> Vec<String> {
        Self::honours(name);
        let text = self.raw(name).unwrap_or(default);
        text.split(',').map(str::trim).filter(|element| !element.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn boolean(&mut self, name: &str, default: bool) -> bool {
        Self::honours(name);
        match self.raw(name) {
            None => default,
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) if text.eq_ignore_ascii_case("false") => false,
            Some(text) => {
                self.problem(format!("{name} has {text:?}; it must be true or false"));
                default
            }
        }
    }

    pub(super) fn int(&mut self, name: &str, default: i32) -> i32 {
        self.number(name, default)
    }

    pub(super) fn short(&mut self, name: &str, default: i16) -> i16 {
        self.number(name, default)
    }

    pub(super) fn long(&mut self, name: &str, default: i64) -> i64 {
        self.number(name, default)
    }

    /// A count or a number of bytes: positive, and at most what Kafka's own type holds.
    pub(super) fn size(&mut self, name: &str, default: i32) -> usize {
        let value = self.number(name, default);
        match usize::try_from(value) {
            Ok(size) if size > 0 => size,
            _ => {
                self.problem(format!("{name} has {value}; it must be at least 1"));
                usize::try_from(default).expect("defaults are positive")
            }
        }
    }

    pub(super) fn millis(&mut self, name: &str, default: i64) -> Duration {
        self.time(name, default, 1)
    }

    /// Milliseconds, where a negative number means never.
    pub(super) fn millis_or_never(&mut self, name: &str, default: i64) -> Option<Duration> {
        match self.number(name, default) {
            value if value < 0 => None,
            value => Some(Duration::from_millis(value.unsigned_abs())),
        }
    }

    pub(super) fn seconds(&mut self, name: &str, default: i64) -> Duration {
        self.time(name, default, 1_000)
    }

    pub(super) fn minutes(&mut self, name: &str, default: i64) -> Duration {
        self.time(name, default, 60_000)
    }

    fn time(&mut self, name: &str, default: i64, unit_ms: u64) -> Duration {
        let value = self.number(name, default);
        if value < 0 {
            self.problem(format!("{name} has {value}; it must not be negative"));
        }
        Duration::from_millis(value.max(0).unsigned_abs().saturating_mul(unit_ms))
    }

    fn number<T: FromStr>(&mut self, name: &str, default: T) -> T {
        Self::honours(name);
        let Some(text) = self.raw(name) else { return default };
        if let Ok(value) = text.parse() {
            return value;
        }
        let what = if text.parse::<i128>().is_ok() { "which is out of range" } else { "which is not a whole number" };
        self.problem(format!("{name} has {text:?}, {what}"));
        default
    }
}
