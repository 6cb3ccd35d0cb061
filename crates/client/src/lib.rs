//! A Kafka client for the command line, the tests and the simulator. It speaks the public protocol only.
//!
//! [`Producer`] and [`Consumer`] do what applications need, under Kafka's names of settings; [`Admin`] does what
//! administrators need, within a time limit. Below them, [`Connection`] is one socket: typed requests, correlated answers,
//! bounded frames, time limits; and [`Client`] finds the leaders of a cluster and sends requests to them, once each:
//! whether to try again is the caller's decision, which [`ClientError::is_retriable`] helps with.

pub mod admin;
mod client;
mod connection;
pub mod consumer;
mod error;
mod link;
mod network;
pub mod producer;
mod settings;
mod view;

pub use admin::{Admin, AdminError, ApiError};
pub use client::{Client, Fetched, ProducedBatch};
pub use connection::{Connection, CorrelationId, Options};
pub use consumer::{ConsumeError, Consumer, ConsumerConfig, ConsumerRecord, Start, TopicPartition};
pub use error::ClientError;
pub use producer::{ProduceError, Producer, ProducerConfig, ProducerRecord, RecordMetadata};
pub use settings::{SettingError, Settings};
pub use view::{ClusterView, PartitionView, TopicView};

/// No batch may unfold to more than this.
const MAX_UNCOMPRESSED_BYTES: usize = 256 * 1024 * 1024;
