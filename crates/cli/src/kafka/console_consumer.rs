//! kafka-console-consumer: shows the records of topics.

use std::io::{self, Write as _};
use std::time::Duration;

use regex::Regex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use vltava_client::{ConsumeError, Consumer, ConsumerConfig, ConsumerRecord, SettingError, Start, TopicPartition};
use vltava_host::random;
use vltava_types::Offset;

use super::Failure;
use super::client_settings::{deprecated, pairs, read, warn_of_unused};
use super::formatters::Formatter;
use super::options::{OptionSpec, Options, flag, value};
use crate::connect;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value("topic", "topic", "The topic to consume."),
    value("include", "Java regex (String)", "The topics to consume, as a regular expression."),
    value("partition", "partition", "The partition to consume; without --offset from its end on."),
    value("offset", "consume offset", "A non-negative number, 'earliest' or 'latest'. (default: latest)"),
    value("consumer-property", "consumer_prop", "(DEPRECATED) As --command-property."),
    value("command-property", "consumer_prop", "name=value, a setting of the consumer."),
    value("consumer.config", "config file", "(DEPRECATED) As --command-config."),
    value("command-config", "config file", "A properties file with settings of the consumer."),
    value(
        "formatter",
        "class",
        "How records are shown. (default: org.apache.kafka.tools.consumer.DefaultMessageFormatter)",
    ),
    value("property", "prop", "(DEPRECATED) As --formatter-property."),
    value(
        "formatter-property",
        "prop",
        "name=value, for showing records: print.timestamp, print.key, print.offset, print.epoch, print.partition, \
         print.headers=false, print.value=true, key.separator=\\t, line.separator=\\n, headers.separator=, \
         null.literal=null, key.deserializer, value.deserializer, headers.deserializer.",
    ),
    value("formatter-config", "config file", "A properties file for showing records."),
    flag("from-beginning", "Where the group has no offset yet, begin with the earliest record."),
    value("max-messages", "num_messages", "Stop after so many records."),
    value("timeout-ms", "timeout_ms", "Stop when no record comes for so long."),
    flag("skip-message-on-error", "Go on after a record that cannot be shown."),
    value("bootstrap-server", "server to connect to", "REQUIRED: The brokers to begin with, host:port, by commas."),
    value("key-deserializer", "deserializer for keys", "(DEPRECATED) As --formatter-property key.deserializer."),
    value("value-deserializer", "deserializer for values", "(DEPRECATED) As --formatter-property value.deserializer."),
    flag("enable-systest-events", "Accepted; events of the system tests are not written."),
    value("isolation-level", "String", "read_committed or read_uncommitted. (default: read_uncommitted)"),
    value("group", "consumer group id", "The group to be a member of."),
];

/// What to read.
#[derive(Debug)]
enum Source {
    Topic(String),
    Matching(Regex),
    Partition(String, i32, Start),
}

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to read data from Kafka topics and outputs it to standard output.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    options.require(&["bootstrap-server"])?;
    deprecated(&options, console, "consumer-property", "command-property")?;
    deprecated(&options, console, "property", "formatter-property")?;
    deprecated(&options, console, "consumer.config", "command-config")?;
    let source = source(&options)?;
    let formatter = formatter(&options)?;
    let config = config(&options, &source, console)?;
    let limit: Option<u64> = options.number::<i64>("max-messages")?.and_then(|limit| u64::try_from(limit).ok());
    let timeout = options.number::<i64>("timeout-ms")?.and_then(|limit| u64::try_from(limit).ok());
    let mut consumer = Consumer::new(config);
    let failed = |error: ConsumeError| Failure::Message(error.to_string());
    match source {
        Source::Topic(topic) => consumer.subscribe([topic]).map_err(failed)?,
        Source::Matching(pattern) => {
            consumer.subscribe_matching(move |topic| matches_whole(&pattern, topic)).map_err(failed)?;
        }
        Source::Partition(topic, partition, start) => {
            consumer.assign([(TopicPartition::new(topic, partition), start)]);
        }
    }
    let mut shown = Shown { formatter, limit, skips_errors: options.has("skip-message-on-error"), count: 0 };
    let outcome = show_records(&mut consumer, timeout.map(Duration::from_millis), &mut shown, console).await;
    let closed = consumer.close().await;
    console.out.flush()?;
    console.complain(format_args!("Processed a total of {} messages", shown.count))?;
    if let Err(error) = closed {
        console.complain(format_args!("WARN cannot commit offsets: {error}"))?;
    }
    outcome
}

