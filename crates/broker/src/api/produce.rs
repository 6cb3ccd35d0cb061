//! Produce: appends in the order of the connection, then waits for replicas while later requests begin.
//!
//! One request waits for all its partitions at once, against one deadline.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use vltava_metadata::{ClusterImage, TopicImage};
use vltava_protocol::batch::{self, Origin, Rejection};
use vltava_protocol::frame::{self, Header};
use vltava_protocol::make;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use vltava_protocol::messages::{ProduceRequest, ProduceResponse, StrBytes, Uuid, WireId as _};
use vltava_types::{ErrorCode, PartitionIndex, TopicId, TopicPartition};

use crate::Broker;
use crate::api::routing::{LeaderHints, hosted_partition};
use crate::api::{Answer, Refusal, RequestContext};
use crate::partition::{Acks, AppendError, AppendOptions, Appended, Partition};
use crate::topic_creation::is_internal;

/// The client id that Kafka lets write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Appends what the request brings. The answer comes later, once enough replicas have it.
pub fn begin(context: &RequestContext<'_>, header: &Header, request: ProduceRequest) -> Result<Answer, Refusal> {
    let acks = acks(request.acks);
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let pending = PendingProduce {
        broker: Arc::clone(context.broker),
        listener: context.connection.listener.clone(),
        version: context.version,
        deadline: Instant::now() + timeout,
        topics: append_all(context, acks, &request),
    };
    match acks {
        Ok(Acks::None) => match pending.first_failure() {
            None => Ok(Answer::Nothing),
            Some(failure) => Err(Refusal::Unanswerable(failure)),
        },
        Ok(Acks::Leader | Acks::All) | Err(_) => {
            let acks = acks.unwrap_or(Acks::None);
            let header = header.clone();
            Ok(Answer::Later(Box::pin(async move {
                let response = pending.finish(acks).await;
                Ok(frame::encode_response(header.api, header.version, header.correlation_id, &response)?)
            })))
        }
    }
}

fn acks(acks: i16) -> Result<Acks, ErrorCode> {
    match acks {
        -1 => Ok(Acks::All),
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        _ => Err(ErrorCode::InvalidRequiredAcks),
    }
}

/// A produce request whose records are in the log, as far as they could be.
struct PendingProduce {
    broker: Arc<Broker>,
    listener: String,
    version: i16,
    deadline: Instant,
    topics: Vec<PendingTopic>,
}

struct PendingTopic {
    name: StrBytes,
    wire_id: Uuid,
    topic_id: Option<TopicId>,
    partitions: Vec<(i32, Result<Written, Failure>)>,
}

struct Written {
    partition: Arc<Partition>,
    appended: Appended,
}

struct Failure {
    code: ErrorCode,
    message: Option<String>,
    record_errors: Vec<Rejection>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: vec![] }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let record_errors = match &error {
            AppendError::Invalid(invalid) => invalid.record_errors().to_vec(),
            _ => vec![],
        };
        Self { code: error.code(), message: Some(error.to_string()), record_errors }
    }
}

fn append_all(
    context: &RequestContext<'_>,
    acks: Result<Acks, ErrorCode>,
    request: &ProduceRequest,
) -> Vec<PendingTopic> {
    let append_topic = |data: &TopicProduceData| {
        let topic = find_topic(context, data);
        let append = |partition: &PartitionProduceData| {
            let written = acks.map_err(Failure::from).and_then(|acks| {
                // There are no transactions yet; nobody has been given a transactional producer id.
                if request.transactional_id.is_some() {
                    return Err(Failure::from(ErrorCode::TransactionalIdAuthorizationFailed));
                }
                append(context, acks, topic.map_err(Failure::from)?, partition)
            });
            (partition.index, written)
        };
        PendingTopic {
            name: data.name.clone(),
            wire_id: data.topic_id,
            topic_id: topic.ok().map(|topic| topic.topic_id),
            partitions: data.partition_data.iter().map(append).collect(),
        }
    };
    request.topic_data.iter().map(append_topic).collect()
}

/// By id from version 13 on, by name before.
fn find_topic<'a>(context: &'a RequestContext<'_>, data: &TopicProduceData) -> Result<&'a TopicImage, ErrorCode> {
    let image: &ClusterImage = &context.image;
    let topic = if context.version >= 13 {
        image.topic(TopicId::from_wire(data.topic_id)).ok_or(ErrorCode::UnknownTopicId)?
    } else {
        image.topic_by_name(&data.name).ok_or(ErrorCode::UnknownTopicOrPartition)?
    };
    if is_internal(&topic.name) && context.client_id != Some(ADMIN_CLIENT_ID) {
        return Err(ErrorCode::InvalidTopicException);
    }
    Ok(topic)
}

