//! The names everything else is written in: offsets, epochs, ids and error codes, each a type of its own.
//!
//! This crate has no logic beyond construction, comparison and printing, and depends on nothing of ours.

mod error_code;
mod ids;
pub mod mutation;
mod numbers;

pub use error_code::ErrorCode;
pub use ids::{DirectoryId, IncarnationId, ParseUuidError, TopicId, TopicPartition, Uuid};
pub use numbers::{
    BrokerEpoch, BrokerId, LeaderEpoch, MetadataOffset, Offset, PartitionEpoch, PartitionIndex, ProducerEpoch,
    ProducerId, Sequence, TimestampMs,
};
