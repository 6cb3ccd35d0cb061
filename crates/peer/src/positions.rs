//! Where offsets stand in the logs that another broker leads.
//!
//! Asked now and then by the coordinators of groups, over the data plane.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use vltava_types::{BrokerId, ErrorCode, Offset, PartitionIndex, TimestampMs, TopicId, TopicPartition, Uuid};

use crate::CallError;
use crate::client::unary;
use crate::server::Routes;

use messages::found::{Outcome, Standing as StandingMessage};

/// Positions in one question; more are refused.
pub const MAX_POSITIONS: usize = 1_000;

/// The longest message either side accepts, in bytes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// A question to the leader of some partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub cluster_id: String,
    /// Refused by anyone else: an address may have changed hands.
    pub leader: BrokerId,
    /// At most [`MAX_POSITIONS`].
    pub positions: Vec<Position>,
}

/// An offset in a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub partition: TopicPartition,
    pub offset: Offset,
    /// Whether to look up the time of the record, which may cost a read from the disk.
    pub with_timestamp: bool,
}

/// What lies from a position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub high_watermark: Offset,
    /// When the first record from the offset on was written. `None` if there is no such record below the high watermark,
    /// if it carries no time, or if it was not asked for.
    pub timestamp: Option<TimestampMs>,
}

/// A broker that leads partitions.
pub trait PositionsHandler: Send + Sync + 'static {
    /// One answer for each position, in the same order.
    fn find(
        &self,
        question: Question,
    ) -> impl Future<Output = Result<Vec<Result<Standing, ErrorCode>>, CallError>> + Send;
}

/// Adds the service to a plane.
pub fn add_routes<H: PositionsHandler>(routes: Routes, handler: Arc<H>) -> Routes {
    routes.with(
        messages::positions_server::PositionsServer::new(Service { handler })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
}

/// Asks the broker behind a data-plane channel.
pub async fn find(
    channel: Channel,
    question: Question,
    deadline: Duration,
) -> Result<Vec<Result<Standing, ErrorCode>>, CallError> {
    let asked = question.positions.len();
    let mut client = messages::positions_client::PositionsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let response = unary(deadline, question.into(), |request| async move { client.find(request).await }).await?;
    if response.found.len() != asked {
        return Err(CallError::Refused(format!("{} answers to {asked} questions", response.found.len())));
    }
    response.found.into_iter().map(read_found).collect()
}

struct Service<H> {
    handler: Arc<H>,
}

#[tonic::async_trait]
impl<H: PositionsHandler> messages::positions_server::Positions for Service<H> {
    async fn find(&self, request: Request<messages::FindRequest>) -> Result<Response<messages::FindResponse>, Status> {
        let question = Question::try_from(request.into_inner()).map_err(refuse)?;
        let found = self.handler.find(question).await.map_err(refuse)?;
        Ok(Response::new(messages::FindResponse { found: found.into_iter().map(write_found).collect() }))
    }
}

fn refuse(error: CallError) -> Status {
    match error {
        CallError::Refused(reason) => Status::failed_precondition(reason),
        CallError::Unreachable(reason) => Status::unavailable(reason),
    }
}

impl From<Question> for messages::FindRequest {
    fn from(question: Question) -> Self {
        let position = |position: Position| messages::Position {
            topic_id: Bytes::copy_from_slice(&position.partition.topic_id.0.0),
            partition: position.partition.partition.value(),
            offset: position.offset.value(),
            with_timestamp: position.with_timestamp,
        };
        Self {
            cluster_id: question.cluster_id,
            leader_id: question.leader.value(),
            positions: question.positions.into_iter().map(position).collect(),
        }
    }
}

impl TryFrom<messages::FindRequest> for Question {
    type Error = CallError;

    fn try_from(message: messages::FindRequest) -> Result<Self, CallError> {
        if message.positions.len() > MAX_POSITIONS {
            return Err(CallError::Refused(format!("more than {MAX_POSITIONS} positions at once")));
        }
        Ok(Self {
            cluster_id: message.cluster_id,
            leader: BrokerId(message.leader_id),
            positions: message.positions.into_iter().map(read_position).collect::<Result<_, _>>()?,
        })
    }
}

fn read_position(message: messages::Position) -> Result<Position, CallError> {
    let topic_id: [u8; 16] =
        message.topic_id[..].try_into().map_err(|_| CallError::Refused("a topic id has 16 bytes".to_owned()))?;
    if message.offset < 0 {
        return Err(CallError::Refused("offsets are not negative".to_owned()));
    }
    Ok(Position {
        partition: TopicPartition { topic_id: TopicId(Uuid(topic_id)), partition: PartitionIndex(message.partition) },
        offset: Offset(message.offset),
        with_timestamp: message.with_timestamp,
    })
}

fn write_found(found: Result<Standing, ErrorCode>) -> messages::Found {
    let outcome = match found {
        Ok(standing) => Outcome::Standing(StandingMessage {
            high_watermark: standing.high_watermark.value(),
            timestamp_ms: standing.timestamp.map(TimestampMs::value),
        }),
        Err(code) => Outcome::Error(i32::from(code.code())),
    };
    messages::Found { outcome: Some(outcome) }
}

fn read_found(message: messages::Found) -> Result<Result<Standing, ErrorCode>, CallError> {
    match message.outcome {
        Some(Outcome::Standing(standing)) if standing.high_watermark >= 0 => Ok(Ok(Standing {
            high_watermark: Offset(standing.high_watermark),
            timestamp: standing.timestamp_ms.map(TimestampMs),
        })),
        Some(Outcome::Standing(_)) => Err(CallError::Refused("offsets are not negative".to_owned())),
        Some(Outcome::Error(code)) => {
            let code = i16::try_from(code).ok().and_then(ErrorCode::from_code);
            Ok(Err(code.unwrap_or(ErrorCode::UnknownServerError)))
        }
        None => Err(CallError::Refused("an answer without content".to_owned())),
    }
}

mod messages {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("vltava.positions");
}
