//! Stories of an administrator: requests as clients encode them, at every version, answered by one broker of a cluster
//! whose controller is the real one, deciding in this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use expect_test::{Expect, expect};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_broker::api::{Answer, RequestContext, dispatch};
use vltava_broker::config::BrokerConfig;
use vltava_broker::controller::{Controller, ControllerUnavailable, QuorumStatus, ReplicaStatus};
use vltava_broker::partition::{Acks, AppendOptions};
use vltava_broker::replica_manager::ReplicaManager;
use vltava_broker::{Broker, ConnectionInfo};
use vltava_metadata::controller::{ControllerConfig, ControllerRequest, ControllerResponse, Heartbeat, RegisterBroker};
use vltava_metadata::{ClusterImage, Endpoint};
use vltava_protocol::batch::{BatchBuilder, Origin};
use vltava_protocol::frame::{Incoming, read_header};
use vltava_protocol::make;
use vltava_protocol::messages::*;
use vltava_protocol::versions::ApiKey;
use vltava_storage::{LogManager, MetaProperties};
use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, IncarnationId, MetadataOffset, PartitionIndex, TimestampMs,
    TopicPartition,
};

/// Decides at once and commits at once.
struct LocalController {
    decisions: Mutex<vltava_metadata::controller::Controller>,
    images: watch::Sender<Arc<ClusterImage>>,
}

impl LocalController {
    fn decide(&self, request: &ControllerRequest) -> ControllerResponse {
        let mut image = ClusterImage::clone(&self.images.borrow());
        let decision = self.decisions.lock().handle(&image, request, 0);
        for record in &decision.records {
            image.replay(record);
        }
        image.offset = MetadataOffset(image.offset.value() + 1);
        self.images.send_replace(Arc::new(image));
        decision.response
    }
}

impl Controller for LocalController {
    fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.images.subscribe()
    }

    fn call(
        &self,
        request: ControllerRequest,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<ControllerResponse, ControllerUnavailable>> {
        Box::pin(async move { Ok(self.decide(&request)) })
    }

    fn quorum_status(&self) -> QuorumStatus {
        let member = |id, log_end_offset| ReplicaStatus {
            node_id: BrokerId(id),
            directory_id: DirectoryId::from_random([id as u8; 16]),
            log_end_offset,
            last_fetch: None,
            last_caught_up: None,
        };
        QuorumStatus {
            leader: Some(BrokerId(2)),
            term: 5,
            high_watermark: MetadataOffset(40),
            voters: vec![member(1, Some(MetadataOffset(41))), member(2, Some(MetadataOffset(41)))],
            observers: vec![member(3, None)],
        }
    }
}

