//! Accepts connections on the client listeners.
//!
//! Listeners are bound and accept before the broker is ready, because on a listener that other nodes share with
//! clients the quorum must form first. A client that comes early waits: its connection is served from the moment the
//! broker is given to [`Server::open`].

mod limits;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use vltava_host::net::{TcpListener, TcpStream};
use vltava_host::task::{self, JoinHandle};
use vltava_peer::server::{Acceptor, Offered};

use crate::Broker;
use crate::config::{BrokerConfig, HostPort, Listener};
use crate::connection::{self, ConnectionInfo};
use crate::server::limits::{ConnectionLimits, Slot};

/// A failing `accept` (no file descriptors left) is retried after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long connections may finish the requests they have begun when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The client listeners of one node, accepting.
pub struct Server {
    addresses: BTreeMap<String, SocketAddr>,
    broker: watch::Sender<Option<Arc<Broker>>>,
    stopping: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

/// What the accept loops share.
#[derive(Clone)]
struct Shared {
    broker: watch::Receiver<Option<Arc<Broker>>>,
    stopping: watch::Receiver<bool>,
    limits: Arc<ConnectionLimits>,
}

impl Server {
    /// Binds every client listener of `config` and begins to accept. Connections of other nodes on the listener that
    /// they share with clients go to `peers`.
    pub async fn bind(config: &BrokerConfig, peers: Option<Acceptor>) -> io::Result<Self> {
        let (broker, is_open) = watch::channel(None);
        let (stopping, is_stopping) = watch::channel(false);
        let limits = ConnectionLimits::new(config.network.max_connections, config.network.max_connections_per_ip);
        let shared = Shared { broker: is_open, stopping: is_stopping, limits: Arc::new(limits) };
        let mut server = Self { addresses: BTreeMap::new(), broker, stopping, accepting: Vec::new() };
        for listener in &config.listeners {
            let peers = peers.clone().filter(|_| listener.name == config.peer.name);
            for socket in bind(listener).await? {
                let address = socket.local_addr()?;
                info!(listener = listener.name, %address, "listening");
                server.addresses.entry(listener.name.clone()).or_insert(address);
                let accepting = accept(socket, listener.name.clone(), peers.clone(), shared.clone());
                server.accepting.push(task::spawn(accepting));
            }
        }
        Ok(server)
    }

    /// Where each listener is bound, by name.
    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// Begins to answer clients.
    pub fn open(&self, broker: Arc<Broker>) {
        self.broker.send_replace(Some(broker));
    }

    /// Accepts no more, lets every connection finish the requests it has begun, and closes them all.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        for accepting in self.accepting {
            // An accept loop that panicked has closed its connections already.
            let _ = accepting.await;
        }
    }
}

/// Binds one listener. `localhost` is bound on both address families where the machine has both: clients may try
/// either first.
async fn bind(listener: &Listener) -> io::Result<Vec<TcpListener>> {
    let HostPort { host, port } = &listener.bind;
    let explain = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot bind listener {} to {}: {error}", listener.name, listener.bind))
    };
    if host.eq_ignore_ascii_case("localhost") && !cfg!(vltava_sim) {
        let first = vltava_host::net::bind("127.0.0.1", *port).await.map_err(explain)?;
        let port = first.local_addr()?.port();
        let second = vltava_host::net::bind("::1", port).await.ok();
        return Ok(std::iter::once(first).chain(second).collect());
    }
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    Ok(vec![vltava_host::net::bind(host, *port).await.map_err(explain)?])
}

async fn accept(listener: TcpListener, name: String, peers: Option<Acceptor>, shared: Shared) {
    let mut connections = JoinSet::new();
    let mut stopping = shared.stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let info = ConnectionInfo { peer, listener: name.clone() };
                    connections.spawn(admit(stream, info, peers.clone(), shared.clone()));
                }
                Err(error) => {
                    warn!(listener = name, "cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, all_ended).await.is_err() {
        debug!(listener = name, "closing connections that still have requests in work");
    }
    // Dropping the set ends what is left.
}

/// Serves one connection, if there is room for it.
async fn admit(stream: TcpStream, info: ConnectionInfo, peers: Option<Acceptor>, mut shared: Shared) {
    let (stream, first_bytes) = match peers {
        None => (stream, BytesMut::new()),
        Some(peers) => match peers.offer(stream).await {
            Ok(Offered::NotOurs { stream, first_bytes }) => (stream, BytesMut::from(&first_bytes[..])),
            Ok(Offered::Taken) => return,
            Err(error) => return debug!(peer = %info.peer, listener = info.listener, "connection dropped: {error}"),
        },
    };
    let _slot: Slot = match shared.limits.admit(info.peer.ip()) {
        Ok(slot) => slot,
        Err(limit) => return warn!(peer = %info.peer, listener = info.listener, "connection refused: {limit}"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(peer = %info.peer, listener = info.listener, "connection dropped: {error}");
    }
    let broker = tokio::select! {
        biased;
        () = stopped(&mut shared.stopping) => return,
        broker = opened(&mut shared.broker) => match broker {
            Some(broker) => broker,
            None => return,
        },
    };
    connection::serve(broker, info, stream, first_bytes, shared.stopping).await;
}

/// Completes when the server stops.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The broker, once clients may be served.
async fn opened(broker: &mut watch::Receiver<Option<Arc<Broker>>>) -> Option<Arc<Broker>> {
    broker.wait_for(Option::is_some).await.ok()?.clone()
}
