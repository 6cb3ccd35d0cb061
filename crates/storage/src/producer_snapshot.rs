//! `<offset>.snapshot`: the producer states of everything below the offset, in Kafka's format.
//!
//! ```text
//! version: i16 = 1, crc: u32 (CRC-32C of what follows), number of entries: i32, entries
//! entry: producer_id: i64, epoch: i16, last_sequence: i32, last_offset: i64, offset_delta: i32, timestamp: i64,
//!        coordinator_epoch: i32, current_txn_first_offset: i64
//! ```
//!
//! Snapshots only shorten the replay at start-up, so that they are neither flushed at once nor written atomically: a torn
//! one fails its CRC and is passed over for an older one.

use std::path::Path;

use vltava_host::fs;
use vltava_replication::{ProducerSnapshotEntry, ProducerStates};
use vltava_types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::StorageError;
use crate::error::AtPath;

const VERSION: i16 = 1;
const HEADER_SIZE: usize = 10;
const ENTRY_SIZE: usize = 46;

/// Writes the snapshot; it is not flushed. Without room for it there is none afterwards.
pub(crate) fn write(path: &Path, producers: &ProducerStates) -> Result<(), StorageError> {
    fs::write(path, encode(producers)).unless_full(path).inspect_err(|_| {
        // A torn one would be passed over, but takes room.
        let _ = fs::remove_file(path);
    })
}

/// `None` if the file is not a whole snapshot.
pub(crate) fn read(path: &Path) -> Result<Option<ProducerStates>, StorageError> {
    Ok(decode(&fs::read(path).at(path)?))
}

fn encode(producers: &ProducerStates) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_SIZE];
    let mut count: i32 = 0;
    for entry in producers.snapshot() {
        bytes.extend_from_slice(&entry.producer_id.value().to_be_bytes());
        bytes.extend_from_slice(&entry.producer_epoch.value().to_be_bytes());
        bytes.extend_from_slice(&entry.last_sequence.value().to_be_bytes());
        bytes.extend_from_slice(&entry.last_offset.value().to_be_bytes());
        bytes.extend_from_slice(&entry.offset_delta.to_be_bytes());
        bytes.extend_from_slice(&entry.timestamp.value().to_be_bytes());
        bytes.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        bytes.extend_from_slice(&entry.current_txn_first_offset.map_or(-1, Offset::value).to_be_bytes());
        count += 1;
    }
    bytes[6..HEADER_SIZE].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[6..]);
    bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
    bytes[2..6].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<ProducerStates> {
    let (version, rest) = bytes.split_first_chunk::<2>()?;
    let (crc, contents) = rest.split_first_chunk::<4>()?;
    let (count, entries) = contents.split_first_chunk::<4>()?;
    let (entries, remainder) = entries.as_chunks::<ENTRY_SIZE>();
    let is_whole = i16::from_be_bytes(*version) == VERSION
        && u32::from_be_bytes(*crc) == crc32c::crc32c(contents)
        && usize::try_from(i32::from_be_bytes(*count)) == Ok(entries.len())
        && remainder.is_empty();
    if !is_whole {
        return None;
    }
    let mut producers = ProducerStates::default();
    for entry in entries {
        producers.load(&decode_entry(entry));
    }
    Some(producers)
}

fn decode_entry(bytes: &[u8; ENTRY_SIZE]) -> ProducerSnapshotEntry {
    let mut rest = &bytes[..];
    let entry = ProducerSnapshotEntry {
        producer_id: ProducerId(i64::from_be_bytes(take(&mut rest))),
        producer_epoch: ProducerEpoch(i16::from_be_bytes(take(&mut rest))),
        last_sequence: Sequence(i32::from_be_bytes(take(&mut rest))),
        last_offset: Offset(i64::from_be_bytes(take(&mut rest))),
        offset_delta: i32::from_be_bytes(take(&mut rest)),
        timestamp: TimestampMs(i64::from_be_bytes(take(&mut rest))),
        coordinator_epoch: i32::from_be_bytes(take(&mut rest)),
        current_txn_first_offset: Some(Offset(i64::from_be_bytes(take(&mut rest)))).filter(|first| *first >= Offset(0)),
    };
    assert!(rest.is_empty(), "an entry's fields fill it");
    entry
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (field, rest) = bytes.split_first_chunk::<N>().expect("an entry has all of its fields");
    *bytes = rest;
    *field
}

#[cfg(test)]
mod tests {
    use vltava_replication::{ProducerBatch, ProducerStates};
    use vltava_types::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

    use super::{decode, encode};

    fn producers() -> ProducerStates {
        let mut producers = ProducerStates::default();
        for i in 0..7 {
            producers.apply(&ProducerBatch {
                producer_id: ProducerId(4000 + i % 2),
                producer_epoch: ProducerEpoch(3),
                base_sequence: Sequence(i as i32 * 10),
                last_sequence: Sequence(i as i32 * 10 + 9),
                base_offset: Offset(i * 10),
                last_offset: Offset(i * 10 + 9),
                timestamp: TimestampMs(1_000 + i),
                is_transactional: false,
            });
        }
        producers
    }

    #[test]
    fn snapshots_round_trip() {
        assert_eq!(decode(&encode(&producers())), Some(producers()));
        assert_eq!(decode(&encode(&ProducerStates::default())), Some(ProducerStates::default()));
    }

    #[test]
    fn a_torn_or_changed_snapshot_is_refused() {
        let bytes = encode(&producers());
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "cut to {length}");
        }
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert_eq!(decode(&changed), None, "changed at {position}");
        }
    }
}
