//! A limit of bytes per second that may change at any time: of replication to replicas that are not in sync (KIP-73), and
//! of moves between log directories (KIP-113).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is not worth a timer, and is made up for by the next pause.
const SHORTEST: Duration = Duration::from_millis(1);

/// However low the limit is.
const LONGEST: Duration = Duration::from_secs(3600);

/// Who has a quota first asks for the pause, waits until there is none, and records what was moved then.
pub struct Quota(Mutex<Owed>);

/// Bytes that were moved ahead of the limit.
#[derive(Clone, Copy, Debug)]
struct Owed {
    bytes: f64,
    at: Instant,
}

impl Default for Quota {
    fn default() -> Self {
        Self(Mutex::new(Owed { bytes: 0.0, at: Instant::now() }))
    }
}

impl Quota {
    /// These bytes were moved.
    pub fn record(&self, bytes: u64) {
        self.0.lock().bytes += bytes as f64;
    }

    /// How long until all that was recorded is within the limit, by what the limit is now.
    pub fn pause(&self, bytes_per_second: u64) -> Duration {
        let mut owed = self.0.lock();
        *owed = owed.after(Instant::now(), bytes_per_second);
        owed.pause(bytes_per_second)
    }
}

impl Owed {
    /// Time pays; time that nothing was owed in is not saved up.
    fn after(self, now: Instant, bytes_per_second: u64) -> Self {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        Self { bytes: (self.bytes - elapsed * bytes_per_second as f64).max(0.0), at: now }
    }

    fn pause(self, bytes_per_second: u64) -> Duration {
        let seconds = self.bytes / bytes_per_second.max(1) as f64;
        let pause = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
        if pause < SHORTEST { Duration::ZERO } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{LONGEST, Owed};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_owed_is_paid_by_time() {
        let start = Instant::now();
        let owed = Owed { bytes: 3000.0, at: start };
        assert_eq!(owed.pause(1000), 3 * SECOND);
        let owed = owed.after(start + SECOND, 1000);
        assert_eq!(owed.pause(1000), 2 * SECOND);
        assert_eq!(owed.after(start + 10 * SECOND, 1000).pause(1000), Duration::ZERO);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let start = Instant::now();
        let mut owed = Owed { bytes: 0.0, at: start }.after(start + 60 * SECOND, 1000);
        owed.bytes += 2000.0;
        assert_eq!(owed.pause(1000), 2 * SECOND);
    }

    #[test]
    fn a_new_limit_counts_at_once() {
        let start = Instant::now();
        let owed = Owed { bytes: 1e9, at: start };
        assert_eq!(owed.pause(0), LONGEST);
        let owed = owed.after(start + SECOND, 0);
        assert_eq!(owed.pause(1_000_000_000), SECOND);
        assert_eq!(owed.after(start + 2 * SECOND, i64::MAX.unsigned_abs()).pause(1), Duration::ZERO);
    }
}
