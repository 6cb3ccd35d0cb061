//! A node's settings: Kafka's property names turned into types, once, at start-up.
//!
//! Reading is pure: properties and the machine's host name in, settings or plain-word problems out. Topic defaults
//! such as `log.retention.hours` are not here: they are resolved per topic from [`BrokerConfig::properties`] together
//! with the dynamic configs, because both may change them while the broker runs.

mod listeners;
mod reader;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use vltava_types::BrokerId;

pub use crate::read_replica::ReplicaSelector;

pub use listeners::{HostPort, Listener, SecurityProtocol};
use listeners::{bare_host_port, client_listeners, parse_listeners, peer_listener, security_protocols};
use reader::Reader;

/// Everything a node is told at start-up. Unchanged while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `cluster.id`: the identity that a fresh quorum takes, or that an existing one must have.
    pub cluster_id: Option<String>,
    pub roles: Roles,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// The listeners that clients connect to, in the order of `listeners`. Empty for a controller-only node.
    pub listeners: Vec<Listener>,
    /// `inter.broker.listener.name`: the listener that other brokers are told of. Empty for a controller-only node.
    pub inter_broker_listener: String,
    /// Where this node's gRPC answers other nodes: the first controller listener, or the inter-broker listener where
    /// the node has none. In the latter case the listener is in `listeners` too and serves both protocols.
    pub peer: Listener,
    pub quorum: QuorumSettings,
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`; the first log directory by default.
    pub metadata_log_dir: PathBuf,
    /// `vltava.durability`, the default of topics that do not set it.
    pub durability: Durability,
    pub network: NetworkSettings,
    pub lifecycle: LifecycleSettings,
    pub storage: StorageSettings,
    pub replication: ReplicationSettings,
    pub topics: TopicSettings,
    pub groups: GroupSettings,
    pub producers: ProducerSettings,
    /// `vltava.http.listener`; `None` if it is set to nothing.
    pub http: Option<HttpListener>,
    /// The properties as given, for configs that are resolved with dynamic ones and for DescribeConfigs
    /// (`STATIC_BROKER_CONFIG`).
    pub properties: BTreeMap<String, String>,
}

/// `process.roles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Hosts partitions and serves clients.
    pub broker: bool,
    /// Votes in the metadata quorum.
    pub controller: bool,
}

/// When a replica acknowledges a batch (`vltava.durability`, DESIGN section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk.
    Flush,
    /// After it is in the page cache, as Kafka does.
    PageCache,
}

/// The metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumSettings {
    /// `controller.quorum.voters`. A node with the controller role and neither voters nor bootstrap servers of others
    /// is a quorum of one.
    pub voters: BTreeMap<BrokerId, HostPort>,
    /// `controller.quorum.bootstrap.servers`: nodes to ask for the leader besides the voters.
    pub bootstrap_servers: Vec<HostPort>,
    /// `vltava.metadata.reserve.bytes`: room kept for the metadata log while its disk is full.
    pub metadata_reserve_bytes: u64,
    /// `controller.quorum.election.timeout.ms`: without a leader for this long, a voter stands for election. 500 by
    /// default, where Kafka has 1000.
    pub election_timeout: Duration,
}

/// Bounds on connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `socket.request.max.bytes`: a longer frame closes the connection.
    pub socket_request_max_bytes: usize,
    /// `connections.max.idle.ms`; `None` for never.
    pub connections_max_idle: Option<Duration>,
    /// `max.connections`.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `vltava.connection.max.requests.in.flight`: requests in work on one connection before it is read no further.
    pub max_requests_in_flight: usize,
    /// `request.timeout.ms`, for requests to other brokers.
    pub request_timeout: Duration,
}

