//! Several brokers' replica managers in one process: real logs in temporary directories, real streams over loopback, and
//! the real controller deciding at once instead of through a quorum.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_host::task::JoinHandle;
use vltava_host::{net, task};
use vltava_metadata::controller::{
    self, ControllerConfig, ControllerRequest, ControllerResponse, CreateTopic, CreateTopics, ElectionType, Heartbeat,
    Reassignment, RegisterBroker, TopicSelector,
};
use vltava_metadata::{ClusterImage, Endpoint, MetadataRecord, PartitionImage};
use vltava_peer::server::{self, Acceptor, PlaneServer, Routes};
use vltava_peer::{Plane, replica};
use vltava_protocol::batch::{BatchBuilder, Origin, batches, records};
use vltava_replication::CutOff;
use vltava_storage::{LogManager, MetaProperties};
use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, IncarnationId, Offset, PartitionIndex, TimestampMs, TopicId,
    TopicPartition,
};

use crate::config::BrokerConfig;
use crate::controller::{Controller, ControllerUnavailable, QuorumStatus, Voters};
use crate::partition::{Acks, AppendError, AppendOptions, Appended, Isolation, Partition, ReadRequest};
use crate::replica_manager::ReplicaManager;

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// The controller, deciding at once.
pub(super) struct Quorum {
    state: Mutex<(controller::Controller, ClusterImage)>,
    links: Mutex<Vec<Arc<Link>>>,
    started: Instant,
}

/// One broker's way to the controller, which can be cut.
pub(super) struct Link {
    quorum: Arc<Quorum>,
    images: watch::Sender<Arc<ClusterImage>>,
    is_cut: AtomicBool,
}

impl Quorum {
    fn new() -> Arc<Self> {
        let mut image = ClusterImage::default();
        image.replay(&MetadataRecord::ClusterId { cluster_id: "test-cluster".to_owned() });
        let mut controller = controller::Controller::new(ControllerConfig {
            auto_leader_rebalance_enable: false,
            ..ControllerConfig::default()
        });
        controller.on_elected(&image, 0);
        Arc::new(Self { state: Mutex::new((controller, image)), links: Mutex::default(), started: Instant::now() })
    }

    pub(super) fn call(&self, request: &ControllerRequest) -> ControllerResponse {
        let mut state = self.state.lock();
        let (controller, image) = &mut *state;
        let now_ms = i64::try_from(self.started.elapsed().as_millis()).expect("tests are short");
        let decision = controller.handle(image, request, now_ms);
        self.commit(image, &decision.records);
        decision.response
    }

    /// The process is known to be dead.
    pub(super) fn fence(&self, id: BrokerId) {
        let mut state = self.state.lock();
        let (controller, image) = &mut *state;
        let Some(epoch) = image.broker(id).map(|broker| broker.broker_epoch) else { return };
        let records = controller.on_broker_down(image, id, epoch);
        self.commit(image, &records);
    }

    pub(super) fn image(&self) -> ClusterImage {
        self.state.lock().1.clone()
    }

    fn commit(&self, image: &mut ClusterImage, records: &[MetadataRecord]) {
        for record in records {
            image.replay(record);
        }
        image.offset.0 += 1;
        for link in self.links.lock().iter().filter(|link| !link.is_cut.load(Ordering::Acquire)) {
            link.images.send_replace(Arc::new(image.clone()));
        }
    }

    fn link(self: &Arc<Self>) -> Arc<Link> {
        let images = watch::Sender::new(Arc::new(self.image()));
        let link = Arc::new(Link { quorum: Arc::clone(self), images, is_cut: AtomicBool::new(false) });
        self.links.lock().push(Arc::clone(&link));
        link
    }
}

impl Link {
    /// Neither images nor calls pass any more.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
    }

    pub(super) fn mend(&self) {
        self.is_cut.store(false, Ordering::Release);
        self.images.send_replace(Arc::new(self.quorum.image()));
    }
}

