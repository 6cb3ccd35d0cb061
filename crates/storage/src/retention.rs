//! Which segments go, by time, size and log start offset; and how their files are removed.

use vltava_types::{Offset, TimestampMs};

use crate::{Log, StorageError};

/// What [`Log::delete_old_segments`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedSegments {
    pub segments: usize,
    pub bytes: u64,
    /// The log start offset afterwards. A leader tells its followers (trap 19).
    pub log_start_offset: Offset,
}

impl Log {
    /// Deletes whole segments that retention (`retention.ms`, `retention.bytes`) or the log start offset no longer
    /// protects, oldest first, and never one that reaches beyond `high_watermark`. Their files are renamed to `.deleted`
    /// and stay for `file.delete.delay.ms`: see [`Log::remove_deleted_files`].
    pub fn delete_old_segments(
        &mut self,
        now: TimestampMs,
        high_watermark: Offset,
    ) -> Result<DeletedSegments, StorageError> {
        let _ = (now, high_watermark);
        unimplemented!()
    }

    /// Removes files that were renamed to `.deleted` long enough ago.
    pub fn remove_deleted_files(&mut self, now: TimestampMs) -> Result<(), StorageError> {
        let _ = now;
        unimplemented!()
    }
}
