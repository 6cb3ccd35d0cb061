//! Log-backed coordinators: pure state machines whose replicated state is what replaying a log gives.
//!
//! [`Coordinator`] is the one core: it decides (records, replies, and what to do once the records are durable), and it
//! replays. A shell owns the log, the clock, sockets and channels; see the broker's `coordinator` module. [`group`]
//! is the group coordinator with its state in `__consumer_offsets`; transactions will stand beside it.
//!
//! This crate never awaits, reads a clock or draws a random number.

mod core;
pub mod group;
mod partition;
pub mod records;

pub use crate::core::{Coordinator, Decision, LogRecord, Now, Outcome, Reply, Token, client_error_of_failed_append};
pub use crate::partition::partition_for;
