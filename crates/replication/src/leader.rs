//! A leader's view of one partition: who is in sync, and how far everything is committed.

use std::collections::{BTreeMap, BTreeSet};

use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionEpoch, mutation};

use crate::cut_off::CutOff;
use crate::epoch_cache::{EpochCache, EpochEndOffset};
use crate::fencing::{FencingError, check_leader_epoch};

/// When a replica may say that it has a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After a flush: a committed record survives the loss of power of every broker at once.
    #[default]
    Flush,
    /// After the write to the page cache, as in Kafka: replication is the protection.
    PageCache,
}

impl Durability {
    /// The offset up to which a replica with these offsets holds records in the sense of this mode.
    #[must_use]
    pub fn acknowledged(self, log_end_offset: Offset, durable_offset: Offset) -> Offset {
        match self {
            Self::Flush if mutation::is_off("flush") => log_end_offset,
            Self::Flush => durable_offset,
            Self::PageCache => log_end_offset,
        }
    }
}

/// The settings that bear on commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    pub durability: Durability,
    /// `min.insync.replicas`. Never asks for more replicas than the partition has.
    pub min_in_sync_replicas: usize,
    /// `replica.lag.time.max.ms`.
    pub lag_time_max_ms: i64,
}

/// The offsets of the local log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOffsets {
    pub log_start_offset: Offset,
    pub high_watermark: Offset,
    /// Everything below is on disk.
    pub durable_offset: Offset,
    pub log_end_offset: Offset,
}

/// What the controller decided about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAssignment {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
}

/// What the controller says of a broker that hosts a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    pub broker_epoch: BrokerEpoch,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
}

/// What the owner of a [`LeaderState`] has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderAction {
    /// Complete produces and wake readers and followers: everything below is committed now.
    AdvanceHighWatermark(Offset),
    /// Ask the controller; report the answer by [`LeaderState::on_isr_accepted`] or [`LeaderState::on_isr_rejected`].
    ProposeIsr(IsrProposal),
}

/// An AlterPartition request for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    pub leader_epoch: LeaderEpoch,
    /// The compare-and-set key: the state that this proposal builds upon.
    pub partition_epoch: PartitionEpoch,
    pub new_isr: Vec<(BrokerId, BrokerEpoch)>,
}

impl IsrProposal {
    fn members(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.new_isr.iter().map(|(id, _)| *id)
    }
}

/// A follower asks to be sent everything from `fetch_offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerSubscription {
    pub follower: BrokerId,
    pub broker_epoch: BrokerEpoch,
    pub leader_epoch: LeaderEpoch,
    /// The follower's log end.
    pub fetch_offset: Offset,
    /// The epoch of the follower's last record, or [`LeaderEpoch::NONE`] if it has none.
    pub last_fetched_epoch: LeaderEpoch,
    /// Everything below is on the follower's disk.
    pub durable_offset: Offset,
    /// What lies below is gone there, even after a crash.
    pub log_start_offset: Offset,
}

/// How a follower's log relates to the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPosition {
    /// The logs agree up to the fetch offset: send from there.
    Matches,
    /// The follower has records that the leader has not: it truncates and asks again (KIP-595's diverging epoch).
    Diverging(EpochEndOffset),
    /// The fetch offset lies outside of the leader's log, and epochs do not tell where the logs part.
    OutOfRange { log_start_offset: Offset, log_end_offset: Offset },
}

/// Why a follower's message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerError {
    #[error(transparent)]
    Fenced(#[from] FencingError),
    #[error("broker {0} does not host a replica of this partition")]
    NotAReplica(BrokerId),
    #[error("broker epoch {found} is older than {current}")]
    StaleBrokerEpoch { current: BrokerEpoch, found: BrokerEpoch },
    #[error("broker {0} acknowledged before it subscribed")]
    NotSubscribed(BrokerId),
    #[error("acknowledged offsets are not below the log end {log_end_offset}")]
    AheadOfLeader { log_end_offset: Offset },
}

