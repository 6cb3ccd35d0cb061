//! One hosted replica: the owner of its log and of its role.
//!
//! Everything that changes a partition goes through one lock, so that its order needs no argument. What takes long
//! happens outside of it: reads work on a snapshot of the log, flushes on file handles. Decisions are those of
//! [`vltava_replication`]; this file executes them.

mod cleaning;
mod damage;
mod follower;
#[cfg(vltava_sim)]
mod inspection;
mod leader;
mod read;
mod relocation;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;
use vltava_host::clock;
use vltava_protocol::batch::{InvalidBatch, Origin};
use vltava_replication::{
    BrokerStatus, CutOff, EpochEndOffset, FencingError, FollowerState, LeaderAction, LeaderState, LogOffsets,
    NotEnoughReplicas, PartitionAssignment, SequenceError,
};
use vltava_storage::{
    FileRegion, Flush, Flushable, Log, LogCheckpoint, PartitionName, RecoveryCheckpoint, StorageError,
};
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, TimestampMs, TopicPartition, mutation};

use crate::dirty_set::DirtySet;
use crate::disk::Disk;
use crate::isr::IsrProposals;
use crate::partition_config::PartitionConfig;

pub(crate) use cleaning::AfterFailure;
pub use damage::{Damage, on_damage};
pub use follower::LeaderNewsError;
#[cfg(vltava_sim)]
pub use inspection::{Glance, Inspection, Leads};
pub(crate) use leader::ThrottledSides;
pub use leader::{FollowerRead, NotLeading};
pub(crate) use relocation::{COPY_BYTES, RelocationError};

/// Which replicas must have a record before its produce is answered (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// 0: the client does not even wait for an answer.
    None,
    /// 1.
    Leader,
    /// -1.
    All,
}

/// How to append.
#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    pub origin: Origin,
    /// [`Acks::All`] asks for `min.insync.replicas` before anything is written (trap 16).
    pub acks: Acks,
    /// Append only under this leader epoch. Coordinators pass the epoch that they loaded their state under, clients none.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Where records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// When the topic stamps records with the time of their append, else [`TimestampMs::NONE`].
    pub log_append_time: TimestampMs,
    pub log_start_offset: Offset,
    /// The epoch of the leadership that appended. Acknowledgements are waited for under this one only.
    pub leader_epoch: LeaderEpoch,
    /// The producer sent this batch before; these are the offsets of the first time (trap 20).
    pub duplicate: bool,
}

/// Why nothing was appended, or, for [`AppendError::Storage`], perhaps something.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Fenced(#[from] FencingError),
    #[error(transparent)]
    NotEnoughReplicas(#[from] NotEnoughReplicas),
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error("the log directory is full")]
    DiskFull,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the log directory is offline")]
    Offline,
}

impl AppendError {
    /// The error under Kafka's number.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::Fenced(error) => error.code(),
            Self::NotEnoughReplicas(_) => ErrorCode::NotEnoughReplicas,
            Self::Invalid(error) => error.error_code(),
            Self::Sequence(error) => error.code(),
            // Retriable, and true: this replica cannot take more for now.
            Self::DiskFull | Self::Storage(_) | Self::Offline => ErrorCode::KafkaStorageError,
        }
    }
}

/// Up to where a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The high watermark.
    ReadUncommitted,
    /// The last stable offset: nothing of a transaction that is under way.
    ReadCommitted,
}

/// One partition of a Fetch.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: Offset,
    pub max_bytes: usize,
    /// Return the first batch even if it is larger than `max_bytes` (KIP-74).
    pub at_least_one_batch: bool,
    pub isolation: Isolation,
    /// The epoch that the reader believes in (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the reader has, to detect truncation (KIP-320, KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Whether a follower may answer (KIP-392).
    pub allow_follower: bool,
}

/// What one partition of a Fetch gets.
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// Whole batches; the first may begin below the requested offset. Empty if there is nothing to see, or if the
    /// reader's log diverges.
    pub records: Bytes,
    /// Or whole batches in their file, and `records` is empty. Only of [`Partition::read_warm`].
    pub region: Option<FileRegion>,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// The reader has records that this log has not: it truncates to here and asks again.
    pub diverging: Option<EpochEndOffset>,
    pub leader_epoch: LeaderEpoch,
}

impl ReadResult {
    /// Bytes of records, wherever they are.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.records.len() + self.region.as_ref().map_or(0, FileRegion::len)
    }
}

