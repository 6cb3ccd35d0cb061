//! Fetch: reads partitions for consumers, and waits where there is too little to read.
//!
//! Only replica streams move the high watermark, and they do not come this way: a request that claims to be from a
//! replica is refused, whatever id it brings.

use std::sync::Arc;
use std::time::Duration;

use ::bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use vltava_host::{clock, random};
use vltava_protocol::fetch_frame::{Part, encode_fetch_response};
use vltava_protocol::frame::Header;
use vltava_protocol::make;
use vltava_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use vltava_protocol::messages::{FetchRequest, FetchResponse, WireId as _};
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

use crate::Broker;
use crate::api::routing::{LeaderHints, epoch_of_client, hosted_partition};
use crate::api::{Answer, Piece, Refusal, RequestContext};
use crate::config::ReplicaSelector;
use crate::fetch_sessions::{PartitionKey, PartitionNews, Plan, Position, SessionRequest, TopicKey};
use crate::partition::{Isolation, Partition, ReadRequest, ReadResult};
use crate::read_replica::{Candidate, preferred_follower};

/// How much of a response may be held in memory until the client has taken it. The rest stays in files, or is for the next
/// request: old records are read through memory, and many clients that read slowly may ask for much of them.
const MAX_COPIED_BYTES: usize = 4 << 20;

/// An ordinary consumer, and a debugging one. All other replica ids are those of brokers.
const CONSUMER: i32 = -1;
const DEBUGGING_CONSUMER: i32 = -2;

/// Answers a request. Long runs of records are not copied into the answer.
pub async fn answer(context: &RequestContext<'_>, header: &Header, request: FetchRequest) -> Result<Answer, Refusal> {
    let Fetched { response, records } = handle(context, request).await;
    let lengths: Vec<usize> = records.iter().map(Piece::len).collect();
    let parts = encode_fetch_response(header.version, header.correlation_id, &response, &lengths)?;
    let mut records = records.into_iter();
    let pieces = parts.into_iter().map(|part| match part {
        Part::Bytes(bytes) => Piece::Bytes(bytes),
        Part::Records(_) => records.next().expect("a part for each run of records"),
    });
    Ok(Answer::Pieces(pieces.collect()))
}

/// A response, and the records of those of its partitions that have none of their own, in order.
struct Fetched {
    response: FetchResponse,
    records: Vec<Piece>,
}

impl From<FetchResponse> for Fetched {
    fn from(response: FetchResponse) -> Self {
        Self { response, records: Vec::new() }
    }
}

async fn handle(context: &RequestContext<'_>, request: FetchRequest) -> Fetched {
    if !is_consumer(context.version, &request) {
        return refuse_replica(context, request).into();
    }
    let limits = Limits::new(context, &request);
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let session = session_request(context.version, request);
    let plan = match context.broker.fetch_sessions.lock().begin(session, clock::now()) {
        Ok(plan) => plan,
        Err(error) => return make!(FetchResponse { error_code: error.code() }).into(),
    };
    let mut targets: Vec<Target> = plan.partitions.iter().map(|(key, at)| Target::new(context, key, *at)).collect();
    if let Some(client_rack) = &limits.client_rack {
        targets.iter_mut().for_each(|target| target.choose_replica(context, client_rack));
    }
    read_until(context.broker, &mut targets, &limits, deadline).await;
    respond(context, &limits, &plan, &targets)
}

fn is_consumer(version: i16, request: &FetchRequest) -> bool {
    let replica_id = if version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    replica_id == CONSUMER || replica_id == DEBUGGING_CONSUMER
}

/// As Kafka refuses a client that may not act as a broker.
fn refuse_replica(context: &RequestContext<'_>, request: FetchRequest) -> FetchResponse {
    tracing::warn!(
        peer = %context.connection.peer,
        client_id = context.client_id,
        "refusing a fetch request that claims to come from a replica"
    );
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        make!(FetchableTopicResponse {
            partitions: partitions.map(|p| failed(p.partition, ErrorCode::TopicAuthorizationFailed)).collect(),
            topic: topic.topic,
            topic_id: topic.topic_id,
        })
    });
    make!(FetchResponse { responses: responses.collect() })
}

