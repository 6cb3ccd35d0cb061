//! One change of one partition: given what must change, works out ISR, eligible replicas (ELR), leader and epochs.
//!
//! All decisions about partitions end here, so these hold after every change (KIP-966):
//! - ISR and ELR are disjoint subsets of the replicas; no fenced or stopping broker is in the ISR;
//! - the leader, if any, is in the ISR;
//! - while the ISR has `min.insync.replicas` members, the ELR is empty. Below that the high watermark stands still, so
//!   whoever leaves the ISR still holds every committed record and is kept in the ELR;
//! - ISR and ELR together become empty only when the last copy is known to be gone.

use std::sync::Arc;

use vltava_types::{BrokerId, TopicPartition, mutation};

use super::draft::Draft;
use crate::image::PartitionImage;
use crate::record::PartitionChange;

/// Whom a change elects if the partition has no leader or asks for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// Keep the leader if it may stay; else any member of the ISR, or of the ELR if the ISR is empty.
    Online,
    /// The first replica if it may lead, else as [`Election::Online`].
    Preferred,
    /// As [`Election::Online`], and a replica that may lack committed records rather than none.
    Unclean,
}

/// A change in the making. The caller edits `target`'s replicas, ISR and reassignment; the rest follows.
pub(super) struct PartitionUpdate {
    pub(super) target: PartitionImage,
    pub(super) election: Election,
    partition: TopicPartition,
    before: Arc<PartitionImage>,
    distrusted: Vec<BrokerId>,
    lost: Vec<BrokerId>,
}

impl PartitionUpdate {
    pub(super) fn new(partition: TopicPartition, before: &Arc<PartitionImage>) -> Self {
        Self {
            target: PartitionImage::clone(before),
            election: Election::Online,
            partition,
            before: Arc::clone(before),
            distrusted: vec![],
            lost: vec![],
        }
    }

    /// The broker's copy may lack its end (unclean shutdown, failed disk). It leaves ISR and ELR unless no other copy
    /// is left: then it is as good as it gets, and giving it up would lose what it does hold.
    pub(super) fn distrust(&mut self, broker_id: BrokerId) {
        self.target.isr.retain(|member| *member != broker_id);
        self.distrusted.push(broker_id);
    }

    /// The broker's copy is known to be gone.
    pub(super) fn lose(&mut self, broker_id: BrokerId) {
        self.target.isr.retain(|member| *member != broker_id);
        self.lost.push(broker_id);
    }

    /// The change as a record, or `None` if the partition stays as it is.
    pub(super) fn resolve(mut self, draft: &Draft<'_>) -> Option<PartitionChange> {
        let partition = self.partition;
        let may_lead = |broker_id: BrokerId| draft.may_lead(broker_id, partition);
        let replicas = &self.target.replicas;
        self.target.isr.retain(|member| replicas.contains(member) && may_lead(*member));
        self.complete_reassignment();
        let min_isr = draft.min_insync_replicas(partition.topic_id, self.target.replicas.len());
        self.keep_eligible_replicas(min_isr);
        let may_be_unclean = self.election == Election::Unclean || draft.allows_unclean_election(partition.topic_id);
        self.elect(may_lead, min_isr, may_be_unclean);
        self.remember_last_leader();
        self.difference()
    }

    /// A reassignment is complete once every target replica is in the ISR; only then do the others go.
    fn complete_reassignment(&mut self) {
        let target = &mut self.target;
        if !target.is_reassigning() {
            return;
        }
        let removing = &target.removing_replicas;
        let kept: Vec<BrokerId> = target.replicas.iter().copied().filter(|id| !removing.contains(id)).collect();
        if kept.is_empty() || !kept.iter().all(|replica| target.isr.contains(replica)) {
            return;
        }
        target.isr.retain(|member| kept.contains(member));
        target.replicas = kept;
        target.adding_replicas.clear();
        target.removing_replicas.clear();
    }

