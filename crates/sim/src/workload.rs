//! What clients do.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vltava_client::{Client, ClientError, Options};
use vltava_protocol::batch::BatchBuilder;
use vltava_types::{Offset, Sequence, TimestampMs};

use crate::history::{Acknowledged, History};

/// Pause before a request is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// How long one request may take before the client gives it up and tries again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

fn client(bootstrap: &str, name: &str) -> Client {
    Client::new(bootstrap, Options { client_id: name.to_owned(), timeout: REQUEST_TIMEOUT, ..Options::default() })
}

/// Tries `$request` until it succeeds; fails on an error that trying again cannot mend.
macro_rules! until_it_succeeds {
    ($request:expr) => {
        loop {
            match $request.await {
                Ok(value) => break value,
                Err(error) if error.is_retriable() => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(error.into()),
            }
        }
    };
}

/// Creates the topic if need be, with one partition on three replicas, and sends `values` one after another as an
/// idempotent producer with acks=all, until each is acknowledged.
pub async fn produce_values(
    bootstrap: String,
    topic: &str,
    values: Range<u32>,
    history: Arc<Mutex<History>>,
) -> turmoil::Result {
    let mut client = client(&bootstrap, "producer");
    loop {
        match client.create_topic(topic, 1, 3, &[("min.insync.replicas", "2")]).await {
            Ok(()) | Err(ClientError::Refused(vltava_types::ErrorCode::TopicAlreadyExists)) => break,
            // Not all brokers have registered yet.
            Err(ClientError::Refused(vltava_types::ErrorCode::InvalidReplicationFactor)) => {}
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(RETRY).await;
    }
    let (producer_id, producer_epoch) = until_it_succeeds!(client.init_producer_id());
    let mut sequence = Sequence(0);
    for number in values {
        let value = format!("value-{number}");
        let mut builder = BatchBuilder::new().producer(producer_id, producer_epoch, sequence);
        let timestamp = TimestampMs(i64::from(number));
        builder.append(timestamp, None, Some(value.as_bytes()), &[]);
        let batch = builder.build();
        let produced = until_it_succeeds!(client.produce(topic, 0, batch.clone(), -1, REQUEST_TIMEOUT));
        sequence = sequence.plus(1);
        let at = turmoil::sim_elapsed().expect("clients run on simulated hosts");
        let acknowledged = Acknowledged { value, offset: produced.base_offset, at };
        history.lock().expect("no holder panics").acknowledged.push(acknowledged);
    }
    Ok(())
}

/// Reads partition 0 of the topic from its first offset to the high watermark.
pub async fn read_to_end(bootstrap: String, topic: &str, history: Arc<Mutex<History>>) -> turmoil::Result {
    let mut client = client(&bootstrap, "consumer");
    let end = until_it_succeeds!(client.list_offset(topic, 0, -1));
    let mut offset = Offset(0);
    while offset < end {
        let fetched = until_it_succeeds!(client.fetch(topic, 0, offset, Duration::from_millis(500)));
        let mut history = history.lock().expect("no holder panics");
        for record in fetched.records {
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
            history.read.push((record.offset, value));
        }
        offset = fetched.next_offset;
    }
    Ok(())
}

/// The leader of partition 0 as the cluster tells it.
pub async fn find_leader(bootstrap: String, topic: &str) -> Result<i32, Box<dyn std::error::Error>> {
    let mut client = client(&bootstrap, "observer");
    Ok(until_it_succeeds!(client.leader(topic, 0)))
}
