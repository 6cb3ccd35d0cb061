//! What only a follower does: take what the leader sends, in order and checked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vltava_peer::replica::Acknowledge;
use vltava_protocol::batch::{BatchError, batches};
use vltava_replication::{
    EpochEndOffset, FollowerAction, FollowerState, FollowerSubscription, LeaderMessageError, LogOffsets,
};
use vltava_storage::{Log, StorageError};
use vltava_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, mutation};

use super::leader::must_flush;
use super::{Listener, Partition, ReplicaOffline, Role, State};
use crate::dirty_set::DirtySet;
use crate::disk::Writer;

/// Why news from the leader was not taken. The stream's subscription is over; a new one starts from what stands here.
#[derive(Debug, thiserror::Error)]
pub enum LeaderNewsError {
    #[error("this replica does not follow that leader in that epoch")]
    NotFollowing,
    #[error(transparent)]
    Message(#[from] LeaderMessageError),
    /// Damaged on its way, or on the leader's disk: it must not be written here (trap 26).
    #[error("damaged records: {0}")]
    Damaged(#[from] BatchError),
    /// To be tried again when there is room ([`Partition::has_room`]).
    #[error("the log directory is full")]
    Full,
    #[error(transparent)]
    Storage(StorageError),
    #[error(transparent)]
    Offline(#[from] ReplicaOffline),
}

impl From<StorageError> for LeaderNewsError {
    fn from(error: StorageError) -> Self {
        if error.is_full() { Self::Full } else { Self::Storage(error) }
    }
}

impl Partition {
    /// Whether there is room for more of the leader's records. Without it there is no use in asking for them.
    pub(crate) fn has_room(&self) -> bool {
        self.disk.read().room.admits(Writer::Follower, 0)
    }

    /// What to ask of `leader`, if this replica follows it. From now on `dirty` is marked with `id` whenever there is
    /// something to acknowledge, or the leadership has changed.
    pub(crate) fn subscription_to(
        &self,
        leader: BrokerId,
        broker_epoch: BrokerEpoch,
        dirty: &Arc<DirtySet>,
        id: u32,
    ) -> Option<FollowerSubscription> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Role::Follower(follower) = &state.role else { return None };
        if follower.leader() != Some(leader) || self.is_unusable() {
            return None;
        }
        let subscription = follower.subscription(state.log.as_ref()?.epochs(), broker_epoch, state.durable_log_start());
        state.upstream = Some(Listener { dirty: Arc::clone(dirty), subscription: id });
        Some(subscription)
    }

    /// What to acknowledge in the subscription under `leader_epoch` that goes by `dirty` and `id`. `None` if it is over:
    /// another leadership began, or the log was begun anew.
    pub(crate) fn acknowledgement(
        &self,
        leader_epoch: LeaderEpoch,
        dirty: &Arc<DirtySet>,
        id: u32,
    ) -> Option<Acknowledge> {
        let state = self.state.lock();
        if !state.upstream.as_ref().is_some_and(|upstream| upstream.is(dirty, id)) {
            return None;
        }
        let Role::Follower(follower) = &state.role else { return None };
        if follower.leader_epoch() != leader_epoch || state.log.is_none() {
            return None;
        }
        let LogOffsets { log_end_offset, durable_offset, .. } = follower.offsets();
        let log_start_offset = state.durable_log_start();
        Some(Acknowledge { id, log_end_offset, durable_offset, log_start_offset })
    }

    /// The leader sent batches, which may be none, and its offsets.
    pub(crate) fn on_leader_records(
        self: &Arc<Self>,
        leader_epoch: LeaderEpoch,
        records: &Bytes,
        high_watermark: Offset,
        log_start_offset: Offset,
    ) -> Result<(), LeaderNewsError> {
        // Outside of the lock: this reads every byte.
        let base_offset = check_batches(records)?;
        let must_flush = {
            let mut state = self.state.lock();
            let must_flush = match base_offset {
                Some(base_offset) => self.append_as_follower(&mut state, leader_epoch, records, base_offset)?,
                None => false,
            };
            let actions = following(&mut state)?.on_leader_offsets(leader_epoch, high_watermark, log_start_offset)?;
            for action in actions {
                self.execute(&mut state, action)?;
            }
            // The leader answers a subscription, and so knows what this log holds.
            if self.begins_anew.swap(false, Ordering::AcqRel) {
                self.surroundings.offline_changed.notify_one();
            }
            must_flush
        };
        if must_flush {
            self.mark_dirty();
        }
        Ok(())
    }

    /// The leader's log parts from ours. Afterwards, subscribe again.
    pub(crate) fn on_leader_diverging(
        &self,
        leader_epoch: LeaderEpoch,
        diverging: EpochEndOffset,
    ) -> Result<(), LeaderNewsError> {
        let mut state = self.state.lock();
        let (follower, log) = following_with_log(&state)?;
        let action = follower.on_diverging(leader_epoch, diverging, log.epochs())?;
        tracing::info!(
            partition = %self.name, epoch = %diverging.epoch, end_offset = %diverging.end_offset, ?action,
            "log diverges from the leader's"
        );
        self.execute(&mut state, action)
    }

    /// The leader's log does not contain our end. Afterwards, subscribe again.
    pub(crate) fn on_leader_out_of_range(
        &self,
        leader_epoch: LeaderEpoch,
        log_start_offset: Offset,
        log_end_offset: Offset,
    ) -> Result<(), LeaderNewsError> {
        let mut state = self.state.lock();
        let (follower, log) = following_with_log(&state)?;
        let action = follower.on_out_of_range(leader_epoch, log_start_offset, log_end_offset, log.epochs())?;
        tracing::warn!(
            partition = %self.name, %log_start_offset, %log_end_offset, ?action, "log is outside of the leader's"
        );
        self.execute(&mut state, action)
    }

    /// Returns whether a flush is due.
    fn append_as_follower(
        &self,
        state: &mut State,
        leader_epoch: LeaderEpoch,
        records: &Bytes,
        base_offset: Offset,
    ) -> Result<bool, LeaderNewsError> {
        if self.is_unusable() {
            return Err(ReplicaOffline.into());
        }
        match following(state)?.on_batches(leader_epoch, base_offset)? {
            FollowerAction::Append => {}
            action => self.execute(state, action)?,
        }
        if !self.disk.read().room.admits(Writer::Follower, records.len()) {
            return Err(LeaderNewsError::Full);
        }
        let config = Arc::clone(&state.config);
        let log = state.log.as_mut().ok_or(ReplicaOffline)?;
        let appended = log.append_as_follower(records).inspect_err(|error| self.disk.read().on_error(error));
        let log_end_offset = log.log_end_offset();
        let follower = following(state)?;
        if log_end_offset > follower.offsets().log_end_offset {
            // If the room ran out in between, a part of them.
            follower.on_appended(log_end_offset);
        }
        let appended = appended?;
        self.disk.read().room.on_appended(records.len());
        let must_flush = must_flush(&config, log_end_offset, follower.offsets().durable_offset, appended.rolled);
        state.unflushed_since_ms.get_or_insert(self.surroundings.now_ms());
        self.stir_unless_at_rest(state);
        let is_enough = config.replication.durability == vltava_replication::Durability::PageCache;
        if (is_enough || mutation::is_off("flush"))
            && let Some(upstream) = &state.upstream
        {
            upstream.mark();
        }
        Ok(must_flush)
    }

    pub(super) fn execute(&self, state: &mut State, action: FollowerAction) -> Result<(), LeaderNewsError> {
        let log = state.log.as_mut().ok_or(ReplicaOffline)?;
        let Role::Follower(follower) = &mut state.role else { return Err(LeaderNewsError::NotFollowing) };
        let outcome = match action {
            FollowerAction::TruncateTo(offset) => log.truncate_to(offset).map(|log_end_offset| {
                if follower.on_truncated(log_end_offset) {
                    tracing::error!(
                        partition = %self.name, %log_end_offset,
                        "truncated below the high watermark: an unclean election has lost committed records"
                    );
                }
            }),
            FollowerAction::RestartAt(offset) => {
                log.truncate_fully_and_start_at(offset).map(|()| follower.on_restarted(offset))
            }
            FollowerAction::Append => Ok(()),
            FollowerAction::AdvanceHighWatermark(high_watermark) => {
                log.producers_mut().on_high_watermark(high_watermark);
                self.wake_waiters(state);
                Ok(())
            }
            FollowerAction::AdvanceLogStart(log_start_offset) => {
                log.advance_log_start_offset(log_start_offset).map(|_| ())
            }
        };
        outcome.inspect_err(|error| self.disk.read().on_error(error))?;
        self.checkpoint_log_start_if_moved(state);
        Ok(())
    }
}

/// Without a subscription, what arrives is about a log that was here before.
fn following(state: &mut State) -> Result<&mut FollowerState, LeaderNewsError> {
    if state.upstream.is_none() {
        return Err(LeaderNewsError::NotFollowing);
    }
    match &mut state.role {
        Role::Follower(follower) => Ok(follower),
        Role::Leader(_) => Err(LeaderNewsError::NotFollowing),
    }
}

/// The same to look at only, with the log that follows.
fn following_with_log(state: &State) -> Result<(&FollowerState, &Log), LeaderNewsError> {
    let log = state.log.as_ref().ok_or(ReplicaOffline)?;
    match &state.role {
        Role::Follower(follower) if state.upstream.is_some() => Ok((follower, log)),
        Role::Follower(_) | Role::Leader(_) => Err(LeaderNewsError::NotFollowing),
    }
}

/// Checks what came over the network: whole batches, undamaged. Returns where they begin.
fn check_batches(records: &Bytes) -> Result<Option<Offset>, BatchError> {
    let mut base_offset = None;
    for batch in batches(records) {
        let batch = batch?;
        batch.verify_crc()?;
        base_offset.get_or_insert(batch.header.base_offset);
    }
    Ok(base_offset)
}
