/// A topic's settings as far as they concern its logs. Names and meanings are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        }
    }
}
