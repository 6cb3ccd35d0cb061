//! Replication of one partition, as pure decisions: the high watermark, the in-sync replica set, leader epochs,
//! truncation and producer state.
//!
//! Nothing here reads a clock, a file or a socket: times and facts come in as arguments, and what has to be done goes
//! out as a list of actions. The rules are Kafka's, with the corrections of KIP-101, 279, 320, 497, 841, 903 and 966.

mod cut_off;
mod epoch_cache;
mod fencing;
mod follower;
mod leader;
mod producer_states;

pub use cut_off::{CutOff, MAX_SIGHTING_AGE_MS, Sighting, Sign};
pub use epoch_cache::{EpochCache, EpochEndOffset, EpochEntry};
pub use fencing::{FencingError, check_leader_epoch};
pub use follower::{FollowerAction, FollowerState, LeaderMessageError};
pub use leader::{
    AckState, BrokerStatus, Durability, FetchPosition, FollowerError, FollowerSubscription, IsrProposal, IsrRejection,
    LeaderAction, LeaderState, LogOffsets, NotEnoughReplicas, OffsetNotAvailable, PartitionAssignment,
    ReplicationConfig, fetch_position,
};
pub use producer_states::{
    ActiveProducer, CompletedTransaction, Duplicate, LastRecord, ProducerBatch, ProducerSnapshotEntry, ProducerStates,
    RETAINED_BATCHES, SequenceCheck, SequenceError, TransactionMarker,
};
