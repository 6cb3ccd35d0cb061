//! One client connection: frames in, answers out, in the order of the requests.
//!
//! Requests are begun strictly one after another, so that the batches of one producer reach the log in the order sent.
//! Only the wait of a produce request for its replicas overlaps with later requests.
//!
//! Everything here is bounded: a frame by `socket.request.max.bytes`, checked before anything is allocated, while the
//! buffer grows with the bytes that really came and not with the length that was claimed; the answers that a client
//! does not read by [`MAX_UNWRITTEN_BYTES`] and one more answer; requests in work by
//! `vltava.connection.max.requests.in.flight`.

mod reader;
mod writer;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, warn};
use vltava_host::net::TcpStream;
use vltava_host::task;
use vltava_protocol::frame::{self, Header, Incoming};

use crate::Broker;
use crate::api::{self, Answer, Refusal, RequestContext, api_versions};
pub(crate) use crate::connection::reader::LargeFrames;
use crate::connection::reader::{Frame, FrameReader, ReadError};
use crate::connection::writer::{AnswerQueue, answer_queue};
use crate::server::stopped;

/// A connection whose client leaves more than this unread begins no further request.
const MAX_UNWRITTEN_BYTES: usize = 256 * 1024;

/// How long a closing connection may still write answers that are due.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// Who asks, and over which listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub peer: SocketAddr,
    /// The client is told the endpoints that brokers advertise under this name.
    pub listener: String,
}

/// Serves a connection until its client closes it, breaks the protocol or says nothing for too long, or until
/// `stopping`. `first_bytes` were read already. Never panics, whatever a handler does.
pub(crate) async fn serve(
    broker: Arc<Broker>,
    info: ConnectionInfo,
    stream: TcpStream,
    first_bytes: BytesMut,
    stopping: watch::Receiver<bool>,
) {
    let peer = info.peer;
    let listener = info.listener.clone();
    let ended = AssertUnwindSafe(exchange(broker, info, stream, first_bytes, stopping)).catch_unwind().await;
    match ended {
        Ok(Ok(())) => debug!(%peer, listener, "connection ended"),
        Ok(Err(Ended::Read(error))) if error.is_ordinary() => debug!(%peer, listener, %error, "connection ended"),
        Ok(Err(Ended::Idle)) => debug!(%peer, listener, "closing a connection that was idle for too long"),
        Ok(Err(ended)) => warn!(%peer, listener, "closing connection: {ended}"),
        Err(panic) => error!(%peer, listener, "closing connection: a request handler panicked: {}", panic_text(&panic)),
    }
}

/// Why a connection ended otherwise than by its client's will.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{refusal} (client id {client_id:?})")]
    Refused { refusal: Refusal, client_id: String },
    #[error("no request came for too long")]
    Idle,
}

/// Reads and answers requests. Answers that are due are still written before this returns.
async fn exchange(
    broker: Arc<Broker>,
    info: ConnectionInfo,
    stream: TcpStream,
    first_bytes: BytesMut,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Ended> {
    let network = &broker.config.network;
    let idle = network.connections_max_idle;
    let (read_half, write_half) = stream.into_split();
    let (answers, queued) = answer_queue(network.max_requests_in_flight);
    let writer = task::spawn(writer::write_answers(queued, write_half, idle));
    let mut frames =
        FrameReader::new(read_half, first_bytes, network.socket_request_max_bytes, broker.large_frames.clone());

    let ended = tokio::select! {
        biased;
        () = answers.closed() => Ok(()),
        ended = answer_requests(&broker, &info, &mut frames, &answers, &mut stopping) => ended,
    };
    drop(answers);
    match tokio::time::timeout(CLOSING_TIMEOUT, writer).await {
        Ok(Ok(written)) => written.map_err(|refusal| Ended::Refused { refusal, client_id: String::new() })?,
        Ok(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Ok(Err(_)) | Err(_) => {}
    }
    ended
}

async fn answer_requests<R: AsyncRead + Unpin>(
    broker: &Arc<Broker>,
    info: &ConnectionInfo,
    frames: &mut FrameReader<R>,
    answers: &AnswerQueue,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), Ended> {
    let idle = broker.config.network.connections_max_idle;
    loop {
        answers.wait_until_below(MAX_UNWRITTEN_BYTES).await;
        let frame = tokio::select! {
            biased;
            () = stopped(stopping) => return Ok(()),
            frame = next_frame(frames, answers, idle) => frame?,
        };
        let Some(frame) = frame else { return Ok(()) };

        let Frame { bytes, room } = frame;
        let answer = match frame::read_header(bytes) {
            Ok(Incoming::Request { header, body }) => begin(broker, info, &header, body)
                .await
                .map_err(|refusal| Ended::Refused { refusal, client_id: client_name(&header) })?,
            Ok(Incoming::NotBuilt { api_key, version, response }) => {
                debug!(peer = %info.peer, api_key, version, "refusing an api that is not built yet");
                Answer::Frame(response)
            }
            Ok(Incoming::ApiVersionsTooNew { correlation_id }) => Answer::Frame(api_versions::too_new(correlation_id)),
            Err(error) => return Err(Ended::Refused { refusal: error.into(), client_id: String::new() }),
        };
        drop(room);
        answers.send(answer).await;
    }
}

/// The next frame, or `None` where the client is done. A connection with requests in work is not idle.
async fn next_frame<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    answers: &AnswerQueue,
    idle: Option<Duration>,
) -> Result<Option<Frame>, Ended> {
    let Some(idle) = idle else { return Ok(frames.next().await?) };
    loop {
        match tokio::time::timeout(idle, frames.next()).await {
            Ok(frame) => return Ok(frame?),
            Err(_) if answers.has_unanswered() => {}
            Err(_) => return Err(Ended::Idle),
        }
    }
}

/// Begins a request, and times it until its answer is there.
async fn begin(broker: &Arc<Broker>, info: &ConnectionInfo, header: &Header, body: Bytes) -> Result<Answer, Refusal> {
    let begun = Instant::now();
    let api = header.api.name();
    let context = RequestContext {
        broker,
        image: broker.image(),
        version: header.version,
        client_id: header.client_id.as_deref(),
        connection: info,
    };
    let answer = api::dispatch(&context, header, body).await?;
    let Answer::Later(later) = answer else {
        broker.metrics.on_answered(api, begun.elapsed());
        return Ok(answer);
    };
    let metrics = broker.metrics.clone();
    Ok(Answer::Later(Box::pin(async move {
        let answer = later.await;
        metrics.on_answered(api, begun.elapsed());
        answer
    })))
}

fn client_name(header: &Header) -> String {
    // Bounded, because it goes to the log.
    header.client_id.as_deref().unwrap_or_default().chars().take(100).collect()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
