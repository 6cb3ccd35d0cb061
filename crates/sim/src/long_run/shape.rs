//! Invariants of a partition's metadata (KIP-966), which every image keeps by itself.

use vltava_metadata::{ClusterImage, PartitionImage};
use vltava_types::{LeaderEpoch, PartitionEpoch, TopicPartition};

use super::plan::Plan;

/// What is wrong with a partition's metadata by itself, or after what it was before.
pub fn shape(
    image: &ClusterImage,
    id: TopicPartition,
    partition: &PartitionImage,
    before: Option<&PartitionImage>,
    plan: &Plan,
) -> Option<String> {
    let PartitionImage { replicas, isr, eligible_leader_replicas: elr, leader, .. } = partition;
    let name = image.topic_name(id.topic_id)?;
    let wrong = |what: &str| Some(format!("{name}-{}: {what}", id.partition));
    if !isr.iter().chain(elr).all(|member| replicas.contains(member)) {
        return wrong("a candidate is no replica");
    }
    if isr.iter().any(|member| elr.contains(member)) {
        return wrong("in sync and not in sync at once");
    }
    if leader.is_some_and(|leader| !isr.contains(&leader)) {
        return wrong("the leader is not in sync");
    }
    if let Some(fenced) = isr.iter().find(|member| !image.is_unfenced(**member)) {
        return wrong(&format!("{fenced} is in sync and fenced"));
    }
    // Of topics that the plan does not name it is not known.
    let required = plan.topic(name).map(|topic| (topic.min_insync_replicas as usize).min(replicas.len()));
    if required.is_some_and(|required| isr.len() >= required) && !elr.is_empty() {
        return wrong("enough in-sync replicas, and eligible ones besides");
    }
    let (leader_epoch, partition_epoch): (LeaderEpoch, PartitionEpoch) = match before {
        Some(before) => (before.leader_epoch, before.partition_epoch),
        None => return None,
    };
    if partition.leader_epoch < leader_epoch || partition.partition_epoch < partition_epoch {
        return wrong("an epoch went back");
    }
    if before.is_some_and(|before| before.leader != *leader) && partition.leader_epoch == leader_epoch {
        return wrong("another leader in the same epoch");
    }
    None
}