/// Broker 1 of three; 2 and 3 are known to the controller only.
struct Cluster {
    broker: Arc<Broker>,
    controller: Arc<LocalController>,
    info: ConnectionInfo,
    _directory: tempfile::TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let controller = Arc::new(LocalController {
            decisions: Mutex::new(vltava_metadata::controller::Controller::new(ControllerConfig::default())),
            images: watch::Sender::new(Arc::new(ClusterImage {
                cluster_id: "bohemia".to_owned(),
                ..Default::default()
            })),
        });
        let directory = tempfile::tempdir().expect("a directory");
        let properties: BTreeMap<String, String> = [
            ("node.id", "1"),
            ("log.dirs", directory.path().to_str().expect("a readable path")),
            ("log.retention.hours", "48"),
            ("vltava.durability", "page-cache"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let config = Arc::new(BrokerConfig::from_properties(&properties, "localhost").expect("settings").config);

        let (logs, failed) = LogManager::open(&config.log_dirs);
        assert!(failed.is_empty());
        let directory_id = DirectoryId::from_random([9; 16]);
        let meta = MetaProperties { node_id: BrokerId(1), cluster_id: "bohemia".to_owned(), directory_id };
        logs.online()[0].write_meta_properties(&meta).expect("written");
        let shared: Arc<dyn Controller> = Arc::clone(&controller) as _;
        let replicas = ReplicaManager::open(Arc::clone(&config), Arc::clone(&shared), logs).await.expect("open");
        let broker = Broker::new(config, shared, replicas);
        for id in 1..=3 {
            let epoch = register(&controller, id, if id == 1 { directory_id } else { DirectoryId::ZERO });
            if id == 1 {
                broker.replicas.on_registered(epoch);
            }
        }
        let info =
            ConnectionInfo { peer: "127.0.0.1:1".parse().expect("an address"), listener: "PLAINTEXT".to_owned() };
        Self { broker, controller, info, _directory: directory }
    }

    /// Sends a request as a client would, and reads the answer as a client would.
    async fn ask<R: RequestResponsePair>(&self, version: i16, request: &R) -> R::Response {
        let mut frame = BytesMut::new();
        let limits = OutboundFrameLimits::new(1 << 20);
        let wire = ApiVersion::new(version);
        encode_request(&mut frame, 3, Some("me".into()), request, wire, limits).expect("an encodable request");
        let Ok(Incoming::Request { header, body }) = read_header(frame.freeze().slice(4..)) else {
            panic!("{} {version} is not served", R::NAME);
        };
        let context = RequestContext {
            broker: &self.broker,
            image: self.broker.image(),
            version,
            client_id: Some("me"),
            connection: &self.info,
        };
        let answer = dispatch(&context, &header, body).await.unwrap_or_else(|e| panic!("{} {version}: {e}", R::NAME));
        let Answer::Frame(mut answer) = answer else { panic!("an answer") };
        let key = ApiKey::from_code(R::API_KEY.value()).expect("a known key");
        let header_size = 4 + 4 + usize::from(key.response_header_version(version) == 1);
        let body = answer.split_off(header_size);
        KafkaDecode::decode_from_bytes(body, wire, DecodeLimits::default()).expect("a readable answer")
    }

    async fn create(&self, name: &str, partitions: i32, replication_factor: i16) {
        let topic = creatable(name, partitions, replication_factor, &[]);
        let response = self.ask(7, &make!(CreateTopicsRequest { topics: vec![topic] })).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
    }
}

fn register(controller: &LocalController, id: i32, directory: DirectoryId) -> BrokerEpoch {
    let endpoint = |port| Endpoint { host: "localhost".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() };
    let registration = RegisterBroker {
        broker_id: BrokerId(id),
        cluster_id: "bohemia".to_owned(),
        incarnation_id: IncarnationId::from_random([id as u8; 16]),
        listeners: [("PLAINTEXT".to_owned(), endpoint(9090 + id as u16))].into(),
        peer: endpoint(1),
        rack: None,
        log_dirs: vec![directory],
        is_broker: true,
        previous_broker_epoch: BrokerEpoch::NONE,
    };
    let ControllerResponse::RegisterBroker(Ok(broker_epoch)) =
        controller.decide(&ControllerRequest::RegisterBroker(registration))
    else {
        panic!("registered")
    };
    let heartbeat = Heartbeat {
        broker_id: BrokerId(id),
        broker_epoch,
        applied: MetadataOffset(i64::MAX),
        want_fence: false,
        want_shutdown: false,
        offline_log_dirs: vec![],
        offline_partitions: vec![],
    };
    controller.decide(&ControllerRequest::Heartbeat(heartbeat));
    broker_epoch
}

fn creatable(
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &[(&str, &str)],
) -> create_topics_request::CreatableTopic {
    let configs = configs.iter().map(|(name, value)| {
        make!(create_topics_request::CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) })
    });
    make!(create_topics_request::CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor,
        configs: configs.collect(),
    })
}

fn name_of(code: i16) -> &'static str {
    ErrorCode::from_code(code).expect("a known code").name()
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

#[tokio::test]
async fn topics_are_created_described_and_deleted_at_every_version() {
    let cluster = Cluster::new().await;
    for version in ApiKey::CreateTopics.accepted_versions() {
        let name = format!("t{version}");
        let topics = vec![creatable(&name, 2, 3, &[("retention.ms", "1000")])];
        let response = cluster.ask(version, &make!(CreateTopicsRequest { topics })).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.name.as_str()), (0, name.as_str()), "{version}: {topic:?}");
        assert_eq!(topic.topic_id == Uuid::ZERO, version < 7);
        let configs = topic.configs.iter().flatten().find(|config| config.name.as_str() == "retention.ms");
        assert_eq!(configs.and_then(|config| config.value.as_deref()), (version >= 5).then_some("1000"));
        if version >= 5 {
            assert_eq!((topic.num_partitions, topic.replication_factor), (2, 3));
        }
    }
    for version in ApiKey::DeleteTopics.accepted_versions() {
        let name = format!("t{}", version + 1);
        let topic_id = cluster.broker.image().topic_by_name(&name).expect("created").topic_id;
        let mut request = DeleteTopicsRequest::default();
        if version >= 6 {
            request.topics = vec![make!(delete_topics_request::DeleteTopicState { topic_id: topic_id.to_wire() })];
        } else {
            request.topic_names = vec![name.as_str().into()];
        }
        let response = cluster.ask(version, &request).await;
        let deleted = &response.responses[0];
        assert_eq!((deleted.error_code, deleted.name.as_deref()), (0, Some(name.as_str())), "{version}");
        assert!(cluster.broker.image().topic_by_name(&name).is_none());
    }
}

async fn check_create(topics: Vec<create_topics_request::CreatableTopic>, expected: Expect) {
    let cluster = Cluster::new().await;
    cluster.create("old.one", 1, 1).await;
    let response = cluster.ask(7, &make!(CreateTopicsRequest { topics })).await;
    expected.assert_eq(&lines(response.topics.iter().map(|topic| {
        let message = topic.error_message.as_deref().unwrap_or("-");
        format!("{}: {} {message}", topic.name, name_of(topic.error_code))
    })));
}

