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
mod workload;

pub use cluster::{Cluster, ClusterOptions};
pub use history::{Acknowledged, History, Violation};
pub use workload::{find_leader, produce_values, read_to_end};
