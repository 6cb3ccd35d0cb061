//! One broker in the test's own process: real logs, real sockets, and a controller that decides at once instead of by
//! quorum.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_broker::Broker;
use vltava_broker::config::BrokerConfig;
use vltava_broker::controller::{Controller, ControllerUnavailable, QuorumStatus};
use vltava_broker::replica_manager::ReplicaManager;
use vltava_broker::server::Server;
use vltava_client::{Client, Connection, Options};
use vltava_host::{fs, random};
use vltava_metadata::controller::{
    Controller as Decider, ControllerConfig, ControllerRequest, ControllerResponse, Heartbeat, RegisterBroker,
};
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_storage::{LogManager, MetaProperties};
use vltava_types::{BrokerEpoch, BrokerId, DirectoryId, IncarnationId, MetadataOffset, Uuid};

pub const CLUSTER_ID: &str = "5L6g3nShT-eMCtK--X86sw";
pub const NODE: BrokerId = BrokerId(1);

/// Decides like a quorum of one whose disk is infinitely fast.
pub struct InstantController {
    decider: Mutex<Decider>,
    images: watch::Sender<Arc<ClusterImage>>,
    started: Instant,
    /// Makes every look at the quorum panic, as a handler with a mistake in it would.
    pub panics: AtomicBool,
}

impl InstantController {
    pub fn new() -> Arc<Self> {
        let controller = Self {
            decider: Mutex::new(Decider::new(ControllerConfig::default())),
            images: watch::Sender::new(Arc::default()),
            started: Instant::now(),
            panics: AtomicBool::new(false),
        };
        let first = controller.decider.lock().form_cluster(&ClusterImage::default(), CLUSTER_ID);
        controller.commit(&first);
        Arc::new(controller)
    }

    pub fn ask(&self, request: &ControllerRequest) -> ControllerResponse {
        let now_ms = i64::try_from(self.started.elapsed().as_millis()).expect("tests are short");
        let mut decider = self.decider.lock();
        let decision = decider.handle(&self.images.borrow().clone(), request, now_ms);
        self.commit(&decision.records);
        decision.response
    }

    fn commit(&self, records: &[vltava_metadata::MetadataRecord]) {
        if records.is_empty() {
            return;
        }
        let mut image = ClusterImage::clone(&self.images.borrow());
        image.replay_all(records);
        image.offset = MetadataOffset(image.offset.value() + 1);
        self.images.send_replace(Arc::new(image));
    }
}

impl Controller for InstantController {
    fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.images.subscribe()
    }

    fn call(
        &self,
        request: ControllerRequest,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<ControllerResponse, ControllerUnavailable>> {
        Box::pin(async move { Ok(self.ask(&request)) })
    }

    fn quorum_status(&self) -> QuorumStatus {
        assert!(!self.panics.load(Ordering::Relaxed), "the test asked for a panic");
        QuorumStatus {
            leader: Some(NODE),
            term: 1,
            high_watermark: self.images.borrow().offset,
            voters: vec![],
            observers: vec![],
        }
    }
}

/// A broker that serves.
pub struct TestBroker {
    pub controller: Arc<InstantController>,
    pub broker: Arc<Broker>,
    pub address: String,
    pub server: Server,
    directory: TempDir,
}

impl TestBroker {
    /// Starts a broker with these properties on a free port.
    pub async fn start(properties: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self::start_on(directory, InstantController::new(), properties).await
    }

    /// Shuts the broker down and starts another run on what it has left on disk. On a copy, since connections that have
    /// not ended keep the directory locked.
    pub async fn restart(self, properties: &[(&str, &str)]) -> Self {
        assert!(self.broker.replicas.shut_down().await, "an orderly shutdown");
        let directory = TempDir::new().expect("a temporary directory");
        copy(&self.log_dir(), &directory.path().join("data"));
        Self::start_on(directory, Arc::clone(&self.controller), properties).await
    }

