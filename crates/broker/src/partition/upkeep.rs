//! Retention, checkpoints, flushes, and the log's end as a file.

use vltava_storage::{Flush, Flushable, Log, LogCheckpoint, RecoveryCheckpoint, StorageError};
use vltava_types::TimestampMs;

use super::{Partition, Role};

impl Partition {
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