/// Registration, heartbeats and shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleSettings {
    /// `broker.heartbeat.interval.ms`; 500 by default, where Kafka has 2000.
    pub heartbeat_interval: Duration,
    /// `broker.session.timeout.ms`; 2000 by default, where Kafka has 9000: four heartbeats, and so short that after
    /// a silent network cut even a broker that was the controller too is replaced in under three seconds.
    pub session_timeout: Duration,
    /// `controlled.shutdown.enable`.
    pub controlled_shutdown: bool,
    /// `vltava.controlled.shutdown.timeout.ms`: how long leadership may take to move away before the process ends anyway.
    pub controlled_shutdown_timeout: Duration,
}

/// Log directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads_per_data_dir: usize,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_point_checkpoint_interval: Duration,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub log_start_offset_checkpoint_interval: Duration,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_checkpoint_interval: Duration,
    /// `vltava.scrub.interval.ms`: closed segments are read and checked again this often; `None` is never.
    pub scrub_interval: Option<Duration>,
    /// `vltava.scrub.bytes.per.second`.
    pub scrub_bytes_per_second: u64,
    /// `vltava.disk.reserve.bytes`: produce requests are refused while a log directory has less free space.
    pub disk_reserve_bytes: u64,
}

/// Followers and the ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// `replica.lag.time.max.ms`: a follower that was not caught up for this long leaves the ISR.
    pub replica_lag_time_max: Duration,
    /// `replica.fetch.response.max.bytes`: bytes in flight on one replica stream.
    pub replica_fetch_response_max_bytes: usize,
    /// `fetch.max.bytes`: the most that one fetch response carries.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots: usize,
    /// `replica.selector.class`: which replica consumers are sent to.
    pub replica_selector: ReplicaSelector,
    /// `auto.leader.rebalance.enable`.
    pub auto_leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`.
    pub leader_imbalance_check_interval: Duration,
    /// `leader.imbalance.per.broker.percentage`.
    pub leader_imbalance_per_broker_percentage: i32,
    /// `min.insync.replicas`, as a new cluster begins with it.
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

/// Creating and deleting topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// `auto.create.topics.enable`.
    pub auto_create: bool,
    /// `delete.topic.enable`.
    pub delete_enabled: bool,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
}

/// Consumer groups and their topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout: Duration,
    /// `group.max.size`.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval: Duration,
    /// `offsets.commit.timeout.ms`: how long a write to the offsets topic may wait for its replicas.
    pub offsets_commit_timeout: Duration,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`, clamped to the live brokers at creation.
    pub offsets_topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: i32,
    /// `offsets.load.buffer.size`.
    pub offsets_load_buffer_bytes: usize,
}

/// Where probes and Prometheus ask (`vltava.http.listener`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpListener {
    pub address: HostPort,
    /// Nobody asked for it, so that a broker starts without it where the port is taken.
    pub is_default: bool,
}

/// Idempotent producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration: Duration,
}

/// Settings that were read, with what the operator should hear about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadConfig {
    pub config: BrokerConfig,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Why the settings cannot be used: one line a problem, all problems at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl BrokerConfig {
    /// Reads settings from Kafka's property names. `host_name` stands in where a listener is bound to all interfaces
    /// and no address is advertised for it.
    pub fn from_properties(properties: &BTreeMap<String, String>, host_name: &str) -> Result<ReadConfig, ConfigError> {
        let mut reader = Reader::new(properties);
        let config = read(&mut reader, properties, host_name);
        let (problems, mut warnings) = reader.finish();
        match config {
            Some(config) if problems.is_empty() => {
                warnings.extend(addresses_that_cannot_work(&config));
                Ok(ReadConfig { config, warnings })
            }
            _ => Err(ConfigError { problems }),
        }
    }

    /// The client listener of this name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// Whether gRPC shares its port with Kafka clients, so that an acceptor must tell them apart.
    #[must_use]
    pub fn peer_shares_client_port(&self) -> bool {
        self.listeners.iter().any(|listener| listener.name == self.peer.name)
    }

    /// Whether this node votes in the metadata quorum.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.quorum.voters.contains_key(&self.node_id)
    }
}

