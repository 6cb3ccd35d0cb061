//! Metadata: which brokers there are, and who leads what. Missing topics may be created on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vltava_metadata::{ClusterImage, PartitionImage, TopicImage};
use vltava_protocol::make;
use vltava_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use vltava_protocol::messages::{MetadataRequest, MetadataResponse, WireId as _};
use vltava_types::{BrokerId, ErrorCode, PartitionIndex, TopicId};

use crate::Broker;
use crate::api::RequestContext;
use crate::api::authorized_operations::{ALL_CLUSTER_OPERATIONS, ALL_TOPIC_OPERATIONS};
use crate::topic_creation::{is_internal, is_valid_name};

/// How long a client waits here for topics that it made us create; after that it asks again.
const CREATION_TIMEOUT: Duration = Duration::from_secs(1);

/// No more topics are created for one request; the client asks again for the rest.
const MAX_CREATED_AT_ONCE: usize = 200;

pub async fn handle(context: &RequestContext<'_>, request: MetadataRequest) -> MetadataResponse {
    let wanted = match wanted_topics(context.version, &request) {
        Ok(wanted) => wanted,
        Err(refused) => return refused,
    };
    let mut image = Arc::clone(&context.image);
    let mut refused = BTreeMap::new();
    if request.allow_auto_topic_creation && context.broker.config.topics.auto_create {
        let missing = missing_names(&image, &wanted);
        if !missing.is_empty() {
            let deadline = Instant::now() + CREATION_TIMEOUT;
            refused = context.broker.topic_creation.create(context.broker, &missing, deadline).await;
            image = context.broker.image();
        }
    }

    let (broker, listener) = (&**context.broker, context.connection.listener.as_str());
    let view = View { broker, image: &image, listener, version: context.version };
    let mut topics: Vec<MetadataResponseTopic> = match wanted {
        Wanted::All => image.topic_ids.values().filter_map(|id| image.topic(*id)).map(|t| view.topic(t)).collect(),
        Wanted::Named(names) => names.iter().map(|name| view.topic_by_name(name, &refused)).collect(),
        Wanted::Identified(ids) => ids.iter().map(|id| view.topic_by_id(*id)).collect(),
    };
    if context.version >= 8 && request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == ErrorCode::None.code()) {
            topic.topic_authorized_operations = ALL_TOPIC_OPERATIONS;
        }
    }
    let mut response = make!(MetadataResponse {
        brokers: view.brokers(),
        controller_id: controller_id(context, &image).value(),
        topics,
    });
    if context.version >= 2 {
        response.cluster_id = Some(image.cluster_id.as_str().into());
    }
    if (8..=10).contains(&context.version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
    }
    response
}

enum Wanted {
    All,
    /// In the order asked for, each once.
    Named(Vec<String>),
    Identified(Vec<TopicId>),
}

/// What is asked for: "all topics" was an empty list in version 0 and is null since.
fn wanted_topics(version: i16, request: &MetadataRequest) -> Result<Wanted, MetadataResponse> {
    let Some(topics) = &request.topics else { return Ok(Wanted::All) };
    if version == 0 && topics.is_empty() {
        return Ok(Wanted::All);
    }
    // Versions 10 and 11 carry ids, but only as a preparation for 12.
    let by_id = topics.iter().any(|topic| !topic.topic_id.is_zero());
    if version < 12 && (by_id || topics.iter().any(|topic| topic.name.is_none())) {
        let refuse = |topic: &vltava_protocol::messages::metadata_request::MetadataRequestTopic| {
            let name = Some(topic.name.clone().unwrap_or_default());
            make!(MetadataResponseTopic {
                error_code: ErrorCode::InvalidRequest.code(),
                name,
                topic_id: topic.topic_id
            })
        };
        return Err(make!(MetadataResponse { topics: topics.iter().map(refuse).collect(), controller_id: -1 }));
    }
    if by_id {
        let mut seen = BTreeSet::new();
        let ids = topics.iter().map(|topic| TopicId::from_wire(topic.topic_id));
        return Ok(Wanted::Identified(ids.filter(|id| !id.is_zero() && seen.insert(*id)).collect()));
    }
    let mut seen = BTreeSet::new();
    let names = topics.iter().map(|topic| topic.name.as_deref().unwrap_or_default());
    Ok(Wanted::Named(names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()))
}

fn missing_names(image: &ClusterImage, wanted: &Wanted) -> BTreeSet<String> {
    let Wanted::Named(names) = wanted else { return BTreeSet::new() };
    let is_missing = |name: &&String| is_valid_name(name) && image.topic_id(name).is_none();
    names.iter().filter(is_missing).take(MAX_CREATED_AT_ONCE).cloned().collect()
}

