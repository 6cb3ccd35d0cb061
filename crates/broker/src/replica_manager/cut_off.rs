//! Looking for the others while the controller is silent: are they dead, or only out of reach?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use vltava_metadata::Endpoint;
use vltava_peer::client::{Probe, probe};
use vltava_replication::{CutOff, Sighting, Sign};
use vltava_types::BrokerId;

use super::ReplicaManager;

/// The pause between looks. With two rounds of [`PATIENCE`] it stays well below the age at which a sighting expires.
const INTERVAL: Duration = Duration::from_millis(300);

/// How long a machine may take to say that nobody listens. Whoever takes longer has said nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// Nodes that are looked for at the same time.
const MAX_PROBES: usize = 16;

/// The longest sleep while the session stands: what the lease is at first is far away.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Looks for the others whenever this broker's session has run out, until the manager is gone.
pub(super) async fn watch(manager: Weak<ReplicaManager>) {
    loop {
        let pause = match manager.upgrade() {
            None => return,
            Some(manager) => match manager.surroundings.lease_remaining() {
                Duration::ZERO => {
                    manager.look_for_others().await;
                    INTERVAL
                }
                remaining => remaining.min(MAX_SLEEP),
            },
        };
        tokio::time::sleep(pause).await;
    }
}

impl ReplicaManager {
    /// Voters first. Only if they cannot make a quorum it matters whether the other in-sync replicas are alive.
    async fn look_for_others(&self) {
        let voters = self.controller.voters();
        let mut cut_off = CutOff {
            broker_id: self.config.node_id,
            voter_sets: voters.sets,
            sightings: self.look_for(voters.endpoints).await,
        };
        if cut_off.precludes_other_quorum(self.surroundings.now_ms()) {
            let unseen = self.in_sync_elsewhere(&cut_off);
            cut_off.sightings.extend(self.look_for(unseen).await);
        }
        *self.surroundings.cut_off.lock() = Some(Arc::new(cut_off));
        for partition in self.partitions() {
            partition.on_cut_off();
        }
    }

    /// The in-sync replicas of what is led here that have not been looked for.
    fn in_sync_elsewhere(&self, seen: &CutOff) -> BTreeMap<BrokerId, Endpoint> {
        let in_sync: BTreeSet<BrokerId> =
            self.partitions().iter().flat_map(|partition| partition.maximal_isr()).collect();
        let image = self.applied.borrow().clone();
        let unseen = in_sync.into_iter().filter(|id| !seen.sightings.contains_key(id));
        unseen.filter_map(|id| Some((id, image.broker(id)?.peer.clone()))).collect()
    }

    async fn look_for(&self, nodes: BTreeMap<BrokerId, Endpoint>) -> BTreeMap<BrokerId, Sighting> {
        let others = nodes.into_iter().filter(|(id, _)| *id != self.config.node_id);
        let looks = others.map(|(id, endpoint)| async move {
            let at_ms = self.surroundings.now_ms();
            let sign = match tokio::time::timeout(PATIENCE, probe(&endpoint)).await {
                Ok(Probe::Listening) => Sign::Reachable,
                Ok(Probe::Refused) => Sign::Refused,
                Ok(Probe::Unknown) | Err(_) => Sign::Unknown,
            };
            (id, Sighting { sign, at_ms })
        });
        stream::iter(looks).buffer_unordered(MAX_PROBES).collect().await
    }
}
