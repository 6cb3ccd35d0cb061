//! What only a leader does: append for clients, wait for replicas, and serve followers' streams.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vltava_peer::replica::Acknowledge;
use vltava_protocol::batch::{BatchHeader, TimestampType, ValidatedBatch, validate};
use vltava_replication::{
    AckState, Durability, FetchPosition, FollowerError, FollowerSubscription, IsrRejection, LeaderState,
    NotEnoughReplicas, ProducerBatch, SequenceCheck,
};
use vltava_storage::{ReadLimits, StorageError};
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionEpoch, TimestampMs, mutation};

use super::{Acks, AppendError, AppendOptions, Appended, Listener, Partition, Role, State, wall_clock};
use crate::dirty_set::DirtySet;
use crate::partition_config::PartitionConfig;

/// This replica does not lead, or not in the epoch asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead in that epoch")]
pub struct NotLeading;

/// What a follower's stream sends next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerRead {
    /// Whole batches; empty if the follower has everything.
    pub records: Bytes,
    /// Where the next read begins.
    pub next_offset: Offset,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    /// There is more to send already.
    pub has_more: bool,
}

/// Which limits count for what is sent to a follower (KIP-73).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThrottledSides {
    pub leader: bool,
    pub follower: bool,
}

/// Records as read for one follower, kept for the others: all of them need the same bytes at about the same time.
#[derive(Clone)]
pub(super) struct Chunk {
    base_offset: Offset,
    end_offset: Offset,
    records: Bytes,
}

impl Chunk {
    pub(super) const fn end_offset(&self) -> Offset {
        self.end_offset
    }
}

impl Partition {
    /// Appends one batch of a client or coordinator: routing, fencing, validation, stamping, append. Blocks for a write
    /// to the page cache. `records` holds exactly one batch (see `validate_produce_format`).
    pub fn append_as_leader(
        self: &Arc<Self>,
        records: &Bytes,
        options: &AppendOptions,
    ) -> Result<Appended, AppendError> {
        // Whoever is refused is refused before the records cost anything.
        let config = {
            let state = self.state.lock();
            self.admit(&state, options, records.len())?;
            Arc::clone(&state.config)
        };
        let batch = validate(records, &config.validation_rules(options.origin, wall_clock()))?;
        let (appended, must_flush) = {
            let mut state = self.state.lock();
            let leader_epoch = self.admit(&state, options, records.len())?.leader_epoch();
            if let Some(first) = check_sequence(&state, &batch.header, leader_epoch)? {
                return Ok(first);
            }
            self.append(&mut state, batch, leader_epoch)?
        };
        if must_flush {
            self.mark_dirty();
        }
        Ok(appended)
    }

    /// Waits until `appended` is as safe as `acks` asks: [`Acks::Leader`] for the leader's own log in the sense of its
    /// durability mode, [`Acks::All`] for the high watermark. The caller bounds the wait. Fails with
    /// NOT_LEADER_OR_FOLLOWER when the leadership that appended ends (trap 15), and with
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND when the ISR has become too small (trap 16) or can only become so.
    pub async fn wait_for_acks(&self, acks: Acks, appended: &Appended) -> Result<(), ErrorCode> {
        loop {
            let mut changed = pin!(self.acknowledged.notified());
            // Registered first and checked then, so that no change is missed.
            changed.as_mut().enable();
            if let ControlFlow::Break(outcome) = self.check_acks(acks, appended) {
                return outcome;
            }
            changed.await;
        }
    }

    /// A follower wants to follow. From a match on, `dirty` is marked with `id` whenever there is something to send.
    pub(crate) fn on_follower_subscribed(
        &self,
        subscription: &FollowerSubscription,
        dirty: &Arc<DirtySet>,
        id: u32,
    ) -> Result<FetchPosition, ErrorCode> {
        let now_ms = self.surroundings.now_ms();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if self.is_unusable() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let Some(log) = &state.log else { return Err(ErrorCode::KafkaStorageError) };
        let leader = match &mut state.role {
            Role::Leader(leader) => leader,
            // This broker may not have heard yet of its election.
            Role::Follower(follower) if follower.leader_epoch() < subscription.leader_epoch => {
                return Err(ErrorCode::UnknownLeaderEpoch);
            }
            Role::Follower(_) => return Err(ErrorCode::NotLeaderOrFollower),
        };
        let (position, actions) =
            leader.on_subscribe(subscription, log.epochs(), now_ms).map_err(FollowerError::code)?;
        if position == FetchPosition::Matches {
            state.streams.insert(subscription.follower, Listener { dirty: Arc::clone(dirty), subscription: id });
        }
        self.act(&mut guard, actions);
        // It has told where its log starts.
        self.wake_waiters(&guard);
        Ok(position)
    }

