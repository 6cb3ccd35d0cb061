//! The background scrub: closed segments are read again, slowly and one after another, so that damage is found while
//! another replica has what was damaged.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vltava_host::{random, task};
use vltava_storage::SegmentScrub;

use super::ReplicaManager;
use crate::partition::Partition;

/// Bytes read at a time.
const STEP_BYTES: u64 = 256 << 10;

/// What a round has seen.
#[derive(Default)]
struct Round {
    segments: u64,
    bytes: u64,
    damaged: u64,
}

/// Round after round, each at most once in `vltava.scrub.interval.ms`, until the manager is gone. The first one begins at
/// once and anywhere, so that restarts do not leave the same partitions out every time.
pub(super) async fn run(manager: Weak<ReplicaManager>) {
    let Some((interval, bytes_per_second)) = manager.upgrade().and_then(|manager| {
        let storage = &manager.config.storage;
        Some((storage.scrub_interval?, storage.scrub_bytes_per_second))
    }) else {
        return;
    };
    let mut rotation = random::u64();
    loop {
        let started = Instant::now();
        let Some(mut partitions) = manager.upgrade().map(|manager| manager.partitions()) else { return };
        if !partitions.is_empty() {
            let first = rotation % partitions.len() as u64;
            partitions.rotate_left(usize::try_from(first).expect("less than the number of partitions"));
        }
        rotation = 0;
        let mut round = Round::default();
        for partition in partitions {
            scrub(&partition, bytes_per_second, &mut round).await;
            if manager.strong_count() == 0 {
                return;
            }
        }
        if round.segments > 0 {
            let Round { segments, bytes, damaged } = round;
            tracing::info!(segments, bytes, damaged, seconds = started.elapsed().as_secs(), "scrubbed closed segments");
        }
        sleep(interval.saturating_sub(started.elapsed())).await;
    }
}

async fn scrub(partition: &Arc<Partition>, bytes_per_second: u64, round: &mut Round) {
    for mut segment in partition.closed_segments() {
        round.segments += 1;
        while !segment.is_done() {
            let started = Instant::now();
            let (stepped, outcome) = task::blocking(move || {
                let outcome = segment.advance(STEP_BYTES);
                (segment, outcome)
            })
            .await;
            segment = stepped;
            match outcome {
                Ok(bytes) => {
                    round.bytes += bytes;
                    sleep(pause(bytes, bytes_per_second, started.elapsed())).await;
                }
                Err(error) => {
                    if partition.on_scrub_error(&segment, &error) {
                        round.damaged += 1;
                    }
                    return;
                }
            }
            if !partition.is_online() {
                return;
            }
        }
    }
}

/// How long to wait after reading so many bytes in so much time.
fn pause(bytes: u64, bytes_per_second: u64, spent: Duration) -> Duration {
    let due = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
    due.saturating_sub(spent)
}

impl Partition {
    /// What can be scrubbed: closed, committed and on disk.
    fn closed_segments(&self) -> Vec<SegmentScrub> {
        self.with_log(|log, high_watermark| log.scrub_closed_segments(high_watermark)).unwrap_or_default()
    }

    /// Returns whether the replica is damaged. What is found in a segment that has been deleted or replaced is not.
    fn on_scrub_error(&self, segment: &SegmentScrub, error: &vltava_storage::StorageError) -> bool {
        let is_ours = self.with_log(|log, _| log.holds(segment)).unwrap_or(false);
        if is_ours {
            self.on_read_error(error);
        }
        is_ours
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;

    #[test]
    fn reading_keeps_to_its_rate() {
        let ms = Duration::from_millis;
        assert_eq!(pause(1000, 1000, ms(0)), ms(1000));
        assert_eq!(pause(1000, 4000, ms(50)), ms(200));
        assert_eq!(pause(1000, 4000, ms(300)), ms(0), "a slow disk is not made slower");
    }
}
