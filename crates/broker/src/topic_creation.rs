//! Topics that come into being because someone asked for them: by Metadata with auto-creation, or an internal topic at
//! its first use.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::time::Instant;
use vltava_host::random;
use vltava_metadata::controller::{ControllerRequest, ControllerResponse, CreateTopic, CreateTopics};
use vltava_types::{ErrorCode, TopicId};

use crate::Broker;
use crate::config::BrokerConfig;

/// Kafka's internal topics: clients see them flagged, and may not write to them.
pub const CONSUMER_OFFSETS_TOPIC: &str = "__consumer_offsets";
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
pub const SHARE_GROUP_STATE_TOPIC: &str = "__share_group_state";

/// Whether a topic belongs to the brokers.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS_TOPIC | TRANSACTION_STATE_TOPIC | SHARE_GROUP_STATE_TOPIC)
}

/// Whether Kafka allows a topic of this name: it becomes a directory's name.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(is_allowed)
}

/// Names that this broker has asked the controller for and not heard of yet, so that a thousand clients that ask for
/// the same missing topic cost one request.
#[derive(Default)]
pub struct TopicCreation {
    under_way: Mutex<BTreeSet<String>>,
}

/// Removes the names again, however the asking ends.
struct UnderWay<'a> {
    creation: &'a TopicCreation,
    names: Vec<String>,
}

impl TopicCreation {
    /// Asks the controller to create those of `names` that nobody asks for yet, and waits until this broker knows them
    /// all or has been refused some. Returns the refusals by name; what is neither refused nor in the newest image by
    /// then may still come. Names must be valid.
    pub async fn create(
        &self,
        broker: &Broker,
        names: &BTreeSet<String>,
        deadline: Instant,
    ) -> BTreeMap<String, ErrorCode> {
        let ours = self.claim(names);
        let mut refused = BTreeMap::new();
        if !ours.names.is_empty() {
            let topics = ours.names.iter().map(|name| wanted(&broker.config, name)).collect();
            let request = ControllerRequest::CreateTopics(CreateTopics { topics, validate_only: false });
            match broker.controller.call(request, deadline).await {
                Ok(ControllerResponse::CreateTopics(created)) => {
                    for topic in created {
                        match topic.result {
                            Ok(_) => {}
                            // Another broker was faster: what was asked for is there.
                            Err(error) if error.code == ErrorCode::TopicAlreadyExists => {}
                            Err(error) => {
                                tracing::info!(topic = topic.name, "not created automatically: {}", error.message);
                                refused.insert(topic.name, error.code);
                            }
                        }
                    }
                }
                Ok(_) | Err(_) => return refused,
            }
        }
        let is_known = |name: &String, image: &vltava_metadata::ClusterImage| {
            refused.contains_key(name) || image.topic_id(name).is_some()
        };
        broker.wait_for_image(deadline, |image| names.iter().all(|name| is_known(name, image))).await;
        refused
    }

    fn claim(&self, names: &BTreeSet<String>) -> UnderWay<'_> {
        let mut under_way = self.under_way.lock();
        let names = names.iter().filter(|name| under_way.insert((*name).clone())).cloned().collect();
        UnderWay { creation: self, names }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.creation.under_way.lock();
        for name in &self.names {
            under_way.remove(name);
        }
    }
}

/// What a topic that nobody described looks like.
fn wanted(config: &BrokerConfig, name: &str) -> CreateTopic {
    let mut topic = CreateTopic {
        name: name.to_owned(),
        topic_id: TopicId::from_random(random::bytes()),
        partition_count: config.topics.default_partitions,
        replication_factor: config.topics.default_replication_factor,
        assignments: BTreeMap::new(),
        configs: BTreeMap::new(),
        clamp_replication_factor: false,
    };
    if name == CONSUMER_OFFSETS_TOPIC {
        let segment_bytes = config.groups.offsets_topic_segment_bytes.to_string();
        topic.partition_count = config.groups.offsets_topic_partitions;
        topic.replication_factor = config.groups.offsets_topic_replication_factor;
        topic.clamp_replication_factor = true;
        topic.configs =
            [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", &segment_bytes)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::is_valid_name;

    #[test]
    fn names_that_cannot_be_directories_are_refused() {
        for name in ["a", "a.b_c-D9", &"x".repeat(249), "..."] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            assert!(!is_valid_name(name), "{name}");
        }
    }
}
