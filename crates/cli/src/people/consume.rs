//! `vltava consume`: shows records.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use vltava_client::{Consumer, ConsumerConfig, ConsumerRecord, Start, TopicPartition};
use vltava_types::Offset;

use super::report::Format;
use super::{Common, Outcome};
use crate::console::Console;
use crate::performance::date_time;

#[derive(Debug, Args)]
pub struct Consume {
    /// The topic to read.
    topic: String,
    /// Where to begin: beginning, end, or an offset.
    #[arg(long, default_value = "beginning", value_parser = start)]
    from: Start,
    /// Only this partition.
    #[arg(short, long)]
    partition: Option<i32>,
    /// Go on with what comes, until Ctrl-C, instead of stopping at the present end.
    #[arg(short, long)]
    follow: bool,
    /// Stop after so many records.
    #[arg(short = 'n', long)]
    max: Option<u64>,
    /// Read as a member of this group, which keeps its place. Goes on until Ctrl-C.
    #[arg(short, long, conflicts_with_all = ["partition", "follow"])]
    group: Option<String>,
    /// Set one setting of the consumer by Kafka's name. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    common: Common,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "beginning" | "earliest" => Ok(Start::Earliest),
        "end" | "latest" => Ok(Start::Latest),
        number => match number.parse() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(Offset(offset))),
            _ => Err("expected beginning, end or an offset".to_owned()),
        },
    }
}

pub async fn run(arguments: Consume, console: &mut Console<'_>) -> Outcome {
    let mut settings = arguments.common.client_settings(&arguments.settings)?;
    if let Some(group) = &arguments.group {
        settings.set("group.id", group.clone());
        settings.set_default("auto.offset.reset", if arguments.from == Start::Latest { "latest" } else { "earliest" });
    }
    settings.set_default("allow.auto.create.topics", "false");
    let config = ConsumerConfig::from_settings(&mut settings)?;
    if let Some(name) = settings.names().next() {
        bail!("{name} is not a setting of the consumer");
    }
    // Says in plain words if there is no cluster.
    drop(arguments.common.admin().await?);
    let mut consumer = Consumer::new(config);
    let count = consumer.partition_count(&arguments.topic).await?;
    let count = count.with_context(|| format!("topic {} does not exist", arguments.topic))?;
    let ends = match arguments.group {
        Some(_) => {
            consumer.subscribe([arguments.topic.clone()])?;
            None
        }
        None => {
            let partitions: Vec<i32> = match arguments.partition {
                Some(partition) if (0..count).contains(&partition) => vec![partition],
                Some(partition) => {
                    bail!("topic {} has partitions 0 to {}, not {partition}", arguments.topic, count - 1)
                }
                None => (0..count).collect(),
            };
            let assigned = partitions.iter().map(|index| TopicPartition::new(arguments.topic.as_str(), *index));
            let assigned: Vec<_> = assigned.collect();
            let ends = match arguments.follow {
                true => None,
                false => Some(consumer.offsets(&arguments.topic, -1).await?),
            };
            consumer.assign(assigned.iter().map(|partition| (partition.clone(), arguments.from)));
            ends.map(|ends| ends.into_iter().filter(|(partition, _)| assigned.contains(partition)).collect())
        }
    };
    let outcome = show(&arguments, &mut consumer, ends, console).await;
    consumer.close().await?;
    outcome
}

async fn show(
    arguments: &Consume,
    consumer: &mut Consumer,
    ends: Option<BTreeMap<TopicPartition, Offset>>,
    console: &mut Console<'_>,
) -> Outcome {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut shown = 0;
    let is_at_end = |consumer: &Consumer| {
        let positions = consumer.positions();
        let is_there =
            |(partition, end): (&TopicPartition, &Offset)| positions.get(partition).is_some_and(|at| end <= at);
        ends.as_ref().is_some_and(|ends| ends.iter().all(is_there))
    };
    while arguments.max.is_none_or(|max| shown < max) && !is_at_end(consumer) {
        let records = tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            records = consumer.poll(Duration::from_millis(200)) => records?,
        };
        let mut text = String::new();
        for record in records {
            let partition = TopicPartition::new(&*record.topic, record.partition);
            let is_beyond =
                ends.as_ref().is_some_and(|ends| ends.get(&partition).is_some_and(|end| *end <= record.offset));
            if arguments.max.is_some_and(|max| max <= shown) {
                // Not shown, and so not consumed.
                if consumer.positions().get(&partition).is_some_and(|at| record.offset < *at) {
                    consumer.seek(partition, Start::Offset(record.offset));
                }
                continue;
            }
            if !is_beyond {
                shown += 1;
                text.push_str(&line(&record, arguments.common.output, console.colours));
                text.push('\n');
            }
        }
        console.text(text)?;
        console.out.flush()?;
    }
    Ok(())
}

fn line(record: &ConsumerRecord, format: Format, colours: bool) -> String {
    let headers: Vec<Value> =
        record.headers.iter().map(|header| json!([text(&header.key), header.value.as_ref().map(text)])).collect();
    let fields = [
        ("partition", json!(record.partition)),
        ("offset", json!(record.offset.0)),
        ("timestamp", json!(record.timestamp.0)),
        ("key", json!(record.key.as_ref().map(text))),
        ("value", json!(record.value.as_ref().map(text))),
        ("headers", json!(headers)),
    ];
    match format {
        Format::Json => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Format::Yaml => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            format!("- {}", fields.join("\n  "))
        }
        Format::Table => {
            let paint = |style: Style, text: String| if colours { format!("{style}{text}{style:#}") } else { text };
            let place = format!("{}:{}", record.partition, record.offset);
            let mut line = paint(Style::new().dimmed(), format!("{place:<10} {}", date_time(record.timestamp.0)));
            if let Some(key) = &record.key {
                line.push_str(&format!("  {}", paint(Style::new().fg_color(Some(AnsiColor::Cyan.into())), plain(key))));
            }
            let value = record.value.as_ref().map_or_else(|| "(null)".to_owned(), plain);
            line.push_str(&format!("  {value}"));
            for header in &record.headers {
                let value = header.value.as_ref().map_or_else(|| "(null)".to_owned(), plain);
                line.push_str(&paint(Style::new().dimmed(), format!("  {}={value}", plain(&header.key))));
            }
            line
        }
    }
}

/// Text, or bytes in hexadecimal digits where they are no text.
fn text(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("0x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    }
}

/// The same without what would move the cursor of a terminal.
fn plain(bytes: &Bytes) -> String {
    text(bytes).chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::batch::{RecordHeader, TimestampType};
    use vltava_types::{LeaderEpoch, TimestampMs};

    use super::*;

    #[test]
    fn records_are_shown_in_each_format() {
        let record = ConsumerRecord {
            topic: "t".into(),
            partition: 2,
            offset: Offset(7),
            leader_epoch: LeaderEpoch(0),
            timestamp: TimestampMs(1_700_000_000_123),
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"\xff\x01")),
            value: Some(Bytes::from_static(b"a\x1b[31m")),
            headers: vec![RecordHeader { key: "h".into(), value: None }],
        };
        expect![[r#"2:7        2023-11-14 22:13:20:123  0xff01  a�[31m  h=(null)"#]].assert_eq(&line(
            &record,
            Format::Table,
            false,
        ));
        expect![[r#"{"partition": 2, "offset": 7, "timestamp": 1700000000123, "key": "0xff01", "value": "a\u001b[31m", "headers": [["h",null]]}"#]]
            .assert_eq(&line(&record, Format::Json, false));
    }
}
