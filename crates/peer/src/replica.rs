//! Replica streams: followers take a leader's records over one standing stream per pair of brokers.
//!
//! Streams run on the data plane. Nothing but these streams moves a high watermark: a client's Fetch cannot reach them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use vltava_host::task;
use vltava_replication::{EpochEndOffset, FollowerSubscription};
use vltava_types::{
    BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, Uuid,
};

use crate::server::Routes;
use crate::{CallError, MAX_MESSAGE_BYTES};

/// Frames that may wait to be sent, in either direction. Little: what waits cannot be coalesced any more.
const MAX_WAITING_FRAMES: usize = 4;

/// How long a follower that opened a stream may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of a subscription within its stream; never used again in that stream.
pub type SubscriptionId = u32;

/// Who opens a stream, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub cluster_id: String,
    pub follower: BrokerId,
    /// Refused by anyone else: an address may have changed hands.
    pub leader: BrokerId,
    /// How many bytes of records may be under way.
    pub credit_bytes: u64,
}

/// What a follower sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowerFrame {
    pub subscribe: Vec<Subscribe>,
    pub unsubscribe: Vec<SubscriptionId>,
    pub acknowledge: Vec<Acknowledge>,
    /// Bytes of records taken since the stream began.
    pub received_bytes: u64,
}

/// Asks for a partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub id: SubscriptionId,
    pub partition: TopicPartition,
    /// Its follower is that of the stream's [`Hello`].
    pub subscription: FollowerSubscription,
}

/// What a follower has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledge {
    pub id: SubscriptionId,
    pub log_end_offset: Offset,
    pub durable_offset: Offset,
    /// What lies below is gone, even after a crash.
    pub log_start_offset: Offset,
}

/// What a leader sends: at most one update of each subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderFrame {
    pub updates: Vec<Update>,
}

/// News of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub id: SubscriptionId,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    pub news: News,
}

/// What an update is about, besides the offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Whole batches, as they stand in the leader's log. Empty if only the offsets changed (trap 17).
    Records(Bytes),
    /// The follower has to cut its log and subscribe again. The subscription is over.
    Diverging(EpochEndOffset),
    /// The follower's end is not in the leader's log. The subscription is over.
    OutOfRange { log_start_offset: Offset, log_end_offset: Offset },
    /// Not led here, not in that epoch, or not for this follower. The subscription is over.
    Refused(ErrorCode),
}

/// The leading side of streams.
pub trait ReplicaHandler: Send + Sync + 'static {
    /// A follower opened a stream. The stream ends when this returns.
    fn follow(
        &self,
        hello: Hello,
        frames: FollowerFrames,
        updates: mpsc::Sender<LeaderFrame>,
    ) -> impl Future<Output = ()> + Send;
}

/// Adds the replica service to a plane.
pub fn add_routes<H: ReplicaHandler>(routes: Routes, handler: Arc<H>) -> Routes {
    routes.with(
        messages::replica_server::ReplicaServer::new(Service { handler })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
}

/// Opens a stream to the leader behind a data-plane channel.
pub async fn follow(
    channel: Channel,
    hello: Hello,
    deadline: Duration,
) -> Result<(mpsc::Sender<FollowerFrame>, LeaderFrames), CallError> {
    let (frames, outgoing) = mpsc::channel::<FollowerFrame>(MAX_WAITING_FRAMES);
    let first = messages::FollowerFrame { hello: Some(hello.into()), ..Default::default() };
    let later = stream::unfold(outgoing, |mut outgoing| async move {
        let frame = outgoing.recv().await?;
        Some((messages::FollowerFrame::from(frame), outgoing))
    });
    let mut client = messages::replica_client::ReplicaClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    // No deadline on the stream itself, only on opening it.
    let opened = client.follow(stream::once(async { first }).chain(later));
    match tokio::time::timeout(deadline, opened).await {
        Ok(opened) => Ok((frames, LeaderFrames { frames: opened?.into_inner() })),
        Err(_) => Err(CallError::Unreachable(format!("no stream within {deadline:?}"))),
    }
}

/// A leader's frames, as they arrive.
pub struct LeaderFrames {
    frames: Streaming<messages::LeaderFrame>,
}

impl LeaderFrames {
    /// The next frame; `None` once the stream has ended in order. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<Result<LeaderFrame, CallError>> {
        Some(match self.frames.next().await? {
            Ok(frame) => LeaderFrame::try_from(frame),
            Err(status) => Err(status.into()),
        })
    }
}

