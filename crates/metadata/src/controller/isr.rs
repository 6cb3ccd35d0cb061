//! AlterPartition: leaders propose ISRs by compare-and-set (KIP-497, KIP-841, KIP-903).

use vltava_types::{BrokerId, ErrorCode};

use super::brokers::check_broker_epoch;
use super::draft::Draft;
use super::{
    AlterPartition, AlterPartitions, AlteredPartition, AlteredPartitions, Controller, ControllerError, Decision,
};
use crate::image::ClusterImage;

impl Controller {
    pub(super) fn alter_partitions(
        &self,
        image: &ClusterImage,
        request: &AlterPartitions,
    ) -> Decision<Result<AlteredPartitions, ControllerError>> {
        if let Err(refused) = check_broker_epoch(image, request.broker_id, request.broker_epoch) {
            return Decision { records: vec![], response: Err(refused) };
        }
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let answers = request
            .partitions
            .iter()
            .map(|proposal| (proposal.partition, alter_partition(&mut draft, request.broker_id, proposal)))
            .collect();
        draft.decide(Ok(answers))
    }
}

fn alter_partition(
    draft: &mut Draft<'_>,
    broker_id: BrokerId,
    proposal: &AlterPartition,
) -> Result<AlteredPartition, ErrorCode> {
    check_proposal(draft, broker_id, proposal)?;
    let partition = proposal.partition;
    let mut update = draft.update(partition);
    update.target.isr = proposal.new_isr.iter().map(|(member, _)| *member).collect();
    update.target.leader_recovering &= !proposal.leader_recovered;
    draft.apply(update);

    let altered = draft.image.partition(partition.topic_id, partition.partition).expect("it was just changed");
    if altered.leader != Some(broker_id) {
        // The change completed a reassignment that leaves the proposer out. The change stands.
        return Err(ErrorCode::NewLeaderElected);
    }
    Ok(AlteredPartition {
        leader: altered.leader,
        leader_epoch: altered.leader_epoch,
        isr: altered.isr.clone(),
        partition_epoch: altered.partition_epoch,
    })
}

fn check_proposal(draft: &Draft<'_>, broker_id: BrokerId, proposal: &AlterPartition) -> Result<(), ErrorCode> {
    let topic = draft.image.topic(proposal.partition.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let current = topic.partition(proposal.partition.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if proposal.leader_epoch > current.leader_epoch || proposal.partition_epoch > current.partition_epoch {
        // The proposer has seen a newer controller's decisions.
        return Err(ErrorCode::NotController);
    }
    if proposal.leader_epoch < current.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if current.leader != Some(broker_id) {
        return Err(ErrorCode::InvalidRequest);
    }
    if proposal.partition_epoch < current.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let new_isr: Vec<BrokerId> = proposal.new_isr.iter().map(|(member, _)| *member).collect();
    let is_duplicate = |index: usize| new_isr[..index].contains(&new_isr[index]);
    if (0..new_isr.len()).any(|index| is_duplicate(index) || !current.replicas.contains(&new_isr[index])) {
        return Err(ErrorCode::InvalidRequest);
    }
    if !new_isr.contains(&broker_id) {
        return Err(ErrorCode::InvalidRequest);
    }
    // Trap 32: until the leader has recovered from its unclean election, nobody can be in sync with it.
    if current.leader_recovering && !proposal.leader_recovered && new_isr.len() > 1 {
        return Err(ErrorCode::InvalidRequest);
    }
    // Traps 9 and 10: a broker that is fenced, stopping, gone or reborn does not join, whatever the leader believed.
    for (member, broker_epoch) in &proposal.new_isr {
        let is_current = draft.image.broker(*member).is_some_and(|broker| broker.broker_epoch == *broker_epoch);
        if !is_current || !draft.may_lead(*member, proposal.partition) {
            return Err(ErrorCode::IneligibleReplica);
        }
    }
    Ok(())
}
