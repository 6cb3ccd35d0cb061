//! Calls to the active controller, and the standing session of each node with it.
//!
//! Requests and responses are the encoded [`vltava_metadata::controller`] types.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use vltava_host::task;
use vltava_metadata::Endpoint;

use crate::client::{connect, unary};
use crate::server::Routes;
use crate::{CallError, MAX_MESSAGE_BYTES, Plane};

use messages::call_response::{NotController, Outcome};

/// Calls of one session that may be under way at a time.
const MAX_CALLS_PER_SESSION: usize = 16;

/// A request to the active controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerCall {
    pub cluster_id: String,
    pub node_id: u64,
    pub request: Bytes,
}

/// The answer of the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerReply {
    Response(Bytes),
    /// This node is not the active controller, or ceased to be while deciding: the outcome is unknown.
    NotController {
        leader_id: Option<u64>,
    },
}

/// A node that may be the active controller.
pub trait ControllerHandler: Send + Sync + 'static {
    fn call(&self, call: ControllerCall) -> impl Future<Output = Result<ControllerReply, CallError>> + Send;

    /// A node's session ended without the node having closed it in order: its process may have died.
    fn session_reset(&self, node_id: u64);
}

/// Adds the controller service to a plane.
pub fn add_routes<H: ControllerHandler>(routes: Routes, handler: Arc<H>) -> Routes {
    routes.with(
        messages::controller_server::ControllerServer::new(Service { handler })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
}

/// Another node that may be the active controller. Cheap to clone.
#[derive(Clone)]
pub struct ControllerClient {
    client: messages::controller_client::ControllerClient<Channel>,
}

impl ControllerClient {
    /// A client that connects when first used.
    #[must_use]
    pub fn new(endpoint: &Endpoint) -> Self {
        let client = messages::controller_client::ControllerClient::new(connect(endpoint, Plane::Control))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { client }
    }

    pub async fn call(&self, call: ControllerCall, deadline: Duration) -> Result<ControllerReply, CallError> {
        let mut client = self.client.clone();
        let reply = unary(deadline, call.into(), |request| async move { client.call(request).await }).await?;
        reply.try_into()
    }

    /// Opens this node's standing session. It stands until either half is dropped. A call with an empty request is not
    /// answered: it tells whose session this is.
    pub async fn session(
        &self,
        requests: mpsc::Receiver<(u64, ControllerCall)>,
        deadline: Duration,
    ) -> Result<Session, CallError> {
        let mut client = self.client.clone();
        let requests = stream::unfold(requests, |mut requests| async move {
            let (sequence, call) = requests.recv().await?;
            Some((messages::SessionRequest { sequence, call: Some(call.into()) }, requests))
        });
        // No deadline on the stream itself, only on opening it.
        match tokio::time::timeout(deadline, client.session(requests)).await {
            Ok(opened) => Ok(Session { replies: opened?.into_inner() }),
            Err(_) => Err(CallError::Unreachable(format!("no session within {deadline:?}"))),
        }
    }
}

/// The answers of a standing session.
pub struct Session {
    replies: Streaming<messages::SessionResponse>,
}

impl Session {
    /// The next answer with the sequence of its request; an error or `None` once the session has ended.
    pub async fn next(&mut self) -> Option<Result<(u64, ControllerReply), CallError>> {
        let response = match self.replies.next().await? {
            Ok(response) => response,
            Err(status) => return Some(Err(status.into())),
        };
        let Some(reply) = response.reply else {
            return Some(Err(CallError::Refused("an answer without content".to_owned())));
        };
        Some(reply.try_into().map(|reply| (response.sequence, reply)))
    }
}

struct Service<H> {
    handler: Arc<H>,
}

type Replies = Pin<Box<dyn Stream<Item = Result<messages::SessionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl<H: ControllerHandler> messages::controller_server::Controller for Service<H> {
    async fn call(&self, request: Request<messages::CallRequest>) -> Result<Response<messages::CallResponse>, Status> {
        let reply = self.handler.call(request.into_inner().into()).await.map_err(refuse)?;
        Ok(Response::new(reply.into()))
    }

    type SessionStream = Replies;

    async fn session(
        &self,
        request: Request<Streaming<messages::SessionRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let (replies, outgoing) = mpsc::channel(MAX_CALLS_PER_SESSION);
        task::spawn(serve_session(self.handler.clone(), request.into_inner(), replies));
        let outgoing = stream::unfold(outgoing, |mut outgoing| async move {
            let reply = outgoing.recv().await?;
            Some((reply, outgoing))
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Answers one node's session until it ends. Calls run side by side, so that a slow one delays no heartbeat.
async fn serve_session<H: ControllerHandler>(
    handler: Arc<H>,
    mut requests: Streaming<messages::SessionRequest>,
    replies: mpsc::Sender<Result<messages::SessionResponse, Status>>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CALLS_PER_SESSION));
    let mut node_id = None;
    let was_reset = loop {
        let message = tokio::select! {
            biased;
            // The reply half is dropped with the connection, even if nothing can be read any more.
            () = replies.closed() => break true,
            message = requests.message() => message,
        };
        let messages::SessionRequest { sequence, call: Some(call) } = (match message {
            Ok(Some(message)) => message,
            Ok(None) => break false,
            Err(_) => break true,
        }) else {
            continue;
        };
        node_id = Some(call.node_id);
        if call.request.is_empty() {
            // The opening message: it only says whose session this is.
            continue;
        }
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (handler, replies) = (handler.clone(), replies.clone());
        task::spawn(async move {
            let reply = match handler.call(call.into()).await {
                Ok(reply) => Ok(messages::SessionResponse { sequence, reply: Some(reply.into()) }),
                Err(error) => Err(refuse(error)),
            };
            // An error means that the session has ended and nobody waits for this answer.
            let _ = replies.send(reply).await;
            drop(slot);
        });
    };
    if let (true, Some(node_id)) = (was_reset, node_id) {
        handler.session_reset(node_id);
    }
}

fn refuse(error: CallError) -> Status {
    match error {
        CallError::Refused(reason) => Status::failed_precondition(reason),
        CallError::Unreachable(reason) => Status::unavailable(reason),
    }
}

impl From<ControllerCall> for messages::CallRequest {
    fn from(call: ControllerCall) -> Self {
        Self { cluster_id: call.cluster_id, node_id: call.node_id, request: call.request }
    }
}

impl From<messages::CallRequest> for ControllerCall {
    fn from(call: messages::CallRequest) -> Self {
        Self { cluster_id: call.cluster_id, node_id: call.node_id, request: call.request }
    }
}

impl From<ControllerReply> for messages::CallResponse {
    fn from(reply: ControllerReply) -> Self {
        let outcome = match reply {
            ControllerReply::Response(response) => Outcome::Response(response),
            ControllerReply::NotController { leader_id } => Outcome::NotController(NotController { leader_id }),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<messages::CallResponse> for ControllerReply {
    type Error = CallError;

    fn try_from(response: messages::CallResponse) -> Result<Self, CallError> {
        match response.outcome {
            Some(Outcome::Response(response)) => Ok(Self::Response(response)),
            Some(Outcome::NotController(NotController { leader_id })) => Ok(Self::NotController { leader_id }),
            None => Err(CallError::Refused("an answer without content".to_owned())),
        }
    }
}

pub(crate) mod messages {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("vltava.controller");
}
