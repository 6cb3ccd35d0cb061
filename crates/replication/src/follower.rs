//! A follower's view of one partition: whom it follows and how far it has come.

use vltava_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, mutation};

use crate::epoch_cache::{EpochCache, EpochEndOffset};
use crate::leader::{FollowerSubscription, LogOffsets};

/// What the owner of a [`FollowerState`] has to do next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerAction {
    /// Cut the log's end, report it by [`FollowerState::on_truncated`], and subscribe again.
    TruncateTo(Offset),
    /// Drop the whole log and begin an empty one at this offset, report it by [`FollowerState::on_restarted`], and
    /// subscribe again: the leader no longer has what comes next here.
    RestartAt(Offset),
    /// Append the batches just received, and report it by [`FollowerState::on_appended`].
    Append,
    /// Records below are committed.
    AdvanceHighWatermark(Offset),
    /// Records below are gone on the leader (trap 19).
    AdvanceLogStart(Offset),
}

/// Why a message from a leader is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaderMessageError {
    /// From another leadership than the one followed: nothing in it may be used (trap 3).
    #[error("message of leader epoch {found} while following {current}")]
    OtherEpoch { current: LeaderEpoch, found: LeaderEpoch },
    /// Batches do not continue the local log.
    #[error("batches begin at {base_offset} where the log ends at {log_end_offset}")]
    NotContiguous { log_end_offset: Offset, base_offset: Offset },
}

/// A follower's view of one partition, for one leader epoch. Owns no file, socket or clock.
///
/// Invariants: `log_start_offset <= high_watermark <= log_end_offset`; `durable_offset <= log_end_offset`. The high
/// watermark goes back only by a truncation below it, which only an unclean election can cause.
#[derive(Clone, Debug)]
pub struct FollowerState {
    broker_id: BrokerId,
    /// `None` while the partition has no leader.
    leader: Option<BrokerId>,
    leader_epoch: LeaderEpoch,
    offsets: LogOffsets,
}

impl FollowerState {
    /// Following begins. The log may hold a tail that the leader has not; it is never cut by guess, but by what the
    /// leader answers to the first subscription (traps 1 and 4).
    #[must_use]
    pub fn new(broker_id: BrokerId, leader: Option<BrokerId>, leader_epoch: LeaderEpoch, offsets: LogOffsets) -> Self {
        let state = Self { broker_id, leader, leader_epoch, offsets };
        state.check_invariants();
        state
    }