/// A follower's frames, as they arrive.
pub struct FollowerFrames {
    follower: BrokerId,
    frames: Streaming<messages::FollowerFrame>,
}

impl FollowerFrames {
    /// The next frame; `None` once the stream has ended in order. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<Result<FollowerFrame, CallError>> {
        Some(match self.frames.next().await? {
            Ok(frame) => read_frame(self.follower, frame),
            Err(status) => Err(status.into()),
        })
    }
}

pub(crate) fn read_frame(follower: BrokerId, frame: messages::FollowerFrame) -> Result<FollowerFrame, CallError> {
    let subscribe = |message| read_subscribe(follower, message);
    Ok(FollowerFrame {
        subscribe: frame.subscribe.into_iter().map(subscribe).collect::<Result<_, _>>()?,
        unsubscribe: frame.unsubscribe,
        acknowledge: frame.acknowledge.into_iter().map(Acknowledge::from).collect(),
        received_bytes: frame.received_bytes,
    })
}

struct Service<H> {
    handler: Arc<H>,
}

#[tonic::async_trait]
impl<H: ReplicaHandler> messages::replica_server::Replica for Service<H> {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<messages::LeaderFrame, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<messages::FollowerFrame>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, frames.next())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came in time"))?
            .ok_or_else(|| Status::invalid_argument("no hello came"))??;
        let hello = Hello::from(first.hello.ok_or_else(|| Status::invalid_argument("the first frame has no hello"))?);
        let (updates, outgoing) = mpsc::channel(MAX_WAITING_FRAMES);
        let handler = Arc::clone(&self.handler);
        let frames = FollowerFrames { follower: hello.follower, frames };
        task::spawn(async move { handler.follow(hello, frames, updates).await });
        let outgoing = stream::unfold(outgoing, |mut outgoing| async move {
            let frame = outgoing.recv().await?;
            Some((Ok(messages::LeaderFrame::from(frame)), outgoing))
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

impl From<Hello> for messages::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            cluster_id: hello.cluster_id,
            follower_id: hello.follower.value(),
            leader_id: hello.leader.value(),
            credit_bytes: hello.credit_bytes,
        }
    }
}

impl From<messages::Hello> for Hello {
    fn from(hello: messages::Hello) -> Self {
        Self {
            cluster_id: hello.cluster_id,
            follower: BrokerId(hello.follower_id),
            leader: BrokerId(hello.leader_id),
            credit_bytes: hello.credit_bytes,
        }
    }
}

impl From<FollowerFrame> for messages::FollowerFrame {
    fn from(frame: FollowerFrame) -> Self {
        Self {
            hello: None,
            subscribe: frame.subscribe.into_iter().map(messages::Subscribe::from).collect(),
            unsubscribe: frame.unsubscribe,
            acknowledge: frame.acknowledge.into_iter().map(messages::Acknowledge::from).collect(),
            received_bytes: frame.received_bytes,
        }
    }
}

impl From<Subscribe> for messages::Subscribe {
    fn from(subscribe: Subscribe) -> Self {
        let Subscribe { id, partition, subscription } = subscribe;
        Self {
            subscription: id,
            topic_id: Bytes::copy_from_slice(&partition.topic_id.0.0),
            partition: partition.partition.value(),
            leader_epoch: subscription.leader_epoch.value(),
            broker_epoch: subscription.broker_epoch.value(),
            fetch_offset: subscription.fetch_offset.value(),
            last_fetched_epoch: subscription.last_fetched_epoch.value(),
            durable_offset: subscription.durable_offset.value(),
            log_start_offset: subscription.log_start_offset.value(),
        }
    }
}

