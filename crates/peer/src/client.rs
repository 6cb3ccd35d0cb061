//! Connections to other nodes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tonic::transport::Channel;
use tower::Service;
use vltava_host::net::{self, TcpStream};
use vltava_metadata::Endpoint;

use crate::server::DATA_PREAMBLE;
use crate::{CONNECTION_WINDOW_BYTES, CallError, Plane, STREAM_WINDOW_BYTES};

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after the first failed attempt to connect; it doubles with each further one up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(10);

/// The longest pause between attempts to connect. A restarted node waits at most this long to be found again.
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// A connection on which nothing came for this long is asked for a sign of life, and given up when none comes for
/// [`KEEP_ALIVE_TIMEOUT`]: after a cut, a path may stay dead without telling while another one to the same node works.
/// Together no longer than a broker's session, so that a node that is alive is followed again before it counts as dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A channel to another node. It connects when first used and reconnects when used after a failure; calls made
/// meanwhile fail at once or wait for the attempt, within their deadline. Cheap to clone, and bound to the runtime that
/// this is called on.
#[must_use]
pub fn connect(endpoint: &Endpoint, plane: Plane) -> Channel {
    let connector = Connector { endpoint: Arc::new(endpoint.clone()), plane, failures: Arc::default() };
    // The address is the connector's business. The URI only has to be well-formed.
    tonic::transport::Endpoint::from_static("http://peer.vltava")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(1024 * 1024)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// What a probe of another node's process found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Something listens there.
    Listening,
    /// The machine answered that nothing listens there: the process is dead.
    Refused,
    /// No answer. The process may be alive behind a broken network.
    Unknown,
}

/// Finds out whether a node's process is alive.
pub async fn probe(endpoint: &Endpoint) -> Probe {
    match tokio::time::timeout(CONNECT_TIMEOUT, net::connect(&endpoint.host, endpoint.port)).await {
        Ok(Ok(_)) => Probe::Listening,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Probe::Refused,
        Ok(Err(_)) | Err(_) => Probe::Unknown,
    }
}

/// Bounds a call by its deadline, and tells the other side of it so that it stops working when nobody waits.
pub(crate) async fn unary<M, T, F>(
    deadline: Duration,
    message: M,
    call: impl FnOnce(tonic::Request<M>) -> F,
) -> Result<T, CallError>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    match tokio::time::timeout(deadline, call(request)).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CallError::Unreachable(format!("no answer within {deadline:?}"))),
    }
}

/// Opens TCP connections through the host's seam.
#[derive(Clone)]
struct Connector {
    endpoint: Arc<Endpoint>,
    plane: Plane,
    /// Attempts that failed since the last success.
    failures: Arc<AtomicU32>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let failures = connector.failures.load(Ordering::Relaxed);
            if failures > 0 {
                tokio::time::sleep(backoff(failures)).await;
            }
            match connector.open().await {
                Ok(stream) => {
                    connector.failures.store(0, Ordering::Relaxed);
                    Ok(TokioIo::new(stream))
                }
                Err(error) => {
                    connector.failures.store(failures.saturating_add(1), Ordering::Relaxed);
                    Err(error)
                }
            }
        })
    }
}

impl Connector {
    async fn open(&self) -> io::Result<TcpStream> {
        let mut stream = net::connect(&self.endpoint.host, self.endpoint.port).await?;
        stream.set_nodelay(true)?;
        if self.plane == Plane::Data {
            stream.write_all(DATA_PREAMBLE).await?;
        }
        Ok(stream)
    }
}

fn backoff(failures: u32) -> Duration {
    MIN_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_BACKOFF)
}