impl Controller for Link {
    fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.images.subscribe()
    }

    fn call(
        &self,
        request: ControllerRequest,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<ControllerResponse, ControllerUnavailable>> {
        async move {
            if self.is_cut.load(Ordering::Acquire) {
                return Err(ControllerUnavailable);
            }
            Ok(self.quorum.call(&request))
        }
        .boxed()
    }

    fn quorum_status(&self) -> QuorumStatus {
        unimplemented!("nobody asks here")
    }

    /// As if each broker voted too, on the port where it sends its replicas.
    fn voters(&self) -> Voters {
        let image = self.images.borrow();
        let endpoints: BTreeMap<_, _> =
            image.brokers.values().map(|broker| (broker.broker_id, broker.peer.clone())).collect();
        Voters { sets: vec![endpoints.keys().copied().collect()], endpoints }
    }
}

pub(super) struct Cluster {
    pub(super) quorum: Arc<Quorum>,
    properties: Vec<(String, String)>,
    directories: Vec<TempDir>,
    brokers: BTreeMap<BrokerId, Broker>,
}

/// A running broker, as far as replication is concerned.
pub(super) struct Broker {
    pub(super) manager: Arc<ReplicaManager>,
    pub(super) link: Arc<Link>,
    accepting: JoinHandle<()>,
    _server: Arc<PlaneServer>,
}

impl Cluster {
    /// Brokers 1 to `count`, unfenced. `properties` are Kafka's, as `name=value`.
    pub(super) async fn start(count: i32, properties: &[&str]) -> Self {
        let split = |property: &&str| {
            let (name, value) = property.split_once('=').expect("name=value");
            (name.to_owned(), value.to_owned())
        };
        let mut cluster = Self {
            quorum: Quorum::new(),
            properties: properties.iter().map(split).collect(),
            directories: (0..count).map(|_| tempfile::tempdir().expect("a temporary directory")).collect(),
            brokers: BTreeMap::new(),
        };
        for id in 1..=count {
            cluster.start_broker(id).await;
        }
        cluster
    }

    /// Starts a broker on the disk that it had before. Returns the epoch that it claims to have shut down under.
    pub(super) async fn start_broker(&mut self, id: i32) -> BrokerEpoch {
        let index = usize::try_from(id - 1).expect("ids begin at 1");
        let broker = Broker::start(BrokerId(id), self.directories[index].path(), &self.properties, &self.quorum).await;
        let previous = broker.manager.previous_broker_epoch();
        self.brokers.insert(BrokerId(id), broker);
        previous
    }

    /// The process dies; the machine does not. Nobody is told.
    pub(super) async fn kill(&mut self, id: i32) {
        let broker = self.brokers.remove(&BrokerId(id)).expect("it runs");
        self.quorum.links.lock().retain(|link| !Arc::ptr_eq(link, &broker.link));
        for task in broker.manager.tasks.lock().drain(..) {
            task.abort();
        }
        broker.manager.fetchers.stop();
        broker.accepting.abort();
        let directory = broker.manager.disks[0].log_dir.path().to_owned();
        drop(broker);
        // The next process waits until the last task has let go of the directory's lock.
        let opened = || match vltava_storage::LogDir::open(&directory) {
            Ok(log_dir) => {
                drop(log_dir);
                true
            }
            Err(_) => false,
        };
        until("the directory is let go", opened).await;
    }

    pub(super) async fn kill_and_fence(&mut self, id: i32) {
        self.kill(id).await;
        self.quorum.fence(BrokerId(id));
    }

    pub(super) async fn shut_down(&mut self, id: i32) -> bool {
        let clean = self.broker(id).manager.shut_down().await;
        self.kill(id).await;
        clean
    }

    /// Nothing passes between a broker and the controller any more, and the session runs out.
    pub(super) fn end_session(&self, id: i32) {
        self.broker(id).link.cut();
        self.broker(id).manager.extend_lease(Instant::now());
    }

