//! kafka-producer-perf-test: sends records at full or bounded speed and says how fast they were acknowledged.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vltava_client::{ProduceError, Producer, ProducerConfig, ProducerRecord, SettingError, Settings};
use vltava_host::fs;

use super::Failure;
use super::client_settings::{pairs, warn_of_unused};
use crate::connect;
use crate::console::Console;
use crate::performance::{ProducerFigures, throttle_ms};

const USAGE: &str = "usage: kafka-producer-perf-test
       [-h] [--bootstrap-server BOOTSTRAP-SERVER] --topic TOPIC
       --num-records NUM-RECORDS [--payload-delimiter PAYLOAD-DELIMITER]
       --throughput THROUGHPUT
       [--producer-props PROP-NAME=PROP-VALUE [PROP-NAME=PROP-VALUE ...]]
       [--command-property PROP-NAME=PROP-VALUE [PROP-NAME=PROP-VALUE ...]]
       [--producer.config CONFIG-FILE] [--command-config CONFIG-FILE]
       [--warmup-records WARMUP-RECORDS] [--reporting-interval INTERVAL-MS]
       (--record-size RECORD-SIZE | --payload-file PAYLOAD-FILE |
       --payload-monotonic)";

/// What the command line says.
#[derive(Debug)]
struct Arguments {
    topic: String,
    records: u64,
    warmup_records: u64,
    /// Negative for as fast as possible.
    throughput: f64,
    interval_ms: u64,
    payload: Payload,
    settings: Settings,
}

/// What records carry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Payload {
    /// The same capital letters in each record.
    Random(Bytes),
    /// One of these, at random.
    OneOf(Vec<Bytes>),
    /// The record's number as text.
    Monotonic,
}

/// An acknowledgement: the record's bytes and how long it took, or why there is none.
type Report = (u64, u64, Result<(), ProduceError>);

/// After so many records the sender gets its turn: they share a thread.
const RECORDS_A_TURN: u64 = 64;

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    if arguments.iter().any(|word| word == "-h" || word == "--help") {
        console.line(USAGE)?;
        return Ok(0);
    }
    let mut arguments = parse(arguments)?;
    let config = ProducerConfig::from_settings(&mut arguments.settings)
        .map_err(|error: SettingError| Failure::Message(error.to_string()))?;
    warn_of_unused(&arguments.settings, console)?;
    measure(&arguments, Producer::new(config), console).await?;
    Ok(0)
}

