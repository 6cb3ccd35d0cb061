//! Client settings by Kafka's names.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::Options;

/// A setting that cannot be used. The wording is that of Kafka's `ConfigException`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("Invalid value {value} for configuration {name}: {problem}")]
    Invalid { name: String, value: String, problem: String },
    #[error("Missing required configuration \"{0}\" which has no default value.")]
    Missing(String),
    #[error("{0}")]
    Conflict(String),
}

/// Settings as given, taken out one by one; what is left was not asked for.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    /// Of a name given more than once, the last value counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { values: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl Settings {
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// Sets a value where none was given.
    pub fn set_default(&mut self, name: &str, value: impl Into<String>) {
        self.values.entry(name.to_owned()).or_insert_with(|| value.into());
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The names that nobody took.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// A number of at least `least`.
    pub fn number<T: FromStr + PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        name: &str,
        default: T,
        least: T,
    ) -> Result<T, SettingError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let invalid = |problem: String| SettingError::Invalid { name: name.to_owned(), value: value.clone(), problem };
        let number: T = value.trim().parse().map_err(|_| invalid("Not a number".to_owned()))?;
        if number < least {
            return Err(invalid(format!("Value must be at least {least}")));
        }
        Ok(number)
    }

    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, SettingError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(SettingError::Invalid {
                name: name.to_owned(),
                value,
                problem: "Expected value to be either true or false".to_owned(),
            }),
        }
    }

    pub fn millis(&mut self, name: &str, default: u64) -> Result<Duration, SettingError> {
        Ok(Duration::from_millis(self.number(name, default, 0)?))
    }

    /// One of `choices`.
    pub fn choice<T: Copy>(&mut self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T, SettingError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        match choices.iter().find(|(choice, _)| *choice == value.trim().to_ascii_lowercase()) {
            Some((_, chosen)) => Ok(*chosen),
            None => Err(SettingError::Invalid {
                name: name.to_owned(),
                value,
                problem: format!(
                    "String must be one of: {}",
                    choices.iter().map(|(choice, _)| *choice).collect::<Vec<_>>().join(", ")
                ),
            }),
        }
    }

    /// What every client needs.
    pub(crate) fn connection(&mut self, client_id: &str) -> Result<(String, Options), SettingError> {
        let bootstrap = self
            .take("bootstrap.servers")
            .filter(|servers| !servers.trim().is_empty())
            .ok_or_else(|| SettingError::Missing("bootstrap.servers".to_owned()))?;
        if let Some(protocol) = self.take("security.protocol")
            && !protocol.trim().eq_ignore_ascii_case("PLAINTEXT")
        {
            return Err(SettingError::Conflict(format!(
                "security.protocol={protocol} is not supported yet: only PLAINTEXT is"
            )));
        }
        let options = Options {
            client_id: self.take("client.id").unwrap_or_else(|| client_id.to_owned()),
            connect_timeout: self.millis("socket.connection.setup.timeout.ms", 10_000)?,
            timeout: self.millis("request.timeout.ms", 30_000)?,
            ..Options::default()
        };
        Ok((bootstrap, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_typed_and_mistakes_are_told() {
        let mut settings: Settings = [("a", "5"), ("b", "maybe"), ("c", "-1")].into_iter().collect();
        assert_eq!(settings.number("a", 1, 0), Ok(5));
        assert_eq!(settings.number("a", 1, 0), Ok(1), "taken, so the default counts");
        let problem = settings.flag("b", true).expect_err("not a flag").to_string();
        assert_eq!(problem, "Invalid value maybe for configuration b: Expected value to be either true or false");
        let problem = settings.number("c", 1, 0).expect_err("too small").to_string();
        assert_eq!(problem, "Invalid value -1 for configuration c: Value must be at least 0");
    }
}
