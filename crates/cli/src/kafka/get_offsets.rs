//! kafka-get-offsets: the offsets of partitions at a time or place.

use std::collections::BTreeMap;

use vltava_client::admin::{
    EARLIEST, EARLIEST_LOCAL, EARLIEST_PENDING_UPLOAD, LATEST, LATEST_TIERED, MAX_TIMESTAMP, Partition,
};

use super::names::{Filter, is_internal};
use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, exceptions, last_words};
use crate::connect::Connection;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value("bootstrap-server", "HOST1:PORT1,...,HOST3:PORT3", "REQUIRED: The brokers to begin with."),
    value("broker-list", "HOST1:PORT1,...,HOST3:PORT3", "The old name of --bootstrap-server."),
    value(
        "topic-partitions",
        "topic1:1,topic2:0-3,topic3,topic4:5-,topic5:-3",
        "Patterns of topics, each with a partition or a range of partitions; the end of a range is exclusive.",
    ),
    value("topic", "topic", "The topic; a regular expression. All topics if not given."),
    value("partitions", "partition ids", "The partitions, separated by commas. All if not given."),
    value(
        "time",
        "<timestamp> / -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or earliest-local / -5 or latest-tiered \
         / -6 or earliest-pending-upload",
        "The offset of the first record since a time in milliseconds, or a place (default: latest).",
    ),
    value("command-config", "config file", "A properties file with settings of the client."),
    flag("exclude-internal-topics", "Without internal topics."),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    if let Some(code) = options.help_or_version(console, "An interactive shell for getting topic-partition offsets.")? {
        return Ok(code);
    }
    if !options.has("broker-list") {
        options.require(&["bootstrap-server"])?;
    }
    match get(&options, console).await {
        Ok(()) => Ok(0),
        Err(Failure::Message(message)) => Err(Failure::Message(format!("Error occurred: {message}"))),
        Err(failure) => Err(failure),
    }
}

async fn get(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let bootstrap = match options.value("bootstrap-server")? {
        Some(bootstrap) => bootstrap,
        None => options.value("broker-list")?.unwrap_or_default(),
    };
    if options.has("topic-partitions") && (options.has("topic") || options.has("partitions")) {
        let message = "--topic-partitions cannot be used with --topic or --partitions";
        return Err(Failure::Message(message.to_owned()));
    }
    let timestamp = timestamp(options.value("time")?.unwrap_or("latest"))?;
    let rules = match options.value("topic-partitions")? {
        Some(patterns) => patterns.split(',').map(Rule::parse).collect::<Result<Vec<_>, _>>()?,
        None => vec![Rule::of(options.value("topic")?, options.value("partitions")?)?],
    };
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    let mut admin = super::reach(&connection, console).await?;
    let failed = |error| Failure::Message(last_words(&error));
    let mut wanted: BTreeMap<Partition, i64> = BTreeMap::new();
    for topic in admin.topics(None).await.map_err(failed)? {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        if options.has("exclude-internal-topics") && is_internal(&name) {
            continue;
        }
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let allowed = indexes.filter(|index| rules.iter().any(|rule| rule.allows(&name, *index)));
        wanted.extend(allowed.map(|index| ((name.clone(), index), timestamp)));
    }
    if wanted.is_empty() {
        let message = "Could not match any topic-partitions with the specified filters";
        return Err(Failure::Message(message.to_owned()));
    }
    let mut lines = vec![];
    for ((topic, index), offset) in admin.list_offsets(&wanted).await.map_err(failed)? {
        match offset {
            // There is no such offset.
            Ok(-1) => {}
            Ok(offset) => lines.push((format!("{topic}-{index}"), format!("{topic}:{index}:{offset}"))),
            Err(error) => console.complain(format_args!(
                "Skip getting offsets for topic-partition {topic}-{index} due to error: {}",
                exceptions::full(&error)
            ))?,
        }
    }
    // By name as text: partition 10 stands before partition 2.
    lines.sort();
    for (_, line) in lines {
        console.line(line)?;
    }
    Ok(())
}

