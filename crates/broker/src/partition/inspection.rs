//! What the simulator sees of a replica, from outside of the broker that hosts it.

use std::collections::BTreeSet;

use vltava_replication::LogOffsets;
use vltava_storage::LogReader;
use vltava_types::{BrokerId, LeaderEpoch};

use super::{Partition, Role};

/// One replica at one moment.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub offsets: LogOffsets,
    pub leader_epoch: LeaderEpoch,
    /// `None` for a follower.
    pub leads: Option<Leads>,
    /// `None` once the replica was given up.
    pub log: Option<LogReader>,
}

/// What a leader believes.
#[derive(Clone, Debug)]
pub struct Leads {
    pub isr: BTreeSet<BrokerId>,
    pub maximal_isr: BTreeSet<BrokerId>,
    pub has_proposal: bool,
}

impl Partition {
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let state = self.state.lock();
        let (leader_epoch, leads) = match &state.role {
            Role::Follower(follower) => (follower.leader_epoch(), None),
            Role::Leader(leader) => {
                let leads = Leads {
                    isr: leader.isr().clone(),
                    maximal_isr: leader.maximal_isr().collect(),
                    has_proposal: leader.has_proposal(),
                };
                (leader.leader_epoch(), Some(leads))
            }
        };
        let log = state.log.as_ref().map(vltava_storage::Log::reader);
        Inspection { offsets: state.role.offsets(), leader_epoch, leads, log }
    }
}