/// Who leads, as this replica knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// Whether this replica is the leader.
    pub is_local: bool,
}

/// How well a partition that is led here is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Members of the ISR beyond `min.insync.replicas`; below zero acks=all is refused.
    pub spare_in_sync_replicas: isize,
    /// Offsets that followers have yet to store. Those that have not come to this leader yet are not in it.
    pub follower_lags: Vec<(BrokerId, i64)>,
}

/// What all partitions of a broker share.
pub struct Surroundings {
    pub node_id: BrokerId,
    /// Where ISR changes wait to be sent to the controller.
    pub isr_proposals: IsrProposals,
    /// Rung when a log start has moved that somebody waits to have on disk.
    pub log_starts_moved: Notify,
    /// Partitions that time alone may change: see [`Partition::on_tick`]. Each at most once.
    restless: Mutex<Vec<Weak<Partition>>>,
    /// The controller said so: another broker leads in our place, or is about to.
    pub is_fenced: AtomicBool,
    /// When the session with the controller runs out, in milliseconds of [`Surroundings::now_ms`]. Read at each request,
    /// because a process that was stopped and goes on runs its requests before any task that would take note.
    pub lease_end_ms: AtomicI64,
    /// What is known of the others since the session has run out.
    pub cut_off: Mutex<Option<Arc<CutOff>>>,
    /// Where the clock of this process starts.
    pub started: Instant,
    /// Rung when a replica or a disk stops working, or works again: the controller should hear of it soon.
    pub offline_changed: Arc<Notify>,
    /// Changes of the ISR that the controller accepted from this broker.
    pub isr_shrinks: AtomicU64,
    pub isr_expansions: AtomicU64,
}

impl Surroundings {
    #[must_use]
    pub fn new(node_id: BrokerId) -> Arc<Self> {
        Arc::new(Self {
            node_id,
            isr_proposals: IsrProposals::default(),
            log_starts_moved: Notify::new(),
            restless: Mutex::default(),
            is_fenced: AtomicBool::new(false),
            lease_end_ms: AtomicI64::new(i64::MAX),
            cut_off: Mutex::default(),
            started: Instant::now(),
            offline_changed: Arc::default(),
            isr_shrinks: AtomicU64::new(0),
            isr_expansions: AtomicU64::new(0),
        })
    }

    /// Milliseconds on a clock that never goes back.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The partitions that want to know that time has passed. Those that still do afterwards are here the next time.
    pub(crate) fn take_restless(&self) -> Vec<Arc<Partition>> {
        let restless = std::mem::take(&mut *self.restless.lock());
        restless.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether no other broker can have been elected in our place (trap 15).
    #[must_use]
    pub fn is_serving(&self) -> bool {
        mutation::is_off("trap-15")
            || !self.is_fenced.load(Ordering::Acquire) && self.lease_remaining() > Duration::ZERO
    }

    /// How long the session with the controller lasts if it is not extended.
    #[must_use]
    pub fn lease_remaining(&self) -> Duration {
        let remaining_ms = self.lease_end_ms.load(Ordering::Acquire).saturating_sub(self.now_ms());
        Duration::from_millis(u64::try_from(remaining_ms).unwrap_or(0))
    }

    /// What is known of the others, if the session ran out before the controller said anything against this broker.
    #[must_use]
    pub fn cut_off(&self) -> Option<Arc<CutOff>> {
        if self.is_fenced.load(Ordering::Acquire) || self.lease_remaining() > Duration::ZERO {
            return None;
        }
        self.cut_off.lock().clone()
    }

    /// The session with the controller lasts until `end`, unless it is extended again.
    pub fn extend_lease(&self, end: Instant) {
        let end_ms = end.saturating_duration_since(self.started).as_millis();
        self.lease_end_ms.store(i64::try_from(end_ms).unwrap_or(i64::MAX), Ordering::Release);
    }
}

/// One hosted replica.
pub struct Partition {
    id: TopicPartition,
    name: PartitionName,
    /// Another one after the log was moved. Taken within the lock of `state`, never around it.
    disk: RwLock<Arc<Disk>>,
    surroundings: Arc<Surroundings>,
    /// Something that was written and checked cannot be read any more. Nothing is served from this log (trap 26).
    is_corrupt: AtomicBool,
    /// The same, but no other replica is known to have what cannot be read here: the rest is served.
    refuses_damage: AtomicBool,
    /// A corrupt log was emptied, and the leader may not have heard of it: it may still believe in what was here.
    begins_anew: AtomicBool,
    /// Whether it is among [`Surroundings::restless`].
    is_restless: AtomicBool,
    myself: Weak<Partition>,
    state: Mutex<State>,
    /// Rung, for everybody, whenever an acknowledgement may have become possible or impossible.
    acknowledged: Notify,
    traffic: Traffic,
}

/// What clients wrote and read since this replica was opened.
#[derive(Debug, Default)]
pub struct Traffic {
    pub produced_records: AtomicU64,
    pub produced_bytes: AtomicU64,
    pub fetched_bytes: AtomicU64,
}

/// What changes, in one place and under one lock.
struct State {
    /// `None` once the replica was given up: its disk failed, its log is corrupt, or the partition was deleted.
    log: Option<Log>,
    role: Role,
    config: Arc<PartitionConfig>,
    /// The log start as the checkpoint file has it.
    checkpointed_log_start: Offset,
    /// Readers that wait for news, by subscription.
    waiters: BTreeMap<u64, Arc<Notify>>,
    next_waiter: u64,
    /// As a leader: the streams of the followers that subscribed in this epoch.
    streams: BTreeMap<BrokerId, Listener>,
    /// As a follower: the stream to the leader, for acknowledgements.
    upstream: Option<Listener>,
    /// The records last read for a follower, which the other followers are about to need.
    last_chunk: Option<leader::Chunk>,
    /// Since when there have been records that are not on disk, for `flush.ms`.
    unflushed_since_ms: Option<i64>,
}

impl State {
    /// What lies below is gone, even after a crash.
    fn durable_log_start(&self) -> Offset {
        self.checkpointed_log_start.min(self.role.offsets().log_start_offset)
    }
}

/// Somebody who wants to hear that a subscription has news.
#[derive(Clone)]
struct Listener {
    dirty: Arc<DirtySet>,
    subscription: u32,
}

impl Listener {
    fn mark(&self) {
        self.dirty.mark(self.subscription);
    }

