//! kafka-consumer-perf-test: reads records at full speed and says how fast.

use std::time::Duration;

use regex::Regex;
use tokio::time::Instant;
use vltava_client::{ConsumeError, Consumer, ConsumerConfig, SettingError};
use vltava_host::{clock, random};

use super::Failure;
use super::client_settings::{deprecated, read, warn_of_unused};
use super::options::{OptionSpec, Options, flag, value};
use crate::console::Console;
use crate::performance::{CONSUMER_COLUMNS, ConsumerFigures, date_time};

const OPTIONS: &[OptionSpec] = &[
    value("bootstrap-server", "server to connect to", "REQUIRED: The brokers to begin with, host:port, by commas."),
    value("topic", "topic", "The topic to consume from."),
    value("include", "Java regex (String)", "The topics to consume, as a regular expression."),
    value("group", "gid", "The group to consume as. (default: perf-consumer- and a number)"),
    value("fetch-size", "size", "max.partition.fetch.bytes. (default: 1048576)"),
    value("command-property", "prop1=val1", "name=value, a setting of the consumer."),
    flag("from-latest", "Where the group has no offset yet, begin with the latest record and not the earliest."),
    value("socket-buffer-size", "size", "Accepted; the operating system sizes socket buffers."),
    value("consumer.config", "config file", "(DEPRECATED) As --command-config."),
    value("command-config", "config file", "A properties file with settings of the consumer."),
    flag("print-metrics", "Not supported."),
    flag("show-detailed-stats", "A line for each reporting interval."),
    value("timeout", "milliseconds", "The longest time between two records. (default: 10000)"),
    value("messages", "count", "(DEPRECATED) As --num-records."),
    value("num-records", "count", "REQUIRED: How many records to consume."),
    value("reporting-interval", "interval_ms", "Milliseconds between reports. (default: 5000)"),
    value("date-format", "date format", "Only yyyy-MM-dd HH:mm:ss:SSS, the default."),
    flag("hide-header", "Leave out the line with the names of the columns."),
];

const DATE_FORMAT: &str = "yyyy-MM-dd HH:mm:ss:SSS";

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool is used to verify the consumer performance.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    options.require(&["bootstrap-server"])?;
    deprecated(&options, console, "messages", "num-records")?;
    deprecated(&options, console, "consumer.config", "command-config")?;
    if options.has("print-metrics") {
        return Err(options.usage("--print-metrics is not supported"));
    }
    if options.value("date-format")?.is_some_and(|format| format != DATE_FORMAT) {
        return Err(options.usage(&format!("only {DATE_FORMAT} is supported as --date-format")));
    }
    let wanted: u64 = match (options.number("num-records")?, options.number("messages")?) {
        (Some(count), _) | (None, Some(count)) => count,
        (None, None) => return Err(options.usage("Missing required argument \"[num-records]\"")),
    };
    let timeout = Duration::from_millis(options.number("timeout")?.unwrap_or(10_000));
    let interval = Duration::from_millis(options.number("reporting-interval")?.unwrap_or(5_000));
    if interval.is_zero() {
        return Err(options.usage("Reporting interval must be greater than 0."));
    }
    let mut consumer = Consumer::new(config(&options, console)?);
    let failed = |error: ConsumeError| Failure::Message(error.to_string());
    match (options.value("topic")?, options.value("include")?) {
        (Some(topic), None) => consumer.subscribe([topic]).map_err(failed)?,
        (None, Some(pattern)) => {
            let regex = Regex::new(&format!("^(?:{pattern})$"))
                .map_err(|_| Failure::Message(format!("{pattern} is an invalid regex.")))?;
            consumer.subscribe_matching(move |topic| regex.is_match(topic)).map_err(failed)?;
        }
        _ => return Err(options.usage("Exactly one of the following arguments is required: --topic, --include")),
    }
    let is_detailed = options.has("show-detailed-stats");
    if !options.has("hide-header") {
        let first = if is_detailed { "time, threadId" } else { "start.time, end.time" };
        console.line(format_args!("{first}, {CONSUMER_COLUMNS}"))?;
    }
    let started_at = clock::now();
    let started = Instant::now();
    let mut report = Report { last: ConsumerFigures::default(), last_rebalance_ms: 0, last_at: started };
    let mut figures = ConsumerFigures::default();
    let mut last_record = started;
    while figures.records < wanted {
        let records = consumer.poll(Duration::from_millis(100)).await.map_err(failed)?;
        if !records.is_empty() {
            last_record = Instant::now();
        } else if timeout <= last_record.elapsed() {
            console.line(format_args!(
                "WARNING: Exiting before consuming the expected number of records: timeout ({} ms) exceeded. You can use \
                 the --timeout option to increase the timeout.",
                timeout.as_millis()
            ))?;
            break;
        }
        for record in &records {
            figures.records += 1;
            figures.bytes +=
                [&record.key, &record.value].into_iter().flatten().map(|bytes| bytes.len() as u64).sum::<u64>();
        }
        if is_detailed && interval <= report.last_at.elapsed() {
            let row = report.next(figures, rebalance_ms(&consumer));
            console.line(format_args!("{}, 0, {row}", date_time(clock::now().0)))?;
        }
    }
    let (ended_at, elapsed_ms) = (clock::now(), millis(started.elapsed()));
    let rebalance_ms = rebalance_ms(&consumer);
    if !is_detailed {
        let row = figures.row(&ConsumerFigures::default(), elapsed_ms, rebalance_ms);
        console.line(format_args!("{}, {}, {row}", date_time(started_at.0), date_time(ended_at.0)))?;
    }
    consumer.close().await.map_err(failed)?;
    Ok(0)
}

/// What was told last.
struct Report {
    last: ConsumerFigures,
    last_rebalance_ms: u64,
    last_at: Instant,
}

impl Report {
    fn next(&mut self, figures: ConsumerFigures, rebalance_ms: u64) -> String {
        let row = figures.row(&self.last, millis(self.last_at.elapsed()), rebalance_ms - self.last_rebalance_ms);
        *self = Self { last: figures, last_rebalance_ms: rebalance_ms, last_at: Instant::now() };
        row
    }
}

fn rebalance_ms(consumer: &Consumer) -> u64 {
    consumer.rebalance_times().iter().map(|time| millis(*time)).sum()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn config(options: &Options, console: &mut Console<'_>) -> Result<ConsumerConfig, Failure> {
    let mut settings = read(options, &["consumer.config", "command-config"], &["command-property"])?;
    if let Some(servers) = options.value("bootstrap-server")? {
        settings.set("bootstrap.servers", servers);
    }
    match options.value("group")? {
        Some(group) => settings.set("group.id", group),
        None => settings.set_default("group.id", format!("perf-consumer-{}", random::u64() % 100_000)),
    }
    settings.set_default("client.id", "perf-consumer-client");
    settings.set("max.partition.fetch.bytes", options.value("fetch-size")?.unwrap_or("1048576"));
    settings.set("auto.offset.reset", if options.has("from-latest") { "latest" } else { "earliest" });
    let message = |error: SettingError| Failure::Message(error.to_string());
    let config = ConsumerConfig::from_settings(&mut settings).map_err(message)?;
    warn_of_unused(&settings, console)?;
    Ok(config)
}