/// Reads every setting, so that all problems come out at once. `None` if a problem leaves no sensible value.
fn read(reader: &mut Reader<'_>, properties: &BTreeMap<String, String>, host_name: &str) -> Option<BrokerConfig> {
    let node_id = BrokerId(reader.int("node.id", reader.raw("broker.id").and_then(|v| v.parse().ok()).unwrap_or(1)));
    if node_id.value() < 0 {
        reader.problem("node.id must not be negative".to_owned());
    }
    let voters = read_voters(reader);
    let roles = read_roles(reader, voters.is_empty() || voters.contains_key(&node_id));
    let protocols = security_protocols(reader);
    let bound = parse_listeners(reader, "listeners", "PLAINTEXT://localhost:9092");
    let advertised = parse_listeners(reader, "advertised.listeners", "");
    let controller_names = reader.list("controller.listener.names", "");
    let listeners = client_listeners(reader, &bound, &advertised, &controller_names, &protocols, host_name);
    let inter_broker_listener = read_inter_broker_listener(reader, roles, &listeners);
    let peer = peer_listener(
        reader,
        &bound,
        &advertised,
        &controller_names,
        listeners.iter().find(|listener| listener.name == inter_broker_listener),
        voters.get(&node_id),
        host_name,
    );
    let quorum = read_quorum(reader, node_id, roles, voters, peer.as_ref());
    if roles.broker && listeners.is_empty() {
        reader.problem("listeners names no listener for clients, but process.roles contains broker".to_owned());
    }
    let log_dirs = read_log_dirs(reader);
    let metadata_log_dir = reader.text("metadata.log.dir").map_or_else(|| log_dirs[0].clone(), PathBuf::from);
    Some(BrokerConfig {
        node_id,
        cluster_id: reader.text("cluster.id"),
        roles,
        rack: reader.text("broker.rack"),
        listeners: if roles.broker { listeners } else { Vec::new() },
        inter_broker_listener,
        peer: peer?,
        quorum,
        log_dirs,
        metadata_log_dir,
        durability: read_durability(reader),
        network: read_network(reader),
        lifecycle: read_lifecycle(reader),
        storage: read_storage(reader),
        replication: read_replication(reader),
        topics: read_topics(reader),
        groups: read_groups(reader),
        http: read_http(reader),
        producers: ProducerSettings { producer_id_expiration: reader.millis("producer.id.expiration.ms", 86_400_000) },
        properties: properties.clone(),
    })
}

/// Left unset, they follow from the voters: members of a StatefulSet that all have the same settings vote if they are
/// listed, and are brokers only if they came later.
fn read_roles(reader: &mut Reader<'_>, may_vote: bool) -> Roles {
    let mut roles = Roles { broker: false, controller: false };
    for role in reader.list("process.roles", if may_vote { "broker,controller" } else { "broker" }) {
        match role.as_str() {
            "broker" => roles.broker = true,
            "controller" => roles.controller = true,
            other => reader.problem(format!("process.roles has {other:?}; it knows broker and controller")),
        }
    }
    if !roles.broker && !roles.controller {
        reader.problem("process.roles must name broker, controller, or both".to_owned());
    }
    roles
}

/// The listener named, or the one that `security.inter.broker.protocol` names, or the only one there is.
fn read_inter_broker_listener(reader: &mut Reader<'_>, roles: Roles, listeners: &[Listener]) -> String {
    let by_protocol = reader.text("security.inter.broker.protocol");
    let named = reader.text("inter.broker.listener.name");
    if !roles.broker {
        return String::new();
    }
    if named.is_some() && by_protocol.is_some() {
        reader.problem(
            "inter.broker.listener.name and security.inter.broker.protocol exclude each other: set one".to_owned(),
        );
    }
    let name = match (named.or(by_protocol), listeners) {
        (Some(name), _) => name,
        (None, [only]) => only.name.clone(),
        (None, _) => "PLAINTEXT".to_owned(),
    };
    if !listeners.is_empty() && !listeners.iter().any(|listener| listener.name == name) {
        reader.problem(format!(
            "brokers would talk to each other over listener {name}, which listeners does not have: \
             set inter.broker.listener.name to one of {}",
            listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ")
        ));
    }
    name
}