#[tokio::test]
async fn a_topic_that_cannot_be_is_refused_with_kafka_s_code() {
    let assigned = |name: &str, indexes: &[i32], replication_factor| {
        let mut topic = creatable(name, -1, replication_factor, &[]);
        topic.assignments = indexes
            .iter()
            .map(|index| {
                make!(create_topics_request::CreatableReplicaAssignment {
                    partition_index: *index,
                    broker_ids: vec![1, 2]
                })
            })
            .collect();
        topic
    };
    check_create(
        vec![
            creatable("old.one", 1, 1, &[]),
            creatable("old_one", 1, 1, &[]),
            creatable("no spaces", 1, 1, &[]),
            creatable("many", 1, 4, &[]),
            creatable("none", 0, 1, &[]),
            creatable("odd", 1, 1, &[("retention.ms", "soon")]),
            creatable("odder", 1, 1, &[("retention.years", "1")]),
            creatable("twice", 1, 1, &[]),
            creatable("twice", 1, 1, &[]),
            creatable("__cluster_metadata", 1, 1, &[]),
            assigned("gap", &[0, 2], -1),
            assigned("double", &[0, 0], -1),
            assigned("both", &[0], 2),
            assigned("fine", &[0, 1], -1),
        ],
        expect![[r#"
            __cluster_metadata: INVALID_REQUEST Creation of internal topic __cluster_metadata is prohibited.
            both: INVALID_REQUEST A manual partition assignment was specified, but replication factor was not set to -1.
            double: INVALID_REPLICA_ASSIGNMENT Found multiple manual partition assignments for partition 0
            fine: NONE -
            gap: INVALID_REPLICA_ASSIGNMENT partitions should be a consecutive 0-based integer sequence
            many: INVALID_REPLICATION_FACTOR Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only 3 broker(s) are registered.
            no spaces: INVALID_TOPIC_EXCEPTION Topic name is invalid: 'no spaces' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
            none: INVALID_PARTITIONS Number of partitions was set to an invalid non-positive value.
            odd: INVALID_CONFIG Invalid value soon for configuration retention.ms: Not a number of type LONG
            odder: INVALID_CONFIG Unknown topic config name: retention.years
            old.one: TOPIC_ALREADY_EXISTS Topic 'old.one' already exists.
            old_one: INVALID_TOPIC_EXCEPTION Topic 'old_one' collides with existing topic: old.one
            twice: INVALID_REQUEST Duplicate topic name.
        "#]],
    )
    .await;
}

#[tokio::test]
async fn validating_only_creates_nothing() {
    let cluster = Cluster::new().await;
    let topics = vec![creatable("t", 3, 3, &[])];
    let response = cluster.ask(7, &make!(CreateTopicsRequest { topics, validate_only: true })).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 3));
    assert!(cluster.broker.image().topic_by_name("t").is_none());

    cluster.create("u", 1, 1).await;
    let topic =
        make!(create_partitions_request::CreatePartitionsTopic { name: "u".into(), count: 4, assignments: None });
    let request = make!(CreatePartitionsRequest { topics: vec![topic], validate_only: true });
    assert_eq!(cluster.ask(3, &request).await.results[0].error_code, 0);
    assert_eq!(cluster.broker.image().topic_by_name("u").expect("created").partitions.len(), 1);
}

