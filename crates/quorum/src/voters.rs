//! Who may vote in the quorum, as far as this node knows.

use std::collections::{BTreeMap, BTreeSet};

use vltava_metadata::Endpoint;
use vltava_types::BrokerId;

use crate::identity::Identity;
use crate::types::RaftMetrics;

/// The voters and where they answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// Sets of voters of which each may be the one whose majority is a quorum: those configured, those of the latest
    /// membership in this node's log, and those of the committed one. A change of voters has two sets in each.
    pub sets: Vec<BTreeSet<BrokerId>>,
    pub endpoints: BTreeMap<BrokerId, Endpoint>,
}

pub(crate) fn current(identity: &Identity, metrics: &RaftMetrics) -> Voters {
    let configured: BTreeSet<u64> = identity.voters.keys().copied().collect();
    let mut sets = vec![configured];
    sets.extend_from_slice(metrics.membership_config.membership().get_joint_config());
    sets.extend_from_slice(metrics.committed_membership_config.membership().get_joint_config());
    sets.retain(|set| !set.is_empty());
    sets.sort_unstable();
    sets.dedup();
    let all: BTreeSet<u64> = sets.iter().flatten().copied().collect();
    Voters {
        sets: sets.into_iter().map(|set| set.into_iter().map(broker_id).collect()).collect(),
        endpoints: all.into_iter().filter_map(|id| Some((broker_id(id), identity.endpoint_of(id)?))).collect(),
    }
}

fn broker_id(node_id: u64) -> BrokerId {
    BrokerId(i32::try_from(node_id).expect("node ids come from broker ids"))
}