impl FollowerError {
    /// The error under Kafka's number.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Fenced(error) => error.code(),
            Self::NotAReplica(_) => ErrorCode::UnknownLeaderEpoch,
            Self::StaleBrokerEpoch { .. } => ErrorCode::StaleBrokerEpoch,
            Self::NotSubscribed(_) => ErrorCode::InvalidRequest,
            Self::AheadOfLeader { .. } => ErrorCode::OffsetOutOfRange,
        }
    }
}

/// The committed ISR is smaller than `min.insync.replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_sync} replicas are in sync where {required} are required")]
pub struct NotEnoughReplicas {
    pub in_sync: usize,
    pub required: usize,
}

/// The high watermark of a new leader may still lie behind what earlier leaders committed (KIP-207).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the high watermark has not yet reached the start of this leader epoch")]
pub struct OffsetNotAvailable;

/// Whether a produce with acks=all may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckState {
    Pending,
    Committed,
    /// Committed, but the ISR has shrunk below the minimum since the append: the outcome may not last (trap 16).
    NotEnoughReplicas,
}

/// What a failed AlterPartition tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsrRejection {
    /// Certainly not applied: go back to the committed ISR.
    NotApplied,
    /// The partition has moved on or is gone: the next image says how. Until then the proposal may have been applied
    /// by an earlier attempt, and the maximal ISR stays in force.
    AwaitImage,
    /// It is not known whether it was applied: send the same again.
    Retry,
}

impl IsrRejection {
    /// What a code from the controller means; `None` is a call that got no answer.
    #[must_use]
    pub const fn from_code(code: Option<ErrorCode>) -> Self {
        match code {
            Some(ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted) => Self::NotApplied,
            Some(
                ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::InvalidRequest
                | ErrorCode::UnknownTopicId
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::NewLeaderElected,
            ) => Self::AwaitImage,
            _ => Self::Retry,
        }
    }
}

/// A leader's view of one partition, for one leader epoch. Owns no file, socket or clock.
///
/// Times are in milliseconds of any clock that never goes back.
///
/// Invariants: `log_start_offset <= high_watermark <= log_end_offset`; `durable_offset <= log_end_offset`; the high
/// watermark never goes back; this broker is in the ISR.
#[derive(Clone, Debug)]
pub struct LeaderState {
    broker_id: BrokerId,
    assignment: PartitionAssignment,
    /// The log end when this leadership began. A high watermark below it may lie behind what was committed (trap 5).
    leader_epoch_start_offset: Offset,
    config: ReplicationConfig,
    offsets: LogOffsets,
    /// The ISR as the controller has it.
    isr: BTreeSet<BrokerId>,
    /// The change proposed to the controller and not answered yet; at most one is in flight (trap 7).
    proposed: Option<IsrProposal>,
    brokers: BTreeMap<BrokerId, BrokerStatus>,
    /// One for each replica but this one.
    followers: BTreeMap<BrokerId, FollowerProgress>,
}

