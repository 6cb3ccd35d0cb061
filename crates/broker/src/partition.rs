//! One hosted replica: the owner of its log and of its role.
//!
//! Everything that changes a partition goes through one lock, so that its order needs no argument. What takes long
//! happens outside of it: reads work on a snapshot of the log, flushes on file handles. Decisions are those of
//! [`vltava_replication`]; this module executes them.

mod append;
mod cleaning;
mod damage;
mod follower;
#[cfg(vltava_sim)]
mod inspection;
mod leader;
mod read;
mod relocation;
mod role;
mod surroundings;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use vltava_host::clock;
use vltava_replication::{FollowerState, LogOffsets};
use vltava_storage::{Flushable, Log, PartitionName};
use vltava_types::{BrokerId, LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::dirty_set::DirtySet;
use crate::disk::Disk;
use crate::partition_config::PartitionConfig;

pub use append::{Acks, AppendError, AppendOptions, Appended};
pub(crate) use cleaning::AfterFailure;
pub use damage::{Damage, on_damage};
pub use follower::LeaderNewsError;
#[cfg(vltava_sim)]
pub use inspection::{Glance, Inspection, Leads};
pub(crate) use leader::ThrottledSides;
pub use leader::{FollowerRead, NotLeading};
pub use read::{Isolation, ReadRequest, ReadResult};
pub(crate) use relocation::{COPY_BYTES, RelocationError};
use role::Role;
pub use surroundings::Surroundings;

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
    /// As a leader: the first epoch since this replica followed last. Nothing was cut off its log since.
    leads_since: LeaderEpoch,
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
            leads_since: LeaderEpoch::NONE,
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
    /// leadership change, until the subscription is dropped. Subscribe first and check then, and no change is missed.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, waiter: &Arc<Notify>) -> Subscription {
        let mut state = self.state.lock();
        let id = state.next_waiter;
        state.next_waiter += 1;
        state.waiters.insert(id, Arc::clone(waiter));
        Subscription { partition: Arc::clone(self), id }
    }

    /// Has the log flushed soon.
    fn mark_dirty(self: &Arc<Self>) {
        self.disk.read().flusher.mark_dirty(Arc::clone(self) as Arc<dyn Flushable>);
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

    /// Looks at the log and the high watermark, if the replica works.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&Log, Offset) -> T) -> Option<T> {
        let state = self.state.lock();
        let high_watermark = state.role.offsets().high_watermark;
        state.log.as_ref().filter(|_| !self.is_unusable()).map(|log| look(log, high_watermark))
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.surroundings.is_serving()
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