fn append(
    context: &RequestContext<'_>,
    acks: Acks,
    topic: &TopicImage,
    data: &PartitionProduceData,
) -> Result<Written, Failure> {
    let partition = hosted_partition(context.broker, &context.image, topic.topic_id, data.index)?;
    let records = data.records.clone().unwrap_or_default();
    let records = batch::validate_produce_format(context.version, &records).map_err(AppendError::Invalid)?;
    let header = batch::BatchHeader::parse(&records)
        .map_err(|error| AppendError::Invalid(batch::InvalidBatch::Corrupt(error)))?;
    if header.is_transactional() {
        return Err(ErrorCode::InvalidTxnState.into());
    }
    let options = AppendOptions { origin: Origin::Client, acks, leader_epoch: None };
    let appended = partition.append_as_leader(&records, &options)?;
    Ok(Written { partition, appended })
}

impl PendingProduce {
    /// What an acks=0 client should know; it can only be told by closing its connection.
    fn first_failure(&self) -> Option<String> {
        let mut partitions = self.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
        partitions.find_map(|(topic, (index, written))| {
            let failure = written.as_ref().err()?;
            let name: String = topic.name.chars().take(249).collect();
            Some(format!("partition {index} of topic {name:?}: {}", failure.code))
        })
    }

    async fn finish(mut self, acks: Acks) -> ProduceResponse {
        self.wait(acks).await;
        let mut hints = LeaderHints::default();
        let mut responses = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let partitions = topic.partitions.iter();
            let partition_responses =
                partitions.map(|(index, written)| self.describe(topic, *index, written, &mut hints)).collect();
            responses.push(make!(TopicProduceResponse {
                name: topic.name.clone(),
                topic_id: topic.wire_id,
                partition_responses,
            }));
        }
        let mut response = make!(ProduceResponse { responses });
        if self.version >= 10 {
            let addresses = hints.addresses(&self.broker, &self.listener);
            response.node_endpoints = addresses
                .into_iter()
                .map(|address| {
                    make!(NodeEndpoint {
                        node_id: address.node_id.value(),
                        host: address.host.into(),
                        port: i32::from(address.port),
                        rack: address.rack.map(Into::into),
                    })
                })
                .collect();
        }
        response
    }

    /// Waits for all partitions at once. What is not safe by the deadline is reported as REQUEST_TIMED_OUT: it may
    /// become safe later.
    async fn wait(&mut self, acks: Acks) {
        let deadline = self.deadline;
        let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let waits = partitions.map(|(_, result)| async move {
            let Ok(written) = result else { return };
            let wait = written.partition.wait_for_acks(acks, &written.appended);
            match tokio::time::timeout_at(deadline, wait).await {
                Ok(Ok(())) => {}
                Ok(Err(code)) => *result = Err(code.into()),
                Err(_) => *result = Err(ErrorCode::RequestTimedOut.into()),
            }
        });
        join_all(waits).await;
    }

    fn describe(
        &self,
        topic: &PendingTopic,
        index: i32,
        written: &Result<Written, Failure>,
        hints: &mut LeaderHints,
    ) -> PartitionProduceResponse {
        let failure = match written {
            Ok(Written { appended, .. }) => {
                return make!(PartitionProduceResponse {
                    index,
                    base_offset: appended.base_offset.value(),
                    log_append_time_ms: appended.log_append_time.value(),
                    log_start_offset: appended.log_start_offset.value(),
                });
            }
            Err(failure) => failure,
        };
        let mut response = make!(PartitionProduceResponse {
            index,
            error_code: failure.code.code(),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
        });
        if self.version >= 8 {
            response.error_message = failure.message.as_deref().map(Into::into);
            response.record_errors = failure.record_errors.iter().map(record_error).collect();
        }
        if self.version >= 10
            && failure.code == ErrorCode::NotLeaderOrFollower
            && let Some(topic_id) = topic.topic_id
        {
            let partition = TopicPartition { topic_id, partition: PartitionIndex(index) };
            if let Some((leader, epoch)) = hints.name(&self.broker, partition) {
                response.current_leader =
                    make!(LeaderIdAndEpoch { leader_id: leader.value(), leader_epoch: epoch.value() });
            }
        }
        response
    }
}

fn record_error(rejection: &Rejection) -> BatchIndexAndErrorMessage {
    make!(BatchIndexAndErrorMessage {
        batch_index: rejection.batch_index,
        batch_index_error_message: Some(rejection.message.as_str().into()),
    })
}
