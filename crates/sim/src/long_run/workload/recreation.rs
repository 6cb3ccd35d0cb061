//! One topic that is created, written, read, deleted, and created again under the same name: nothing of an earlier life
//! may ever be seen in a later one (trap 31).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use vltava_client::{Client, ClientError};
use vltava_protocol::batch::{self, BatchBuilder, Record};
use vltava_protocol::make;
use vltava_protocol::messages::delete_topics_request::DeleteTopicState;
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::{DeleteTopicsRequest, FetchRequest, ProduceRequest, Uuid};
use vltava_types::{ErrorCode, Offset};

use super::{Context, now};
use crate::long_run::ledger::Stage;

const TOPIC: &str = "phoenix";

/// The first in which topics go by their identity.
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 13;
const DELETE_TOPICS_VERSION: i16 = 6;

pub async fn run(context: Context) {
    let mut random = context.random(5, 0);
    let mut client = context.client("phoenix");
    let mut life = 0;
    // Those of all lives. A request to create that was given up may be carried out late, and makes a life of its own.
    let mut ids = BTreeSet::new();
    while context.stage() < Stage::Draining {
        life += 1;
        let outcome = live(&context, &mut client, life, random.below(30), &mut ids).await;
        if let Err(error) = outcome {
            context.ledger().note(now(), format!("life {life} of {TOPIC}: {error}"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(5_000))).await;
    }
}

type Ids = BTreeSet<Uuid>;

async fn live(
    context: &Context,
    client: &mut Client,
    life: u64,
    values: u64,
    ids: &mut Ids,
) -> Result<(), ClientError> {
    let topic_id = create(context, client, ids).await?;
    let mut acknowledged = vec![];
    for number in 0..values {
        let value = format!("life-{life}-{number}");
        let mut builder = BatchBuilder::new();
        builder.append(vltava_host::clock::now(), None, Some(value.as_bytes()), &[]);
        let batch: Bytes = builder.build();
        match produce(client, topic_id, batch).await {
            Ok(offset) => acknowledged.push((offset, value)),
            Err(error) if error.is_retriable() => pause(context).await?,
            Err(error) => return Err(error),
        }
    }
    read(context, client, life, topic_id, &acknowledged).await?;
    delete(context, client, topic_id).await
}

/// Returns the identity of a topic that no earlier life had.
async fn create(context: &Context, client: &mut Client, ids: &mut Ids) -> Result<Uuid, ClientError> {
    let began = now();
    loop {
        match client.create_topic(TOPIC, 1, 3, &[("min.insync.replicas", "2"), ("segment.ms", "2000")]).await {
            Ok(()) | Err(ClientError::Refused(ErrorCode::TopicAlreadyExists)) => break,
            Err(ClientError::Refused(ErrorCode::InvalidReplicationFactor)) => {}
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error),
        }
        pause(context).await?;
    }
    context.ledger().operation("CreateTopics", began, true);
    loop {
        match client.metadata(Some(&[TOPIC]), false).await {
            Ok(told) => {
                let topic = told.topics.first().filter(|topic| topic.error_code == 0);
                match topic.map(|topic| topic.topic_id) {
                    Some(topic_id) if ids.insert(topic_id) => return Ok(topic_id),
                    // What was to be deleted in the last life is still there.
                    Some(topic_id) => {
                        delete(context, client, topic_id).await?;
                        return Err(ClientError::Incomplete);
                    }
                    // This broker has not heard of it yet.
                    None => client.ask_another(),
                }
            }
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error),
        }
        pause(context).await?;
    }
}

/// By its identity: a request that arrives late does not hit the next life.
async fn delete(context: &Context, client: &mut Client, topic_id: Uuid) -> Result<(), ClientError> {
    let began = now();
    loop {
        let named = make!(DeleteTopicState { name: None, topic_id: topic_id });
        let request = make!(DeleteTopicsRequest { topics: vec![named], timeout_ms: 4_000 });
        match client.call_any(DELETE_TOPICS_VERSION, &request).await {
            Ok(response) => {
                let code = response.responses.first().and_then(|topic| ErrorCode::from_code(topic.error_code));
                match code {
                    Some(ErrorCode::None | ErrorCode::UnknownTopicId) => break,
                    _ => client.ask_another(),
                }
            }
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error),
        }
        pause(context).await?;
    }
    context.ledger().operation("DeleteTopics", began, true);
    Ok(())
}

