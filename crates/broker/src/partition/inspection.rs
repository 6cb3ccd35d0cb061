//! What the simulator sees of a replica, from outside of the broker that hosts it.

use std::collections::BTreeSet;

use vltava_replication::LogOffsets;
use vltava_storage::LogReader;
use vltava_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

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
    /// The controller's change that this builds upon.
    pub partition_epoch: PartitionEpoch,
    /// Where a client is told that the partition ends; `None` if it is told to ask again.
    pub latest_offset: Option<Offset>,
}

/// What of an inspection moves: as long as a glance shows the same, so would an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    pub offsets: LogOffsets,
    pub leader_epoch: LeaderEpoch,
    /// Of a leader: what it builds upon, whether it has proposed a change, and whether it serves clients.
    pub leads: Option<(PartitionEpoch, bool, bool)>,
    pub has_log: bool,
}

impl Partition {
    /// Costs next to nothing.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let state = self.state.lock();
        let (leader_epoch, leads) = match &state.role {
            Role::Follower(follower) => (follower.leader_epoch(), None),
            Role::Leader(leader) => {
                let leads = (leader.partition_epoch(), leader.has_proposal(), self.is_serving());
                (leader.leader_epoch(), Some(leads))
            }
        };
        Glance { offsets: state.role.offsets(), leader_epoch, leads, has_log: state.log.is_some() }
    }

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
                    partition_epoch: leader.partition_epoch(),
                    latest_offset: leader.latest_offset().ok().filter(|_| self.is_serving()),
                };
                (leader.leader_epoch(), Some(leads))
            }
        };
        let log = state.log.as_ref().map(vltava_storage::Log::reader);
        Inspection { offsets: state.role.offsets(), leader_epoch, leads, log }
    }
}