/// What is known of one follower in this leader epoch.
#[derive(Clone, Copy, Debug, Default)]
struct FollowerProgress {
    /// `None` until it has subscribed in this leader epoch with a log that matches ours (trap 8).
    stored: Option<StoredOffsets>,
    /// Its stream stands. One that is gone may have lost what it acknowledged.
    is_subscribed: bool,
    /// The last time it held everything that the leader had at that time.
    last_caught_up_ms: i64,
    /// A log end of ours and when it was that; once acknowledged, the follower was caught up as of then.
    mark: Option<(Offset, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct StoredOffsets {
    broker_epoch: BrokerEpoch,
    log_end_offset: Offset,
    durable_offset: Offset,
    log_start_offset: Offset,
}

impl LeaderState {
    /// Leadership begins. The caller has assigned the epoch to the log end in its epoch cache, and keeps the high
    /// watermark that it had as a follower or read from the checkpoint (trap 5).
    #[must_use]
    pub fn new(
        broker_id: BrokerId,
        assignment: PartitionAssignment,
        brokers: BTreeMap<BrokerId, BrokerStatus>,
        offsets: LogOffsets,
        config: ReplicationConfig,
        now_ms: i64,
    ) -> Self {
        let mut state = Self {
            broker_id,
            leader_epoch_start_offset: offsets.log_end_offset,
            config,
            offsets,
            isr: assignment.isr.iter().copied().collect(),
            proposed: None,
            brokers,
            followers: BTreeMap::new(),
            assignment,
        };
        state.followers = state.fresh_followers(now_ms);
        state.check_invariants();
        state
    }

    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.assignment.leader_epoch
    }

    #[must_use]
    pub const fn partition_epoch(&self) -> PartitionEpoch {
        self.assignment.partition_epoch
    }

    #[must_use]
    pub const fn offsets(&self) -> LogOffsets {
        self.offsets
    }

    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.offsets.high_watermark
    }

    /// The ISR as the controller has it.
    #[must_use]
    pub const fn isr(&self) -> &BTreeSet<BrokerId> {
        &self.isr
    }

    /// Everybody whom the controller may take for in sync: the committed ISR and the proposed one (KIP-497).
    pub fn maximal_isr(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let proposed = self.proposed.iter().flat_map(IsrProposal::members).filter(|id| !self.isr.contains(id));
        self.isr.iter().copied().chain(proposed)
    }

    /// Whether an AlterPartition is unanswered.
    #[must_use]
    pub const fn has_proposal(&self) -> bool {
        self.proposed.is_some()
    }

    /// A follower's log end and durable offset, if it follows in this epoch.
    #[must_use]
    pub fn follower_offsets(&self, follower: BrokerId) -> Option<(Offset, Offset)> {
        let stored = self.followers.get(&follower)?.stored?;
        Some((stored.log_end_offset, stored.durable_offset))
    }