async fn measure(arguments: &Arguments, producer: Producer, console: &mut Console<'_>) -> Result<(), Failure> {
    let Arguments { topic, records, warmup_records, throughput, interval_ms, payload, .. } = arguments;
    // The metadata is no part of what is measured.
    producer.partition_count(topic).await.map_err(|error| Failure::Message(error.to_string()))?;
    let started = Instant::now();
    let now_ms = move || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut figures = ProducerFigures::new("", *records, *interval_ms, 0);
    let mut steady = None;
    let (reports, mut arrived) = mpsc::unbounded_channel::<Report>();
    let mut random = 0_u64;
    let (mut sent, mut counted) = (0_u64, 0_u64);
    let mut count = |report: Report, console: &mut Console<'_>| -> Result<(), Failure> {
        let (bytes, latency_ms, outcome) = report;
        counted += 1;
        match outcome {
            Err(error) => console.complain(format_args!("ERROR Error when sending message: {error}"))?,
            Ok(()) => {
                let line = figures.record(bytes, latency_ms, now_ms());
                // While warming up the windows tell everything, and afterwards what is steady.
                let line = match &mut steady {
                    Some(steady) => ProducerFigures::record(steady, bytes, latency_ms, now_ms()),
                    None => line,
                };
                if let Some(line) = line {
                    console.line(line)?;
                }
            }
        }
        if *warmup_records > 0 && counted == *warmup_records {
            let left = records - warmup_records;
            steady = Some(ProducerFigures::new(" steady state", left, *interval_ms, now_ms()));
        }
        Ok(())
    };
    while sent < *records {
        while let Ok(report) = arrived.try_recv() {
            count(report, console)?;
        }
        let value = match payload {
            Payload::Random(bytes) => bytes.clone(),
            Payload::OneOf(lines) => {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                lines[(random >> 33) as usize % lines.len()].clone()
            }
            Payload::Monotonic => Bytes::from(sent.to_string()),
        };
        let (bytes, begun, reports) = (value.len() as u64, Instant::now(), reports.clone());
        let record = ProducerRecord { topic: topic.clone(), value: Some(value), ..ProducerRecord::default() };
        let sending = producer.produce(record, move |outcome| {
            let latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            // Bounded by the producer's buffer: the loop that fills it also counts.
            let _ = reports.send((bytes, latency_ms, outcome.map(|_| ())));
        });
        if let Err(error) = sending.await {
            count((bytes, 0, Err(error)), console)?;
        }
        sent += 1;
        if sent.is_multiple_of(RECORDS_A_TURN) {
            tokio::task::yield_now().await;
        }
        match throttle_ms(sent, *throughput, now_ms()) {
            0 => {}
            wait => tokio::time::sleep(Duration::from_millis(wait)).await,
        }
    }
    let flushed = producer.flush();
    tokio::pin!(flushed);
    loop {
        tokio::select! {
            biased;
            Some(report) = arrived.recv() => count(report, console)?,
            () = &mut flushed => break,
        }
    }
    while let Ok(report) = arrived.try_recv() {
        count(report, console)?;
    }
    console.line(figures.summary(now_ms()))?;
    if let Some(steady) = steady {
        console.line(steady.summary(now_ms()))?;
    }
    Ok(())
}

