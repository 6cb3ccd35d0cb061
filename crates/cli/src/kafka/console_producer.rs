//! kafka-console-producer: sends lines of standard input.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::sync::mpsc;
use vltava_client::{ProduceError, Producer, ProducerConfig, ProducerRecord, Settings};

use super::Failure;
use super::client_settings::{pairs, read, warn_of_unused};
use super::line_reader::LineReader;
use super::options::{OptionSpec, Options, flag, maybe_value, value};
use crate::console::Console;
use crate::{connect, input};

const OPTIONS: &[OptionSpec] = &[
    value("topic", "topic", "REQUIRED: The topic to send to."),
    value("bootstrap-server", "server to connect to", "REQUIRED: The brokers to begin with, host:port, by commas."),
    flag("sync", "Wait for the acknowledgement of each record before the next is sent."),
    maybe_value("compression-codec", "compression-codec", "none, gzip, snappy, lz4 or zstd; gzip if given without."),
    value("batch-size", "size", "batch.size. (default: 16384)"),
    value("message-send-max-retries", "Integer", "retries. (default: 3)"),
    value("retry-backoff-ms", "Long", "retry.backoff.ms. (default: 100)"),
    value("timeout", "timeout_ms", "linger.ms, unless --sync is given. (default: 1000)"),
    value("request-required-acks", "request required acks", "acks: all (-1), 0 or 1. (default: -1)"),
    value("request-timeout-ms", "request timeout ms", "request.timeout.ms. (default: 1500)"),
    value("metadata-expiry-ms", "metadata expiration interval", "metadata.max.age.ms. (default: 300000)"),
    value("max-block-ms", "max block on send", "max.block.ms. (default: 60000)"),
    value("max-memory-bytes", "total memory in bytes", "buffer.memory. (default: 33554432)"),
    value("max-partition-memory-bytes", "memory in bytes per partition", "batch.size by an older name."),
    value("line-reader", "reader_class", "Only org.apache.kafka.tools.LineMessageReader."),
    value("socket-buffer-size", "size", "Accepted; the operating system sizes socket buffers."),
    value("property", "prop", "(DEPRECATED) As --reader-property."),
    value(
        "reader-property",
        "prop",
        "name=value, for reading lines: parse.key=false, key.separator=\\t, parse.headers=false, headers.delimiter=\\t, \
         headers.separator=, headers.key.separator=: null.marker= and ignore.error=false.",
    ),
    value("reader-config", "config file", "A properties file for reading lines."),
    value("producer-property", "producer_prop", "(DEPRECATED) As --command-property."),
    value("command-property", "producer_prop", "name=value, a setting of the producer."),
    value("producer.config", "config file", "(DEPRECATED) As --command-config."),
    value("command-config", "config file", "A properties file with settings of the producer."),
];

/// Options that stand for a setting of the producer, and what Kafka's tool sets where nothing is said.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("timeout", "linger.ms", "1000"),
    ("request-required-acks", "acks", "-1"),
    ("request-timeout-ms", "request.timeout.ms", "1500"),
    ("message-send-max-retries", "retries", "3"),
    ("retry-backoff-ms", "retry.backoff.ms", "100"),
    ("max-memory-bytes", "buffer.memory", "33554432"),
    ("batch-size", "batch.size", "16384"),
    ("metadata-expiry-ms", "metadata.max.age.ms", "300000"),
    ("max-block-ms", "max.block.ms", "60000"),
];

/// The older of two spellings, the newer one, and the release that ends the older one, in the order of Kafka's warnings,
/// whose words differ from those of the other tools.
const OLDER_SPELLINGS: &[(&str, &str, &str)] = &[
    ("producer-property", "command-property", "a future version"),
    ("producer.config", "command-config", "a future version"),
    ("property", "reader-property", "a future version"),
    ("max-partition-memory-bytes", "batch-size", "Apache Kafka 5.0"),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to read data from standard input and publish it to Kafka.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    options.require(&["topic", "bootstrap-server"])?;
    options.conflict("property", &["reader-property"])?;
    options.conflict("producer-property", &["command-property"])?;
    options.conflict("producer.config", &["command-config"])?;
    for (old, new, goes_with) in OLDER_SPELLINGS.iter().filter(|(old, _, _)| options.has(old)) {
        console.line(format_args!(
            "Warning: --{old} is deprecated and will be removed in {goes_with}. Use --{new} instead."
        ))?;
    }
    let reader = reader(&options)?;
    let mut settings = settings(&options)?;
    let message = |error: vltava_client::SettingError| Failure::Message(error.to_string());
    let config = ProducerConfig::from_settings(&mut settings).map_err(message)?;
    warn_of_unused(&settings, console)?;
    let producer = Producer::new(config);
    let outcome = send_lines(&producer, &reader, options.has("sync"), console).await;
    // What was read before an error is sent all the same.
    producer.close(Duration::from_secs(3_600)).await;
    outcome
}

