//! Stories about the controller, and properties of whatever it decides.

mod brokers;
mod partitions;
mod properties;
mod topics;
mod traps;
mod world;