    #[must_use]
    pub const fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    #[must_use]
    pub const fn offsets(&self) -> LogOffsets {
        self.offsets
    }

    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.offsets.high_watermark
    }

    /// What to ask of the leader. Below `durable_log_start` nothing is found here even after a crash.
    #[must_use]
    pub fn subscription(
        &self,
        epochs: &EpochCache,
        broker_epoch: BrokerEpoch,
        durable_log_start: Offset,
    ) -> FollowerSubscription {
        FollowerSubscription {
            follower: self.broker_id,
            broker_epoch,
            leader_epoch: self.leader_epoch,
            fetch_offset: self.offsets.log_end_offset,
            last_fetched_epoch: epochs.latest().map_or(LeaderEpoch::NONE, |latest| latest.epoch),
            durable_offset: self.offsets.durable_offset,
            log_start_offset: durable_log_start,
        }
    }

    /// The leader's log parts from ours (KIP-279). One answer need not be enough: the caller truncates, subscribes
    /// again with the epoch that is then last, and so on until the logs match. Every round removes an epoch or
    /// ends, so this terminates.
    pub fn on_diverging(
        &self,
        leader_epoch: LeaderEpoch,
        diverging: EpochEndOffset,
        epochs: &EpochCache,
    ) -> Result<FollowerAction, LeaderMessageError> {
        self.check_epoch(leader_epoch)?;
        let log_end_offset = self.offsets.log_end_offset;
        let cut = match epochs.end_offset_for(diverging.epoch, log_end_offset) {
            // The leader's epoch is known here too: the logs agree up to where it ends in both.
            Some(local) if local.epoch == diverging.epoch => local.end_offset.min(diverging.end_offset),
            // It is not: what we hold under older epochs may agree, and what is newer does not.
            Some(local) => local.end_offset,
            None => diverging.end_offset,
        };
        if cut < self.offsets.log_start_offset {
            return Ok(FollowerAction::RestartAt(cut));
        }
        Ok(FollowerAction::TruncateTo(cut.min(log_end_offset)))
    }

    /// The leader's log does not contain our end, or the leader has never heard of our last epoch.
    pub fn on_out_of_range(
        &self,
        leader_epoch: LeaderEpoch,
        leader_log_start_offset: Offset,
        leader_log_end_offset: Offset,
        epochs: &EpochCache,
    ) -> Result<FollowerAction, LeaderMessageError> {
        self.check_epoch(leader_epoch)?;
        if self.offsets.log_end_offset < leader_log_start_offset
            || leader_log_end_offset < self.offsets.log_start_offset
        {
            return Ok(FollowerAction::RestartAt(leader_log_start_offset));
        }
        if leader_log_end_offset < self.offsets.log_end_offset {
            return Ok(FollowerAction::TruncateTo(leader_log_end_offset));
        }
        // Our end lies within the leader's log. An epoch is not among what a batch's CRC covers: one that nobody knows is
        // damaged, and goes with all that is said to be written under it. Cutting nothing would be asked again for ever.
        match epochs.latest() {
            Some(latest) if latest.start_offset <= self.offsets.log_start_offset => {
                Ok(FollowerAction::RestartAt(leader_log_start_offset))
            }
            Some(latest) => Ok(FollowerAction::TruncateTo(latest.start_offset.min(self.offsets.log_end_offset))),
            None => Ok(FollowerAction::TruncateTo(self.offsets.log_end_offset)),
        }
    }

    /// The leader sent batches from `base_offset` on. Compaction leaves gaps, so they may begin beyond our end.
    pub fn on_batches(
        &self,
        leader_epoch: LeaderEpoch,
        base_offset: Offset,
    ) -> Result<FollowerAction, LeaderMessageError> {
        self.check_epoch(leader_epoch)?;
        let LogOffsets { log_start_offset, log_end_offset, .. } = self.offsets;
        if log_end_offset <= base_offset {
            return Ok(FollowerAction::Append);
        }
        if log_start_offset == log_end_offset {
            // The leader's log starts within a batch, as after DeleteRecords, and so did our empty log.
            return Ok(FollowerAction::RestartAt(base_offset));
        }
        Err(LeaderMessageError::NotContiguous { log_end_offset, base_offset })
    }

    /// The leader told its high watermark and log start, with batches or alone (trap 17).
    pub fn on_leader_offsets(
        &mut self,
        leader_epoch: LeaderEpoch,
        leader_high_watermark: Offset,
        leader_log_start_offset: Offset,
    ) -> Result<Vec<FollowerAction>, LeaderMessageError> {
        self.check_epoch(leader_epoch)?;
        let mut actions = vec![];
        let high_watermark = leader_high_watermark.min(self.offsets.log_end_offset);
        if self.offsets.high_watermark < high_watermark {
            self.offsets.high_watermark = high_watermark;
            actions.push(FollowerAction::AdvanceHighWatermark(high_watermark));
        }
        // Retention here may have been quicker, and a start must never go back (trap 19).
        let log_start_offset = leader_log_start_offset.min(self.offsets.high_watermark);
        if self.offsets.log_start_offset < log_start_offset && !mutation::is_off("trap-19") {
            self.offsets.log_start_offset = log_start_offset;
            actions.push(FollowerAction::AdvanceLogStart(log_start_offset));
        }
        self.check_invariants();
        Ok(actions)
    }

    /// The local log grew.
    pub fn on_appended(&mut self, log_end_offset: Offset) {
        assert!(self.offsets.log_end_offset <= log_end_offset, "an append never shrinks a log");
        self.offsets.log_end_offset = log_end_offset;
    }

    /// The local log is on disk up to `durable_offset`.
    pub fn on_flushed(&mut self, durable_offset: Offset) {
        self.offsets.durable_offset = self.offsets.durable_offset.max(durable_offset.min(self.offsets.log_end_offset));
    }

    /// The log was cut. Returns whether committed records went, which only an unclean election can cause.
    pub fn on_truncated(&mut self, log_end_offset: Offset) -> bool {
        let lost_committed = log_end_offset < self.offsets.high_watermark;
        self.offsets.log_end_offset = log_end_offset;
        self.offsets.durable_offset = self.offsets.durable_offset.min(log_end_offset);
        self.offsets.high_watermark = self.offsets.high_watermark.min(log_end_offset);
        // A cut within the first batch takes the start down with it.
        self.offsets.log_start_offset = self.offsets.log_start_offset.min(log_end_offset);
        self.check_invariants();
        lost_committed
    }

    /// The log was replaced by an empty one.
    pub fn on_restarted(&mut self, log_start_offset: Offset) {
        self.offsets = LogOffsets {
            log_start_offset,
            high_watermark: log_start_offset,
            durable_offset: log_start_offset,
            log_end_offset: log_start_offset,
        };
    }

    /// The log's start moved by retention of our own.
    pub fn on_log_start_advanced(&mut self, log_start_offset: Offset) {
        self.offsets.log_start_offset = self.offsets.log_start_offset.max(log_start_offset);
        self.check_invariants();
    }

    fn check_epoch(&self, found: LeaderEpoch) -> Result<(), LeaderMessageError> {
        if found == self.leader_epoch || mutation::is_off("trap-3") {
            return Ok(());
        }
        Err(LeaderMessageError::OtherEpoch { current: self.leader_epoch, found })
    }

    fn check_invariants(&self) {
        assert!(self.offsets.log_start_offset <= self.offsets.high_watermark);
        assert!(self.offsets.high_watermark <= self.offsets.log_end_offset);
        assert!(self.offsets.durable_offset <= self.offsets.log_end_offset);
    }
}