fn reader(options: &Options) -> Result<LineReader, Failure> {
    if let Some(class) = options.value("line-reader")?
        && !matches!(class, "LineMessageReader" | "org.apache.kafka.tools.LineMessageReader")
    {
        return Err(Failure::Message(format!("Could not find class {class}: only LineMessageReader is built in")));
    }
    let mut properties: Vec<(String, String)> = match options.value("reader-config")? {
        Some(file) => connect::read_settings(file)?.into_iter().collect(),
        None => vec![],
    };
    properties.extend(pairs(options.values("property").chain(options.values("reader-property")))?);
    let topic = options.value("topic")?.unwrap_or_default();
    LineReader::new(topic, &properties).map_err(Failure::Message)
}

fn settings(options: &Options) -> Result<Settings, Failure> {
    let mut settings =
        read(options, &["producer.config", "command-config"], &["producer-property", "command-property"])?;
    if let Some(servers) = options.value("bootstrap-server")? {
        settings.set("bootstrap.servers", servers);
    }
    settings.set_default("client.id", "console-producer");
    if options.has("compression-codec") {
        settings.set("compression.type", options.value("compression-codec")?.unwrap_or("gzip"));
    }
    for (option, setting, default) in SETTINGS {
        match options.value(option)? {
            Some(given) => settings.set(setting, given),
            None => settings.set_default(setting, *default),
        }
    }
    if let Some(size) = options.value("max-partition-memory-bytes")? {
        settings.set("batch.size", size);
    }
    if options.has("sync") && options.value("timeout")?.is_none() {
        // Nobody adds to a batch that is waited for.
        settings.set("linger.ms", "0");
    }
    Ok(settings)
}

async fn send_lines(
    producer: &Producer,
    reader: &LineReader,
    is_sync: bool,
    console: &mut Console<'_>,
) -> Result<u8, Failure> {
    let (errors, mut failed) = mpsc::unbounded_channel();
    let prompt = (io::stdin().is_terminal() && io::stdout().is_terminal()).then_some(">");
    let mut next_line = input::lines(prompt);
    let mut number = 0;
    let outcome = loop {
        let line = tokio::select! {
            biased;
            Some(error) = failed.recv() => {
                report(&error, console)?;
                continue;
            }
            line = next_line.recv() => line,
        };
        let line = match line {
            None => break Ok(0),
            Some(Err(error)) => break Err(Failure::Message(format!("cannot read standard input: {error}"))),
            Some(Ok(line)) => line,
        };
        number += 1;
        let record = match reader.read(&line, number) {
            Ok(record) => record,
            Err(problem) => break Err(Failure::Message(problem)),
        };
        let outcome = if is_sync {
            match producer.send(record).await {
                Ok(outcome) => outcome.await.map(|_| ()),
                Err(error) => Err(error),
            }
        } else {
            send(producer, record, errors.clone()).await
        };
        if let Err(error) = outcome {
            report(&error, console)?;
        }
    };
    producer.flush().await;
    while let Ok(error) = failed.try_recv() {
        report(&error, console)?;
    }
    outcome
}

async fn send(
    producer: &Producer,
    record: ProducerRecord,
    errors: mpsc::UnboundedSender<ProduceError>,
) -> Result<(), ProduceError> {
    producer
        .produce(record, move |outcome| {
            if let Err(error) = outcome {
                // Bounded by the producer's buffer: an error stands for a record that was in it.
                let _ = errors.send(error);
            }
        })
        .await
}

fn report(error: &ProduceError, console: &mut Console<'_>) -> Result<(), Failure> {
    Ok(console.complain(format_args!("ERROR Error when sending message: {error}"))?)
}

#[cfg(test)]
mod tests {
    use vltava_client::ProducerConfig;

    use super::{OPTIONS, Options, settings};

    fn config(line: &str) -> Result<ProducerConfig, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let options = Options::parse(OPTIONS, &words).map_err(|failure| failure.to_string())?;
        let mut settings = settings(&options).map_err(|failure| failure.to_string())?;
        ProducerConfig::from_settings(&mut settings).map_err(|error| error.to_string())
    }

    #[test]
    fn options_win_over_properties_and_both_over_the_tool_s_defaults() {
        let base = "--bootstrap-server a:1 --topic t";
        let plain = config(base).expect("valid");
        assert_eq!((plain.linger.as_millis(), plain.retries, plain.acks), (1_000, 3, -1));
        assert!(plain.enable_idempotence);
        let set = config(&format!("{base} --producer-property linger.ms=7 --producer-property acks=1")).expect("valid");
        assert_eq!((set.linger.as_millis(), set.acks), (7, 1));
        let won = config(&format!("{base} --timeout 9 --command-property linger.ms=7")).expect("valid");
        assert_eq!(won.linger.as_millis(), 9);
        let codec = config(&format!("{base} --compression-codec")).expect("valid");
        assert_eq!(codec.compression_type.name(), "gzip");
    }
}
