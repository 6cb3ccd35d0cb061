//! Requests to whichever broker they concern.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::batch::{self, Record};
use vltava_protocol::make;
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::{
    CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest, RequestResponsePair,
};
use vltava_types::{Offset, ProducerEpoch, ProducerId};

use crate::error::check;
use crate::{ClientError, Connection, MAX_UNCOMPRESSED_BYTES, Options};

/// The versions sent: the newest in which topics go by name.
const METADATA_VERSION: i16 = 12;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 7;
const CREATE_TOPICS_VERSION: i16 = 5;
const INIT_PRODUCER_ID_VERSION: i16 = 4;

/// A cluster, its leaders as last heard of, and a connection to each broker that was needed so far.
pub struct Client {
    bootstrap: Vec<String>,
    options: Options,
    /// The address of each broker.
    brokers: BTreeMap<i32, String>,
    leaders: BTreeMap<(String, i32), i32>,
    connections: BTreeMap<i32, Connection>,
    /// Where to begin when any broker will do. Moves on with each failure: a broker that is cut off from the others
    /// answers too, but with what was true before.
    first_asked: usize,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    pub base_offset: Offset,
    pub log_start_offset: Offset,
}

/// What one fetch of one partition gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Those from the offset asked for on; control records are left out.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next_offset: Offset,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

impl Client {
    /// A client of the cluster that `bootstrap` (`host:port`, separated by commas) belongs to. Connects when needed.
    #[must_use]
    pub fn new(bootstrap: &str, options: Options) -> Self {
        Self {
            bootstrap: bootstrap.split(',').map(|address| address.trim().to_owned()).collect(),
            options,
            brokers: BTreeMap::new(),
            leaders: BTreeMap::new(),
            connections: BTreeMap::new(),
            first_asked: 0,
        }
    }

