//! Kafka's wire format: which requests are spoken, how frames are read and written, and what a record batch is.
//!
//! The messages themselves are generated (docs/adr holds the choice of the codec crate); this crate adds what a broker
//! needs around them. It owns no socket and no state. Everything it reads may be hostile: each length is checked against
//! what remains before anything is allocated, and errors are values.

pub mod batch;
pub mod compression;
pub mod fetch_frame;
pub mod frame;
pub mod messages;
mod refusal;
pub mod versions;
