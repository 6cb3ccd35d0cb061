//! What each producer last wrote, from a snapshot and the batches after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use vltava_host::fs::{self, FileExt};
use vltava_replication::ProducerStates;
use vltava_types::Offset;

use crate::error::AtPath;
use crate::log::replay_producer;
use crate::scan::{Scan, ScannedBatch};
use crate::segment::{SNAPSHOT_SUFFIX, Segment, file_path};
use crate::{StorageError, producer_snapshot};

/// Newest snapshot that is whole, then the headers of everything after it. Torn snapshots and those outside of the log are
/// removed.
pub(crate) fn load_producers(
    directory: &Path,
    snapshots: &mut BTreeSet<Offset>,
    segments: &[Arc<Segment>],
    log_end_offset: Offset,
) -> Result<ProducerStates, StorageError> {
    let mut producers = ProducerStates::default();
    let mut from = segments[0].base_offset;
    while let Some(newest) = snapshots.last().copied() {
        let path = file_path(directory, newest, SNAPSHOT_SUFFIX);
        // What producers did between an older one and the first segment is not there to be replayed.
        if (segments[0].base_offset..=log_end_offset).contains(&newest)
            && let Some(snapshot) = producer_snapshot::read(&path)?
        {
            producers = snapshot;
            from = from.max(newest);
            break;
        }
        fs::remove_file(&path).at(&path)?;
        snapshots.remove(&newest);
    }
    let first = segments.partition_point(|segment| segment.base_offset <= from).saturating_sub(1);
    for segment in &segments[first..] {
        let Some(start) = segment.find(from, segment.size())? else { continue };
        let mut scan = segment.scan(start.position, segment.size(), Scan::LONG);
        while let Some(batch) = scan.next()? {
            replay_stored(&mut producers, segment, &batch)?;
        }
    }
    Ok(producers)
}

fn replay_stored(producers: &mut ProducerStates, segment: &Segment, batch: &ScannedBatch) -> Result<(), StorageError> {
    /// Far more than a transaction marker takes.
    const MAX_CONTROL_BATCH: u64 = 64 << 10;
    let mut bytes = Vec::new();
    if batch.header.is_control() && batch.header.has_producer_id() && batch.size() <= MAX_CONTROL_BATCH {
        bytes.resize(batch.header.size(), 0);
        segment.file().handle()?.read_exact_at(&mut bytes, batch.position).at(segment.path())?;
    }
    replay_producer(producers, &batch.header, &bytes);
    Ok(())
}

/// Keeps the newest snapshot and those at the start of a segment, which a truncation may need.
pub(super) fn remove_stray_snapshots(
    directory: &Path,
    snapshots: &mut BTreeSet<Offset>,
    segments: &[Arc<Segment>],
) -> Result<(), StorageError> {
    let newest = snapshots.last().copied();
    let stray: Vec<_> = snapshots
        .iter()
        .copied()
        .filter(|offset| Some(*offset) != newest && !segments.iter().any(|segment| segment.base_offset == *offset))
        .collect();
    for offset in stray {
        let path = file_path(directory, offset, SNAPSHOT_SUFFIX);
        fs::remove_file(&path).at(&path)?;
        snapshots.remove(&offset);
    }
    Ok(())
}
