//! What fuzzers drive: one module a target, each with a `run` from bytes to nothing.
//!
//! A run may panic for one reason only: what it was given has broken a promise of the crate it drives. Everything bytes
//! may say is either refused as a value or served within bounds of memory. `fuzz_targets/` gives these functions to
//! libFuzzer, and `tests/corpora.rs` runs them over the corpora with a plain `cargo test`.
//!
//! Checksums would keep a fuzzer out of everything behind them, so that inputs carry a byte of modes that says which of
//! them to mend (see [`input`]).

#![allow(clippy::disallowed_methods, reason = "fuzzers run on the real machine and are never simulated")]

pub mod controller_requests;
pub mod group_coordinator;
pub mod index_files;
mod input;
pub mod metadata_records;
pub mod peer_messages;
pub mod record_batches;
pub mod request_frames;
pub mod segment_recovery;
pub mod settings;
mod stored_log;

/// A target: from bytes to nothing.
pub type Run = fn(&[u8]);

/// Every target by name, as in `fuzz_targets/` and `corpus/`.
pub const TARGETS: &[(&str, Run)] = &[
    ("request_frames", request_frames::run),
    ("record_batches", record_batches::run),
    ("segment_recovery", segment_recovery::run),
    ("index_files", index_files::run),
    ("metadata_records", metadata_records::run),
    ("controller_requests", controller_requests::run),
    ("peer_messages", peer_messages::run),
    ("group_coordinator", group_coordinator::run),
    ("settings", settings::run),
];