/// What holds for all partitions of a request.
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    isolation: Isolation,
    /// Clients that know of KIP-392 may read from followers.
    allow_follower: bool,
    /// `client.rack`, if consumers are sent to replicas near to them.
    client_rack: Option<String>,
}

impl Limits {
    fn new(context: &RequestContext<'_>, request: &FetchRequest) -> Self {
        let max_bytes = bytes(request.max_bytes).min(context.broker.config.replication.fetch_max_bytes);
        Self {
            min_bytes: bytes(request.min_bytes).min(max_bytes),
            max_bytes,
            isolation: if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
            allow_follower: context.version >= 11,
            client_rack: (context.broker.config.replication.replica_selector == ReplicaSelector::RackAware
                && !request.rack_id.is_empty())
            .then(|| request.rack_id.to_string()),
        }
    }
}

fn bytes(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn session_request(version: i16, request: FetchRequest) -> SessionRequest {
    // Names are copied: a session must not hold on to the buffer that its request came in.
    let uses_topic_ids = version >= 13;
    let key = |name: &str, id| {
        if uses_topic_ids { TopicKey::Id(TopicId::from_wire(id)) } else { TopicKey::Name(name.to_owned()) }
    };
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |p| {
            let key = PartitionKey { topic: key(&topic.topic, topic.topic_id), partition: p.partition };
            let position = Position {
                fetch_offset: p.fetch_offset,
                max_bytes: p.partition_max_bytes,
                current_leader_epoch: p.current_leader_epoch,
                last_fetched_epoch: p.last_fetched_epoch,
            };
            (key, position)
        })
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let topic_key = key(&topic.topic, topic.topic_id);
        topic.partitions.iter().map(move |p| PartitionKey { topic: topic_key.clone(), partition: *p })
    });
    SessionRequest {
        session_id: request.session_id,
        // Before version 7 there were no sessions.
        session_epoch: if version >= 7 { request.session_epoch } else { -1 },
        uses_topic_ids,
        partitions: partitions.collect(),
        forgotten: forgotten.collect(),
    }
}

/// One partition under way.
struct Target {
    id: Option<TopicPartition>,
    partition: Option<Arc<Partition>>,
    position: Position,
    /// The follower that the client should ask instead. It is told so at once, and gets no records here.
    preferred_replica: Option<BrokerId>,
    /// What the last read gave.
    result: Result<ReadResult, ErrorCode>,
}

