//! `vltava produce`: writes values from the command line, or lines of standard input.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use vltava_client::{ProduceError, Producer, ProducerConfig, ProducerRecord, RecordMetadata};
use vltava_protocol::batch::RecordHeader;

use super::report::Report;
use super::{Common, Outcome};
use crate::console::Console;
use crate::input;

#[derive(Debug, Args)]
pub struct Produce {
    /// The topic to write to. It is created if the cluster is set to.
    topic: String,
    /// The values to write; each line of standard input if none is given.
    values: Vec<String>,
    /// The key of every record.
    #[arg(short, long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// What stands between key and value in each value or line.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header of every record. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The partition; chosen by the key if not given.
    #[arg(short, long)]
    partition: Option<i32>,
    /// Set one setting of the producer by Kafka's name, such as acks=1. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// What became of the records of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    records: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

pub async fn run(arguments: Produce, console: &mut Console<'_>) -> Outcome {
    let headers = arguments.headers.iter().map(|pair| header(pair)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut settings = arguments.common.client_settings(&arguments.settings)?;
    let producer = Producer::new(ProducerConfig::from_settings(&mut settings)?);
    if let Some(name) = settings.names().next() {
        bail!("{name} is not a setting of the producer");
    }
    // Says in plain words if there is no cluster.
    drop(arguments.common.admin().await?);
    let (outcomes, mut told) = mpsc::unbounded_channel();
    let mut written: BTreeMap<i32, Written> = BTreeMap::new();
    let mut lines = arguments.values.is_empty().then(|| input::lines(None));
    let mut values = arguments.values.iter();
    loop {
        let value = match &mut lines {
            None => values.next().map(|value| value.clone().into_bytes()),
            Some(lines) => lines.recv().await.transpose().context("cannot read standard input")?,
        };
        let Some(value) = value else { break };
        let record = record(&arguments, &headers, value)?;
        let outcomes = outcomes.clone();
        let taken = producer.produce(record, move |outcome| {
            // Bounded by the producer's buffer.
            let _ = outcomes.send(outcome);
        });
        taken.await.map_err(|error| anyhow::anyhow!("cannot write to {}: {error}", arguments.topic))?;
        while let Ok(outcome) = told.try_recv() {
            count(&mut written, outcome)?;
        }
    }
    producer.close(Duration::from_secs(150)).await;
    while let Ok(outcome) = told.try_recv() {
        count(&mut written, outcome)?;
    }
    let mut report = Report::new(&["topic", "partition", "records", "first_offset", "last_offset"]);
    for (partition, written) in written {
        let Written { records, first_offset, last_offset } = written;
        report.push(vec![
            json!(arguments.topic),
            json!(partition),
            json!(records),
            json!(first_offset),
            json!(last_offset),
        ]);
    }
    arguments.common.show(&report, console)
}

fn count(written: &mut BTreeMap<i32, Written>, outcome: Result<RecordMetadata, ProduceError>) -> Outcome {
    let metadata = outcome.context("a record was not acknowledged")?;
    let of_partition = written.entry(metadata.partition).or_default();
    of_partition.records += 1;
    let offset = metadata.offset.map(|offset| offset.0);
    of_partition.first_offset = of_partition.first_offset.into_iter().chain(offset).min();
    of_partition.last_offset = of_partition.last_offset.max(offset);
    Ok(())
}

fn header(pair: &str) -> anyhow::Result<RecordHeader> {
    let (name, value) = pair.split_once('=').with_context(|| format!("header {pair:?} is not written NAME=VALUE"))?;
    Ok(RecordHeader { key: name.to_owned().into(), value: Some(value.to_owned().into()) })
}

fn record(arguments: &Produce, headers: &[RecordHeader], value: Vec<u8>) -> anyhow::Result<ProducerRecord> {
    let (key, value) = match &arguments.key_separator {
        None => (arguments.key.clone().map(String::into_bytes), value),
        Some(separator) => {
            let at = value.windows(separator.len().max(1)).position(|window| window == separator.as_bytes());
            let at = at.with_context(|| format!("no {separator:?} in {:?}", String::from_utf8_lossy(&value)))?;
            (Some(value[..at].to_vec()), value[at + separator.len()..].to_vec())
        }
    };
    Ok(ProducerRecord {
        topic: arguments.topic.clone(),
        partition: arguments.partition,
        key: key.map(Into::into),
        value: Some(value.into()),
        headers: headers.to_vec(),
        ..ProducerRecord::default()
    })
}
