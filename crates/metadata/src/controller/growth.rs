//! Topics that were created while fewer brokers were live than replicas were asked for grow when more come.
//!
//! The factor asked for is the topic's config [`TARGET`] until it is reached. Replicas are added by reassignment, a few
//! partitions at a time, and the order of preference is chosen so that leaderships spread over the brokers that came.

use std::collections::BTreeMap;

use vltava_types::{BrokerId, TopicId, TopicPartition};

use super::Controller;
use super::draft::Draft;
use super::placement::place_more;
use super::reassignment::reassign;
use crate::image::{ClusterImage, TopicImage};
use crate::record::{ConfigResource, MetadataRecord};

/// The topic config that holds the replication factor to grow to.
pub(super) const TARGET: &str = "vltava.target.replication.factor";

/// How often topics are looked at.
const INTERVAL_MS: i64 = 500;

/// Partitions of one topic that grow at a time.
const MAX_GROWING: usize = 16;

impl Controller {
    /// Lets one topic grow by a few partitions, or forgets a target that is reached.
    pub(super) fn grow_topics(&mut self, image: &ClusterImage, now_ms: i64) -> Vec<MetadataRecord> {
        if self.next_growth_ms.is_some_and(|due_at_ms| now_ms < due_at_ms) {
            return vec![];
        }
        self.next_growth_ms = Some(now_ms.saturating_add(INTERVAL_MS));
        let active = image.live_brokers().filter(|broker| image.is_active(broker.broker_id)).count();
        for (topic, target) in targets(image) {
            let mut draft = Draft::new(image, &self.config, &self.sessions);
            let is_reached = topic
                .indexed_partitions()
                .all(|(_, partition)| !partition.is_reassigning() && partition.replicas.len() >= target);
            if is_reached {
                let resource = ConfigResource::Topic(topic.topic_id);
                draft.push(MetadataRecord::Config { resource, name: TARGET.to_owned(), value: None });
            } else {
                grow(&mut draft, topic.topic_id, target.min(active));
            }
            let records = draft.into_records();
            if !records.is_empty() {
                return records;
            }
        }
        vec![]
    }
}

/// The topics that should grow, and to how many replicas.
fn targets(image: &ClusterImage) -> impl Iterator<Item = (&TopicImage, usize)> {
    image.configs.iter().filter_map(|(resource, configs)| {
        let ConfigResource::Topic(topic_id) = resource else { return None };
        let target = configs.get(TARGET)?.trim().parse().ok().filter(|target| *target > 0)?;
        Some((&**image.topic(*topic_id)?, target))
    })
}

/// Adds replicas to partitions that have fewer than `count`.
fn grow(draft: &mut Draft<'_>, topic_id: TopicId, count: usize) {
    let topic = draft.image.topic(topic_id).expect("the topic exists");
    let mut replicas: BTreeMap<BrokerId, usize> = BTreeMap::new();
    let mut preferred: BTreeMap<BrokerId, usize> = BTreeMap::new();
    let mut growing = 0;
    let mut small = vec![];
    for (index, partition) in topic.indexed_partitions() {
        partition.replicas.iter().for_each(|replica| *replicas.entry(*replica).or_default() += 1);
        if let Some(leader) = partition.preferred_leader() {
            *preferred.entry(leader).or_default() += 1;
        }
        if partition.is_reassigning() {
            growing += 1;
        } else if partition.replicas.len() < count {
            small.push((TopicPartition { topic_id, partition: index }, partition.replicas.clone()));
        }
    }
    for (partition, current) in small.into_iter().take(MAX_GROWING.saturating_sub(growing)) {
        let added = place_more(&draft.image, &current, count, &replicas);
        added.iter().for_each(|replica| *replicas.entry(*replica).or_default() += 1);
        let mut target = [current, added].concat();
        let uses = |replica: &BrokerId| preferred.get(replica).copied().unwrap_or(0);
        let (first, least_used) = (target[0], target.iter().copied().min_by_key(uses).expect("there is a replica"));
        // A change that does not make it more even is not worth an election.
        if uses(&least_used) + 1 < uses(&first) {
            target.retain(|replica| *replica != least_used);
            target.insert(0, least_used);
            *preferred.entry(first).or_default() -= 1;
            *preferred.entry(least_used).or_default() += 1;
        }
        // Refused only if a replica is no broker any more: then whoever removed it has to see to it.
        let _ = reassign(draft, partition, &target, true);
    }
}