fn read_http(reader: &mut Reader<'_>) -> Option<HttpListener> {
    let name = "vltava.http.listener";
    let is_default = reader.raw(name).is_none();
    let text = if is_default { "localhost:9644".to_owned() } else { reader.text(name)? };
    let address = bare_host_port(&text);
    if address.is_none() {
        reader.problem(format!("{name} is {text:?}; it is written host:port"));
    }
    Some(HttpListener { address: address?, is_default })
}

fn read_voters(reader: &mut Reader<'_>) -> BTreeMap<BrokerId, HostPort> {
    let mut voters = BTreeMap::new();
    for voter in reader.list("controller.quorum.voters", "") {
        let parsed = voter
            .split_once('@')
            .and_then(|(id, address)| Some((BrokerId(id.trim().parse().ok()?), bare_host_port(address)?)));
        match parsed {
            Some((id, address)) => {
                if voters.insert(id, address).is_some() {
                    reader.problem(format!("controller.quorum.voters names node {id} twice"));
                }
            }
            None => reader.problem(format!("controller.quorum.voters has {voter:?}; it is written id@host:port")),
        }
    }
    voters
}

fn read_quorum(
    reader: &mut Reader<'_>,
    node_id: BrokerId,
    roles: Roles,
    mut voters: BTreeMap<BrokerId, HostPort>,
    peer: Option<&Listener>,
) -> QuorumSettings {
    let bootstrap_servers: Vec<HostPort> = reader
        .list("controller.quorum.bootstrap.servers", "")
        .iter()
        .filter_map(|server| {
            let address = bare_host_port(server);
            if address.is_none() {
                reader.problem(format!("controller.quorum.bootstrap.servers has {server:?}; it is written host:port"));
            }
            address
        })
        .collect();
    if voters.is_empty() {
        // Kafka's shipped server.properties names the node itself as its only bootstrap server.
        let is_alone = |own: &Listener| bootstrap_servers.iter().all(|server| server.port == own.advertised.port);
        match (roles.controller, peer) {
            (true, Some(peer)) if bootstrap_servers.len() <= 1 && is_alone(peer) => {
                voters.insert(node_id, peer.advertised.clone());
            }
            (false, _) if !bootstrap_servers.is_empty() => {}
            _ => reader.problem(
                "controller.quorum.voters is needed: list every voter as id@host:port, separated by commas".to_owned(),
            ),
        }
    } else if roles.controller && !voters.contains_key(&node_id) {
        reader.problem(format!(
            "process.roles contains controller, but controller.quorum.voters does not list node {node_id}"
        ));
    } else if !roles.controller && voters.contains_key(&node_id) {
        reader.problem(format!(
            "controller.quorum.voters lists node {node_id}, whose process.roles does not contain controller"
        ));
    }
    if let (Some(peer), Some(own)) = (peer, voters.get(&node_id))
        && own.port != peer.bind.port
        && own.port != peer.advertised.port
    {
        reader.problem(format!(
            "controller.quorum.voters says that node {node_id} listens on port {}, but its listener {} is on port {}",
            own.port, peer.name, peer.bind.port
        ));
    }
    QuorumSettings {
        voters,
        bootstrap_servers,
        election_timeout: reader.millis("controller.quorum.election.timeout.ms", 500),
        metadata_reserve_bytes: reader.long("vltava.metadata.reserve.bytes", 16_777_216).max(0).unsigned_abs(),
    }
}

/// `log.dirs`, or `log.dir`, or `./vltava-data`. Never empty.
fn read_log_dirs(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let single = reader.list("log.dir", "vltava-data");
    let several = reader.list("log.dirs", "");
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in if several.is_empty() { single } else { several } {
        let directory = PathBuf::from(directory);
        if directories.contains(&directory) {
            reader.problem(format!("log.dirs names {} twice", directory.display()));
        } else {
            directories.push(directory);
        }
    }
    if directories.is_empty() {
        reader.problem("log.dirs is empty: name at least one directory".to_owned());
        directories.push(PathBuf::from("vltava-data"));
    }
    directories
}