    fn is(&self, dirty: &Arc<DirtySet>, subscription: u32) -> bool {
        Arc::ptr_eq(&self.dirty, dirty) && self.subscription == subscription
    }
}

enum Role {
    Leader(Box<LeaderState>),
    Follower(FollowerState),
}

impl Role {
    fn offsets(&self) -> LogOffsets {
        match self {
            Self::Leader(state) => state.offsets(),
            Self::Follower(state) => state.offsets(),
        }
    }
}

/// The replica was given up on this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica is offline")]
pub struct ReplicaOffline;

impl Partition {
    /// A replica over an open log. It follows nobody until the first image says otherwise.
    #[must_use]
    pub fn new(
        id: TopicPartition,
        name: PartitionName,
        mut log: Log,
        high_watermark: Offset,
        config: Arc<PartitionConfig>,
        disk: Arc<Disk>,
        surroundings: Arc<Surroundings>,
    ) -> Arc<Self> {
        log.set_config(Arc::clone(&config.log));
        let offsets = LogOffsets {
            log_start_offset: log.log_start_offset(),
            high_watermark: high_watermark.clamp(log.log_start_offset(), log.log_end_offset()),
            durable_offset: log.recovery_point(),
            log_end_offset: log.log_end_offset(),
        };
        log.producers_mut().on_high_watermark(offsets.high_watermark);
        let role = Role::Follower(FollowerState::new(surroundings.node_id, None, LeaderEpoch::NONE, offsets));
        let state = State {
            log: Some(log),
            role,
            config,
            checkpointed_log_start: offsets.log_start_offset,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            streams: BTreeMap::new(),
            upstream: None,
            last_chunk: None,
            unflushed_since_ms: None,
        };
        Arc::new_cyclic(|myself| Self {
            id,
            name,
            disk: RwLock::new(disk),
            surroundings,
            is_corrupt: AtomicBool::new(false),
            refuses_damage: AtomicBool::new(false),
            begins_anew: AtomicBool::new(false),
            is_restless: AtomicBool::new(false),
            myself: Weak::clone(myself),
            state: Mutex::new(state),
            acknowledged: Notify::new(),
            traffic: Traffic::default(),
        })
    }

    #[must_use]
    pub const fn id(&self) -> TopicPartition {
        self.id
    }