impl Target {
    fn new(context: &RequestContext<'_>, key: &PartitionKey, position: Position) -> Self {
        let topic_id = match &key.topic {
            TopicKey::Id(id) if context.image.topic(*id).is_some() => Ok(*id),
            TopicKey::Id(_) => Err(ErrorCode::UnknownTopicId),
            TopicKey::Name(name) => context.image.topic_id(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        };
        let found = topic_id.and_then(|id| hosted_partition(context.broker, &context.image, id, key.partition));
        let id = topic_id.ok().map(|topic_id| TopicPartition { topic_id, partition: PartitionIndex(key.partition) });
        let result = Err(found.as_ref().err().copied().unwrap_or(ErrorCode::UnknownServerError));
        Self { id, partition: found.ok(), position, preferred_replica: None, result }
    }

    fn choose_replica(&mut self, context: &RequestContext<'_>, client_rack: &str) {
        let Some(partition) = &self.partition else { return };
        let rack = |id| context.image.broker(id).and_then(|broker| broker.rack.as_deref());
        let followers = partition.followers_with(Offset(self.position.fetch_offset));
        let candidates =
            followers.into_iter().map(|(id, log_end_offset)| Candidate { id, log_end_offset, rack: rack(id) });
        self.preferred_replica = preferred_follower(client_rack, rack(context.broker.node_id), candidates);
    }

    fn record_bytes(&self) -> usize {
        self.result.as_ref().map_or(0, ReadResult::record_bytes)
    }

    /// Of the records, those in memory.
    fn copied_bytes(&self) -> usize {
        self.result.as_ref().map_or(0, |result| result.records.len())
    }

    /// The records that were read, if there are any.
    fn records(&self) -> Option<Piece> {
        let result = self.result.as_ref().ok()?;
        let in_file = result.region.clone().map(Piece::File);
        in_file.or_else(|| (!result.records.is_empty()).then(|| Piece::Bytes(result.records.clone())))
    }

    /// Whether reading again could give something else.
    fn has_changed(&self) -> bool {
        match (&self.partition, &self.result) {
            (Some(partition), Ok(result)) => {
                partition.high_watermark() != result.high_watermark
                    || partition.log_start_offset() != result.log_start_offset
                    || partition.leadership().leader_epoch != result.leader_epoch
            }
            (Some(_), Err(_)) => true,
            (None, _) => false,
        }
    }

    async fn read(&mut self, broker: &Broker, limits: &Limits, left: BytesLeft, at_least_one_batch: bool) {
        let Some(partition) = &self.partition else { return };
        let is_elsewhere = self.preferred_replica.is_some();
        let request = ReadRequest {
            offset: Offset(self.position.fetch_offset),
            max_bytes: if is_elsewhere { 0 } else { bytes(self.position.max_bytes).min(left.records) },
            max_copied_bytes: left.copied,
            at_least_one_batch: at_least_one_batch && !is_elsewhere,
            isolation: limits.isolation,
            current_leader_epoch: epoch_of_client(self.position.current_leader_epoch),
            last_fetched_epoch: epoch_of_client(self.position.last_fetched_epoch),
            allow_follower: limits.allow_follower,
        };
        self.result = match partition.read_warm(&request) {
            Ok(Some(result)) => Ok(result),
            Ok(None) => {
                let partition = Arc::clone(partition);
                broker.cold_reads.run(move || partition.read(&request)).await
            }
            Err(error) => Err(error),
        };
    }
}

/// What the rest of a response may have.
#[derive(Clone, Copy)]
struct BytesLeft {
    records: usize,
    copied: usize,
}

/// Reads until there is enough, something to be told at once, or no time left.
async fn read_until(broker: &Broker, targets: &mut [Target], limits: &Limits, deadline: Instant) {
    read_all(broker, targets, limits, |_| true).await;
    if is_enough(targets, limits) || Instant::now() >= deadline {
        return;
    }
    let changed = Arc::new(Notify::new());
    // Subscribed first and checked then, so that no change is missed.
    let partitions: Vec<Arc<Partition>> = targets.iter().filter_map(|target| target.partition.clone()).collect();
    let _subscriptions: Vec<_> = partitions.iter().map(|partition| partition.subscribe(&changed)).collect();
    loop {
        read_all(broker, targets, limits, Target::has_changed).await;
        if is_enough(targets, limits) || tokio::time::timeout_at(deadline, changed.notified()).await.is_err() {
            return;
        }
    }
}

/// Reads in order while there are bytes left. The first partition that has any records gives at least one batch, however
/// large, so that a consumer always gets on (KIP-74).
async fn read_all(broker: &Broker, targets: &mut [Target], limits: &Limits, needs_reading: impl Fn(&Target) -> bool) {
    let mut left = BytesLeft { records: limits.max_bytes, copied: MAX_COPIED_BYTES };
    let mut is_empty = true;
    for target in targets {
        if needs_reading(target) {
            target.read(broker, limits, left, is_empty).await;
        }
        let found = target.record_bytes();
        left.records = left.records.saturating_sub(found);
        left.copied = left.copied.saturating_sub(target.copied_bytes());
        is_empty &= found == 0;
    }
}

fn is_enough(targets: &[Target], limits: &Limits) -> bool {
    let must_be_told = |target: &Target| match &target.result {
        Ok(result) => result.diverging.is_some() || target.preferred_replica.is_some(),
        Err(_) => true,
    };
    let found: usize = targets.iter().map(Target::record_bytes).sum();
    // A batch may not have fitted in what was left; waiting does not make it fit.
    let is_full = targets.iter().map(Target::copied_bytes).sum::<usize>() >= MAX_COPIED_BYTES / 2;
    targets.is_empty() || found >= limits.min_bytes || is_full || targets.iter().any(must_be_told)
}

fn respond(context: &RequestContext<'_>, limits: &Limits, plan: &Plan, targets: &[Target]) -> Fetched {
    let news: Vec<PartitionNews> = targets.iter().map(news).collect();
    let finished = context.broker.fetch_sessions.lock().finish(plan, &news, clock::now(), random::u64);
    let outcome = match finished {
        Ok(outcome) => outcome,
        Err(error) => return make!(FetchResponse { error_code: error.code() }).into(),
    };
    let mut records = Vec::new();
    let mut hints = LeaderHints::default();
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last_topic = None;
    for (((key, _), target), _) in plan.partitions.iter().zip(targets).zip(&outcome.included).filter(|(_, i)| **i) {
        if last_topic != Some(&key.topic) {
            last_topic = Some(&key.topic);
            responses.push(match &key.topic {
                TopicKey::Id(id) => make!(FetchableTopicResponse { topic_id: id.to_wire() }),
                TopicKey::Name(name) => make!(FetchableTopicResponse { topic: name.as_str().into() }),
            });
        }
        let topic = responses.last_mut().expect("one was pushed for this partition's topic");
        topic.partitions.push(describe(context, limits, key.partition, target, &mut hints));
        records.extend(target.records());
    }
    let mut response = make!(FetchResponse { session_id: outcome.session_id, responses });
    if context.version >= 16 {
        response.node_endpoints = node_endpoints(context, &hints);
    }
    Fetched { response, records }
}

fn news(target: &Target) -> PartitionNews {
    match &target.result {
        Ok(result) => PartitionNews {
            has_records: result.record_bytes() > 0,
            high_watermark: result.high_watermark,
            log_start_offset: result.log_start_offset,
            must_be_told: result.diverging.is_some() || target.preferred_replica.is_some(),
            is_error: false,
        },
        Err(_) => PartitionNews {
            has_records: false,
            high_watermark: Offset(-1),
            log_start_offset: Offset(-1),
            must_be_told: true,
            is_error: true,
        },
    }
}

fn describe(
    context: &RequestContext<'_>,
    limits: &Limits,
    partition_index: i32,
    target: &Target,
    hints: &mut LeaderHints,
) -> PartitionData {
    let result = match &target.result {
        Ok(result) => result,
        Err(error) => {
            let mut data = failed(partition_index, *error);
            let is_misdirected = matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
            if context.version >= 16
                && is_misdirected
                && let Some((leader, epoch)) = target.id.and_then(|id| hints.name(context.broker, id))
            {
                data.current_leader =
                    make!(LeaderIdAndEpoch { leader_id: leader.value(), leader_epoch: epoch.value() });
            }
            return data;
        }
    };
    let mut data = make!(PartitionData {
        partition_index,
        high_watermark: result.high_watermark.value(),
        last_stable_offset: result.last_stable_offset.value(),
        log_start_offset: result.log_start_offset.value(),
        // Never null on the wire, where clients of some languages fail on it: where there are records, they take the place.
        records: (result.record_bytes() == 0).then(Bytes::new),
    });
    if context.version >= 11
        && let Some(replica) = target.preferred_replica
    {
        data.preferred_read_replica = replica.value();
    }
    // Null says that the client did not ask; no transaction can be aborted yet.
    data.aborted_transactions = (limits.isolation == Isolation::ReadCommitted).then(Vec::new);
    if context.version >= 12
        && let Some(diverging) = result.diverging
    {
        let (LeaderEpoch(epoch), end_offset) = (diverging.epoch, diverging.end_offset.value());
        data.diverging_epoch = make!(EpochEndOffset { epoch, end_offset });
    }
    data
}

fn failed(partition_index: i32, error: ErrorCode) -> PartitionData {
    make!(PartitionData {
        partition_index,
        error_code: error.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: None,
        records: Some(Bytes::new()),
    })
}

fn node_endpoints(context: &RequestContext<'_>, hints: &LeaderHints) -> Vec<NodeEndpoint> {
    let addresses = hints.addresses(context.broker, &context.connection.listener);
    let endpoint = |address: crate::api::routing::NodeAddress| {
        make!(NodeEndpoint {
            node_id: address.node_id.value(),
            host: address.host.into(),
            port: i32::from(address.port),
            rack: address.rack.map(Into::into),
        })
    };
    addresses.into_iter().map(endpoint).collect()
}