fn read_durability(reader: &mut Reader<'_>) -> Durability {
    match reader.text("vltava.durability").as_deref() {
        None | Some("flush") => Durability::Flush,
        Some("page-cache") => Durability::PageCache,
        Some(other) => {
            reader.problem(format!("vltava.durability has {other:?}; it knows flush and page-cache"));
            Durability::Flush
        }
    }
}

fn read_network(reader: &mut Reader<'_>) -> NetworkSettings {
    NetworkSettings {
        socket_request_max_bytes: reader.size("socket.request.max.bytes", 104_857_600),
        connections_max_idle: reader.millis_or_never("connections.max.idle.ms", 600_000),
        max_connections: reader.size("max.connections", 2_147_483_647),
        max_connections_per_ip: reader.size("max.connections.per.ip", 2_147_483_647),
        max_requests_in_flight: reader.size("vltava.connection.max.requests.in.flight", 64),
        request_timeout: reader.millis("request.timeout.ms", 30_000),
    }
}

fn read_lifecycle(reader: &mut Reader<'_>) -> LifecycleSettings {
    let heartbeat_interval = reader.millis("broker.heartbeat.interval.ms", 500);
    let session_timeout = reader.millis("broker.session.timeout.ms", 2_000);
    if session_timeout <= heartbeat_interval {
        reader.problem(
            "broker.session.timeout.ms must be longer than broker.heartbeat.interval.ms, or every broker is fenced"
                .to_owned(),
        );
    }
    LifecycleSettings {
        heartbeat_interval,
        session_timeout,
        controlled_shutdown: reader.boolean("controlled.shutdown.enable", true),
        controlled_shutdown_timeout: reader.millis("vltava.controlled.shutdown.timeout.ms", 10_000),
    }
}

fn read_storage(reader: &mut Reader<'_>) -> StorageSettings {
    StorageSettings {
        recovery_threads_per_data_dir: reader.size("num.recovery.threads.per.data.dir", 2),
        retention_check_interval: reader.millis("log.retention.check.interval.ms", 300_000),
        recovery_point_checkpoint_interval: reader.millis("log.flush.offset.checkpoint.interval.ms", 60_000),
        log_start_offset_checkpoint_interval: reader.millis("log.flush.start.offset.checkpoint.interval.ms", 60_000),
        high_watermark_checkpoint_interval: reader.millis("replica.high.watermark.checkpoint.interval.ms", 5_000),
        scrub_interval: Some(reader.millis("vltava.scrub.interval.ms", 604_800_000)).filter(|time| !time.is_zero()),
        scrub_bytes_per_second: reader.long("vltava.scrub.bytes.per.second", 4_194_304).max(1).unsigned_abs(),
        disk_reserve_bytes: reader.long("vltava.disk.reserve.bytes", 67_108_864).max(0).unsigned_abs(),
    }
}

fn read_replica_selector(reader: &mut Reader<'_>) -> ReplicaSelector {
    let Some(class) = reader.text("replica.selector.class").filter(|class| !class.is_empty()) else {
        return ReplicaSelector::Leader;
    };
    ReplicaSelector::from_class(&class).unwrap_or_else(|| {
        reader.problem(format!(
            "replica.selector.class names {class}; only org.apache.kafka.common.replica.RackAwareReplicaSelector and \
             org.apache.kafka.common.replica.LeaderSelector are known"
        ));
        ReplicaSelector::Leader
    })
}

