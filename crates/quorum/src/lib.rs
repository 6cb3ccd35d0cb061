//! The metadata quorum: Raft over the metadata log, the cluster image it yields, and the active controller.
//!
//! This is the only crate that names OpenRaft. Everything runs on a runtime of its own ([`vltava_host::task`]).

mod handle;

pub use handle::{Handle, QuorumConfig, QuorumStatus, ReplicaStatus, StartError, Unavailable, Voter};