/// By the topic's identity, so that nobody who has not heard of this life can take it for another one.
async fn produce(client: &mut Client, topic_id: Uuid, batch: Bytes) -> Result<i64, ClientError> {
    let leader = leader(client).await?;
    let data = make!(PartitionProduceData { index: 0, records: Some(batch) });
    let topic = make!(TopicProduceData { topic_id, partition_data: vec![data] });
    let request = make!(ProduceRequest { acks: -1, timeout_ms: 3_000, topic_data: vec![topic] });
    let response = client.call_broker(leader, PRODUCE_VERSION, &request).await?;
    let written = response.responses.first().and_then(|topic| topic.partition_responses.first());
    let written = written.ok_or(ClientError::Incomplete)?;
    check(written.error_code)?;
    Ok(written.base_offset)
}

async fn fetch(client: &mut Client, topic_id: Uuid, offset: Offset) -> Result<Vec<Record>, ClientError> {
    let leader = leader(client).await?;
    let wanted = make!(FetchPartition { partition: 0, fetch_offset: offset.value(), partition_max_bytes: 1024 * 1024 });
    let request = make!(FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1024 * 1024,
        session_epoch: -1,
        topics: vec![make!(FetchTopic { topic_id, partitions: vec![wanted] })],
    });
    let response = client.call_broker(leader, FETCH_VERSION, &request).await?;
    check(response.error_code)?;
    let data = response.responses.first().and_then(|topic| topic.partitions.first()).ok_or(ClientError::Incomplete)?;
    check(data.error_code)?;
    let bytes = data.records.clone().unwrap_or_default();
    let mut found = vec![];
    for view in batch::batches(&bytes) {
        let Ok(view) = view else { break };
        let batch = bytes.slice(view.position..view.position + view.bytes.len());
        for record in batch::records(&batch, 1024 * 1024)? {
            found.push(record?);
        }
    }
    found.retain(|record| record.offset >= offset);
    Ok(found)
}

/// Asks each time: a broker that does not know this life yet says so.
async fn leader(client: &mut Client) -> Result<i32, ClientError> {
    client.metadata(Some(&[TOPIC]), false).await?;
    client.ask_another();
    client.leader(TOPIC, 0).await
}

fn check(code: i16) -> Result<(), ClientError> {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(ClientError::Refused(code)),
        None => Err(ClientError::UnknownErrorCode(code)),
    }
}

async fn pause(context: &Context) -> Result<(), ClientError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The run does not wait for this topic.
    if context.stage() >= Stage::Auditing { Err(ClientError::Closed) } else { Ok(()) }
}

/// What was acknowledged is there, and nothing of an earlier life.
async fn read(
    context: &Context,
    client: &mut Client,
    life: u64,
    topic_id: Uuid,
    acknowledged: &[(i64, String)],
) -> Result<(), ClientError> {
    let end = acknowledged.iter().map(|(offset, _)| offset + 1).max().unwrap_or(0);
    let mut offset = Offset(0);
    let mut found = BTreeMap::new();
    while offset.value() < end {
        match fetch(client, topic_id, offset).await {
            Ok(records) => {
                for record in records {
                    let value = String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned();
                    offset = offset.max(Offset(record.offset.value() + 1));
                    found.insert(record.offset.value(), value);
                }
            }
            Err(error) if error.is_retriable() => pause(context).await?,
            Err(ClientError::Refused(ErrorCode::OffsetOutOfRange)) => {
                let detail = format!("life {life} of {TOPIC} has no offset {offset}, and {end} values acknowledged");
                context.ledger().violate(now(), "lost-write", detail);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    let mine = format!("life-{life}-");
    for (offset, value) in &found {
        if !value.starts_with(&mine) {
            let detail = format!("life {life} of {TOPIC} holds {value} at offset {offset}");
            context.ledger().violate(now(), "earlier-life", detail);
        }
    }
    for (offset, value) in acknowledged {
        if found.get(offset) != Some(value) {
            let detail =
                format!("{value} of {TOPIC} was acknowledged at {offset}, which holds {:?}", found.get(offset));
            context.ledger().violate(now(), "lost-write", detail);
        }
    }
    Ok(())
}
