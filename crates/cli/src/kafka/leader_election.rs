//! kafka-leader-election: elects preferred leaders, or any replica where none is eligible.

use std::collections::BTreeSet;

use vltava_client::admin::{ByPartition, ElectionType, Partition};
use vltava_client::{AdminError, ApiError};
use vltava_types::ErrorCode;

use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, exceptions, json, last_words, names};
use crate::connect::Connection;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value("bootstrap-server", "host:port", "REQUIRED: The brokers to begin with, host:port, by commas."),
    value("admin.config", "config file", "The old name of --command-config."),
    value("command-config", "Config file", "A properties file with settings of the client."),
    value(
        "path-to-json-file",
        "Path to JSON file",
        "A file that lists the partitions: {\"partitions\": [{\"topic\": \"foo\", \"partition\": 1}]}.",
    ),
    value("topic", "topic name", "The topic of --partition."),
    value("partition", "partition id", "The partition, with --topic."),
    flag("all-topic-partitions", "All partitions for which an election makes sense."),
    value(
        "election-type",
        "election type",
        "REQUIRED: preferred, to elect the first replica; unclean, to elect any replica where there is no leader, which \
         may lose records.",
    ),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool attempts to elect a new leader for a set of topic partitions. The type of elections \
                   supported are preferred replicas and unclean replicas.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    check(&options)?;
    let (election, name) = election(options.value("election-type")?.unwrap_or_default())?;
    let partitions = match (options.value("path-to-json-file")?, options.value("topic")?) {
        (Some(file), _) => Some(parse(&json::read_file(file)?).map_err(Failure::Message)?),
        (None, Some(topic)) => Some(vec![(topic.to_owned(), options.number("partition")?.unwrap_or_default())]),
        (None, None) => None,
    };
    if options.has("admin.config") {
        console.line(
            "Option --admin.config has been deprecated and will be removed in a future version. Use --command-config \
             instead.",
        )?;
    }
    let config = options.value("admin.config")?.or(options.value("command-config")?);
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let mut connection = Connection::new(bootstrap, config)?;
    connection.limit = connection.limit.min(std::time::Duration::from_secs(30));
    let mut admin = super::reach(&connection, console).await?;
    let outcomes = match admin.elect_leaders(election, partitions.as_deref()).await {
        Ok(outcomes) => outcomes,
        Err(AdminError::Api(ApiError { code: ErrorCode::RequestTimedOut, .. })) => {
            let message = "Timeout waiting for election results";
            console.line(message)?;
            return Err(Failure::Message(message.to_owned()));
        }
        Err(error) => return Err(Failure::Message(last_words(&error))),
    };
    let (text, failed) = summary(&outcomes, name);
    console.text(text)?;
    match failed {
        0 => Ok(0),
        failed => Err(Failure::Message(format!("{failed} replica(s) could not be elected"))),
    }
}

/// What was elected, and how many partitions failed.
fn summary(outcomes: &ByPartition<()>, election: &str) -> (String, usize) {
    let (mut elected, mut unneeded, mut failed) = (vec![], vec![], vec![]);
    for ((topic, index), outcome) in outcomes {
        let name = format!("{topic}-{index}");
        match outcome {
            Ok(()) => elected.push(name),
            Err(ApiError { code: ErrorCode::ElectionNotNeeded, .. }) => unneeded.push(name),
            Err(error) => failed.push((name, exceptions::full(error))),
        }
    }
    let mut lines = vec![];
    if !elected.is_empty() {
        let elected = elected.join(", ");
        lines.push(format!("Successfully completed leader election ({election}) for partitions {elected}"));
    }
    if !unneeded.is_empty() {
        lines.push(format!("Valid replica already elected for partitions {}", unneeded.join(", ")));
    }
    for (name, error) in &failed {
        lines.push(format!("Error completing leader election ({election}) for partition: {name}: {error}"));
    }
    (lines.into_iter().map(|line| line + "\n").collect(), failed.len())
}

fn election(text: &str) -> Result<(ElectionType, &'static str), Failure> {
    match text.to_ascii_lowercase().as_str() {
        "preferred" => Ok((ElectionType::Preferred, "PREFERRED")),
        "unclean" => Ok((ElectionType::Unclean, "UNCLEAN")),
        _ => Err(Failure::Message(format!("Cannot parse argument '{text}' of option election-type"))),
    }
}

fn parse(text: &str) -> Result<Vec<Partition>, String> {
    let document = json::parse(text).ok_or("Replica election data is empty")?;
    let entries = json::list(&document, "partitions").ok_or("Replica election data is missing \"partitions\" field")?;
    let partitions = entries.iter().map(json::partition).collect::<Result<Vec<_>, _>>()?;
    let repeated = names::repeated(&partitions);
    if !repeated.is_empty() {
        let repeated = repeated.iter().map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>().join(", ");
        return Err(format!("Replica election data contains duplicate partitions: [{repeated}]"));
    }
    Ok(BTreeSet::from_iter(partitions).into_iter().collect())
}

fn check(options: &Options) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::Message(message));
    let missing: Vec<&str> =
        ["bootstrap-server", "election-type"].into_iter().filter(|name| !options.has(name)).collect();
    if !missing.is_empty() {
        return refuse(format!("Missing required option(s): {}", missing.join(", ")));
    }
    options.conflict("admin.config", &["command-config"])?;
    let scopes = ["topic", "all-topic-partitions", "path-to-json-file"];
    if scopes.iter().filter(|name| options.has(name)).count() != 1 {
        return refuse(format!("One and only one of the following options is required: {}", scopes.join(", ")));
    }
    match (options.has("topic"), options.has("partition")) {
        (true, false) => refuse("Missing required option(s): partition".to_owned()),
        (false, true) => refuse("Option partition is only allowed if topic is used".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use vltava_client::ApiError;
    use vltava_types::ErrorCode;

    use super::{parse, summary};

    #[test]
    fn outcomes_are_summed_up() {
        let error = |code| Err(ApiError { code, message: None });
        let outcomes = BTreeMap::from([
            (("t".to_owned(), 0), Ok(())),
            (("t".to_owned(), 1), Ok(())),
            (("t".to_owned(), 2), error(ErrorCode::ElectionNotNeeded)),
            (("u".to_owned(), 0), error(ErrorCode::PreferredLeaderNotAvailable)),
        ]);
        let (text, failed) = summary(&outcomes, "PREFERRED");
        assert_eq!(failed, 1);
        expect![[r#"
            Successfully completed leader election (PREFERRED) for partitions t-0, t-1
            Valid replica already elected for partitions t-2
            Error completing leader election (PREFERRED) for partition: u-0: org.apache.kafka.common.errors.PreferredLeaderNotAvailableException: The preferred leader was not available.
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn files_list_partitions_once() {
        assert_eq!(parse(r#"{"partitions": [{"topic": "t", "partition": 1}]}"#), Ok(vec![("t".to_owned(), 1)]));
        let twice = r#"{"partitions": [{"topic": "t", "partition": 1}, {"topic": "t", "partition": 1}]}"#;
        assert_eq!(parse(twice), Err("Replica election data contains duplicate partitions: [t-1]".to_owned()));
        assert!(parse("{}").is_err());
    }
}
