//! Moving partitions between brokers (KIP-455).
//!
//! While a reassignment is under way, the replicas are the target ones followed by those to be removed. It is complete
//! once every target replica is in the ISR, which [`super::partition_update`] sees with the change that brings it
//! about.

use vltava_types::{BrokerId, ErrorCode, TopicPartition};

use super::draft::{Draft, error};
use super::placement::check_manual_assignment;
use super::{Controller, ControllerError, Decision, Reassignment};
use crate::image::ClusterImage;

type Reassignments = Vec<(TopicPartition, Result<(), ControllerError>)>;

impl Controller {
    pub(super) fn alter_partition_reassignments(
        &self,
        image: &ClusterImage,
        reassignments: &[Reassignment],
        allow_replication_factor_change: bool,
    ) -> Decision<Reassignments> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let answers = reassignments
            .iter()
            .map(|reassignment| {
                let partition = reassignment.partition;
                let answer = match &reassignment.replicas {
                    Some(replicas) => reassign(&mut draft, partition, replicas, allow_replication_factor_change),
                    None => cancel(&mut draft, partition),
                };
                (partition, answer)
            })
            .collect();
        draft.decide(answers)
    }
}

pub(super) fn reassign(
    draft: &mut Draft<'_>,
    partition: TopicPartition,
    target: &[BrokerId],
    allow_replication_factor_change: bool,
) -> Result<(), ControllerError> {
    check_exists(draft, partition)?;
    let mut update = draft.update(partition);
    check_manual_assignment(&draft.image, target, None)?;
    let current = update.target.replicas.clone();
    let adding = std::mem::take(&mut update.target.adding_replicas);
    // The replicas before any reassignment now under way.
    let original: Vec<BrokerId> = current.iter().copied().filter(|replica| !adding.contains(replica)).collect();
    if !allow_replication_factor_change && original.len() != target.len() {
        let (from, to) = (original.len(), target.len());
        let message = format!("The replication factor is changed from {from} to {to}");
        return Err(error(ErrorCode::InvalidReplicationFactor, message));
    }
    let removing: Vec<BrokerId> = current.iter().copied().filter(|replica| !target.contains(replica)).collect();
    update.target.replicas = [target, &removing].concat();
    update.target.adding_replicas = target.iter().copied().filter(|replica| !original.contains(replica)).collect();
    update.target.removing_replicas = removing;
    draft.apply(update);
    Ok(())
}

/// Goes back to the replicas from before the reassignment.
fn cancel(draft: &mut Draft<'_>, partition: TopicPartition) -> Result<(), ControllerError> {
    check_exists(draft, partition)?;
    let mut update = draft.update(partition);
    if !update.target.is_reassigning() {
        return Err(error(ErrorCode::NoReassignmentInProgress, "No partition reassignment is in progress."));
    }
    let adding = std::mem::take(&mut update.target.adding_replicas);
    update.target.removing_replicas.clear();
    update.target.replicas.retain(|replica| !adding.contains(replica));
    update.target.isr.retain(|member| !adding.contains(member));
    if update.target.replicas.is_empty() {
        let message = "Invalid replica assignment: addingReplicas contains all replicas";
        return Err(error(ErrorCode::InvalidReplicaAssignment, message));
    }
    // What was acknowledged may be nowhere but on the added replicas.
    let mut copies = update.target.isr.iter().chain(&update.target.eligible_leader_replicas);
    if copies.all(|replica| adding.contains(replica)) {
        let name = draft.describe(partition);
        let message = format!(
            "Unable to revert partition assignment for {name} because it would require an unclean leader election"
        );
        return Err(error(ErrorCode::InvalidReplicaAssignment, message));
    }
    draft.apply(update);
    Ok(())
}

fn check_exists(draft: &Draft<'_>, partition: TopicPartition) -> Result<(), ControllerError> {
    match draft.image.partition(partition.topic_id, partition.partition) {
        Some(_) => Ok(()),
        None => Err(error(ErrorCode::UnknownTopicOrPartition, "The topic or partition does not exist.")),
    }
}
