//! Leading or following: how a replica comes to its role, and what changes while it has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use vltava_replication::{BrokerStatus, FollowerState, LeaderAction, LeaderState, LogOffsets, PartitionAssignment};
use vltava_types::{BrokerId, LeaderEpoch, mutation};

use super::{Partition, State};
use crate::partition_config::PartitionConfig;

pub(super) enum Role {
    Leader(Box<LeaderState>),
    Follower(FollowerState),
}

impl Role {
    pub(super) fn offsets(&self) -> LogOffsets {
        match self {
            Self::Leader(state) => state.offsets(),
            Self::Follower(state) => state.offsets(),
        }
    }
}

impl Partition {
    /// The controller made this broker the leader, or changed a partition that it leads already.
    pub fn lead(&self, assignment: PartitionAssignment, brokers: BTreeMap<BrokerId, BrokerStatus>) {
        let now_ms = self.surroundings.now_ms();
        let mut state = self.state.lock();
        let leader_epoch = assignment.leader_epoch;
        let actions = match &mut state.role {
            Role::Leader(leader) if leader.leader_epoch() == leader_epoch => {
                let mut actions = leader.on_brokers(brokers, now_ms);
                actions.extend(leader.on_assignment(assignment, now_ms));
                self.wake_waiters(&state);
                actions
            }
            role => {
                if matches!(role, Role::Follower(_)) {
                    state.leads_since = leader_epoch;
                }
                let offsets = state.role.offsets();
                let replication = state.config.replication;
                let Some(log) = &mut state.log else { return };
                // From here on records carry this epoch, and everything older ends here (trap 1). What earlier leaders
                // committed may reach beyond our high watermark, which stays as it is (trap 5).
                log.begin_leader_epoch(leader_epoch);
                if mutation::is_off("trap-20") {
                    *log.producers_mut() = vltava_replication::ProducerStates::default();
                }
                let node_id = self.surroundings.node_id;
                let leader = LeaderState::new(node_id, assignment, brokers, offsets, replication, now_ms);
                tracing::info!(
                    partition = %self.name, %leader_epoch, log_end_offset = %offsets.log_end_offset,
                    high_watermark = %offsets.high_watermark, "leading"
                );
                self.change_role(&mut state, Role::Leader(Box::new(leader)));
                // A leader without followers commits what it has by itself.
                match &mut state.role {
                    Role::Leader(leader) => leader.on_tick(now_ms),
                    Role::Follower(_) => unreachable!("it was made leader above"),
                }
            }
        };
        self.act(&mut state, actions);
    }

    /// The controller made another broker the leader, or none.
    pub fn follow(&self, leader: Option<BrokerId>, leader_epoch: LeaderEpoch) {
        let mut state = self.state.lock();
        if let Role::Follower(follower) = &state.role
            && follower.leader_epoch() == leader_epoch
            && follower.leader() == leader
        {
            return;
        }
        tracing::info!(
            partition = %self.name, leader = leader.map(BrokerId::value), %leader_epoch, "following"
        );
        let offsets = state.role.offsets();
        let follower = FollowerState::new(self.surroundings.node_id, leader, leader_epoch, offsets);
        self.change_role(&mut state, Role::Follower(follower));
        if mutation::is_off("trap-1") {
            let cut = vltava_replication::FollowerAction::TruncateTo(offsets.high_watermark);
            // Only the simulator gets here.
            let _ = self.execute(&mut state, cut);
        }
    }

    /// Brokers that host replicas were registered, fenced or unfenced.
    pub fn on_brokers(&self, brokers: BTreeMap<BrokerId, BrokerStatus>) {
        let mut state = self.state.lock();
        if let Role::Leader(leader) = &mut state.role {
            let actions = leader.on_brokers(brokers, self.surroundings.now_ms());
            self.act(&mut state, actions);
            // The low watermark waits for live brokers only.
            self.wake_waiters(&state);
        }
    }

    /// The topic's settings changed.
    pub fn on_config(self: &Arc<Self>, config: Arc<PartitionConfig>) {
        let mut state = self.state.lock();
        if let Some(log) = &mut state.log {
            log.set_config(Arc::clone(&config.log));
        }
        let replication = config.replication;
        state.config = config;
        if let Role::Leader(leader) = &mut state.role {
            let actions = leader.on_config(replication, self.surroundings.now_ms());
            self.act(&mut state, actions);
        }
        if let Some(upstream) = &state.upstream {
            upstream.mark();
        }
        self.stir_unless_at_rest(&state);
        drop(state);
        // Nothing is flushed any more unless it was marked, and the new mode may wait for it.
        self.mark_dirty();
    }

    /// Time has passed. Only partitions that are not at rest are told, so that an idle one costs nothing.
    pub fn on_tick(self: &Arc<Self>) {
        let now_ms = self.surroundings.now_ms();
        let mut state = self.state.lock();
        // Before anything is looked at: what stirs it from here on enters it again.
        self.is_restless.store(false, Ordering::Release);
        if let Role::Leader(leader) = &mut state.role {
            let actions = leader.on_tick(now_ms);
            self.act(&mut state, actions);
        }
        let flush_ms = state.config.topic.flush_ms;
        let is_flush_due = state.unflushed_since_ms.is_some_and(|since| flush_ms <= now_ms.saturating_sub(since));
        self.stir_unless_at_rest(&state);
        drop(state);
        if is_flush_due {
            self.mark_dirty();
        }
    }

    /// Whom the controller may take for in sync, if this replica leads.
    #[must_use]
    pub(crate) fn maximal_isr(&self) -> Vec<BrokerId> {
        match &self.state.lock().role {
            Role::Leader(leader) => leader.maximal_isr().collect(),
            Role::Follower(_) => vec![],
        }
    }

    /// More may be known of the other brokers: who waits for them looks again.
    pub(crate) fn on_cut_off(&self) {
        self.acknowledged.notify_waiters();
    }

    pub(super) fn change_role(&self, state: &mut MutexGuard<'_, State>, role: Role) {
        state.role = role;
        self.wake_all(state);
        // They subscribe again in the new epoch.
        state.streams.clear();
        state.upstream = None;
        state.last_chunk = None;
    }

    /// Executes what the leader state decided.
    pub(super) fn act(&self, state: &mut MutexGuard<'_, State>, actions: Vec<LeaderAction>) {
        for action in actions {
            match action {
                LeaderAction::AdvanceHighWatermark(high_watermark) => {
                    if let Some(log) = &mut state.log {
                        log.producers_mut().on_high_watermark(high_watermark);
                    }
                    if state.last_chunk.as_ref().is_some_and(|chunk| chunk.end_offset() <= high_watermark) {
                        state.last_chunk = None;
                    }
                    self.wake_all(state);
                }
                LeaderAction::ProposeIsr(proposal) => self.surroundings.isr_proposals.add(self.id, proposal),
            }
        }
        self.stir_unless_at_rest(state);
    }
}