    /// A follower no longer wants to hear of this partition.
    pub(crate) fn on_follower_left(&self, follower: BrokerId, dirty: &Arc<DirtySet>, id: u32) {
        let mut state = self.state.lock();
        if state.streams.get(&follower).is_some_and(|stream| stream.is(dirty, id)) {
            state.streams.remove(&follower);
            if let Role::Leader(leader) = &mut state.role {
                leader.on_left(follower);
            }
        }
    }

    /// A follower that subscribed in `leader_epoch`, with `dirty` and the id that it names, has stored or deleted more.
    /// Only its last subscription counts: what is left in an earlier stream may be the word of an incarnation whose log
    /// is gone (trap 10).
    pub(crate) fn on_follower_acknowledged(
        &self,
        follower: BrokerId,
        leader_epoch: LeaderEpoch,
        acknowledge: &Acknowledge,
        dirty: &Arc<DirtySet>,
    ) -> Result<(), ErrorCode> {
        let Acknowledge { id, log_end_offset, durable_offset, log_start_offset } = *acknowledge;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.streams.get(&follower).is_some_and(|stream| !stream.is(dirty, id)) {
            return Ok(());
        }
        let own_log_start = state.durable_log_start();
        let Role::Leader(leader) = &mut state.role else { return Err(ErrorCode::NotLeaderOrFollower) };
        leader.check_leader_epoch(Some(leader_epoch)).map_err(vltava_replication::FencingError::code)?;
        let actions = leader
            .on_acknowledged(follower, log_end_offset, durable_offset, self.surroundings.now_ms())
            .map_err(FollowerError::code)?;
        let low_watermark = leader.low_watermark(own_log_start);
        leader.on_follower_log_start(follower, log_start_offset).map_err(FollowerError::code)?;
        let has_low_watermark_moved = leader.low_watermark(own_log_start) != low_watermark;
        self.act(&mut guard, actions);
        if has_low_watermark_moved {
            self.wake_waiters(&guard);
        }
        Ok(())
    }

    /// The limits for this follower as long as it is not in sync.
    pub(crate) fn throttled_sides(&self, follower: BrokerId) -> ThrottledSides {
        let state = self.state.lock();
        let Role::Leader(leader) = &state.role else { return ThrottledSides::default() };
        if leader.isr().contains(&follower) {
            return ThrottledSides::default();
        }
        let (topic, partition) = (&state.config.topic, self.id.partition);
        ThrottledSides {
            leader: topic.leader_throttled_replicas.contains(partition, self.surroundings.node_id),
            follower: topic.follower_throttled_replicas.contains(partition, follower),
        }
    }

    /// What comes next for a follower that has everything below `next_offset`.
    pub(crate) fn read_for_follower(
        &self,
        leader_epoch: LeaderEpoch,
        next_offset: Offset,
        max_bytes: usize,
    ) -> Result<FollowerRead, ErrorCode> {
        loop {
            let (reader, offsets, cached) = {
                let state = self.state.lock();
                if self.is_unusable() {
                    return Err(ErrorCode::KafkaStorageError);
                }
                let Some(log) = &state.log else { return Err(ErrorCode::KafkaStorageError) };
                match &state.role {
                    Role::Leader(leader) if leader.leader_epoch() == leader_epoch => {}
                    Role::Leader(_) => return Err(ErrorCode::FencedLeaderEpoch),
                    Role::Follower(_) => return Err(ErrorCode::NotLeaderOrFollower),
                }
                let offsets = state.role.offsets();
                let cached = state.last_chunk.as_ref().filter(|chunk| chunk.base_offset == next_offset).cloned();
                let reader = (next_offset < offsets.log_end_offset && cached.is_none()).then(|| log.reader());
                (reader, offsets, cached)
            };
            if next_offset < offsets.log_start_offset {
                // Retention overtook the follower. It subscribes again and is told where the log starts.
                return Err(ErrorCode::OffsetOutOfRange);
            }
            let chunk = match (cached, reader) {
                (Some(chunk), _) => chunk,
                (None, None) => Chunk { base_offset: next_offset, end_offset: next_offset, records: Bytes::new() },
                (None, Some(reader)) => {
                    let limits = ReadLimits { max_bytes, end_offset: offsets.log_end_offset, at_least_one_batch: true };
                    match reader.read(next_offset, limits) {
                        Ok(records) => self.remember_chunk(leader_epoch, next_offset, records),
                        Err(StorageError::Truncated) => continue,
                        Err(error) => return Err(self.on_read_error(&error)),
                    }
                }
            };
            return Ok(FollowerRead {
                next_offset: chunk.end_offset,
                high_watermark: offsets.high_watermark,
                log_start_offset: offsets.log_start_offset,
                has_more: chunk.end_offset < offsets.log_end_offset,
                records: chunk.records,
            });
        }
    }