fn parse(words: &[String]) -> Result<Arguments, Failure> {
    let refuse = |problem: String| Failure::Message(format!("{USAGE}\nkafka-producer-perf-test: error: {problem}"));
    let mut given: Vec<(&str, String)> = Vec::new();
    let mut properties: Vec<String> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        match name {
            "--producer-props" | "--command-property" => {
                properties.extend(attached);
                while let Some(pair) = words.next_if(|next| !next.starts_with("--")) {
                    properties.push(pair.clone());
                }
            }
            "--payload-monotonic" => given.push((name, String::new())),
            "--print-metrics" => return Err(refuse("--print-metrics is not supported".to_owned())),
            "--transactional-id" | "--transaction-duration-ms" => {
                return Err(refuse(format!("{name} is not supported: there are no transactions yet")));
            }
            "--bootstrap-server"
            | "--topic"
            | "--num-records"
            | "--record-size"
            | "--payload-file"
            | "--throughput"
            | "--payload-delimiter"
            | "--producer.config"
            | "--command-config"
            | "--warmup-records"
            | "--reporting-interval" => {
                let value = match attached {
                    Some(value) => value,
                    None => words
                        .next()
                        .cloned()
                        .ok_or_else(|| refuse(format!("argument {name}: expected one argument")))?,
                };
                given.push((name, value));
            }
            _ => return Err(refuse(format!("unrecognized arguments: '{word}'"))),
        }
    }
    let value = |name: &str| given.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str());
    let required = |name: &str| value(name).ok_or_else(|| refuse(format!("argument {name} is required")));
    let number = |name: &str, text: &str| {
        text.parse::<u64>().map_err(|_| refuse(format!("argument {name}: could not convert '{text}' to a number")))
    };
    let mut settings = Settings::default();
    for file in ["--producer.config", "--command-config"] {
        if let Some(file) = value(file) {
            connect::read_settings(file)?.into_iter().for_each(|(name, value)| settings.set(&name, value));
        }
    }
    for (name, value) in pairs(properties.iter().map(String::as_str))? {
        settings.set(&name, value);
    }
    if let Some(servers) = value("--bootstrap-server") {
        settings.set("bootstrap.servers", servers);
    }
    settings.set_default("client.id", "perf-producer-client");
    if settings.get("bootstrap.servers").is_none() {
        return Err(refuse("At least one of --bootstrap-server, --command-property, --producer-props or --command-config must be specified.".to_owned()));
    }
    let records = number("--num-records", required("--num-records")?)?;
    let throughput = required("--throughput")?;
    let throughput = throughput
        .parse()
        .map_err(|_| refuse(format!("argument --throughput: could not convert '{throughput}' to a number")))?;
    let warmup_records = value("--warmup-records").map_or(Ok(0), |text| number("--warmup-records", text))?;
    if warmup_records >= records.max(1) {
        return Err(refuse("The value for --warmup-records must be strictly fewer than the number of records in the test, --num-records.".to_owned()));
    }
    let payload = match (value("--record-size"), value("--payload-file"), value("--payload-monotonic")) {
        (Some(size), None, None) => {
            let size = number("--record-size", size)?;
            if size == 0 || size > 1024 * 1024 * 1024 {
                return Err(refuse("--record-size should be greater than zero.".to_owned()));
            }
            Payload::Random(letters(size as usize))
        }
        (None, Some(file), None) => {
            let delimiter = value("--payload-delimiter").unwrap_or("\\n").replace("\\n", "\n").replace("\\t", "\t");
            let text = fs::read_to_string(file).map_err(|error| refuse(format!("cannot read {file}: {error}")))?;
            let lines: Vec<Bytes> = text
                .split(&delimiter)
                .filter(|line| !line.is_empty())
                .map(|line| Bytes::copy_from_slice(line.as_bytes()))
                .collect();
            if lines.is_empty() {
                return Err(refuse(format!("File does not exist or empty file provided: {file}")));
            }
            Payload::OneOf(lines)
        }
        (None, None, Some(_)) => Payload::Monotonic,
        _ => {
            return Err(refuse(
                "one of the arguments --record-size --payload-file --payload-monotonic is required".to_owned(),
            ));
        }
    };
    Ok(Arguments {
        topic: required("--topic")?.to_owned(),
        records,
        warmup_records,
        throughput,
        interval_ms: value("--reporting-interval").map_or(Ok(5_000), |text| number("--reporting-interval", text))?,
        payload,
        settings,
    })
}

/// Capital letters, which compress about as badly as those of Kafka's tool.
fn letters(size: usize) -> Bytes {
    let mut state = 0_u64;
    let letter = std::iter::from_fn(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(b'A' + ((state >> 33) % 26) as u8)
    });
    letter.take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words).map_err(|failure| failure.to_string().lines().last().unwrap_or_default().to_owned())
    }

    #[test]
    fn properties_follow_their_option_until_the_next() {
        let arguments = parsed(
            "--topic t --num-records 10 --producer-props bootstrap.servers=a:1 acks=1 --throughput -1 --record-size 5",
        )
        .expect("valid");
        assert_eq!(arguments.settings.get("acks"), Some("1"));
        assert_eq!((arguments.records, arguments.throughput), (10, -1.0));
        assert_eq!(arguments.payload, Payload::Random(letters(5)));
    }

    #[test]
    fn what_is_missing_or_unknown_is_told() {
        let problem = |line: &str| parsed(line).expect_err("refused");
        let base = "--topic t --num-records 10 --throughput -1 --bootstrap-server a:1";
        assert!(
            problem(base)
                .ends_with("one of the arguments --record-size --payload-file --payload-monotonic is required")
        );
        assert!(
            problem("--topic t --throughput 1 --bootstrap-server a:1").ends_with("argument --num-records is required")
        );
        assert!(problem(&format!("{base} --record-size 5 --what")).ends_with("unrecognized arguments: '--what'"));
        assert!(problem(&format!("{base} --record-size 5 --transactional-id x")).contains("not supported"));
    }
}
