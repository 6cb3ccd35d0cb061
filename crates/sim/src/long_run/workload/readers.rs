//! Consumers that are assigned all partitions of a topic and read them from the first record on.

use std::time::Duration;

use vltava_client::{ConsumeError, Consumer, ConsumerConfig, ConsumerRecord, Start, TopicPartition};

use super::{Context, now};
use crate::long_run::ledger::{Key, Seen, Stage};
use crate::long_run::plan::TopicKind;

pub async fn run(context: Context, index: usize) {
    let topic = context.plan.readers[index].topic;
    let (name, kind) = (context.topic_name(topic), context.plan.topics[topic].kind);
    let mut settings = context.settings(&format!("reader-{index}"));
    // Where nothing is ever deleted, an offset out of range is a broken promise.
    let reset = if matches!(kind, TopicKind::Kept | TopicKind::Compacted) { "none" } else { "earliest" };
    settings.set("auto.offset.reset", reset);
    settings.set("fetch.max.wait.ms", "1000");
    let mut consumer = Consumer::new(ConsumerConfig::from_settings(&mut settings).expect("the settings fit together"));
    let mut assigned = 0;
    while context.stage() < Stage::Auditing {
        let partitions = context.ledger().partitions.get(&name).copied().unwrap_or(1);
        if assigned == 0 {
            consumer.assign((0..partitions).map(|p| (TopicPartition::new(name.clone(), p), Start::Earliest)));
        } else {
            for partition in assigned..partitions {
                consumer.seek(TopicPartition::new(name.clone(), partition), Start::Earliest);
            }
        }
        assigned = partitions;
        let began = now();
        match consumer.poll(Duration::from_millis(500)).await {
            Ok(records) => {
                let mut ledger = context.ledger();
                if !records.is_empty() {
                    ledger.operation("Fetch", began, true);
                }
                for record in &records {
                    ledger.read_in_order(index, &key_of(record), &seen(record), now());
                }
                for (partition, offset) in consumer.positions() {
                    let key = (partition.topic, partition.partition);
                    ledger.readings.entry((index, key)).or_default().position = offset.value();
                }
            }
            Err(ConsumeError::NoOffset(partition)) => {
                let detail = format!("reader {index} finds its offset of {partition} out of range");
                context.ledger().violate(now(), "offset-out-of-range", detail);
                return;
            }
            Err(error) => {
                context.ledger().note(now(), format!("reader {index}: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

pub(super) fn key_of(record: &ConsumerRecord) -> Key {
    (record.topic.to_string(), record.partition)
}

pub(super) fn seen(record: &ConsumerRecord) -> Seen {
    Seen {
        offset: record.offset.value(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}
