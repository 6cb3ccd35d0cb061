//! Partition logs on disk, in Kafka's own directory and file layout.
//!
//! [`Log`] is one partition's log: segments, sparse indexes, leader epochs and producer states, with recovery,
//! truncation and retention. It is synchronous; its owner serialises writers. [`LogReader`] reads without the owner's
//! lock. [`LogDir`] is one `log.dirs` entry with its checkpoints; [`LogManager`] is all of them. [`Flusher`] makes
//! dirty logs durable, many with one wait (group commit). [`CleaningPass`] compacts a log. [`inspect`] looks at all of it from outside.
//!
//! This crate does not know who leads a partition, what the high watermark is (it is told), or what a record
//! means: batches are stored exactly as they came over the wire, checked and stamped by the caller.
//!
//! Invariant, per log: `log_start_offset <= recovery_point <= log_end_offset`, where everything below the recovery
//! point is on disk.

mod checkpoint;
mod cleaner;
mod config;
mod epoch_checkpoint;
mod error;
mod flusher;
mod index;
mod inspection;
mod lazy_file;
mod load_progress;
mod log;
mod log_dir;
mod log_manager;
mod meta_properties;
mod partition_metadata;
mod partition_name;
mod presence;
mod producer_snapshot;
mod reader;
mod recovery;
mod region;
mod relocation;
mod retention;
mod scan;
mod scrub;
mod segment;
mod truncation;

pub use checkpoint::OffsetCheckpoint;
pub use cleaner::{
    CleanableRange, CleanedSegment, CleanedUpTo, CleanerOptions, CleaningError, CleaningPass, CleaningStats,
    CleaningStep, LogFacts, OffsetMapLimits, SegmentFacts, Throttle, cleanable_range, dirtiest,
};
pub use config::LogConfig;
pub use error::StorageError;
pub use flusher::{Flush, Flushable, Flusher};
pub use inspection::{Depth, Finding, Inspection, SegmentSummary, Severity, inspect};
pub use load_progress::{LoadProgress, Loading};
pub use log::{Appended, Log, LogOptions, RecoveryCheckpoint, RecoveryPoints};
pub use log_dir::{LoadFailure, LoadedLog, LogDir};
pub use log_manager::LogManager;
pub use meta_properties::MetaProperties;
pub use partition_name::{ParsePartitionNameError, PartitionName};
pub use presence::LogCheckpoint;
pub use reader::{LogReader, ReadLimits, TimestampedOffset};
pub use recovery::RecoveryReport;
pub use region::{FileRegion, WarmRead};
pub use relocation::{Copied, FutureLog, Rival, is_newer};
pub use retention::DeletedSegments;
pub use scrub::SegmentScrub;
pub use segment::SegmentInfo;

/// The directory of the metadata quorum's log, which stands among the partitions but is not loaded with them.
pub const METADATA_TOPIC_DIRECTORY: &str = "__cluster_metadata-0";
