//! Moving the log to another disk while it is in use.

use std::sync::Arc;

use vltava_host::clock;
use vltava_storage::{Copied, FutureLog, Log, StorageError};

use super::{Partition, Role};
use crate::disk::Disk;

/// Bytes copied at a time. What is left when nothing may be appended any more is less, unless more came meanwhile.
pub(crate) const COPY_BYTES: usize = 1 << 20;

/// Why a log is not moved, with whose fault it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelocationError {
    #[error("the replica is offline or gone")]
    Offline,
    #[error("the log cannot be read: {0}")]
    Source(StorageError),
    #[error("the copy cannot be written: {0}")]
    Target(StorageError),
}

impl Partition {
    /// Begins a copy on another disk.
    pub(crate) fn begin_relocation(&self, target: &Disk) -> Result<FutureLog, RelocationError> {
        let created = self.with_log(|log, _| target.log_dir.create_future(&self.name, log));
        created.ok_or(RelocationError::Offline)?.map_err(RelocationError::Target)
    }

    /// Copies a part of what the copy lacks, without the lock.
    pub(crate) fn copy_to(&self, future: &mut FutureLog) -> Result<Copied, RelocationError> {
        let (reader, truncations) =
            self.with_log(|log, _| (log.reader(), log.truncation_count())).ok_or(RelocationError::Offline)?;
        match future.copy(&reader, truncations, COPY_BYTES) {
            Err(StorageError::Truncated) => Ok(Copied::Bytes(0)),
            Err(error @ (StorageError::Corrupt { .. } | StorageError::OffsetOutOfRange { .. })) => {
                Err(RelocationError::Source(error))
            }
            outcome => outcome.map_err(RelocationError::Target),
        }
    }

    /// Copies the rest and puts the copy into the log's place. Nothing is appended meanwhile. Afterwards the old log is
    /// deleted.
    pub(crate) fn relocate(self: &Arc<Self>, mut future: FutureLog, target: &Arc<Disk>) -> Result<(), RelocationError> {
        let source = self.disk();
        let old = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let high_watermark = state.role.offsets().high_watermark;
            let log = state.log.as_mut().filter(|_| !self.is_unusable());
            let copied = log.map_or(Err(RelocationError::Offline), |log| copy_rest(log, &mut future).map(|()| log));
            let log = match copied {
                Ok(log) => log,
                Err(error) => {
                    drop(guard);
                    // What remains of it is removed at the next start.
                    let _ = target.log_dir.remove_future(future);
                    return Err(error);
                }
            };
            let directory_id = source.log_dir.directory_id();
            let taken = target.log_dir.take_over(future, &self.name, log, directory_id, high_watermark);
            let mut new = taken.map_err(RelocationError::Target)?;
            new.producers_mut().on_high_watermark(high_watermark);
            new.set_config(Arc::clone(&state.config.log));
            let old = std::mem::replace(log, new);
            *self.disk.write() = Arc::clone(target);
            let durable_offset = old.log_end_offset();
            state.unflushed_since_ms = None;
            match &mut state.role {
                Role::Leader(leader) => {
                    let actions = leader.on_flushed(durable_offset, self.surroundings.now_ms());
                    self.act(&mut guard, actions);
                }
                Role::Follower(follower) => follower.on_flushed(durable_offset),
            }
            self.wake_all(&guard);
            old
        };
        // From here on the move has happened; what fails now is completed at the next start.
        let deleted = source.log_dir.delete(old, clock::now());
        if let Err(error) = &deleted {
            source.on_error(error);
            tracing::warn!(partition = %self.name, %error, "the log was moved, and its old directory cannot be deleted");
        } else if let Err(error) = target.log_dir.forget_replaced(&self.name) {
            target.on_error(&error);
        }
        Ok(())
    }
}

fn copy_rest(log: &Log, future: &mut FutureLog) -> Result<(), RelocationError> {
    loop {
        match future.copy(&log.reader(), log.truncation_count(), COPY_BYTES) {
            Ok(Copied::Everything) => return Ok(()),
            Ok(Copied::Bytes(_)) => {}
            Err(error @ StorageError::Corrupt { .. }) => return Err(RelocationError::Source(error)),
            Err(error) => return Err(RelocationError::Target(error)),
        }
    }
}