    /// The controller accepted an ISR change.
    pub(crate) fn on_isr_accepted(&self, leader_epoch: LeaderEpoch, partition_epoch: PartitionEpoch, isr: &[BrokerId]) {
        let mut state = self.state.lock();
        if let Role::Leader(leader) = &mut state.role {
            let before = leader.isr().len();
            let actions = leader.on_isr_accepted(leader_epoch, partition_epoch, isr, self.surroundings.now_ms());
            match leader.isr().len().cmp(&before) {
                std::cmp::Ordering::Less => self.surroundings.isr_shrinks.fetch_add(1, Ordering::Relaxed),
                std::cmp::Ordering::Greater => self.surroundings.isr_expansions.fetch_add(1, Ordering::Relaxed),
                std::cmp::Ordering::Equal => 0,
            };
            self.act(&mut state, actions);
        }
    }

    /// The controller refused an ISR change, or did not answer.
    pub(crate) fn on_isr_rejected(
        &self,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        rejection: IsrRejection,
    ) {
        let mut state = self.state.lock();
        if let Role::Leader(leader) = &mut state.role {
            let actions = leader.on_isr_rejected(leader_epoch, partition_epoch, rejection, self.surroundings.now_ms());
            self.act(&mut state, actions);
        }
    }

    /// Whether an append may go ahead: routing, fencing, `min.insync.replicas` where it matters (trap 16), and room.
    fn admit<'a>(
        &self,
        state: &'a State,
        options: &AppendOptions,
        bytes: usize,
    ) -> Result<&'a LeaderState, AppendError> {
        if state.log.is_none() || self.is_unusable() {
            return Err(AppendError::Offline);
        }
        let Role::Leader(leader) = &state.role else { return Err(AppendError::NotLeader) };
        if !self.is_serving() {
            return Err(match self.too_few_alive(leader) {
                Some(too_few) if options.acks == Acks::All => AppendError::NotEnoughReplicas(too_few),
                _ => AppendError::NotLeader,
            });
        }
        leader.check_leader_epoch(options.leader_epoch)?;
        if options.acks == Acks::All {
            leader.check_min_in_sync_replicas()?;
        }
        if !self.disk.read().room.admits(options.origin.into(), bytes) {
            return Err(AppendError::DiskFull);
        }
        Ok(leader)
    }

    /// While the controller is silent: whether too few of the ISR are alive, and nobody else can be made leader.
    fn too_few_alive(&self, leader: &LeaderState) -> Option<NotEnoughReplicas> {
        leader.too_few_alive(&*self.surroundings.cut_off()?, self.surroundings.now_ms())
    }

    fn append(
        self: &Arc<Self>,
        state: &mut parking_lot::MutexGuard<'_, State>,
        mut batch: ValidatedBatch,
        leader_epoch: LeaderEpoch,
    ) -> Result<(Appended, bool), AppendError> {
        let config = Arc::clone(&state.config);
        let log = state.log.as_mut().expect("an append was admitted");
        batch.stamp(log.log_end_offset(), leader_epoch);
        let bytes = batch.to_bytes();
        let appended = log.append_as_leader(&bytes).map_err(|error| {
            self.disk.read().on_error(&error);
            if error.is_full() { AppendError::DiskFull } else { error.into() }
        })?;
        self.disk.read().room.on_appended(bytes.len());
        let log_end_offset = log.log_end_offset();
        assert_eq!(log_end_offset, appended.last_offset.plus(1), "the log ends where the append ended");
        let Role::Leader(leader) = &mut state.role else { unreachable!("an append was admitted") };
        let actions = leader.on_appended(log_end_offset, self.surroundings.now_ms());
        let offsets = leader.offsets();
        let must_flush = must_flush(&config, log_end_offset, offsets.durable_offset, appended.rolled);
        for stream in state.streams.values() {
            stream.mark();
        }
        state.unflushed_since_ms.get_or_insert(self.surroundings.now_ms());
        self.act(state, actions);
        let records = appended.last_offset.value() + 1 - appended.base_offset.value();
        self.traffic.produced_records.fetch_add(records.unsigned_abs(), Ordering::Relaxed);
        self.traffic.produced_bytes.fetch_add(batch.header.size() as u64, Ordering::Relaxed);
        let appended = Appended {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            log_append_time: log_append_time(&batch.header),
            log_start_offset: offsets.log_start_offset,
            leader_epoch,
            duplicate: false,
        };
        Ok((appended, must_flush))
    }

    fn check_acks(&self, acks: Acks, appended: &Appended) -> ControlFlow<Result<(), ErrorCode>> {
        if acks == Acks::None {
            return ControlFlow::Break(Ok(()));
        }
        let end_offset = appended.last_offset.plus(1);
        let state = self.state.lock();
        if state.log.is_none() || self.is_unusable() {
            return ControlFlow::Break(Err(ErrorCode::KafkaStorageError));
        }
        let leader = match &state.role {
            // Another epoch of the same leader, as after a reassignment, takes nothing back.
            Role::Leader(leader) if state.leads_since <= appended.leader_epoch => leader,
            Role::Leader(_) | Role::Follower(_) => return ControlFlow::Break(Err(ErrorCode::NotLeaderOrFollower)),
        };
        if acks == Acks::Leader || mutation::is_off("trap-16") {
            let offsets = leader.offsets();
            let durability = state.config.replication.durability;
            let acknowledged = durability.acknowledged(offsets.log_end_offset, offsets.durable_offset);
            return if end_offset <= acknowledged { ControlFlow::Break(Ok(())) } else { ControlFlow::Continue(()) };
        }
        match leader.ack_state(end_offset) {
            AckState::Pending if self.too_few_alive(leader).is_some() => {
                ControlFlow::Break(Err(ErrorCode::NotEnoughReplicasAfterAppend))
            }
            AckState::Pending => ControlFlow::Continue(()),
            AckState::Committed => ControlFlow::Break(Ok(())),
            AckState::NotEnoughReplicas => ControlFlow::Break(Err(ErrorCode::NotEnoughReplicasAfterAppend)),
        }
    }

    fn remember_chunk(&self, leader_epoch: LeaderEpoch, base_offset: Offset, records: Bytes) -> Chunk {
        let last = vltava_protocol::batch::batches(&records).filter_map(Result::ok).last();
        let end_offset = last.map_or(base_offset, |batch| batch.header.next_offset());
        let chunk = Chunk { base_offset, end_offset, records };
        let mut state = self.state.lock();
        let is_same_epoch = matches!(&state.role, Role::Leader(leader) if leader.leader_epoch() == leader_epoch);
        // Kept until it is committed, when all followers that matter have it.
        if is_same_epoch && state.streams.len() > 1 && state.role.offsets().high_watermark < end_offset {
            state.last_chunk = Some(chunk.clone());
        }
        chunk
    }
}