/// Records on their way to the output.
struct Shown {
    formatter: Formatter,
    limit: Option<u64>,
    skips_errors: bool,
    count: u64,
}

impl Shown {
    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| limit <= self.count)
    }
}

/// Until the limit, the timeout, an error, a signal, or the end of whoever reads the output.
async fn show_records(
    consumer: &mut Consumer,
    timeout: Option<Duration>,
    shown: &mut Shown,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut last_record = Instant::now();
    while !shown.is_over() {
        let patience = timeout.map_or(Duration::from_secs(1), |timeout| timeout.saturating_sub(last_record.elapsed()));
        let records = tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
            records = consumer.poll(patience) => match records {
                Ok(records) => records,
                Err(error) => {
                    console.complain(format_args!("ERROR Error processing message, terminating consumer process: {error}"))?;
                    return Ok(0);
                }
            },
        };
        if records.is_empty() {
            if let Some(timeout) = timeout.filter(|timeout| *timeout <= last_record.elapsed()) {
                console.complain(format_args!(
                    "ERROR Error processing message, terminating consumer process: no record came for {} ms",
                    timeout.as_millis()
                ))?;
                return Ok(0);
            }
            continue;
        }
        last_record = Instant::now();
        match show(consumer, records, shown, console) {
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                console.complain("Unable to write to standard out, closing consumer.")?;
                return Ok(0);
            }
            outcome => outcome?,
        }
    }
    Ok(0)
}

/// Shows records up to the limit. What is not shown counts as not consumed.
fn show(
    consumer: &mut Consumer,
    records: Vec<ConsumerRecord>,
    shown: &mut Shown,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut outcome = Ok(());
    let mut returned = std::collections::BTreeSet::new();
    for record in records {
        if shown.is_over() || outcome.is_err() {
            let partition = TopicPartition::new(&*record.topic, record.partition);
            if returned.insert((partition.topic.clone(), partition.partition)) {
                consumer.seek(partition, Start::Offset(record.offset));
            }
            continue;
        }
        shown.count += 1;
        if let Err(problem) = shown.formatter.write(&record, &mut text) {
            if shown.skips_errors {
                console.complain(format_args!("ERROR Error processing message, skipping this message: {problem}"))?;
            } else {
                outcome = Err(Failure::Message(problem));
            }
        }
    }
    console.out.write_all(&text)?;
    console.out.flush()?;
    outcome
}

fn matches_whole(pattern: &Regex, topic: &str) -> bool {
    pattern.find(topic).is_some_and(|found| found.range() == (0..topic.len()))
}

fn source(options: &Options) -> Result<Source, Failure> {
    let (topic, include) = (options.value("topic")?, options.value("include")?);
    let partition: Option<i32> = options.number("partition")?;
    if options.has("offset") && partition.is_none() {
        return Err(options.usage("The partition is required when offset is specified."));
    }
    if partition.is_some() && topic.is_none() {
        return Err(options.usage("The topic is required when partition is specified."));
    }
    if options.has("offset") && options.has("from-beginning") {
        return Err(options.usage("from-beginning and offset cannot be specified together."));
    }
    match (topic, include, partition) {
        (Some(topic), None, None) => Ok(Source::Topic(topic.to_owned())),
        (Some(topic), None, Some(partition)) => {
            let start = match options.value("offset")? {
                None if options.has("from-beginning") => Start::Earliest,
                None => Start::Latest,
                Some(offset) => start(offset)?,
            };
            Ok(Source::Partition(topic.to_owned(), partition, start))
        }
        (None, Some(pattern), None) => {
            let pattern = Regex::new(&format!("^(?:{pattern})$"))
                .map_err(|_| Failure::Message(format!("{pattern} is an invalid regex.")))?;
            Ok(Source::Matching(pattern))
        }
        _ => Err(options.usage("Exactly one of --include/--topic is required. ")),
    }
}

fn start(offset: &str) -> Result<Start, Failure> {
    match offset.to_lowercase().as_str() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        number => match number.parse() {
            Ok(number) if number >= 0 => Ok(Start::Offset(Offset(number))),
            _ => Err(Failure::Message(format!(
                "The provided offset value '{offset}' is incorrect. Valid values are 'earliest', 'latest', or a \
                 non-negative long."
            ))),
        },
    }
}

