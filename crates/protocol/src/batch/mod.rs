//! Record batches of format 2, the only one that Kafka 4 writes: a header of 61 bytes, then records.
//!
//! A batch is kept as the producer sent it, from the request to the segment to the consumer. [`BatchHeader`] reads its
//! header, [`batches`] walks a run of them, [`stamp`] patches what the leader decides, [`validate`] says whether a
//! leader may append it, [`records`](records()) looks inside, [`BatchBuilder`] writes new ones for coordinators, and
//! [`retain_records`] takes records out for compaction.

mod builder;
mod filter;
mod header;
mod records;
pub mod stamp;
mod validate;

pub use builder::BatchBuilder;
pub use filter::{RetainedRecords, empty_batch, retain_records};
pub use header::{
    Attributes, BatchError, BatchHeader, BatchView, Batches, HEADER_SIZE, LOG_OVERHEAD, MAGIC, TimestampType, batches,
};
pub use records::{ControlKind, Record, RecordError, RecordHeader, Records, records};
pub use validate::{
    CompressionPolicy, InvalidBatch, Origin, Rejection, ValidatedBatch, ValidationRules, validate,
    validate_produce_format,
};
