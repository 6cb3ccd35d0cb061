//! Answers to requests, one file per API; this file finds the right one.
//!
//! To add an API: write `pub async fn handle(context: &RequestContext<'_>, request: XRequest) -> XResponse` in a file
//! of its own, declare the file here, and name it in [`handlers!`]. What is not named there is neither advertised
//! nor accepted.

mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
pub(crate) mod api_versions;
mod authorized_operations;
mod catch_up;
mod config_resources;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod refused;
pub(crate) mod routing;
mod sync_group;
mod unregister_broker;

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use vltava_metadata::ClusterImage;
use vltava_protocol::frame::{self, FrameError, Header};
use vltava_protocol::messages::{EncodeError, KafkaRequest as _, KafkaResponse};
use vltava_protocol::versions::ApiKey;
use vltava_storage::FileRegion;

use crate::Broker;
use crate::connection::ConnectionInfo;

/// What every handler is given besides its request.
pub struct RequestContext<'a> {
    pub broker: &'a Arc<Broker>,
    /// Taken once, when the request begins; all decisions of one request use the same image.
    pub image: Arc<ClusterImage>,
    pub version: i16,
    pub client_id: Option<&'a str>,
    pub connection: &'a ConnectionInfo,
}

/// How a connection goes on after a request has begun.
pub enum Answer {
    /// Write this frame.
    Frame(Bytes),
    /// Write this frame, which lies in pieces.
    Pieces(Vec<Piece>),
    /// Write the frame that this completes with. Later requests of the connection may begin meanwhile.
    Later(BoxFuture<'static, Result<Bytes, Refusal>>),
    /// Write nothing (Produce with acks=0).
    Nothing,
}

/// A part of a frame.
#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Bytes),
    File(FileRegion),
}

impl Piece {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(region) => region.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` bytes are written.
    pub fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::File(region) => region.advance(count),
        }
    }
}

/// Why a connection is closed instead of answered, as Kafka does where no answer would be understood.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{name} is not served")]
    NotServed { name: &'static str },
    #[error("response cannot be encoded: {0}")]
    Unencodable(#[from] EncodeError),
    /// A produce request without acknowledgements failed; closing is the only way to tell its client.
    #[error("a request that expects no answer failed: {0}")]
    Unanswerable(String),
}

/// Declares the dispatch table: API, then the file that handles it.
macro_rules! handlers {
    ($($request:ident => $module:ident,)*) => {
        /// The keys of the APIs that answer one request with one response.
        const HANDLED: &[i16] = &[$(vltava_protocol::messages::$request::API_KEY.value(),)*];

        async fn handle(context: &RequestContext<'_>, header: &Header, body: Bytes) -> Result<Answer, Refusal> {
            match header.api.code() {
                $(key if key == vltava_protocol::messages::$request::API_KEY.value() => {
                    let request: vltava_protocol::messages::$request = frame::decode_body(header, body)?;
                    // Boxed, so that a connection is as large as the request under way and not as the largest of all.
                    let response = Box::pin($module::handle(context, request)).await;
                    respond(header, &response)
                })*
                _ => Err(Refusal::NotServed { name: header.api.name() }),
            }
        }
    };
}

handlers! {
    AlterConfigsRequest => alter_configs,
    AlterPartitionReassignmentsRequest => alter_partition_reassignments,
    AlterReplicaLogDirsRequest => alter_replica_log_dirs,
    ApiVersionsRequest => api_versions,
    CreatePartitionsRequest => create_partitions,
    CreateTopicsRequest => create_topics,
    DeleteGroupsRequest => delete_groups,
    DeleteRecordsRequest => delete_records,
    DeleteTopicsRequest => delete_topics,
    DescribeClusterRequest => describe_cluster,
    DescribeConfigsRequest => describe_configs,
    DescribeGroupsRequest => describe_groups,
    DescribeLogDirsRequest => describe_log_dirs,
    DescribeProducersRequest => describe_producers,
    DescribeQuorumRequest => describe_quorum,
    DescribeTopicPartitionsRequest => describe_topic_partitions,
    ElectLeadersRequest => elect_leaders,
    FindCoordinatorRequest => find_coordinator,
    HeartbeatRequest => heartbeat,
    IncrementalAlterConfigsRequest => incremental_alter_configs,
    InitProducerIdRequest => init_producer_id,
    JoinGroupRequest => join_group,
    LeaveGroupRequest => leave_group,
    ListConfigResourcesRequest => list_config_resources,
    ListGroupsRequest => list_groups,
    ListOffsetsRequest => list_offsets,
    ListPartitionReassignmentsRequest => list_partition_reassignments,
    MetadataRequest => metadata,
    OffsetCommitRequest => offset_commit,
    OffsetDeleteRequest => offset_delete,
    OffsetFetchRequest => offset_fetch,
    OffsetForLeaderEpochRequest => offset_for_leader_epoch,
    SyncGroupRequest => sync_group,
    UnregisterBrokerRequest => unregister_broker,
}

/// Begins a request, in the order of its connection.
pub async fn dispatch(context: &RequestContext<'_>, header: &Header, body: Bytes) -> Result<Answer, Refusal> {
    if header.api == ApiKey::Produce {
        let request = frame::decode_body(header, body)?;
        let image = catch_up::image_for_produce(context, &request).await;
        return produce::begin(&RequestContext { image, ..*context }, header, request);
    }
    if header.api == ApiKey::Fetch {
        let request = frame::decode_body(header, body)?;
        return Box::pin(fetch::answer(context, header, request)).await;
    }
    handle(context, header, body).await
}

/// Whether requests of this key are served.
pub fn is_served(api: ApiKey) -> bool {
    matches!(api, ApiKey::Produce | ApiKey::Fetch) || HANDLED.contains(&api.code())
}

fn respond<R: KafkaResponse>(header: &Header, response: &R) -> Result<Answer, Refusal> {
    Ok(Answer::Frame(frame::encode_response(header.api, header.version, header.correlation_id, response)?))
}
