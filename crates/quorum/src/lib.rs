//! The metadata quorum: Raft over the metadata log, the cluster image it yields, and the active controller.
//!
//! This is the only crate that names OpenRaft. Everything runs on a runtime of its own ([`vltava_host::task`]), so that
//! a saturated data path cannot starve elections. [`Handle`] is all that the rest of the process sees.
//!
//! What must survive a crash (log, vote, snapshots) is on disk before it is answered, whatever the data path does.

mod active_controller;
mod encoding;
mod formation;
mod handle;
mod identity;
mod log_store;
mod membership;
mod network;
mod probe;
mod reserve;
mod service;
mod session;
#[cfg(vltava_sim)]
mod simulated_runtime;
mod snapshot;
mod state_file;
mod state_machine;
mod status;
mod types;
mod voters;
mod wire;

pub use handle::{DEFAULT_ELECTION_TIMEOUT, DEFAULT_SNAPSHOT_EVERY, Handle, QuorumConfig, StartError, Unavailable};
pub use status::{QuorumStatus, ReplicaStatus};
pub use voters::Voters;