fn formatter(options: &Options) -> Result<Formatter, Failure> {
    let mut properties: Vec<(String, String)> = match options.value("formatter-config")? {
        Some(file) => connect::read_settings(file)?.into_iter().collect(),
        None => vec![],
    };
    properties.extend(pairs(options.values("property").chain(options.values("formatter-property")))?);
    for (option, property) in [("key-deserializer", "key.deserializer"), ("value-deserializer", "value.deserializer")] {
        if let Some(class) = options.value(option)? {
            properties.push((property.to_owned(), class.to_owned()));
        }
    }
    let class = options.value("formatter")?.unwrap_or("DefaultMessageFormatter");
    Formatter::named(class, &properties).map_err(Failure::Message)
}

fn config(options: &Options, source: &Source, console: &mut Console<'_>) -> Result<ConsumerConfig, Failure> {
    let mut settings =
        read(options, &["consumer.config", "command-config"], &["consumer-property", "command-property"])?;
    if let Some(servers) = options.value("bootstrap-server")? {
        settings.set("bootstrap.servers", servers);
    }
    settings.set_default("client.id", "console-consumer");
    settings.set_default("isolation.level", options.value("isolation-level")?.unwrap_or("read_uncommitted"));
    let group = match (options.value("group")?, settings.get("group.id")) {
        (Some(group), Some(other)) if group != other => {
            return Err(Failure::Message(format!(
                "The group ids provided in different places (directly using '--group', via '--consumer-property', or via \
                 '--consumer.config') do not match. Detected group ids: '{group}', '{other}'"
            )));
        }
        (group, other) => group.or(other).map(str::to_owned),
    };
    let is_assigned = matches!(source, Source::Partition(..));
    match group {
        Some(_) if is_assigned => {
            return Err(options.usage("Options group and partition cannot be specified together."));
        }
        Some(group) => settings.set("group.id", group),
        None if is_assigned => {}
        None => {
            // A group of its own, that leaves no trace.
            settings.set("group.id", format!("console-consumer-{}", random::u64() % 100_000));
            settings.set_default("enable.auto.commit", "false");
        }
    }
    if options.has("from-beginning") {
        if let Some(reset) = settings.get("auto.offset.reset").filter(|reset| *reset != "earliest") {
            return Err(Failure::Message(format!(
                "Can't simultaneously specify --from-beginning and 'auto.offset.reset={reset}', please remove one option"
            )));
        }
        settings.set("auto.offset.reset", "earliest");
    }
    let message = |error: SettingError| Failure::Message(error.to_string());
    let config = ConsumerConfig::from_settings(&mut settings).map_err(message)?;
    warn_of_unused(&settings, console)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(line: &str, expected: &Expect) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut out, mut err) = (vec![], vec![]);
        let mut console = Console::into_buffers(&mut out, &mut err);
        let text = Options::parse(OPTIONS, &words).and_then(|options| {
            let source = source(&options)?;
            let config = config(&options, &source, &mut console)?;
            let group = config.group_id.map(|group| group.trim_end_matches(char::is_numeric).to_owned());
            Ok(format!("{source:?} {group:?} {:?} commits={}", config.auto_offset_reset, config.enable_auto_commit))
        });
        let text = text.unwrap_or_else(|failure| failure.to_string());
        expected.assert_eq(text.lines().next().unwrap_or_default());
    }

    #[test]
    fn options_say_what_is_read_and_from_where() {
        let to = |rest: &str| format!("--bootstrap-server a:1 {rest}");
        check(&to("--topic t"), &expect![[r#"Topic("t") Some("console-consumer-") Latest commits=false"#]]);
        check(&to("--topic t --group g --from-beginning"), &expect![[r#"Topic("t") Some("g") Earliest commits=true"#]]);
        check(
            &to("--topic t --partition 1 --offset 5"),
            &expect![[r#"Partition("t", 1, Offset(Offset(5))) None Latest commits=false"#]],
        );
        check(
            &to("--topic t --partition 1 --offset -5"),
            &expect![
                "The provided offset value '-5' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long."
            ],
        );
        check(&to("--topic t --offset 5"), &expect!["The partition is required when offset is specified."]);
        check(
            &to("--include t.*|u --group g"),
            &expect![[r#"Matching(Regex("^(?:t.*|u)$")) Some("g") Latest commits=true"#]],
        );
        check(&to("--topic t --include u"), &expect!["Exactly one of --include/--topic is required. "]);
        check(
            &to("--topic t --group g --consumer-property group.id=h"),
            &expect![
                "The group ids provided in different places (directly using '--group', via '--consumer-property', or via '--consumer.config') do not match. Detected group ids: 'g', 'h'"
            ],
        );
        check(
            &to("--topic t --from-beginning --consumer-property auto.offset.reset=latest"),
            &expect![
                "Can't simultaneously specify --from-beginning and 'auto.offset.reset=latest', please remove one option"
            ],
        );
    }
}
