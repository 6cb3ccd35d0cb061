//! What a client knows of topics and their leaders.

use std::collections::BTreeMap;

use vltava_protocol::messages::{MetadataResponse, WireId as _};
use vltava_types::{ErrorCode, LeaderEpoch, TopicId};

/// Topics as last heard of. News of a partition that is older than what is known is ignored: an answer of a broker
/// that lags behind must not send anyone back to a former leader (KIP-320).
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    topics: BTreeMap<String, TopicView>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicView {
    pub id: TopicId,
    pub is_internal: bool,
    pub partitions: BTreeMap<i32, PartitionView>,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionView {
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
}

impl ClusterView {
    /// Takes in an answer; returns the topics that it refuses to tell about.
    pub fn update(&mut self, response: &MetadataResponse) -> BTreeMap<String, ErrorCode> {
        let mut refused = BTreeMap::new();
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref().map(|name| name.as_str()) else { continue };
            match ErrorCode::from_code(topic.error_code).unwrap_or(ErrorCode::UnknownServerError) {
                ErrorCode::None | ErrorCode::LeaderNotAvailable => {}
                code => {
                    if code == ErrorCode::UnknownTopicOrPartition {
                        self.topics.remove(name);
                    }
                    refused.insert(name.to_owned(), code);
                    continue;
                }
            }
            let known = self.topics.entry(name.to_owned()).or_default();
            let id = TopicId::from_wire(topic.topic_id);
            if known.id != id {
                // A topic that was deleted and created again counts its epochs anew.
                *known = TopicView { id, ..TopicView::default() };
            }
            known.is_internal = topic.is_internal;
            for partition in &topic.partitions {
                let told = PartitionView {
                    leader: Some(partition.leader_id).filter(|leader| *leader >= 0),
                    leader_epoch: LeaderEpoch(partition.leader_epoch),
                };
                let known = known.partitions.entry(partition.partition_index).or_insert(told);
                if known.leader_epoch <= told.leader_epoch {
                    *known = told;
                }
            }
        }
        refused
    }

    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicView> {
        self.topics.get(name)
    }

    #[must_use]
    pub fn partition(&self, topic: &str, partition: i32) -> Option<PartitionView> {
        self.topics.get(topic)?.partitions.get(&partition).copied()
    }

    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.partition(topic, partition)?.leader
    }

    #[must_use]
    pub fn partition_count(&self, topic: &str) -> Option<i32> {
        self.topics.get(topic).map(|topic| topic.partitions.len() as i32).filter(|count| *count > 0)
    }

    /// All known topics by name.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &TopicView)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::make;
    use vltava_protocol::messages::Uuid;
    use vltava_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;

    fn told(id: u8, leader_id: i32, leader_epoch: i32) -> MetadataResponse {
        let partition = make!(MetadataResponsePartition { partition_index: 0, leader_id, leader_epoch });
        let topic = make!(MetadataResponseTopic {
            name: Some("t".into()),
            topic_id: Uuid::from_bytes([id; 16]),
            partitions: vec![partition],
        });
        make!(MetadataResponse { topics: vec![topic] })
    }

    #[test]
    fn older_news_do_not_lead_back_to_a_former_leader() {
        let mut view = ClusterView::default();
        view.update(&told(1, 1, 5));
        view.update(&told(1, 2, 6));
        view.update(&told(1, 1, 5));
        assert_eq!(view.leader("t", 0), Some(2));
        view.update(&told(1, -1, 7));
        assert_eq!(view.leader("t", 0), None);
    }

    #[test]
    fn a_topic_of_the_same_name_created_again_begins_anew() {
        let mut view = ClusterView::default();
        view.update(&told(1, 1, 5));
        view.update(&told(2, 3, 0));
        assert_eq!(view.leader("t", 0), Some(3));
    }
}
