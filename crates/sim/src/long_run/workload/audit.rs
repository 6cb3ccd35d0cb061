//! Reads everything that is left once more, partition by partition, when the cluster is whole again.

use std::time::Duration;

use vltava_client::{Client, ClientError};
use vltava_types::Offset;

use super::{Context, now};
use crate::long_run::ledger::{Key, Remains, Seen, Stage};

/// Within this time each partition is read, or it counts as stuck.
const LIMIT: Duration = Duration::from_secs(30);

pub async fn run(context: &Context) {
    let mut client = context.client("auditor");
    let partitions: Vec<Key> = {
        let ledger = context.ledger();
        let all = ledger.partitions.iter();
        all.flat_map(|(topic, count)| (0..*count).map(|partition| (topic.clone(), partition))).collect()
    };
    for key in partitions {
        match tokio::time::timeout(LIMIT, read(context, &mut client, &key)).await {
            Ok(Ok(remains)) => _ = context.ledger().remains.insert(key, remains),
            Ok(Err(error)) => {
                let detail = format!("{}-{} cannot be read: {error}", key.0, key.1);
                context.ledger().violate(now(), "unreadable", detail);
            }
            Err(_) => {
                let detail = format!("{}-{} was not read within {LIMIT:?}", key.0, key.1);
                context.ledger().violate(now(), "stuck-reader", detail);
            }
        }
    }
}

/// Reads one partition or another from its first record to its last while everything goes on: the others have seen what is old
/// long ago.
pub async fn reread(context: Context) {
    let mut random = context.random(6, 0);
    let mut client = context.client("rereader");
    while context.stage() < Stage::Draining {
        tokio::time::sleep(Duration::from_millis(3_000 + random.below(12_000))).await;
        let (topic, partitions) = {
            let topic = &context.plan.topics[random.below(context.plan.topics.len() as u64) as usize].name;
            (topic.clone(), context.ledger().partitions.get(topic).copied().unwrap_or(1))
        };
        let key = (topic, random.below(partitions as u64) as i32);
        // The ledger is told what is found. Whether everything can be read is asked in the end.
        let _ = tokio::time::timeout(LIMIT, read(&context, &mut client, &key)).await;
    }
}

async fn read(context: &Context, client: &mut Client, key: &Key) -> Result<Remains, ClientError> {
    let (topic, partition) = key;
    let mut remains = Remains {
        end_offset: retry(async || client.list_offset(topic, *partition, -1).await).await?.value(),
        log_start_offset: retry(async || client.list_offset(topic, *partition, -2).await).await?.value(),
        ..Remains::default()
    };
    let mut offset = Offset(remains.log_start_offset);
    while offset.value() < remains.end_offset {
        let fetched = match client.fetch(topic, *partition, offset, Duration::from_millis(500)).await {
            Ok(fetched) => fetched,
            // Retention goes on meanwhile.
            Err(ClientError::Refused(vltava_types::ErrorCode::OffsetOutOfRange)) => {
                let start = retry(async || client.list_offset(topic, *partition, -2).await).await?;
                if start <= offset {
                    return Err(ClientError::Refused(vltava_types::ErrorCode::OffsetOutOfRange));
                }
                remains.log_start_offset = start.value();
                remains.records = remains.records.split_off(&start.value());
                offset = start;
                continue;
            }
            Err(error) if error.is_retriable() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        for record in fetched.records {
            let seen = Seen {
                offset: record.offset.value(),
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.clone(),
            };
            if let Some(number) = context.ledger().read("auditor", key, &seen, now()) {
                remains.records.insert(seen.offset, number);
            }
        }
        if fetched.next_offset == offset {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        offset = fetched.next_offset;
    }
    Ok(remains)
}

async fn retry<T>(mut ask: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    loop {
        match ask().await {
            Err(error) if error.is_retriable() => tokio::time::sleep(Duration::from_millis(100)).await,
            outcome => return outcome,
        }
    }
}