    async fn start_on(directory: TempDir, controller: Arc<InstantController>, properties: &[(&str, &str)]) -> Self {
        let log_dir = directory.path().join("data");
        let mut all = BTreeMap::from(
            [
                ("node.id", "1"),
                ("listeners", "PLAINTEXT://127.0.0.1:0"),
                ("advertised.listeners", "PLAINTEXT://127.0.0.1:9092"),
                ("log.dirs", log_dir.to_str().expect("a printable path")),
                ("vltava.durability", "page-cache"),
                ("vltava.disk.reserve.bytes", "0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        all.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Arc::new(BrokerConfig::from_properties(&all, "localhost").expect("valid properties").config);

        let (logs, failed) = LogManager::open(&config.log_dirs);
        assert!(failed.is_empty(), "{failed:?}");
        let directory_id = DirectoryId(Uuid([7; 16]));
        for log_dir in logs.online() {
            let properties = MetaProperties { node_id: NODE, cluster_id: CLUSTER_ID.to_owned(), directory_id };
            log_dir.write_meta_properties(&properties).expect("a writable directory");
        }
        let replicas =
            ReplicaManager::open(Arc::clone(&config), controller.clone(), logs).await.expect("empty logs open");
        let server = Server::bind(&config, None).await.expect("a free port");
        let address = server.addresses()["PLAINTEXT"];

        let endpoint =
            |port| Endpoint { host: "127.0.0.1".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() };
        let request = ControllerRequest::RegisterBroker(RegisterBroker {
            broker_id: NODE,
            cluster_id: CLUSTER_ID.to_owned(),
            incarnation_id: IncarnationId::from_random(random::bytes()),
            listeners: BTreeMap::from([("PLAINTEXT".to_owned(), endpoint(address.port()))]),
            peer: endpoint(1),
            rack: None,
            log_dirs: vec![directory_id],
            is_broker: true,
            previous_broker_epoch: BrokerEpoch::NONE,
        });
        // The session of an earlier run has to end first.
        let deadline = Instant::now() + Duration::from_secs(30);
        let broker_epoch = loop {
            match controller.ask(&request) {
                ControllerResponse::RegisterBroker(Ok(broker_epoch)) => break broker_epoch,
                refused => assert!(Instant::now() < deadline, "{refused:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        replicas.on_registered(broker_epoch);
        let unfenced = controller.ask(&ControllerRequest::Heartbeat(Heartbeat {
            broker_id: NODE,
            broker_epoch,
            applied: MetadataOffset(i64::MAX),
            want_fence: false,
            want_shutdown: false,
            offline_log_dirs: vec![],
            offline_partitions: vec![],
        }));
        assert!(controller.images.borrow().is_live(NODE), "{unfenced:?}");
        let broker = Broker::new(config, controller.clone(), replicas);
        server.open(Arc::clone(&broker));
        Self { controller, broker, address: address.to_string(), server, directory }
    }

    /// The one log directory.
    pub fn log_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    pub async fn connect(&self) -> Connection {
        Connection::connect(&self.address, options()).await.expect("the broker accepts")
    }

    pub fn client(&self) -> Client {
        Client::new(&self.address, options())
    }

    /// Creates a topic and waits until its partitions are led.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        self.client().create_topic(name, partitions, 1, &[]).await.expect("a new topic");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let image = self.broker.image();
            let topic = image.topic_by_name(name).cloned();
            let led = topic.map_or(0, |topic| {
                let partitions = topic.indexed_partitions().filter(|(partition, _)| {
                    let id = vltava_types::TopicPartition { topic_id: topic.topic_id, partition: *partition };
                    self.broker.replicas.partition(id).is_some_and(|p| p.leader_epoch().is_some())
                });
                partitions.count()
            });
            if i32::try_from(led) == Ok(partitions) {
                return;
            }
            assert!(Instant::now() < deadline, "topic {name} is not led");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let from = entry.expect("an entry").path();
        let to = to.join(from.file_name().expect("a name"));
        if fs::metadata(&from).expect("it is there").is_dir() {
            copy(&from, &to);
        } else {
            fs::write(&to, fs::read(&from).expect("readable")).expect("written");
        }
    }
}

pub fn options() -> Options {
    Options { client_id: "test".to_owned(), timeout: Duration::from_secs(10), ..Options::default() }
}
