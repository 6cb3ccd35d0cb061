//! A partition's directory: whether its segments make a log, and what stands beside them.

use std::collections::BTreeSet;
use std::path::Path;

use vltava_host::fs;
use vltava_types::{LeaderEpoch, Offset};

use super::segment::{self, Walked};
use super::{Depth, Inspection, Known};
use crate::epoch_checkpoint::{self, EpochCheckpoint};
use crate::error::AtPath;
use crate::segment::{CLEANED_SUFFIX, DELETED_SUFFIX, LOG_SUFFIX, SNAPSHOT_SUFFIX, SWAP_SUFFIX, file_path};
use crate::{StorageError, partition_metadata, producer_snapshot};

/// Returns where the log ends.
pub(super) fn inspect(
    directory: &Path,
    known: Known,
    depth: Depth,
    inspection: &mut Inspection,
) -> Result<Offset, StorageError> {
    let (segments, snapshots) = list(directory, inspection)?;
    match partition_metadata::read(directory) {
        Ok(Some(_)) => {}
        Ok(None) => inspection.damage(directory, "partition.metadata is missing: nobody knows which topic this is"),
        Err(StorageError::Corrupt { path, reason, .. }) => inspection.damage(&path, reason),
        Err(error) => return Err(error),
    }
    let mut end_offset = segments.first().copied().unwrap_or_default();
    let mut epochs: Vec<(LeaderEpoch, Offset)> = vec![];
    let mut was_torn = false;
    for (index, &base_offset) in segments.iter().enumerate() {
        let path = file_path(directory, base_offset, LOG_SUFFIX);
        if index > 0 && base_offset != end_offset {
            let severity = known.severity(base_offset);
            let what = match base_offset > end_offset {
                true if was_torn => {
                    format!("it cannot be reached: what comes before it ends torn, at offset {end_offset}")
                }
                true => format!("there is a hole: offsets {end_offset} to {} are in no segment", base_offset.plus(-1)),
                false => format!("it begins at offset {base_offset}, and the segment before it ends at {end_offset}"),
            };
            inspection.find(severity, &path, what);
        }
        let next = segments.get(index + 1).copied();
        let walked: Walked = segment::inspect(directory, base_offset, next, known, depth, inspection)?;
        was_torn = walked.has_torn_tail;
        end_offset = walked.end_offset;
        let latest = epochs.last().map_or(LeaderEpoch::NONE, |(epoch, _)| *epoch);
        epochs.extend(walked.epochs.into_iter().filter(|(epoch, _)| *epoch > latest));
    }
    if segments.is_empty() {
        inspection.damage(directory, "there is no segment");
    }
    check_epochs(directory, &epochs, end_offset, known, inspection)?;
    for offset in snapshots {
        let path = file_path(directory, offset, SNAPSHOT_SUFFIX);
        if producer_snapshot::read(&path)?.is_none() {
            let severity = known.severity(offset);
            inspection.find(severity, &path, "the producer snapshot is torn or damaged; it will be passed over");
        } else if offset > end_offset {
            inspection.note(&path, format!("the producer snapshot lies beyond the log's end {end_offset}"));
        }
    }
    Ok(end_offset)
}

/// Base offsets of segments, and offsets of snapshots.
fn list(directory: &Path, inspection: &mut Inspection) -> Result<(Vec<Offset>, BTreeSet<Offset>), StorageError> {
    let mut segments = BTreeSet::new();
    let mut snapshots = BTreeSet::new();
    for entry in fs::read_dir(directory).at(directory)? {
        let path = entry.at(directory)?.path();
        let Some((stem, suffix)) = path.file_name().and_then(|name| name.to_str()?.split_once('.')) else { continue };
        if [DELETED_SUFFIX, "tmp", CLEANED_SUFFIX].iter().any(|left| suffix.ends_with(left)) {
            inspection.note(&path, "left from a deletion, a write or a compaction; the next start removes it");
        } else if suffix.ends_with(SWAP_SUFFIX) {
            inspection.note(&path, "a compacted segment that is not in its place yet; the next start puts it there");
        }
        let Ok(offset) = stem.parse().map(Offset) else { continue };
        match suffix {
            LOG_SUFFIX => _ = segments.insert(offset),
            SNAPSHOT_SUFFIX => _ = snapshots.insert(offset),
            _ => {}
        }
    }
    Ok((segments.into_iter().collect(), snapshots))
}

fn check_epochs(
    directory: &Path,
    epochs: &[(LeaderEpoch, Offset)],
    end_offset: Offset,
    known: Known,
    inspection: &mut Inspection,
) -> Result<(), StorageError> {
    let path = directory.join(epoch_checkpoint::FILE_NAME);
    let Some(checkpointed) = EpochCheckpoint::new(directory).read()? else {
        inspection.note(&path, "it is missing or malformed; the next start reads the epochs from all batches");
        return Ok(());
    };
    for (epoch, first_offset) in epochs {
        let offset = (*first_offset).max(known.log_start_offset);
        let found = checkpointed.epoch_of(offset);
        let next = epochs.iter().find(|(later, _)| later > epoch).map_or(end_offset, |(_, start)| *start);
        // What is below the start was forgotten.
        if next > known.log_start_offset && found != Some(*epoch) {
            let found = found.map_or("no epoch".to_owned(), |found| format!("epoch {found}"));
            let severity = known.severity(offset.plus(1));
            inspection.find(
                severity,
                &path,
                format!("it says {found} for offset {offset}, whose batch has epoch {epoch}"),
            );
        }
    }
    if let Some(beyond) = checkpointed.entries().iter().find(|entry| entry.start_offset > end_offset) {
        let (epoch, start) = (beyond.epoch, beyond.start_offset);
        inspection.note(&path, format!("epoch {epoch} begins at offset {start}, beyond the log's end {end_offset}"));
    }
    Ok(())
}
