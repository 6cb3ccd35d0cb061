//! What a broker counts and times while it works. What it merely *is* at a moment (offsets, leadership, sizes) is not
//! kept here: whoever publishes metrics reads it when asked.
//!
//! Bounded: labels are API names, of which there are about sixty.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Durations from 100 µs to about 13 s, each bucket twice as long as the one before.
const DURATION_BUCKETS: (f64, f64, u16) = (0.0001, 2.0, 18);

/// Shared by all connections of one broker. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// From the last byte of a request to its answer being ready to be written, in seconds. Waiting that the client asked
    /// for (long polls, acknowledgements of replicas, rebalances) is part of it.
    pub request_duration: Family<ApiLabel, Histogram>,
}

/// Which API.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ApiLabel {
    pub api: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { request_duration: Family::new_with_constructor(duration_histogram) }
    }
}

impl Metrics {
    pub(crate) fn on_answered(&self, api: &'static str, duration: Duration) {
        self.request_duration.get_or_create(&ApiLabel { api }).observe(duration.as_secs_f64());
    }
}

/// How long flushes took, by log directory: each flush makes durable what one log has appended.
pub type FlushDurations = Family<LogDirLabel, Histogram, fn() -> Histogram>;

/// Which log directory.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LogDirLabel {
    pub log_dir: String,
}

pub(crate) fn duration_histogram() -> Histogram {
    let (start, factor, count) = DURATION_BUCKETS;
    Histogram::new(exponential_buckets(start, factor, count))
}
