//! Quorums of several nodes in one process, over real sockets and files. Each node has runtimes of its own, and is
//! stopped by dropping them in mid-flight: as seen from outside, its process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use vltava_host::{net, random};
use vltava_metadata::Endpoint;
use vltava_metadata::controller::{
    Controller, ControllerConfig, ControllerRequest, ControllerResponse, Heartbeat, RegisterBroker,
};
use vltava_peer::server::{Acceptor, accept_peers};
use vltava_quorum::{DEFAULT_ELECTION_TIMEOUT, Handle, QuorumConfig};
use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, IncarnationId, MetadataOffset};

const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes by id, running or not.
struct Cluster {
    root: TempDir,
    voters: BTreeMap<i32, Endpoint>,
    ports: BTreeMap<i32, u16>,
    nodes: BTreeMap<i32, Node>,
}

struct Node {
    handle: Handle,
    incarnation_id: IncarnationId,
    accepting: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Cluster {
    async fn new(voters: &[i32], learners: &[i32]) -> Self {
        // Only the first of them succeeds.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut ports = BTreeMap::new();
        let mut listeners = Vec::new();
        for id in voters.iter().chain(learners) {
            let listener = net::bind("127.0.0.1", 0).await.expect("a free port");
            ports.insert(*id, listener.local_addr().expect("bound").port());
            listeners.push(listener);
        }
        let voters = voters.iter().map(|id| (*id, endpoint(ports[id]))).collect();
        Self { root: tempfile::tempdir().expect("a temporary directory"), voters, ports, nodes: BTreeMap::new() }
    }

    async fn start(&mut self, id: i32) {
        let incarnation_id = IncarnationId::from_random(random::bytes());
        let config = QuorumConfig {
            node_id: BrokerId(id),
            incarnation_id,
            peer: endpoint(self.ports[&id]),
            voters: self.voters.iter().map(|(id, endpoint)| (BrokerId(*id), endpoint.clone())).collect(),
            bootstrap_servers: vec![],
            metadata_log_dir: self.directory(id),
            reserve_bytes: 0,
            cluster_id: None,
            election_timeout: DEFAULT_ELECTION_TIMEOUT,
            snapshot_every: 50,
        };
        // Whatever is noticed here is noticed by other means.
        let controller =
            Controller::new(ControllerConfig { session_timeout_ms: 60_000, ..ControllerConfig::default() });
        let handle = Handle::start(config, controller).await.expect("the node starts");
        // The port of a node that has just been stopped is released by a background thread.
        let listener = eventually("the port is free", || net::bind("127.0.0.1", self.ports[&id])).await;
        let acceptor = Acceptor::new(handle.control_plane(), None);
        let accepting = tokio::spawn(accept_peers(listener, acceptor));
        self.nodes.insert(id, Node { handle, incarnation_id, accepting });
    }

    async fn start_all(&mut self) {
        for id in self.ports.keys().copied().collect::<Vec<_>>() {
            self.start(id).await;
        }
    }

    /// As if killed.
    async fn kill(&mut self, id: i32) {
        let node = self.nodes.remove(&id).expect("a running node");
        node.accepting.abort();
        drop(node);
        // Threads of the dropped runtime may be in the middle of a write.
        sleep(Duration::from_millis(100)).await;
    }

    fn wipe(&self, id: i32) {
        std::fs::remove_dir_all(self.directory(id)).expect("removed");
    }

    fn directory(&self, id: i32) -> PathBuf {
        self.root.path().join(id.to_string())
    }

    fn handle(&self, id: i32) -> &Handle {
        &self.nodes[&id].handle
    }

    /// The leader that a majority of the running nodes agrees on.
    async fn leader(&self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known: Vec<_> = self.nodes.values().map(|node| *node.handle.leader().borrow()).collect();
            let running = |leader: &BrokerId| self.nodes.contains_key(&leader.0);
            if let Some(Some(leader)) = known.first()
                && known.iter().all(|other| *other == Some(*leader))
                && running(leader)
            {
                return leader.0;
            }
            assert!(Instant::now() < deadline, "no leader: {known:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// All running nodes have the same image.
    async fn converge(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let images: Vec<_> = self.nodes.values().map(|node| node.handle.images().borrow().clone()).collect();
            if images.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            let offsets: Vec<_> = images.iter().map(|image| image.offset).collect();
            assert!(Instant::now() < deadline, "images differ: {offsets:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn voters_according_to(&self, id: i32) -> BTreeSet<i32> {
        self.handle(id).status().voters.iter().map(|voter| voter.node_id.0).collect()
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() }
}

async fn eventually<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Debug,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn call(handle: &Handle, request: ControllerRequest) -> ControllerResponse {
    handle.call(request, Instant::now() + PATIENCE).await.expect("the controller answers")
}

async fn register(handle: &Handle, id: i32, port: u16) -> BrokerEpoch {
    let incarnation_id = IncarnationId::from_random([u8::try_from(id).expect("a small id"); 16]);
    try_to_register(handle, id, port, incarnation_id).await.expect("registered")
}

async fn try_to_register(
    handle: &Handle,
    id: i32,
    port: u16,
    incarnation_id: IncarnationId,
) -> Result<BrokerEpoch, ErrorCode> {
    let cluster_id = handle.images().borrow().cluster_id.clone();
    let request = ControllerRequest::RegisterBroker(RegisterBroker {
        broker_id: BrokerId(id),
        cluster_id,
        incarnation_id,
        listeners: BTreeMap::new(),
        peer: endpoint(port),
        rack: None,
        log_dirs: vec![],
        is_broker: true,
        previous_broker_epoch: BrokerEpoch::NONE,
    });
    match call(handle, request).await {
        ControllerResponse::RegisterBroker(answer) => answer.map_err(|error| error.code),
        other => panic!("not an answer to a registration: {other:?}"),
    }
}

async fn allocate(handle: &Handle, id: i32, broker_epoch: BrokerEpoch) -> i64 {
    let request = ControllerRequest::AllocateProducerIds { broker_id: BrokerId(id), broker_epoch };
    match call(handle, request).await {
        ControllerResponse::AllocateProducerIds(Ok(block)) => block.first.value(),
        other => panic!("nothing allocated: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_is_a_quorum_at_once_and_again_after_a_restart() {
    let mut cluster = Cluster::new(&[7], &[]).await;
    let started = Instant::now();
    cluster.start(7).await;
    assert_eq!(cluster.leader().await, 7);
    println!("a single node leads after {:?}", started.elapsed());
    let epoch = register(cluster.handle(7), 7, 1).await;
    let first = allocate(cluster.handle(7), 7, epoch).await;
    let cluster_id = cluster.handle(7).cluster_id();
    assert!(!cluster_id.is_empty());
    cluster.handle(7).shutdown().await;
    cluster.kill(7).await;

    let started = Instant::now();
    cluster.start(7).await;
    assert!(allocate(cluster.handle(7), 7, epoch).await > first);
    println!("a restarted single node decides after {:?}", started.elapsed());
    assert_eq!(cluster.handle(7).cluster_id(), cluster_id);
    assert_eq!(cluster.handle(7).images().borrow().cluster_id, cluster_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reaches_the_controller_and_sees_what_it_decided() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[9]).await;
    let started = Instant::now();
    cluster.start_all().await;
    cluster.leader().await;
    println!("a fresh quorum of three has a leader after {:?}", started.elapsed());
    for id in [1, 2, 3, 9] {
        let epoch = register(cluster.handle(id), id, 1).await;
        allocate(cluster.handle(id), id, epoch).await;
    }
    cluster.converge().await;
    let image = cluster.handle(9).images().borrow().clone();
    assert_eq!(image.brokers.len(), 4);
    for id in [1, 2, 3, 9] {
        assert_eq!(cluster.handle(id).cluster_id(), image.cluster_id);
    }
    let status = cluster.handle(cluster.leader().await).status();
    assert_eq!(status.voters.iter().map(|voter| voter.node_id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(status.observers.iter().map(|observer| observer.node_id.0).collect::<Vec<_>>(), [9]);
    assert!(status.voters.iter().all(|voter| voter.log_end_offset.is_some()), "{status:?}");
    // Configured, committed and latest are the same, for those too who do not vote.
    let voters = cluster.handle(9).voters();
    assert_eq!(voters.sets, [[1, 2, 3].map(BrokerId).into()]);
    let ports = voters.endpoints.into_iter().map(|(id, endpoint)| (id.0, endpoint.port));
    assert!(ports.eq([1, 2, 3].map(|id| (id, cluster.ports[&id]))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_leader_is_noticed_at_once_and_loses_nothing() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start_all().await;
    cluster.leader().await;
    let epoch = register(cluster.handle(1), 1, 1).await;
    let mut last = allocate(cluster.handle(1), 1, epoch).await;
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let leader = cluster.leader().await;
        let survivor = *cluster.nodes.keys().find(|id| **id != leader).expect("two others");
        let node = cluster.nodes.remove(&leader).expect("the leader runs");
        let killed = Instant::now();
        drop(node);
        let next = allocate(cluster.handle(survivor), 1, epoch).await;
        pauses.push(killed.elapsed());
        assert!(next > last);
        last = next;
        sleep(Duration::from_millis(100)).await;
        cluster.start(leader).await;
        cluster.leader().await;
        cluster.converge().await;
    }
    println!("decisions paused for {pauses:?}");
    assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(1500)), "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_nodes_keeps_everything() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start_all().await;
    let epoch = register(cluster.handle(1), 1, 1).await;
    let mut last = 0;
    // Enough for snapshots to replace the beginning of the log.
    for _ in 0..120 {
        last = allocate(cluster.handle(1), 1, epoch).await;
    }
    cluster.converge().await;
    let before = cluster.handle(2).images().borrow().clone();
    for id in [1, 2, 3] {
        cluster.kill(id).await;
    }
    cluster.start_all().await;
    assert!(allocate(cluster.handle(3), 1, epoch).await > last);
    cluster.converge().await;
    let after = cluster.handle(2).images().borrow().clone();
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.brokers.keys().collect::<Vec<_>>(), before.brokers.keys().collect::<Vec<_>>());
    assert!(after.offset > before.offset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_13_a_wiped_node_does_not_vote_under_its_old_id() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start_all().await;
    let epoch = register(cluster.handle(1), 1, 1).await;
    let last = allocate(cluster.handle(1), 1, epoch).await;
    let old_directory = cluster.handle(3).directory_id();
    cluster.converge().await;
    for id in [1, 2, 3] {
        cluster.kill(id).await;
    }

    // One node that remembers and one that was wiped are two of three, and no majority.
    cluster.wipe(3);
    cluster.start(2).await;
    cluster.start(3).await;
    assert_ne!(cluster.handle(3).directory_id(), old_directory);
    let quiet_until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < quiet_until {
        for id in [2, 3] {
            let leader = *cluster.handle(id).leader().borrow();
            assert!(leader.is_none() || leader == Some(BrokerId(1)), "elected with a vote of nobody's: {leader:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }

    // Two that remember elect one of them; it takes the wiped one in under its new directory, and has it vote later.
    cluster.start(1).await;
    let next = allocate(cluster.handle(1), 1, epoch).await;
    assert!(next > last);
    let new_directory = cluster.handle(3).directory_id();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cluster.handle(1).status();
        if status.voters.iter().any(|voter| voter.node_id == BrokerId(3) && voter.directory_id == new_directory) {
            break;
        }
        assert!(Instant::now() < deadline, "node 3 does not vote again: {status:?}");
        sleep(Duration::from_millis(20)).await;
    }
    cluster.converge().await;

    // Now its vote counts.
    cluster.kill(1).await;
    assert!(allocate(cluster.handle(3), 1, epoch).await > next);
    assert_eq!(cluster.voters_according_to(3), BTreeSet::from([1, 2, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_13_a_wiped_founder_does_not_found_another_cluster() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start_all().await;
    let epoch = register(cluster.handle(2), 2, 1).await;
    let last = allocate(cluster.handle(2), 2, epoch).await;
    let cluster_id = cluster.handle(2).cluster_id();
    cluster.kill(1).await;
    cluster.wipe(1);
    cluster.start(1).await;
    assert!(allocate(cluster.handle(1), 2, epoch).await > last);
    assert_eq!(cluster.handle(1).cluster_id(), cluster_id);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_everything_is_refilled_from_a_snapshot() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start_all().await;
    let epoch = register(cluster.handle(2), 2, 1).await;
    for _ in 0..150 {
        allocate(cluster.handle(2), 2, epoch).await;
    }
    cluster.kill(3).await;
    cluster.wipe(3);
    cluster.start(3).await;
    let last = allocate(cluster.handle(3), 2, epoch).await;
    cluster.converge().await;
    let checkpoints = std::fs::read_dir(cluster.directory(3).join("__cluster_metadata-0"))
        .expect("the directory is there")
        .filter(|entry| {
            let path = entry.as_ref().expect("readable").path();
            path.extension().is_some_and(|extension| extension == "checkpoint")
        });
    assert_eq!(checkpoints.count(), 1);
    cluster.kill(3).await;
    cluster.start(3).await;
    assert!(allocate(cluster.handle(3), 2, epoch).await > last);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_founded_before_every_voter_was_asked() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start(1).await;
    cluster.start(2).await;
    sleep(Duration::from_secs(2)).await;
    for id in [1, 2] {
        assert_eq!(*cluster.handle(id).leader().borrow(), None);
        assert_eq!(cluster.handle(id).cluster_id(), "");
    }
    cluster.start(3).await;
    register(cluster.handle(2), 2, 1).await;
    cluster.converge().await;
}

/// Blocks of producer ids are given out by reading the image's counter and raising it. A controller that decides before
/// it has applied what its predecessors committed gives one out twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_14_a_new_controller_decides_nothing_on_stale_state() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[4, 5]).await;
    cluster.start_all().await;
    cluster.leader().await;
    let mut asking = Vec::new();
    let stop = tokio::sync::watch::channel(false).0;
    for id in [4, 5] {
        let epoch = register(cluster.handle(id), id, 1).await;
        for _ in 0..4 {
            let (handle, stopped) = (cluster.handle(id).clone(), stop.subscribe());
            asking.push(tokio::spawn(async move {
                let mut blocks = Vec::new();
                while !*stopped.borrow() {
                    blocks.push(allocate(&handle, id, epoch).await);
                }
                blocks
            }));
        }
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(300)).await;
        let leader = cluster.leader().await;
        cluster.kill(leader).await;
        sleep(Duration::from_millis(300)).await;
        cluster.start(leader).await;
    }
    stop.send_replace(true);
    let mut given_out = BTreeSet::new();
    let mut count = 0;
    for task in asking {
        for block in task.await.expect("no panic") {
            count += 1;
            assert!(given_out.insert(block), "block {block} was given out twice");
        }
    }
    println!("{count} blocks were given out over five changes of the controller");
    assert!(count > 20);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_again_at_once_need_not_wait_for_the_session_of_its_earlier_run() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]).await;
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let broker = *cluster.nodes.keys().find(|id| **id != leader).expect("two others");
    let port = cluster.ports[&broker];
    let first = cluster.nodes[&broker].incarnation_id;
    let epoch = try_to_register(cluster.handle(leader), broker, port, first).await.expect("nobody was there");
    let heartbeat = Heartbeat {
        broker_id: BrokerId(broker),
        broker_epoch: epoch,
        applied: MetadataOffset(i64::MAX),
        want_fence: false,
        want_shutdown: false,
        offline_log_dirs: vec![],
        offline_partitions: vec![],
    };
    call(cluster.handle(leader), ControllerRequest::Heartbeat(heartbeat)).await;

    // Somebody else under its id does not displace a process that lives.
    let other = IncarnationId::from_random([99; 16]);
    for _ in 0..5 {
        let refused = try_to_register(cluster.handle(leader), broker, port, other).await;
        assert_eq!(refused, Err(ErrorCode::DuplicateBrokerRegistration));
        sleep(Duration::from_millis(50)).await;
    }

    // It is back so soon that nobody finds its port closed.
    drop(cluster.nodes.remove(&broker));
    cluster.start(broker).await;
    let second = cluster.nodes[&broker].incarnation_id;
    let registered =
        eventually("the earlier run counts as gone", || try_to_register(cluster.handle(leader), broker, port, second));
    assert!(epoch < registered.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_how_far_the_members_have_come() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[4]).await;
    cluster.start_all().await;
    let leader = cluster.leader().await;
    for handle in cluster.nodes.values().map(|node| &node.handle) {
        let status = eventually("everybody has been heard of", || async {
            let status = handle.leader_status(Instant::now() + PATIENCE).await.expect("there is a leader");
            let members = status.voters.iter().chain(&status.observers);
            let is_complete = members.clone().count() == 4
                && members.clone().all(|member| member.log_end_offset.is_some() && member.last_fetch.is_some());
            if is_complete { Ok(status) } else { Err(status) }
        });
        assert_eq!(status.await.leader, Some(BrokerId(leader)));
    }
}
