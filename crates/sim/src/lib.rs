//! Whole clusters in one process, on a simulated clock, network and disk, from a seed.
//!
//! Brokers are the very nodes that the binary runs (`vltava::node`); `vltava_host` gives them turmoil's sockets and
//! files. A [`Cluster`] is stepped from outside, where faults are injected; clients run inside, as hosts of their own.

#[cfg(not(all(vltava_sim, tokio_unstable)))]
compile_error!(
    "build in crates/sim, where .cargo/config.toml sets the simulator's flags, and without a RUSTFLAGS variable"
);

mod cluster;
mod history;
pub mod long_run;
mod network;
mod scenario;
mod trace;
mod workload;

pub use cluster::{Cluster, ClusterOptions, Ending, Meanwhile, is_noticeable};
pub use history::{Acknowledged, History, Violation};
pub use network::{NetworkState, ordered};
pub use scenario::{Fault, Outcome, Scenario, Victim};
pub use trace::{Trace, show_events};
pub use workload::{Producer, acts_as_leader, find_controller, find_leader, read_to_end, tail, wait_until_in_sync};
