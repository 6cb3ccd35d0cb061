//! One node, wired from its parts, for the binary and for the simulator.

pub mod node;
