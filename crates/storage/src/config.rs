/// A topic's settings as far as they concern its logs. Names and meanings are Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment that would outgrow this is rolled.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment whose batches span more time than this is rolled.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: rolling by time happens up to this much earlier, differently for each partition.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment whose index has reached this size is rolled.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// `retention.ms`; negative: no limit by time.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no limit by size.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` contains `delete`. Segments below the log start offset go in any case.
    pub delete_by_retention: bool,
    /// `file.delete.delay.ms`: how long a deleted segment's files stay, renamed to `.deleted`.
    pub file_delete_delay_ms: i64,
    /// Whether `cleanup.policy` contains `compact`.
    pub is_compacted: bool,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: a record stays uncompacted at least this long.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: a record waits for compaction at most this long.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays after the first cleaning that met it.
    pub delete_retention_ms: i64,
}

impl LogConfig {
    /// The longest time that the batches of a segment span. The active segment is never compacted, so that it has to end
    /// before `max.compaction.lag.ms` is over.
    #[must_use]
    pub(crate) fn max_segment_ms(&self) -> i64 {
        if self.is_compacted && self.max_compaction_lag_ms > 0 {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            retention_bytes: -1,
            delete_by_retention: true,
            file_delete_delay_ms: 60_000,
            is_compacted: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}
