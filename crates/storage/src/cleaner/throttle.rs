//! How fast cleaning may read and write.

use std::time::Duration;

/// Spreads bytes over time so that their rate stays below `log.cleaner.io.max.bytes.per.second`. Shared by all cleaners of a
/// broker. Owns no clock.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    /// When everything so far is paid for, in milliseconds of the caller's clock.
    paid_at_ms: f64,
}

impl Throttle {
    /// How long to pause after `bytes` were read or written.
    pub fn pause_after(&mut self, bytes: u64, max_bytes_per_second: f64, now_ms: i64) -> Duration {
        const LONGEST: Duration = Duration::from_secs(60 * 60);
        let now_ms = now_ms as f64;
        let cost_ms = bytes as f64 * 1000.0 / max_bytes_per_second.max(1.0);
        self.paid_at_ms = self.paid_at_ms.max(now_ms) + cost_ms;
        let pause = Duration::try_from_secs_f64((self.paid_at_ms - now_ms) / 1000.0).unwrap_or(LONGEST).min(LONGEST);
        // Less is not worth a timer, and is made up for by the next one.
        if pause < Duration::from_millis(1) { Duration::ZERO } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Throttle;

    #[test]
    fn pauses_make_up_for_bytes() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.pause_after(500, 1000.0, 10_000), Duration::from_millis(500));
        // Nobody waited, so that the debt grows; then time passes and none is left over for later.
        assert_eq!(throttle.pause_after(500, 1000.0, 10_000), Duration::from_millis(1000));
        assert_eq!(throttle.pause_after(100, 1000.0, 20_000), Duration::from_millis(100));
    }

    #[test]
    fn small_debts_are_collected() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.pause_after(9, 10_000.0, 0), Duration::ZERO);
        assert!(throttle.pause_after(9, 10_000.0, 0) > Duration::from_millis(1));
    }

    #[test]
    fn no_limit_is_no_pause_and_a_limit_of_nothing_ends() {
        assert_eq!(Throttle::default().pause_after(u64::MAX, f64::MAX, 0), Duration::ZERO);
        assert_eq!(Throttle::default().pause_after(u64::MAX, 0.0, 0), Duration::from_secs(3600));
    }
}