#[tokio::test]
async fn a_topic_is_selected_once_and_by_one_thing() {
    let cluster = Cluster::new().await;
    cluster.create("t", 1, 1).await;
    let topic_id = cluster.broker.image().topic_by_name("t").expect("created").topic_id.to_wire();
    let state = |name: Option<&str>, topic_id| {
        make!(delete_topics_request::DeleteTopicState { name: name.map(Into::into), topic_id })
    };
    let topics = vec![
        state(Some("t"), topic_id),
        state(None, Uuid::ZERO),
        state(Some("t"), Uuid::ZERO),
        state(None, topic_id),
        state(Some("absent"), Uuid::ZERO),
        state(None, Uuid::from_bytes([1; 16])),
    ];
    let response = cluster.ask(6, &make!(DeleteTopicsRequest { topics })).await;
    let told = response
        .responses
        .iter()
        .map(|topic| format!("{:?} {}", topic.name.as_deref().unwrap_or("-"), name_of(topic.error_code)));
    expect![[r#"
        "t" INVALID_REQUEST
        "-" INVALID_REQUEST
        "-" INVALID_REQUEST
        "t" NONE
        "absent" UNKNOWN_TOPIC_OR_PARTITION
        "-" UNKNOWN_TOPIC_ID
    "#]]
    .assert_eq(&lines(told));
}

#[tokio::test]
async fn partitions_are_added_at_every_version() {
    let cluster = Cluster::new().await;
    cluster.create("t", 1, 2).await;
    for version in ApiKey::CreatePartitions.accepted_versions() {
        let topic = |name: &str, count| {
            make!(create_partitions_request::CreatePartitionsTopic { name: name.into(), count, assignments: None })
        };
        let topics = vec![topic("t", i32::from(version) + 2), topic("t2", 2), topic("d", 3), topic("d", 4)];
        let response = cluster.ask(version, &make!(CreatePartitionsRequest { topics })).await;
        let told: Vec<_> =
            response.results.iter().map(|result| (result.name.to_string(), name_of(result.error_code))).collect();
        let expected = [("d", "INVALID_REQUEST"), ("t", "NONE"), ("t2", "UNKNOWN_TOPIC_OR_PARTITION")];
        assert_eq!(told, expected.map(|(name, code)| (name.to_owned(), code)));
    }
    assert_eq!(cluster.broker.image().topic_by_name("t").expect("created").partitions.len(), 5);
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn described(name: &str, resource_type: i8, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let configuration_keys = keys.map(|keys| keys.iter().map(|key| (*key).into()).collect());
    let resource = make!(describe_configs_request::DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys,
    });
    make!(DescribeConfigsRequest { resources: vec![resource], include_synonyms: true })
}

async fn describe(cluster: &Cluster, version: i16, request: &DescribeConfigsRequest) -> String {
    let response = cluster.ask(version, request).await;
    let result = &response.results[0];
    if result.error_code != 0 {
        return format!("{} {}", name_of(result.error_code), result.error_message.as_deref().unwrap_or("-"));
    }
    lines(result.configs.iter().map(|config| {
        let synonyms: Vec<_> = config
            .synonyms
            .iter()
            .map(|synonym| format!("{}:{}={}", synonym.source, synonym.name, synonym.value.as_deref().unwrap_or("-")))
            .collect();
        format!(
            "{}={} from {}{} ({})",
            config.name,
            config.value.as_deref().unwrap_or("-"),
            config.config_source,
            if config.read_only { " read-only" } else { "" },
            synonyms.join(" ")
        )
    }))
}

fn set(name: &str, operation: i8, value: Option<&str>) -> incremental_alter_configs_request::AlterableConfig {
    make!(incremental_alter_configs_request::AlterableConfig {
        name: name.into(),
        config_operation: operation,
        value: value.map(Into::into),
    })
}

async fn alter(
    cluster: &Cluster,
    resource_type: i8,
    name: &str,
    configs: Vec<incremental_alter_configs_request::AlterableConfig>,
) -> String {
    let resource = make!(incremental_alter_configs_request::AlterConfigsResource {
        resource_type,
        resource_name: name.into(),
        configs,
    });
    let mut told = String::new();
    for (version, validate_only) in [(0, true), (1, false)] {
        let request = make!(IncrementalAlterConfigsRequest { resources: vec![resource.clone()], validate_only });
        let response = cluster.ask(version, &request).await;
        let outcome = &response.responses[0];
        let message = outcome.error_message.as_deref().unwrap_or("-");
        let now = format!("{} {message}", name_of(outcome.error_code));
        assert!(told.is_empty() || told == now, "validating said {told}, and doing {now}");
        told = now;
    }
    told
}

#[tokio::test]
async fn configs_of_a_topic_come_from_where_kafka_takes_them() {
    let cluster = Cluster::new().await;
    cluster.create("t", 1, 1).await;
    let keys: &[&str] = &["retention.ms", "segment.bytes", "cleanup.policy"];
    for version in ApiKey::DescribeConfigs.accepted_versions() {
        expect![[r#"
            cleanup.policy=delete from 5 (5:log.cleanup.policy=delete)
            retention.ms=172800000 from 4 (4:log.retention.hours=48 5:log.retention.hours=168)
            segment.bytes=1073741824 from 5 (5:log.segment.bytes=1073741824)
        "#]]
        .assert_eq(&describe(&cluster, version, &described("t", TOPIC, Some(keys))).await);
    }
    let everything = cluster.ask(4, &described("t", TOPIC, None)).await.results[0].configs.len();
    assert_eq!(everything, vltava_metadata::configs::topic_configs().len());

    let changes = vec![
        set("retention.ms", 0, Some("5000")),
        set("cleanup.policy", 2, Some("compact")),
        set("segment.bytes", 0, Some("2097152")),
    ];
    assert_eq!(alter(&cluster, TOPIC, "t", changes).await, "NONE -");
    assert_eq!(alter(&cluster, TOPIC, "t", vec![set("segment.bytes", 1, None)]).await, "NONE -");
    let changes = vec![set("log.segment.bytes", 0, Some("3145728"))];
    assert_eq!(alter(&cluster, BROKER, "", changes).await, "NONE -");
    expect![[r#"
        cleanup.policy=delete,compact from 1 (1:cleanup.policy=delete,compact 5:log.cleanup.policy=delete)
        retention.ms=5000 from 1 (1:retention.ms=5000 4:log.retention.hours=48 5:log.retention.hours=168)
        segment.bytes=3145728 from 3 (3:log.segment.bytes=3145728 5:log.segment.bytes=1073741824)
    "#]]
    .assert_eq(&describe(&cluster, 4, &described("t", TOPIC, Some(keys))).await);

    // The older request takes away what it does not name.
    let config =
        make!(alter_configs_request::AlterableConfig { name: "retention.ms".into(), value: Some("7000".into()) });
    let resource = make!(alter_configs_request::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "t".into(),
        configs: vec![config],
    });
    for version in ApiKey::AlterConfigs.accepted_versions() {
        let request = make!(AlterConfigsRequest { resources: vec![resource.clone()] });
        assert_eq!(cluster.ask(version, &request).await.responses[0].error_code, 0);
    }
    expect![[r#"
        cleanup.policy=delete from 5 (5:log.cleanup.policy=delete)
        retention.ms=7000 from 1 (1:retention.ms=7000 4:log.retention.hours=48 5:log.retention.hours=168)
        segment.bytes=3145728 from 3 (3:log.segment.bytes=3145728 5:log.segment.bytes=1073741824)
    "#]]
    .assert_eq(&describe(&cluster, 4, &described("t", TOPIC, Some(keys))).await);
}

#[tokio::test]
async fn a_broker_tells_its_own_configs_only() {
    let cluster = Cluster::new().await;
    let keys: &[&str] = &["node.id", "log.retention.ms", "log.cleaner.threads", "ssl.key.password"];
    expect![[r#"
        log.cleaner.threads=1 from 5 (5:log.cleaner.threads=1)
        log.retention.ms=- from 5 (4:log.retention.hours=48 5:log.retention.hours=168)
        node.id=1 from 4 read-only (4:node.id=1 5:node.id=1)
        ssl.key.password=- from 5 ()
    "#]]
    .assert_eq(&describe(&cluster, 4, &described("1", BROKER, Some(keys))).await);
    expect!["INVALID_REQUEST Unexpected broker id, expected 1 or empty string, but received 2"]
        .assert_eq(&describe(&cluster, 4, &described("2", BROKER, None)).await);
    expect!["INVALID_REQUEST Broker id must be an integer, but it is: one"]
        .assert_eq(&describe(&cluster, 4, &described("one", BROKER, None)).await);
    expect!["UNKNOWN_TOPIC_OR_PARTITION This server does not host this topic-partition."]
        .assert_eq(&describe(&cluster, 4, &described("absent", TOPIC, None)).await);
    expect!["INVALID_TOPIC_EXCEPTION Topic name is invalid: 'no spaces'"]
        .assert_eq(&describe(&cluster, 4, &described("no spaces", TOPIC, None)).await);
    expect!["INVALID_REQUEST Unsupported resource type: 3"]
        .assert_eq(&describe(&cluster, 4, &described("x", 3, None)).await);
}

#[tokio::test]
async fn configs_that_cannot_be_set_are_refused_with_kafka_s_code() {
    let cluster = Cluster::new().await;
    cluster.create("t", 1, 1).await;
    let mut told = vec![];
    for (resource_type, name, changes) in [
        (TOPIC, "t", vec![set("retention.ms", 0, Some("soon"))]),
        (TOPIC, "t", vec![set("retention.years", 0, Some("1"))]),
        (TOPIC, "t", vec![set("retention.ms", 2, Some("1"))]),
        (TOPIC, "t", vec![set("retention.ms", 0, None)]),
        (TOPIC, "t", vec![set("retention.ms", 9, Some("1"))]),
        (TOPIC, "t", vec![set("retention.ms", 0, Some("1")), set("retention.ms", 1, None)]),
        (TOPIC, "", vec![set("retention.ms", 0, Some("1"))]),
        (TOPIC, "absent", vec![set("retention.ms", 0, Some("1"))]),
        (BROKER, "1", vec![set("node.id", 0, Some("7"))]),
        (BROKER, "", vec![set("ssl.keystore.location", 0, Some("/k"))]),
        (BROKER, "77", vec![set("log.cleaner.threads", 0, Some("2"))]),
        (BROKER, "one", vec![set("log.cleaner.threads", 0, Some("2"))]),
        (9, "t", vec![]),
    ] {
        told.push(alter(&cluster, resource_type, name, changes).await);
    }
    expect![[r#"
        INVALID_CONFIG Invalid value soon for configuration retention.ms: Not a number of type LONG
        INVALID_CONFIG Unknown topic config name: retention.years
        INVALID_CONFIG Can't APPEND to key retention.ms because its type is not LIST.
        INVALID_REQUEST Null value not supported for : retention.ms
        INVALID_REQUEST Unknown operation type 9
        INVALID_REQUEST Error due to duplicate config keys
        INVALID_REQUEST Default topic resources are not allowed.
        UNKNOWN_TOPIC_OR_PARTITION This server does not host this topic-partition.
        INVALID_REQUEST Cannot update these configs dynamically: Set(node.id)
        INVALID_REQUEST Cannot update these configs at default cluster level, per-broker configs: Set(ssl.keystore.location)
        BROKER_ID_NOT_REGISTERED No broker with id 77 found.
        INVALID_REQUEST Broker id must be an integer, but it is: one
        INVALID_REQUEST Unknown resource type 9
    "#]].assert_eq(&lines(told));

    let resource = make!(incremental_alter_configs_request::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "t".into(),
        configs: vec![set("retention.ms", 0, Some("1"))],
    });
    let request = make!(IncrementalAlterConfigsRequest { resources: vec![resource.clone(), resource] });
    let response = cluster.ask(1, &request).await;
    assert!(response.responses.iter().all(|outcome| name_of(outcome.error_code) == "INVALID_REQUEST"));
}

#[tokio::test]
async fn resources_are_listed_by_type() {
    let cluster = Cluster::new().await;
    cluster.create("t", 1, 1).await;
    assert_eq!(
        alter(&cluster, 32, "readers", vec![set("consumer.session.timeout.ms", 0, Some("50000"))]).await,
        "NONE -"
    );
    assert_eq!(alter(&cluster, 16, "watch", vec![set("interval.ms", 0, Some("5000"))]).await, "NONE -");
    let list = async |version, resource_types: Vec<i8>| {
        let response = cluster.ask(version, &make!(ListConfigResourcesRequest { resource_types })).await;
        let found = response.config_resources.iter().map(|r| format!("{}:{}", r.resource_type, r.resource_name));
        format!("{} {}", name_of(response.error_code), found.collect::<Vec<_>>().join(" "))
    };
    assert_eq!(list(0, vec![]).await, "NONE 16:watch");
    assert_eq!(list(1, vec![]).await, "NONE 2:t 4:1 4:2 4:3 8:1 8:2 8:3 16:watch 32:readers");
    assert_eq!(list(1, vec![TOPIC]).await, "NONE 2:t");
    assert_eq!(list(1, vec![3]).await, "UNSUPPORTED_VERSION ");
}

#[tokio::test]
async fn the_cluster_is_described_as_clients_reach_it() {
    let cluster = Cluster::new().await;
    cluster.controller.decide(&ControllerRequest::Heartbeat(Heartbeat {
        broker_id: BrokerId(3),
        broker_epoch: cluster.broker.image().broker(BrokerId(3)).expect("registered").broker_epoch,
        applied: MetadataOffset(i64::MAX),
        want_fence: true,
        want_shutdown: false,
        offline_log_dirs: vec![],
        offline_partitions: vec![],
    }));
    for version in ApiKey::DescribeCluster.accepted_versions() {
        let response = cluster.ask(version, &make!(DescribeClusterRequest { endpoint_type: 1 })).await;
        let brokers: Vec<_> = response.brokers.iter().map(|broker| (broker.broker_id, broker.port)).collect();
        assert_eq!(brokers, [(1, 9091), (2, 9092)]);
        assert_eq!((response.cluster_id.as_str(), response.controller_id), ("bohemia", 2));
        assert_eq!(response.cluster_authorized_operations, i32::MIN, "not asked for");
    }
    let request = make!(DescribeClusterRequest {
        endpoint_type: 1,
        include_fenced_brokers: true,
        include_cluster_authorized_operations: true,
    });
    let response = cluster.ask(2, &request).await;
    let fenced: Vec<_> = response.brokers.iter().map(|broker| broker.is_fenced).collect();
    assert_eq!((fenced, response.cluster_authorized_operations), (vec![false, false, true], 8096));
    let response = cluster.ask(2, &make!(DescribeClusterRequest { endpoint_type: 2 })).await;
    assert_eq!(name_of(response.error_code), "MISMATCHED_ENDPOINT_TYPE");
}

#[tokio::test]
async fn topics_are_described_page_by_page() {
    let cluster = Cluster::new().await;
    cluster.create("a", 3, 1).await;
    cluster.create("b", 2, 1).await;
    let mut request = make!(DescribeTopicPartitionsRequest { response_partition_limit: 2 });
    let mut pages = vec![];
    loop {
        let response = cluster.ask(0, &request).await;
        let topics = response.topics.iter().map(|topic| {
            let name = topic.name.as_deref().unwrap_or("-");
            let indexes: Vec<_> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            format!("{name}{indexes:?}")
        });
        pages.push(topics.collect::<Vec<_>>().join(" "));
        let Some(next) = response.next_cursor else { break };
        request.cursor = Some(make!(describe_topic_partitions_request::Cursor {
            topic_name: next.topic_name,
            partition_index: next.partition_index,
        }));
    }
    assert_eq!(pages, ["a[0, 1]", "a[2] b[0]", "b[1]"]);

    let topic = |name: &str| make!(describe_topic_partitions_request::TopicRequest { name: name.into() });
    let request = make!(DescribeTopicPartitionsRequest {
        topics: vec![topic("z"), topic("a b"), topic("b")],
        response_partition_limit: 2000,
    });
    let response = cluster.ask(0, &request).await;
    let told = response.topics.iter().map(|topic| format!("{:?} {}", topic.name.as_deref(), name_of(topic.error_code)));
    expect![[r#"
        Some("a b") INVALID_TOPIC_EXCEPTION
        Some("b") NONE
        Some("z") UNKNOWN_TOPIC_OR_PARTITION
    "#]]
    .assert_eq(&lines(told));
}

#[tokio::test]
async fn the_quorum_is_described_at_every_version() {
    let cluster = Cluster::new().await;
    let request = |topic: &str| {
        let partitions = vec![make!(describe_quorum_request::PartitionData { partition_index: 0 })];
        let topics = vec![make!(describe_quorum_request::TopicData { topic_name: topic.into(), partitions })];
        make!(DescribeQuorumRequest { topics })
    };
    for version in ApiKey::DescribeQuorum.accepted_versions() {
        let response = cluster.ask(version, &request("__cluster_metadata")).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id, partition.leader_epoch), (0, 2, 5));
        let members = partition.current_voters.iter().chain(&partition.observers);
        let told: Vec<_> = members.map(|member| (member.replica_id, member.log_end_offset)).collect();
        assert_eq!(told, [(1, 41), (2, 41), (3, -1)]);
        assert_eq!(response.nodes.len(), if version >= 2 { 3 } else { 0 });
    }
    let response = cluster.ask(2, &request("t")).await;
    assert_eq!(name_of(response.topics[0].partitions[0].error_code), "UNKNOWN_TOPIC_OR_PARTITION");
}

#[tokio::test]
async fn leaders_are_elected_at_every_version() {
    let cluster = Cluster::new().await;
    cluster.create("t", 2, 2).await;
    for version in ApiKey::ElectLeaders.accepted_versions() {
        let topic = |name: &str, partitions: Vec<i32>| {
            make!(elect_leaders_request::TopicPartitions { topic: name.into(), partitions })
        };
        let topic_partitions = Some(vec![topic("t", vec![0, 7]), topic("u", vec![0])]);
        let response = cluster.ask(version, &make!(ElectLeadersRequest { topic_partitions })).await;
        let told = response.replica_election_results.iter().flat_map(|topic| {
            let name = |partition: &elect_leaders_response::PartitionResult| {
                format!("{}-{} {}", topic.topic, partition.partition_id, name_of(partition.error_code))
            };
            topic.partition_result.iter().map(name)
        });
        expect![[r#"
            t-0 ELECTION_NOT_NEEDED
            t-7 UNKNOWN_TOPIC_OR_PARTITION
            u-0 UNKNOWN_TOPIC_OR_PARTITION
        "#]]
        .assert_eq(&lines(told));
        let response = cluster.ask(version, &make!(ElectLeadersRequest { topic_partitions: None })).await;
        assert_eq!((response.error_code, response.replica_election_results.len()), (0, 0));
    }
}

#[tokio::test]
async fn replicas_move_and_stop_moving() {
    let cluster = Cluster::new().await;
    let mut topic = creatable("t", -1, -1, &[]);
    topic.assignments =
        vec![make!(create_topics_request::CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![2, 3] })];
    cluster.ask(7, &make!(CreateTopicsRequest { topics: vec![topic] })).await;

    let alter = async |name: &str, replicas: Option<Vec<i32>>| {
        let partition =
            make!(alter_partition_reassignments_request::ReassignablePartition { partition_index: 0, replicas });
        let topics = vec![make!(alter_partition_reassignments_request::ReassignableTopic {
            name: name.into(),
            partitions: vec![partition],
        })];
        let mut told = String::new();
        for version in [0, 1] {
            let request = make!(AlterPartitionReassignmentsRequest { topics: topics.clone() });
            let response = cluster.ask(version, &request).await;
            assert_eq!(response.error_code, 0);
            told = name_of(response.responses[0].partitions[0].error_code).to_owned();
        }
        told
    };
    let list = async || {
        let response = cluster.ask(0, &make!(ListPartitionReassignmentsRequest { topics: None })).await;
        let partition = response.topics.first().map(|topic| topic.partitions[0].clone());
        partition.map(|p| (p.replicas, p.adding_replicas, p.removing_replicas))
    };
    assert_eq!(list().await, None);
    assert_eq!(alter("u", Some(vec![1])).await, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(alter("t", Some(vec![2, 9])).await, "INVALID_REPLICA_ASSIGNMENT");
    assert_eq!(alter("t", Some(vec![1, 2])).await, "NONE");
    assert_eq!(list().await, Some((vec![1, 2, 3], vec![1], vec![3])));
    assert_eq!(alter("t", None).await, "NO_REASSIGNMENT_IN_PROGRESS", "the first of the two called it off");
    assert_eq!(list().await, None);
}

#[tokio::test]
async fn a_broker_is_forgotten() {
    let cluster = Cluster::new().await;
    let ask = async |broker_id| {
        let response = cluster.ask(0, &make!(UnregisterBrokerRequest { broker_id })).await;
        name_of(response.error_code)
    };
    assert_eq!(ask(3).await, "NONE");
    assert_eq!(ask(3).await, "BROKER_ID_NOT_REGISTERED");
}

/// Waits until broker 1 hosts and leads the partition.
async fn led_here(cluster: &Cluster, name: &str) -> Arc<vltava_broker::partition::Partition> {
    let topic_id = cluster.broker.image().topic_by_name(name).expect("created").topic_id;
    let id = TopicPartition { topic_id, partition: PartitionIndex(0) };
    for _ in 0..500 {
        if let Some(partition) = cluster.broker.replicas.partition(id).filter(|p| p.leadership().is_local) {
            return partition;
        }
        tokio::time::sleep(tokio::time::Duration::from_millis(10)).await;
    }
    panic!("broker 1 does not lead {name}");
}

async fn create_here(cluster: &Cluster, name: &str, configs: &[(&str, &str)]) {
    create_on(cluster, name, vec![1], configs).await;
}

async fn create_on(cluster: &Cluster, name: &str, broker_ids: Vec<i32>, configs: &[(&str, &str)]) {
    let mut topic = creatable(name, -1, -1, configs);
    topic.assignments =
        vec![make!(create_topics_request::CreatableReplicaAssignment { partition_index: 0, broker_ids })];
    let response = cluster.ask(7, &make!(CreateTopicsRequest { topics: vec![topic] })).await;
    assert_eq!(response.topics[0].error_code, 0);
}

#[tokio::test]
async fn records_are_deleted_and_log_directories_described_at_every_version() {
    let cluster = Cluster::new().await;
    create_here(&cluster, "t", &[]).await;
    create_here(&cluster, "kept", &[("cleanup.policy", "compact")]).await;
    create_on(&cluster, "followed", vec![1, 2], &[]).await;
    let partition = led_here(&cluster, "t").await;
    for _ in 0..10 {
        let mut batch = BatchBuilder::new();
        batch.append(TimestampMs(vltava_host::clock::now().value()), None, Some(b"value"), &[]);
        let options = AppendOptions { origin: Origin::Client, acks: Acks::All, leader_epoch: None };
        let appended = partition.append_as_leader(&batch.build(), &options).expect("appended");
        partition.wait_for_acks(Acks::All, &appended).await.expect("committed");
    }

    let delete = async |version, topic: &str, index, offset| {
        let partition = make!(delete_records_request::DeleteRecordsPartition { partition_index: index, offset });
        let topic =
            make!(delete_records_request::DeleteRecordsTopic { name: topic.into(), partitions: vec![partition] });
        let response =
            cluster.ask(version, &make!(DeleteRecordsRequest { topics: vec![topic], timeout_ms: 300 })).await;
        let partition = &response.topics[0].partitions[0];
        format!("{} {}", name_of(partition.error_code), partition.low_watermark)
    };
    for version in ApiKey::DeleteRecords.accepted_versions() {
        let offset = i64::from(version) + 1;
        assert_eq!(delete(version, "t", 0, offset).await, format!("NONE {offset}"));
    }
    assert_eq!(delete(2, "t", 0, 11).await, "OFFSET_OUT_OF_RANGE -1");
    assert_eq!(delete(2, "t", 0, -2).await, "OFFSET_OUT_OF_RANGE -1");
    assert_eq!(delete(2, "t", 0, -1).await, "NONE 10");
    assert_eq!(delete(2, "t", 1, 0).await, "UNKNOWN_TOPIC_OR_PARTITION -1");
    assert_eq!(delete(2, "u", 0, 0).await, "UNKNOWN_TOPIC_OR_PARTITION -1");
    assert_eq!(delete(2, "kept", 0, 0).await, "POLICY_VIOLATION -1");
    // Broker 2 is alive, and never says where its log starts.
    led_here(&cluster, "followed").await;
    assert_eq!(delete(2, "followed", 0, 0).await, "REQUEST_TIMED_OUT -1");

    for version in ApiKey::DescribeLogDirs.accepted_versions() {
        let response = cluster.ask(version, &make!(DescribeLogDirsRequest { topics: None })).await;
        let directory = &response.results[0];
        let topics: Vec<_> = directory.topics.iter().map(|topic| topic.name.to_string()).collect();
        assert_eq!((directory.error_code, topics.join(" ")), (0, "followed kept t".to_owned()));
        assert!(directory.topics[2].partitions[0].partition_size > 0);
        assert_eq!(directory.total_bytes > 0, version >= 4);
    }
    let wanted = make!(describe_log_dirs_request::DescribableLogDirTopic { topic: "t".into(), partitions: vec![0, 5] });
    let response = cluster.ask(4, &make!(DescribeLogDirsRequest { topics: Some(vec![wanted]) })).await;
    assert_eq!(response.results[0].topics.len(), 1);
}
