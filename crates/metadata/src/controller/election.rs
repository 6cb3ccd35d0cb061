//! Elections that are asked for, and the balancing of leaderships over preferred leaders.

use std::collections::BTreeMap;

use vltava_types::{BrokerId, ErrorCode, TopicPartition};

use super::draft::{Draft, error};
use super::partition_update::Election;
use super::{Controller, ControllerError, Decision, ElectionType};
use crate::image::{ClusterImage, PartitionImage};
use crate::record::MetadataRecord;

/// Bounds the size of one decision; the rest is balanced at the next tick.
const MAX_ELECTIONS_PER_BALANCING: usize = 1000;

type Elections = Vec<(TopicPartition, Result<(), ControllerError>)>;

impl Controller {
    /// ElectLeaders (KIP-183, KIP-460). Without a selection, partitions that need no election are left out of the
    /// answer.
    pub(super) fn elect_leaders(
        &self,
        image: &ClusterImage,
        election_type: ElectionType,
        partitions: Option<&[TopicPartition]>,
    ) -> Decision<Elections> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let answers = match partitions {
            Some(partitions) => {
                partitions.iter().map(|&partition| (partition, elect(&mut draft, election_type, partition))).collect()
            }
            None => {
                let needed = image.partitions().filter(|(_, partition)| is_needed(election_type, partition));
                needed.map(|(partition, _)| (partition, elect(&mut draft, election_type, partition))).collect()
            }
        };
        draft.decide(answers)
    }

    /// Gives leaderships back to preferred leaders that have returned to the ISR, where a broker lacks more than
    /// `leader.imbalance.per.broker.percentage` of the leaderships it should have.
    pub(super) fn balance_leaders(&mut self, image: &ClusterImage, now_ms: i64) -> Vec<MetadataRecord> {
        let interval_ms = self.config.leader_imbalance_check_interval_ms;
        let due_at_ms = *self.next_balancing_ms.get_or_insert(now_ms.saturating_add(interval_ms));
        if !self.config.auto_leader_rebalance_enable || now_ms < due_at_ms {
            return vec![];
        }
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let mut elections = 0;
        for partition in led_by_others(image, self.config.leader_imbalance_per_broker_percentage) {
            let mut update = draft.update(partition);
            update.election = Election::Preferred;
            elections += usize::from(draft.apply(update));
            if elections == MAX_ELECTIONS_PER_BALANCING {
                return draft.into_records();
            }
        }
        self.next_balancing_ms = Some(now_ms.saturating_add(interval_ms));
        draft.into_records()
    }
}

fn elect(draft: &mut Draft<'_>, election_type: ElectionType, partition: TopicPartition) -> Result<(), ControllerError> {
    let Some(image) = draft.image.partition(partition.topic_id, partition.partition) else {
        return Err(error(ErrorCode::UnknownTopicOrPartition, "No such topic or partition."));
    };
    if !is_needed(election_type, image) {
        return Err(error(ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition."));
    }
    let mut update = draft.update(partition);
    update.election = match election_type {
        ElectionType::Preferred => Election::Preferred,
        ElectionType::Unclean => Election::Unclean,
    };
    draft.apply(update);
    let image = draft.image.partition(partition.topic_id, partition.partition).expect("it was there before");
    if !is_needed(election_type, image) {
        return Ok(());
    }
    Err(match election_type {
        ElectionType::Preferred => {
            error(ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
        }
        ElectionType::Unclean => {
            error(ErrorCode::EligibleLeadersNotAvailable, "Eligible topic partition leaders are not available.")
        }
    })
}

fn is_needed(election_type: ElectionType, partition: &PartitionImage) -> bool {
    match election_type {
        ElectionType::Preferred => partition.leader != partition.preferred_leader(),
        ElectionType::Unclean => partition.leader.is_none(),
    }
}

/// The partitions to give back to brokers that lack more than `percentage` of their leaderships.
fn led_by_others(image: &ClusterImage, percentage: i32) -> Vec<TopicPartition> {
    let mut leaderships: BTreeMap<BrokerId, (i64, Vec<TopicPartition>)> = BTreeMap::new();
    for (partition, image) in image.partitions() {
        let Some(preferred) = image.preferred_leader() else { continue };
        let (total, missing) = leaderships.entry(preferred).or_default();
        *total += 1;
        if image.leader != Some(preferred) {
            missing.push(partition);
        }
    }
    let is_imbalanced = |total: i64, missing: usize| missing as i64 * 100 > total * i64::from(percentage);
    let imbalanced = leaderships.into_values().filter(|(total, missing)| is_imbalanced(*total, missing.len()));
    imbalanced.flat_map(|(_, missing)| missing).collect()
}
