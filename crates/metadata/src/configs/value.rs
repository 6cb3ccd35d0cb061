//! Reading values as Kafka's `ConfigDef` reads them, with its messages.

use super::define::{ConfigDef, ConfigType, Valid};

/// A value that has been read and found valid.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    Boolean(bool),
    /// Int, short and long.
    Number(i64),
    Double(f64),
    /// String, class and password.
    Text(String),
    List(Vec<String>),
}

/// Why a config cannot be set.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("Invalid value {value} for configuration {name}: {problem}")]
    InvalidValue { name: &'static str, value: String, problem: String },
    #[error("Unknown topic config name: {name}")]
    UnknownTopicConfig { name: String },
    #[error("Unknown group config name: {name}")]
    UnknownGroupConfig { name: String },
    #[error("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})")]
    CompactionLags { min: i64, max: i64 },
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    NoTieredStorage,
}

impl ConfigDef {
    /// Reads and checks a value.
    pub fn parse(&self, text: &str) -> Result<ConfigValue, InvalidConfig> {
        // Kafka prints lists in brackets here, and never prints a secret.
        let invalid = |problem: String| InvalidConfig::InvalidValue {
            name: self.name,
            value: if self.is_sensitive() { "[hidden]".to_owned() } else { text.to_owned() },
            problem,
        };
        let trimmed = text.trim();
        let value = match self.config_type {
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("true") => ConfigValue::Boolean(true),
            ConfigType::Boolean if trimmed.eq_ignore_ascii_case("false") => ConfigValue::Boolean(false),
            ConfigType::Boolean => {
                return Err(invalid("Expected value to be either true or false".to_owned()));
            }
            ConfigType::Int => number::<i32>(trimmed).ok_or_else(|| invalid(not_a_number("INT")))?,
            ConfigType::Short => number::<i16>(trimmed).ok_or_else(|| invalid(not_a_number("SHORT")))?,
            ConfigType::Long => number::<i64>(trimmed).ok_or_else(|| invalid(not_a_number("LONG")))?,
            ConfigType::Double => match trimmed.parse() {
                Ok(number) => ConfigValue::Double(number),
                Err(_) => return Err(invalid(not_a_number("DOUBLE"))),
            },
            ConfigType::String | ConfigType::Class => ConfigValue::Text(trimmed.to_owned()),
            ConfigType::Password => ConfigValue::Text(text.to_owned()),
            ConfigType::List => ConfigValue::List(split_list(trimmed)),
        };
        match self.valid.check(&value) {
            Ok(()) => Ok(value),
            Err(problem) => Err(invalid(problem)),
        }
    }
}

/// The elements of a list value, as Kafka splits it.
#[must_use]
pub fn split_list(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.is_empty() {
        return vec![];
    }
    text.split(',').map(|element| element.trim().to_owned()).collect()
}

fn number<T: std::str::FromStr + Into<i64>>(text: &str) -> Option<ConfigValue> {
    // Java's parsers take a leading plus sign, as Rust's do.
    text.parse::<T>().ok().map(|number| ConfigValue::Number(number.into()))
}

fn not_a_number(config_type: &str) -> String {
    format!("Not a number of type {config_type}")
}

impl Valid {
    fn check(&self, value: &ConfigValue) -> Result<(), String> {
        match (self, value) {
            (Self::Any, _) => Ok(()),
            (Self::AtLeast(least), ConfigValue::Number(number)) => at_least(*least, *number),
            (Self::Between(least, most), ConfigValue::Number(number)) => {
                at_least(*least, *number)?;
                if number > most {
                    return Err(format!("Value must be no more than {most}"));
                }
                Ok(())
            }
            (Self::BetweenOr(least, most, special), ConfigValue::Number(number)) => {
                if number == special || (least..=most).contains(&number) {
                    return Ok(());
                }
                Err(format!("Value must be between {least} and {most} or equal to {special}"))
            }
            (Self::Fraction(least, most), ConfigValue::Double(number)) => {
                if number < least {
                    return Err(format!("Value must be at least {least}"));
                }
                if number > most {
                    return Err(format!("Value must be no more than {most}"));
                }
                // Not a number is neither.
                if number.is_nan() { Err("Value must be a number".to_owned()) } else { Ok(()) }
            }
            (Self::OneOf(values), ConfigValue::Text(text)) => one_of(values, text),
            (Self::ListOf(values), ConfigValue::List(list)) => {
                for (index, element) in list.iter().enumerate() {
                    one_of(values, element)?;
                    if list[..index].contains(element) {
                        return Err("Configuration must not contain duplicate values".to_owned());
                    }
                }
                Ok(())
            }
            (Self::NotEmpty, ConfigValue::List(list)) if list.is_empty() => Err("List must not be empty".to_owned()),
            (Self::NotEmpty, ConfigValue::Text(text)) if text.is_empty() => Err("String must be non-empty".to_owned()),
            (Self::NotEmpty, _) => Ok(()),
            (Self::ThrottledReplicas, ConfigValue::List(list)) => throttled_replicas(list),
            (_, value) => unreachable!("the table gives a check of another type: {self:?} for {value:?}"),
        }
    }
}

fn at_least(least: i64, number: i64) -> Result<(), String> {
    if number < least { Err(format!("Value must be at least {least}")) } else { Ok(()) }
}

fn one_of(values: &[&str], text: &str) -> Result<(), String> {
    if values.contains(&text) { Ok(()) } else { Err(format!("String must be one of: {}", values.join(", "))) }
}

fn throttled_replicas(list: &[String]) -> Result<(), String> {
    let is_pair = |element: &String| {
        element.split_once(':').is_some_and(|(partition, broker)| {
            [partition, broker].iter().all(|id| !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit()))
        })
    };
    if list == ["*"] || list.iter().all(is_pair) {
        return Ok(());
    }
    Err("must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        .to_owned())
}
