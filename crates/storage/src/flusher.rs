//! Group commit: one flush serves everything appended meanwhile, over all logs of a directory.

use std::path::PathBuf;
use std::sync::Arc;

use vltava_host::fs::File;
use vltava_types::Offset;

use crate::StorageError;

/// What has to reach the disk so that a log is durable below [`Flush::up_to`]. Taken from the log under its lock
/// with [`crate::Log::begin_flush`], run without it, and handed back to [`crate::Log::end_flush`].
#[derive(Debug)]
pub struct Flush {
    /// Exclusive.
    pub(crate) up_to: Offset,
    /// The log's truncation count when the flush was taken: if it has changed, the flush proves nothing.
    pub(crate) truncations: u64,
    pub(crate) files: Vec<(PathBuf, Arc<File>)>,
    /// A directory with new entries.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) directory_changes: u64,
}

impl Flush {
    /// The end of what this flush makes durable, exclusive.
    #[must_use]
    pub const fn up_to(&self) -> Offset {
        self.up_to
    }

    /// Blocks until everything is on disk. An error means that the log directory has failed: never try again (trap 27).
    pub fn run(&self) -> Result<(), StorageError> {
        unimplemented!()
    }
}

/// A log that its owner keeps behind a lock, as the flusher sees it. Methods are called from a blocking thread.
pub trait Flushable: Send + Sync + 'static {
    /// Takes the lock for a moment and calls [`crate::Log::begin_flush`].
    fn begin_flush(&self) -> Option<Flush>;

    /// The flush is on disk: takes the lock, calls [`crate::Log::end_flush`], and wakes who waits for durability.
    fn end_flush(&self, flush: &Flush);
}

/// The flushing task of one log directory.
pub struct Flusher {}

impl Flusher {
    /// Starts the task on the current runtime; it ends when the flusher is dropped. `parallelism` logs are flushed at
    /// the same time. `on_failure` is called once, with the first error; from then on nothing is flushed any more.
    #[must_use]
    pub fn start(parallelism: usize, on_failure: impl FnOnce(StorageError) + Send + 'static) -> Self {
        let _ = (parallelism, on_failure);
        unimplemented!()
    }

    /// Has the log flushed soon, together with all others that are dirty by then. Cheap, never blocks, and may be
    /// called again while a flush is under way; a log is queued at most once.
    pub fn mark_dirty(&self, log: Arc<dyn Flushable>) {
        let _ = log;
        unimplemented!()
    }

    /// Whether the directory failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        unimplemented!()
    }
}