    /// The followers in the ISR whose streams stand and that have everything below `offset`, each with its log end.
    pub fn followers_with(&self, offset: Offset) -> impl Iterator<Item = (BrokerId, Offset)> + '_ {
        self.followers.iter().filter(|(id, follower)| self.isr.contains(id) && follower.is_subscribed).filter_map(
            move |(id, follower)| {
                let log_end_offset = follower.stored?.log_end_offset;
                (offset <= log_end_offset).then_some((*id, log_end_offset))
            },
        )
    }

    /// The high watermark as the partition's latest offset, once nothing that earlier leaders committed can lie above
    /// it: a client must never see it go back (trap 5).
    pub fn latest_offset(&self) -> Result<Offset, OffsetNotAvailable> {
        if self.offsets.high_watermark < self.leader_epoch_start_offset && !mutation::is_off("trap-5") {
            return Err(OffsetNotAvailable);
        }
        Ok(self.offsets.high_watermark)
    }

    /// Fences a request by the leader epoch that its sender believes in; `None` does not ask (trap 3).
    pub fn check_leader_epoch(&self, requested: Option<LeaderEpoch>) -> Result<(), FencingError> {
        check_leader_epoch(requested, self.assignment.leader_epoch)
    }

    /// Whether a produce with acks=all may be appended (trap 16).
    pub fn check_min_in_sync_replicas(&self) -> Result<(), NotEnoughReplicas> {
        let (in_sync, required) = (self.isr.len(), self.required_in_sync_replicas());
        if in_sync < required { Err(NotEnoughReplicas { in_sync, required }) } else { Ok(()) }
    }

    /// How many members the ISR has beyond `min.insync.replicas`: at zero the next one to go stops acks=all, below zero it
    /// is refused.
    #[must_use]
    pub fn spare_in_sync_replicas(&self) -> isize {
        self.isr.len().cast_signed() - self.required_in_sync_replicas().cast_signed()
    }

    /// The followers that follow in this epoch, each with how many offsets it has yet to store.
    pub fn follower_lags(&self) -> impl Iterator<Item = (BrokerId, i64)> + '_ {
        self.followers.iter().filter_map(|(id, follower)| {
            let stored = follower.stored?.log_end_offset;
            Some((*id, (self.offsets.log_end_offset.value() - stored.value()).max(0)))
        })
    }

    /// While the controller is silent: whether acks=all is refused for want of replicas. Whoever may be in the ISR counts.
    #[must_use]
    pub fn too_few_alive(&self, cut_off: &CutOff, now_ms: i64) -> Option<NotEnoughReplicas> {
        cut_off.too_few_alive(self.maximal_isr(), self.required_in_sync_replicas(), now_ms)
    }

    /// Whether a produce with acks=all that ends at `end_offset` may be answered.
    #[must_use]
    pub fn ack_state(&self, end_offset: Offset) -> AckState {
        if self.offsets.high_watermark < end_offset {
            AckState::Pending
        } else if self.maximal_isr().count() < self.required_in_sync_replicas() {
            AckState::NotEnoughReplicas
        } else {
            AckState::Committed
        }
    }

    /// The local log grew.
    pub fn on_appended(&mut self, log_end_offset: Offset, now_ms: i64) -> Vec<LeaderAction> {
        assert!(self.offsets.log_end_offset <= log_end_offset, "a leader's log never shrinks");
        for follower in self.followers.values_mut() {
            // Who had everything until this moment was caught up until this moment; an idle partition's followers
            // say nothing, and must not look late because of that.
            if follower.acknowledged(self.config.durability) == Some(self.offsets.log_end_offset) {
                follower.last_caught_up_ms = now_ms;
                follower.mark = Some((log_end_offset, now_ms));
            }
        }
        self.offsets.log_end_offset = log_end_offset;
        self.advance_high_watermark(now_ms)
    }

    /// The local log is on disk up to `durable_offset`.
    pub fn on_flushed(&mut self, durable_offset: Offset, now_ms: i64) -> Vec<LeaderAction> {
        self.offsets.durable_offset = self.offsets.durable_offset.max(durable_offset.min(self.offsets.log_end_offset));
        self.advance_high_watermark(now_ms)
    }

    /// The log's start moved, by retention or DeleteRecords. Never beyond the high watermark.
    pub fn on_log_start_advanced(&mut self, log_start_offset: Offset) {
        self.offsets.log_start_offset = self.offsets.log_start_offset.max(log_start_offset);
        self.check_invariants();
    }

    /// A follower wants to follow. If the logs match, it counts from now on with the offsets it reported.
    pub fn on_subscribe(
        &mut self,
        subscription: &FollowerSubscription,
        epochs: &EpochCache,
        now_ms: i64,
    ) -> Result<(FetchPosition, Vec<LeaderAction>), FollowerError> {
        self.check_leader_epoch(Some(subscription.leader_epoch))?;
        let Some(progress) = self.followers.get_mut(&subscription.follower) else {
            return Err(FollowerError::NotAReplica(subscription.follower));
        };
        if let Some(stored) = progress.stored
            && subscription.broker_epoch < stored.broker_epoch
        {
            return Err(FollowerError::StaleBrokerEpoch {
                current: stored.broker_epoch,
                found: subscription.broker_epoch,
            });
        }
        let position = fetch_position(epochs, self.offsets, subscription.fetch_offset, subscription.last_fetched_epoch);
        progress.is_subscribed = position == FetchPosition::Matches;
        if position != FetchPosition::Matches {
            // What it holds beyond the divergence is not ours and must not count.
            progress.stored = None;
            return Ok((position, vec![]));
        }
        progress.stored = Some(StoredOffsets {
            broker_epoch: subscription.broker_epoch,
            log_end_offset: subscription.fetch_offset,
            durable_offset: subscription.durable_offset.min(subscription.fetch_offset),
            log_start_offset: subscription.log_start_offset,
        });
        Ok((position, self.on_progress(subscription.follower, now_ms)))
    }

    /// A follower of this epoch has stored everything below `log_end_offset`, and flushed what is below
    /// `durable_offset`.
    pub fn on_acknowledged(
        &mut self,
        follower: BrokerId,
        log_end_offset: Offset,
        durable_offset: Offset,
        now_ms: i64,
    ) -> Result<Vec<LeaderAction>, FollowerError> {
        let Some(progress) = self.followers.get_mut(&follower) else {
            return Err(FollowerError::NotAReplica(follower));
        };
        let Some(stored) = &mut progress.stored else { return Err(FollowerError::NotSubscribed(follower)) };
        // Wire input can be wrong, so this is an error and not an assertion.
        if self.offsets.log_end_offset < log_end_offset || log_end_offset < durable_offset {
            return Err(FollowerError::AheadOfLeader { log_end_offset: self.offsets.log_end_offset });
        }
        stored.log_end_offset = log_end_offset;
        stored.durable_offset = durable_offset;
        Ok(self.on_progress(follower, now_ms))
    }

    /// What lies below is gone from a follower's log, even after a crash.
    pub fn on_follower_log_start(&mut self, follower: BrokerId, log_start_offset: Offset) -> Result<(), FollowerError> {
        let Some(progress) = self.followers.get_mut(&follower) else {
            return Err(FollowerError::NotAReplica(follower));
        };
        let Some(stored) = &mut progress.stored else { return Err(FollowerError::NotSubscribed(follower)) };
        stored.log_start_offset = log_start_offset;
        Ok(())
    }

    /// The least log start among the replicas on live brokers, of which `own` is this one's: no election among them brings
    /// back what lies below (trap 19). `None` as long as one of them has not said where its log starts.
    #[must_use]
    pub fn low_watermark(&self, own: Offset) -> Option<Offset> {
        let is_live = |id: &BrokerId| self.brokers.get(id).is_some_and(|status| !status.fenced);
        let mut live = self.followers.iter().filter(|(id, _)| is_live(id)).map(|(_, follower)| follower);
        live.try_fold(own, |least, follower| Some(least.min(follower.stored?.log_start_offset)))
    }

    /// A follower's stream is gone. What it acknowledged keeps counting as long as it is in the ISR, but does not let it
    /// in.
    pub fn on_left(&mut self, follower: BrokerId) {
        if let Some(progress) = self.followers.get_mut(&follower) {
            progress.is_subscribed = false;
        }
    }

    /// The controller changed the partition without a new leader epoch; also how a proposal's outcome may arrive.
    pub fn on_assignment(&mut self, assignment: PartitionAssignment, now_ms: i64) -> Vec<LeaderAction> {
        assert_eq!(assignment.leader_epoch, self.assignment.leader_epoch, "a new leader epoch makes a new state");
        if assignment.partition_epoch <= self.assignment.partition_epoch {
            return vec![];
        }
        self.proposed = None;
        self.isr = assignment.isr.iter().copied().collect();
        self.assignment = assignment;
        let known = std::mem::take(&mut self.followers);
        self.followers = self.fresh_followers(now_ms);
        for (id, progress) in &mut self.followers {
            if let Some(known) = known.get(id) {
                *progress = *known;
            }
        }
        self.check_invariants();
        self.after_isr_change(now_ms)
    }

    /// Brokers were registered, fenced, unfenced or began to shut down.
    pub fn on_brokers(&mut self, brokers: BTreeMap<BrokerId, BrokerStatus>, now_ms: i64) -> Vec<LeaderAction> {
        self.brokers = brokers;
        self.after_isr_change(now_ms)
    }

    /// Settings changed.
    pub fn on_config(&mut self, config: ReplicationConfig, now_ms: i64) -> Vec<LeaderAction> {
        self.config = config;
        self.advance_high_watermark(now_ms)
    }

    /// Time has passed: followers that lag are proposed for removal, and those that caught up for admission.
    pub fn on_tick(&mut self, now_ms: i64) -> Vec<LeaderAction> {
        let mut actions = self.propose_expansion(None, now_ms);
        if actions.is_empty() {
            actions = self.propose_shrinking(now_ms);
        }
        // A replica outside of the ISR for which the high watermark waited may have become late.
        actions.extend(self.advance_high_watermark(now_ms));
        actions
    }

    /// Whether [`LeaderState::on_tick`] can have nothing to do, however much time passes, until something else happens: who
    /// is in the ISR has everything, and who is not could not join. An idle partition is at rest and costs no time.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let is_settled = |(id, follower): (&BrokerId, &FollowerProgress)| {
            if self.isr.contains(id) {
                follower.acknowledged(self.config.durability) == Some(self.offsets.log_end_offset)
            } else {
                !self.is_eligible(*id)
            }
        };
        self.proposed.is_none() && self.followers.iter().all(is_settled)
    }

    /// The controller accepted a proposal; `isr` and `partition_epoch` are what it committed.
    pub fn on_isr_accepted(
        &mut self,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        isr: &[BrokerId],
        now_ms: i64,
    ) -> Vec<LeaderAction> {
        // The image may have been faster. Then what is in flight now builds upon it, and is not what was answered.
        if leader_epoch != self.assignment.leader_epoch || partition_epoch <= self.assignment.partition_epoch {
            return vec![];
        }
        self.assignment.partition_epoch = partition_epoch;
        self.assignment.isr = isr.to_vec();
        self.isr = isr.iter().copied().collect();
        self.proposed = None;
        self.check_invariants();
        self.after_isr_change(now_ms)
    }

    /// A proposal that built upon `partition_epoch` failed. What has to be asked again is asked after a pause.
    pub fn on_isr_rejected(
        &mut self,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        rejection: IsrRejection,
        now_ms: i64,
    ) -> Vec<LeaderAction> {
        // Meanwhile an image decided otherwise.
        if leader_epoch != self.assignment.leader_epoch || partition_epoch != self.assignment.partition_epoch {
            return vec![];
        }
        match rejection {
            IsrRejection::NotApplied => {
                self.proposed = None;
                self.advance_high_watermark(now_ms)
            }
            IsrRejection::AwaitImage => vec![],
            // Not with what is known by now: a follower that was born again since has yet to prove its log (trap 10).
            IsrRejection::Retry => self.proposed.iter().cloned().map(LeaderAction::ProposeIsr).collect(),
        }
    }

    fn required_in_sync_replicas(&self) -> usize {
        self.config.min_in_sync_replicas.min(self.assignment.replicas.len())
    }

    fn fresh_followers(&self, now_ms: i64) -> BTreeMap<BrokerId, FollowerProgress> {
        let others = self.assignment.replicas.iter().filter(|id| **id != self.broker_id);
        others
            .map(|&id| {
                // A member of the ISR gets the whole lag time to report.
                let last_caught_up_ms = if self.isr.contains(&id) { now_ms } else { i64::MIN };
                (id, FollowerProgress { last_caught_up_ms, ..FollowerProgress::default() })
            })
            .collect()
    }

    fn on_progress(&mut self, follower: BrokerId, now_ms: i64) -> Vec<LeaderAction> {
        let log_end_offset = self.offsets.log_end_offset;
        let durability = self.config.durability;
        let progress = self.followers.get_mut(&follower).expect("the caller looked it up");
        let acknowledged = progress.acknowledged(durability).expect("the caller stored it");
        if log_end_offset <= acknowledged {
            progress.last_caught_up_ms = progress.last_caught_up_ms.max(now_ms);
            progress.mark = None;
        } else {
            match progress.mark {
                Some((marked, at_ms)) if marked <= acknowledged => {
                    progress.last_caught_up_ms = progress.last_caught_up_ms.max(at_ms);
                    progress.mark = Some((log_end_offset, now_ms));
                }
                Some(_) => {}
                None => progress.mark = Some((log_end_offset, now_ms)),
            }
        }
        let mut actions = self.propose_expansion(Some(follower), now_ms);
        actions.extend(self.advance_high_watermark(now_ms));
        actions
    }

    fn after_isr_change(&mut self, now_ms: i64) -> Vec<LeaderAction> {
        let mut actions = self.propose_expansion(None, now_ms);
        actions.extend(self.advance_high_watermark(now_ms));
        actions
    }

    /// Never moves back: a consumer may have read up to the old high watermark.
    fn advance_high_watermark(&mut self, now_ms: i64) -> Vec<LeaderAction> {
        if self.check_min_in_sync_replicas().is_err() && !mutation::is_off("trap-6-strict") {
            // Strict: with fewer acknowledgements than promised, a record is not committed (KIP-966).
            return vec![];
        }
        let durability = self.config.durability;
        let mut slowest = durability.acknowledged(self.offsets.log_end_offset, self.offsets.durable_offset);
        for (&id, follower) in &self.followers {
            let is_proposed = || self.proposed.iter().flat_map(IsrProposal::members).any(|member| member == id);
            let in_maximal_isr = match &self.proposed {
                Some(_) if mutation::is_off("trap-6") => self.isr.contains(&id),
                Some(_) if mutation::is_off("trap-7") => is_proposed(),
                _ => self.isr.contains(&id) || is_proposed(),
            };
            // Waiting for a replica that is about to join lets it join: it must reach the high watermark for that.
            let about_to_join =
                || self.is_eligible(id) && follower.is_caught_up(&self.config, self.offsets.log_end_offset, now_ms);
            if in_maximal_isr || about_to_join() && !mutation::is_off("trap-6") {
                slowest = slowest.min(follower.acknowledged(durability).unwrap_or(self.offsets.high_watermark));
            }
        }
        if slowest <= self.offsets.high_watermark {
            return vec![];
        }
        self.offsets.high_watermark = slowest;
        self.check_invariants();
        vec![LeaderAction::AdvanceHighWatermark(slowest)]
    }

    /// Proposes every follower that may join (trap 8), if it spoke just now or is not late: one that was removed because
    /// it fell silent must not come back before it speaks.
    fn propose_expansion(&mut self, speaker: Option<BrokerId>, now_ms: i64) -> Vec<LeaderAction> {
        if self.proposed.is_some() {
            return vec![];
        }
        let may_join = |(id, follower): (&BrokerId, &FollowerProgress)| {
            let acknowledged = follower.acknowledged(self.config.durability)?;
            let holds_everything_committed = self.offsets.high_watermark.max(self.leader_epoch_start_offset)
                <= acknowledged
                || mutation::is_off("trap-8");
            let is_alive =
                speaker == Some(*id) || follower.is_caught_up(&self.config, self.offsets.log_end_offset, now_ms);
            let may_join = holds_everything_committed && is_alive && !self.isr.contains(id) && self.is_eligible(*id);
            may_join.then_some(*id)
        };
        let joining: BTreeSet<BrokerId> = self.followers.iter().filter_map(may_join).collect();
        if joining.is_empty() {
            return vec![];
        }
        self.propose(self.isr.union(&joining).copied().collect())
    }

    /// Proposes the ISR without those that were not caught up for too long.
    fn propose_shrinking(&mut self, now_ms: i64) -> Vec<LeaderAction> {
        if self.proposed.is_some() {
            return vec![];
        }
        let stays = |id: &BrokerId| {
            self.followers
                .get(id)
                .is_none_or(|follower| follower.is_caught_up(&self.config, self.offsets.log_end_offset, now_ms))
        };
        let staying: BTreeSet<BrokerId> = self.isr.iter().copied().filter(stays).collect();
        if staying.len() == self.isr.len() {
            return vec![];
        }
        self.propose(staying)
    }

    fn propose(&mut self, isr: BTreeSet<BrokerId>) -> Vec<LeaderAction> {
        let proposal = self.proposal(&isr);
        self.proposed = Some(proposal.clone());
        vec![LeaderAction::ProposeIsr(proposal)]
    }

    fn proposal(&self, isr: &BTreeSet<BrokerId>) -> IsrProposal {
        // A follower is named with the epoch under which it proved its log, so that a later incarnation of it, which
        // may have lost that log, is not let in (KIP-903). One that has not spoken in this leader epoch was let in by
        // the controller under the epoch in our image.
        let with_epoch = |&id: &BrokerId| {
            let proved = self.followers.get(&id).and_then(|follower| follower.stored).map(|stored| stored.broker_epoch);
            let registered = self.brokers.get(&id).map(|status| status.broker_epoch);
            (id, proved.or(registered).unwrap_or(BrokerEpoch::NONE))
        };
        IsrProposal {
            leader_epoch: self.assignment.leader_epoch,
            partition_epoch: self.assignment.partition_epoch,
            new_isr: isr.iter().map(with_epoch).collect(),
        }
    }

    /// Whether the controller would let this follower into the ISR, as far as we know (traps 9 and 10).
    fn is_eligible(&self, id: BrokerId) -> bool {
        let Some(status) = self.brokers.get(&id) else { return false };
        let Some(follower) = self.followers.get(&id).filter(|follower| follower.is_subscribed) else { return false };
        let Some(stored) = follower.stored else { return false };
        !status.fenced && !status.in_controlled_shutdown && status.broker_epoch == stored.broker_epoch
    }

    fn check_invariants(&self) {
        assert!(self.offsets.log_start_offset <= self.offsets.high_watermark);
        assert!(self.offsets.high_watermark <= self.offsets.log_end_offset);
        assert!(self.offsets.durable_offset <= self.offsets.log_end_offset);
    }
}

