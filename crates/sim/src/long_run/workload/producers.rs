//! Producers of numbered values.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use vltava_client::{ProduceError, Producer, ProducerConfig, ProducerRecord};

use super::{Context, now};
use crate::long_run::ledger::{Outcome, Stage, Write, headers_of, value_of};
use crate::long_run::plan::ProducerPlan;

/// Records without an outcome; beyond them the producer waits.
const MAX_PENDING: usize = 30;

/// Different keys, so few that compaction has something to do.
const RECORD_KEYS: u64 = 12;

pub async fn run(context: Context, index: usize) {
    let ProducerPlan { topic, acks, is_idempotent, pace, linger, compression } = context.plan.producers[index].clone();
    let topic = context.topic_name(topic);
    let mut settings = context.settings(&format!("producer-{index}"));
    settings.set("acks", acks.to_string());
    settings.set("enable.idempotence", is_idempotent.to_string());
    settings.set("linger.ms", linger.as_millis().to_string());
    settings.set("compression.type", compression);
    settings.set("delivery.timeout.ms", "12000");
    settings.set("max.block.ms", "8000");
    let producer = Producer::new(ProducerConfig::from_settings(&mut settings).expect("the settings fit together"));
    let mut random = context.random(1, index);
    let pending = Arc::new(AtomicUsize::new(0));
    while context.stage() < Stage::Draining {
        let pace_ms = pace.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(1 + random.below(2 * pace_ms))).await;
        if pending.load(Ordering::Relaxed) >= MAX_PENDING || context.stage() >= Stage::Draining {
            continue;
        }
        let partitions = context.ledger().partitions.get(&topic).copied().unwrap_or(1);
        let partition = random.below(partitions as u64) as i32;
        let record_key = format!("key-{}", random.below(RECORD_KEYS));
        let write = Write {
            producer: index,
            key: (topic.clone(), partition),
            record_key: record_key.clone(),
            acks,
            is_idempotent,
            began: now(),
            outcome: Outcome::Pending,
        };
        let number = context.ledger().begin_write(write);
        let record = ProducerRecord {
            topic: topic.clone(),
            partition: Some(partition),
            timestamp: None,
            key: Some(Bytes::from(record_key)),
            value: Some(value_of(number)),
            headers: headers_of(number),
        };
        pending.fetch_add(1, Ordering::Relaxed);
        let report = {
            let (context, pending) = (context.clone(), Arc::clone(&pending));
            move |result: Result<vltava_client::RecordMetadata, ProduceError>| {
                pending.fetch_sub(1, Ordering::Relaxed);
                let outcome = match result {
                    Ok(written) => {
                        Outcome::Acknowledged { offset: written.offset.map(|offset| offset.value()), at: now() }
                    }
                    Err(error) => {
                        context.ledger().note(now(), format!("producer {index}: {number}: {error}"));
                        Outcome::Unknown
                    }
                };
                context.ledger().end_write(number, outcome, now());
            }
        };
        if let Err(error) = producer.produce(record, report).await {
            pending.fetch_sub(1, Ordering::Relaxed);
            let mut ledger = context.ledger();
            ledger.note(now(), format!("producer {index}: {number} not taken in: {error}"));
            ledger.end_write(number, Outcome::Unknown, now());
        }
    }
    producer.close(Duration::from_secs(15)).await;
}
