//! Group commit: one flush serves everything appended meanwhile, over all logs of a directory.
//!
//! Nobody waits for more work to arrive: the flusher takes whatever is dirty, and what becomes dirty while it flushes
//! is taken together by the next round. The busier the directory, the larger the groups.
//!
//! A flush that fails ends the directory: what the page cache says afterwards is worth nothing. A full file system is no
//! such failure as long as only a checkpoint beside the data lacks room, which is then written later.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use vltava_host::fs;
use vltava_host::task;
use vltava_types::{Offset, mutation};

use crate::StorageError;
use crate::epoch_checkpoint::{EpochCheckpoint, EpochsVersion};
use crate::error::AtPath;
use crate::lazy_file::LazyFile;
use crate::presence::Presence;

/// The pause before a checkpoint is written again that there was no room for.
const ROOM_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What has to reach the disk so that a log is durable below [`Flush::up_to`]. Taken from the log under its lock
/// with [`crate::Log::begin_flush`], run without it, and handed back to [`crate::Log::end_flush`].
#[derive(Debug)]
pub struct Flush {
    /// Exclusive.
    pub(crate) up_to: Offset,
    /// The log's truncation count when the flush was taken: if it has changed, the flush proves nothing.
    pub(crate) truncations: u64,
    pub(crate) presence: Presence,
    pub(crate) files: Vec<Arc<LazyFile>>,
    /// The log's directory, if it has new entries: a new file's contents survive only with its name.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) directory_version: u64,
    pub(crate) epochs: Option<(Arc<EpochCheckpoint>, EpochsVersion)>,
}

impl Flush {
    /// The end of what this flush makes durable, exclusive.
    #[must_use]
    pub const fn up_to(&self) -> Offset {
        self.up_to
    }

    /// The part of it that has yet to be written, without flushing that: for a caller who flushes the whole file system.
    pub(crate) fn write_epochs_unflushed(&self) -> Result<(), StorageError> {
        self.epochs.as_ref().map_or(Ok(()), |(checkpoint, epochs)| checkpoint.write_unflushed(epochs))
    }

    /// Blocks until everything is on disk. An error means that the log directory has failed: never try again (trap 27).
    /// The exception is [`StorageError::Full`]: the data are on disk, and a checkpoint has yet to be written.
    ///
    /// Does nothing if the log was deleted since: nobody waits for it.
    pub fn run(&self) -> Result<(), StorageError> {
        self.presence.hold(|| self.write()).unwrap_or(Ok(()))
    }

    fn write(&self) -> Result<(), StorageError> {
        for file in &self.files {
            file.sync_data()?;
        }
        if let Some(directory) = &self.directory {
            fs::sync_dir(directory).at(directory)?;
        }
        if let Some((checkpoint, epochs)) = &self.epochs {
            checkpoint.write(epochs)?;
        }
        Ok(())
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
pub struct Flusher {
    shared: Arc<Shared>,
    task: task::JoinHandle<()>,
}

struct Shared {
    dirty: Mutex<Dirty>,
    wake: Notify,
    failed: AtomicBool,
}

/// The logs to flush in the next round, each once.
#[derive(Default)]
struct Dirty {
    logs: Vec<Arc<dyn Flushable>>,
    addresses: BTreeSet<usize>,
}

impl Flusher {
    /// Starts the task on the current runtime; it ends when the flusher is dropped. `parallelism` logs are flushed at
    /// the same time. `on_flushed` is told how long each log took. `on_failure` is called once, with the first error; from then on nothing is flushed any more, and
    /// who waits for durability there waits in vain: the directory must be taken offline.
    #[must_use]
    pub fn start(
        parallelism: usize,
        on_flushed: impl Fn(Duration) + Send + Sync + 'static,
        on_failure: impl FnOnce(StorageError) + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { dirty: Mutex::default(), wake: Notify::new(), failed: AtomicBool::new(false) });
        let task = task::spawn(flush_rounds(Arc::clone(&shared), parallelism.max(1), Arc::new(on_flushed), on_failure));
        Self { shared, task }
    }

    /// Has the log flushed soon, together with all others that are dirty by then. Cheap, never blocks, and may be
    /// called again while a flush is under way; a log is queued at most once.
    pub fn mark_dirty(&self, log: Arc<dyn Flushable>) {
        if self.has_failed() {
            return;
        }
        let address = address_of(&log);
        let mut dirty = self.shared.dirty.lock();
        if dirty.addresses.insert(address) {
            dirty.logs.push(log);
            drop(dirty);
            self.shared.wake.notify_one();
        }
    }

    /// Whether the directory failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type OnFlushed = Arc<dyn Fn(Duration) + Send + Sync>;

async fn flush_rounds(
    shared: Arc<Shared>,
    parallelism: usize,
    on_flushed: OnFlushed,
    on_failure: impl FnOnce(StorageError) + Send,
) {
    // Logs with a checkpoint that there was no room for.
    let mut unfinished: Vec<Arc<dyn Flushable>> = Vec::new();
    loop {
        let pause = if unfinished.is_empty() { Duration::MAX } else { ROOM_RETRY_PAUSE };
        // Either way there is something to do now.
        let _ = tokio::time::timeout(pause, shared.wake.notified()).await;
        let mut dirty = std::mem::take(&mut *shared.dirty.lock());
        for log in unfinished.drain(..) {
            if dirty.addresses.insert(address_of(&log)) {
                dirty.logs.push(log);
            }
        }
        match flush_all(dirty.logs, parallelism, &on_flushed).await {
            Ok(without_room) => unfinished = without_room,
            Err(error) => {
                shared.failed.store(true, Ordering::Release);
                *shared.dirty.lock() = Dirty::default();
                tracing::error!(%error, "flush failed, the log directory goes offline");
                on_failure(error);
                return;
            }
        }
    }
}

fn address_of(log: &Arc<dyn Flushable>) -> usize {
    Arc::as_ptr(log).cast::<()>().addr()
}

/// Flushes the logs on up to `parallelism` threads. Ends early, with the first error, if there is one. Returns those for
/// whose checkpoints there was no room.
async fn flush_all(
    logs: Vec<Arc<dyn Flushable>>,
    parallelism: usize,
    on_flushed: &OnFlushed,
) -> Result<Vec<Arc<dyn Flushable>>, StorageError> {
    let share = logs.len().div_ceil(parallelism).max(1);
    let mut logs = logs.into_iter().peekable();
    let mut workers = Vec::new();
    while logs.peek().is_some() {
        let logs: Vec<_> = logs.by_ref().take(share).collect();
        let on_flushed = Arc::clone(on_flushed);
        workers.push(task::spawn(task::blocking(move || {
            let mut without_room = Vec::new();
            for log in logs {
                let Some(flush) = log.begin_flush() else { continue };
                let began = Instant::now();
                match flush.run() {
                    Ok(()) => {
                        on_flushed(began.elapsed());
                        log.end_flush(&flush);
                    }
                    Err(error) if error.is_full() => without_room.push(log),
                    Err(_) if mutation::is_off("trap-27") => log.end_flush(&flush),
                    Err(error) => return Err(error),
                }
            }
            Ok(without_room)
        })));
    }
    let mut outcome = Ok(Vec::new());
    for worker in workers {
        let flushed = match worker.await {
            Ok(flushed) => flushed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down.
            Err(_) => return Ok(Vec::new()),
        };
        outcome = outcome.and_then(|mut all: Vec<_>| {
            all.extend(flushed?);
            Ok(all)
        });
    }
    outcome
}
