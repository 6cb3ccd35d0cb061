//! What the log cleaner tells of itself.

use tokio::time::Instant;
use vltava_storage::CleaningStats;

/// As the cleaner last knew it; counts since the broker started.
#[derive(Clone, Copy, Debug)]
pub struct CleanerStatus {
    /// Compacted logs that cannot be cleaned, until something is taken back from them or the settings change.
    pub uncleanable_partitions: usize,
    /// Of their segments.
    pub uncleanable_bytes: u64,
    /// Of all logs that could be cleaned, the largest share that never was.
    pub max_dirty_ratio: f64,
    /// When it last looked for a log to clean, which it does not while all its threads are at work. A cleaner that is
    /// switched off looks too, and finds nothing.
    pub last_run: Instant,
    /// Passes that got to their end, and what they read and wrote.
    pub passes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// How much of its offset map the last of them used, of what it may have.
    pub buffer_utilization: f64,
}

impl CleanerStatus {
    pub(in crate::replica_manager) fn new() -> Self {
        Self {
            uncleanable_partitions: 0,
            uncleanable_bytes: 0,
            max_dirty_ratio: 0.0,
            last_run: Instant::now(),
            passes: 0,
            bytes_read: 0,
            bytes_written: 0,
            buffer_utilization: 0.0,
        }
    }

    /// A pass got to its end; the map could have held `max_keys`.
    pub(super) fn on_cleaned(&mut self, stats: &CleaningStats, max_keys: usize) {
        self.passes += 1;
        self.bytes_read += stats.bytes_read;
        self.bytes_written += stats.bytes_written;
        self.buffer_utilization = stats.keys as f64 / max_keys.max(1) as f64;
    }
}