impl FollowerProgress {
    fn acknowledged(&self, durability: Durability) -> Option<Offset> {
        self.stored.map(|stored| durability.acknowledged(stored.log_end_offset, stored.durable_offset))
    }

    fn is_caught_up(&self, config: &ReplicationConfig, log_end_offset: Offset, now_ms: i64) -> bool {
        self.acknowledged(config.durability) == Some(log_end_offset)
            || now_ms.saturating_sub(self.last_caught_up_ms) <= config.lag_time_max_ms
    }
}

/// Compares a fetch position with a log (KIP-279, KIP-595): the asker's log matches if its last epoch is known here and
/// did not end before the fetch offset.
#[must_use]
pub fn fetch_position(
    epochs: &EpochCache,
    offsets: LogOffsets,
    fetch_offset: Offset,
    last_fetched_epoch: LeaderEpoch,
) -> FetchPosition {
    let LogOffsets { log_start_offset, log_end_offset, .. } = offsets;
    let out_of_range = FetchPosition::OutOfRange { log_start_offset, log_end_offset };
    if last_fetched_epoch != LeaderEpoch::NONE && !mutation::is_off("trap-4") {
        match epochs.end_offset_for(last_fetched_epoch, log_end_offset) {
            None => return out_of_range,
            Some(end) if end.epoch < last_fetched_epoch || end.end_offset < fetch_offset => {
                return FetchPosition::Diverging(end);
            }
            Some(_) => {}
        }
    }
    if fetch_offset < log_start_offset || log_end_offset < fetch_offset {
        return out_of_range;
    }
    FetchPosition::Matches
}
