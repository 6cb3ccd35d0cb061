//! The connections of one client to the brokers of a cluster, for many callers at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use vltava_protocol::make;
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::{MetadataRequest, MetadataResponse, RequestResponsePair};

use crate::link::{Answer, Link};
use crate::{ClientError, Options};

/// The newest version in which topics go by name.
const METADATA_VERSION: i16 = 12;

/// How long one broker is waited for before the next is asked the same.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(500);

/// Answers on one connection come in the order of the requests, so that what must not wait has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Produce, and what is answered at once.
    Data,
    /// Long polls.
    Fetch,
    /// JoinGroup and SyncGroup, which wait for other members.
    Group,
    /// Heartbeats and commits.
    Heartbeat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Broker(i32),
    /// A bootstrap address, by its place in the list.
    Bootstrap(usize),
}

/// See the module. Clones share the connections, which close with the last clone.
#[derive(Clone)]
pub(crate) struct Network {
    bootstrap: Arc<[String]>,
    options: Options,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    addresses: BTreeMap<i32, String>,
    links: BTreeMap<(Peer, Purpose), Link>,
    /// Where to begin when any broker will do; moves on with each failure.
    first_asked: usize,
}

impl Network {
    /// `bootstrap` is `host:port`, separated by commas. Connects when needed.
    pub(crate) fn new(bootstrap: &str, options: Options) -> Self {
        let bootstrap = bootstrap.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect();
        Self { bootstrap, options, state: Arc::default() }
    }

    /// Sends a request to this broker; the answer is awaited apart, so that requests go out in the order of the calls.
    pub(crate) fn submit<R: RequestResponsePair>(
        &self,
        broker: i32,
        purpose: Purpose,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<Answer<R>, ClientError> {
        self.with_link(Peer::Broker(broker), purpose, |link| link.submit(version, request, Instant::now() + timeout))
    }

    /// For requests that brokers do not answer; the receiver hears when the request went out.
    pub(crate) fn submit_unanswered<R: RequestResponsePair>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
    ) -> Result<oneshot::Receiver<()>, ClientError> {
        let deadline = Instant::now() + self.options.timeout;
        self.with_link(Peer::Broker(broker), Purpose::Data, |link| link.submit_unanswered(version, request, deadline))
    }

    /// Sends a request to this broker and waits for the answer.
    pub(crate) async fn call<R: RequestResponsePair>(
        &self,
        broker: i32,
        purpose: Purpose,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.submit(broker, purpose, version, request, self.options.timeout)?.receive().await
    }

    /// Sends a request to any broker: first those known, then the bootstrap addresses, in turn. One that does not answer
    /// soon is not given up, but the next one is asked besides: it may be cut off, or stopped.
    pub(crate) async fn call_any<R: RequestResponsePair>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let mut last_error = ClientError::NoBroker;
        let mut asked = FuturesUnordered::new();
        for peer in self.peers_in_turn() {
            let deadline = Instant::now() + self.options.timeout;
            match self.with_link(peer, Purpose::Data, |link| link.submit(version, request, deadline)) {
                Ok(answer) => asked.push(answer.receive()),
                Err(error) => last_error = error,
            }
            while !asked.is_empty() {
                match tokio::time::timeout(ASK_NEXT_AFTER, asked.next()).await {
                    Ok(Some(Ok(response))) => return Ok(response),
                    Ok(Some(Err(error))) => last_error = error,
                    Ok(None) | Err(_) => break,
                }
            }
            self.ask_another();
        }
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(response) => return Ok(response),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// The next request that any broker may answer goes to another one: a broker that is cut off from the others
    /// answers too, but with what was true before.
    pub(crate) fn ask_another(&self) {
        self.state.lock().first_asked += 1;
    }

    /// Asks any broker about `topics`, or about all if `None`, and remembers the brokers' addresses.
    pub(crate) async fn metadata(
        &self,
        topics: Option<&[String]>,
        create_missing: bool,
    ) -> Result<MetadataResponse, ClientError> {
        let named = |name: &String| make!(MetadataRequestTopic { name: Some(name.as_str().into()) });
        let request = make!(MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            allow_auto_topic_creation: create_missing,
        });
        let response = self.call_any(METADATA_VERSION, &request).await?;
        let brokers = response.brokers.iter().map(|b| (b.node_id, format!("{}:{}", b.host, b.port)));
        self.state.lock().set_addresses(brokers.collect());
        Ok(response)
    }

    /// Remembers one broker's address, such as a coordinator's.
    pub(crate) fn set_address(&self, broker: i32, address: String) {
        let mut state = self.state.lock();
        if state.addresses.get(&broker) != Some(&address) {
            state.links.retain(|(peer, _), _| *peer != Peer::Broker(broker));
            state.addresses.insert(broker, address);
        }
    }

    fn peers_in_turn(&self) -> Vec<Peer> {
        let state = self.state.lock();
        let mut brokers: Vec<Peer> = state.addresses.keys().map(|broker| Peer::Broker(*broker)).collect();
        let mut bootstrap: Vec<Peer> = (0..self.bootstrap.len()).map(Peer::Bootstrap).collect();
        for peers in [&mut brokers, &mut bootstrap] {
            if !peers.is_empty() {
                let first = state.first_asked % peers.len();
                peers.rotate_left(first);
            }
        }
        brokers.extend(bootstrap);
        brokers
    }

    fn with_link<T>(
        &self,
        peer: Peer,
        purpose: Purpose,
        submit: impl FnOnce(&mut Link) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut state = self.state.lock();
        let address = match peer {
            Peer::Broker(broker) => state.addresses.get(&broker),
            Peer::Bootstrap(index) => self.bootstrap.get(index),
        };
        let address = address.ok_or(ClientError::NoBroker)?.clone();
        if state.links.get(&(peer, purpose)).is_none_or(Link::is_closed) {
            state.links.insert((peer, purpose), Link::open(address, self.options.clone()));
        }
        submit(state.links.get_mut(&(peer, purpose)).expect("it was put there above"))
    }
}

impl State {
    /// Connections to brokers that moved or left are closed.
    fn set_addresses(&mut self, addresses: BTreeMap<i32, String>) {
        let before = std::mem::replace(&mut self.addresses, addresses);
        let now = &self.addresses;
        self.links.retain(|(peer, _), _| match peer {
            Peer::Broker(broker) => now.contains_key(broker) && now.get(broker) == before.get(broker),
            Peer::Bootstrap(_) => true,
        });
    }
}
