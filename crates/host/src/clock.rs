//! Wall-clock time. Monotonic time is `tokio::time::Instant`, which the simulator drives.

use vltava_types::TimestampMs;

/// The wall clock, in milliseconds since the Unix epoch.
#[must_use]
pub fn now() -> TimestampMs {
    #[cfg(not(vltava_sim))]
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the wall clock is set to a time after 1970");
    #[cfg(vltava_sim)]
    let since_epoch = turmoil::since_epoch().expect("the clock is read on a simulated host");
    let now = i64::try_from(since_epoch.as_millis()).expect("the wall clock is set to a time before year 292278994");
    #[cfg(vltava_sim)]
    let now = now + crate::machine::clock_offset_ms();
    TimestampMs(now)
}
