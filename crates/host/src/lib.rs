//! What a broker asks of the machine it runs on: sockets, files, time, randomness and tasks.
//!
//! Every crate that the simulator runs reaches the outside only through here. A normal build uses tokio and the
//! standard library directly, at no cost. A build with `--cfg vltava_sim` uses a simulated network, clock and disk
//! instead, so that a whole cluster runs in one process on one thread, from a seed (DESIGN: seams for simulation).
//!
//! Timers (`tokio::time`) and channels (`tokio::sync`) need no seam: the simulator drives tokio's own clock.

// The one place that may reach the machine directly.
#![allow(clippy::disallowed_methods)]

pub mod clock;
#[cfg(vltava_sim)]
pub mod disk;
pub mod fs;
#[cfg(vltava_sim)]
pub mod machine;
pub mod net;
pub mod random;
pub mod task;