fn read_replication(reader: &mut Reader<'_>) -> ReplicationSettings {
    ReplicationSettings {
        replica_lag_time_max: reader.millis("replica.lag.time.max.ms", 30_000),
        replica_fetch_response_max_bytes: reader.size("replica.fetch.response.max.bytes", 10_485_760),
        fetch_max_bytes: reader.size("fetch.max.bytes", 57_671_680),
        fetch_session_slots: reader.size("max.incremental.fetch.session.cache.slots", 1_000),
        replica_selector: read_replica_selector(reader),
        auto_leader_rebalance: reader.boolean("auto.leader.rebalance.enable", true),
        leader_imbalance_check_interval: reader.seconds("leader.imbalance.check.interval.seconds", 300),
        leader_imbalance_per_broker_percentage: reader.int("leader.imbalance.per.broker.percentage", 10),
        min_insync_replicas: reader.int("min.insync.replicas", 1),
        unclean_leader_election: reader.boolean("unclean.leader.election.enable", false),
    }
}

fn read_topics(reader: &mut Reader<'_>) -> TopicSettings {
    let settings = TopicSettings {
        auto_create: reader.boolean("auto.create.topics.enable", true),
        delete_enabled: reader.boolean("delete.topic.enable", true),
        default_partitions: reader.int("num.partitions", 1),
        default_replication_factor: reader.short("default.replication.factor", 1),
    };
    if settings.default_partitions < 1 {
        reader.problem("num.partitions must be at least 1".to_owned());
    }
    if settings.default_replication_factor < 1 {
        reader.problem("default.replication.factor must be at least 1".to_owned());
    }
    settings
}

fn read_groups(reader: &mut Reader<'_>) -> GroupSettings {
    let settings = GroupSettings {
        initial_rebalance_delay: reader.millis("group.initial.rebalance.delay.ms", 3_000),
        min_session_timeout: reader.millis("group.min.session.timeout.ms", 6_000),
        max_session_timeout: reader.millis("group.max.session.timeout.ms", 1_800_000),
        max_size: reader.size("group.max.size", 2_147_483_647),
        offset_metadata_max_bytes: reader.size("offset.metadata.max.bytes", 4_096),
        offsets_retention: reader.minutes("offsets.retention.minutes", 10_080),
        offsets_retention_check_interval: reader.millis("offsets.retention.check.interval.ms", 600_000),
        offsets_commit_timeout: reader.millis("offsets.commit.timeout.ms", 5_000),
        offsets_topic_partitions: reader.int("offsets.topic.num.partitions", 50),
        offsets_topic_replication_factor: reader.short("offsets.topic.replication.factor", 3),
        offsets_topic_segment_bytes: reader.int("offsets.topic.segment.bytes", 104_857_600),
        offsets_load_buffer_bytes: reader.size("offsets.load.buffer.size", 5_242_880),
    };
    if settings.max_session_timeout < settings.min_session_timeout {
        reader.problem("group.max.session.timeout.ms must not be below group.min.session.timeout.ms".to_owned());
    }
    if settings.offsets_topic_partitions < 1 {
        reader.problem("offsets.topic.num.partitions must be at least 1".to_owned());
    }
    if settings.offsets_topic_replication_factor < 1 {
        reader.problem("offsets.topic.replication.factor must be at least 1".to_owned());
    }
    settings
}

/// Advertised addresses that clients or other nodes cannot reach from elsewhere, in plain words.
fn addresses_that_cannot_work(config: &BrokerConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let spans_machines =
        config.quorum.voters.iter().any(|(voter, address)| *voter != config.node_id && !address.is_loopback());
    for listener in &config.listeners {
        if listener.advertised.is_wildcard() {
            warnings.push(format!(
                "clients of listener {} will be told {}, which is no address they can connect to: \
                 set advertised.listeners to a name or address of this machine",
                listener.name, listener.advertised
            ));
        } else if listener.advertised.is_loopback() && spans_machines {
            warnings.push(format!(
                "clients of listener {} will be told {}, but other voters are on other machines, from where that \
                 address leads back to themselves: set advertised.listeners to an address reachable from there",
                listener.name, listener.advertised
            ));
        } else if listener.advertised.is_loopback() && listener.bind.is_wildcard() {
            warnings.push(format!(
                "clients of listener {} will be told {}: this works on this machine only, although the listener is \
                 open to others",
                listener.name, listener.advertised
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
