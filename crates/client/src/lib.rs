//! A small Kafka client for tests, the simulator and the command line. It speaks the public protocol only.
//!
//! [`Connection`] is one socket: typed requests, correlated answers, bounded frames, time limits. [`Client`] finds the
//! leaders of a cluster and sends requests to them, once each: whether to try again is the caller's decision, which
//! [`ClientError::is_retriable`] helps with.

mod client;
mod connection;
mod error;

pub use client::{Client, Fetched, ProducedBatch};
pub use connection::{Connection, CorrelationId, Options};
pub use error::ClientError;
