//! HTTP for probes and for Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! Bound before anything else of the node starts, so that a broker that reads its logs again after a crash is seen to
//! live. Bounded: so many connections, each with a small head, an answer of what is known, and a time limit.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use vltava::node::NodeView;
use vltava::node::metrics;
use vltava_broker::config::HttpListener;
use vltava_host::net::{TcpListener, TcpStream};
use vltava_host::{net, task};
use vltava_storage::LoadProgress;

/// Connections at one time; probes and a scraper need a handful.
const MAX_CONNECTIONS: usize = 64;

/// A connection ends after this long, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The format that Prometheus asks for and every scraper reads.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How far the node has come.
#[derive(Clone)]
pub enum Phase {
    /// Logs are being opened, or the quorum is being formed.
    Starting(LoadProgress),
    /// It is up, which does not mean that it is ready.
    Up(NodeView),
    Stopping,
}

/// Binds the listener and answers from now on. `None` if it is switched off, or if nobody asked for it and its port is
/// taken, by another broker on this machine as a rule.
pub async fn start(listener: Option<&HttpListener>, phase: watch::Receiver<Phase>) -> io::Result<Option<()>> {
    let Some(HttpListener { address, is_default }) = listener else { return Ok(None) };
    let host = if address.host.is_empty() { "0.0.0.0" } else { &address.host };
    let socket = match net::bind(host, address.port).await {
        Ok(socket) => socket,
        Err(error) if *is_default => {
            tracing::warn!("health and metrics are not served at {address} ({error}): set vltava.http.listener");
            return Ok(None);
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("vltava.http.listener {address}: {error}"))),
    };
    tracing::info!("health and metrics at http://{}/livez, /readyz and /metrics", socket.local_addr()?);
    task::spawn(accept(socket, phase));
    Ok(Some(()))
}

async fn accept(socket: TcpListener, phase: watch::Receiver<Phase>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await.expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((stream, _)) => {
                let phase = phase.clone();
                task::spawn(async move {
                    let _permit = permit;
                    // A client that is slow or gone is no concern of ours.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve(stream, phase)).await;
                });
            }
            Err(error) => {
                tracing::debug!("cannot accept an http connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, phase: watch::Receiver<Phase>) -> Result<(), hyper::Error> {
    let answer = |request: Request<Incoming>| {
        let phase = phase.borrow().clone();
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &phase)) }
    };
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await
}

fn answer(method: &Method, path: &str, phase: &Phase) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n".to_owned());
    }
    match path {
        "/livez" => text(StatusCode::OK, "live\n".to_owned()),
        "/readyz" => match readiness(phase) {
            Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => {
            let view = if let Phase::Up(view) = phase { Some(view) } else { None };
            let mut response = text(StatusCode::OK, metrics::encode(view));
            response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS.parse().expect("a header value"));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

fn readiness(phase: &Phase) -> Result<(), String> {
    match phase {
        Phase::Starting(progress) => Err(match progress.loading() {
            Some(loading) => loading.to_string(),
            None => "the node is starting: logs are opened, or the metadata quorum is formed".to_owned(),
        }),
        Phase::Up(view) => view.readiness().map_err(|unready| unready.to_string()),
        Phase::Stopping => Err("the node is shutting down".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
