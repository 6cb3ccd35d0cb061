//! Opening a log: what can be trusted, what is scanned again, and where the log ends.

use vltava_types::Offset;

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of log that were read and checked by CRC.
    pub bytes_scanned: u64,
    /// Bytes that were cut off behind the last valid batch.
    pub bytes_cut: u64,
    /// Segments whose indexes were rebuilt.
    pub indexes_rebuilt: usize,
    /// The log ends below this offset, which was known to be committed here (the checkpointed high watermark) or on
    /// disk (the checkpointed recovery point): the disk lost data. The replica must not count as in sync, nor be
    /// elected, until it has caught up (traps 12, 26).
    pub lost_below: Option<Offset>,
}
