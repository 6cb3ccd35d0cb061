//! Brokers that were fenced a moment ago, which Metadata goes on to list for that moment.
//!
//! librdkafka 2.10 and later drops a broker that is missing from a Metadata answer. If the same answer gives the broker's
//! partitions to others, dropping it undoes the move, and the partitions stand still until a timer comes by a second
//! later. So the partitions move in one answer, and the broker goes missing in a later one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_host::task::{self, JoinHandle};
use vltava_metadata::ClusterImage;
use vltava_types::BrokerId;

/// Clients ask as soon as a connection breaks. By then they have all asked.
const LISTED_FOR: Duration = Duration::from_secs(3);

/// Follows images until it is dropped.
pub struct FencedLately {
    known: Arc<Known>,
    task: JoinHandle<()>,
}

/// Brokers that were live, and since when they are not. Those fenced for longer are forgotten.
#[derive(Default)]
struct Known {
    since: Mutex<BTreeMap<BrokerId, Option<Instant>>>,
}

impl FencedLately {
    /// Must be called on a runtime.
    pub fn start(mut images: watch::Receiver<Arc<ClusterImage>>) -> Self {
        let known = Arc::<Known>::default();
        known.update(&images.borrow_and_update().clone(), Instant::now());
        let updated = Arc::clone(&known);
        let task = task::spawn(async move {
            while images.changed().await.is_ok() {
                let image = images.borrow_and_update().clone();
                updated.update(&image, Instant::now());
            }
        });
        Self { known, task }
    }

    /// Whether a broker that the newest image has fenced was live a moment ago.
    pub fn contains(&self, broker_id: BrokerId) -> bool {
        self.known.contains(broker_id, Instant::now())
    }
}

impl Drop for FencedLately {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Known {
    fn update(&self, image: &ClusterImage, now: Instant) {
        let mut since = self.since.lock();
        since.retain(|broker_id, since| {
            // A broker that is unregistered is meant to be forgotten.
            let Some(broker) = image.broker(*broker_id) else { return false };
            if broker.fenced {
                let since = since.get_or_insert(now);
                return now < *since + LISTED_FOR;
            }
            true
        });
        since.extend(image.live_brokers().map(|broker| (broker.broker_id, None)));
    }

    /// One that was never seen fenced here is fenced by an image that is only just arriving.
    fn contains(&self, broker_id: BrokerId, now: Instant) -> bool {
        let since = self.since.lock();
        since.get(&broker_id).is_some_and(|since| since.is_none_or(|since| now < since + LISTED_FOR))
    }
}

#[cfg(test)]
mod tests {
    use vltava_metadata::{BrokerRegistration, Endpoint, MetadataRecord};
    use vltava_types::{BrokerEpoch, IncarnationId};

    use super::*;

    fn image(fenced: Option<bool>) -> ClusterImage {
        let mut image = ClusterImage::default();
        if let Some(fenced) = fenced {
            image.replay(&MetadataRecord::RegisterBroker(BrokerRegistration {
                broker_id: BrokerId(1),
                broker_epoch: BrokerEpoch(1),
                incarnation_id: IncarnationId::ZERO,
                listeners: BTreeMap::new(),
                peer: Endpoint { host: "a".to_owned(), port: 1, security_protocol: "PLAINTEXT".to_owned() },
                rack: None,
                log_dirs: vec![],
                is_broker: true,
                fenced,
                in_controlled_shutdown: false,
            }));
        }
        image
    }

    #[test]
    fn a_broker_is_listed_for_a_moment_after_it_was_fenced() {
        let known = Known::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        known.update(&image(Some(true)), at(0));
        assert!(!known.contains(BrokerId(1), at(0)), "it was never live");
        known.update(&image(Some(false)), at(0));
        assert!(known.contains(BrokerId(1), at(9000)), "an image that fences it may be on its way");
        known.update(&image(Some(true)), at(10_000));
        known.update(&image(Some(true)), at(11_000));
        assert!(known.contains(BrokerId(1), at(12_999)));
        assert!(!known.contains(BrokerId(1), at(13_000)));
        known.update(&image(Some(false)), at(14_000));
        known.update(&image(None), at(14_001));
        assert!(!known.contains(BrokerId(1), at(14_001)), "unregistered");
    }
}