    /// Asks any broker about `topics`, or about all if `None`, and remembers leaders and addresses.
    pub async fn metadata(
        &mut self,
        topics: Option<&[&str]>,
        create_missing: bool,
    ) -> Result<MetadataResponse, ClientError> {
        let named = |name: &&str| make!(MetadataRequestTopic { name: Some((*name).into()) });
        let request = make!(MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            allow_auto_topic_creation: create_missing,
        });
        let response = self.call_any(METADATA_VERSION, &request).await?;
        self.brokers = response.brokers.iter().map(|b| (b.node_id, format!("{}:{}", b.host, b.port))).collect();
        let known = &self.brokers;
        self.connections.retain(|broker, _| known.contains_key(broker));
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                self.leaders.insert((name.to_string(), partition.partition_index), partition.leader_id);
            }
        }
        Ok(response)
    }

    /// Sends a request to any broker: first those known, then the bootstrap addresses, in turn.
    pub async fn call_any<R: RequestResponsePair>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let mut last_error = ClientError::NoBroker;
        for broker in self.in_turn(self.brokers.keys().copied()) {
            match self.call_broker(broker, version, request).await {
                Ok(response) => return Ok(response),
                Err(error) => last_error = error,
            }
            self.first_asked += 1;
        }
        for address in self.in_turn(self.bootstrap.iter().cloned()) {
            match Connection::connect(&address, self.options.clone()).await {
                Ok(mut connection) => match connection.call(version, request).await {
                    Ok(response) => return Ok(response),
                    Err(error) => last_error = error,
                },
                Err(error) => last_error = error,
            }
            self.first_asked += 1;
        }
        Err(last_error)
    }

    fn in_turn<T>(&self, all: impl Iterator<Item = T>) -> Vec<T> {
        let mut all: Vec<T> = all.collect();
        if !all.is_empty() {
            let first = self.first_asked % all.len();
            all.rotate_left(first);
        }
        all
    }

    /// Sends a request to this broker. A connection that failed is given up; the next request opens another.
    pub async fn call_broker<R: RequestResponsePair>(
        &mut self,
        broker: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        // Taken out, so that a call that fails or is dropped half-way never leaves a connection with an answer due.
        let mut connection = match self.connections.remove(&broker) {
            Some(connection) => connection,
            None => {
                let address = self.brokers.get(&broker).ok_or(ClientError::NoBroker)?;
                Connection::connect(address, self.options.clone()).await?
            }
        };
        let response = connection.call(version, request).await?;
        self.connections.insert(broker, connection);
        Ok(response)
    }

    /// The leader of a partition, as last heard of; asks where nothing was heard.
    pub async fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, ClientError> {
        let key = (topic.to_owned(), partition);
        if !self.leaders.contains_key(&key) {
            let response = self.metadata(Some(&[topic]), false).await?;
            for topic in &response.topics {
                check(topic.error_code)?;
            }
        }
        match self.leaders.get(&key) {
            Some(leader) if *leader >= 0 => Ok(*leader),
            _ => {
                self.leaders.remove(&key);
                Err(ClientError::Refused(vltava_types::ErrorCode::LeaderNotAvailable))
            }
        }
    }

    /// Sends one batch (see `BatchBuilder`) to the partition's leader, once.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
        acks: i16,
        timeout: Duration,
    ) -> Result<ProducedBatch, ClientError> {
        let data = make!(PartitionProduceData { index: partition, records: Some(batch) });
        let request = make!(ProduceRequest {
            acks,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![make!(TopicProduceData { name: topic.into(), partition_data: vec![data] })],
        });
        let produced = self.produce_to_leader(topic, partition, &request).await;
        self.forget_leader_after(topic, partition, &produced);
        produced
    }

    async fn produce_to_leader(
        &mut self,
        topic: &str,
        partition: i32,
        request: &ProduceRequest,
    ) -> Result<ProducedBatch, ClientError> {
        let leader = self.leader(topic, partition).await?;
        let response = self.call_broker(leader, PRODUCE_VERSION, request).await?;
        let written =
            response.responses.first().and_then(|t| t.partition_responses.first()).ok_or(ClientError::Incomplete)?;
        check(written.error_code)?;
        Ok(ProducedBatch {
            base_offset: Offset(written.base_offset),
            log_start_offset: Offset(written.log_start_offset),
        })
    }

    /// Reads a partition from `offset` on; waits up to `max_wait` for the first record.
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: Offset,
        max_wait: Duration,
    ) -> Result<Fetched, ClientError> {
        let fetched = self.fetch_from_leader(topic, partition, offset, max_wait).await;
        self.forget_leader_after(topic, partition, &fetched);
        fetched
    }

    async fn fetch_from_leader(
        &mut self,
        topic: &str,
        partition: i32,
        offset: Offset,
        max_wait: Duration,
    ) -> Result<Fetched, ClientError> {
        let wanted =
            make!(FetchPartition { partition, fetch_offset: offset.value(), partition_max_bytes: 8 * 1024 * 1024 });
        let request = make!(FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: 8 * 1024 * 1024,
            session_epoch: -1,
            topics: vec![make!(FetchTopic { topic: topic.into(), partitions: vec![wanted] })],
        });
        let leader = self.leader(topic, partition).await?;
        let response = self.call_broker(leader, FETCH_VERSION, &request).await?;
        check(response.error_code)?;
        let data = response.responses.first().and_then(|t| t.partitions.first()).ok_or(ClientError::Incomplete)?;
        check(data.error_code)?;
        let mut fetched = Fetched {
            records: Vec::new(),
            next_offset: offset,
            high_watermark: Offset(data.high_watermark),
            log_start_offset: Offset(data.log_start_offset),
        };
        let bytes = data.records.clone().unwrap_or_default();
        let mut position = 0;
        for view in batch::batches(&bytes) {
            // The last batch may be cut off; it comes again.
            let Ok(view) = view else { break };
            let size = view.bytes.len();
            view.verify_crc().map_err(batch::RecordError::Batch)?;
            if !view.header.is_control() {
                let batch = bytes.slice(position..position + size);
                for record in batch::records(&batch, MAX_UNCOMPRESSED_BYTES)? {
                    let record = record?;
                    if record.offset >= offset {
                        fetched.records.push(record);
                    }
                }
            }
            fetched.next_offset = fetched.next_offset.max(view.header.next_offset());
            position += size;
        }
        Ok(fetched)
    }

    /// The offset for a time in milliseconds, or for Kafka's -1 (latest), -2 (earliest) and so on; -1 if there is none.
    pub async fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<Offset, ClientError> {
        let listed = self.list_offset_of_leader(topic, partition, timestamp).await;
        self.forget_leader_after(topic, partition, &listed);
        listed
    }

    async fn list_offset_of_leader(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<Offset, ClientError> {
        let wanted = make!(ListOffsetsPartition { partition_index: partition, timestamp });
        let request = make!(ListOffsetsRequest {
            replica_id: -1,
            topics: vec![make!(ListOffsetsTopic { name: topic.into(), partitions: vec![wanted] })],
        });
        let leader = self.leader(topic, partition).await?;
        let response = self.call_broker(leader, LIST_OFFSETS_VERSION, &request).await?;
        let found = response.topics.first().and_then(|t| t.partitions.first()).ok_or(ClientError::Incomplete)?;
        check(found.error_code)?;
        Ok(Offset(found.offset))
    }

    /// Creates a topic, with -1 for the cluster's default of partitions or replicas.
    pub async fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> Result<(), ClientError> {
        let config = |(name, value): &(&str, &str)| {
            make!(CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) })
        };
        let topic = make!(CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor,
            configs: configs.iter().map(config).collect(),
        });
        let timeout_ms = i32::try_from(self.options.timeout.as_millis()).unwrap_or(i32::MAX);
        let request = make!(CreateTopicsRequest { topics: vec![topic], timeout_ms });
        let response = self.call_any(CREATE_TOPICS_VERSION, &request).await?;
        let created = response.topics.first().ok_or(ClientError::Incomplete)?;
        self.ask_another_after(check(created.error_code))
    }

    /// An identity for an idempotent producer.
    pub async fn init_producer_id(&mut self) -> Result<(ProducerId, ProducerEpoch), ClientError> {
        let request = make!(InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
        });
        let response = self.call_any(INIT_PRODUCER_ID_VERSION, &request).await?;
        self.ask_another_after(check(response.error_code))?;
        Ok((ProducerId(response.producer_id), ProducerEpoch(response.producer_epoch)))
    }

    /// Whether the cluster, as last heard of, has this broker.
    pub(crate) fn knows(&self, broker: i32) -> bool {
        self.brokers.contains_key(&broker)
    }

    /// Where any broker will do, the next request goes to another one.
    pub fn ask_another(&mut self) {
        self.first_asked += 1;
    }

    /// After a failure the leader may be another one: the next request asks.
    fn forget_leader_after<T>(&mut self, topic: &str, partition: i32, result: &Result<T, ClientError>) {
        if result.is_err() {
            self.leaders.remove(&(topic.to_owned(), partition));
            self.first_asked += 1;
        }
    }

    fn ask_another_after<T>(&mut self, result: Result<T, ClientError>) -> Result<T, ClientError> {
        if result.is_err() {
            self.first_asked += 1;
        }
        result
    }
}