/// Which partitions of which topics.
struct Rule {
    topics: Filter,
    partitions: Partitions,
}

#[derive(Debug, PartialEq, Eq)]
enum Partitions {
    /// All if empty.
    These(Vec<i32>),
    Range(i32, i32),
}

impl Rule {
    fn of(topic: Option<&str>, partitions: Option<&str>) -> Result<Self, Failure> {
        let text = partitions.unwrap_or_default();
        let indexes = text.split(',').filter(|_| !text.is_empty()).map(str::parse).collect::<Result<_, _>>();
        let partitions = indexes.map(Partitions::These).map_err(|_| {
            Failure::Message(format!(
                "--partitions expects a comma separated list of numeric partition ids, but received: {text}"
            ))
        })?;
        Ok(Self { topics: Filter::new(topic)?, partitions })
    }

    /// `topic`, `topic:1`, `topic:0-3`, `topic:5-`, `topic:-3` or the same without a topic.
    fn parse(text: &str) -> Result<Self, Failure> {
        let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
        let bad = || Failure::Message(format!("Invalid rule specification: {text}"));
        let number = |digits: &str, default: i32| match digits {
            "" => Ok(default),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| bad()),
            _ => Err(bad()),
        };
        let partitions = match partitions.split_once('-') {
            Some((first, end)) => Partitions::Range(number(first, 0)?, number(end, i32::MAX)?),
            None if partitions.is_empty() => Partitions::These(vec![]),
            None => Partitions::These(vec![number(partitions, 0)?]),
        };
        Ok(Self { topics: Filter::new((!topic.is_empty()).then_some(topic))?, partitions })
    }

    fn allows(&self, topic: &str, index: i32) -> bool {
        let is_allowed = match &self.partitions {
            Partitions::These(indexes) => indexes.is_empty() || indexes.contains(&index),
            Partitions::Range(first, end) => *first <= index && index < *end,
        };
        is_allowed && self.topics.allows(topic)
    }
}

fn timestamp(text: &str) -> Result<i64, Failure> {
    Ok(match text {
        "latest" => LATEST,
        "earliest" => EARLIEST,
        "max-timestamp" => MAX_TIMESTAMP,
        "earliest-local" => EARLIEST_LOCAL,
        "latest-tiered" => LATEST_TIERED,
        "earliest-pending-upload" => EARLIEST_PENDING_UPLOAD,
        other => other.parse().map_err(|_| {
            Failure::Message(format!(
                "Malformed time argument {other}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or \
                 earliest-local / -5 or latest-tiered / -6 or earliest-pending-upload, or a specified long format timestamp"
            ))
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Partitions, Rule, timestamp};

    #[test]
    fn rules_name_partitions_or_ranges() {
        let partitions = |text: &str| Rule::parse(text).ok().map(|rule| rule.partitions);
        assert_eq!(partitions("t"), Some(Partitions::These(vec![])));
        assert_eq!(partitions("t:1"), Some(Partitions::These(vec![1])));
        assert_eq!(partitions("t:0-3"), Some(Partitions::Range(0, 3)));
        assert_eq!(partitions("t:5-"), Some(Partitions::Range(5, i32::MAX)));
        assert_eq!(partitions(":-3"), Some(Partitions::Range(0, 3)));
        assert_eq!(partitions("t:x"), None);
        assert_eq!(partitions("t:1:2"), None);
        let rule = Rule::parse("t.*:0-3").expect("a rule");
        assert!(rule.allows("tt", 2) && !rule.allows("tt", 3) && !rule.allows("u", 0));
    }

    #[test]
    fn places_have_names_and_numbers() {
        assert_eq!(timestamp("latest").ok(), Some(-1));
        assert_eq!(timestamp("-2").ok(), Some(-2));
        assert_eq!(timestamp("1700000000000").ok(), Some(1_700_000_000_000));
        assert!(timestamp("soon").is_err());
    }
}
