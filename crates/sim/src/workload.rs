//! What clients do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use vltava_client::{Client, ClientError, Options};
use vltava_protocol::batch::BatchBuilder;
use vltava_protocol::make;
use vltava_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::{DescribeQuorumRequest, ListOffsetsRequest};
use vltava_types::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::history::{Acknowledged, History};

/// Pause before a request is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// How long connecting and one request may take before the client gives up and tries again. A client learns of a host
/// that vanished silently only by these, so that they stand for part of every pause that it sees.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

const DESCRIBE_QUORUM_VERSION: i16 = 0;
const LIST_OFFSETS_VERSION: i16 = 7;

type Failure = Box<dyn std::error::Error>;

fn client(bootstrap: &str, name: &str) -> Client {
    let options = Options {
        client_id: name.to_owned(),
        connect_timeout: CONNECT_TIMEOUT,
        timeout: REQUEST_TIMEOUT,
        ..Options::default()
    };
    Client::new(bootstrap, options)
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

/// An idempotent producer with acks=all that sends one value after another, each until it is acknowledged.
pub struct Producer {
    client: Client,
    topic: &'static str,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    next: u32,
    history: Arc<Mutex<History>>,
}

impl Producer {
    /// Creates the topic, with one partition on three replicas of which two must be in sync.
    pub async fn open(bootstrap: &str, topic: &'static str, history: Arc<Mutex<History>>) -> Result<Self, Failure> {
        let mut client = client(bootstrap, "producer");
        loop {
            match client.create_topic(topic, 1, 3, &[("min.insync.replicas", "2")]).await {
                Ok(()) | Err(ClientError::Refused(ErrorCode::TopicAlreadyExists)) => break,
                // Not all brokers have registered yet.
                Err(ClientError::Refused(ErrorCode::InvalidReplicationFactor)) => {}
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(RETRY).await;
        }
        let (producer_id, producer_epoch) = until_it_succeeds!(client.init_producer_id());
        Ok(Self { client, topic, producer_id, producer_epoch, next: 0, history })
    }

    /// Sends the next value.
    pub async fn send(&mut self) -> turmoil::Result {
        let value = format!("value-{}", self.next);
        let batch = self.batch(&value);
        let produced = until_it_succeeds!(self.client.produce(self.topic, 0, batch.clone(), -1, REQUEST_TIMEOUT));
        self.next += 1;
        let at = turmoil::sim_elapsed().expect("clients run on simulated hosts");
        let acknowledged = Acknowledged { value, offset: produced.base_offset, at };
        self.history.lock().expect("no holder panics").acknowledged.push(acknowledged);
        Ok(())
    }

    fn batch(&self, value: &str) -> Bytes {
        let sequence = Sequence(i32::try_from(self.next).expect("a run sends few values"));
        let mut builder = BatchBuilder::new().producer(self.producer_id, self.producer_epoch, sequence);
        builder.append(TimestampMs(i64::from(self.next)), None, Some(value.as_bytes()), &[]);
        builder.build()
    }
}

/// Reads partition 0 of the topic from its first offset to the high watermark.
pub async fn read_to_end(bootstrap: &str, topic: &str) -> Result<Vec<(Offset, String)>, Failure> {
    let mut client = client(bootstrap, "reader");
    let end = until_it_succeeds!(client.list_offset(topic, 0, -1));
    let mut offset = Offset(0);
    let mut read = Vec::new();
    while offset < end {
        let fetched = until_it_succeeds!(client.fetch(topic, 0, offset, Duration::from_millis(100)));
        for record in fetched.records {
            read.push((record.offset, String::from_utf8(record.value.unwrap_or_default().to_vec())?));
        }
        offset = fetched.next_offset;
    }
    Ok(read)
}

/// Reads what partition 0 of the topic gets, for ever; what was read is in the history at once.
pub async fn tail(bootstrap: &str, topic: &str, history: Arc<Mutex<History>>) -> turmoil::Result {
    let mut client = client(bootstrap, "consumer");
    let mut offset = Offset(0);
    loop {
        match client.fetch(topic, 0, offset, Duration::from_millis(100)).await {
            Ok(fetched) => {
                let mut history = history.lock().expect("no holder panics");
                for record in fetched.records {
                    let value = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
                    history.consumed.push((record.offset, value));
                }
                offset = fetched.next_offset;
            }
            // The topic does not exist yet, or its leader has changed. A leader that does not know yet how far its
            // log is committed may find the offset out of range only if it lost what it had shown.
            Err(error) if error.is_retriable() => tokio::time::sleep(RETRY).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The leader of partition 0 as the cluster tells it.
pub async fn find_leader(bootstrap: &str, topic: &str) -> Result<i32, Failure> {
    let mut client = client(bootstrap, "observer");
    Ok(until_it_succeeds!(client.leader(topic, 0)))
}

/// Whether the broker at this address acts as leader of partition 0. It is asked itself, whatever others say.
pub async fn acts_as_leader(address: &str, topic: &str) -> Result<bool, Failure> {
    let mut client = client(address, "prober");
    let latest = make!(ListOffsetsPartition { partition_index: 0, timestamp: -1 });
    let request = make!(ListOffsetsRequest {
        replica_id: -1,
        topics: vec![make!(ListOffsetsTopic { name: topic.into(), partitions: vec![latest] })],
    });
    let response = until_it_succeeds!(client.call_any(LIST_OFFSETS_VERSION, &request));
    let code = response.topics.first().and_then(|topic| topic.partitions.first()).map(|p| p.error_code);
    Ok(code == Some(ErrorCode::None.code()))
}

/// The active controller.
pub async fn find_controller(bootstrap: &str) -> Result<i32, Failure> {
    let mut client = client(bootstrap, "observer");
    let metadata_log = make!(TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![make!(PartitionData { partition_index: 0 })],
    });
    let request = make!(DescribeQuorumRequest { topics: vec![metadata_log] });
    loop {
        let response = until_it_succeeds!(client.call_any(DESCRIBE_QUORUM_VERSION, &request));
        let leader = response.topics.first().and_then(|t| t.partitions.first()).map(|p| p.leader_id);
        match leader {
            Some(leader) if leader >= 0 => return Ok(leader),
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Waits until all replicas of partition 0 are in sync, as every broker tells it.
pub async fn wait_until_in_sync(bootstrap: &str, topic: &str) -> turmoil::Result {
    for address in bootstrap.split(',') {
        let mut client = client(address, "observer");
        loop {
            // The next request goes to this broker again, and not to those that it named.
            let response = until_it_succeeds!(client.metadata(Some(&[topic]), false));
            client = self::client(address, "observer");
            let partition = response.topics.first().and_then(|topic| topic.partitions.first());
            if partition.is_some_and(|p| p.isr_nodes.len() == p.replica_nodes.len() && p.leader_id >= 0) {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
    Ok(())
}