    /// Topic name and index.
    #[must_use]
    pub const fn name(&self) -> &PartitionName {
        &self.name
    }

    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The disk that holds the log.
    #[must_use]
    pub fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.disk.read())
    }

    #[must_use]
    pub fn leadership(&self) -> Leadership {
        match &self.state.lock().role {
            Role::Leader(state) => Leadership {
                leader: Some(self.surroundings.node_id),
                leader_epoch: state.leader_epoch(),
                is_local: true,
            },
            Role::Follower(state) => {
                Leadership { leader: state.leader(), leader_epoch: state.leader_epoch(), is_local: false }
            }
        }
    }

    /// The epoch under which this replica leads, if it does.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        let leadership = self.leadership();
        leadership.is_local.then_some(leadership.leader_epoch)
    }

    /// How well the partition is replicated, if this broker leads it.
    #[must_use]
    pub fn replication(&self) -> Option<Replication> {
        match &self.state.lock().role {
            Role::Leader(leader) => Some(Replication {
                spare_in_sync_replicas: leader.spare_in_sync_replicas(),
                follower_lags: leader.follower_lags().collect(),
            }),
            Role::Follower(_) => None,
        }
    }

    /// Whether the replica works: its disk and log are sound, and everybody knows what is in it.
    #[must_use]
    pub fn is_online(&self) -> bool {
        !self.is_unusable() && !self.begins_anew.load(Ordering::Acquire) && self.state.lock().log.is_some()
    }

    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.state.lock().role.offsets().log_start_offset
    }

    /// As this replica knows it; a new leader's may lie behind (see [`Partition::latest_offset`]).
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.state.lock().role.offsets().high_watermark
    }

    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.state.lock().role.offsets().log_end_offset
    }

    /// Everything below is on disk.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.state.lock().role.offsets().durable_offset
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state.lock().log.as_ref().map_or(0, Log::size_bytes)
    }

    /// Has `waiter` woken (`notify_one`) whenever high watermark, last stable offset, log start, low watermark or
    /// leadership change,
    /// until the subscription is dropped. Subscribe first and check then, and no change is missed.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, waiter: &Arc<Notify>) -> Subscription {
        let mut state = self.state.lock();
        let id = state.next_waiter;
        state.next_waiter += 1;
        state.waiters.insert(id, Arc::clone(waiter));
        Subscription { partition: Arc::clone(self), id }
    }

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
                let offsets = role.offsets();
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

    /// Deletes what retention allows, and forgets producers that were silent for `producer_expiration_ms`.
    pub fn clean_up(&self, now: TimestampMs, producer_expiration_ms: i64) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        let high_watermark = state.role.offsets().high_watermark;
        let Some(log) = &mut state.log else { return Ok(()) };
        log.producers_mut().expire(now, producer_expiration_ms);
        let deleted = log.delete_old_segments(now, high_watermark).and_then(|deleted| {
            log.remove_deleted_files(now)?;
            Ok(deleted)
        });
        let deleted = deleted.inspect_err(|error| self.disk.read().on_error(error))?;
        if deleted.segments > 0 {
            tracing::info!(
                partition = %self.name, segments = deleted.segments, bytes = deleted.bytes,
                log_start_offset = %deleted.log_start_offset, "deleted old segments"
            );
        }
        self.on_log_start_moved(&mut state, deleted.log_start_offset);
        Ok(())
    }

    /// The log start, if the checkpoint file has another one.
    pub(crate) fn log_start_to_checkpoint(&self) -> Option<LogCheckpoint> {
        let state = self.state.lock();
        let log_start_offset = state.role.offsets().log_start_offset;
        let log = state.log.as_ref().filter(|_| state.checkpointed_log_start != log_start_offset)?;
        Some(log.checkpoint_at(log_start_offset))
    }

    /// The checkpoint file has this log start, durably, unless the log was truncated meanwhile.
    pub(crate) fn on_log_start_checkpointed(&self, checkpoint: &LogCheckpoint) {
        let mut state = self.state.lock();
        if checkpoint.is_void() {
            return;
        }
        state.checkpointed_log_start = checkpoint.offset;
        if let Some(upstream) = &state.upstream {
            upstream.mark();
        }
        self.wake_waiters(&state);
    }

    /// The offsets that every checkpoint of the log has, whether they are news or not: its high watermark and its start.
    pub(crate) fn offsets_to_checkpoint(&self) -> Option<(LogCheckpoint, LogCheckpoint)> {
        let state = self.state.lock();
        let offsets = state.role.offsets();
        let log = state.log.as_ref()?;
        Some((log.checkpoint_at(offsets.high_watermark), log.checkpoint_at(offsets.log_start_offset)))
    }

    /// The recovery point, ready to be checkpointed, if it was not checkpointed yet.
    pub(crate) fn recovery_checkpoint(&self) -> Option<RecoveryCheckpoint> {
        self.state.lock().log.as_ref()?.recovery_checkpoint()
    }

    /// Lets go of the descriptors of files that nobody has used since the last call.
    pub(crate) fn close_unused_files(&self) {
        if let Some(log) = &self.state.lock().log {
            log.close_unused_files();
        }
    }

    /// Gives the log up: to delete it, or because it or its disk does not work any more. Everybody who waits for this
    /// partition is told.
    pub fn take_log(&self) -> Option<Log> {
        let mut state = self.state.lock();
        let log = state.log.take();
        state.last_chunk = None;
        self.wake_all(&state);
        log
    }

    /// Flushes everything and closes the log, for a clean shutdown. Returns whether that succeeded.
    pub fn close(&self) -> bool {
        let Some(mut log) = self.take_log() else { return false };
        match log.close() {
            Ok(()) => true,
            Err(error) => {
                self.disk.read().on_error(&error);
                tracing::error!(partition = %self.name, %error, "closing the log failed");
                false
            }
        }
    }

    /// Has the log flushed soon.
    fn mark_dirty(self: &Arc<Self>) {
        self.disk.read().flusher.mark_dirty(Arc::clone(self) as Arc<dyn Flushable>);
    }

    fn change_role(&self, state: &mut MutexGuard<'_, State>, role: Role) {
        state.role = role;
        self.wake_all(state);
        // They subscribe again in the new epoch.
        state.streams.clear();
        state.upstream = None;
        state.last_chunk = None;
    }

    /// Executes what the leader state decided.
    fn act(&self, state: &mut MutexGuard<'_, State>, actions: Vec<LeaderAction>) {
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

    /// To be called after every change that may make time matter: a follower may become late or join, or a flush become
    /// due.
    fn stir_unless_at_rest(&self, state: &State) {
        let is_role_at_rest = match &state.role {
            Role::Leader(leader) => leader.is_at_rest(),
            Role::Follower(_) => true,
        };
        let awaits_flush = state.unflushed_since_ms.is_some() && state.config.topic.flush_ms < i64::MAX;
        if !is_role_at_rest || awaits_flush || self.is_damaged() {
            self.stir();
        }
    }

    /// Whether something has to be done about what cannot be read, as soon as other replicas allow.
    fn is_damaged(&self) -> bool {
        [&self.is_corrupt, &self.refuses_damage, &self.begins_anew].into_iter().any(|flag| flag.load(Ordering::Acquire))
    }

    fn stir(&self) {
        if !self.is_restless.swap(true, Ordering::AcqRel) {
            self.surroundings.restless.lock().push(Weak::clone(&self.myself));
        }
    }

    fn on_log_start_moved(&self, state: &mut MutexGuard<'_, State>, log_start_offset: Offset) {
        if log_start_offset <= state.role.offsets().log_start_offset {
            return;
        }
        match &mut state.role {
            Role::Leader(leader) => leader.on_log_start_advanced(log_start_offset),
            Role::Follower(follower) => follower.on_log_start_advanced(log_start_offset),
        }
        self.wake_all(state);
    }

    /// Has a log start that others wait for checkpointed at once.
    fn checkpoint_log_start_if_moved(&self, state: &State) {
        if state.checkpointed_log_start != state.role.offsets().log_start_offset {
            self.surroundings.log_starts_moved.notify_one();
        }
    }

    /// Wakes everybody who may want to look again.
    fn wake_all(&self, state: &State) {
        self.wake_waiters(state);
        for stream in state.streams.values() {
            stream.mark();
        }
        if let Some(upstream) = &state.upstream {
            upstream.mark();
        }
        self.acknowledged.notify_waiters();
    }

    fn wake_waiters(&self, state: &State) {
        for waiter in state.waiters.values() {
            waiter.notify_one();
        }
    }

    /// Gives up a log in which something cannot be read any more. The controller hears of it, and has nobody elect or count
    /// this replica until it has fetched everything again. The last copy is kept.
    fn on_corrupt(&self, error: &StorageError) -> Damage {
        let damage = self.damage();
        let (flag, what) = match damage {
            Damage::GiveUp => (&self.is_corrupt, "the log is corrupt and no longer served"),
            Damage::Refuse => {
                (&self.refuses_damage, "the log is corrupt, and there is no other copy: the rest is served")
            }
        };
        if !flag.swap(true, Ordering::AcqRel) {
            tracing::error!(partition = %self.name, %error, "{what}");
            self.surroundings.offline_changed.notify_one();
        }
        self.stir();
        damage
    }

    /// A follower leaves it to [`Partition::refuse_damage`] to keep the last copy.
    fn damage(&self) -> Damage {
        match &self.state.lock().role {
            Role::Leader(leader) => on_damage(self.surroundings.node_id, leader.isr().iter().copied()),
            Role::Follower(_) => Damage::GiveUp,
        }
    }

    /// There is another copy now of what cannot be read here.
    pub(crate) fn reconsider_damage(&self) {
        if self.refuses_damage.load(Ordering::Acquire)
            && self.damage() == Damage::GiveUp
            && !self.is_corrupt.swap(true, Ordering::AcqRel)
        {
            tracing::error!(partition = %self.name, "the log is corrupt, and there is another copy: no longer served");
        }
    }

    /// No other copy is within reach: what can be read of this one is served.
    pub(crate) fn refuse_damage(&self) {
        if self.is_corrupt.load(Ordering::Acquire) {
            tracing::error!(partition = %self.name, "there is no other copy than this one, which is damaged");
            self.refuses_damage.store(true, Ordering::Release);
            self.is_corrupt.store(false, Ordering::Release);
        }
    }

    /// The replica was created empty in the place of one that is gone: until the leader has answered, it may believe in
    /// what was here.
    pub(crate) fn mark_begun_anew(&self) {
        self.begins_anew.store(true, Ordering::Release);
        self.stir();
    }

    /// Looks at the log and the high watermark, if the replica works.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&Log, Offset) -> T) -> Option<T> {
        let state = self.state.lock();
        let high_watermark = state.role.offsets().high_watermark;
        state.log.as_ref().filter(|_| !self.is_unusable()).map(|log| look(log, high_watermark))
    }

    /// Begins a corrupt log anew, if this replica follows somebody who has it all. The caller has made sure that the
    /// controller no longer counts on this replica. Returns whether there is anything to fetch now.
    pub(crate) fn begin_anew_if_corrupt(&self) -> bool {
        if !self.is_corrupt.load(Ordering::Acquire) {
            return false;
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Some(log), Role::Follower(follower)) = (&mut state.log, &mut state.role) else { return false };
        let start = follower.offsets().log_start_offset;
        if follower.leader().is_none() {
            return false;
        }
        if let Err(error) = log.truncate_fully_and_start_at(start) {
            self.disk.read().on_error(&error);
            return false;
        }
        follower.on_restarted(start);
        // What the leader sends in this subscription continues the log that was: it has to begin anew as well.
        if let Some(upstream) = state.upstream.take() {
            upstream.mark();
        }
        tracing::warn!(partition = %self.name, "begins anew after corruption");
        self.begins_anew.store(true, Ordering::Release);
        self.refuses_damage.store(false, Ordering::Release);
        self.is_corrupt.store(false, Ordering::Release);
        true
    }

    fn is_unusable(&self) -> bool {
        self.disk.read().has_failed.load(Ordering::Acquire) || self.is_corrupt.load(Ordering::Acquire)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.surroundings.is_serving()
    }
}