fn read_subscribe(follower: BrokerId, message: messages::Subscribe) -> Result<Subscribe, CallError> {
    let topic_id: [u8; 16] =
        message.topic_id[..].try_into().map_err(|_| CallError::Refused("a topic id has 16 bytes".to_owned()))?;
    Ok(Subscribe {
        id: message.subscription,
        partition: TopicPartition { topic_id: TopicId(Uuid(topic_id)), partition: PartitionIndex(message.partition) },
        subscription: FollowerSubscription {
            follower,
            broker_epoch: BrokerEpoch(message.broker_epoch),
            leader_epoch: LeaderEpoch(message.leader_epoch),
            fetch_offset: Offset(message.fetch_offset),
            last_fetched_epoch: LeaderEpoch(message.last_fetched_epoch),
            durable_offset: Offset(message.durable_offset),
            log_start_offset: Offset(message.log_start_offset),
        },
    })
}

impl From<Acknowledge> for messages::Acknowledge {
    fn from(acknowledge: Acknowledge) -> Self {
        Self {
            subscription: acknowledge.id,
            log_end_offset: acknowledge.log_end_offset.value(),
            durable_offset: acknowledge.durable_offset.value(),
            log_start_offset: acknowledge.log_start_offset.value(),
        }
    }
}

impl From<messages::Acknowledge> for Acknowledge {
    fn from(message: messages::Acknowledge) -> Self {
        Self {
            id: message.subscription,
            log_end_offset: Offset(message.log_end_offset),
            durable_offset: Offset(message.durable_offset),
            log_start_offset: Offset(message.log_start_offset),
        }
    }
}

impl From<LeaderFrame> for messages::LeaderFrame {
    fn from(frame: LeaderFrame) -> Self {
        Self { updates: frame.updates.into_iter().map(messages::Update::from).collect() }
    }
}

impl TryFrom<messages::LeaderFrame> for LeaderFrame {
    type Error = CallError;

    fn try_from(message: messages::LeaderFrame) -> Result<Self, CallError> {
        Ok(Self { updates: message.updates.into_iter().map(Update::try_from).collect::<Result<_, _>>()? })
    }
}

impl From<Update> for messages::Update {
    fn from(update: Update) -> Self {
        use messages::update::End;
        let (records, end) = match update.news {
            News::Records(records) => (records, None),
            News::Diverging(end) => {
                let diverging = messages::Diverging { epoch: end.epoch.value(), end_offset: end.end_offset.value() };
                (Bytes::new(), Some(End::Diverging(diverging)))
            }
            News::OutOfRange { log_start_offset, log_end_offset } => {
                let out_of_range = messages::OutOfRange {
                    log_start_offset: log_start_offset.value(),
                    log_end_offset: log_end_offset.value(),
                };
                (Bytes::new(), Some(End::OutOfRange(out_of_range)))
            }
            News::Refused(code) => (Bytes::new(), Some(End::Refused(i32::from(code.code())))),
        };
        Self {
            subscription: update.id,
            high_watermark: update.high_watermark.value(),
            log_start_offset: update.log_start_offset.value(),
            records,
            end,
        }
    }
}

impl TryFrom<messages::Update> for Update {
    type Error = CallError;

    fn try_from(message: messages::Update) -> Result<Self, CallError> {
        use messages::update::End;
        let news = match message.end {
            None => News::Records(message.records),
            Some(End::Diverging(diverging)) => News::Diverging(EpochEndOffset {
                epoch: LeaderEpoch(diverging.epoch),
                end_offset: Offset(diverging.end_offset),
            }),
            Some(End::OutOfRange(range)) => News::OutOfRange {
                log_start_offset: Offset(range.log_start_offset),
                log_end_offset: Offset(range.log_end_offset),
            },
            Some(End::Refused(code)) => {
                let code = i16::try_from(code).ok().and_then(ErrorCode::from_code);
                News::Refused(code.unwrap_or(ErrorCode::UnknownServerError))
            }
        };
        // Wrong numbers would survive until an assertion of ours.
        let is_wrong = match &news {
            News::Records(_) | News::Refused(_) => false,
            News::Diverging(end) => end.end_offset < Offset(0),
            News::OutOfRange { log_start_offset, log_end_offset } => {
                *log_start_offset < Offset(0) || log_end_offset < log_start_offset
            }
        };
        if is_wrong || message.high_watermark < 0 || message.log_start_offset < 0 {
            return Err(CallError::Refused("offsets are not negative".to_owned()));
        }
        Ok(Self {
            id: message.subscription,
            high_watermark: Offset(message.high_watermark),
            log_start_offset: Offset(message.log_start_offset),
            news,
        })
    }
}

pub(crate) mod messages {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("vltava.replica");
}