/// The controller if clients can reach it, else this broker, which forwards what is the controller's.
pub(super) fn controller_id(context: &RequestContext<'_>, image: &ClusterImage) -> BrokerId {
    let listener = &context.connection.listener;
    let is_reachable = |id: &BrokerId| {
        image.broker(*id).is_some_and(|b| b.is_broker && !b.fenced && b.listeners.contains_key(listener))
    };
    let candidates = context.broker.controller.quorum_status().leader.into_iter().chain([context.broker.node_id]);
    let any = image.brokers.keys().copied();
    candidates.chain(any).find(is_reachable).unwrap_or(BrokerId::NONE)
}

/// An image as a client of one listener and version sees it.
struct View<'a> {
    broker: &'a Broker,
    image: &'a ClusterImage,
    listener: &'a str,
    version: i16,
}

impl View<'_> {
    /// Those that a client can reach and that serve, or did a moment ago.
    fn brokers(&self) -> Vec<MetadataResponseBroker> {
        let is_listed = |id: BrokerId, fenced: bool| !fenced || self.broker.fenced_lately.contains(id);
        let brokers = self.image.brokers.values().filter(|broker| broker.is_broker);
        let listed = brokers.filter(|broker| is_listed(broker.broker_id, broker.fenced));
        listed
            .filter_map(|broker| {
                let endpoint = broker.listeners.get(self.listener)?;
                let mut described = make!(MetadataResponseBroker {
                    node_id: broker.broker_id.value(),
                    host: endpoint.host.as_str().into(),
                    port: i32::from(endpoint.port),
                });
                if self.version >= 1 {
                    described.rack = broker.rack.as_deref().map(Into::into);
                }
                Some(described)
            })
            .collect()
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let mut described = make!(MetadataResponseTopic {
            name: Some(topic.name.as_str().into()),
            is_internal: is_internal(&topic.name),
            partitions: topic.indexed_partitions().map(|(index, p)| self.partition(index, p)).collect(),
        });
        if self.version >= 10 {
            described.topic_id = topic.topic_id.to_wire();
        }
        described
    }

    fn topic_by_name(&self, name: &str, refused: &BTreeMap<String, ErrorCode>) -> MetadataResponseTopic {
        if let Some(topic) = self.image.topic_by_name(name) {
            return self.topic(topic);
        }
        let error = match refused.get(name) {
            _ if !is_valid_name(name) => ErrorCode::InvalidTopicException,
            Some(error) => *error,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        make!(MetadataResponseTopic {
            error_code: error.code(),
            name: Some(name.into()),
            is_internal: is_internal(name),
        })
    }

    fn topic_by_id(&self, topic_id: TopicId) -> MetadataResponseTopic {
        match self.image.topic(topic_id) {
            Some(topic) => self.topic(topic),
            None => make!(MetadataResponseTopic {
                error_code: ErrorCode::UnknownTopicId.code(),
                name: None,
                topic_id: topic_id.to_wire(),
            }),
        }
    }

    fn partition(&self, index: PartitionIndex, partition: &PartitionImage) -> MetadataResponsePartition {
        let leader = partition.leader.filter(|leader| self.image.endpoint(*leader, self.listener).is_some());
        let mut replicas = partition.replicas.clone();
        let mut isr = partition.isr.clone();
        let mut error = ErrorCode::None;
        if self.version == 0 {
            // The first version names only nodes that it also gives endpoints of.
            replicas.retain(|replica| !self.is_offline(*replica));
            isr.retain(|replica| !self.is_offline(*replica));
            if replicas.len() < partition.replicas.len() || isr.len() < partition.isr.len() {
                error = ErrorCode::ReplicaNotAvailable;
            }
        }
        if leader.is_none() {
            let leads_elsewhere = partition.leader.is_some_and(|leader| self.image.broker(leader).is_some());
            error = if leads_elsewhere && self.version >= 6 {
                ErrorCode::ListenerNotFound
            } else {
                ErrorCode::LeaderNotAvailable
            };
        }
        let mut described = make!(MetadataResponsePartition {
            error_code: error.code(),
            partition_index: index.value(),
            leader_id: leader.unwrap_or(BrokerId::NONE).value(),
            replica_nodes: numbers(&replicas),
            isr_nodes: numbers(&isr),
        });
        if self.version >= 5 {
            described.offline_replicas =
                partition.replicas.iter().filter(|r| self.is_offline(**r)).map(|r| r.value()).collect();
        }
        if self.version >= 7 {
            described.leader_epoch = partition.leader_epoch.value();
        }
        described
    }

    fn is_offline(&self, replica: BrokerId) -> bool {
        !self.image.broker(replica).is_some_and(|b| !b.fenced && b.listeners.contains_key(self.listener))
    }
}

fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.value()).collect()
}
