//! Accepting connections of other nodes.
//!
//! The owner of a listener offers each accepted connection to an [`Acceptor`], which looks at its first bytes and
//! hands it to the server of its plane. What is not ours comes back untouched, with the bytes already read: on a
//! listener shared with Kafka clients that is a Kafka connection.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::Connected;
use tower::Service;
use tower::util::BoxCloneSyncService;
use vltava_host::net::{Detached, TcpListener, TcpStream};
use vltava_host::task;

use crate::{CONNECTION_WINDOW_BYTES, Plane, STREAM_WINDOW_BYTES};

/// What a data connection sends before its HTTP/2 preface.
pub const DATA_PREAMBLE: &[u8; 8] = b"VLTAVA-D";

/// How every HTTP/2 connection begins (RFC 9113, section 3.4). As the length of a Kafka frame it would be 1.3 GB.
const HTTP2_PREFACE: &[u8; 8] = b"PRI * HT";

/// A client that connects and says nothing is dropped after this.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepted connections that wait for their server; more are refused.
const MAX_PENDING_CONNECTIONS: usize = 128;

/// The services that one plane answers.
#[derive(Clone, Default)]
pub struct Routes {
    services: Vec<(&'static str, GrpcService)>,
}

type GrpcService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

impl Routes {
    /// No service yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated service.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: NamedService
            + Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.services.push((S::NAME, BoxCloneSyncService::new(service)));
        self
    }
}

impl Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.services.iter_mut().find(|(service, _)| *service == name) {
            Some((_, service)) => Box::pin(service.call(request)),
            None => Box::pin(async { Ok(tonic::Status::unimplemented("no such service here").into_http()) }),
        }
    }
}

/// A running server of one plane. Dropping it stops taking connections and closes those it has.
pub struct PlaneServer {
    connections: mpsc::Sender<Detached>,
    stop: watch::Sender<bool>,
}

/// Starts serving `routes` on the current runtime.
#[must_use]
pub fn serve(plane: Plane, routes: Routes) -> PlaneServer {
    let (connections, incoming) = mpsc::channel(MAX_PENDING_CONNECTIONS);
    let (stop, stopped) = watch::channel(false);
    task::spawn(run(plane, routes, incoming, stopped));
    PlaneServer { connections, stop }
}

/// Takes connections and gives them to the servers of their planes.
#[derive(Clone, Default)]
pub struct Acceptor {
    control: Option<Arc<PlaneServer>>,
    data: Option<Arc<PlaneServer>>,
}

/// What became of an offered connection.
pub enum Offered {
    /// Another node's; it is being served.
    Taken,
    /// Not another node's: its first bytes, already read, and the rest.
    NotOurs { stream: TcpStream, first_bytes: [u8; 8] },
}

impl Acceptor {
    /// An acceptor for these servers; connections to a plane without one are closed.
    #[must_use]
    pub fn new(control: Option<Arc<PlaneServer>>, data: Option<Arc<PlaneServer>>) -> Self {
        Self { control, data }
    }

    /// Reads a connection's first bytes and takes it if another node opened it. Waits for those bytes, so call this
    /// from the connection's own task.
    pub async fn offer(&self, mut stream: TcpStream) -> io::Result<Offered> {
        let mut first_bytes = [0; 8];
        tokio::time::timeout(FIRST_BYTES_TIMEOUT, stream.read_exact(&mut first_bytes))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no byte came in time"))??;
        let (server, plane) = match &first_bytes {
            HTTP2_PREFACE => (&self.control, Plane::Control),
            DATA_PREAMBLE => (&self.data, Plane::Data),
            _ => return Ok(Offered::NotOurs { stream, first_bytes }),
        };
        stream.set_nodelay(true)?;
        let server = server.as_ref().ok_or_else(|| io::Error::other(format!("no {plane:?} server here")))?;
        let connection = Detached::detach(stream)?;
        server.connections.try_send(connection).map_err(|_| io::Error::other("too many connections are waiting"))?;
        Ok(Offered::Taken)
    }
}

/// Serves a listener that only other nodes use, until it is dropped. Everything else that connects is closed.
pub async fn accept_peers(listener: TcpListener, acceptor: Acceptor) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed instead of spinning.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let acceptor = acceptor.clone();
        task::spawn(async move {
            match acceptor.offer(stream).await {
                Ok(Offered::Taken) => {}
                Ok(Offered::NotOurs { first_bytes, .. }) => {
                    tracing::warn!(%from, ?first_bytes, "closed a connection that is not from another node");
                }
                Err(error) => tracing::debug!(%from, %error, "closed a connection"),
            }
        });
    }
}

async fn run(plane: Plane, routes: Routes, incoming: mpsc::Receiver<Detached>, stopped: watch::Receiver<bool>) {
    let connection_stopped = stopped.clone();
    let incoming = stream::unfold(incoming, move |mut incoming| {
        let stopped = connection_stopped.clone();
        async move {
            let connection = incoming.recv().await?;
            Some((Connection::new(plane, connection, stopped), incoming))
        }
    });
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(1024)
        .max_frame_size(1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
        .serve_with_incoming(routes, incoming);
    let mut stopped = stopped;
    tokio::select! {
        biased;
        // An error means that the sender is gone, which stops the server too.
        _ = stopped.wait_for(|stopped| *stopped) => {}
        served = served => {
            if let Err(error) = served {
                tracing::error!(?plane, %error, "the server for other nodes failed");
            }
        }
    }
}

impl Drop for PlaneServer {
    fn drop(&mut self) {
        // Nobody is left to tell if every connection has ended.
        self.stop.send_replace(true);
    }
}

/// An accepted connection whose first bytes have been read, and which ends when its server stops.
struct Connection {
    stream: TcpStream,
    /// Bytes to hand out before those of the socket.
    preface: &'static [u8],
    stopped: BoxFuture<'static, ()>,
}

impl Connection {
    fn new(plane: Plane, connection: Detached, mut stopped: watch::Receiver<bool>) -> io::Result<Self> {
        let preface: &'static [u8] = match plane {
            Plane::Control => HTTP2_PREFACE,
            Plane::Data => &[],
        };
        let stopped = Box::pin(async move {
            // An error means that the server is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        Ok(Self { stream: connection.attach()?, preface, stopped })
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stopped.as_mut().poll(context).is_ready() {
            // A future must not be polled again after it ended.
            self.stopped = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server was stopped")));
        }
        if !self.preface.is_empty() {
            let count = self.preface.len().min(buffer.remaining());
            let (now, later) = self.preface.split_at(count);
            buffer.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
