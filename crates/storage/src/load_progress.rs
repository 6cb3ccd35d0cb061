//! How far start-up has come with opening logs, for the log and for whoever asks whether the broker is ready.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The shortest time between two lines in the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Counts the logs that are opened, of all directories together. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct LoadProgress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    found: AtomicU64,
    opened: AtomicU64,
    bytes_scanned: AtomicU64,
    /// When it was last told, or begun.
    reported_at: Mutex<Option<Instant>>,
}

/// A moment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading {
    pub opened: u64,
    pub found: u64,
    /// Of the batches that were read because they may not have been flushed.
    pub bytes_scanned: u64,
}

impl LoadProgress {
    /// `None` if no logs are being opened: not yet, or not any more.
    #[must_use]
    pub fn loading(&self) -> Option<Loading> {
        let loading = self.now();
        (loading.opened < loading.found).then_some(loading)
    }

    /// So many more logs were found, and will be opened or given up.
    pub(crate) fn on_found(&self, logs: usize) {
        self.shared.reported_at.lock().get_or_insert_with(Instant::now);
        self.shared.found.fetch_add(logs as u64, Ordering::AcqRel);
    }

    pub(crate) fn on_opened(&self) {
        self.shared.opened.fetch_add(1, Ordering::AcqRel);
        self.report_if_due();
    }

    pub(crate) fn on_scanned(&self, bytes: u64) {
        self.shared.bytes_scanned.fetch_add(bytes, Ordering::AcqRel);
        self.report_if_due();
    }

    fn now(&self) -> Loading {
        Loading {
            opened: self.shared.opened.load(Ordering::Acquire),
            found: self.shared.found.load(Ordering::Acquire),
            bytes_scanned: self.shared.bytes_scanned.load(Ordering::Acquire),
        }
    }

    fn report_if_due(&self) {
        // Whoever holds the lock reports.
        let Some(mut reported_at) = self.shared.reported_at.try_lock() else { return };
        if reported_at.is_some_and(|at| at.elapsed() >= REPORT_INTERVAL) {
            *reported_at = Some(Instant::now());
            tracing::info!("{}", self.now());
        }
    }
}

impl fmt::Display for Loading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, found, bytes_scanned } = self;
        write!(formatter, "recovering: {opened} of {found} logs, {:.1} MB read again", *bytes_scanned as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::LoadProgress;

    #[test]
    fn directories_count_together_and_it_ends() {
        let progress = LoadProgress::default();
        assert_eq!(progress.loading(), None);
        progress.on_found(2);
        progress.clone().on_found(1);
        progress.on_scanned(1_500_000);
        progress.on_opened();
        let told = progress.loading().expect("two are left").to_string();
        assert_eq!(told, "recovering: 1 of 3 logs, 1.5 MB read again");
        progress.on_opened();
        progress.on_opened();
        assert_eq!(progress.loading(), None);
    }
}
