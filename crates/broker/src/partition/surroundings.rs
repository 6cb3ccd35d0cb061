//! What all partitions of a broker share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use vltava_replication::CutOff;
use vltava_types::{BrokerId, mutation};

use super::Partition;
use crate::isr::IsrProposals;

/// What all partitions of a broker share.
pub struct Surroundings {
    pub node_id: BrokerId,
    /// Where ISR changes wait to be sent to the controller.
    pub isr_proposals: IsrProposals,
    /// Rung when a log start has moved that somebody waits to have on disk.
    pub log_starts_moved: Notify,
    /// Partitions that time alone may change: see [`Partition::on_tick`]. Each at most once.
    pub(super) restless: Mutex<Vec<Weak<Partition>>>,
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