    /// The controller answers the broker again.
    pub(super) fn resume_session(&self, id: i32) {
        self.broker(id).link.mend();
        self.broker(id).manager.extend_lease(Instant::now() + Duration::from_secs(3600));
    }

    /// Waits until a broker whose session has run out has looked for the others, with all of a look after this call.
    pub(super) async fn until_looked(&self, id: i32) {
        let surroundings = &self.broker(id).manager.surroundings;
        for _ in 0..2 {
            let before = surroundings.cut_off();
            let is_new = |seen: &Arc<CutOff>| before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, seen));
            until("it has looked", || surroundings.cut_off().as_ref().is_some_and(is_new)).await;
        }
    }

    /// The broker tells the controller which replicas do not work.
    pub(super) fn report_offline(&self, id: i32) {
        let manager = &self.broker(id).manager;
        self.quorum.call(&ControllerRequest::Heartbeat(Heartbeat {
            broker_id: BrokerId(id),
            broker_epoch: manager.broker_epoch(),
            applied: self.quorum.image().offset,
            want_fence: false,
            want_shutdown: false,
            offline_log_dirs: manager.offline_log_dirs(),
            offline_partitions: manager.offline_partitions(),
        }));
    }

    /// A dead broker's last heartbeat arrives late.
    pub(super) fn unfence(&self, id: i32) {
        let image = self.quorum.image();
        let broker = image.broker(BrokerId(id)).expect("it is registered");
        self.quorum.call(&ControllerRequest::Heartbeat(Heartbeat {
            broker_id: broker.broker_id,
            broker_epoch: broker.broker_epoch,
            applied: image.offset,
            want_fence: false,
            want_shutdown: false,
            offline_log_dirs: vec![],
            offline_partitions: vec![],
        }));
    }

    pub(super) fn broker(&self, id: i32) -> &Broker {
        &self.brokers[&BrokerId(id)]
    }

    pub(super) fn create_topic(&self, name: &str, assignments: &[&[i32]], configs: &[(&str, &str)]) -> TopicId {
        let assignments = assignments.iter().enumerate().map(|(index, replicas)| {
            (PartitionIndex(index as i32), replicas.iter().copied().map(BrokerId).collect::<Vec<_>>())
        });
        let topic = CreateTopic {
            name: name.to_owned(),
            topic_id: TopicId::from_random(vltava_host::random::bytes()),
            partition_count: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            clamp_replication_factor: false,
        };
        let request = ControllerRequest::CreateTopics(CreateTopics { topics: vec![topic], validate_only: false });
        match self.quorum.call(&request) {
            ControllerResponse::CreateTopics(mut created) => {
                created.remove(0).result.expect("the topic is created").topic_id
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn delete_topic(&self, topic_id: TopicId) {
        self.quorum.call(&ControllerRequest::DeleteTopics { topics: vec![TopicSelector::Id(topic_id)] });
    }

    pub(super) fn elect_preferred(&self, partition: TopicPartition) {
        let partitions = Some(vec![partition]);
        self.quorum.call(&ControllerRequest::ElectLeaders { election_type: ElectionType::Preferred, partitions });
    }

    pub(super) fn reassign(&self, partition: TopicPartition, replicas: &[i32]) {
        let replicas = Some(replicas.iter().map(|id| BrokerId(*id)).collect());
        let partitions = vec![Reassignment { partition, replicas }];
        let allow_replication_factor_change = true;
        self.quorum
            .call(&ControllerRequest::AlterPartitionReassignments { partitions, allow_replication_factor_change });
    }

    pub(super) fn image_of(&self, id: TopicPartition) -> PartitionImage {
        let image = self.quorum.image();
        PartitionImage::clone(image.partition(id.topic_id, id.partition).expect("the partition exists"))
    }

    /// The replica on a broker, as soon as it is hosted there.
    pub(super) async fn replica(&self, broker: i32, id: TopicPartition) -> Arc<Partition> {
        until("the replica is hosted", || self.broker(broker).manager.partition(id).is_some()).await;
        self.broker(broker).manager.partition(id).expect("it is hosted")
    }

    /// The replica on the leader, as soon as it knows that it leads.
    pub(super) async fn leader(&self, id: TopicPartition) -> Arc<Partition> {
        until("a leader leads", || {
            let image = self.image_of(id);
            image.leader.and_then(|leader| self.brokers.get(&leader)).is_some_and(|broker| {
                broker.manager.partition(id).is_some_and(|p| p.leader_epoch() == Some(image.leader_epoch))
            })
        })
        .await;
        let leader = self.image_of(id).leader.expect("it has a leader");
        self.replica(leader.value(), id).await
    }

    pub(super) async fn until_isr(&self, id: TopicPartition, isr: &[i32]) {
        let wanted: Vec<BrokerId> = isr.iter().copied().map(BrokerId).collect();
        until("the isr is as expected", || {
            let mut isr = self.image_of(id).isr;
            isr.sort_unstable();
            isr == wanted
        })
        .await;
    }

    /// Every running replica holds the same records, up to the same high watermark.
    pub(super) async fn until_equal(&self, id: TopicPartition, values: &[&str]) {
        let running = self.image_of(id).replicas.into_iter().filter(|replica| self.brokers.contains_key(replica));
        let running: Vec<BrokerId> = running.collect();
        let replicas =
            || running.iter().filter_map(|replica| self.brokers[replica].manager.partition(id)).collect::<Vec<_>>();
        let end = Offset(values.len() as i64);
        until("replicas have caught up", || {
            let replicas = replicas();
            replicas.len() == running.len()
                && replicas.iter().all(|p| p.log_end_offset() == end && p.high_watermark() == end)
        })
        .await;
        for replica in replicas() {
            let found = read_all(&replica);
            assert_eq!(found.len(), values.len(), "records in a replica of {id}");
            assert!(found == values, "a replica of {id} differs");
        }
    }
}

impl Broker {
    async fn start(id: BrokerId, directory: &Path, properties: &[(String, String)], quorum: &Arc<Quorum>) -> Self {
        let listener = net::bind("127.0.0.1", 0).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let mut all: BTreeMap<String, String> = properties.iter().cloned().collect();
        all.insert("node.id".to_owned(), id.to_string());
        let names = all.get("log.dirs").map_or("logs", String::as_str).split(',');
        let paths: Vec<String> = names.map(|name| directory.join(name).display().to_string()).collect();
        all.insert("log.dirs".to_owned(), paths.join(","));
        let config = BrokerConfig::from_properties(&all, "localhost").expect("settings are valid").config;
        let link = quorum.link();
        let (logs, failures) = LogManager::open(&config.log_dirs);
        assert!(failures.len() < config.log_dirs.len(), "{failures:?}");
        for log_dir in logs.online() {
            if log_dir.meta_properties().is_none() {
                let properties = MetaProperties {
                    node_id: id,
                    cluster_id: "test-cluster".to_owned(),
                    directory_id: DirectoryId::from_random(vltava_host::random::bytes()),
                };
                log_dir.write_meta_properties(&properties).expect("the disk works");
            }
        }
        let log_dirs: Vec<DirectoryId> = logs.online().iter().map(|log_dir| log_dir.directory_id()).collect();
        let controller: Arc<dyn Controller> = link.clone();
        let manager = ReplicaManager::open(Arc::new(config), controller, logs).await.expect("logs open");
        let routes = replica::add_routes(Routes::new(), Arc::clone(&manager));
        let server = Arc::new(server::serve(Plane::Data, routes));
        let accepting = task::spawn(server::accept_peers(listener, Acceptor::new(None, Some(Arc::clone(&server)))));
        let peer = Endpoint { host: "127.0.0.1".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() };
        let broker_epoch = register(quorum, id, peer, log_dirs, manager.previous_broker_epoch()).await;
        manager.on_registered(broker_epoch);
        Self { manager, link, accepting, _server: server }
    }
}

/// Registers a broker and has it unfenced.
async fn register(
    quorum: &Quorum,
    broker_id: BrokerId,
    peer: Endpoint,
    log_dirs: Vec<DirectoryId>,
    previous_broker_epoch: BrokerEpoch,
) -> BrokerEpoch {
    quorum.fence(broker_id);
    let request = RegisterBroker {
        broker_id,
        cluster_id: "test-cluster".to_owned(),
        incarnation_id: IncarnationId::from_random(vltava_host::random::bytes()),
        listeners: BTreeMap::new(),
        peer,
        rack: None,
        log_dirs,
        is_broker: true,
        previous_broker_epoch,
    };
    let broker_epoch = match quorum.call(&ControllerRequest::RegisterBroker(request)) {
        ControllerResponse::RegisterBroker(epoch) => epoch.expect("the registration is accepted"),
        other => panic!("{other:?}"),
    };
    let heartbeat = || {
        let heartbeat = Heartbeat {
            broker_id,
            broker_epoch,
            applied: quorum.image().offset,
            want_fence: false,
            want_shutdown: false,
            offline_log_dirs: vec![],
            offline_partitions: vec![],
        };
        match quorum.call(&ControllerRequest::Heartbeat(heartbeat)) {
            ControllerResponse::Heartbeat(reply) => !reply.expect("the broker is registered").is_fenced,
            other => panic!("{other:?}"),
        }
    };
    until("the broker is unfenced", heartbeat).await;
    broker_epoch
}

pub(super) fn partition_of(topic_id: TopicId) -> TopicPartition {
    TopicPartition { topic_id, partition: PartitionIndex(0) }
}

pub(super) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.append(TimestampMs(vltava_host::clock::now().value()), None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

pub(super) fn append(partition: &Arc<Partition>, acks: Acks, batch: &Bytes) -> Result<Appended, AppendError> {
    partition.append_as_leader(batch, &AppendOptions { origin: Origin::Client, acks, leader_epoch: None })
}

/// Appends one batch and waits for all replicas.
pub(super) async fn produce(partition: &Arc<Partition>, values: &[&str]) -> Result<Offset, ErrorCode> {
    let appended = append(partition, Acks::All, &batch(values)).map_err(|error| error.code())?;
    let waited = tokio::time::timeout(PATIENCE, partition.wait_for_acks(Acks::All, &appended)).await;
    waited.unwrap_or(Err(ErrorCode::RequestTimedOut))?;
    Ok(appended.base_offset)
}

/// The file of a broker's first log directory; empty if it is missing.
pub(super) fn checkpointed_log_starts(manager: &ReplicaManager) -> String {
    let path = manager.disks[0].log_dir.path().join("log-start-offset-checkpoint");
    vltava_host::fs::read_to_string(path).unwrap_or_default()
}

/// All values below the high watermark.
pub(super) fn read_all(partition: &Partition) -> Vec<String> {
    let mut values = vec![];
    let mut offset = partition.log_start_offset();
    loop {
        let request = ReadRequest {
            offset,
            max_bytes: 1 << 20,
            max_copied_bytes: usize::MAX,
            at_least_one_batch: true,
            isolation: Isolation::ReadUncommitted,
            current_leader_epoch: None,
            last_fetched_epoch: None,
            allow_follower: true,
        };
        let read = partition.read(&request).expect("the log is readable");
        if read.records.is_empty() {
            return values;
        }
        for batch in batches(&read.records) {
            let batch = batch.expect("whole batches are read");
            batch.verify_crc().expect("batches are sound");
            for record in records(&Bytes::copy_from_slice(batch.bytes), 1 << 20).expect("a codec that is known") {
                let value = record.expect("records are sound").value.expect("test values are not null");
                values.push(String::from_utf8(value.to_vec()).expect("test values are text"));
            }
            offset = batch.header.next_offset();
        }
    }
}

pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