impl Flushable for Partition {
    fn begin_flush(&self) -> Option<Flush> {
        self.state.lock().log.as_ref()?.begin_flush()
    }

    fn end_flush(&self, flush: &Flush) {
        let mut state = self.state.lock();
        let Some(log) = &mut state.log else { return };
        let durable_offset = log.end_flush(flush);
        let is_all = log.log_end_offset() <= durable_offset;
        state.unflushed_since_ms = (!is_all).then(|| self.surroundings.now_ms());
        match &mut state.role {
            Role::Leader(leader) => {
                let actions = leader.on_flushed(durable_offset, self.surroundings.now_ms());
                self.act(&mut state, actions);
                // Those who wait for this broker's own disk only.
                self.acknowledged.notify_waiters();
            }
            Role::Follower(follower) => {
                follower.on_flushed(durable_offset);
                if let Some(upstream) = &state.upstream {
                    upstream.mark();
                }
            }
        }
    }
}

/// A waiter's registration with a partition; ends when dropped.
pub struct Subscription {
    partition: Arc<Partition>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.partition.state.lock().waiters.remove(&self.id);
    }
}

/// Wall-clock time, for timestamps in records.
fn wall_clock() -> TimestampMs {
    clock::now()
}

#[cfg(test)]
mod tests;
