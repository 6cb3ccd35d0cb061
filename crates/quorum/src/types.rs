//! The types that our Raft is made of.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use vltava_metadata::Endpoint;
use vltava_types::DirectoryId;

#[cfg(vltava_sim)]
use crate::simulated_runtime::SimulatedRuntime as Runtime;
#[cfg(not(vltava_sim))]
use openraft::impls::TokioRuntime as Runtime;

openraft::declare_raft_types!(
    /// Our instance of Raft. At most one leader per term (`leader_id_std`), so that the term is the controller epoch.
    pub TypeConfig:
        D = RecordSet,
        R = Applied,
        NodeId = u64,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type Payload = openraft::EntryPayload<RecordSet, u64, Member>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Member>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, Bytes>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;
pub(crate) type Vote = openraft::impls::Vote<leader_id_std::LeaderId<u64, u64>>;

/// A node of the quorum as its membership records it.
///
/// The directory id is part of the identity: a node whose directory was wiped has another one, and counts for nothing
/// until the membership has been changed to that one (trap 13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub directory_id: DirectoryId,
    pub endpoint: Endpoint,
}

impl Default for Member {
    fn default() -> Self {
        let endpoint = Endpoint { host: String::new(), port: 0, security_protocol: "PLAINTEXT".to_owned() };
        Self { directory_id: DirectoryId::ZERO, endpoint }
    }
}

/// The application data of one log entry: encoded metadata records, decided by the controller of one term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    /// The term in which the records were decided. An entry that ends up in the log of another term is void: it was
    /// decided on a state that another controller may have changed since (trap 14).
    pub term: u64,
    pub records: Bytes,
}

impl fmt::Display for RecordSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes of records of term {}", self.records.len(), self.term)
    }
}

/// What became of an entry when it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The image now contains it.
    Replayed,
    /// The entry carried no records, or records decided in another term.
    Nothing,
}

impl fmt::Display for Applied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Replayed => "replayed",
            Self::Nothing => "nothing",
        })
    }
}

/// The log id of `index` in `term`.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

/// The term of a log id.
pub(crate) fn term_of(log_id: &LogId) -> u64 {
    *log_id.leader_id
}