    fn keep_eligible_replicas(&mut self, min_isr: usize) {
        let target = &mut self.target;
        target.eligible_leader_replicas.clear();
        if target.isr.len() >= min_isr {
            return;
        }
        let mut candidates: Vec<BrokerId> = vec![];
        for candidate in self.before.eligible_leader_replicas.iter().chain(&self.before.isr) {
            let is_replica = target.replicas.contains(candidate) && !self.lost.contains(candidate);
            if is_replica && !target.isr.contains(candidate) && !candidates.contains(candidate) {
                candidates.push(*candidate);
            }
        }
        let trusted = candidates.iter().copied().filter(|candidate| !self.distrusted.contains(candidate));
        target.eligible_leader_replicas = trusted.collect();
        if target.isr.is_empty() && target.eligible_leader_replicas.is_empty() {
            target.eligible_leader_replicas = candidates;
        }
    }

    fn elect(&mut self, may_lead: impl Fn(BrokerId) -> bool, min_isr: usize, may_be_unclean: bool) {
        let target = &mut self.target;
        let is_clean = |candidate: &BrokerId| {
            let holds_all = if target.isr.is_empty() { &target.eligible_leader_replicas } else { &target.isr };
            target.replicas.contains(candidate) && holds_all.contains(candidate) && may_lead(*candidate)
        };
        let preferred = target.preferred_leader().filter(|_| self.election == Election::Preferred);
        let kept = preferred.filter(is_clean).or_else(|| target.leader.filter(is_clean));
        target.leader = kept.or_else(|| target.replicas.iter().copied().find(is_clean));
        if let Some(leader) = target.leader {
            if target.isr.is_empty() {
                target.isr.push(leader);
                target.eligible_leader_replicas.retain(|replica| *replica != leader);
                if target.isr.len() >= min_isr {
                    target.eligible_leader_replicas.clear();
                }
            }
            return;
        }
        if !may_be_unclean && !mutation::is_off("trap-32") {
            return;
        }
        // The last leader is the likeliest to have the most (KIP-966).
        let may_serve = |candidate: &BrokerId| target.replicas.contains(candidate) && may_lead(*candidate);
        let last_leader = self.before.last_known_leader.filter(|leader| !self.lost.contains(leader));
        target.leader =
            last_leader.filter(may_serve).or_else(|| target.replicas.iter().copied().find(|id| may_serve(id)));
        if let Some(leader) = target.leader {
            target.isr = vec![leader];
            target.eligible_leader_replicas.clear();
            target.leader_recovering = true;
        }
    }

    fn remember_last_leader(&mut self) {
        let last_leader = self.before.leader.or(self.before.last_known_leader);
        let is_leaderless = self.target.leader.is_none();
        self.target.last_known_leader = last_leader.filter(|leader| is_leaderless && !self.lost.contains(leader));
    }

    fn difference(self) -> Option<PartitionChange> {
        fn changed<T: Clone + PartialEq>(before: &T, target: &T) -> Option<T> {
            (before != target).then(|| target.clone())
        }
        let (before, target) = (&*self.before, &self.target);
        if before == target {
            return None;
        }
        // A replica that leaves must not be able to go on as if it belonged: its leader epoch becomes an old one.
        let loses_a_replica = before.replicas.iter().any(|replica| !target.replicas.contains(replica));
        Some(PartitionChange {
            topic_id: self.partition.topic_id,
            partition: self.partition.partition,
            replicas: changed(&before.replicas, &target.replicas),
            isr: changed(&before.isr, &target.isr),
            eligible_leader_replicas: changed(&before.eligible_leader_replicas, &target.eligible_leader_replicas),
            last_known_leader: changed(&before.last_known_leader, &target.last_known_leader),
            adding_replicas: changed(&before.adding_replicas, &target.adding_replicas),
            removing_replicas: changed(&before.removing_replicas, &target.removing_replicas),
            leader: changed(&before.leader, &target.leader),
            leader_recovering: changed(&before.leader_recovering, &target.leader_recovering),
            bump_leader_epoch: before.leader != target.leader || loses_a_replica,
        })
    }
}
