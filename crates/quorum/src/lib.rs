//! The metadata quorum: Raft over the metadata log, the cluster image it yields, and the active controller.
//!
//! This is the only crate that names OpenRaft. Everything runs on a runtime of its own ([`vltava_host::task`]), so that
//! a saturated data path cannot starve elections. [`Handle`] is all that the rest of the process sees.
//!
//! What must survive a crash (log, vote, snapshots) is on disk before it is answered, whatever the data path does.
//!
//! When the leader is cut off silently, and with it the broker that leads partitions, writes wait for the longer of two
//! times, with default settings counted from its last sign of life:
//!
//! - its broker's session, 2000 ms, and 250 ms for which it may still have answered its own broker (`active_controller`);
//! - an election, after 500 ms of lease and 250 to 500 ms drawn at random (`handle`), undisturbed by another candidate
//!   (`pre_vote`), and the quarter of a session that a new controller gives its predecessor to be heard of.
//!
//! The second leaves time for one election that fails. A follower that was stopped itself, and takes its own absence
//! for the leader's, is turned down by those that still hear the leader.

mod active_controller;
mod encoding;
mod formation;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod identity;
mod log_store;
mod membership;
mod network;
#[cfg(vltava_sim)]
pub mod power_loss;
mod pre_vote;
mod probe;
mod reserve;
mod retained;
mod service;
mod session;
#[cfg(vltava_sim)]
mod simulated_runtime;
mod snapshot;
mod standing;
mod state_file;
mod state_machine;
mod status;
mod types;
mod voters;
mod wire;

pub use handle::{DEFAULT_ELECTION_TIMEOUT, DEFAULT_SNAPSHOT_EVERY, Handle, QuorumConfig, StartError, Unavailable};
pub use status::{QuorumStatus, ReplicaStatus};
pub use voters::Voters;
