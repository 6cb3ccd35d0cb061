//! What works for a log without its lock, and by the paths of its files, has to know whether they are still its files.
//!
//! A deleted log gives its directory's name free, perhaps for the log of another topic: a flush or a compaction that comes
//! late must not write there, nor a checkpoint that was taken before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use vltava_types::Offset;

/// Whether a log's directory has its name. Clones tell of the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    is_gone: Arc<RwLock<bool>>,
}

impl Presence {
    /// Does the work, during which the directory keeps its name. `None` if it has lost it already.
    pub fn hold<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let is_gone = self.is_gone.read();
        (!*is_gone).then(work)
    }

    /// Waits for those at work. Nobody begins afterwards.
    pub fn end(&self) {
        *self.is_gone.write() = true;
    }

    pub fn has_ended(&self) -> bool {
        *self.is_gone.read()
    }
}

/// An offset of a log on its way into a checkpoint file, which is written without the log's lock. Made by
/// [`crate::Log::checkpoint_at`].
#[derive(Clone, Debug)]
pub struct LogCheckpoint {
    pub offset: Offset,
    presence: Presence,
    /// The log's truncation count, and what it was.
    truncations: Arc<AtomicU64>,
    truncations_seen: u64,
}

impl LogCheckpoint {
    pub(crate) fn new(offset: Offset, presence: &Presence, truncations: &Arc<AtomicU64>) -> Self {
        Self {
            offset,
            presence: presence.clone(),
            truncations: Arc::clone(truncations),
            truncations_seen: truncations.load(Ordering::Acquire),
        }
    }

    /// Whether the log was truncated or deleted since, so that the offset may claim too much, or is another log's.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.truncations.load(Ordering::Acquire) != self.truncations_seen || self.presence.has_ended()
    }
}