/// Refuses what its producer should not have sent, and answers what it sent before with the first outcome (trap 20).
fn check_sequence(
    state: &State,
    header: &BatchHeader,
    leader_epoch: LeaderEpoch,
) -> Result<Option<Appended>, AppendError> {
    if !header.has_producer_id() || header.is_control() {
        return Ok(None);
    }
    let log = state.log.as_ref().expect("an append was admitted");
    let batch = ProducerBatch {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        base_offset: Offset(0),
        last_offset: Offset(0),
        timestamp: header.max_timestamp,
        is_transactional: header.is_transactional(),
    };
    Ok(match log.producers().check(&batch)? {
        SequenceCheck::New => None,
        SequenceCheck::Duplicate(first) => Some(Appended {
            base_offset: first.base_offset,
            last_offset: first.last_offset,
            log_append_time: log_append_time(&BatchHeader { max_timestamp: first.timestamp, ..*header }),
            log_start_offset: log.log_start_offset(),
            leader_epoch,
            duplicate: true,
        }),
    })
}

fn log_append_time(header: &BatchHeader) -> TimestampMs {
    match header.timestamp_type() {
        TimestampType::CreateTime => TimestampMs::NONE,
        TimestampType::LogAppendTime => header.max_timestamp,
    }
}

/// In the flush mode every append is flushed before it is acknowledged. Otherwise `flush.messages` and full segments
/// cause flushes; `flush.ms` is the manager's business.
pub(super) fn must_flush(
    config: &PartitionConfig,
    log_end_offset: Offset,
    durable_offset: Offset,
    rolled: bool,
) -> bool {
    let unflushed = log_end_offset.value() - durable_offset.value();
    config.replication.durability == Durability::Flush || rolled || config.topic.flush_messages <= unflushed
}
